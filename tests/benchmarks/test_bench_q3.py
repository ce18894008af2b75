"""The benchmark of question 3: same work in Keras and PyTorch, and its arithmetic."""

import pytest

from benchmarks import bench_q3
from tests.benchmarks import needs_torch

BATCH = 6


@needs_torch
@pytest.mark.parametrize("kind", bench_q3.KINDS)
def test_pytorch_goes_down_on_the_loss_of_keras(kind):
    model = bench_q3.keras_model(kind)
    model.compile()
    images = bench_q3.images(BATCH)[0]
    expected = model.evaluate(images, batch_size=BATCH, verbose=0, return_dict=True)
    train, batches = bench_q3.build_torch(model, "eager", kind, BATCH)
    first = train(*batches[0]).item()
    assert first == pytest.approx(expected["loss"], rel=1e-4)
    assert train(*batches[0]).item() < first
