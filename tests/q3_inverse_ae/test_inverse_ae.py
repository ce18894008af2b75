"""`q3_inverse_ae.inverse_ae` builds pairs of layers and pays for their inversion.

The oracles share no code with the package: a forward pass, variances and eigenvalues
in NumPy, shapes and counts by hand, and stock Keras layers.
"""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from q3_inverse_ae.inverse_ae import Transposed, build_autoencoder
from q3_inverse_ae.losses import EveryOther, InversionLoss, RankLoss, StopGradient
from tests.two_devices import mirrored

CODE = 8
WIDTHS = {"dense": (24, 16, 12), "conv": (4, 6, 8)}
STATES = {
    "dense": [(784,), (24,), (16,), (12,), (8,)],
    "conv": [(28, 28, 1), (14, 14, 4), (7, 7, 6), (3, 3, 8), (1, 1, 8)],
}
KERNELS = {
    "dense": [(784, 24), (24, 16), (16, 12), (12, 8)],
    "conv": [(4, 4, 1, 4), (4, 4, 4, 6), (3, 3, 6, 8), (3, 3, 8, 8)],
}
NAMES = {"reconstruction"} | {f"inversion_{i}" for i in range(1, 5)}
SAVED = {
    "dense inverse affine": {"decoder_form": "inverse_affine"},
    "dense local": {"scope": "local"},
    "dense chain absolute": {"scope": "chain", "error": "absolute"},
    "dense plain": {"inversion_weight": 0.0, "rank_weight": 0.0},
    "conv local": {"scope": "local", "rank_weight": 0.0},
    "conv tied inverse affine": {"tied": True, "decoder_form": "inverse_affine"},
}

KINDS = pytest.mark.parametrize("kind", WIDTHS)
FORMS = pytest.mark.parametrize("form", ["affine_activation", "inverse_affine"])
TIES = pytest.mark.parametrize(
    "form, tied", [("affine_activation", False), ("inverse_affine", True)]
)


def noise(count=20, seed=0):
    return np.random.default_rng(seed).random((count, 28, 28, 1), dtype="float32")


def mixtures(count, seed=0):
    """Returns mixtures of five bumps: structured images in [0, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((28, 28))
    centres = rng.uniform(6, 22, (5, 2, 1, 1))
    square = (rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2
    weights = rng.dirichlet(np.ones(5), count)
    images = np.einsum("nk,kij->nij", weights, np.exp(-square / 18))
    return images[..., None].astype("float32")


def untouched(kind="dense", **options):
    keras.utils.set_random_seed(0)
    options = {"inversion_weight": 0.3, "rank_weight": 0.02} | options
    return build_autoencoder(kind, CODE, widths=WIDTHS[kind], **options)


def small(kind="dense", **options):
    """Returns a small model away from where it starts, biases and all."""
    model = untouched(kind, **options)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight.numpy() + rng.normal(0, 0.05, weight.shape))
    return model


def eager(model, rate=0.01):
    model.compile(keras.optimizers.Adam(rate), run_eagerly=True)
    return model


def evaluated(model, images):
    return model.evaluate(images, batch_size=20, verbose=0, return_dict=True)


def first_epoch(model, images):
    history = model.fit(images, batch_size=20, shuffle=False, verbose=0).history
    return {name: values[0] for name, values in history.items()}


# -- Oracles -------------------------------------------------------------------------


def leaky(x, slope=0.2):
    return np.where(x > 0, x, slope * x)


def numpy_pair(i, encode, decode, decoder_form, tied):
    kernel, bias = (np.float64(weight) for weight in encode.get_weights())
    weights = [np.float64(weight) for weight in decode.get_weights()]
    back = kernel.T if tied else next(w for w in weights if w.ndim == 2)
    shift = next(w for w in weights if w.ndim == 1)

    def f(x):
        return x @ kernel + bias if i == 4 else leaky(x @ kernel + bias)

    def g(z):
        if decoder_form == "inverse_affine":
            return (z if i == 4 else leaky(z, 5.0)) @ back + shift
        return z @ back + shift if i == 1 else leaky(z @ back + shift)

    return f, g


def stock_pair(i, encode, decode, decoder_form, tied, kind="conv"):
    """Returns f_i and g_i of stock layers, in double precision."""
    shapes = STATES[kind][i - 1 : i + 1]
    kernel, bias = encode.get_weights()
    weights = decode.get_weights()
    back = kernel.T if kind == "dense" else kernel
    back = back if tied else next(w for w in weights if w.ndim > 1)
    shift = next(w for w in weights if w.shape == shapes[0][-1:])
    if kind == "dense":
        encoder = keras.layers.Dense(len(bias), dtype="float64")
        decoder = keras.layers.Dense(len(shift), dtype="float64")
    else:
        window = [(4, 2, "same"), (4, 2, "same"), (3, 2, "valid"), (3, 1, "valid")]
        window = dict(
            zip(("kernel_size", "strides", "padding"), window[i - 1], strict=True)
        )
        encoder = keras.layers.Conv2D(len(bias), **window, dtype="float64")
        decoder = keras.layers.Conv2DTranspose(len(shift), **window, dtype="float64")
    encoder.build((None, *shapes[0]))
    encoder.set_weights([kernel, bias])
    decoder.build((None, *shapes[1]))
    decoder.set_weights([back, shift])

    def f(x):
        return encoder(x).numpy() if i == 4 else leaky(encoder(x).numpy())

    def g(z):
        if decoder_form == "inverse_affine":
            return decoder(z if i == 4 else leaky(z, 5.0)).numpy()
        return decoder(z).numpy() if i == 1 else leaky(decoder(z).numpy())

    return f, g


def plain_pairs(model):
    """Returns f_i and g_i in NumPy if dense, else of stock layers."""
    config = model.get_config()
    form = config["decoder_form"], config["tied"]
    plain = numpy_pair if config["kind"] == "dense" else stock_pair
    return [plain(i, *pair, *form) for i, pair in enumerate(model.pairs, start=1)]


def plain_states(model, images):
    """Returns h_0 to h_4, g_1(h_1) to g_4(h_4), and ĥ_0 to ĥ_4."""
    pairs = plain_pairs(model)
    dense = model.get_config()["kind"] == "dense"
    hidden = [np.float64(images.reshape(len(images), -1) if dense else images)]
    for f, _ in pairs:
        hidden.append(f(hidden[-1]))
    estimates = [g(h) for (_, g), h in zip(pairs, hidden[1:], strict=True)]
    decoded = [hidden[-1]]
    for _, g in reversed(pairs):
        decoded.insert(0, g(decoded[0]))
    return hidden, estimates, decoded


def numpy_fvu(targets, estimates):
    targets, estimates = np.float64(targets), np.float64(estimates)
    spread = (len(targets) * targets.var(axis=0)).sum()
    return ((targets - estimates) ** 2).sum() / spread


def numpy_error(error, targets, estimates):
    if error == "absolute":
        return np.mean((targets - estimates) ** 2)
    fvu = numpy_fvu(targets, estimates)
    return np.sqrt(fvu) if error == "relative" else fvu


def numpy_participation_ratio(states):
    flat = np.float64(states).reshape(len(states), -1)
    eigenvalues = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False) ** 2
    return eigenvalues.sum() ** 2 / (eigenvalues**2).sum()


def expected_logs(model, images, *, inversion_weight=0.3, rank_weight=0.02):
    config = model.get_config()
    hidden, estimates, decoded = plain_states(model, images)
    pairs = list(zip(hidden[:-1], estimates, strict=True))
    pairs = [(target[::2], estimate[::2]) for target, estimate in pairs]
    if config["scope"] == "chain":
        pairs = list(zip(hidden[:-1], decoded[:-1], strict=True))
    logs = {"reconstruction": numpy_fvu(hidden[0], decoded[0])}
    logs |= {f"inversion_{i}": numpy_fvu(*pair) for i, pair in enumerate(pairs, 1)}
    errors = [numpy_error(config["error"], *pair) for pair in pairs]
    prices = [1 / numpy_participation_ratio(states) for states in hidden[1:]]
    logs["loss"] = logs["reconstruction"] + inversion_weight * sum(errors)
    logs["loss"] += rank_weight * sum(prices)
    return logs


def assert_logs(found, expected, rtol=1e-4):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol, err_msg=name)


# -- Structure -----------------------------------------------------------------------


@KINDS
@FORMS
@pytest.mark.parametrize("tied", [False, True])
def test_every_pair_swaps_the_shapes_of_its_layers(kind, form, tied):
    model = untouched(kind, decoder_form=form, tied=tied)
    assert len(model.pairs) == 4
    shapes = STATES[kind]
    states = np.ones((2, *shapes[0]), "float32")
    for i, (encode, decode) in enumerate(model.pairs):
        inputs, states = states, encode(states)
        assert states.shape == (2, *shapes[i + 1])
        assert decode(states).shape == inputs.shape == (2, *shapes[i])
        assert encode.kernel.shape == KERNELS[kind][i]
        if not tied:
            (found,) = (w for w in decode.trainable_weights if len(w.shape) > 1)
            swapped = KERNELS[kind][i][::-1] if kind == "dense" else KERNELS[kind][i]
            assert found.shape == swapped
    assert model.input_shape == model.output_shape == (None, 28, 28, 1)
    assert model(noise(3)).shape == (3, 28, 28, 1)


def test_both_kinds_have_as_many_pairs_and_the_same_code():
    models = [build_autoencoder(kind) for kind in WIDTHS]
    assert [len(model.pairs) for model in models] == [4, 4]
    codes = [model.pairs[-1][0].output.shape[1:] for model in models]
    assert codes == [(32,), (1, 1, 32)]
    layers = [model.pairs[i][0] for model in models for i in range(3)]
    widths = [layer.output.shape[-1] for layer in layers]
    assert widths == [512, 128, 64, 8, 32, 64]


def walk(layer):
    yield layer
    for inner in getattr(layer, "layers", ()):
        yield from walk(inner)


@FORMS
@pytest.mark.parametrize("scope", ["joint", "local", "chain"])
def test_the_conv_kind_has_convolutions_alone(form, scope):
    model = untouched("conv", decoder_form=form, scope=scope)
    _, *layers = walk(model)
    passive = {keras.layers.InputLayer, InversionLoss, RankLoss}
    passive |= {EveryOther, StopGradient}
    if form == "inverse_affine":
        passive |= {keras.Sequential, keras.layers.LeakyReLU}
    active = [type(layer) for layer in layers if type(layer) not in passive]
    convolutions = [keras.layers.Conv2D] * 4 + [keras.layers.Conv2DTranspose] * 4
    assert sorted(active, key=str) == sorted(convolutions, key=str)
    assert {len(weight.shape) for weight in model.trainable_weights} == {1, 4}
    kernels = sum(np.prod(shape) for shape in KERNELS["conv"])
    biases = (4 + 6 + 8 + 8) + (1 + 4 + 6 + 8)
    assert model.count_params() == 2 * kernels + biases


def assert_stock(model):
    """Compares with stock layers that have the kernels of the encoder as it is now."""
    config = model.get_config()
    shapes = STATES[config["kind"]]
    rng = np.random.default_rng(3)
    for i, (encode, decode) in enumerate(model.pairs, start=1):
        x = rng.normal(size=(2, *shapes[i - 1]))
        z = rng.normal(size=(2, *shapes[i]))
        form = config["decoder_form"], config["tied"], config["kind"]
        f, g = stock_pair(i, encode, decode, *form)
        np.testing.assert_allclose(encode(x), f(x), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(decode(z), g(z), rtol=1e-4, atol=1e-5)


@KINDS
@TIES
def test_layers_are_stock_layers_and_the_activation(kind, form, tied):
    assert_stock(small(kind, decoder_form=form, tied=tied))


def test_every_kind_has_its_own_weight_where_none_is_given():
    for kind, weight in {"dense": 0.2, "conv": 0.1}.items():
        model = build_autoencoder(kind)
        assert model.get_layer("inversion_3").weight == weight
        assert model.get_config()["inversion_weight"] == weight
        model = build_autoencoder(kind, inversion_weight=0.4)
        assert model.get_layer("inversion_3").weight == 0.4


@pytest.mark.parametrize("scope", ["joint", "local", "chain"])
@pytest.mark.parametrize("inversion_weight, rank_weight", [(0, 0.02), (0.3, 0)])
def test_a_weight_of_zero_leaves_its_terms_out(scope, inversion_weight, rank_weight):
    weights = {"inversion_weight": inversion_weight, "rank_weight": rank_weight}
    model = untouched(scope=scope, **weights)
    kinds = [type(layer) for layer in walk(model)]
    assert kinds.count(InversionLoss) == (5 if inversion_weight else 1)
    assert kinds.count(RankLoss) == (4 if rank_weight else 0)
    model(noise(4))
    found = kinds.count(InversionLoss) + kinds.count(RankLoss)
    assert len(model.losses) == found


# -- Start ---------------------------------------------------------------------------


@KINDS
@FORMS
def test_the_decoder_starts_as_the_mirror_of_the_encoder(kind, form):
    for encode, decode in untouched(kind, decoder_form=form).pairs:
        kernel = encode.kernel.numpy()
        found, bias = decode.trainable_weights
        np.testing.assert_array_equal(found, kernel.T if kind == "dense" else kernel)
        np.testing.assert_array_equal(bias, np.zeros(bias.shape))
        np.testing.assert_array_equal(encode.bias, np.zeros(encode.bias.shape))


@KINDS
@pytest.mark.parametrize("tied", [False, True])
def test_encoder_kernels_start_orthogonal(kind, tied):
    for encode, _ in untouched(kind, tied=tied).pairs:
        kernel = encode.kernel.numpy()
        kernel = kernel.reshape(-1, kernel.shape[-1])
        gram = kernel.T @ kernel
        scale = 1 if kind == "dense" else gram[0, 0]
        assert scale > 0.1
        np.testing.assert_allclose(gram, scale * np.eye(len(gram)), atol=1e-5)


# -- Losses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, scope, error",
    [
        ("dense", "joint", "relative"),
        ("dense", "joint", "squared"),
        ("dense", "joint", "absolute"),
        ("dense", "local", "relative"),
        ("dense", "chain", "absolute"),
        ("conv", "local", "squared"),
        ("conv", "chain", "relative"),
    ],
)
def test_loss_and_metrics_are_those_of_numpy(kind, scope, error):
    model = eager(small(kind, scope=scope, error=error))
    images = noise(20)
    expected = expected_logs(model, images)
    assert expected.keys() == NAMES | {"loss"}
    assert min(expected[name] for name in NAMES) > 0.05
    assert_logs(first_epoch(model, images), expected)


@TIES
def test_the_dense_forward_pass_is_that_of_numpy(form, tied):
    model = small(decoder_form=form, tied=tied)
    images = noise(20)
    _, _, decoded = plain_states(model, images)
    np.testing.assert_allclose(
        model(images), decoded[0].reshape(images.shape), rtol=1e-4, atol=1e-4
    )
    logs = evaluated(eager(model), images)
    assert_logs(logs, expected_logs(model, images))


def test_the_weights_scale_the_terms_and_not_the_metrics():
    images = noise(20)
    model = eager(small(inversion_weight=2.5, rank_weight=1.5))
    expected = expected_logs(model, images, inversion_weight=2.5, rank_weight=1.5)
    logs = evaluated(model, images)
    assert_logs(logs, expected)
    model = eager(small(inversion_weight=0, rank_weight=1.5))
    expected = expected_logs(model, images, inversion_weight=0, rank_weight=1.5)
    logs = evaluated(model, images)
    assert_logs(logs, {name: expected[name] for name in ("loss", "reconstruction")})


def test_metrics_are_means_over_the_batches_of_an_epoch():
    model = eager(small())
    images = noise(40)
    halves = [expected_logs(model, images[rows]) for rows in (slice(20), slice(20, 40))]
    expected = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
    for _ in range(2):  # nothing is left of the pass before
        logs = evaluated(model, images)
        assert_logs(logs, expected)


@TIES
@pytest.mark.parametrize("scope", ["joint", "chain"])
def test_the_gradient_is_that_of_finite_differences(form, tied, scope):
    model = small(decoder_form=form, tied=tied, scope=scope)
    images = noise(20)
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        model(images)
        loss = sum(model.losses)
    gradients = tape.gradient(loss, variables)
    rng = np.random.default_rng(4)
    for variable, gradient in zip(variables, gradients, strict=True):
        start = variable.numpy()
        step = 1e-5 * (rng.normal(size=start.shape) + np.sign(gradient))
        ends = [np.float32(start + sign * step) for sign in (1, -1)]
        losses = []
        for end in ends:
            variable.assign(end)
            losses.append(expected_logs(model, images)["loss"])
        variable.assign(start)
        expected = np.vdot(np.float64(gradient), np.float64(ends[0]) - ends[1])
        assert abs(expected) > 1e-7
        np.testing.assert_allclose(losses[0] - losses[1], expected, rtol=0.01)


def reached(model):
    """Returns the names of the layers that each term has a gradient for."""
    with tf.GradientTape(persistent=True) as tape:
        model(noise(20))
        terms = {name: model.get_layer(name).losses[0] for name in NAMES}
    variables = model.trainable_variables
    names = {}
    for term, loss in terms.items():
        gradients = zip(variables, tape.gradient(loss, variables), strict=True)
        hit = [v for v, g in gradients if g is not None and np.any(g)]
        names[term] = {variable.path.split("/")[0] for variable in hit}
    return names


def named(part, numbers):
    return {f"{part}_{i}" for i in numbers}


@KINDS
@TIES
def test_local_terms_reach_one_pair_and_joint_ones_the_layers_before(kind, form, tied):
    local, joint, chain = (
        reached(small(kind, scope=scope, decoder_form=form, tied=tied))
        for scope in ("local", "joint", "chain")
    )
    everything = named("encoder", range(1, 5)) | named("decoder", range(1, 5))
    for i in range(1, 5):
        term, own = f"inversion_{i}", named("decoder", [i])
        assert local[term] == own | named("encoder", [i])
        assert joint[term] == own | named("encoder", range(1, i + 1))
        after = named("decoder", range(i, 5))
        assert chain[term] == after | named("encoder", range(1, 5))
    for terms in (local, joint, chain):
        assert terms["reconstruction"] == everything


def test_a_local_term_is_that_of_the_pair_taken_alone():
    model = small(scope="local")
    hidden, _, _ = plain_states(model, noise(20))
    for i, (encode, decode) in enumerate(model.pairs, start=1):
        variables = encode.trainable_weights + decode.trainable_weights
        with tf.GradientTape() as tape:
            model(noise(20))
            (loss,) = model.get_layer(f"inversion_{i}").losses
        found = tape.gradient(loss, variables)
        given = tf.constant(hidden[i - 1][::2], "float32")
        spread = float(len(given) * tf.reduce_sum(tf.math.reduce_variance(given, 0)))
        with tf.GradientTape() as tape:
            errors = tf.reduce_sum((given - decode(encode(given))) ** 2)
            loss = 0.3 * tf.sqrt(errors / spread)
        for gradient, other in zip(found, tape.gradient(loss, variables), strict=True):
            np.testing.assert_allclose(gradient, other, rtol=1e-3, atol=1e-5)


# -- Tied kernels --------------------------------------------------------------------


@KINDS
@FORMS
def test_tied_decoders_add_biases_alone(kind, form):
    untied, tied = (untouched(kind, decoder_form=form, tied=t) for t in (False, True))
    kernels = sum(np.prod(shape) for shape in KERNELS[kind])
    biases = {"dense": 784 + 2 * (24 + 16 + 12) + 8, "conv": 1 + 2 * (4 + 6 + 8) + 8}
    assert tied.count_params() == kernels + biases[kind]
    assert untied.count_params() == 2 * kernels + biases[kind]
    assert len(tied.trainable_weights) == 4 + 8


@KINDS
def test_tied_kernels_stay_shared(kind, tmp_path):
    model = eager(untouched(kind, tied=True), rate=0.05)
    before = [encode.kernel.numpy() for encode, _ in model.pairs]
    model.train_on_batch(noise())
    assert_stock(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_stock(loaded)
    for (encode, decode), old in zip(loaded.pairs, before, strict=True):
        assert isinstance(decode, Transposed)
        assert abs(encode.kernel - old).numpy().max() > 0.01
    loaded.train_on_batch(noise(20, 1))
    assert_stock(loaded)
    for encode, _ in loaded.pairs:
        encode.kernel.assign(-2 * encode.kernel)
    assert_stock(loaded)


# -- Saving --------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_model_comes_back_and_trains_on(name, tmp_path):
    kind, options = name.split()[0], SAVED[name]
    model = eager(small(kind, **options))
    images = noise(20)
    model.train_on_batch(images)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    # Tuples come back as lists.
    assert json.dumps(loaded.get_config()) == json.dumps(model.get_config())
    expected = {"kind": kind, "code_dim": CODE, "widths": [*WIDTHS[kind]], **options}
    assert expected.items() <= json.loads(json.dumps(loaded.get_config())).items()
    np.testing.assert_array_equal(loaded(images), model(images))
    expected, logs = (first_epoch(each, noise(20, 1)) for each in (model, loaded))
    assert_logs(logs, expected, rtol=1e-5)
    for weight, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(other, weight, rtol=0, atol=1e-6)


@KINDS
def test_the_config_rebuilds_the_model(kind):
    options = {
        "inversion_weight": 0.7,
        "rank_weight": 0.1,
        "error": "absolute",
        "scope": "local",
        "decoder_form": "inverse_affine",
        "tied": True,
        "name": "named",
    }
    model = small(kind, **options)
    assert options.items() <= model.get_config().items()
    again = type(model).from_config(json.loads(json.dumps(model.get_config())))
    assert again.name == "named"
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(noise()), model(noise()))
    expected = evaluated(eager(model), noise())
    assert_logs(evaluated(eager(again), noise()), expected, rtol=1e-6)


# -- Training ------------------------------------------------------------------------


def fitted(kind, count, optimizer, **options):
    """Returns logs, weights and model after steps on batches of 20 images."""
    model = small(kind)
    model.compile(optimizer, **options)
    return first_epoch(model, noise(count)), model.get_weights(), model


def test_xla_takes_the_same_steps_and_goes_on_learning():
    # Of this kind: its states are both wide and narrow.
    first, second = (keras.optimizers.Adam(3e-3) for _ in range(2))
    logs, weights, model = fitted("conv", 60, first, jit_compile=True)
    other, expected, _ = fitted("conv", 60, second, run_eagerly=True)
    assert_logs(logs, other)
    starts = small("conv").get_weights()
    for start, found, weight in zip(starts, weights, expected, strict=True):
        assert abs(weight - start).max() > 5e-3
        np.testing.assert_allclose(found, weight, rtol=0, atol=1e-4)
    images = mixtures(400)
    history = model.fit(images, batch_size=20, epochs=4, verbose=0).history
    assert_learns(history)


def assert_learns(history):
    assert history.keys() == NAMES | {"loss"}
    assert np.isfinite(list(history.values())).all()
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["reconstruction"][-1] < 0.5


def step_of_two():
    """Returns logs and weights of the step with the mean gradient of two halves."""
    model = small()
    variables = model.trainable_variables
    logs, gradients = [], []
    for half in np.split(noise(20), 2):
        logs.append(expected_logs(model, half))
        with tf.GradientTape() as tape:
            model(half)
            loss = sum(model.losses)
        gradients.append(tape.gradient(loss, variables))
    for variable, first, second in zip(variables, *gradients, strict=True):
        variable.assign_sub(0.01 * (first + second) / 2)
    means = {name: (logs[0][name] + logs[1][name]) / 2 for name in logs[0]}
    return means, model.get_weights()


def test_two_mirrored_devices_take_the_mean_step_of_their_halves():
    optimizer = "keras.optimizers.SGD(0.01)"
    step = f"fitted('dense', 20, {optimizer}, jit_compile=False)[:2]"
    found, weights = mirrored(__name__, step)
    logs, expected = step_of_two()
    assert_logs(found, logs)
    starts = small().get_weights()
    for start, found, weight in zip(starts, weights, expected, strict=True):
        assert abs(weight - start).max() > 1e-4
        np.testing.assert_allclose(found, weight, rtol=0, atol=1e-5)


def test_paying_for_inversion_lowers_the_local_errors():
    images, unseen = np.split(mixtures(512), [384])
    local = []
    for weight in (0.0, 0.3):
        model = untouched(inversion_weight=weight)
        model.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
        history = model.fit(images, batch_size=32, epochs=4, verbose=0).history
        hidden, estimates, _ = plain_states(model, unseen)
        pairs = zip(hidden[:-1], estimates, strict=True)
        local.append([numpy_fvu(*pair) for pair in pairs])
    assert_learns(history)
    assert np.mean(local[1]) < 0.5 * np.mean(local[0])
    assert max(local[1]) < max(local[0])


def test_a_batch_of_one_image_teaches_nothing():
    # It has no variance to be relative to. Adam would hide a gradient that explodes.
    model = small()
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    model.fit(noise(1), verbose=0)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


# -- Bad input -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "argument, value",
    [
        ("kind", "linear"),
        ("kind", None),
        ("error", "cubed"),
        ("scope", "global"),
        ("decoder_form", "affine"),
        ("inversion_weight", -0.1),
        ("inversion_weight", float("nan")),
        ("inversion_weight", float("inf")),
        ("inversion_weight", "0.2"),
        ("inversion_weight", False),
        ("rank_weight", None),
        ("rank_weight", True),
        ("rank_weight", -1),
        ("rank_weight", float("nan")),
        ("rank_weight", float("inf")),
        ("code_dim", 0),
        ("code_dim", -2),
        ("code_dim", 1.5),
        ("code_dim", "8"),
        ("code_dim", True),
        ("widths", ()),
        ("widths", (24, 16)),
        ("widths", (24, 16, 12, 10)),
        ("widths", (24, 0, 12)),
        ("widths", (24, -1, 12)),
        ("widths", (24, 1.5, 12)),
    ],
)
def test_bad_arguments_are_named_with_their_value(argument, value):
    arguments = {"kind": "dense", argument: value}
    with pytest.raises(ValueError, match=f"`{argument}`") as error:
        build_autoencoder(**arguments)
    assert re.search(rf"Received: .*{re.escape(repr(value))}", str(error.value))
