"""common/sweep.py: many runs, here or on a Ray cluster."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys

import pytest

from common import presets, sweep

# Run in a process of its own, where what Ray leaves open is no error.
KILLED_ONCE = """
import json, os, pathlib, sys
from common import digest, presets, results, sweep

folder = presets.ROOT = pathlib.Path(sys.argv[1])
digest.code_sha256 = lambda question: ""

@results.cached("q0_toy")
def run(seed):
    with (folder / f"computed-{seed}").open("a") as log:
        log.write(f"{os.getpid()}\\n")
    first = folder / "first"
    if seed == 2 and not first.exists():
        first.touch()
        os.kill(os.getpid(), 9)
    return {"square": seed**2}

found = sweep.run_all(run, [(seed,) for seed in range(3)])
found |= sweep.run_all(run, [(3,)])
print(json.dumps([os.getpid(), [result["square"] for result in found.values()]]))
"""


def test_runs_are_found_by_their_settings_in_order():
    calls = []

    def run(cell, seed):
        calls.append((cell, seed))
        return cell * seed

    settings = list(itertools.product(["a", "b"], [1, 2]))
    found = sweep.run_all(run, settings)
    assert list(found) == calls == settings
    assert found["b", 2] == "bb"
    assert sweep.run_all(run, []) == {}


def test_settings_that_would_hide_one_another_are_refused():
    with pytest.raises(ValueError, match="`settings` must differ.*'lstm', 0"):
        sweep.run_seeds(lambda kind, seed: seed, ["lstm", "lstm"], [0])


def test_a_reader_sees_how_far_the_runs_are_and_nobody_else(monkeypatch, capsys):
    sweep.run_all(lambda seed: seed, [(0,), (1,)])
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    sweep.run_all(lambda seed: seed, [(0,), (1,)])
    assert "2/2" in capsys.readouterr().out


def test_a_missing_ray_is_named(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install -e \.\[sweep\]"):
        sweep.compute(dict)


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs Ray")
def test_a_killed_worker_is_replaced_and_every_run_counts_once(tmp_path):
    def run(ray_address):
        command = [sys.executable, "-c", KILLED_ONCE, str(tmp_path)]
        environment = os.environ | {"PRESET": "full", "RAY_ADDRESS": ray_address}
        options = {"cwd": presets.ROOT, "env": environment, "timeout": 300}
        printed = subprocess.check_output(command, text=True, **options)
        return json.loads(printed.splitlines()[-1])

    driver, squares = run("local")
    assert squares == [0, 1, 4, 9]
    logs = [(tmp_path / f"computed-{seed}").read_text().split() for seed in range(4)]
    assert [len(log) for log in logs] == [1, 1, 2, 1]
    assert str(driver) not in sum(logs, [])
    # What was computed there is cached here: nothing is computed again.
    assert len(list((tmp_path / "build" / "runs" / "q0_toy").glob("*.json"))) == 4
    assert run("")[1] == squares
    again = [(tmp_path / f"computed-{seed}").read_text().split() for seed in range(4)]
    assert again == logs
