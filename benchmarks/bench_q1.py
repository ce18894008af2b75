"""Truncated against full BPTT in time and memory, beside stock Keras and PyTorch.

```
python -m benchmarks.bench_q1          # about ten minutes on two idle cores
python -m benchmarks.bench_q1 --quick  # a few rows, into build/
```

Every contestant takes the same steps from the same weights, on the CPU: embedding,
an Elman layer, one logit from its last state, Adam, full-length sentences of random
tokens. Ours and stock Keras run under `fit` and look for padding, though there is
none. PyTorch (optional: `pip install torch`) runs the usual loop, knows no padding,
and truncates as one would by hand: the prefix under `no_grad`, the state detached,
the suffix with gradient.
"""

import functools
import statistics
import time
from pathlib import Path

import keras
import numpy as np

from benchmarks import timing
from benchmarks.timing import TORCH, UNITS
from q1_tbptt.tbptt import TBPTTClassifier

RESULTS = Path("q1_tbptt", "results", "bench.json")
FULL = {
    "rounds": 7,
    "cuts": {32: (8, 16), 128: (8, 16, 64), 512: (8, 16, 64), 2048: (8, 16, 64)},
    "memory": [(T, t) for T in (128, 512, 2048) for t in (None, 16)],
}
QUICK = {"rounds": 2, "cuts": {32: (8,), 512: (16,)}, "memory": [(512, 16)]}

LABELS = {
    "ours_xla": "ours, XLA",
    "ours": "ours",
    "stock_xla": "stock Keras, XLA",
    "stock": "stock Keras",
    "torch": "PyTorch",
}
KEYS = {"T": "T", "t": "t"}
RATIOS = {
    "speedup": "full / truncated",
    "ideal_speedup": "ideal",
    "share_of_ideal": "share of ideal",
    "speedup_without_xla": "full / truncated, no XLA",
    "stock_over_ours": "stock Keras / ours",
    "torch_over_ours": "PyTorch / ours",
}


def measure(plan):
    """Times the steps and measures their memory; returns the rows of both."""
    rows = [
        row
        for length, cuts in plan["cuts"].items()
        for row in time_rows(length, [None, *cuts], plan["rounds"])
    ]
    memory = [memory_row(length, t) for length, t in plan["memory"]]
    return {"rows": rows, "memory": memory}


def load_results(path=RESULTS):
    """Returns what a run of this benchmark has written."""
    return timing.load_results(path)


def headline_metrics(results):
    """Picks the metrics that stand for the whole benchmark.

    Args:
        results: dict, see `load_results`.

    Returns:
        Dict of numbers, medians at `T = 512`, `t = 16` with XLA: how much faster our
        truncated step is than our full one, how much faster it would be ideally,
        and the time of PyTorch's truncated step over ours (absent without PyTorch).
    """
    (row,) = [row for row in results["rows"] if (row["T"], row["t"]) == (512, 16)]
    metrics = {
        "speedup_T512_t16": row["speedup"]["median"],
        "ideal_speedup_T512_t16": row["ideal_speedup"],
    }
    if "torch_over_ours" in row:
        metrics["torch_ratio_T512_t16"] = row["torch_over_ours"]["median"]
    return metrics


# The contestants.


def names(t):
    """Returns who can truncate to `t` steps; None is full BPTT, which all can."""
    there = [name for name in LABELS if TORCH or name != "torch"]
    return [name for name in there if t is None or not name.startswith("stock")]


def build(name, t):
    """Builds a contestant: a function `(length, steps) -> seconds of each step`."""
    if name == "torch":
        return build_torch(t)
    if name.startswith("ours"):
        cell = keras.layers.SimpleRNNCell(UNITS)
        model = TBPTTClassifier(cell, timing.VOCAB_SIZE, timing.EMBEDDING_DIM, t=t)
        layers = [model.embedding, cell, model.head]
    else:
        layers = [
            keras.layers.Embedding(
                timing.VOCAB_SIZE, timing.EMBEDDING_DIM, mask_zero=True
            ),
            keras.layers.SimpleRNN(UNITS),
            keras.layers.Dense(1),
        ]
        model = keras.Sequential(layers)
        model.build((None, None))
    for layer, weights in zip(layers, start_weights(), strict=True):
        layer.set_weights(weights)
    model.compile(
        optimizer=keras.optimizers.Adam(timing.LEARNING_RATE),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=name.endswith("_xla"),
    )
    return functools.partial(timing.keras_steps, model)


def build_torch(t):
    import torch

    torch.set_num_threads(timing.CORES)
    torch.set_flush_denormal(True)  # as TensorFlow does
    embedding = torch.nn.Embedding(timing.VOCAB_SIZE, timing.EMBEDDING_DIM)
    rnn = torch.nn.RNN(timing.EMBEDDING_DIM, UNITS, batch_first=True)
    rnn.bias_hh_l0.requires_grad_(False)  # Keras has one bias
    model = torch.nn.ModuleList([embedding, rnn, torch.nn.Linear(UNITS, 1)])
    (table,), (kernel, recurrent, bias), (head_kernel, head_bias) = start_weights()
    start = [table, kernel.T, recurrent.T, bias, 0 * bias, head_kernel.T, head_bias]
    for parameter, value in zip(model.parameters(), start, strict=True):
        parameter.data.copy_(torch.tensor(value))
    optimizer = torch.optim.Adam(
        model.parameters(), timing.LEARNING_RATE, eps=1e-7, fused=True
    )
    return functools.partial(torch_steps, model, optimizer, t)


def torch_steps(model, optimizer, t, length, steps):
    import torch

    embedding, rnn, head = model
    all_ids, all_labels = map(torch.from_numpy, timing.batches(length))
    ends = []
    for step in range(steps + 1):
        batch, state = step % timing.BATCHES, None
        ids, labels = all_ids[batch], all_labels[batch]
        if t is not None:
            with torch.no_grad():
                _, state = rnn(embedding(ids[:, :-t]))
            state, ids = state.detach(), ids[:, -t:]
        _, state = rnn(embedding(ids), state)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            head(state[-1]), labels
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return np.diff(ends)


def start_weights():
    rng = np.random.default_rng(0)
    table = rng.uniform(-0.05, 0.05, (timing.VOCAB_SIZE, timing.EMBEDDING_DIM))
    kernel = rng.normal(0, timing.EMBEDDING_DIM**-0.5, (timing.EMBEDDING_DIM, UNITS))
    recurrent, _ = np.linalg.qr(rng.normal(size=(UNITS, UNITS)))
    head_kernel = rng.normal(0, UNITS**-0.5, (UNITS, 1))
    return [table], [kernel, recurrent, np.zeros(UNITS)], [head_kernel, np.zeros(1)]


# What is measured of them.


def time_rows(length, cuts, rounds):
    """Times every contestant at one length; returns a row for each `t` in `cuts`."""
    runs = {(name, t): build(name, t) for t in cuts for name in names(t)}
    seconds = timing.time_in_turns(runs, length, rounds)
    return [time_row(length, t, seconds) for t in cuts]


def time_row(length, t, seconds):
    """Reduces the rounds of all contestants of one length to what concerns one `t`."""
    row = {"T": length, "t": t}
    row["milliseconds"] = {n: 1e3 * statistics.median(seconds[n, t]) for n in names(t)}
    ours, full = seconds["ours_xla", t], seconds["ours_xla", None]
    if t is None:
        row["stock_over_ours"] = timing.ratio(seconds["stock_xla", None], ours)
    else:  # a step back costs about two steps forward
        row["ideal_speedup"] = 3 * length / (length + 2 * t)
        row["speedup"] = timing.ratio(full, ours)
        row["share_of_ideal"] = timing.ratio(full, ours, by=row["ideal_speedup"])
        row["speedup_without_xla"] = timing.ratio(
            seconds["ours", None], seconds["ours", t]
        )
    if TORCH:
        row["torch_over_ours"] = timing.ratio(seconds["torch", t], ours)
    return row


def memory_row(length, t):
    """Measures the memory of every contestant."""
    return {
        "T": length,
        "t": t,
        "mebibytes": {
            name: timing.step_mebibytes(build, (name, t), 24, 32, length)
            for name in names(t)
        },
    }


# The tables.


def report(results):
    """Formats the results as Markdown."""
    there = {name: LABELS[name] for name in results["rows"][0]["milliseconds"]}
    memory = "MiB at the peak beyond those of steps at T = 32; XLA's compiler included"
    return "\n\n".join(
        [
            f"Milliseconds of a training step, median of {results['rounds']} rounds",
            timing.table(there, results["rows"], KEYS, "milliseconds"),
            "Ratios, median (min to max) of the rounds; ours and stock Keras with XLA",
            timing.table(RATIOS, results["rows"], KEYS),
            memory,
            timing.table(there, results["memory"], KEYS, "mebibytes"),
        ]
    )


if __name__ == "__main__":
    description = __doc__.splitlines()[0]
    timing.main(description, RESULTS, measure, report, full=FULL, quick=QUICK)
