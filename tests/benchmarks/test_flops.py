"""The FLOP estimates of all benchmarks: by hand, and as PyTorch counts them."""

import keras
import pytest

from benchmarks import bench_q1, bench_q2, bench_q3, bench_q4
from benchmarks.timing import UNITS
from tests.benchmarks import needs_torch


def peer_of_q3(kind, batch):
    model = bench_q3.keras_model(kind)
    return bench_q3.build_torch(model, "eager", kind, batch)


def peer_of_q4(batch, length):
    peer = bench_q4.TorchDenoiser(bench_q4.keras_model("none"), "eager")
    batches = bench_q4.ready_batches(batch, length)
    first = keras.tree.map_structure(lambda part: part[0], batches)
    return peer.train, [bench_q4.torch_example(first)]


PEERS = {
    "q1, full": (bench_q1.build_torch, ("eager", 3, 6, None), bench_q1.flops(3, 6)),
    "q1, t = 2": (bench_q1.build_torch, ("eager", 3, 6, 2), bench_q1.flops(3, 6, 2)),
    "q2": (bench_q2.build_torch, ("eager", 3, 6), bench_q2.flops(3, 6)),
    "q3, dense": (peer_of_q3, ("dense", 5), bench_q3.flops("dense", 5)),
    "q3, conv": (peer_of_q3, ("conv", 6), bench_q3.flops("conv", 6)),
    "q4": (peer_of_q4, (2, 9), bench_q4.flops(2, 9)),
}


@needs_torch
@pytest.mark.parametrize("name", PEERS)
def test_the_estimate_is_what_pytorch_counts(name):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    build, arguments, expected = PEERS[name]
    if name.startswith(("q1", "q2")):
        # The first state with gradient is a constant, which the estimates leave out.
        expected -= 2 * 3 * UNITS**2
    train, batches = build(*arguments)
    # Attention as products of matrices, which the counter knows on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        train(*batches[0])
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-3)


def test_the_estimates_by_hand():
    # 2 FLOP per weight, 3 times: forward, and twice as much backward.
    assert bench_q1.flops(1, 1) == 3 * 2 * (2 * 128 * 128 + 128)
    assert bench_q2.flops(1, 1) == 3 * 2 * (3 * 128 * 128 + 128)
    # One image: encoder, decoder, decoder layers again; it needs no gradient itself.
    layers = [784 * 512, 512 * 256, 256 * 128, 128 * 32]
    rank = 512 + 256**2 + 128**2 + 32**2
    expected = 2 * (3 * (3 * sum(layers) + rank) - layers[0])
    assert bench_q3.flops("dense", 1) == expected
    # A block of width 1 on one token: 4 projections, 2 products of attention, 8 of
    # the hidden layer. The head: 1 product and 3 logits.
    assert bench_q4.flops(1, 1, 3, width=1, depth=0) == 3 * 2 * (4 + 2 + 8 + 1 + 3)
    ratio = bench_q1.flops(64, 512) / bench_q1.flops(64, 512, 16)
    assert ratio == pytest.approx(3 * 512 / (512 + 2 * 16), rel=1e-3)
