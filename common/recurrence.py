"""Recurrent layers that project the inputs of all time steps at once.

The term `x_t W + b` of an Elman cell does not depend on the state. One matrix product
computes it for all steps, and only `h_{t-1} U` and the activation run step by step.
"""

import keras
from keras import ops


class HoistedRNN(keras.layers.RNN):
    """`keras.layers.RNN` over a cell that projects the inputs of all steps at once.

    Args:
        cell: RNN cell with a method `project(sequences, training)` from
            `(batch, time, features)` to `(batch, time, projected)`. Its `call` takes
            `(batch, projected)` in place of `(batch, features)`.
        **kwargs: those of `keras.layers.RNN`.

    Call arguments: those of `keras.layers.RNN`.

    Example:

    >>> cell = keras.layers.SimpleRNNCell(4)
    >>> cell.build((None, 3))
    >>> HoistedRNN(ElmanRecurrence(cell))(ops.ones((2, 5, 3))).shape
    TensorShape([2, 4])
    """

    def inner_loop(self, sequences, initial_state, mask, training=False):
        projected = self.cell.project(sequences, training)
        return super().inner_loop(projected, initial_state, mask, training)


class ElmanRecurrence(keras.layers.Layer):
    """The part of a `SimpleRNNCell` that has to run step by step, for `HoistedRNN`.

    Args:
        cell: `keras.layers.SimpleRNNCell` without dropout. Its weights are used.
    """

    def __init__(self, cell, **kwargs):
        super().__init__(**{"dtype": cell.dtype_policy, **kwargs})
        self.cell = cell
        self.state_size = cell.state_size
        self.output_size = cell.output_size

    def build(self, input_shape):
        self.built = True

    def project(self, sequences, training=False):
        projected = ops.matmul(sequences, self.cell.kernel)  # (batch, time, units)
        return projected + self.cell.bias if self.cell.use_bias else projected

    def call(self, projected, states, training=False):
        hidden_state = self.cell.activation(
            projected + ops.matmul(states[0], self.cell.recurrent_kernel)
        )
        return hidden_state, [hidden_state]


def recurrent_layer(cell, **kwargs):
    """Returns a `keras.layers.RNN` over a cell, hoisted where only rounding differs.

    A `SimpleRNNCell` is hoisted unless it has dropout, which acts on the input of
    every step, or an activity regularizer, which Keras refuses in a loop. The inputs
    are projected in the precision of the layer, whatever that of the cell.

    Args:
        cell: RNN cell.
        **kwargs: those of `keras.layers.RNN`.
    """
    hoistable = type(cell) is keras.layers.SimpleRNNCell and not (
        cell.dropout or cell.recurrent_dropout or cell.activity_regularizer
    )
    if hoistable:
        return HoistedRNN(ElmanRecurrence(cell), **kwargs)
    return keras.layers.RNN(cell, **kwargs)
