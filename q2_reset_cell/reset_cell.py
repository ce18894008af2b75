"""An Elman cell with a reset gate that depends on the input only.

For an input `x_t` and the state `h_{t-1}` the cell computes

    ĥ_t = tanh(x_t W + h_{t-1} U + b)      the candidate, an Elman cell
    R_t = hard_sigmoid(x_t W_R + b_R)      the reset gate, from the input only
    h_t = ĥ_t · R_t                        elementwise

`ResetCell` is one step, for `keras.layers.RNN` and everything else that takes a cell.
`ResetRNN` is the same layer for whole sequences. It is faster, because it computes
everything that does not depend on the state for all steps at once.
"""

import keras
from keras import ops

from common.recurrence import HoistedRNN


@keras.saving.register_keras_serializable("assignment14")
class ResetCell(keras.layers.SimpleRNNCell):
    """Elman cell whose new state is multiplied by a gate that depends on `x_t` only.

    A unit with `R_t = 0` forgets everything, also `x_t`: `R` multiplies the candidate,
    which holds both. The next step starts as from `h_t = 0`. (The reset gate of a GRU
    stands before the candidate and spares `x_t`.) A unit with `R_t = 1` is that of an
    Elman cell, which is no identity: its state still passes `U` and the activation.

    The gate is a factor of every path from the past:
    `∂h_t/∂h_{t-1} = diag(R_t · activation'(a_t)) Uᵀ` with
    `a_t = x_t W + h_{t-1} U + b`. A gate that stays at `R` for
    `n` steps multiplies a memory by `R^n`, in addition to what `U` does to it, and
    the gradient on its way back as well.

    Dropout masks belong to a sequence, as in all Keras cells: `keras.layers.RNN` draws
    them. Whoever calls the cell itself with `training=True` resets them with
    `reset_dropout_mask` and `reset_recurrent_dropout_mask`.

    Args:
        units: int, size of the state.
        activation: activation of the candidate, a name or a function.
        reset_activation: activation of the gate, a name or a function. The default
            reaches 0 and 1 exactly, at finite weights; `"sigmoid"` reaches neither in
            exact arithmetic. A default gate that is 0 or 1 for every input has no
            gradient and no longer learns.
        use_bias: bool, whether the candidate and the gate have biases. Without them
            the default gate starts near 1/2.
        kernel_initializer: initializer of `W`.
        recurrent_initializer: initializer of `U`.
        reset_kernel_initializer: initializer of `W_R`.
        reset_bias_initializer: initializer of `b_R`. With `"ones"` the default gate
            starts at 2/3 where `x_t W_R` is 0.
        shared_reset: bool, whether all units share one gate. `W_R` then has one
            column and `R` is of shape `(batch, 1)`.
        dropout: float in [0, 1), share of input features that training hides from
            the candidate and the gate, the same ones at every step.
        recurrent_dropout: float in [0, 1), share of the state's features that
            training hides from the candidate.
        **kwargs: those of `keras.layers.SimpleRNNCell`: `bias_initializer`,
            regularizers and constraints (those of the kernel and the bias are for the
            gate as well), `seed`, `name`, `dtype`.

    Call arguments:
        inputs: float tensor of shape `(batch, features)`.
        states: list of one float tensor of shape `(batch, units)`, `[h_{t-1}]`.
        training: bool, whether dropout is active.

    Returns:
        `(h_t, [h_t])`, tensors of shape `(batch, units)`.

    Raises:
        ValueError: If `units` is not positive, a dropout is outside [0, 1), or the name
            of an activation or initializer is unknown.

    Example:

    >>> layer = keras.layers.RNN(ResetCell(4), return_sequences=True)
    >>> layer(ops.ones((2, 5, 3))).shape
    TensorShape([2, 5, 4])

    Reference:
        [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1); gates that depend on
        the input only: [Bradbury et al., 2016](https://arxiv.org/abs/1611.01576)
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
        reset_bias_initializer="ones",
        shared_reset=False,
        dropout=0.0,
        recurrent_dropout=0.0,
        **kwargs,
    ):
        for name, rate in [
            ("dropout", dropout),
            ("recurrent_dropout", recurrent_dropout),
        ]:
            if not 0 <= rate < 1:
                raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={rate}")
        super().__init__(
            units,
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
        self.reset_bias_initializer = keras.initializers.get(reset_bias_initializer)
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
                initializer=self.reset_bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def call(self, inputs, states, training=False):
        projected = self.project(inputs, training)
        hidden_state = self.step(projected, states[0], training)
        return hidden_state, [hidden_state]

    def project(self, inputs, training=False):
        """Computes the part of a step that does not depend on the state.

        Args:
            inputs: float tensor of shape `(batch, features)`, or of shape `(batch,
                time, features)` for all steps at once.
            training: bool, whether dropout is active.

        Returns:
            Tensor of shape `(..., units + gates)`: `x_t W + b` and behind it `R_t`,
            which has `units` gates or, with `shared_reset`, one.
        """
        if training and self.dropout:
            sequence = len(inputs.shape) == 3
            kept = self.get_dropout_mask(inputs[:, 0] if sequence else inputs)
            inputs = inputs * (kept[:, None] if sequence else kept)
        kernel = ops.concatenate([self.kernel, self.reset_kernel], axis=-1)
        projected = ops.matmul(inputs, kernel)  # (..., units + gates)
        if self.use_bias:
            projected += ops.concatenate([self.bias, self.reset_bias], axis=-1)
        candidate_input, gate_logits = ops.split(projected, [self.units], axis=-1)
        reset = self.reset_activation(gate_logits)
        return ops.concatenate([candidate_input, reset], axis=-1)

    def step(self, projected, hidden_state, training=False):
        """Computes the part of a step that depends on the state.

        Args:
            projected: float tensor of shape `(batch, units + gates)`, see `project`.
            hidden_state: float tensor of shape `(batch, units)`, `h_{t-1}`.
            training: bool, whether recurrent dropout is active.

        Returns:
            `h_t`, a tensor of shape `(batch, units)`.
        """
        candidate_input, reset = ops.split(projected, [self.units], axis=-1)
        if training and self.recurrent_dropout:
            hidden_state *= self.get_recurrent_dropout_mask(hidden_state)
        candidate = self.activation(
            candidate_input + ops.matmul(hidden_state, self.recurrent_kernel)
        )
        return candidate * reset

    def reset_gate(self, inputs):
        """Computes `R` of a cell that is built, without running the recurrence.

        Args:
            inputs: float tensor or array of shape `(..., features)`, such as the
                embeddings of a whole vocabulary.

        Returns:
            Tensor of shape `(..., units)`, or `(..., 1)` with `shared_reset`.

        Raises:
            ValueError: If the inputs have another number of features than the cell
                was built for.

        Example:

        ```python
        gates = layer.cell.reset_gate(embedding.embeddings)  # (vocab_size, units)
        ```
        """
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        features = self.reset_kernel.shape[0]
        if inputs.shape[-1:] != (features,):
            raise ValueError(
                f"`inputs` must have {features} features, as those the cell was built "
                f"for. Received: shape {tuple(inputs.shape)}"
            )
        return ops.cast(self.project(inputs)[..., self.units :], self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "reset_activation": keras.activations.serialize(self.reset_activation),
            "reset_kernel_initializer": keras.initializers.serialize(
                self.reset_kernel_initializer
            ),
            "reset_bias_initializer": keras.initializers.serialize(
                self.reset_bias_initializer
            ),
            "shared_reset": self.shared_reset,
        }


class ProjectedResetCell(ResetCell):
    """`ResetCell` for `HoistedRNN`: a step receives what `project` returned.

    It is not registered: `ResetRNN` saves the arguments of the cell, not the cell.
    """

    def call(self, inputs, states, training=False):
        hidden_state = self.step(inputs, states[0], training)
        return hidden_state, [hidden_state]


@keras.saving.register_keras_serializable("assignment14")
class ResetRNN(HoistedRNN):
    """`keras.layers.RNN(ResetCell(...))` that projects the inputs of all steps at once.

    Neither `x_t W + b` nor `R_t` depends on the state, so one matrix product computes
    both for all steps. The loop is left with `h U`, the activation and the product with
    the gate. The results are those of the cell in an `RNN`, and so are the weights:
    `set_weights` takes them from one to the other. `cell.reset_gate` computes `R`. The
    layer's `cell` expects projected inputs: for another `RNN` make a `ResetCell`.

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
        mask: bool tensor of shape `(batch, time)`; a step with False leaves the state
            unchanged.
        training: bool, whether dropout is active.

    Returns:
        Tensor of shape `(batch, units)`, or `(batch, time, units)` with
        `return_sequences`; with `return_state` a tuple of that and the last state.

    Raises:
        ValueError: As `ResetCell`.

    Example:

    >>> embedding = keras.layers.Embedding(5000, 128, mask_zero=True)
    >>> model = keras.Sequential([embedding, ResetRNN(128), keras.layers.Dense(1)])
    >>> model(ops.ones((2, 7), "int32")).shape
    TensorShape([2, 1])
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
