"""The benchmark of question 1: same work for all candidates, and its arithmetic."""

import numpy as np
import pytest

from benchmarks import bench_q1, timing
from benchmarks.timing import EAGER, INDUCTOR, OURS
from tests.benchmarks import make_row, needs_torch

BATCH, LENGTH = 3, 6
LEFT_OUT = {OURS, INDUCTOR} if timing.torch else {OURS, *timing.PYTORCH}


def learned(candidate, t):
    """Returns the recurrent kernel after three steps."""
    name, compiler = candidate.split(", ")
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
    start, ours = bench_q1.start_weights()[1][1], learned(OURS, t)
    moved = np.linalg.norm(ours - start)
    assert moved > 0.1
    for candidate in set(bench_q1.candidates(t)) - LEFT_OUT:
        # Adam's epsilon stands in another place in PyTorch.
        off = np.linalg.norm(learned(candidate, t) - ours)
        assert off < 0.05 * moved, candidate


@needs_torch
def test_compiled_pytorch_takes_the_steps_of_eager_pytorch():
    start, eager = bench_q1.start_weights()[1][1], learned(EAGER, 2)
    off = np.linalg.norm(learned(INDUCTOR, 2) - eager)
    assert off < 1e-3 * np.linalg.norm(eager - start)


def test_the_headline_is_that_of_the_truncated_step():
    full, cut = (64, 512, None), (64, 512, 16)
    seconds = {OURS: [0.04, 0.04], EAGER: [0.08, 0.08], INDUCTOR: [0.06, 0.06]}
    rows = [
        make_row(times, size=dict(zip(("batch", "length", "t"), size, strict=True)))
        for size, times in ((full, {OURS: [0.1, 0.1]}), (cut, seconds))
    ]
    expected = {"speedup_T512_t16": 2.5, "torch_ratio_T512_t16": 1.5}
    expected["flop_estimate_T512_t16"] = bench_q1.flops(*full) / bench_q1.flops(*cut)
    assert bench_q1.headline(rows) == pytest.approx(expected)
