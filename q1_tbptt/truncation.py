"""Truncation: a recurrence with gradient in its last `t` steps only."""

import keras
import tensorflow as tf

from common.text import PADDING_ID

# The prefix needs no gradient, so its inputs need not all exist at the same time.
PREFIX_BLOCK = 64


def truncated_scan(scan, sequences, states, t):
    """Runs a recurrence over whole sequences with gradient in the last `t` steps only.

    Args:
        scan: function `(sequences, states) -> states` that runs the recurrence over
            any number of steps. Steps in the padding must leave the states as they
            are.
        sequences: tensor, or structure of tensors, of shape `(batch, time, ...)`,
            padded with zeros on the left.
        states: structure of tensors of shape `(batch, units)`, the states `h_0`.
        t: int, how many steps carry gradient, or None for all of them.

    Returns:
        The states after the last step.

    Example:

    The state is the sum of its inputs. Only the last two of three get a gradient:

    >>> inputs = tf.Variable([[[1.0], [2.0], [3.0]]])
    >>> def add(inputs, sums):
    ...     return sums + tf.reduce_sum(inputs, axis=1)
    >>> with tf.GradientTape() as tape:
    ...     total = truncated_scan(add, inputs, tf.zeros((1, 1)), t=2)
    >>> total.numpy(), tape.gradient(total, inputs).numpy().ravel()
    (array([[6.]], dtype=float32), array([0., 1., 1.], dtype=float32))
    """
    if t is None:
        return scan(sequences, states)
    cut = tf.maximum(tf.shape(keras.tree.flatten(sequences)[0])[1] - t, 0)
    prefix = keras.tree.map_structure(lambda x: x[:, :cut], sequences)
    suffix = keras.tree.map_structure(lambda x: x[:, cut:], sequences)
    states = _scan_in_blocks(scan, prefix, states)
    states = keras.tree.map_structure(tf.stop_gradient, states)
    return states if t == 0 else scan(suffix, states)


def _scan_in_blocks(scan, sequences, states):
    """Scans at most `PREFIX_BLOCK` steps at a time: memory does not grow with time."""
    length = tf.shape(keras.tree.flatten(sequences)[0])[1]
    blocks = tf.maximum(-(-length // PREFIX_BLOCK), 1)
    steps = tf.maximum(-(-length // blocks), 1)

    def to_blocks(x):  # (batch, time, ...) -> (batch, blocks, steps, ...)
        rest = x.shape[2:]
        x = tf.pad(x, [[0, 0], [blocks * steps - length, 0], *[[0, 0] for _ in rest]])
        return tf.reshape(x, [tf.shape(x)[0], blocks, steps, *rest])

    sequences = keras.tree.map_structure(to_blocks, sequences)

    def scan_block(block, states):
        inputs = keras.tree.map_structure(lambda x: x[:, block], sequences)
        return block + 1, scan(inputs, states)

    _, states = tf.while_loop(
        lambda block, _: block < blocks,
        scan_block,
        (0, states),
        maximum_iterations=blocks,
    )
    return states


def pad_on_the_left(token_ids):
    """Moves the padding behind the last token of each row to its beginning.

    Args:
        token_ids: int tensor of shape `(batch, time)`, padded with 0.

    Returns:
        Tensor of the same shape.

    Example:

    >>> pad_on_the_left(tf.constant([[5, 6, 0], [0, 7, 8]])).numpy()
    array([[0, 5, 6],
           [0, 7, 8]], dtype=int32)
    """
    columns = tf.range(tf.shape(token_ids)[1])
    ends = tf.where(token_ids != PADDING_ID, columns + 1, 0)  # (batch, time)
    end = tf.reduce_max(ends, axis=1, keepdims=True)
    source = (columns + end) % tf.maximum(tf.size(columns), 1)
    return tf.gather(token_ids, source, batch_dims=1)
