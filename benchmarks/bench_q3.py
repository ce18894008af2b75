"""Question 3: autoencoders with inversion losses, compared with PyTorch.

`python -m benchmarks.bench_q3` writes q3_inverse_ae/results/bench.json.

Both autoencoders train with Adam on the CPU, on batches of random images. Ours runs
under `fit`. PyTorch runs the same layers with the same losses from the same weights. An
ablation leaves the inversion and rank terms out: reconstruction only.
"""

import functools
import itertools

import keras
import numpy as np

from benchmarks import timing
from benchmarks.timing import BATCHES, LEARNING_RATE, OURS, torch
from q3_inverse_ae.inverse_ae import build_autoencoder

QUESTION = "q3_inverse_ae"
PLAN = {
    "rounds": 5,
    "images": (8, 32, 128, 512),
    "memory": (128,),
    "headline": 128,
}
KINDS = ("dense", "conv")
SLOPE = 0.2  # of leaky ReLU below 0, in Keras
SAME = [OURS, "ours, no XLA", *timing.PYTORCH]
PLAIN = "reconstruction only, XLA"
RECONSTRUCTION = {"inversion_weight": 0.0, "rank_weight": 0.0}
# Of each layer, from the pixels to the code: what comes in and goes out at a position,
# and the output positions.
LAYERS = {
    "dense": [(784, 512, 1), (512, 256, 1), (256, 128, 1), (128, 32, 1)],
    "conv": [(16, 8, 14**2), (16 * 8, 32, 7**2), (9 * 32, 64, 3**2), (9 * 64, 32, 1)],
}


def measure(plan, peak):
    """Times the steps and measures their memory; returns rows and headline."""
    rows, metrics = [], {}
    for kind, batch in itertools.product(KINDS, plan["images"]):
        size, main = {"kind": kind, "batch": batch}, batch == plan["headline"]
        row = timing.measure_row(
            build,
            [*SAME, PLAIN] if main else SAME,
            size,
            work=f"{kind}, batch {batch}",
            rounds=plan["rounds"],
            memory=batch in plan["memory"],
            gflop=1e-9 * flops(**size),
            peak=peak,
        )
        rows.append(row)
        metrics |= headline(kind, row) if main else {}
    return {"tables": [rows], "headline": metrics}


def headline(kind, row):
    """Returns the cost of the inversion losses, and PyTorch's time over ours."""
    cost = timing.ratio(row["seconds"][OURS], row["seconds"][PLAIN])
    return {
        f"{kind}_inversion_time": cost["median"],
        f"{kind}_torch_ratio": timing.torch_ratio(row)["median"],
    }


def flops(kind, batch):
    """Estimates the floating-point operations of a training step.

    Counts products of matrices and convolutions: encoder, decoder, each decoder layer
    again, and the products of the rank terms. The backward pass costs twice the forward
    pass, except that images need no gradient.
    """
    layers = [2 * inputs * units * places for inputs, units, places in LAYERS[kind]]
    forward = 3 * batch * sum(layers)
    for _, units, places in LAYERS[kind]:
        width = units * places
        forward += 2 * batch * width * (batch if width > 256 else width)
    return 3 * forward - batch * layers[0]


def build(name, compiler, kind, batch):
    """Builds a candidate: a function `steps -> seconds of each step`."""
    plain = f"{name}, {compiler}" == PLAIN
    model = keras_model(kind, **RECONSTRUCTION if plain else {})
    if name == "PyTorch":
        train, batches = build_torch(model, compiler, kind, batch)
        return functools.partial(timing.torch_steps, train, batches)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        jit_compile=compiler == "XLA",
        steps_per_execution=timing.TOGETHER if batch <= 128 else 1,
    )
    return functools.partial(timing.keras_steps, model, images(batch))


def keras_model(kind, **weights):
    """Builds our autoencoder; all of a kind start from the same weights."""
    keras.utils.set_random_seed(0)
    return build_autoencoder(kind, **weights)


@functools.cache
def images(batch):
    """Makes the work: float32 `(BATCHES, batch, 28, 28, 1)` in [0, 1]."""
    shape = (BATCHES, batch, 28, 28, 1)
    return np.random.default_rng(1).random(shape, dtype="float32")


# PyTorch's candidate.


def build_torch(model, compiler, kind, batch):
    """Builds PyTorch's candidate from a Keras model: `(train, batches)`."""
    encoder, decoder = (
        torch.nn.ModuleList([torch_layer(layer, encodes) for layer in layers])
        for layers, encodes in zip(
            zip(*model.pairs, strict=True), (True, False), strict=True
        )
    )
    losses = functools.partial(torch_losses, encoder, decoder, model)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    compiled = timing.torch_compiled(losses, compiler)
    train = timing.torch_trainer(compiled, parameters)
    work = torch.from_numpy(images(batch))
    work = work.flatten(2) if kind == "dense" else work.permute(0, 1, 4, 2, 3)
    return train, [(states.contiguous(),) for states in work]


def torch_layer(layer, encodes):
    """Copies a Keras layer to PyTorch, without its activation."""
    kernel, bias = layer.get_weights()
    if isinstance(layer, keras.layers.Dense):
        copy = torch.nn.Linear(*kernel.shape)
        kernel = kernel.T
    else:
        (window, _), (stride, _) = layer.kernel_size, layer.strides
        pad = (window - stride) // 2 if layer.padding == "same" else 0
        kernel = kernel.transpose(3, 2, 0, 1)
        ends = kernel.shape[1::-1] if encodes else kernel.shape[:2]
        convolution = torch.nn.Conv2d if encodes else torch.nn.ConvTranspose2d
        copy = convolution(*ends, window, stride, pad)
    return timing.torch_copy(copy, kernel, bias)


def torch_losses(encoder, decoder, model, states):
    """Returns the loss of a Keras model from `build_autoencoder`."""
    leaky_relu = torch.nn.functional.leaky_relu

    def fvu(targets, estimates):
        variance = (targets - targets.mean(0)).square().sum()
        return (targets - estimates).square().sum() / variance.clamp(min=1e-7)

    def encode(i, states):
        states = encoder[i](states)
        return states if i == len(encoder) - 1 else leaky_relu(states, SLOPE)

    def decode(i, states):
        states = decoder[i](states)
        return states if i == 0 else leaky_relu(states, SLOPE)

    hidden, loss = [states], 0.0
    for i in range(len(encoder)):
        states = encode(i, states)
        flat = states.flatten(1) - states.flatten(1).mean(0)
        gram = flat @ flat.T if flat.shape[1] > 256 else flat.T @ flat
        ratio = flat.square().sum().square() / gram.square().sum()
        loss = loss + model.inversion_weight * fvu(hidden[-1], decode(i, states))
        loss = loss - model.rank_weight * ratio.log()
        hidden.append(states)
    for i in reversed(range(len(encoder))):
        states = decode(i, states)
        loss = loss + model.chain_weight * fvu(hidden[i], states)
    return loss + fvu(hidden[0], states)


if __name__ == "__main__":
    timing.main(QUESTION, measure, PLAN)
