"""q2_reset_cell/streams.py: targets against a plain loop over every stream."""

import numpy as np
import pytest

from q2_reset_cell.streams import (
    RESET_AT,
    flip_flop_task,
    parity_task,
    replaced_prefixes,
    stream_batches,
    sum_task,
)

TASKS = {
    "parity": parity_task(0.2),
    "flip-flop": flip_flop_task(),
    "sum": sum_task(),
    "sums by volume": sum_task(dims=3, loudness=2.0, reset_rate=0.2),
}
each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def make(task, seed=0, batch=50, time=30):
    return task.make(np.random.default_rng(seed), batch, time)


def loop_parity(inputs):
    odd = 0
    for _, one, reset in inputs:
        odd = 0 if reset else (odd + one) % 2
        yield odd


def loop_flip_flop(inputs):
    written = None
    for write, _, _, sign in inputs:
        written = (sign > 0) if write else written
        yield written


def loop_sums(inputs):
    sums = 0
    for *values, reset in inputs:
        sums = 0 * np.array(values) if reset else sums + np.array(values)
        yield sums


@pytest.mark.parametrize(
    "name, loop",
    [
        ("parity", loop_parity),
        ("flip-flop", loop_flip_flop),
        ("sum", loop_sums),
        ("sums by volume", loop_sums),
    ],
)
def test_targets_are_those_of_a_loop(name, loop):
    streams = make(TASKS[name])
    assert len(np.unique(streams.targets)) > 1
    for inputs, targets in zip(streams.inputs, streams.targets, strict=True):
        expected = np.array(list(loop(inputs)), "float32").reshape(targets.shape)
        np.testing.assert_allclose(targets, expected, atol=1e-6)


@each_task
def test_shapes_and_reset_inputs(task):
    streams = make(task)
    assert streams.inputs.shape == (50, 30, len(task.reset_input))
    assert streams.targets.shape == (50, 30, task.outputs)
    assert streams.weights.shape == (50, 30)
    assert {array.dtype for array in streams} == {np.dtype("float32")}
    resets = streams.inputs[streams.inputs[..., task.reset_feature] == 1]
    assert 0.05 < len(resets) / (50 * 30) < 0.3
    assert task.reset_input[task.reset_feature] == 1
    assert (resets == task.reset_input).all(axis=1).any()


def test_errors_count_relative_to_the_volume_of_the_stretch():
    streams = make(TASKS["sums by volume"])
    values = streams.inputs[..., :-1] * np.sqrt(streams.weights)[..., None]
    ordinary = values[streams.inputs[..., -1] == 0]
    # Divided by the volume, values of loud and of quiet stretches have one scale.
    quiet = streams.weights[streams.inputs[..., -1] == 0] > 100
    assert 0.2 < quiet.mean() < 0.8
    assert ordinary[quiet].std() == pytest.approx(0.1, rel=0.1)
    assert ordinary[~quiet].std() == pytest.approx(0.1, rel=0.1)


def test_only_reads_count_in_the_flip_flop():
    streams = make(TASKS["flip-flop"])
    np.testing.assert_array_equal(streams.weights, streams.inputs[..., 2])
    assert (streams.inputs[:, 0, 0] == 1).all()  # there is something to read
    assert (streams.inputs[..., 3][streams.inputs[..., 2] == 1] == 0).all()


@each_task
def test_replaced_prefixes_differ_before_the_reset_only(task):
    inputs, others = replaced_prefixes(task, batch=20)
    np.testing.assert_array_equal(inputs[:, RESET_AT:], others[:, RESET_AT:])
    assert (inputs[:, RESET_AT] == task.reset_input).all()
    assert (inputs[:, :RESET_AT] != others[:, :RESET_AT]).any(axis=(1, 2)).all()


def test_batches_depend_on_the_seed_only():
    def two(seed):
        first, second = stream_batches(TASKS["parity"], seed).take(2)
        return [first[0].numpy(), second[0].numpy()]

    first, second = two(seed=0)
    assert first.shape == (64, 40, 3)
    assert (first != second).any()
    np.testing.assert_array_equal(two(seed=0), [first, second])
    assert (two(seed=1)[0] != first).any()
