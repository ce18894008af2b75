"""The benchmark of question 3: same work in Keras and PyTorch, and its arithmetic."""

import pytest

from benchmarks import bench_q3, timing
from benchmarks.timing import EAGER, INDUCTOR, OURS

BATCH = 6
needs_torch = pytest.mark.skipif(timing.torch is None, reason="needs PyTorch")


@needs_torch
@pytest.mark.parametrize("kind", bench_q3.KINDS)
def test_pytorch_goes_down_on_the_loss_of_keras(kind):
    model = bench_q3.keras_model(kind, bench_q3.WEIGHTS[kind])
    model.compile()
    images = bench_q3.images(BATCH)[0]
    expected = model.evaluate(images, batch_size=BATCH, verbose=0, return_dict=True)
    train, batches = bench_q3.build_torch(model, "eager", kind, BATCH)
    first = train(*batches[0]).item()
    assert first == pytest.approx(expected["loss"], rel=1e-4)
    assert train(*batches[0]).item() < first


@needs_torch
@pytest.mark.parametrize("kind", bench_q3.KINDS)
@pytest.mark.parametrize("batch", [5, BATCH])
def test_the_flop_estimate_is_what_pytorch_counts(kind, batch):
    from torch.utils.flop_counter import FlopCounterMode

    model = bench_q3.keras_model(kind, bench_q3.WEIGHTS[kind])
    train, batches = bench_q3.build_torch(model, "eager", kind, batch)
    with FlopCounterMode(display=False) as counter:
        train(*batches[0])
    expected = bench_q3.flops(kind, batch)
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", bench_q3.KINDS)
def test_the_weights_of_the_terms_are_the_defaults(kind):
    ours = bench_q3.keras_model(kind, bench_q3.WEIGHTS[kind])
    default = bench_q3.build_autoencoder(kind)
    for name in ("inversion_weight", "rank_weight"):
        assert ours.get_config()[name] == default.get_config()[name]


def test_ours_runs_under_fit():
    run = bench_q3.build(*OURS, "dense", 16)
    assert len(run(2 * timing.TOGETHER)) == 2


def test_the_headline_has_the_cost_and_the_faster_pytorch():
    seconds = {OURS: [0.15], bench_q3.PLAIN: [0.1], EAGER: [0.6], INDUCTOR: [0.3]}
    same = {key: seconds[key] for key in (OURS, EAGER, INDUCTOR)}
    rows = timing.compare(
        same, question=3, work="dense", size={}, comparison="same work", gflop=1.0,
        peak=1.0, memory={},
    )  # fmt: skip
    assert bench_q3.headline("dense", seconds, rows) == pytest.approx(
        {"dense_inversion_time": 1.5, "dense_torch_time": 2.0}
    )
