"""A training step of the reset cell beside stock recurrent layers and PyTorch.

```
python -m benchmarks.bench_q2          # about a quarter of an hour
python -m benchmarks.bench_q2 --quick  # a few rows, into build/
```

Every contestant trains embedding, one recurrent layer of 128 units and one logit from
its last state with Adam, on the CPU, on full-length sentences of random tokens.
Keras layers run under `fit`. PyTorch (optional: `pip install torch`) runs the usual
loop: its own `nn.GRU`, and the reset cell as one would write it there, an
`nn.RNNCell` and a gate at every step.
"""

import functools
import statistics
import time
from pathlib import Path

import keras
import numpy as np

from benchmarks import timing
from benchmarks.timing import TORCH, UNITS
from q2_reset_cell.reset_cell import ResetCell, ResetRNN

RESULTS = Path("q2_reset_cell", "results", "bench.json")
FULL = {
    "rounds": 7,
    "lengths": (32, 256, 1024),
    "units": (32, 64, 128, 256, 512),
    "memory": (256, 1024),
}
QUICK = {"rounds": 2, "lengths": (32, 256), "units": (), "memory": ()}
LAYERS = {
    "ResetRNN": ResetRNN,
    "RNN(ResetCell)": lambda units: keras.layers.RNN(ResetCell(units)),
    "SimpleRNN": keras.layers.SimpleRNN,
    "GRU": keras.layers.GRU,
    "LSTM": keras.layers.LSTM,
}
TORCH_LAYERS = ("PyTorch GRU", "PyTorch reset cell")
KEYS = {"T": "T", "XLA": "xla"}
RATIOS = {
    "gru_over_reset": "GRU / ResetRNN",
    "reset_over_simple": "ResetRNN / SimpleRNN",
    "cell_over_reset": "RNN(ResetCell) / ResetRNN",
    "torch_gru_over_reset": "PyTorch GRU / ResetRNN",
    "torch_cell_over_reset": "PyTorch reset cell / ResetRNN",
}


def measure(plan):
    """Times the steps and measures their memory; returns the rows of all."""
    rows = [time_rows(length, plan["rounds"]) for length in plan["lengths"]]
    return {
        "rows": [row for pair in rows for row in pair],
        "units": [units_row(units, plan["rounds"]) for units in plan["units"]],
        "memory": [memory_row(length) for length in plan["memory"]],
    }


def load_results(path=RESULTS):
    """Returns what a run of this benchmark has written."""
    return timing.load_results(path)


def headline_metrics(results):
    """Picks the metrics that stand for the whole benchmark.

    Args:
        results: dict, see `load_results`.

    Returns:
        Dict of numbers, medians at `T = 256`, without XLA and with it: the time of
        `GRU` over that of `ResetRNN`, and that of `ResetRNN` over that of `SimpleRNN`.
    """
    metrics = {}
    for row in results["rows"]:
        if row["T"] == 256:
            suffix = "_xla" if row["xla"] else ""
            metrics[f"speed_vs_keras_gru{suffix}"] = row["gru_over_reset"]["median"]
            metrics[f"time_vs_simple_rnn{suffix}"] = row["reset_over_simple"]["median"]
    return metrics


# The contestants.


def contestants():
    """Returns `(name, xla)` of all; `xla` is None where there is no choice."""
    there = [(name, xla) for name in LAYERS for xla in (False, True)]
    return there + [(name, None) for name in TORCH_LAYERS if TORCH]


def build(name, xla, units=UNITS):
    """Builds a contestant: a function `(length, steps) -> seconds of each step`."""
    if name in TORCH_LAYERS:
        return build_torch(name, units)
    layer = LAYERS[name](units)
    model = keras.Sequential(
        [
            keras.layers.Embedding(timing.VOCAB_SIZE, timing.EMBEDDING_DIM),
            layer,
            keras.layers.Dense(1),
        ]
    )
    model.build((None, None))
    if "Reset" in name:
        model.set_weights(start_weights(units))
    model.compile(
        optimizer=keras.optimizers.Adam(timing.LEARNING_RATE),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=xla,
    )
    return functools.partial(timing.keras_steps, model)


def build_torch(name, units):
    import torch

    torch.set_num_threads(timing.CORES)
    torch.set_flush_denormal(True)  # as TensorFlow does
    if name == "PyTorch GRU":
        layers = [torch.nn.GRU(timing.EMBEDDING_DIM, units, batch_first=True)]
    else:
        layers = [
            torch.nn.RNNCell(timing.EMBEDDING_DIM, units),
            torch.nn.Linear(timing.EMBEDDING_DIM, units),
        ]
    embedding = torch.nn.Embedding(timing.VOCAB_SIZE, timing.EMBEDDING_DIM)
    model = torch.nn.ModuleList([embedding, *layers, torch.nn.Linear(units, 1)])
    if name == "PyTorch reset cell":
        layers[0].bias_hh.requires_grad_(False)  # Keras has one bias
        table, kernel, recurrent, bias, gate, gate_bias, head, head_bias = (
            weight.T for weight in start_weights(units)
        )
        start = [table.T, kernel, recurrent, bias, 0 * bias]
        start += [gate, gate_bias, head, head_bias]
        for parameter, value in zip(model.parameters(), start, strict=True):
            parameter.data.copy_(torch.tensor(value))
    optimizer = torch.optim.Adam(
        model.parameters(), timing.LEARNING_RATE, eps=1e-7, fused=True
    )
    return functools.partial(torch_steps, model, optimizer)


def torch_steps(model, optimizer, length, steps):
    import torch

    embedding, *layers, head = model
    all_ids, all_labels = map(torch.from_numpy, timing.batches(length))
    ends = []
    for step in range(steps + 1):
        inputs = embedding(all_ids[step % timing.BATCHES])  # (batch, time, features)
        if len(layers) == 1:
            state = layers[0](inputs)[1][-1]
        else:
            state = torch.zeros(len(inputs), head.in_features)
            for step_inputs in inputs.unbind(1):
                gate = torch.nn.functional.hardsigmoid(layers[1](step_inputs))
                state = layers[0](step_inputs, state) * gate
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            head(state), all_labels[step % timing.BATCHES]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return np.diff(ends)


def start_weights(units=UNITS):
    """Returns the weights that every reset cell starts from, in Keras's order."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(timing.VOCAB_SIZE, timing.EMBEDDING_DIM))
    scale = timing.EMBEDDING_DIM**-0.5
    kernel, gate = rng.normal(0, scale, (2, timing.EMBEDDING_DIM, units))
    recurrent, _ = np.linalg.qr(rng.normal(size=(units, units)))
    head = rng.normal(0, units**-0.5, (units, 1))
    bias = np.zeros(units)
    return [table, kernel, recurrent, bias, gate, bias + 1, head, np.zeros(1)]


# What is measured of them.


def time_rows(length, rounds):
    """Times every contestant at one length; returns a row without and with XLA."""
    runs = {key: build(*key) for key in contestants()}
    seconds = timing.time_in_turns(runs, length, rounds)
    return [time_row(length, xla, seconds) for xla in (False, True)]


def units_row(units, rounds, length=128):
    """Times every contestant with so many units; Keras's compiled with XLA."""
    there = [(name, xla) for name, xla in contestants() if xla is not False]
    runs = {name: build(name, xla, units) for name, xla in there}
    return {"units": units, "milliseconds": timing.milliseconds(runs, length, rounds)}


def memory_row(length):
    """Measures the memory of every contestant; Keras's compiled with XLA."""
    there = [(name, xla) for name, xla in contestants() if xla is not False]
    return {
        "T": length,
        "mebibytes": {
            name: timing.step_mebibytes(build, (name, xla), 24, 32, length)
            for name, xla in there
        },
    }


def time_row(length, xla, seconds):
    """Reduces the rounds of all contestants of one length to a row."""
    of_name = {name: s for (name, x), s in seconds.items() if x in (xla, None)}
    milliseconds = {n: 1e3 * statistics.median(s) for n, s in of_name.items()}
    row = {"T": length, "xla": xla, "milliseconds": milliseconds}
    ours = of_name["ResetRNN"]
    row["gru_over_reset"] = timing.ratio(of_name["GRU"], ours)
    row["reset_over_simple"] = timing.ratio(ours, of_name["SimpleRNN"])
    row["cell_over_reset"] = timing.ratio(of_name["RNN(ResetCell)"], ours)
    if "PyTorch GRU" in of_name:
        row["torch_gru_over_reset"] = timing.ratio(of_name["PyTorch GRU"], ours)
        row["torch_cell_over_reset"] = timing.ratio(of_name["PyTorch reset cell"], ours)
    return row


def report(results):
    """Formats the results as Markdown."""
    there = {name: name for name in results["rows"][0]["milliseconds"]}
    parts = [
        f"Milliseconds of a training step, median of {results['rounds']} rounds",
        timing.table(there, results["rows"], KEYS, "milliseconds"),
        "Ratios, median (min to max) of the rounds",
        timing.table(RATIOS, results["rows"], KEYS),
    ]
    if results.get("units"):
        parts += [
            "Milliseconds of a training step at T = 128, with XLA",
            timing.table(there, results["units"], {"units": "units"}, "milliseconds"),
        ]
    if results.get("memory"):
        parts += [
            "MiB at the peak beyond those of steps at T = 32, with XLA; its compiler "
            "included",
            timing.table(there, results["memory"], {"T": "T"}, "mebibytes"),
        ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    description = __doc__.splitlines()[0]
    timing.main(description, RESULTS, measure, report, full=FULL, quick=QUICK)
