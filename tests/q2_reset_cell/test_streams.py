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


PARITY, FLIP_FLOP = parity_task(0.2), flip_flop_task()
SUMS_BY_VOLUME = sum_task(dims=3, loudness=2.0, reset_rate=0.2)
TASKS = {
    "parity": (PARITY, loop_parity),
    "flip-flop": (FLIP_FLOP, loop_flip_flop),
    "sum": (sum_task(), loop_sums),
    "sums by volume": (SUMS_BY_VOLUME, loop_sums),
}


def make(task):
    return task.make(np.random.default_rng(0), 50, 30)


@pytest.mark.parametrize("task, loop", TASKS.values(), ids=TASKS)
def test_targets_are_those_of_a_loop_and_resets_are_marked(task, loop):
    streams = make(task)
    assert streams.inputs.shape == (50, 30, len(task.reset_input))
    assert streams.targets.shape == (50, 30, task.outputs)
    assert streams.weights.shape == (50, 30)
    assert {array.dtype for array in streams} == {np.dtype("float32")}

    assert len(np.unique(streams.targets)) > 1
    for inputs, targets in zip(streams.inputs, streams.targets, strict=True):
        expected = np.array(list(loop(inputs)), "float32").reshape(targets.shape)
        np.testing.assert_allclose(targets, expected, atol=1e-6)

    resets = streams.inputs[streams.inputs[..., task.reset_feature] == 1]
    assert 0.05 < len(resets) / (50 * 30) < 0.3
    assert task.reset_input[task.reset_feature] == 1
    assert (resets == task.reset_input).all(axis=1).any()


def test_errors_count_relative_to_the_volume_of_the_stretch():
    streams = make(SUMS_BY_VOLUME)
    values = streams.inputs[..., :-1] * np.sqrt(streams.weights)[..., None]
    no_reset = streams.inputs[..., -1] == 0
    # Divided by the volume, values of loud and of quiet stretches have one scale.
    ordinary, quiet = values[no_reset], streams.weights[no_reset] > 100
    assert 0.2 < quiet.mean() < 0.8
    assert ordinary[quiet].std() == pytest.approx(0.1, rel=0.1)
    assert ordinary[~quiet].std() == pytest.approx(0.1, rel=0.1)


def test_only_reads_count_in_the_flip_flop():
    streams = make(FLIP_FLOP)
    np.testing.assert_array_equal(streams.weights, streams.inputs[..., 2])
    assert (streams.inputs[:, 0, 0] == 1).all()  # there is something to read
    assert (streams.inputs[..., 3][streams.inputs[..., 2] == 1] == 0).all()


@pytest.mark.parametrize("task", [task for task, _ in TASKS.values()], ids=TASKS)
def test_replaced_prefixes_differ_before_the_reset_only(task):
    inputs, others = replaced_prefixes(task, batch=20)
    np.testing.assert_array_equal(inputs[:, RESET_AT:], others[:, RESET_AT:])
    assert (inputs[:, RESET_AT] == task.reset_input).all()
    assert (inputs[:, :RESET_AT] != others[:, :RESET_AT]).any(axis=(1, 2)).all()


def test_batches_depend_on_the_seed_only():
    def two(seed):
        return [inputs.numpy() for inputs, *_ in stream_batches(PARITY, seed).take(2)]

    first, second = two(seed=0)
    assert first.shape == (64, 40, 3)
    assert (first != second).any()
    np.testing.assert_array_equal(two(seed=0), [first, second])
    assert (two(seed=1)[0] != first).any()
