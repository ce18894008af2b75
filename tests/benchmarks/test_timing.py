"""benchmarks/timing.py: clocks, memory, ratios, rows and tables."""

import json

import keras
import numpy as np
import pytest

from benchmarks import timing
from benchmarks.timing import INDUCTOR, OURS
from tests.benchmarks import make_row


def test_pytorch_is_the_faster_of_both():
    row = make_row()
    assert timing.faster_torch(row) == INDUCTOR
    found = {"median": 1.0, "min": 0.5, "max": 1.0}
    assert timing.torch_ratio(row) == pytest.approx(found)
    assert timing.faster_torch(make_row({OURS: [1.0]})) is None
    assert timing.torch_ratio(make_row({OURS: [1.0]})) is None


def test_the_table_has_a_column_per_candidate_and_a_line_per_work():
    rows = [make_row({OURS: [0.25]}, work="alone"), make_row()]
    rows[1]["mebibytes"] = {OURS: 70.0, INDUCTOR: 50.0}
    head, rule, alone, line = timing.table(json.loads(json.dumps(rows))).splitlines()
    assert "| ours, XLA (ms) | PyTorch, eager (ms) | PyTorch, inductor (ms) |" in head
    assert rule.startswith("| --- | ---: |")
    assert alone == "| alone | 250 |  |  |  |  |  | 2.00 | 20% |"
    numbers = "100 | 200 | 100 | 1.00 (0.50 to 1.00) | 70.0 | 50.0 | 2.00 | 20%"
    assert line == f"| batch 8 | {numbers} |"
    # A column in which no row has anything is left out.
    assert "MiB" not in timing.table([make_row()])


@pytest.mark.parametrize("together", [1, 4])
def test_a_step_is_timed_by_its_part_of_an_execution(together, monkeypatch):
    batches = np.ones((3, 2, 5), "float32"), np.ones((3, 2, 1), "float32")
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=together)
    now = iter(range(0, 1000, 8))  # a tick of 8 seconds at the end of each execution
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(now))
    seconds = timing.keras_steps(model, batches, 6)
    assert seconds.tolist() == [8 / together] * -(-6 // together)
    assert model.optimizer.iterations == (len(seconds) + 1) * together


def test_candidates_have_their_turn_in_every_round(monkeypatch):
    monkeypatch.setattr(timing, "MIN_SECONDS", 1.0)
    calls = []

    def build(name, compiler, batch):
        def run(steps):
            calls.append((name, steps))
            return np.full(steps, 0.1 if name == "slow" else 0.01) * batch

        return run

    options = {"rounds": 2, "memory": False, "gflop": 1.0, "peak": 100.0}
    candidates, size = [OURS, "slow, a"], {"batch": 2}
    row = timing.measure_row(build, candidates, size, work="toy", **options)
    assert row["seconds"] == {OURS: [0.02, 0.02], "slow, a": [0.2, 0.2]}
    assert row["mebibytes"] == {}
    assert row["share_of_peak"] == pytest.approx(0.5)  # 1 GFLOP in 0.02 s
    assert calls[4:] == [("ours", 50), ("slow", 5), ("slow", 5), ("ours", 50)]


KEPT = []


def hold(name, compiler, size):
    """Candidate of a toy: it and each run allocate so many MiB and keep them."""
    KEPT.append(np.ones(size * 2**20, "uint8"))
    return lambda steps: KEPT.append(np.ones(size * 2**20, "uint8"))


@pytest.mark.skipif(not timing.PROC.exists(), reason="needs /proc")
def test_memory_is_what_model_and_steps_add():
    found = timing.mebibytes_here(hold, OURS, {"size": 40})
    KEPT.clear()
    assert found == pytest.approx(120, abs=8)


@pytest.mark.parametrize("gated", [False, True])
def test_blocks_of_steps_are_the_recurrence(gated, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(timing, "TORCH_BLOCK", 3)
    monkeypatch.setattr(timing, "torch_compiled", lambda function, compiler: function)
    rng = np.random.default_rng(0)
    projected, gates = rng.normal(size=(2, 4, 7, 5))  # batch 4, 7 steps, 5 units
    kernel, state = rng.normal(size=(5, 5)), np.zeros((4, 5))
    scan = timing.torch_recurrence.__wrapped__("inductor")
    inputs, gate, start = map(torch.tensor, (projected, gates, state))
    found = scan(inputs, gate if gated else None, start, torch.tensor(kernel)).numpy()
    for step in range(7):
        state = np.tanh(projected[:, step] + state @ kernel)
        state = state * gates[:, step] if gated else state
    np.testing.assert_allclose(found, state)
