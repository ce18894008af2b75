"""Results: kept while a run goes on, written to a file, formatted for a reader."""

import contextlib
import functools
import hashlib
import inspect
import json
import math
import numbers
import os
import statistics
import time

from common import digest, presets, sweep

_START = time.perf_counter()
_replayed_seconds = []


def summarise(values):
    """Reduces one number per seed to the entry of a results file.

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


def show(value, spec=".1f", *, scale=1, unit="", seeds=False):
    """Formats a number, or the mean and standard deviation of several.

    Args:
        value: a number, a list of numbers (one per seed), or what `summarise` returns.
        spec: str, the format of a number.
        scale: number, the factor to multiply with, such as 100 for percent.
        unit: str, what follows the number, such as `"%"`.
        seeds: bool, whether the number of seeds is added.

    Returns:
        Text such as `"83.2 ± 0.4%"` or, with `seeds`, `"83.2 ± 0.4% (3 seeds)"`; a
        single value has no spread.
    """
    if isinstance(value, (list, tuple)):
        value = summarise(value)
    if not isinstance(value, dict):
        return f"{scale * value:{spec}}{unit}"
    spread = f" ± {scale * value['std']:{spec}}" if value["n"] > 1 else ""
    count = f" ({value['n']} seeds)" if seeds and value["n"] > 1 else ""
    return f"{scale * value['mean']:{spec}}{spread}{unit}{count}"


percent = functools.partial(show, scale=100, unit="%")


def markdown_table(titles, rows):
    """Formats rows as a Markdown table, text to the left and numbers to the right.

    Args:
        titles: list of str, one per column.
        rows: list of lists of str or numbers, one per row.

    Returns:
        The table as text, without a newline at its end.
    """
    rows = [[str(cell) for cell in row] for row in rows]
    numeric = [
        all(cell == "" or cell[0].isdigit() or cell[0] in "-−<" for cell in column)
        for column in zip(*rows, strict=True)
    ]
    rule = ["---:" if number else "---" for number in numeric] or ["---"] * len(titles)
    lines = [titles, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_results(question, *, data, seeds, metrics):
    """Writes `results.json` into the results folder of a question.

    Args:
        question: Name of the question's folder.
        data: What was trained on, as text.
        seeds: List of the seeds.
        metrics: Dict from name to a number or to what `summarise` returns.

    Returns:
        The path of the file.

    Raises:
        ValueError: If a metric is anything else or not finite; the message names it.
    """
    seconds = time.perf_counter() - _START + sum(_replayed_seconds)
    content = {
        "preset": str(presets.preset()),
        "data": data,
        "seeds": [int(seed) for seed in seeds],
        "versions": presets.versions(),
        "wall_seconds": round(seconds, 1),
        "module_sha256": digest.code_sha256(question),
        "metrics": {name: _metric(name, value) for name, value in metrics.items()},
    }
    path = presets.results_dir(question) / "results.json"
    _write_json(path, content)
    return path


def benchmark(question):
    """Reads the published record of a question's benchmark.

    Its `headline` has the main figures, its `table` all of them as Markdown.
    """
    path = presets.CODE / question / "results" / "bench.json"
    return json.loads(path.read_text("utf-8"))


def restart():
    """Restarts the clock of `write_results`, where another question begins."""
    global _START
    _START = time.perf_counter()
    _replayed_seconds.clear()


def cached(question, *, ignore=()):
    """Caches what a function returns on disk, keyed by its arguments.

    Works like `joblib.Memory.cache`, and only in the full preset, so that a run that
    was interrupted resumes. A result is found again by the name of the function, its
    arguments, the versions and the code behind the question (`digest.code_sha256`).
    The function may run on another machine, see `common.sweep`.

    Args:
        question: Name of the question's folder.
        ignore: names of arguments that are not part of the key.

    Returns:
        A decorator for functions that return a dict JSON can hold. Arguments are
        JSON values or objects with an attribute `cache_key` that is one. The result
        comes back as from JSON (tuples become lists), with the time that it took to
        compute as `seconds`.

    Example:

    ```python
    @results.cached("q1_tbptt")
    def accuracy_of_training(data, *, cell, t, seed):
        ...
    ```
    """

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            settings = {"function": function.__name__}
            for name, value in bound.arguments.items():
                if name not in ignore:
                    settings[name] = _key(function, name, value)

            def timed():  # where it runs: waiting for a free machine is not counted
                start = time.perf_counter()
                found = function(*bound.args, **bound.kwargs)
                return found | {"seconds": round(time.perf_counter() - start, 2)}

            return _replay_or_run(question, settings, timed)

        return call

    return decorate


def _key(function, name, value):
    """Returns what stands for an argument in the key of `cached`."""
    value = getattr(value, "cache_key", value)
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` of {function.__name__} must be a JSON value, have a `cache_key` "
            f"or be ignored, to be part of a cache's key. Received: {value!r}"
        ) from error


def _replay_or_run(question, settings, run):
    """Returns the result that is kept under some settings, or runs and keeps it."""
    key = [settings, presets.versions(), digest.code_sha256(question)]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = presets.ROOT / "build" / "runs" / question / f"{name}.json"
    full = presets.preset().name == "full"
    if full and path.exists():
        result = json.loads(path.read_text("utf-8"))["result"]
        _replayed_seconds.append(result["seconds"])
        return result
    result = sweep.compute(run)
    if full:
        _write_json(path, {"settings": settings, "result": result})
    return json.loads(json.dumps(result))


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


def write_atomic(path, write):
    """Writes a file atomically: at any time it is complete or absent.

    Args:
        path: `Path`, whose folder is made.
        write: function that writes a file at the path that it receives.

    Raises:
        OSError: If that fails; an earlier file at the path is left as it was.
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
            f"{path} cannot be written ({reason}): make room, or make its folder "
            "writable, then run again, which resumes.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _write_json(path, content):
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, lambda partial: partial.write_text(text + "\n", "utf-8"))
