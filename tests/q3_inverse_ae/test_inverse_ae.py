"""`q3_inverse_ae.inverse_ae` builds pairs of layers and pays for their inversion.

What holds for all autoencoders is tested for the controls too; see `oracles`.
"""

import functools
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
from tests.q3_inverse_ae.oracles import (
    BAD_IMAGES,
    CLASSES,
    CODE,
    GOOD,
    KERNELS,
    KINDS,
    LAYERED,
    MOST,
    STATES,
    WIDTHS,
    assert_logs,
    batched_logs,
    eager,
    evaluated,
    expected_logs,
    first_epoch,
    measured_pairs,
    mixtures,
    noise,
    numpy_fvu,
    numpy_participation_ratio,
    plain_pairs,
    plain_states,
    small,
    untouched,
)
from tests.two_devices import mirrored

DEFAULT_WIDTHS = inverse_ae.WIDTHS
NAMES = {"reconstruction"} | {f"inversion_{i}" for i in range(1, 5)}
close = np.testing.assert_allclose
equal = np.testing.assert_array_equal


# -- Structure -----------------------------------------------------------------------


@KINDS
@LAYERED
def test_every_pair_swaps_the_shapes_of_its_layers(kind, variant):
    model = untouched(kind, variant)
    assert len(model.pairs) == 4
    shapes = STATES[kind]
    for i, (encode, decode) in enumerate(model.pairs):
        inputs, states = (np.ones((2, *shape)) for shape in shapes[i : i + 2])
        assert encode(inputs).shape == states.shape
        assert decode(states).shape == inputs.shape
        assert encode.kernel.shape == KERNELS[kind][i]
        if variant != "tied":
            (found,) = (w for w in decode.trainable_weights if len(w.shape) > 1)
            swapped = KERNELS[kind][i][::-1] if kind == "dense" else KERNELS[kind][i]
            assert found.shape == swapped
    assert model.encoder.input_shape == model.decoder.output_shape == (None, 28, 28, 1)
    assert model.encoder.output_shape == model.decoder.input_shape == (None, *shapes[4])
    assert model.predict(noise(3), verbose=0).shape == (3, 28, 28, 1)


def test_both_kinds_have_as_many_pairs_and_the_same_code(monkeypatch):
    monkeypatch.setattr(inverse_ae, "WIDTHS", DEFAULT_WIDTHS)
    models = [build_autoencoder(kind) for kind in WIDTHS]
    widths = [[f.output.shape[-1] for f, _ in model.pairs] for model in models]
    assert widths == [[512, 256, 128, 32], [8, 32, 64, 32]]
    assert models[1].encoder.output_shape == (None, 1, 1, 32)


def test_the_conv_kind_has_convolutions_only():
    model = untouched("conv")
    encoder, decoder = model.encoder.layers[1:], model.decoder.layers[1:]
    assert [type(layer) for layer in encoder] == [keras.layers.Conv2D] * 4
    assert [type(layer) for layer in decoder] == [keras.layers.Conv2DTranspose] * 4
    kernels = sum(np.prod(shape) for shape in KERNELS["conv"])
    biases = (4 + 6 + 8 + 8) + (1 + 4 + 6 + 8)
    assert model.count_params() == 2 * kernels + biases


@KINDS
@LAYERED
def test_layers_are_those_of_numpy_in_double_precision(kind, variant):
    model = small(kind, variant, dtype="float64")
    rng = np.random.default_rng(3)
    pairs = zip(model.pairs, plain_pairs(model), strict=True)
    for i, ((encode, decode), (f, g)) in enumerate(pairs):
        x, z = (rng.normal(size=(2, *shape)) for shape in STATES[kind][i : i + 2])
        close(encode(x), f(x), rtol=1e-10, atol=1e-12)
        close(decode(z), g(z), rtol=1e-10, atol=1e-12)
    images = np.float64(noise())
    expected = plain_states(model, images)[2][0].reshape(images.shape)
    close(model(images), expected, rtol=1e-10, atol=1e-12)


@KINDS
@LAYERED
def test_the_decoder_starts_as_the_mirror_of_an_orthogonal_encoder(kind, variant):
    gains = {"dense": [1, 1, 1, 1], "conv": [1 / 2, 1 / 2, 2 / 3, 1]}[kind]
    pairs = zip(untouched(kind, variant).pairs, gains, strict=True)
    for (encode, decode), gain in pairs:
        kernel = encode.kernel.numpy()
        columns = kernel.reshape(-1, kernel.shape[-1])
        close(columns.T @ columns, gain**2 * np.eye(kernel.shape[-1]), atol=1e-5)
        if variant != "tied":
            equal(decode.get_weights()[0], kernel.T if kind == "dense" else kernel)
        for bias in (encode.bias.numpy(), bias_of(decode)):
            equal(bias, np.zeros(bias.shape))


# -- Cost ----------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("variant", CLASSES)
def test_cost_and_metrics_are_those_of_numpy(kind, variant):
    model = eager(small(kind, variant))
    expected = expected_logs(model, noise())
    assert expected.keys() == NAMES | {"loss"}
    assert min(expected[name] for name in NAMES) > 0.05
    for batch in (model.test_on_batch, model.train_on_batch):
        assert_logs(batch(noise(), return_dict=True), expected)


@pytest.mark.parametrize("kind, own", [("dense", (0.5, 0.02)), ("conv", (0.1, 0.014))])
def test_the_weights_scale_the_terms_and_not_the_metrics(kind, own):
    for given in (own, (2.5, 1.5), (0, 1.5), (2, 0)):
        weights = {"inversion_weight": given[0], "rank_weight": given[1]}
        default = given == own
        model = build_autoencoder(kind, CODE, **({} if default else weights))
        assert weights.items() <= model.get_config().items()
        logs = eager(model).test_on_batch(noise(), return_dict=True)
        assert_logs(logs, expected_logs(model, noise(), **weights))


@KINDS
@pytest.mark.parametrize("variant", [name for name in CLASSES if name != "local"])
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
            costs.append(expected_logs(model, images)["loss"])
        close(costs[0] - costs[1], 2e-7 * len(steps), rtol=1e-4)


@KINDS
def test_metrics_are_summed_errors_over_summed_variances(kind):
    model = eager(small(kind), keras.optimizers.SGD(0.0))
    for count in (128, 129, 130, 257):
        images = mixtures(count)
        expected = batched_logs(model, images, 128)
        assert_logs(evaluated(model, images, batch_size=128), expected)
        assert_logs(first_epoch(model, images, batch_size=128), expected)


@KINDS
def test_predictions_in_a_callback_leave_the_metrics_unchanged(kind):
    seen = []

    def predict(*_, **__):
        seen.append(model.predict(noise(7, 1), verbose=0))

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=predict)
    callback.on_test_batch_end = predict
    model = eager(small(kind), keras.optimizers.SGD(0.0))
    expected = batched_logs(model, noise(40), 20)
    assert_logs(first_epoch(model, noise(40), callbacks=[callback]), expected)
    assert_logs(evaluated(model, noise(40), callbacks=[callback]), expected)
    assert len(seen) == 4


@pytest.mark.parametrize(
    "kind, variant", [("conv", "ours"), *(("dense", name) for name in CLASSES)]
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


# -- Functions -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (40,), (256,), (257,), (300,), (5, 5, 13)])
@pytest.mark.parametrize("count", [7, 60])
def test_participation_ratio_is_that_of_the_eigenvalues(shape, count):
    rng = np.random.default_rng(0)
    states = rng.normal(3, 1, (count, *shape)) * rng.exponential(size=shape)
    expected = numpy_participation_ratio(states)
    assert 1 < expected < min(np.prod(shape), count - 1)
    for scale in (1e-6, 1, 1e4):
        found = participation_ratio(tf.constant(scale * states, "float32"))
        close(found, expected, rtol=1e-3)


@pytest.mark.parametrize("width", [20, 300])
def test_participation_ratio_counts_directions(width):
    rng = np.random.default_rng(0)
    one = rng.normal(size=(50, 1)) * rng.normal(size=width)
    close(participation_ratio(np.float32(one + 2)), 1, rtol=1e-4)
    three = np.zeros((4, width), "float32")
    three[:3, :3] = np.eye(3)
    three[3, :3] = -1
    # Columns (1, 0, 0, -1) and so on: eigenvalues 4, 1 and 1.
    close(participation_ratio(three), 36 / 18, rtol=1e-5)


def test_unexplained_variance_is_one_at_the_mean_and_zero_where_exact():
    rng = np.random.default_rng(0)
    targets = rng.normal(2, 1, (30, 4, 4, 3)).astype("float32")
    mean = np.broadcast_to(targets.mean(axis=0), targets.shape)
    assert float(unexplained_variance(targets, targets)) == 0
    close(unexplained_variance(targets, mean), 1, rtol=1e-5)
    close(unexplained_variance(targets, (targets + mean) / 2), 0.25, rtol=1e-5)
    estimates = rng.normal(size=targets.shape).astype("float32")
    for scale in (1e-6, 1, 1e4):
        scaled = np.float32(scale * targets), np.float32(scale * estimates)
        close(unexplained_variance(*scaled), numpy_fvu(targets, estimates), rtol=1e-3)


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


# -- Precision -----------------------------------------------------------------------


def parts_of(layer):
    """Returns a layer, or the layers in it, but none that only takes an input."""
    parts = [part for each in getattr(layer, "layers", ()) for part in parts_of(each)]
    return parts or [layer] * (not isinstance(layer, keras.layers.InputLayer))


PRECISIONS = [(*model, "mixed_float16") for model in MOST]
PRECISIONS += [(kind, "ours", "mixed_bfloat16") for kind in WIDTHS]
PRECISIONS += [(kind, "ours", "float64") for kind in WIDTHS]


@pytest.mark.parametrize("kind, variant, dtype", PRECISIONS)
def test_other_precisions_train(kind, variant, dtype):
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
    rtol = {"mixed_float16": 0.01, "mixed_bfloat16": 0.05, "float64": 1e-5}[dtype]
    expected = expected_logs(model, images)
    for batch in (model.test_on_batch, model.train_on_batch):
        assert_logs(batch(images, return_dict=True), expected, rtol)
    for weight, old in zip(model.get_weights(), before, strict=True):
        assert weight.dtype == old.dtype
        assert np.isfinite(weight).all()
        assert abs(weight - old).max() > 1e-3


# -- Saving --------------------------------------------------------------------------


@pytest.mark.parametrize("kind, variant", MOST)
def test_a_saved_model_comes_back_and_trains_on(kind, variant, tmp_path):
    model = small(kind, variant, rank_weight=0.1, name="named")
    if variant == "ours":
        eager(model).train_on_batch(noise())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is CLASSES[variant]
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


def bias_of(decode):
    """Returns the bias of a decoder layer, not that of its encoder layer if tied."""
    paths = {w.path: w.numpy() for w in decode.weights if len(w.shape) == 1}
    (bias,) = (paths[path] for path in paths if path.startswith("decoder"))
    return bias


def state_of(model):
    layers = [layer for pair in model.pairs for layer in pair]
    return (
        model.trainable,
        model.dtype_policy.name,
        [(layer.name, layer.trainable) for layer in layers],
        [(weight.dtype, weight.shape) for weight in model.trainable_variables],
        model(noise(1)).dtype,
    )


@LAYERED
@pytest.mark.parametrize(
    "kind, dtype", [("dense", "float64"), ("conv", "mixed_bfloat16")]
)
def test_copies_have_the_same_frozen_layers_and_precision(
    kind, variant, dtype, tmp_path
):
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
    for old, new, (first, second) in zip(
        model.pairs, loaded.pairs, trainable, strict=True
    ):
        step = abs(new[0].kernel - old[0].kernel).numpy()
        assert (step.max() > 1e-3) == first
        assert (abs(bias_of(new[1]) - bias_of(old[1])).max() > 1e-3) == second
    model.trainable = False
    frozen = keras.models.clone_model(model)
    assert state_of(frozen) == state_of(model)
    assert not frozen.trainable_variables


@KINDS
@LAYERED
def test_encoder_and_decoder_are_models_that_can_be_saved(kind, variant, tmp_path):
    model = small(kind, variant)
    for half in (model.encoder, model.decoder):
        states = np.random.default_rng(0).random((3, *half.input_shape[1:]), "float32")
        half.save(tmp_path / "half.keras")
        loaded = keras.saving.load_model(tmp_path / "half.keras")
        equal(loaded(states), half(states))
        first = keras.Model(loaded.input, loaded.layers[2].output)  # it is functional
        assert first(states).shape[1:] == half.layers[2].output.shape[1:]


# -- Training ------------------------------------------------------------------------


def fitted(kind, count, optimizer, **options):
    """Returns logs and weights after steps on batches of 20 images."""
    model = small(kind)
    model.compile(optimizer, **options)
    return first_epoch(model, noise(count)), model.get_weights()


def assert_steps(found, expected, starts, moved):
    for weight, other, start in zip(found, expected, starts, strict=True):
        assert abs(other - start).max() > moved
        close(weight, other, rtol=0, atol=moved / 100)


@KINDS
def test_xla_takes_the_same_steps(kind):
    first, second = (keras.optimizers.SGD(0.01) for _ in range(2))
    logs, weights = fitted(kind, 40, first, jit_compile=True)
    other, expected = fitted(kind, 40, second, run_eagerly=True)
    assert_logs(logs, other)
    assert_steps(weights, expected, small(kind).get_weights(), 1e-4)


def mirrored_step():
    """Returns logs and weights of a step on as many devices as there are."""
    inverse_ae.WIDTHS = WIDTHS  # there are no fixtures in that process
    return fitted("dense", 20, keras.optimizers.SGD(0.01), jit_compile=False)


def test_two_mirrored_devices_take_the_mean_step_of_their_halves():
    found, weights = mirrored(__name__, "mirrored_step()")
    model = small()
    starts, gradients = model.get_weights(), []
    assert_logs(found, batched_logs(model, noise(), 10))
    for half in np.split(noise(), 2):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(half, None, model(half))
        gradients.append(tape.gradient(loss, model.trainable_variables))
    steps = zip(starts, *gradients, strict=True)
    expected = [start - 0.01 * (a + b).numpy() / 2 for start, a, b in steps]
    assert_steps(weights, expected, starts, 1e-4)


@pytest.mark.parametrize(
    "kind, weights", [("dense", [0.0, 0.3]), ("conv", [0.3])], ids=["dense", "conv"]
)
def test_training_lowers_the_cost_and_the_errors_that_are_paid_for(kind, weights):
    images, unseen = np.split(mixtures(512), [384])
    local = []
    for weight in weights:
        model = untouched(kind, inversion_weight=weight)
        model.compile(keras.optimizers.Adam(0.01), jit_compile=False)
        history = model.fit(images, batch_size=32, epochs=4, verbose=0).history
        pairs, *_ = measured_pairs(model, unseen)
        local.append([numpy_fvu(*pairs[f"inversion_{i}"]) for i in range(1, 5)])
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


# -- Bad input -----------------------------------------------------------------------


BATCHES = tf.data.Dataset.from_tensors  # one batch


@functools.cache
def ready():
    return eager(small())


def fit(x, *args, **kwargs):
    ready().fit(x, *args, shuffle=False, verbose=0, **kwargs)


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_named_with_what_was_seen(name):
    bad, seen = BAD_IMAGES[name]
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
        arguments = {"kind": "dense", argument: value}
        with pytest.raises(ValueError, match=f"`{argument}`") as error:
            build_autoencoder(**arguments)
        assert re.search(rf"Received: .*{re.escape(repr(value))}", str(error.value))


def test_numbers_of_numpy_are_as_good_as_those_of_python(tmp_path):
    weights = {"inversion_weight": np.float32(0.25), "rank_weight": np.int32(1)}
    model = build_autoencoder("dense", np.int64(CODE), **weights)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = {"code_dim": CODE, "inversion_weight": 0.25, "rank_weight": 1}
    assert expected.items() <= json.loads(json.dumps(loaded.get_config())).items()
    logs = eager(loaded).test_on_batch(noise(), return_dict=True)
    assert_logs(logs, expected_logs(model, noise(), **weights), rtol=1e-3)
