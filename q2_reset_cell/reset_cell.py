"""An Elman cell with a reset button that looks at the input alone.

For an input `x_t` and the state `h_{t-1}` the cell computes

    ĥ_t = tanh(x_t W + h_{t-1} U + b)      the candidate, an Elman cell
    R_t = hard_sigmoid(x_t W_R + b_R)      the reset gate, from the input alone
    h_t = ĥ_t · R_t                        elementwise

`ResetCell` is one such step, for `keras.layers.RNN` and whatever else takes a cell;
`ResetRNN` is the same layer for whole sequences, faster, because everything that
does not wait for the state is computed for all steps at once.
"""

import math
import numbers

import keras
from keras import ops

from common.recurrence import HoistedRNN


@keras.saving.register_keras_serializable("assignment14")
class ResetCell(keras.layers.SimpleRNNCell):
    """Elman cell whose new state is multiplied by a gate that reads the input alone.

    A unit with `R_t = 0` hands on nothing: neither the past, nor `x_t` itself, since
    `R` multiplies the candidate and the candidate holds both. The cell starts afresh
    at `t + 1`, as if it had been given `h_t = 0` there. (The reset gate of a GRU
    stands before the candidate instead and spares `x_t`.) `R_t = 1` is the Elman
    cell, which is no identity: what is kept still passes `U` and the activation.

    The gate is a factor on every path from the past:
    `∂h_t/∂h_{t-1} = diag(R_t · activation'(a_t)) Uᵀ`. A gate that stays at `R` over
    `n` steps multiplies whatever is remembered by `R^n`, on top of what `U` does to
    it, and the gradient on its way back likewise.

    Args:
        units: int, size of the state.
        activation: activation of the candidate, a name or a function.
        reset_activation: activation of the gate, a name or a function. The default
            reaches 0 and 1 exactly, at finite weights; `"sigmoid"` reaches neither.
        use_bias: bool, whether the candidate and the gate have biases.
        kernel_initializer: initializer of `W`.
        recurrent_initializer: initializer of `U`.
        reset_kernel_initializer: initializer of `W_R`.
        reset_bias: float, where `b_R` starts. At 1 the default gate starts at 2/3.
        shared_reset: bool, whether one gate serves all units; `W_R` then has one
            column and `R` is of shape `(batch, 1)`.
        dropout: float in [0, 1), share of input features that training hides from
            candidate and gate, the same ones at every step.
        recurrent_dropout: float in [0, 1), share of the state's features that
            training hides from the candidate.
        **kwargs: those of `keras.layers.SimpleRNNCell`: `bias_initializer`,
            regularizers and constraints (of a kernel or a bias: for both of a kind),
            `seed`, `name`, `dtype`.

    Call arguments:
        inputs: float tensor of shape `(batch, features)`.
        states: list of one float tensor of shape `(batch, units)`, `[h_{t-1}]`.
        training: bool, whether dropout is active.

    Returns of a call: `(h_t, [h_t])`.

    Raises:
        ValueError: If `units` is no positive integer, a dropout is outside [0, 1), or
            `reset_bias` is not a finite number.

    Reference:
        [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1); input-only gates:
        [Bradbury et al., 2016](https://arxiv.org/abs/1611.01576)
    """

    def __init__(
        self,
        units,
        activation="tanh",
        reset_activation="hard_sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        reset_kernel_initializer="glorot_uniform",
        reset_bias=1.0,
        shared_reset=False,
        dropout=0.0,
        recurrent_dropout=0.0,
        **kwargs,
    ):
        _check_arguments(units, reset_bias, dropout, recurrent_dropout)
        super().__init__(
            int(units),
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            **kwargs,
        )
        self.reset_activation = keras.activations.get(reset_activation)
        self.reset_kernel_initializer = keras.initializers.get(reset_kernel_initializer)
        self.initial_reset_bias = reset_bias
        self.shared_reset = shared_reset

    def build(self, input_shape):
        super().build(input_shape)
        gates = 1 if self.shared_reset else self.units
        self.reset_kernel = self.add_weight(
            shape=(input_shape[-1], gates),
            name="reset_kernel",
            initializer=self.reset_kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.reset_bias = None
        if self.use_bias:
            self.reset_bias = self.add_weight(
                shape=(gates,),
                name="reset_bias",
                initializer=keras.initializers.Constant(self.initial_reset_bias),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, inputs, states, training=False):
        kept_inputs = self.get_dropout_mask(inputs)  # (batch, features)
        if training and kept_inputs is not None:
            inputs = inputs * kept_inputs
        hidden_state = self.step(*self.project(inputs), states[0], training)
        return hidden_state, [hidden_state]

    def project(self, inputs):
        """Computes what a step needs of its input, for any number of steps at once.

        Args:
            inputs: float tensor of shape `(..., features)`.

        Returns:
            `(projected, reset)`: `x W + b` of shape `(..., units)` and the gate, of
            the same shape or, shared, `(..., 1)`.
        """
        kernel = ops.concatenate([self.kernel, self.reset_kernel], axis=-1)
        both = ops.matmul(inputs, kernel)  # (..., units + gates)
        if self.use_bias:
            both = both + ops.concatenate([self.bias, self.reset_bias], axis=-1)
        projected, gate_logits = ops.split(both, [self.units], axis=-1)
        return projected, self.reset_activation(gate_logits)

    def step(self, projected, reset, hidden_state, training=False):
        """Computes the part of a step that has to wait for the state.

        Args:
            projected: float tensor of shape `(batch, units)`, `x_t W + b`.
            reset: float tensor of shape `(batch, units)` or `(batch, 1)`, `R_t`.
            hidden_state: float tensor of shape `(batch, units)`, `h_{t-1}`.
            training: bool, whether recurrent dropout is active.

        Returns:
            `h_t`, a tensor of shape `(batch, units)`.
        """
        kept_features = self.get_recurrent_dropout_mask(hidden_state)
        if training and kept_features is not None:
            hidden_state = hidden_state * kept_features
        candidate = self.activation(
            projected + ops.matmul(hidden_state, self.recurrent_kernel)
        )
        return candidate * reset

    def reset_gate(self, inputs):
        """Computes `R` for any inputs, without running the recurrence.

        Args:
            inputs: float tensor or array of shape `(..., features)`, such as the
                embeddings of a whole vocabulary.

        Returns:
            Tensor of shape `(..., units)`, or `(..., 1)` with `shared_reset`.

        Raises:
            ValueError: If the inputs have another number of features than the cell
                was built for.
        """
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        if not self.built:
            self.build(inputs.shape)
        features = self.reset_kernel.shape[0]
        if inputs.shape[-1:] != (features,):
            raise ValueError(
                f"`inputs` must have {features} features, as those the cell was built "
                f"for. Received: shape {tuple(inputs.shape)}"
            )
        gate_logits = ops.matmul(inputs, ops.cast(self.reset_kernel, inputs.dtype))
        if self.use_bias:
            gate_logits = gate_logits + ops.cast(self.reset_bias, inputs.dtype)
        return self.reset_activation(gate_logits)

    def get_config(self):
        return {
            **super().get_config(),
            "reset_activation": keras.activations.serialize(self.reset_activation),
            "reset_kernel_initializer": keras.initializers.serialize(
                self.reset_kernel_initializer
            ),
            "reset_bias": self.initial_reset_bias,
            "shared_reset": self.shared_reset,
        }


class ProjectedResetCell(ResetCell):
    """A `ResetCell` for `HoistedRNN`: a step takes the projections of `x_t`."""

    def project(self, sequences, training=False):
        kept_inputs = self.get_dropout_mask(sequences[:, 0])  # (batch, features)
        if training and kept_inputs is not None:
            sequences = sequences * ops.expand_dims(kept_inputs, 1)
        return ops.concatenate(super().project(sequences), axis=-1)

    def call(self, inputs, states, training=False):
        projected, reset = ops.split(inputs, [self.units], axis=-1)
        hidden_state = self.step(projected, reset, states[0], training)
        return hidden_state, [hidden_state]


@keras.saving.register_keras_serializable("assignment14")
class ResetRNN(HoistedRNN):
    """`keras.layers.RNN(ResetCell(...))` with the input projections out of the loop.

    Neither `x_t W + b` nor `R_t` depends on the state, so both come from one matrix
    product for all steps; what is left in the loop is `h U`, the activation and a
    product with the gate. Results are those of the cell in an `RNN`, and so are the
    weights: `set_weights` takes them from one to the other. The layer's own `cell` is
    called with what `project` returns; `cell.reset_gate` takes inputs as ever.

    Args:
        units: int, size of the state.
        return_sequences: bool, whether to return the state of every step.
        return_state: bool, whether to return the last state as well.
        go_backwards: bool, whether to read the sequences from their end.
        stateful: bool, whether a batch starts from where the last one ended.
        unroll: bool, whether to write the loop out.
        zero_output_for_mask: bool, whether masked steps return 0, not the last state.
        name: str, of the layer.
        dtype: dtype or policy of the layer and its cell.
        trainable: bool, whether the weights are trained.
        activity_regularizer: regularizer of the output.
        **cell_options: the other arguments of `ResetCell`.

    Call arguments:
        sequences: float tensor of shape `(batch, time, features)`.
        initial_state: list of one tensor of shape `(batch, units)`, or None for 0.
        mask: bool tensor of shape `(batch, time)`; the state passes a step with
            False unchanged.
        training: bool, whether dropout is active.

    Returns of a call: tensor of shape `(batch, units)`, or `(batch, time, units)` with
        `return_sequences`; with `return_state` a tuple of that and the last state.
    """

    def __init__(
        self,
        units,
        *,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        zero_output_for_mask=False,
        name=None,
        dtype=None,
        trainable=True,
        activity_regularizer=None,
        **cell_options,
    ):
        super().__init__(
            ProjectedResetCell(units, dtype=dtype, trainable=trainable, **cell_options),
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            name=name,
            dtype=dtype,
            trainable=trainable,
            activity_regularizer=activity_regularizer,
        )

    def get_config(self):
        config = {**self.cell.get_config(), **super().get_config()}
        del config["cell"]
        return config

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _check_arguments(units, reset_bias, dropout, recurrent_dropout):
    integer = isinstance(units, numbers.Integral) and not isinstance(units, bool)
    if not (integer and units > 0):
        raise ValueError(
            f"`units` must be a positive integer. Received: units={units!r}"
        )
    if not (isinstance(reset_bias, numbers.Real) and math.isfinite(reset_bias)):
        raise ValueError(
            f"`reset_bias` must be a finite number. Received: reset_bias={reset_bias!r}"
        )
    rates = {"dropout": dropout, "recurrent_dropout": recurrent_dropout}
    for name, rate in rates.items():
        if not (isinstance(rate, numbers.Real) and 0 <= rate < 1):
            raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={rate!r}")
