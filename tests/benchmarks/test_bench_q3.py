"""The benchmark of question 3: same work in Keras and PyTorch, and its arithmetic."""

import json

import keras
import pytest

from benchmarks import bench_q3

SECONDS = {
    ("inverse", False): [0.30, 0.60, 0.30],
    ("inverse", True): [0.15, 0.15, 0.15],
    ("plain", False): [0.20, 0.20, 0.20],
    ("plain", True): [0.10, 0.10, 0.10],
    ("PyTorch inverse", None): [0.60, 0.60, 0.60],
    ("PyTorch plain", None): [0.30, 0.30, 0.30],
}


@pytest.fixture(params=[True, False], ids=["torch", "no torch"])
def results(request):
    seconds = {
        key: values
        for key, values in SECONDS.items()
        if request.param or key[1] is not None
    }
    rows = [
        bench_q3.time_row(kind, xla, seconds)
        for kind in bench_q3.KINDS
        for xla in (False, True)
    ]
    found = dict.fromkeys(rows[0]["epoch_seconds"], 2.5)
    images = [{"kind": "conv", "images": 32, "milliseconds": found}]
    memory = [{"kind": "conv", "mebibytes": found}]
    return {"rounds": 3, "rows": rows, "images": images, "memory": memory}


def test_ratios_are_taken_within_a_round(results):
    without, with_xla = results["rows"][:2]
    assert without["inverse_over_plain"] == pytest.approx(
        {"median": 1.5, "min": 1.5, "max": 3.0}
    )
    assert with_xla["epoch_seconds"]["plain"] == pytest.approx(46.8)
    if "torch_over_inverse" in without:
        assert without["torch_over_inverse"]["min"] == pytest.approx(1.0)
        assert with_xla["torch_over_plain"]["median"] == pytest.approx(3.0)


def test_headline_metrics_survive_the_file(results, tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(results))
    metrics = bench_q3.headline_metrics(bench_q3.load_results(path))
    expected = {"dense_inversion_time": 1.5, "conv_inversion_time": 1.5}
    if "torch_over_inverse" in results["rows"][0]:
        expected |= {"dense_torch_time": 4.0, "conv_torch_time": 4.0}
    assert metrics == pytest.approx(expected)


def test_report_has_a_column_for_everyone_there(results):
    report = bench_q3.report(results)
    there = "torch_over_inverse" in results["rows"][0]
    assert ("| PyTorch, plain |" in report) == there
    assert "| conv | True |" in report
    assert "| conv | 32 | 2.50 |" in report


@pytest.mark.parametrize("kind", bench_q3.KINDS)
@pytest.mark.parametrize("losses", bench_q3.LOSSES)
def test_pytorch_starts_from_the_loss_of_keras(kind, losses, monkeypatch):
    pytest.importorskip("torch")
    keras.utils.set_random_seed(0)  # as `build` does
    model = bench_q3.build_autoencoder(kind, **bench_q3.LOSSES[losses])
    model.compile()
    ours = model.evaluate(
        bench_q3.images(bench_q3.BATCH)[0], batch_size=bench_q3.BATCH, verbose=0
    )

    theirs, loss_of = [], bench_q3.torch_losses

    def spy(*args):
        theirs.append(loss_of(*args))
        return theirs[-1]

    monkeypatch.setattr(bench_q3, "torch_losses", spy)
    bench_q3.build(kind, f"PyTorch {losses}", None)(bench_q3.BATCH, 2)
    assert theirs[0].item() == pytest.approx(ours[0], rel=1e-4)
    assert theirs[-1].item() != pytest.approx(ours[0], rel=1e-3)


@pytest.mark.parametrize("xla", [False, True])
def test_keras_contestants_run_under_fit(xla):
    run = bench_q3.build("dense", "inverse", xla)
    assert len(run(16, 2)) == 2
