"""Small networks of question 3, and what NumPy and stock Keras layers say of them.

The oracles share no code with the package; shapes are counted by hand.
"""

import functools

import keras
import numpy as np
import pytest

from q3_inverse_ae import controls
from q3_inverse_ae.inverse_ae import InverseAutoencoder

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
WINDOWS = [(4, 2, "same"), (4, 2, "same"), (3, 2, "valid"), (3, 1, "valid")]
CLASSES = {
    "ours": InverseAutoencoder,
    "absolute": controls.AbsoluteErrors,
    "root": controls.RootErrors,
    "local errors": controls.LocalErrors,
    "local": controls.LocalGradients,
    "chain": controls.ChainErrors,
    "inverse activation": controls.InverseActivation,
    "tied": controls.TiedWeights,
}
OWN_LAYERS = ["ours", "inverse activation", "tied"]
KINDS = pytest.mark.parametrize("kind", WIDTHS)
LAYERED = pytest.mark.parametrize("variant", OWN_LAYERS)
MOST = [("dense", name) for name in CLASSES] + [("conv", name) for name in OWN_LAYERS]


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


def untouched(kind="dense", variant="ours", **options):
    """Returns a small model as it starts."""
    keras.utils.set_random_seed(0)
    options = {"inversion_weight": 0.3, "rank_weight": 0.02} | options
    return CLASSES[variant](kind, CODE, **options)


def small(kind="dense", variant="ours", **options):
    """Returns a small model away from where it starts, biases and all."""
    model = untouched(kind, variant, **options)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight.numpy() + rng.normal(0, 0.05, weight.shape))
    return model


def eager(model, optimizer=None):
    model.compile(optimizer or keras.optimizers.Adam(0.01), run_eagerly=True)
    return model


def flat(states):
    return np.float64(states).reshape(len(states), -1)


SLOPE = float(np.float32(0.2))  # TensorFlow keeps it so, whatever x is


def leaky(x, slope=SLOPE):
    return np.where(x > 0, x, slope * x)


def plain_pairs(model):
    """Returns f_i and g_i in double precision: in NumPy if dense, else stock layers."""
    inverse_first = isinstance(model, controls.InverseActivation)
    return [
        plain_pair(model.kind, i, *pair, inverse_first)
        for i, pair in enumerate(model.pairs, start=1)
    ]


def plain_pair(kind, i, encode, decode, inverse_first):
    kernel, bias = encode.get_weights()
    if isinstance(decode, controls.Transposed):
        back, shift = kernel.T if kind == "dense" else kernel, decode.bias.numpy()
    else:
        back, shift = decode.get_weights()
    kernel, bias, back, shift = map(np.float64, (kernel, bias, back, shift))
    if kind == "dense":
        ahead, behind = (lambda x: x @ kernel + bias), (lambda z: z @ back + shift)
    else:
        inputs, states = STATES[kind][i - 1 : i + 1]
        ahead = functools.partial(stock, "Conv2D", i, inputs, [kernel, bias])
        behind = functools.partial(stock, "Conv2DTranspose", i, states, [back, shift])

    def f(x):
        return ahead(x) if i == 4 else leaky(ahead(x))

    def g(z):
        if inverse_first:
            return behind(z if i == 4 else leaky(z, 5.0))
        return behind(z) if i == 1 else leaky(behind(z))

    return f, g


def stock(name, i, shape, weights, states):
    layer = stock_layer(name, i, shape, len(weights[1]))
    layer.set_weights(weights)
    return layer(states).numpy()


@functools.cache  # they take longer to build than to use
def stock_layer(name, i, shape, filters):
    layer = getattr(keras.layers, name)(filters, *WINDOWS[i - 1], dtype="float64")
    layer.build((None, *shape))
    return layer


def plain_states(model, images):
    """Returns h_0 to h_4, g_1(h_1) to g_4(h_4), and ĥ_0 to ĥ_4."""
    pairs = plain_pairs(model)
    hidden = [np.float64(images).reshape(-1, *STATES[model.kind][0])]
    for f, _ in pairs:
        hidden.append(f(hidden[-1]))
    estimates = [g(h) for (_, g), h in zip(pairs, hidden[1:], strict=True)]
    decoded = [hidden[-1]]
    for _, g in reversed(pairs):
        decoded.insert(0, g(decoded[0]))
    return hidden, estimates, decoded


def errors_and_variance(targets, estimates):
    targets, estimates = np.float64(targets), np.float64(estimates)
    variance = (len(targets) * targets.var(axis=0)).sum()
    return ((targets - estimates) ** 2).sum(), variance


def numpy_fvu(targets, estimates):
    errors, variance = errors_and_variance(targets, estimates)
    return errors / variance


def numpy_participation_ratio(states):
    centred = flat(states) - flat(states).mean(axis=0)
    eigenvalues = np.linalg.svd(centred, compute_uv=False) ** 2
    return eigenvalues.sum() ** 2 / (eigenvalues**2).sum()


def measured_pairs(model, images):
    """Returns targets and estimates by metric, h_0 to h_4, and ĥ_0 to ĥ_4."""
    hidden, estimates, decoded = plain_states(model, images)
    if isinstance(model, controls.ChainErrors):
        estimates = decoded[:-1]
    pairs = {"reconstruction": (hidden[0], decoded[0])}
    for i, pair in enumerate(zip(hidden[:-1], estimates, strict=True), start=1):
        pairs[f"inversion_{i}"] = pair
    return pairs, hidden, decoded


def expected_logs(model, images, *, inversion_weight=0.3, rank_weight=0.02):
    """Returns the cost of a batch and its metrics."""
    pairs, hidden, decoded = measured_pairs(model, images)
    logs = {name: numpy_fvu(*pair) for name, pair in pairs.items()}
    _, *local = pairs.values()
    chain = zip(hidden[:-1], decoded[:-1], strict=True)
    ranks = [np.log(numpy_participation_ratio(states)) for states in hidden[1:]]
    logs["loss"] = logs["reconstruction"] - rank_weight * sum(ranks)
    if inversion_weight:
        errors = sum(numpy_error(model, *pair) for pair in local)
        logs["loss"] += inversion_weight * errors
        if not isinstance(model, controls.LocalErrors):
            chained = sum(numpy_error(model, *pair) for pair in chain)
            logs["loss"] += {"dense": 0.1, "conv": 0.05}[model.kind] * chained
    return logs


def numpy_error(model, targets, estimates):
    """Returns what a model pays for an estimate."""
    if isinstance(model, controls.AbsoluteErrors):
        return np.mean((targets - estimates) ** 2)
    fvu = numpy_fvu(targets, estimates)
    return np.sqrt(fvu) if isinstance(model, controls.RootErrors) else fvu


def batched_logs(model, images, size):
    """Returns the cost, and metrics as summed errors over summed variances."""
    losses, sums = [], {}
    for batch in np.split(images, range(size, len(images), size)):
        if len(batch) == 1:  # no variance, no cost
            losses.append(0.0)
            continue
        losses.append(len(batch) * expected_logs(model, batch)["loss"])
        for name, pair in measured_pairs(model, batch)[0].items():
            sums[name] = sums.get(name, 0) + np.array(errors_and_variance(*pair))
    logs = {name: errors / variance for name, (errors, variance) in sums.items()}
    return logs | {"loss": sum(losses) / len(images)}


def with_pixel(value):
    images = noise(4)
    images[2, 5, 5] = value
    return images


GOOD = noise(4)
BAD_IMAGES = {  # and what the message says of them
    "flat": (GOOD.reshape(4, 784), r"shape \(4, 784\)"),
    "no channel": (GOOD[..., 0], r"shape \(4, 28, 28\)"),
    "one image": (GOOD[0], r"shape \(28, 28, 1\)"),
    "no images": (GOOD[:0], r"shape \(0, 28, 28, 1\)"),
    "cut": (GOOD[:, 1:], r"shape \(4, 27, 28, 1\)"),
    "colour": (np.repeat(GOOD, 3, axis=-1), r"shape \(4, 28, 28, 3\)"),
    "bytes": (np.uint8(255 * GOOD), "uint8"),
    "ints": (np.zeros(GOOD.shape, "int64"), "int64"),
    "bools": (GOOD > 0.5, "bool"),
    "0 to 255": (255 * np.ones_like(GOOD), "255"),
    "-1 to 1": (2 * GOOD - 1, r"-0\.99"),
    "negative": (with_pixel(-0.25), r"-0\.25"),
    "above 1": (with_pixel(1.75), r"1\.75"),
    "nan": (with_pixel(np.nan), "nan"),
    "infinite": (with_pixel(np.inf), "inf"),
}
EACH_BAD = pytest.mark.parametrize("bad, seen", BAD_IMAGES.values(), ids=BAD_IMAGES)
