"""The benchmark of question 2: same work in all reset cells, and its arithmetic."""

import json

import numpy as np
import pytest

from benchmarks import bench_q2

SECONDS = {
    ("ResetRNN", False): [0.10, 0.20, 0.10],
    ("ResetRNN", True): [0.05, 0.05, 0.05],
    ("RNN(ResetCell)", False): [0.20, 0.20, 0.20],
    ("RNN(ResetCell)", True): [0.10, 0.10, 0.10],
    ("SimpleRNN", False): [0.10, 0.10, 0.10],
    ("SimpleRNN", True): [0.04, 0.05, 0.05],
    ("GRU", False): [0.30, 0.30, 0.30],
    ("GRU", True): [0.20, 0.20, 0.20],
    ("LSTM", False): [0.40, 0.40, 0.40],
    ("LSTM", True): [0.40, 0.40, 0.40],
    ("PyTorch GRU", None): [0.25, 0.25, 0.25],
    ("PyTorch reset cell", None): [0.50, 0.50, 0.50],
}


@pytest.fixture(params=[True, False], ids=["torch", "no torch"])
def results(request):
    seconds = {
        key: values
        for key, values in SECONDS.items()
        if request.param or key[1] in (0, 1)
    }
    rows = [bench_q2.time_row(256, xla, seconds) for xla in (False, True)]
    found = rows[0]["milliseconds"]
    units = [{"units": 64, "milliseconds": {"GRU": 3.5, "LSTM": 4.5}}]
    memory = [{"T": 1024, "mebibytes": dict.fromkeys(found)}]  # not on this system
    return {"rounds": 3, "rows": rows, "units": units, "memory": memory}


def test_ratios_are_taken_within_a_round(results):
    without, with_xla = results["rows"]
    assert without["gru_over_reset"] == pytest.approx(
        {"median": 3.0, "min": 1.5, "max": 3.0}
    )
    assert without["reset_over_simple"]["max"] == pytest.approx(2.0)
    assert with_xla["gru_over_reset"]["median"] == pytest.approx(4.0)
    assert with_xla["milliseconds"]["RNN(ResetCell)"] == pytest.approx(100)
    if "torch_gru_over_reset" in without:
        assert without["torch_gru_over_reset"]["median"] == pytest.approx(2.5)
        assert with_xla["torch_cell_over_reset"]["median"] == pytest.approx(10)


def test_headline_metrics_survive_the_file(results, tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(results))
    metrics = bench_q2.headline_metrics(bench_q2.load_results(path))
    assert metrics == pytest.approx(
        {
            "speed_vs_keras_gru": 3.0,
            "time_vs_simple_rnn": 1.0,
            "speed_vs_keras_gru_xla": 4.0,
            "time_vs_simple_rnn_xla": 1.0,
        }
    )


def test_report_has_a_column_for_everyone_there(results):
    report = bench_q2.report(results)
    there = "torch_gru_over_reset" in results["rows"][0]
    assert ("| PyTorch reset cell |" in report) == there
    assert "| 256 | True |" in report
    assert "| 64 |  |  |  | 3.50 | 4.50 |" in report
    assert "| 1024 |  |" in report


def test_reset_cells_take_the_same_steps():
    learnt = {}
    for name, xla in bench_q2.contestants():
        if "eset" not in name:
            continue
        run = bench_q2.build(name, xla)
        assert len(run(12, 2)) == 2
        model = run.args[0]
        if xla is None:
            learnt[name] = model[1].weight_hh.detach().numpy().T
        else:
            (weight,) = [w for w in model.weights if w.name == "recurrent_kernel"]
            learnt[name, xla] = weight.numpy()
    start = bench_q2.start_weights()[2]
    step = np.linalg.norm(learnt["ResetRNN", False] - start)
    assert step > 0.1
    for name, weight in learnt.items():
        # Adam's epsilon stands in another place in PyTorch.
        off = np.linalg.norm(weight - learnt["ResetRNN", False])
        assert off < 0.05 * step, name
