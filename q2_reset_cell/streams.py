"""Streams of inputs in which the target depends on nothing before the last reset.

Each task makes random streams with a target at every step. A stream begins as if after
a reset.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

BATCH_SIZE, TIME = 64, 40
RESET_AT = 30  # in the prefix-replacement test
WRITE_RATE = 0.2  # of the flip-flop: the probability of a write, and of a read


class Streams(NamedTuple):
    """A batch of streams, float32.

    Attributes:
        inputs: `(batch, time, features)`.
        targets: `(batch, time, outputs)`.
        weights: `(batch, time)`, how much an error at each step counts.
    """

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


class Task(NamedTuple):
    """A kind of stream.

    Attributes:
        name: str.
        make: function `(rng, batch, time) -> Streams`.
        reset_input: float array of shape `(features,)`, the input that resets.
        reset_feature: int, the feature that is 1 in it.
        outputs: int, number of targets at each step.
        loss: a Keras loss.
        binary: bool, whether targets are bits and outputs their logits.
    """

    name: str
    make: Callable
    reset_input: np.ndarray
    reset_feature: int
    outputs: int
    loss: keras.losses.Loss
    binary: bool

    @property
    def cache_key(self):
        return self.name


def parity_task(reset_rate=0.1):
    """Returns the parity task: is the number of ones since the last reset odd?

    Inputs are one-hot: zero, one, reset.

    Args:
        reset_rate: float, probability of a reset at each step.
    """

    def make(rng, batch, time):
        tokens = rng.integers(0, 2, (batch, time))
        resets = rng.random((batch, time)) < reset_rate
        tokens[resets] = 2
        odd = _sum_since(resets, tokens == 1) % 2
        return _streams(np.eye(3)[tokens], odd, np.ones((batch, time)))

    return _bit_task(f"parity, resets {reset_rate}", make, [0, 0, 1], 2)


def flip_flop_task():
    """Returns the flip-flop task: recall the bit that was written last.

    Inputs are an instruction, one-hot: write, ignore or read, and a bit, -1 or 1, that
    comes with write and ignore. Only the steps that read count. A write forgets what
    was written before, but not itself.

    Reference:
        [Liu et al., 2023](https://arxiv.org/abs/2306.00946)
    """

    def make(rng, batch, time):
        rates = [WRITE_RATE, 1 - 2 * WRITE_RATE, WRITE_RATE]
        instructions = rng.choice(3, (batch, time), p=rates)
        instructions[:, 0] = 0
        bits = rng.integers(0, 2, (batch, time))
        written = np.take_along_axis(bits, _last(instructions == 0), axis=1)
        signs = np.where(instructions == 2, 0, 2 * bits - 1)
        inputs = np.dstack([np.eye(3)[instructions], signs])
        return _streams(inputs, written[..., None], instructions == 2)

    return _bit_task("flip-flop", make, [1, 0, 0, 1], 0)


def sum_task(dims=1, loudness=0.0, reset_rate=0.1):
    """Returns the task to add up real vectors since the last reset.

    Inputs are a vector and a flag that is 1 at a reset, where the vector is 0. With
    `loudness` every stretch between two resets has its own volume, and errors count
    relative to it: whatever leaks from a loud stretch into a quiet one is a large
    error there.

    Args:
        dims: int, size of the vectors.
        loudness: float ≥ 0. The volume of a stretch is `10 ** -u`, with `u` uniform in
            `[0, loudness]`.
        reset_rate: float, probability of a reset at each step.
    """

    def make(rng, batch, time):
        resets = rng.random((batch, time)) < reset_rate
        volumes = 10 ** -rng.uniform(0, loudness, (batch, time + 1))
        volume = np.take_along_axis(volumes, np.cumsum(resets, axis=1), axis=1)
        # Small, as the linear part of tanh is what can hold a sum.
        values = 0.1 * volume[..., None] * rng.normal(size=(batch, time, dims))
        values[resets] = 0
        sums = _sum_since(resets, values)
        return _streams(np.dstack([values, resets]), sums, volume**-2)

    return Task(
        name=f"sum of {dims}, loudness {loudness}, resets {reset_rate}",
        make=make,
        reset_input=np.eye(dims + 1, dtype="float32")[-1],
        reset_feature=dims,
        outputs=dims,
        loss=keras.losses.MeanSquaredError(),
        binary=False,
    )


def stream_batches(task, seed):
    """Makes new streams for `fit`, without end.

    Args:
        task: `Task`.
        seed: int; it decides the whole sequence.

    Returns:
        `tf.data.Dataset` of `Streams` as tuples: `BATCH_SIZE` of `TIME` steps each.
    """

    def generate():
        rng = np.random.default_rng(seed)
        while True:
            yield tuple(task.make(rng, BATCH_SIZE, TIME))

    shapes = [(len(task.reset_input),), (task.outputs,), ()]
    signature = tuple(
        tf.TensorSpec((BATCH_SIZE, TIME, *shape), "float32") for shape in shapes
    )
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return dataset.prefetch(tf.data.AUTOTUNE)


def replaced_prefixes(task, batch=400, seed=8):
    """Makes streams that are equal from a reset on and differ before it.

    Args:
        task: `Task`.
        batch: int.
        seed: int.

    Returns:
        `(inputs, others)`, two float32 arrays of shape `(batch, 2 * RESET_AT,
        features)`; the reset is at step `RESET_AT`.
    """
    rng = np.random.default_rng(seed)
    inputs = task.make(rng, batch, 2 * RESET_AT).inputs
    others = task.make(rng, batch, 2 * RESET_AT).inputs
    inputs[:, RESET_AT] = task.reset_input
    others[:, RESET_AT:] = inputs[:, RESET_AT:]
    return inputs, others


def _bit_task(name, make, reset_input, reset_feature):
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    reset_input = np.array(reset_input, "float32")
    return Task(name, make, reset_input, reset_feature, 1, loss, binary=True)


def _streams(*arrays):
    return Streams(*(np.asarray(array, "float32") for array in arrays))


def _last(events):
    """Returns for every step the last step until then with an event, else -1."""
    steps = np.arange(events.shape[1])
    return np.maximum.accumulate(np.where(events, steps, -1), axis=1)


def _sum_since(resets, values):
    """Sums `values`, `(batch, time)` or `(batch, time, dims)`, since the last reset."""
    values = values.reshape(*resets.shape, -1)
    sums = np.pad(np.cumsum(values, axis=1), [(0, 0), (1, 0), (0, 0)])
    before = np.take_along_axis(sums, _last(resets)[..., None] + 1, axis=1)
    return sums[:, 1:] - before
