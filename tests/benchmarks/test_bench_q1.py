"""The benchmark of question 1: same work in all contestants, and its arithmetic."""

import json

import numpy as np
import pytest

from benchmarks import bench_q1, timing

SECONDS = {
    ("ours_xla", None): [0.08, 0.10, 0.09],
    ("ours", None): [0.16, 0.20, 0.18],
    ("stock_xla", None): [0.12, 0.10, 0.18],
    ("stock", None): [0.2, 0.2, 0.2],
    ("torch", None): [0.4, 0.4, 0.4],
    ("ours_xla", 16): [0.04, 0.04, 0.03],
    ("ours", 16): [0.08, 0.08, 0.08],
    ("torch", 16): [0.06, 0.05, 0.06],
}


@pytest.fixture(params=[True, False], ids=["torch", "no torch"])
def results(request, monkeypatch):
    monkeypatch.setattr(bench_q1, "TORCH", request.param)
    rows = [bench_q1.time_row(512, t, SECONDS) for t in (None, 16)]
    memory = [{"T": 512, "t": 16, "mebibytes": {"ours_xla": 3.0, "ours": 4.0}}]
    return {"rounds": 3, "rows": rows, "memory": memory}


def test_ratios_are_taken_within_a_round(results):
    row = results["rows"][1]
    assert row["speedup"] == pytest.approx({"median": 2.5, "min": 2.0, "max": 3.0})
    assert row["ideal_speedup"] == pytest.approx(1536 / 544)
    assert row["share_of_ideal"]["median"] == pytest.approx(2.5 * 544 / 1536)
    full = results["rows"][0]
    assert full["stock_over_ours"]["median"] == pytest.approx(1.5)
    assert full["milliseconds"]["ours"] == pytest.approx(180)


def test_headline_metrics_survive_the_file(results, tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(results))
    expected = {"speedup_T512_t16": 2.5, "ideal_speedup_T512_t16": 1536 / 544}
    if bench_q1.TORCH:
        expected["torch_ratio_T512_t16"] = 1.5
    metrics = bench_q1.headline_metrics(bench_q1.load_results(path))
    assert metrics == pytest.approx(expected)


def test_report_has_a_column_for_everyone_there(results):
    report = bench_q1.report(results)
    assert ("| PyTorch |" in report) == bench_q1.TORCH
    assert "| 512 | 16 |" in report


@pytest.mark.parametrize("t", [None, 4])
def test_contestants_take_the_same_steps(t):
    learnt = {}
    for name in bench_q1.names(t):
        run = bench_q1.build(name, t)
        assert len(run(12, 2)) == 2
        model = run.args[0]
        if name == "torch":
            learnt[name] = model[1].weight_hh_l0.detach().numpy().T
        else:
            (weight,) = [w for w in model.weights if w.name == "recurrent_kernel"]
            learnt[name] = weight.numpy()
    _, (_, start, _), _ = bench_q1.start_weights()
    step = np.linalg.norm(learnt["ours"] - start)
    assert step > 0.1
    for name, weight in learnt.items():
        # Adam's epsilon stands in another place in PyTorch.
        assert np.linalg.norm(weight - learnt["ours"]) < 0.05 * step, name


KEPT = []


def hold():
    """Contestant of a toy: a step allocates so many MiB and keeps them."""
    return lambda size, steps: KEPT.append(np.ones(size * 2**20, "uint8"))


@pytest.mark.skipif(not timing.PROC_STATUS.exists(), reason="needs /proc")
def test_memory_is_what_the_last_size_adds():
    assert timing.step_mebibytes(hold, (), 30, 100) == pytest.approx(100, abs=8)
    assert timing.step_mebibytes(hold, (), 100) == pytest.approx(100, abs=8)
