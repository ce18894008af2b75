"""The benchmark of question 4: same work in Keras and PyTorch, and its arithmetic."""

import json

import keras
import numpy as np
import pytest

from benchmarks import bench_q4, timing
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import LENGTHS, TOKENS, Buckets
from tests.benchmarks import needs_torch

VOCAB_SIZE = 30


def example():
    """A batch of three sentences, one with padding."""
    rng = np.random.default_rng(0)
    token_ids = rng.integers(5, VOCAB_SIZE, (3, 9)).astype("int32")
    token_ids[1, 5:] = 0
    positions = rng.integers(0, 5, (3, 4)).astype("int32")
    targets = rng.integers(5, VOCAB_SIZE, (3, 4))
    weights = (rng.random((3, 4)) < 0.7).astype("float32")
    return {"token_ids": token_ids, "positions": positions}, targets, weights


def test_sentences_fill_whole_batches(tmp_path, monkeypatch):
    lengths = [0] * 4 + [10] * 61
    (tmp_path / "record.json").write_text(json.dumps({"lengths": lengths}))
    monkeypatch.setattr(bench_q4, "RECORD", tmp_path / "record.json")
    rows = bench_q4.mixed_sentences(6)
    sizes = np.array([len(row) for row in rows])
    assert 4 <= sizes.min() and sizes.max() <= LENGTHS[-1]
    counts = np.bincount(np.searchsorted(LENGTHS, sizes), minlength=len(LENGTHS))
    for length, count in zip(LENGTHS, counts, strict=True):
        assert count % (TOKENS // length) == 0
    assert len(Buckets(rows)) > 0


@needs_torch
def test_pytorchs_denoiser_is_ours():
    sizes = {"width": 16, "depth": 2, "heads": 2, "max_length": 12}
    denoiser, rng = build_denoiser(VOCAB_SIZE, **sizes), np.random.default_rng(0)
    for weight in denoiser.weights:
        weight.assign(weight + rng.normal(0, 0.2, weight.shape))
    peer, batch = bench_q4.TorchDenoiser(denoiser, "eager"), example()
    inputs, targets, weights = batch
    expected = denoiser(inputs).numpy()
    tensors = bench_q4.torch_example(batch)
    with timing.torch.no_grad():
        found = peer.logits(*tensors[0].values()).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)
    # And so is the loss that it goes down on.
    loss = peer.train(*tensors).item()
    options = {"from_logits": True, "reduction": None}
    losses = keras.losses.SparseCategoricalCrossentropy(**options)(targets, expected)
    mean = (losses.numpy() * weights).sum() / weights.sum()
    assert loss == pytest.approx(mean, rel=1e-4)
    assert peer.train(*tensors).item() < loss


def test_passes_are_compared_by_their_seconds(monkeypatch):
    speeds = dict(zip(bench_q4.SAME, (1.0, 1.5, 2.0, 1.75), strict=True))
    speeds[bench_q4.ABLATION] = 3.0

    def build(name, compiler, batches):
        return lambda passes: np.full(passes, speeds[f"{name}, {compiler}"])

    monkeypatch.setattr(bench_q4, "build_pass", build)
    row = bench_q4.measure_pass({"rounds": 2, "batches": 6}, peak=100.0)
    expected = {"tokens_per_second_vs_naive": 3.0, "tokens_per_second_vs_torch": 1.75}
    assert bench_q4.headline(row) == expected
    # About six batches; the shorter the sentences, the less attention there is.
    whole = 6 * 1e-9 * bench_q4.flops(64, 64)
    assert 0.4 * whole < row["gflop"] < whole
