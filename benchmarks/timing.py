"""What the benchmarks share: the work, the clock, rounds, ratios and tables.

A step is timed from the end of the one before to its own end. In a round every
contestant has its turn, so that whatever else the machine does hits all of them
alike; every ratio is taken within a round.
"""

import argparse
import concurrent.futures
import importlib.metadata
import importlib.util
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

VOCAB_SIZE, EMBEDDING_DIM, UNITS, BATCH_SIZE, BATCHES = 5000, 128, 128, 64, 8
LEARNING_RATE = 1e-3
CORES = os.cpu_count()
TORCH = importlib.util.find_spec("torch") is not None

CPU_INFO, PROC_STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")

# A contestant has its turn of at least so many steps and seconds in each round.
MIN_STEPS, MIN_SECONDS = 3, 0.3


def main(description, results_file, measure, report, *, full, quick, argv=None):
    """Runs a benchmark from the command line: prints its tables, writes them as JSON.

    Args:
        description: str, for `--help`.
        results_file: `Path` in the repository; a quick run writes it below `build`.
        measure: function from a plan to the dict of what was measured.
        report: function from the whole dict to the tables.
        full: dict, the plan, with `rounds`.
        quick: dict, the plan of `--quick`.
        argv: list of str, or None for the command line's.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few rows and rounds")
    parser.add_argument("--output", type=Path, help=f"default {results_file}")
    args = parser.parse_args(argv)
    default = presets.ROOT / ("build" if args.quick else "") / results_file
    output = args.output or default
    plan = quick if args.quick else full
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    if not TORCH:
        progress("PyTorch is not installed and left out: pip install torch")
    results = {"versions": versions(), "machine": machine()}
    results |= {"cores": CORES, "rounds": plan["rounds"]}
    results |= measure(plan)
    print(report(results))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(f"\nWritten to {output}")


def load_results(path):
    """Returns what a run of a benchmark has written.

    Args:
        path: path of the file, in the repository unless absolute.
    """
    return json.loads((presets.ROOT / path).read_text("utf-8"))


def versions():
    """Returns `presets.versions` and that of PyTorch, where it is installed."""
    torch = {"torch": importlib.metadata.version("torch")} if TORCH else {}
    return presets.versions() | torch


def machine():
    """Tells what it runs on: processor, memory and system, as far as they tell."""
    processor = platform.processor() or platform.machine()
    if CPU_INFO.exists():
        names = re.findall(r"^model name\s*: (.+)$", CPU_INFO.read_text(), re.MULTILINE)
        processor = names[0] if names else processor
    memory = None
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"processor": processor, "GiB": memory, "system": platform.system()}


def progress(text):
    """Tells on stderr how far the benchmark is."""
    print(text, file=sys.stderr, flush=True)


def batches(length):
    """Makes the work: full-length sentences of random tokens, and labels.

    Args:
        length: int, tokens of a sentence.

    Returns:
        `(ids, labels)` of `BATCHES` batches: int32 `(BATCHES, BATCH_SIZE, length)` and
        float32 `(BATCHES, BATCH_SIZE, 1)`.
    """
    rng = np.random.default_rng(1)
    ids = rng.integers(1, VOCAB_SIZE, (BATCHES, BATCH_SIZE, length), dtype="int32")
    return ids, rng.integers(0, 2, (BATCHES, BATCH_SIZE, 1)).astype("float32")


def keras_steps(model, length, steps):
    """Trains a Keras model under `fit`; returns the seconds of each step."""
    dataset = tf.data.Dataset.from_tensor_slices(batches(length))
    return fit_steps(model, dataset, steps)


def fit_steps(model, dataset, steps):
    """Trains a Keras model on batches; returns the seconds of each step."""
    ends = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    model.fit(
        dataset.repeat().prefetch(tf.data.AUTOTUNE),
        steps_per_epoch=steps + 1,
        callbacks=[clock],
        shuffle=False,
        verbose=0,
    )
    return np.diff(ends)


def time_in_turns(runs, size, rounds):
    """Times every contestant at one size of the work, in rounds.

    Args:
        runs: dict from a contestant to a function `(size, steps) -> seconds of each
            step`.
        size: what the functions are given, such as the tokens of a sentence.
        rounds: int.

    Returns:
        Dict from a contestant to a list with the median seconds of every round.
    """
    steps, seconds = {}, {key: [] for key in runs}
    for key, run in runs.items():
        run(size, 1)  # traces and compiles
        steps[key] = math.ceil(MIN_SECONDS / np.median(run(size, 2)))
    for turn in range(rounds):
        progress(f"{size}: round {turn + 1} of {rounds}")
        for key in list(runs)[:: -1 if turn % 2 else 1]:
            step_seconds = runs[key](size, max(MIN_STEPS, steps[key]))
            seconds[key].append(float(np.median(step_seconds)))
    return seconds


def milliseconds(runs, size, rounds):
    """Returns the median milliseconds of a step of every contestant, in turns.

    Args:
        runs: see `time_in_turns`.
        size: see `time_in_turns`.
        rounds: int.
    """
    seconds = time_in_turns(runs, size, rounds)
    return {name: 1e3 * statistics.median(found) for name, found in seconds.items()}


def step_mebibytes(build, arguments, *sizes):
    """Measures in a process of its own how much memory a step takes.

    Args:
        build: function of a module that makes a contestant, see `time_in_turns`.
        arguments: tuple, for `build`.
        *sizes: sizes of the work. What is measured is by how much a step at the last
            one raises the peak that the ones before have reached; what the compiler
            takes is part of it.

    Returns:
        MiB, or None where the system does not tell.
    """
    if not PROC_STATUS.exists():
        progress(f"Memory is left out: it is read from {PROC_STATUS}, on Linux")
        return None
    progress(f"memory of {arguments}, {sizes[-1]}")
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(_step_mebibytes, build, arguments, sizes).result()


def _step_mebibytes(build, arguments, sizes):
    run = build(*arguments)
    for size in sizes:
        before = _peak_mebibytes()
        run(size, 1)
    return _peak_mebibytes() - before


def _peak_mebibytes():
    return int(PROC_STATUS.read_text().split("VmHWM:")[1].split()[0]) / 1024


def ratio(slow, fast, by=1):
    """Reduces two lists of seconds, one a round, to their ratio: median, min, max."""
    ratios = [a / b / by for a, b in zip(slow, fast, strict=True)]
    median = statistics.median(ratios)
    return {"median": median, "min": min(ratios), "max": max(ratios)}


def table(columns, rows, key_columns, part=None):
    """Formats rows as a Markdown table.

    Args:
        columns: dict from a key of a row to the title of its column.
        rows: list of dicts.
        key_columns: dict from a title to the key of the row's own name in it.
        part: key of the dict within a row that holds the columns, or None.

    Returns:
        The table as text.
    """
    titles = [*key_columns, *columns.values()]
    lines = [titles, ["---:"] * len(titles)]
    for row in rows:
        values = row[part] if part else row
        cells = [show(values[key]) if key in values else "" for key in columns]
        names = [
            "all" if row[key] is None else row[key] for key in key_columns.values()
        ]
        lines.append([*names, *cells])
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def show(value):
    """Formats a number, or the median, min and max of one, or what is not known."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return f"{value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})"
    if isinstance(value, int):
        return str(value)
    return f"{value:.1f}" if value > 10 else f"{value:.2f}"
