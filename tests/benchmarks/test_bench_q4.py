"""The benchmark of question 4: same work in Keras and PyTorch, and its arithmetic."""

import json

import keras
import numpy as np
import pytest

from benchmarks import bench_q4
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import LENGTHS, TOKENS, Buckets

SECONDS = {
    "ours": [1.0, 1.0, 2.0],
    "ours, no XLA": [2.0, 2.0, 2.0],
    "naive": [3.0, 4.0, 5.0],
    "PyTorch": [1.5, 1.5, 1.5],
}


@pytest.fixture
def record(tmp_path, monkeypatch):
    lengths = [0] * 4 + [10] * 61
    (tmp_path / "pretraining.json").write_text(json.dumps({"lengths": lengths}))
    monkeypatch.setattr(bench_q4, "RECORD", tmp_path / "pretraining.json")


@pytest.fixture(params=[True, False], ids=["torch", "no torch"])
def results(request):
    seconds = {n: s for n, s in SECONDS.items() if request.param or n != "PyTorch"}
    rows = [np.arange(4)] * 300
    more = {"rounds": 3, "input_share": 0.1, "mebibytes": {"ours": 700.0}}
    scaling = {"width": [{"width": 64, "tokens_per_second": {"ours": 9000.0}}]}
    return bench_q4.reduce(seconds, rows) | more | {"scaling": scaling}


def test_the_sentences_fill_whole_batches(record):
    rows = bench_q4.sentences(6)
    sizes = np.array([len(row) for row in rows])
    assert 4 <= sizes.min() and sizes.max() <= LENGTHS[-1]
    bucket = np.searchsorted(LENGTHS, sizes)
    for i, count in enumerate(np.bincount(bucket, minlength=len(LENGTHS))):
        assert count % (TOKENS // LENGTHS[i]) == 0
    assert len(Buckets(rows)) > 0
    assert {len(row) for row in bench_q4.sentences(2, length=16)} == {16}


def test_ratios_are_taken_within_a_round(results):
    assert results["tokens_per_second"]["ours"] == pytest.approx(1200)
    expected = {"median": 3.0, "min": 2.5, "max": 4.0}
    assert results["vs_naive"] == pytest.approx(expected)
    if "vs_torch" in results:
        assert results["vs_torch"]["median"] == pytest.approx(1.5)


def test_headline_metrics_survive_the_file(results, tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(results))
    metrics = bench_q4.headline_metrics(bench_q4.load_results(path))
    expected = {"tokens_per_second_vs_naive": 3.0}
    if "vs_torch" in results:
        expected["tokens_per_second_vs_torch"] = 1.5
    assert metrics == pytest.approx(expected)


def test_report_has_a_row_for_everyone_there(results):
    report = bench_q4.report(results)
    assert ("| PyTorch |" in report) == ("vs_torch" in results)
    assert "10 % of a step" in report
    assert "| 64 | 9000.0 |" in report
    assert "| ours | 700.0 |" in report


def test_pytorchs_denoiser_is_ours():
    torch = pytest.importorskip("torch")
    denoiser = build_denoiser(30, width=16, depth=2, heads=2, max_length=12)
    rng = np.random.default_rng(0)
    for weight in denoiser.weights:
        weight.assign(weight + rng.normal(0, 0.2, weight.shape))
    token_ids = rng.integers(5, 30, (3, 9)).astype("int32")
    token_ids[1, 5:] = 0
    positions = rng.integers(0, 5, (3, 4)).astype("int32")
    theirs = bench_q4.TorchDenoiser(denoiser)
    expected = denoiser({"token_ids": token_ids, "positions": positions}).numpy()
    ids, places = torch.tensor(token_ids).long(), torch.tensor(positions).long()
    with torch.no_grad():
        found = theirs.logits(ids, places).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)

    # And so is the loss that it goes down on.
    targets = rng.integers(5, 30, (3, 4))
    weights = (rng.random((3, 4)) < 0.7).astype("float32")
    example = ({"token_ids": ids, "positions": places}, torch.tensor(targets),
               torch.tensor(weights))  # fmt: skip
    loss = theirs.train(*example).item()
    entropy = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=None
    )
    losses = entropy(targets, expected).numpy()
    assert loss == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-4)
    assert theirs.train(*example).item() < loss
