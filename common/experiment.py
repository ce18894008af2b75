"""Preset, seeds, versions and results files: what every experiment shares.

A notebook is run in one of two presets, named by the environment variable `PRESET`:
`quick` (minutes on two cores, embedded data) or `full` (the published figures).

```python
preset = experiment.preset()
epochs = preset.choose(quick=1, full=4)
```
"""

import ast
import contextlib
import hashlib
import importlib.metadata
import json
import math
import numbers
import os
import platform
import statistics
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from common import sweep

# What keras_nlp imports asks for widgets, which a notebook may do without.
warnings.filterwarnings("ignore", message="IProgress not found")

ROOT = Path(__file__).resolve().parents[1]
PRESETS = ("quick", "full")
# Modules that decide no result, see `code_sha256`.
NOT_DECISIVE = ("archives.py", "experiment.py", "figures.py", "plots.py", "sweep.py")
_START = time.perf_counter()
_run_seconds = []  # of every run that was remembered or computed
_replayed_seconds = []
_PACKAGES = ("tensorflow", "keras", "keras-nlp", "tensorflow-datasets", "numpy")


@dataclass(frozen=True)
class Preset:
    """How large the experiments are.

    Args:
        name: `"quick"` or `"full"`.

    Raises:
        ValueError: If `name` is neither.
    """

    name: str

    def __post_init__(self):
        if self.name not in PRESETS:
            raise ValueError(f"PRESET must be quick or full, got {self.name!r}")

    def __str__(self):
        return self.name

    def choose(self, *, quick, full):
        """Returns `quick` or `full`, whichever this preset is."""
        return quick if self.name == "quick" else full


def preset():
    """Returns the `Preset` that the environment variable `PRESET` names, or quick."""
    return Preset(os.environ.get("PRESET") or "quick")


def seed_everything(seed):
    """Seeds Python, NumPy and TensorFlow; the same seed gives the same run."""
    keras.utils.set_random_seed(seed)


def versions():
    """Returns what a result depends on besides its code, as a dict of strings."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    device = ", ".join(gpus) or f"CPU, {os.cpu_count()} cores"
    return {"python": platform.python_version()} | found | {"device": device}


def print_environment():
    """Prints the preset and the versions, as every notebook does at its beginning."""
    print(f"preset: {preset()}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()))


def summarise(values):
    """Reduces one number per seed to what a results file holds.

    Args:
        values: Sequence of numbers, at least one.

    Returns:
        A dict: `mean`, `std` (of the sample, with n − 1; 0 for a single value), `n`.

    Raises:
        ValueError: If `values` is empty.
    """
    values = [float(value) for value in values]
    if not values:
        raise ValueError("values must hold at least one number")
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "n": len(values)}


def results_dir(question):
    """Returns the folder for the results and figures of a question, and creates it.

    The full preset writes beside the notebook and the quick one below `build`, so
    that a trial never overwrites what is published. The environment variable
    `RESULTS_ROOT` moves both.

    Args:
        question: Name of the question's folder, such as `"q1_tbptt"`.

    Returns:
        The `pathlib.Path` of the folder.
    """
    root = os.environ.get("RESULTS_ROOT")
    root = root or preset().choose(quick=ROOT / "build", full=ROOT)
    folder = Path(root) / question / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_results(question, *, preset, data, seeds, wall_seconds, metrics):
    """Writes `results.json` into the results folder of a question.

    Args:
        question: Name of the question's folder.
        preset: The `Preset` of the run.
        data: What was trained on, as text.
        seeds: List of the seeds.
        wall_seconds: How long everything took. How many runs `remember` has had until
            now, and how long the longest took, is written beside it.
        metrics: Dict from name to a number or to what `summarise` returns.

    Returns:
        The path of the file.

    Raises:
        ValueError: If a metric is anything else or not finite; the message names it.
    """
    results = {
        "preset": Preset(str(preset)).name,
        "data": data,
        "seeds": [int(seed) for seed in seeds],
        "versions": versions(),
        "wall_seconds": round(float(wall_seconds), 1),
        "runs": len(_run_seconds),
        "longest_run_seconds": max(_run_seconds, default=0.0),
        "module_sha256": code_sha256(question),
        "metrics": {name: _metric(name, value) for name, value in metrics.items()},
    }
    path = results_dir(question) / "results.json"
    _write_json(path, results)
    return path


def read_results(question):
    """Returns what `write_results` wrote in this preset."""
    return json.loads((results_dir(question) / "results.json").read_text("utf-8"))


def remember(question, settings, compute):
    """Runs `compute`, or returns its result from an earlier run that was interrupted.

    Only the full preset remembers. A result is found again by its settings, the
    versions and the code behind the question (see `code_sha256`), so a change to any
    of them computes it anew; what else `compute` depends on belongs into `settings`.

    Args:
        question: Name of the question's folder.
        settings: Dict of everything that decides the result; JSON must hold it.
        compute: Function without arguments that returns a dict JSON can hold; it may
            run on another machine, see `common.sweep`.

    Returns:
        The dict as JSON gives it back (tuples become lists), with the time that it
        took to compute as `seconds`.
    """
    key = json.dumps([settings, versions(), code_sha256(question)], sort_keys=True)
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = ROOT / "build" / "runs" / question / f"{name}.json"
    full = preset().name == "full"
    if full and path.exists():
        result = json.loads(path.read_text("utf-8"))["result"]
        _replayed_seconds.append(result["seconds"])
        _run_seconds.append(result["seconds"])
        return result

    def timed():  # there, so that waiting for a free machine does not count
        start = time.perf_counter()
        return compute() | {"seconds": round(time.perf_counter() - start, 2)}

    result = sweep.compute(timed)
    _run_seconds.append(result["seconds"])
    if full:
        _write_json(path, {"settings": settings, "result": result})
    return json.loads(json.dumps(result))


def wall_seconds():
    """Returns how long everything has taken so far, remembered runs included."""
    return time.perf_counter() - _START + sum(_replayed_seconds)


def restart():
    """Starts the clock anew, and the count of runs, where another question begins."""
    global _START
    _START = time.perf_counter()
    _run_seconds.clear()
    _replayed_seconds.clear()


def code_sha256(question):
    """Returns one digest of the code that decides the results of a question.

    That is its modules, `common/data.py`, and what those import of this repository,
    without what only draws, keeps books or fetches what a digest pins, and without
    comments, docstrings and layout.
    """
    paths = sorted((ROOT / question).glob("*.py")) + [ROOT / "common" / "data.py"]
    parts = {}
    for path in paths:  # which grows
        if path.name in NOT_DECISIVE:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        parts[path.relative_to(ROOT).as_posix()] = _code(tree)
        paths += [found for found in _imports(tree) if found not in paths]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _imports(tree):
    """Returns the paths of this repository's modules that a module imports."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    paths = {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names}
    return sorted(path for path in paths if path.exists())


def _code(tree):
    """Returns the source code of a module without what does not run."""
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body[0].value.value = ""
    return ast.unparse(tree)


def _metric(name, value):
    """Returns a metric as plain numbers, or raises ValueError with its name."""
    if isinstance(value, dict):
        if set(value) != {"mean", "std", "n"}:
            raise ValueError(f"metric {name!r} must hold mean, std and n, got {value}")
        return {key: _metric(f"{name}.{key}", value[key]) for key in value}
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"metric {name!r} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"metric {name!r} must be finite, got {value}")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def write_whole(path, write):
    """Has a file written so that at any time it is complete, or not there.

    Args:
        path: `Path`, whose folder is made.
        write: function that writes a file at the path that it is given.

    Raises:
        OSError: If that fails; what was at the path is still there.
    """
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise OSError(
            error.errno,
            f"{path} cannot be written ({reason}): make room, or its folder writable, "
            "then run again, which goes on from what was kept.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _write_json(path, content):
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, lambda partial: partial.write_text(text + "\n", "utf-8"))
