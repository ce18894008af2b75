"""The parts that all benchmarks share: clocks, turns, memory, machine, rows, tables.

A candidate is a pair `(name, compiler)`, such as `("ours", "XLA")` or
`("PyTorch", "inductor")`. In a round each candidate has its turn, so that other load on
the machine hits all of them alike. Ratios are taken within a round.
"""

import argparse
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
except ImportError:
    torch = None

VOCAB_SIZE, EMBEDDING_DIM, UNITS, BATCHES = 5000, 128, 128, 8
LEARNING_RATE = 1e-3
CORES = os.cpu_count()
OURS = ("ours", "XLA")
EAGER, INDUCTOR = ("PyTorch", "eager"), ("PyTorch", "inductor")
PYTORCH = (EAGER, INDUCTOR) if torch else ()

# `torch.compile` unrolls a loop over time, so it compiles blocks of so many steps.
TORCH_BLOCK = 32
# Steps up to this many tokens run several to an execution of `fit`.
SHORT, TOGETHER = 2_048, 32
# The least that a turn takes.
MIN_STEPS, MIN_SECONDS = 3, 0.3

PROC = Path("/proc/self")

if torch:
    torch.set_num_threads(CORES)
    torch.set_flush_denormal(True)  # as TensorFlow does
    torch._dynamo.config.recompile_limit = 64  # a program for each shape


def main(question, measure, *, full, quick):
    """Runs the benchmark of a question and writes its record, `results/bench.json`.

    Args:
        question: str, the question's folder.
        measure: function of a plan and of the machine's peak in GFLOP/s; it returns a
            dict with `rows` and `headline`.
        full: dict, the plan.
        quick: dict, the plan of `--quick`, whose record goes below `build`.
    """
    parser = argparse.ArgumentParser(description=f"Benchmark of {question}.")
    parser.add_argument("--quick", action="store_true", help="few rows and rounds")
    parser.add_argument("--started", default="alone", help="names the whole run")
    args = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    plan, peaks = quick if args.quick else full, peak_gflops()
    more = {"torch": importlib.metadata.version("torch")} if torch else {}
    record = {"started": args.started, "versions": presets.versions() | more}
    record |= {"machine": {"processor": processor(), "peak_gflops": peaks}}
    record |= {"rounds": plan["rounds"]} | measure(plan, max(peaks.values()))
    record["table"] = table(record["rows"])
    path = record_path(question, args.quick)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"{record['table']}\n\n{record['headline']}\n\nWritten to {path}")


def record_path(question, quick=False):
    """Returns the path of a question's `bench.json`."""
    root = presets.ROOT / "build" if quick else presets.ROOT
    return root / question / "results" / "bench.json"


def progress(text):
    """Prints a line about the progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def processor():
    """Returns the name of the processor, as far as the system tells."""
    cpus = Path("/proc/cpuinfo").read_text() if PROC.exists() else ""
    name = re.search(r"^model name\s*: (.+)$", cpus, re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()


def peak_gflops(size=2048, repeats=9):
    """Measures how fast the machine multiplies large float32 matrices.

    Returns:
        Dict from a library to the median of its GFLOP/s.
    """
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


def measure(build, candidates, plan, title, size, least=MIN_STEPS):
    """Times candidates in rounds, and measures their memory where the plan says so.

    Args:
        build: function of a module, of a candidate's name and compiler and the values
            of `size`. It returns a function `steps -> seconds of each step`.
        candidates: list of `(name, compiler)`.
        plan: dict with `rounds`, and the values of those sizes in `memory` whose memory
            is measured.
        title: str, for the progress.
        size: dict, of the work.
        least: int, the number of steps in a turn, unless they are short.

    Returns:
        `(seconds, memory)`: dict from a candidate to a list with the median seconds of
        each round, and dict from a candidate to MiB.
    """
    runs, steps, seconds = {}, {}, {key: [] for key in candidates}
    for key in candidates:
        progress(f"{title}: {', '.join(key)}")
        run = runs[key] = build(*key, *size.values())
        run(1)  # traces and compiles
        steps[key] = max(least, math.ceil(MIN_SECONDS / np.median(run(least))))
    for turn in range(plan["rounds"]):
        for key in candidates[:: -1 if turn % 2 else 1]:
            seconds[key].append(float(np.median(runs[key](steps[key]))))
    if tuple(size.values()) not in plan["memory"]:
        return seconds, {}
    return seconds, {key: mebibytes(build, *key, *size.values()) for key in candidates}


def mebibytes(build, *arguments):
    """Measures in a process of its own how much memory the training of a model takes.

    Args:
        build: see `measure`.
        *arguments: for `build`.

    Returns:
        MiB by which the resident memory at the peak of training steps is above that
        before the model was built. The first steps, which compile, do not count, but
        what they leave behind does. None where the system does not tell.
    """
    if not PROC.exists():
        return None
    progress(f"memory of {arguments}")
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(mebibytes_here, build, arguments).result()


def mebibytes_here(build, arguments):
    """Measures as `mebibytes` does, in this process."""

    def status(field):
        text = (PROC / "status").read_text()
        return int(text.split(f"{field}:")[1].split()[0]) / 1024

    before = status("VmRSS")
    run = build(*arguments)
    run(1)
    (PROC / "clear_refs").write_text("5")  # restarts the peak
    run(MIN_STEPS)
    return status("VmHWM") - before


def ratio(slow, fast):
    """Reduces two lists of seconds, one per round, to their ratio: median, min, max."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def compare(seconds, pairs=None, *, gflop, peak, memory, **about):
    """Makes a row for each comparison.

    Args:
        seconds: dict from `measure`.
        pairs: list of `(candidate, peer)`; by default ours with XLA and each other one.
        gflop: float, of our step.
        peak: float, GFLOP/s of the machine.
        memory: dict from `measure`.
        **about: `question`, `work` (text), `size` (dict of numbers) and `comparison`:
            "same work", "other layers" or "ablation".

    Returns:
        List of dicts that JSON can hold.
    """
    medians = {key: 1e3 * statistics.median(found) for key, found in seconds.items()}
    rows = []
    for ours, peer in pairs or [(OURS, key) for key in seconds if key != OURS]:
        row = about | {"ours": ours[0], "compiler": ours[1]}
        row |= {"milliseconds": medians[ours], "peer": peer[0]}
        row |= {"peer_compiler": peer[1], "peer_milliseconds": medians[peer]}
        row["ratio"] = ratio(seconds[peer], seconds[ours])
        row["mebibytes"] = memory.get(ours)
        row["peer_mebibytes"] = memory.get(peer)
        row["gflop"] = gflop
        row["share_of_peak"] = gflop / (1e-3 * medians[ours]) / peak
        rows.append(row)
    return rows


# Rows for a reader.


def faster_torch(rows):
    """Returns of each work's rows against PyTorch the one with the faster compiler."""
    fastest = {}
    for row in rows:
        if row["peer"] == "PyTorch" and row["comparison"] == "same work":
            best = fastest.setdefault(row["work"], row)
            if row["peer_milliseconds"] < best["peer_milliseconds"]:
                fastest[row["work"]] = row
    return list(fastest.values())


def table(rows):
    """Formats rows as Markdown: what does the same work, then any other comparison."""
    others = [row for row in rows if row["comparison"] != "same work"]
    parts = [_same_work([row for row in rows if row["comparison"] == "same work"])]
    return "\n\n".join([*parts, _others(others)] if others else parts)


def _same_work(rows):
    """Formats a line per work, with a column per candidate."""
    peers = list(dict.fromkeys((row["peer"], row["peer_compiler"]) for row in rows))
    fastest = {row["work"]: row for row in faster_torch(rows)}
    titles = ["a training step", f"ours, {OURS[1]} (ms)"]
    titles += [f"{', '.join(peer)} (ms)" for peer in peers]
    titles += ["faster PyTorch / ours", "ours (MiB)", "faster PyTorch (MiB)"]
    titles += ["GFLOP", "share of peak"]
    lines = []
    for work in dict.fromkeys(row["work"] for row in rows):
        of_work = [row for row in rows if row["work"] == work]
        times = {
            (r["peer"], r["peer_compiler"]): r["peer_milliseconds"] for r in of_work
        }
        ours, torch_row = of_work[0], fastest.get(work, {})
        values = [ours["milliseconds"], *map(times.get, peers)]
        values += [torch_row.get("ratio"), ours["mebibytes"]]
        values += [torch_row.get("peer_mebibytes"), ours["gflop"]]
        lines.append([work, *map(show, values), f"{ours['share_of_peak']:.0%}"])
    return markdown_table(titles, lines)


def _others(rows):
    """Formats a line per comparison."""
    titles = ["a training step", "ours", "ms", "other", "ms", "other / ours"]
    keys = ["milliseconds", "peer_milliseconds", "ratio", "mebibytes", "peer_mebibytes"]
    lines = []
    for row in rows:
        ours, peer, *rest = (show(row[key]) for key in keys)
        line = [row["work"], f"{row['ours']}, {row['compiler']}", ours]
        lines.append([*line, f"{row['peer']}, {row['peer_compiler']}", peer, *rest])
    return markdown_table([*titles, "ours (MiB)", "other (MiB)"], lines)


def show(value):
    """Formats a number, the median, min and max of one, or None."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return f"{value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})"
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")
