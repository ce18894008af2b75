"""The parts that all benchmarks share: clocks, turns, memory, machine, rows, tables.

A candidate is text, its name and its compiler, such as "ours, XLA". In a round each
candidate has its turn, so that other load on the machine hits all of them alike.
Ratios are taken within a round.
"""

import concurrent.futures
import functools
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from common import presets
from common.results import markdown_table

try:
    import torch
except ImportError:  # the tests that need it are skipped
    torch = None

VOCAB_SIZE, EMBEDDING_DIM, UNITS, BATCHES = 5000, 128, 128, 8
LEARNING_RATE = 1e-3
OURS, EAGER, INDUCTOR = "ours, XLA", "PyTorch, eager", "PyTorch, inductor"
PYTORCH = (EAGER, INDUCTOR)

# `torch.compile` unrolls a loop over time, so it compiles blocks of so many steps.
TORCH_BLOCK = 32
# Steps up to this many tokens run several to an execution of `fit`.
SHORT, TOGETHER = 2_048, 32
# The least that a turn takes.
MIN_STEPS, MIN_SECONDS = 3, 0.3

PROC = Path("/proc/self")


def main(question, measure, plan):
    """Runs the benchmark of a question and writes its record, `results/bench.json`.

    Args:
        question: str, the question's folder.
        measure: function of `plan` and of the machine's peak in GFLOP/s; it returns a
            dict with `tables`, lists of rows from `measure_row`, and `headline`.
        plan: dict with `rounds`, and what `measure` needs.
    """
    torch.set_num_threads(os.cpu_count())
    torch.set_flush_denormal(True)  # as TensorFlow does
    torch._dynamo.config.recompile_limit = 64  # a program for each shape
    peaks, versions = peak_gflops(), presets.versions()
    versions["torch"] = importlib.metadata.version("torch")
    record = {"started": os.environ.get("STARTED", "alone"), "versions": versions}
    record |= {"machine": {"processor": processor(), "peak_gflops": peaks}}
    record |= {"rounds": plan["rounds"]} | measure(plan, max(peaks.values()))
    record["table"] = "\n\n".join(map(table, record["tables"]))
    path = presets.ROOT / question / "results" / "bench.json"
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    progress(f"{record['table']}\n\nWritten to {path}")


def progress(text):
    """Prints a line about the progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def processor():
    """Returns the name of the processor, as far as the system tells."""
    cpus = Path("/proc/cpuinfo").read_text() if PROC.exists() else ""
    name = re.search(r"^model name\s*: (.+)$", cpus, re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()


def peak_gflops(size=2048, repeats=9):
    """Measures the median GFLOP/s of large float32 products, by library."""
    matrix = np.random.default_rng(0).random((size, size), dtype="float32")
    tensor = tf.constant(matrix)
    products = {
        "NumPy": lambda: matrix @ matrix,
        "TensorFlow": lambda: tf.linalg.matmul(tensor, tensor).numpy(),
    }
    found = {}
    for name, product in products.items():
        ends = [time.perf_counter()]
        for _ in range(repeats + 1):
            product()
            ends.append(time.perf_counter())
        found[name] = 2e-9 * size**3 / statistics.median(np.diff(ends)[1:])
    return found


# Steps of a candidate.


def compile_keras(model, compiler, tokens):
    """Compiles a classifier of sentences, for steps of so many tokens."""
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=compiler == "XLA",
        steps_per_execution=TOGETHER if tokens <= SHORT else 1,
    )


def sentences(batch, length):
    """Makes `BATCHES` batches of full-length sentences of random tokens, and labels.

    Returns:
        `(ids, labels)`: int32 `(BATCHES, batch, length)` and float32
        `(BATCHES, batch, 1)`.
    """
    rng = np.random.default_rng(1)
    ids = rng.integers(1, VOCAB_SIZE, (BATCHES, batch, length), dtype="int32")
    return ids, rng.integers(0, 2, (BATCHES, batch, 1)).astype("float32")


def keras_steps(model, batches, steps):
    """Trains a Keras model with `fit` and times its steps.

    Args:
        model: compiled Keras model.
        batches: endless `tf.data.Dataset`, or arrays whose first axis counts batches.
        steps: int, rounded up to whole executions of `steps_per_execution`.

    Returns:
        Array of the seconds of a step, one per execution: from the end of the one
        before to its own, divided by its steps.
    """
    if not isinstance(batches, tf.data.Dataset):
        batches = tf.data.Dataset.from_tensor_slices(batches).repeat()
    ends, size = [], model.steps_per_execution
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    model.fit(
        batches.prefetch(tf.data.AUTOTUNE),
        steps_per_epoch=(math.ceil(steps / size) + 1) * size,
        callbacks=[clock],
        shuffle=False,
        verbose=0,
    )
    return np.diff(ends) / size


def torch_compiled(function, compiler):
    """Returns a function of PyTorch as it is, or compiled whole for each shape."""
    if compiler == "eager":
        return function
    return torch.compile(function, dynamic=False, fullgraph=True)


def torch_copy(layer, *weights):
    """Returns a layer of PyTorch with its first parameters set to arrays."""
    for parameter, weight in zip(layer.parameters(), weights, strict=False):
        parameter.data.copy_(torch.tensor(weight))
    return layer


def torch_steps(train, batches, steps):
    """Calls `train` on one batch after another; returns the seconds of each step."""
    ends = []
    for step in range(steps + 1):
        train(*batches[step % len(batches)])
        ends.append(time.perf_counter())
    return np.diff(ends)


def torch_sentences(batch, length):
    """Returns the batches of `sentences` as a list of pairs of tensors."""
    ids, labels = map(torch.from_numpy, sentences(batch, length))
    return list(zip(ids, labels, strict=True))


def torch_trainer(loss_of, parameters):
    """Returns a function that takes one step of Adam on the loss of a batch.

    It returns the loss; its attribute `parameters` is the list of `parameters`.
    """
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, eps=1e-7, fused=True)

    def train(*batch):
        loss = loss_of(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    train.parameters = parameters
    return train


def torch_parameters(weights):
    """Returns arrays as trainable parameters of PyTorch."""
    return [torch.nn.Parameter(torch.tensor(w, dtype=torch.float32)) for w in weights]


@functools.cache
def torch_recurrence(compiler):
    """Returns the scan of a recurrence in PyTorch, compiled in blocks of steps.

    It takes projected inputs `(batch, time, units)`, gates of that shape or None, a
    state `(batch, units)` and the recurrent kernel, and returns the last state.
    """

    def scan(projected, gates, state, kernel):
        gates = [None] * projected.shape[1] if gates is None else gates.unbind(1)
        for inputs, gate in zip(projected.unbind(1), gates, strict=True):
            state = torch.tanh(torch.addmm(inputs, state, kernel))
            state = state if gate is None else state * gate
        return state

    if compiler == "eager":
        return scan
    compiled = torch_compiled(scan, compiler)

    def scan_in_blocks(projected, gates, state, kernel):
        for start in range(0, projected.shape[1], TORCH_BLOCK):
            part = slice(start, start + TORCH_BLOCK)
            gate = None if gates is None else gates[:, part]
            state = compiled(projected[:, part], gate, state, kernel)
        return state

    return scan_in_blocks


# What is measured of candidates.


def measure_row(build, candidates, size, *, work, rounds, memory, gflop, peak, least=3):
    """Times candidates in rounds, and measures their memory if asked to.

    Args:
        build: function of a module, of a candidate's name and compiler and of `size`.
            It returns a function `steps -> seconds of each step`.
        candidates: list of str.
        size: dict of numbers, of the work.
        work: str, the work in words.
        rounds: int.
        memory: bool, whether to measure that of ours and of PyTorch.
        gflop: float, of our step.
        peak: float, GFLOP/s of the machine.
        least: int, the number of steps in a turn, unless they are short.

    Returns:
        A row, which JSON can hold: `work`, `size`, `gflop`, the median seconds of each
        round by candidate, MiB by candidate, and the share of the peak.
    """
    runs, steps, seconds = {}, {}, {key: [] for key in candidates}
    for key in candidates:
        progress(f"{work}: {key}")
        run = runs[key] = build(*key.split(", "), **size)
        run(1)  # traces and compiles
        steps[key] = max(least, math.ceil(MIN_SECONDS / np.median(run(least))))
    for turn in range(rounds):
        for key in candidates[:: -1 if turn % 2 else 1]:
            seconds[key].append(float(np.median(runs[key](steps[key]))))
    row = {"work": work, "size": size, "gflop": gflop, "seconds": seconds}
    measured = [key for key in (OURS, *PYTORCH) if memory and key in seconds]
    row["mebibytes"] = {key: mebibytes(build, key, size) for key in measured}
    row["share_of_peak"] = gflop / statistics.median(seconds[OURS]) / peak
    return row


def mebibytes(build, candidate, size):
    """Measures in a process of its own how much memory the training of a model takes.

    Returns:
        MiB by which the resident memory at the peak of training steps is above that
        before the model was built. The first steps, which compile, do not count, but
        what they leave behind does. None where the system does not tell.
    """
    if not PROC.exists():
        return None
    progress(f"memory of {candidate}")
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(mebibytes_here, build, candidate, size).result()


def mebibytes_here(build, candidate, size):
    """Measures as `mebibytes` does, in this process."""

    def status(field):
        text = (PROC / "status").read_text()
        return int(text.split(f"{field}:")[1].split()[0]) / 1024

    before = status("VmRSS")
    run = build(*candidate.split(", "), **size)
    run(1)
    (PROC / "clear_refs").write_text("5")  # restarts the peak
    run(MIN_STEPS)
    return status("VmHWM") - before


# Rows for a reader.


def ratio(slow, fast):
    """Reduces two lists of seconds, one per round, to their ratio: median, min, max."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def faster_torch(row):
    """Returns the faster one of PyTorch's candidates in a row, None without any."""
    found = [key for key in PYTORCH if key in row["seconds"]]
    return min(
        found, key=lambda key: statistics.median(row["seconds"][key]), default=None
    )


def torch_ratio(row):
    """Returns the time of the faster PyTorch over ours, or None; see `ratio`."""
    seconds, peer = row["seconds"], faster_torch(row)
    return ratio(seconds[peer], seconds[OURS]) if peer else None


def table(rows):
    """Formats rows as Markdown: a line per work, with a column per candidate."""
    candidates = list(dict.fromkeys(key for row in rows for key in row["seconds"]))
    titles = ["a training step", *(f"{key} (ms)" for key in candidates)]
    titles += ["faster PyTorch / ours", "ours (MiB)", "faster PyTorch (MiB)"]
    lines = []
    for row in rows:
        medians = {key: statistics.median(s) for key, s in row["seconds"].items()}
        values = [1e3 * medians[key] if key in medians else None for key in candidates]
        memory = row["mebibytes"]
        values += [torch_ratio(row), memory.get(OURS), memory.get(faster_torch(row))]
        values += [row["gflop"]]
        share = f"{row['share_of_peak']:.0%}"
        lines.append([row["work"], *map(show, values), share])
    columns = zip([*titles, "GFLOP", "share of peak"], *lines, strict=True)
    titles, *lines = zip(*[c for c in columns if any(c[1:])], strict=True)
    return markdown_table(titles, lines)


def show(value):
    """Formats a number, the median, min and max of one, or None."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return f"{value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})"
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")
