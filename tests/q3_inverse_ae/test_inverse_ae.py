"""`q3_inverse_ae.inverse_ae` builds pairs of layers and pays for their inversion.

What holds for all autoencoders is tested for the controls too; see `oracles`.
"""

import functools
import itertools
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from q3_inverse_ae import inverse_ae
from q3_inverse_ae.inverse_ae import (
    build_autoencoder,
    check_images,
    participation_ratio,
    unexplained_variance,
)
from tests.q3_inverse_ae import oracles
from tests.q3_inverse_ae.oracles import CODE, GOOD, KINDS, LAYERED, eager, noise, small
from tests.two_devices import mirrored

DEFAULT_WIDTHS = inverse_ae.WIDTHS
NAMES = {"reconstruction"} | {f"inversion_{i}" for i in range(1, 5)}
close = np.testing.assert_allclose
equal = np.testing.assert_array_equal


def first_epoch(model, images, **options):
    options = {"batch_size": 20, "shuffle": False, "verbose": 0} | options
    return {k: values[0] for k, values in model.fit(images, **options).history.items()}


def assert_logs(found, expected, rtol=1e-4):
    assert found.keys() == expected.keys()
    for name in expected:
        close(found[name], expected[name], rtol, err_msg=name)


def test_both_kinds_have_as_many_pairs_and_the_same_code(monkeypatch):
    monkeypatch.setattr(inverse_ae, "WIDTHS", DEFAULT_WIDTHS)
    dense, conv = (build_autoencoder(kind) for kind in ("dense", "conv"))
    widths = [[f.output.shape[-1] for f, _ in each.pairs] for each in (dense, conv)]
    assert widths == [[512, 256, 128, 32], [8, 32, 64, 32]]
    assert conv.encoder.output_shape == (None, 1, 1, 32)
    # This kind has convolutions only.
    layers = [*conv.encoder.layers[1:], *conv.decoder.layers[1:]]
    types = [keras.layers.Conv2D] * 4 + [keras.layers.Conv2DTranspose] * 4
    assert [type(layer) for layer in layers] == types


@KINDS
@LAYERED
def test_layers_are_those_of_numpy_in_double_precision(kind, variant):
    model, shapes = small(kind, variant, dtype="float64"), oracles.STATES[kind]
    rng, kernels = np.random.default_rng(3), oracles.KERNELS[kind]
    pairs = zip(model.pairs, oracles.plain_pairs(model), kernels, strict=True)
    for i, ((encode, decode), (f, g), kernel) in enumerate(pairs):
        assert encode.kernel.shape == kernel
        x, z = (rng.normal(size=(2, *shape)) for shape in shapes[i : i + 2])
        close(encode(x), f(x), rtol=1e-10, atol=1e-12)
        close(decode(z), g(z), rtol=1e-10, atol=1e-12)
    assert model.encoder.input_shape == model.decoder.output_shape == (None, 28, 28, 1)
    assert model.encoder.output_shape == model.decoder.input_shape == (None, *shapes[4])
    images = np.float64(noise())
    expected = oracles.plain_states(model, images)[2][0].reshape(images.shape)
    close(model(images), expected, rtol=1e-10, atol=1e-12)


@KINDS
@LAYERED
def test_the_decoder_starts_as_the_mirror_of_an_orthogonal_encoder(kind, variant):
    gains = {"dense": [1, 1, 1, 1], "conv": [1 / 2, 1 / 2, 2 / 3, 1]}[kind]
    pairs = oracles.untouched(kind, variant).pairs
    for (encode, decode), gain in zip(pairs, gains, strict=True):
        kernel = encode.kernel.numpy()
        columns = kernel.reshape(-1, kernel.shape[-1])
        close(columns.T @ columns, gain**2 * np.eye(kernel.shape[-1]), atol=1e-5)
        if variant != "tied":
            equal(decode.get_weights()[0], kernel.T if kind == "dense" else kernel)
        for bias in (encode.bias.numpy(), bias_of(decode)):
            equal(bias, np.zeros(bias.shape))


def parts_of(layer):
    """Returns a layer, or the layers in it, but none that only takes an input."""
    parts = [part for each in getattr(layer, "layers", ()) for part in parts_of(each)]
    return parts or [layer] * (not isinstance(layer, keras.layers.InputLayer))


PRECISIONS = [*itertools.product(oracles.WIDTHS, oracles.CLASSES, ["float32"])]
PRECISIONS += [(*model, "mixed_float16") for model in oracles.MOST]
PRECISIONS += itertools.product(oracles.WIDTHS, ["ours"], ["mixed_bfloat16", "float64"])
RTOL = {"mixed_float16": 0.01, "mixed_bfloat16": 0.05, "float32": 1e-4, "float64": 1e-5}


@pytest.mark.parametrize("kind, variant, dtype", PRECISIONS)
def test_cost_and_metrics_are_those_of_numpy_and_training_moves(kind, variant, dtype):
    optimizer = keras.optimizers.Adam(0.01)
    if dtype == "mixed_float16":  # `compile` would begin at a scale that skips steps
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256)
    model, images = eager(small(kind, variant, dtype=dtype), optimizer), noise()
    policy = keras.dtype_policies.DTypePolicy(dtype)
    before = model.get_weights()
    assert {weight.dtype for weight in model.weights} == {policy.variable_dtype}
    for part in parts_of(model):
        assert part.compute_dtype == policy.compute_dtype, part.name
    assert model(images).dtype == policy.compute_dtype
    expected = oracles.expected_logs(model, images)
    assert expected.keys() == NAMES | {"loss"}
    assert min(expected[name] for name in NAMES) > 0.05
    for batch in (model.test_on_batch, model.train_on_batch):
        assert_logs(batch(images, return_dict=True), expected, RTOL[dtype])
    for weight, old in zip(model.get_weights(), before, strict=True):
        assert weight.dtype == old.dtype
        assert np.isfinite(weight).all()
        assert abs(weight - old).max() > 1e-3


@pytest.mark.parametrize("kind, own", [("dense", (0.5, 0.02)), ("conv", (0.1, 0.014))])
def test_the_weights_scale_the_terms_and_not_the_metrics(kind, own):
    of_numpy = np.float32(0.25), np.int32(1)  # as good as numbers of Python
    for inversion, rank in (own, (2.5, 1.5), (0, 1.5), (2, 0), of_numpy):
        weights = {"inversion_weight": inversion, "rank_weight": rank}
        given = {} if (inversion, rank) == own else weights
        model = build_autoencoder(kind, np.int64(CODE), **given)
        config = json.loads(json.dumps(model.get_config()))
        assert (weights | {"code_dim": CODE}).items() <= config.items()
        logs = eager(model).test_on_batch(noise(), return_dict=True)
        assert_logs(logs, oracles.expected_logs(model, noise(), **weights))


@KINDS
@pytest.mark.parametrize(
    "variant", [name for name in oracles.CLASSES if name != "local"]
)
def test_the_gradient_is_that_of_finite_differences(kind, variant):
    model, images = small(kind, variant, dtype="float64"), noise()
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        loss = model.compute_loss(images, None, model(images))
    assert loss.dtype == "float64"
    gradients = tape.gradient(loss, variables)
    starts, rng = model.get_weights(), np.random.default_rng(4)
    for _ in range(3):
        steps = [rng.normal(size=g.shape) + np.sign(g) for g in gradients]
        slopes = [np.vdot(*pair) for pair in zip(gradients, steps, strict=True)]
        # So that no variable matters less than another.
        steps = [1e-7 / k * step for k, step in zip(slopes, steps, strict=True)]
        costs = []
        for sign in (1, -1):
            moves = zip(starts, steps, strict=True)
            model.set_weights([start + sign * step for start, step in moves])
            costs.append(oracles.expected_logs(model, images)["loss"])
        close(costs[0] - costs[1], 2e-7 * len(steps), rtol=1e-4)


@KINDS
def test_metrics_are_summed_errors_over_summed_variances(kind):
    seen = []

    def predict(*_, **__):
        seen.append(model.predict(noise(7, 1), verbose=0))

    predicting = keras.callbacks.LambdaCallback(
        on_train_batch_end=predict, on_test_batch_end=predict
    )
    model = eager(small(kind), keras.optimizers.SGD(0.0))
    for count, callbacks in [(128, []), (129, []), (130, [predicting]), (257, [])]:
        images = oracles.mixtures(count)
        expected = oracles.batched_logs(model, images, 128)
        options = {"batch_size": 128, "callbacks": callbacks, "verbose": 0}
        assert_logs(model.evaluate(images, return_dict=True, **options), expected)
        assert_logs(first_epoch(model, images, **options), expected)
    assert len(seen) == 4


@pytest.mark.parametrize(
    "kind, variant", [("conv", "ours"), *(("dense", name) for name in oracles.CLASSES)]
)
def test_images_that_do_not_vary_have_no_metrics(kind, variant):
    # Adam would hide a gradient that explodes.
    model = eager(small(kind, variant), keras.optimizers.SGD(0.01))
    before = model.get_weights()
    for count in (1, 6):
        images = np.repeat(noise(1), count, axis=0)
        for batch in (model.test_on_batch, model.train_on_batch):
            model.reset_metrics()
            logs = batch(images, return_dict=True)
            assert np.isfinite(logs.pop("loss"))
            assert logs.keys() == NAMES
            assert np.isnan(list(logs.values())).all()
    for weight, old in zip(model.get_weights(), before, strict=True):
        assert np.isfinite(weight).all()
        if variant != "absolute":  # which needs no variance
            close(weight, old, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (40,), (256,), (257,), (300,), (5, 5, 13)])
@pytest.mark.parametrize("count", [7, 60])
def test_participation_ratio_is_that_of_the_eigenvalues(shape, count):
    rng = np.random.default_rng(0)
    states = rng.normal(3, 1, (count, *shape)) * rng.exponential(size=shape)
    expected = oracles.numpy_participation_ratio(states)
    assert 1 < expected < min(np.prod(shape), count - 1)
    for scale in (1e-6, 1, 1e4):
        found = participation_ratio(tf.constant(scale * states, "float32"))
        close(found, expected, rtol=1e-3)


@pytest.mark.parametrize("width", [20, 300])
def test_participation_ratio_counts_directions(width):
    rng = np.random.default_rng(0)
    one = rng.normal(size=(50, 1)) * rng.normal(size=width)
    close(participation_ratio(np.float32(one + 2)), 1, rtol=1e-4)
    # Columns (1, 0, 0, -1) and so on: eigenvalues 4, 1 and 1.
    three = np.pad(np.vstack([np.eye(3), -np.ones(3)]), ((0, 0), (0, width - 3)))
    close(participation_ratio(np.float32(three)), 36 / 18, rtol=1e-5)


def test_unexplained_variance_is_one_at_the_mean_and_zero_where_exact():
    rng = np.random.default_rng(0)
    targets = rng.normal(2, 1, (30, 4, 4, 3)).astype("float32")
    mean = np.broadcast_to(targets.mean(axis=0), targets.shape)
    assert float(unexplained_variance(targets, targets)) == 0
    close(unexplained_variance(targets, mean), 1, rtol=1e-5)
    close(unexplained_variance(targets, (targets + mean) / 2), 0.25, rtol=1e-5)
    estimates = rng.normal(size=targets.shape).astype("float32")
    expected = oracles.numpy_fvu(targets, estimates)
    for scale in (1e-6, 1, 1e4):
        scaled = np.float32(scale * targets), np.float32(scale * estimates)
        close(unexplained_variance(*scaled), expected, rtol=1e-3)


@pytest.mark.parametrize("width", [20, 300])
@pytest.mark.parametrize("count", [1, 128])
@pytest.mark.parametrize("value", [0.0, 1e-6, 0.1, 1e4])
def test_states_that_do_not_vary(width, count, value):
    state = value * np.random.default_rng(0).random((1, width))
    states = tf.constant(np.repeat(state, count, axis=0), "float32")
    estimates = tf.random.normal(states.shape)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([states, estimates])
        share = unexplained_variance(states, estimates)
        rank = participation_ratio(states)
    assert float(share) == 0
    assert float(rank) == pytest.approx(1, abs=1e-5)
    for gradient in tape.gradient(share, [states, estimates]):
        equal(gradient, np.zeros(states.shape))
    assert np.isfinite(tape.gradient(rank, states)).all()


@pytest.mark.parametrize("kind, variant", oracles.MOST)
def test_a_saved_model_or_half_of_one_comes_back(kind, variant, tmp_path):
    model = small(kind, variant, rank_weight=0.1, name="named")
    if variant == "ours":
        eager(model).train_on_batch(noise())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is oracles.CLASSES[variant]
    config = json.loads(json.dumps(loaded.get_config()))
    assert config == json.loads(json.dumps(model.get_config()))
    expected = {"kind": kind, "code_dim": CODE, "rank_weight": 0.1, "name": "named"}
    assert expected.items() <= config.items()
    equal(loaded(noise()), model(noise()))
    if variant == "ours":  # with the state of the optimizer
        for each in (model, loaded):  # Keras 3.13 saves no state of metrics
            each.reset_metrics()
        both = [each.train_on_batch(noise(20, 1)) for each in (model, loaded)]
        close(*both, rtol=1e-5)
        for pair in zip(model.get_weights(), loaded.get_weights(), strict=True):
            close(*pair, rtol=0, atol=1e-6)
    for half in (model.encoder, model.decoder):
        states = np.random.default_rng(0).random((3, *half.input_shape[1:]), "float32")
        half.save(tmp_path / "half.keras")
        loaded = keras.saving.load_model(tmp_path / "half.keras")
        equal(loaded(states), half(states))
        first = keras.Model(loaded.input, loaded.layers[2].output)  # it is functional
        assert first(states).shape[1:] == half.layers[2].output.shape[1:]


def bias_of(decode):
    """Returns the bias of a decoder layer, not that of its encoder layer if tied."""
    paths = {w.path: w.numpy() for w in decode.weights if len(w.shape) == 1}
    (bias,) = (paths[path] for path in paths if path.startswith("decoder"))
    return bias


def state_of(model):
    layers = [(layer.name, layer.trainable) for pair in model.pairs for layer in pair]
    weights = [(weight.dtype, weight.shape) for weight in model.trainable_variables]
    dtypes = model.dtype_policy.name, model(noise(1)).dtype
    return model.trainable, layers, weights, dtypes


@LAYERED
@pytest.mark.parametrize(
    "kind, dtype", [("dense", "float64"), ("conv", "mixed_bfloat16")]
)
def test_copies_keep_frozen_layers_and_precision(kind, variant, dtype, tmp_path):
    model = small(kind, variant, dtype=dtype)
    trainable = [(False, True), (True, False), (False, False), (True, True)]
    for (encode, decode), (first, second) in zip(model.pairs, trainable, strict=True):
        decode.trainable = second  # of a tied one this sets its encoder layer too
        encode.trainable = first
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for copy in (loaded, clone):
        assert state_of(copy) == state_of(model)
        equal(copy(noise()), model(noise()))
    eager(loaded).train_on_batch(noise())
    for old, new, moved in zip(model.pairs, loaded.pairs, trainable, strict=True):
        steps = new[0].kernel - old[0].kernel, bias_of(new[1]) - bias_of(old[1])
        assert tuple(np.abs(step).max() > 1e-3 for step in steps) == moved
    model.trainable = False
    frozen = keras.models.clone_model(model)
    assert state_of(frozen) == state_of(model)
    assert not frozen.trainable_variables


def fitted(kind, count, **options):
    """Returns logs and weights after steps of SGD on batches of 20 images."""
    model = small(kind)
    model.compile(keras.optimizers.SGD(0.01), **options)
    return first_epoch(model, noise(count)), model.get_weights()


def assert_steps(found, expected, starts, moved):
    for weight, other, start in zip(found, expected, starts, strict=True):
        assert abs(other - start).max() > moved
        close(weight, other, rtol=0, atol=moved / 100)


@KINDS
def test_xla_takes_the_same_steps(kind):
    logs, weights = fitted(kind, 40, jit_compile=True)
    other, expected = fitted(kind, 40, run_eagerly=True)
    assert_logs(logs, other)
    assert_steps(weights, expected, small(kind).get_weights(), 1e-4)


def mirrored_step():
    """Returns logs and weights of a step on as many devices as there are."""
    inverse_ae.WIDTHS = oracles.WIDTHS  # there are no fixtures in that process
    return fitted("dense", 20, jit_compile=False)


def test_two_mirrored_devices_take_the_mean_step_of_their_halves():
    found, weights = mirrored(__name__, "mirrored_step()")
    model = small()
    starts, gradients = model.get_weights(), []
    assert_logs(found, oracles.batched_logs(model, noise(), 10))
    for half in np.split(noise(), 2):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(half, None, model(half))
        gradients.append(tape.gradient(loss, model.trainable_variables))
    steps = zip(starts, *gradients, strict=True)
    expected = [start - 0.01 * (a + b).numpy() / 2 for start, a, b in steps]
    assert_steps(weights, expected, starts, 1e-4)


@pytest.mark.parametrize("kind, weights", [("dense", [0.0, 0.3]), ("conv", [0.3])])
def test_training_lowers_the_cost_and_the_errors_that_are_paid_for(kind, weights):
    images, unseen = np.split(oracles.mixtures(512), [384])
    local = []
    for weight in weights:
        model = oracles.untouched(kind, inversion_weight=weight)
        model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
        history = model.fit(images, batch_size=32, epochs=4, verbose=0).history
        _, *pairs = oracles.measured_pairs(model, unseen)[0].values()
        local.append([oracles.numpy_fvu(*pair) for pair in pairs])
    assert history.keys() == NAMES | {"loss"}
    assert np.isfinite(list(history.values())).all()
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["reconstruction"][-1] < 0.5
    for paid in local[1:]:
        assert np.mean(paid) < 0.5 * np.mean(local[0])
        assert max(paid) < max(local[0])


def test_the_check_of_a_dataset_leaves_its_order_as_it_is():
    # A training that was killed finds its place in the data by this order.
    def batches():
        return tf.data.Dataset.from_tensor_slices(noise(40)).shuffle(40, 0).batch(20)

    first, second = eager(small()), eager(small())
    first.fit(batches(), shuffle=False, verbose=0)
    for batch in batches():
        second.train_on_batch(batch)
    starts = small().get_weights()
    assert_steps(first.get_weights(), second.get_weights(), starts, 5e-3)


BATCHES = tf.data.Dataset.from_tensors  # one batch


@functools.cache
def ready():
    return eager(small())


def fit(x, *args, **kwargs):
    ready().fit(x, *args, shuffle=False, verbose=0, **kwargs)


@oracles.EACH_BAD
def test_bad_images_are_named_with_what_was_seen(bad, seen):
    before = ready().get_weights()
    attempts = [
        ("x", lambda: fit(bad)),
        ("x", lambda: fit(BATCHES(bad))),
        ("pictures", lambda: check_images(bad, "pictures")),
    ]
    for argument, attempt in attempts:
        with pytest.raises(ValueError, match=f"^`{argument}` .*Received: .*{seen}"):
            attempt()
    for weight, old in zip(ready().get_weights(), before, strict=True):
        equal(weight, old)
    if bad.shape == GOOD.shape and bad.dtype == GOOD.dtype:  # it may come later
        with pytest.raises(ValueError, match=f"^`x` .*Received: .*{seen}"):
            fit(BATCHES(GOOD).concatenate(BATCHES(bad)))


LABELS, WEIGHTS = np.zeros(4, "int32"), np.ones(4)


@pytest.mark.parametrize(
    "args, kwargs",
    [
        ((GOOD, GOOD), {}),
        ((GOOD, LABELS), {}),
        ((GOOD,), {"y": GOOD}),
        ((GOOD,), {"sample_weight": WEIGHTS}),
        ((GOOD,), {"class_weight": {0: 2.0}}),
        ((GOOD, LABELS), {"class_weight": {0: 2.0}}),
        ((GOOD,), {"validation_data": (GOOD, LABELS)}),
        ((BATCHES((GOOD, LABELS)),), {}),
        ((BATCHES((GOOD, GOOD, WEIGHTS)),), {}),
        ((BATCHES(GOOD),), {"class_weight": {0: 2.0}}),
    ],
)
def test_targets_and_weights_are_refused(args, kwargs):
    with pytest.raises(ValueError, match="`fit` takes images only.*`sample_weight`"):
        fit(*args, **kwargs)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_good_images_come_back_in_single_precision(dtype):
    ends = np.float32([0, 1]).reshape(2, 1, 1, 1) * np.ones((2, 28, 28, 1))
    for good in (GOOD.astype(dtype), ends.astype(dtype)):
        assert check_images(good).dtype == np.float32
        equal(check_images(good), good.astype("float32"))
    for images in (GOOD.astype(dtype), BATCHES(GOOD.astype(dtype))):
        fit(images)


NUMBERS = [-0.1, -1, np.nan, np.inf, -np.inf, "0.2", True, np.True_, [0.2], 1j]
BAD_ARGUMENTS = {
    "kind": ["linear", None, ["dense"], 1],
    "code_dim": [0, -2, 1.5, "8", True, None, [8], np.float32(8), np.nan],
    "inversion_weight": [*NUMBERS, np.float32(np.nan)],
    "rank_weight": [*NUMBERS, np.float64(np.inf)],
}


@pytest.mark.parametrize("argument", BAD_ARGUMENTS)
def test_bad_arguments_are_named_with_their_value(argument):
    for value in BAD_ARGUMENTS[argument]:
        with pytest.raises(ValueError, match=f"`{argument}`") as error:
            build_autoencoder(**{"kind": "dense", argument: value})
        assert re.search(rf"Received: .*{re.escape(repr(value))}", str(error.value))
