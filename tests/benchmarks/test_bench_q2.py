"""The benchmark of question 2: same work for all reset cells, and its arithmetic."""

import numpy as np
import pytest

from benchmarks import bench_q2, timing
from benchmarks.timing import EAGER, INDUCTOR, OURS
from tests.benchmarks import make_row

BATCH, LENGTH = 3, 6
CHECKED = ["Keras, no XLA", EAGER] if timing.torch else ["Keras, no XLA"]


def learned(candidate):
    """Returns the weights after three steps, in the order of `start_weights`."""
    name, compiler = candidate.split(", ")
    if name == "PyTorch":
        train, batches = bench_q2.build_torch(compiler, BATCH, LENGTH)
        timing.torch_steps(train, batches, 2)
        return [weight.detach().numpy() for weight in train.parameters]
    run = bench_q2.build(name, compiler, BATCH, LENGTH)
    model = run.args[0]
    model.steps_per_execution = 1
    run(2)
    return model.get_weights()


def test_reset_cells_take_the_same_steps():
    # The state's kernel and the gate's.
    start, ours = bench_q2.start_weights(), learned(OURS)
    moved = {i: np.linalg.norm(ours[i] - start[i]) for i in (2, 4)}
    assert min(moved.values()) > 0.01
    for candidate in CHECKED:
        found = learned(candidate)
        for i, far in moved.items():
            # Adam's epsilon stands in another place in PyTorch.
            assert np.linalg.norm(found[i] - ours[i]) < 0.05 * far, (candidate, i)


def test_the_headline_compares_under_the_same_compiler():
    times = {OURS: [0.2, 0.2], EAGER: [0.3, 0.3], INDUCTOR: [0.5, 0.5]}
    lengths = {32: times | {EAGER: [0.2, 0.2]}, 256: times}
    rows = [make_row(lengths[n], size={"batch": 64, "length": n}) for n in lengths]
    others = {"ours, no XLA": [0.10, 0.20, 0.10], "ours, XLA": [0.05] * 3}
    others |= {"SimpleRNN, no XLA": [0.10] * 3, "SimpleRNN, XLA": [0.04, 0.05, 0.05]}
    others |= {"GRU, no XLA": [0.30] * 3, "GRU, XLA": [0.20] * 3}
    expected = {"speed_vs_keras_gru": 3.0, "time_vs_simple_rnn": 1.0}
    expected |= {"speed_vs_keras_gru_xla": 4.0, "time_vs_simple_rnn_xla": 1.0}
    expected |= {"torch_ratio_T256": 1.5}
    assert bench_q2.headline(rows, others) == pytest.approx(expected)
    assert set(bench_q2.OTHERS) == set(others)


def test_a_sweep_is_timed_both_ways_in_turn(monkeypatch):
    called = []

    def time_sweep(steps, address):
        called.append((steps, address))
        return 6.0 if address else 10.0

    monkeypatch.setattr(bench_q2, "time_sweep", time_sweep)
    found = bench_q2.measure_sweep(rounds=2, steps=7)
    assert called[1:] == [(7, None), (7, "local")] * 2
    assert (found["one_after_the_other"], found["ray"]) == (10.0, 6.0)
    assert found["ratio"]["median"] == pytest.approx(10 / 6)
