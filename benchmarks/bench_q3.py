"""A training epoch with the inversion losses beside one without, and PyTorch.

```
python -m benchmarks.bench_q3          # about two minutes
python -m benchmarks.bench_q3 --quick  # two rounds, into build/
```

Both autoencoders of question 3 train on the CPU with Adam on batches of 128 random
images: with all their losses, and as a plain autoencoder with the reconstruction's
alone. Keras models run under `fit`. PyTorch (optional: `pip install torch`) runs the
usual loop over the same layers with the same losses. What is timed is a step; an
epoch of the 60,000 training digits has 468.
"""

import functools
import statistics
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks import timing
from benchmarks.timing import TORCH
from q3_inverse_ae.inverse_ae import SLOPE, WINDOWS, build_autoencoder

KINDS = ("dense", "conv")
RESULTS = Path("q3_inverse_ae", "results", "bench.json")
FULL = {"rounds": 7, "images": (8, 32, 128, 512), "memory": KINDS}
QUICK = {"rounds": 2, "images": (), "memory": ()}
LOSSES = {"inverse": {}, "plain": {"inversion_weight": 0.0, "rank_weight": 0.0}}
BATCH, BATCHES, STEPS_IN_EPOCH = 128, 8, 468
KEYS = {"network": "kind", "XLA": "xla"}
COLUMNS = {
    "inverse": "with inversion",
    "plain": "plain",
    "PyTorch inverse": "PyTorch, with inversion",
    "PyTorch plain": "PyTorch, plain",
}
RATIOS = {
    "inverse_over_plain": "with inversion / plain",
    "torch_over_inverse": "PyTorch / ours, with inversion",
    "torch_over_plain": "PyTorch / ours, plain",
}


def measure(plan):
    """Times the steps and measures their memory; returns the rows of all."""
    rows = [time_rows(kind, plan["rounds"]) for kind in KINDS]
    images = [images_rows(kind, plan) for kind in KINDS]
    return {
        "rows": [row for pair in rows for row in pair],
        "images": [row for of_kind in images for row in of_kind],
        "memory": [memory_row(kind) for kind in plan["memory"]],
    }


def load_results(path=RESULTS):
    """Returns what a run of this benchmark has written."""
    return timing.load_results(path)


def headline_metrics(results):
    """Picks the metrics that stand for the whole benchmark.

    Args:
        results: what `load_results` returns.

    Returns:
        Dict of numbers: for each kind, compiled with XLA, the time of a step with the
        inversion losses over that without, and PyTorch's time over ours.
    """
    metrics = {}
    for row in results["rows"]:
        if row["xla"]:
            kind = row["kind"]
            metrics[f"{kind}_inversion_time"] = row["inverse_over_plain"]["median"]
            if "torch_over_inverse" in row:
                metrics[f"{kind}_torch_time"] = row["torch_over_inverse"]["median"]
    return metrics


# The contestants.


def contestants():
    """Lists `(losses, xla)` of everyone; PyTorch's have neither, and xla None."""
    keras_ones = [(losses, xla) for losses in LOSSES for xla in (False, True)]
    torch_ones = [(f"PyTorch {losses}", None) for losses in LOSSES if TORCH]
    return keras_ones + torch_ones


def build(kind, name, xla):
    """Builds a contestant: a function `(images, steps) -> seconds of each step`."""
    keras.utils.set_random_seed(0)
    model = build_autoencoder(kind, **LOSSES[name.removeprefix("PyTorch ")])
    if xla is None:
        return build_torch(model)
    model.compile(keras.optimizers.Adam(timing.LEARNING_RATE), jit_compile=xla)

    def steps_of(batch, steps):
        dataset = tf.data.Dataset.from_tensor_slices(images(batch))
        return timing.fit_steps(model, dataset, steps)

    return steps_of


@functools.cache
def images(batch):
    """Makes the work: float32 `(BATCHES, batch, 28, 28, 1)` in [0, 1]."""
    shape = (BATCHES, batch, 28, 28, 1)
    return np.random.default_rng(1).random(shape, dtype="float32")


def build_torch(model):
    """Builds PyTorch's contestant with the weights and the losses of a Keras model."""
    import torch

    torch.set_num_threads(timing.CORES)
    torch.set_flush_denormal(True)  # as TensorFlow does
    kind = model.arguments["kind"]
    layers = [torch.nn.ModuleList() for _ in range(2)]
    for i, pair in enumerate(model.pairs):
        for side, layer in zip(layers, pair, strict=True):
            side.append(torch_layer(kind, layer, i, encoder=side is layers[0]))
    encoder, decoder = layers
    weights = [model.arguments[f"{name}_weight"] for name in ("inversion", "rank")]
    optimizer = torch.optim.Adam(
        [*encoder.parameters(), *decoder.parameters()],
        timing.LEARNING_RATE,
        eps=1e-7,
        fused=True,
    )
    return functools.partial(torch_steps, encoder, decoder, weights, optimizer)


def torch_layer(kind, layer, i, encoder):
    """Copies a Keras layer to PyTorch, without its activation."""
    import torch

    kernel, bias = (torch.tensor(weight) for weight in layer.get_weights())
    if kind == "dense":
        copy = torch.nn.Linear(*kernel.shape)
        kernel = kernel.T
    else:
        window, strides, padding = WINDOWS[i]
        pad = (window - strides) // 2 if padding == "same" else 0
        kernel = kernel.permute(3, 2, 0, 1)
        ends = kernel.shape[1::-1] if encoder else kernel.shape[:2]
        convolution = torch.nn.Conv2d if encoder else torch.nn.ConvTranspose2d
        copy = convolution(*ends, window, strides, pad)
    copy.weight.data.copy_(kernel)
    copy.bias.data.copy_(bias)
    return copy


def torch_losses(encoder, decoder, weights, states):
    """Returns the loss that `build_autoencoder` has by default."""
    import torch

    def fvu(targets, estimates):
        variance = (targets - targets.mean(0)).square().sum()
        return (targets - estimates).square().sum() / variance.clamp(min=1e-7)

    def encode(i, states):
        states = encoder[i](states)
        last = i == len(encoder) - 1
        return states if last else torch.nn.functional.leaky_relu(states, SLOPE)

    def decode(i, states):
        states = decoder[i](states)
        return states if i == 0 else torch.nn.functional.leaky_relu(states, SLOPE)

    inversion_weight, rank_weight = weights
    inputs, loss = states, 0.0
    for i in range(len(encoder)):
        targets, states = states, encode(i, states)
        if inversion_weight:
            error = (fvu(targets[::2], decode(i, states[::2])) + 1e-7).sqrt()
            loss = loss + inversion_weight * error
        if rank_weight:
            flat = states.flatten(1) - states.flatten(1).mean(0)
            gram = flat @ flat.T if flat.shape[1] > 256 else flat.T @ flat
            ratio = flat.square().sum().square() + 1e-7
            ratio = ratio / (gram.square().sum() + 1e-7)
            loss = loss + rank_weight / ratio
    for i in reversed(range(len(encoder))):
        states = decode(i, states)
    return loss + fvu(inputs, states)


def torch_steps(encoder, decoder, weights, optimizer, batch, steps):
    """Trains in PyTorch; returns the seconds of each step."""
    import torch

    work = torch.from_numpy(images(batch))
    dense = isinstance(encoder[0], torch.nn.Linear)
    work = work.flatten(2) if dense else work.permute(0, 1, 4, 2, 3)
    ends = []
    for step in range(steps + 1):
        states = work[step % BATCHES].contiguous()
        loss = torch_losses(encoder, decoder, weights, states)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return np.diff(ends)


# What is measured of them.


def time_rows(kind, rounds):
    """Times every contestant of a kind; returns a row without and with XLA."""
    runs = {key: build(kind, *key) for key in contestants()}
    seconds = timing.time_in_turns(runs, BATCH, rounds)
    return [time_row(kind, xla, seconds) for xla in (False, True)]


def images_rows(kind, plan):
    """Times contestants of a kind at several sizes of a batch; Keras's with XLA."""
    there = [(name, xla) for name, xla in contestants() if xla is not False]
    runs = {name: build(kind, name, xla) for name, xla in there}
    return [
        {
            "kind": kind,
            "images": batch,
            "milliseconds": timing.milliseconds(runs, batch, plan["rounds"]),
        }
        for batch in plan["images"]
    ]


def memory_row(kind):
    """Measures the memory of every contestant of a kind; Keras's with XLA."""
    there = [(name, xla) for name, xla in contestants() if xla is not False]
    return {
        "kind": kind,
        "mebibytes": {
            name: timing.step_mebibytes(build, (kind, name, xla), 4, 8, BATCH)
            for name, xla in there
        },
    }


def time_row(kind, xla, seconds):
    """Reduces the rounds of all contestants of one kind to a row."""
    of_name = {name: s for (name, x), s in seconds.items() if x in (xla, None)}
    epochs = {n: STEPS_IN_EPOCH * statistics.median(s) for n, s in of_name.items()}
    row = {"kind": kind, "xla": xla, "epoch_seconds": epochs}
    row["inverse_over_plain"] = timing.ratio(of_name["inverse"], of_name["plain"])
    if "PyTorch plain" in of_name:
        theirs = of_name["PyTorch inverse"]
        row["torch_over_inverse"] = timing.ratio(theirs, of_name["inverse"])
        theirs = of_name["PyTorch plain"]
        row["torch_over_plain"] = timing.ratio(theirs, of_name["plain"])
    return row


def report(results):
    """Formats the results as Markdown."""
    there = results["rows"][0]["epoch_seconds"]
    columns = {name: title for name, title in COLUMNS.items() if name in there}
    ratios = {key: t for key, t in RATIOS.items() if key in results["rows"][0]}
    parts = [
        f"Seconds of an epoch, median of {results['rounds']} rounds",
        timing.table(columns, results["rows"], KEYS, "epoch_seconds"),
        "Ratios, median (min to max) of the rounds",
        timing.table(ratios, results["rows"], KEYS),
    ]
    if results.get("images"):
        keys = {"network": "kind", "images": "images"}
        parts += [
            "Milliseconds of a training step, with XLA",
            timing.table(columns, results["images"], keys, "milliseconds"),
        ]
    if results.get("memory"):
        parts += [
            f"MiB at the peak of a step of {BATCH} images beyond those of 8, with XLA; "
            "its compiler included",
            timing.table(columns, results["memory"], {"network": "kind"}, "mebibytes"),
        ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    description = __doc__.splitlines()[0]
    timing.main(description, RESULTS, measure, report, full=FULL, quick=QUICK)
