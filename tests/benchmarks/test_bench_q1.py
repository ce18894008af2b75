"""The benchmark of question 1: same work for all candidates, and its arithmetic."""

import numpy as np
import pytest

from benchmarks import bench_q1, timing
from benchmarks.timing import EAGER, INDUCTOR, OURS

BATCH, LENGTH = 3, 6


def learned(name, compiler, t):
    """Returns the recurrent kernel after three steps."""
    if name == "PyTorch":
        train, batches = bench_q1.build_torch(compiler, BATCH, LENGTH, t)
        timing.torch_steps(train, batches, 2)
        kernel = train.parameters[2].detach().numpy()
        return kernel.T if compiler == "eager" else kernel  # that of `nn.RNN`
    run = bench_q1.build(name, compiler, BATCH, LENGTH, t)
    model = run.args[0]
    model.steps_per_execution = 1
    run(2)
    (kernel,) = [w for w in model.weights if w.name == "recurrent_kernel"]
    return kernel.numpy()


@pytest.mark.parametrize("t", [None, 2])
def test_candidates_take_the_same_steps(t):
    start = bench_q1.start_weights()[1][1]
    ours = learned(*OURS, t)
    moved = np.linalg.norm(ours - start)
    assert moved > 0.1
    for candidate in bench_q1.candidates(t)[1:]:
        # Adam's epsilon stands in another place in PyTorch.
        off = np.linalg.norm(learned(*candidate, t) - ours)
        assert off < 0.05 * moved, candidate


@pytest.mark.skipif(timing.torch is None, reason="needs PyTorch")
@pytest.mark.parametrize("t", [None, 2])
def test_the_flop_estimate_is_what_pytorch_counts(t):
    from torch.utils.flop_counter import FlopCounterMode

    train, batches = bench_q1.build_torch("eager", BATCH, LENGTH, t)
    with FlopCounterMode(display=False) as counter:
        train(*batches[0])
    # The first state is 0 and needs no gradient, which the estimate leaves out.
    unused = 0 if t else 2 * BATCH * bench_q1.UNITS**2
    assert counter.get_total_flops() == pytest.approx(
        bench_q1.flops(BATCH, LENGTH, t) - unused, rel=0.1
    )


def test_the_flop_estimate_by_hand():
    # A step of one sentence: two products of 128 × 128 weights, 2 FLOP per weight.
    assert bench_q1.flops(1, 1) == 3 * (2 * 2 * 128 * 128 + 2 * 128)
    # 3T against T + 2t, but for the head.
    ratio = bench_q1.flops(64, 512) / bench_q1.flops(64, 512, 16)
    assert ratio == pytest.approx(3 * 512 / (512 + 2 * 16), rel=1e-3)
    assert bench_q1.flops(1, 8, 16) == bench_q1.flops(1, 8)


def test_the_headline_is_that_of_the_truncated_step():
    full, cut = (64, 512, None), (64, 512, 16)
    size = dict(zip(("batch", "length", "t"), cut, strict=True))
    seconds = {OURS: [0.04, 0.04], EAGER: [0.08, 0.08], INDUCTOR: [0.06, 0.06]}
    rows = timing.compare(
        seconds, question=1, work="cut", size=size, comparison="same work",
        gflop=1.0, peak=1.0, memory={},
    )  # fmt: skip
    found = bench_q1.headline(rows, {full: [0.1, 0.1], cut: seconds[OURS]})
    assert found == pytest.approx(
        {
            "speedup_T512_t16": 2.5,
            "ideal_speedup_T512_t16": bench_q1.flops(*full) / bench_q1.flops(*cut),
            "torch_ratio_T512_t16": 1.5,
        }
    )
