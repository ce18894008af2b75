"""The cut: a recurrence over whole sequences with gradient in its last steps only."""

import keras
import tensorflow as tf
from keras import ops

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
    """
    if t is None:
        return scan(sequences, states)
    cut = tf.maximum(tf.shape(keras.tree.flatten(sequences)[0])[1] - t, 0)
    states = _scan_in_blocks(
        scan, keras.tree.map_structure(lambda x: x[:, :cut], sequences), states
    )
    states = keras.tree.map_structure(tf.stop_gradient, states)
    if t == 0:
        return states
    return scan(keras.tree.map_structure(lambda x: x[:, cut:], sequences), states)


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


@keras.saving.register_keras_serializable("assignment14")
class ElmanRecurrence(keras.layers.Layer):
    """The part of a `SimpleRNNCell` that has to run step by step.

    The input projection `x_k W + b` does not depend on the state, so it is one
    product for all steps (`project`); a step then adds `h_{k-1} U` and activates.

    Args:
        cell: a `keras.layers.SimpleRNNCell` without dropout, whose weights are used.
    """

    def __init__(self, cell, **kwargs):
        kwargs.setdefault("dtype", cell.dtype_policy)
        super().__init__(**kwargs)
        self.cell = cell
        self.state_size = cell.state_size
        self.output_size = cell.output_size

    def build(self, input_shape):
        self.built = True

    def project(self, inputs):
        projected = ops.matmul(inputs, self.cell.kernel)  # (batch, time, units)
        return projected + self.cell.bias if self.cell.use_bias else projected

    def call(self, projected, states, training=False):
        hidden_state = states[0]  # (batch, units)
        hidden_state = self.cell.activation(
            projected + ops.matmul(hidden_state, self.cell.recurrent_kernel)
        )
        return hidden_state, [hidden_state]


class HoistedRNN(keras.layers.RNN):
    """`keras.layers.RNN` over a cell that can project all its inputs at once."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        projected = self.cell.project(sequences)  # (batch, time, units)
        return super().call(projected, initial_state, mask, training)
