"""Truncated back-propagation through time (TBPTT) for a recurrent sentence classifier.

For a sentence of `T` tokens the hidden states are `h_k = cell(x_k, h_{k-1})`, and the
loss `L` depends on `h_T` only. Truncation to `t` steps leaves the forward pass as it is
and makes `h_{T-t}` a constant of the graph. The chain rule ends there: `∂L/∂h_k` is
exactly 0 for every `k < T-t`: cell and embeddings learn from the last `t` tokens only.

`truncated_scan` truncates, `TBPTTClassifier` trains through it, `train_tbptt` builds
and trains a model, and `gradient_magnitudes` measures the gradient at every position.
"""

import functools
import numbers

import keras
import tensorflow as tf
from keras import ops

from common import resume
from common.recurrence import recurrent_layer
from common.text import PADDING_ID
from q1_tbptt.gradients import (
    GradientMagnitudes,
    check_batch,
    check_token_ids,
    gradient_magnitudes,
)
from q1_tbptt.truncation import pad_on_the_left, truncated_scan

__all__ = [
    "GradientMagnitudes",
    "TBPTTClassifier",
    "gradient_magnitudes",
    "train_tbptt",
]


@keras.saving.register_keras_serializable("assignment14")
class TBPTTClassifier(keras.Model):
    """Recurrent binary classifier of sentences, trained by truncated BPTT.

    An embedding, any Keras RNN cell, and one logit from the last hidden state: the
    first state of the cell, or of the last cell of a stack. `call` is the whole forward
    pass. `train_step` truncates the gradient.

    The mask of `dropout` is one for the whole sentence, so the loss does not depend on
    `t`. A cell's own dropout draws a mask for every block of at most 64 steps before
    the truncation, and one for the steps after it. Under `tf.distribute` the logged
    `loss` is divided by the number of replicas.

    Args:
        cell: RNN cell with the contract of `keras.layers.RNN`: `SimpleRNNCell`,
            `LSTMCell`, `GRUCell`, `StackedRNNCells` without a stack inside, or a
            custom one.
        vocab_size: int, token ids are in `[0, vocab_size)`; 0 is padding.
        embedding_dim: int.
        t: int ≥ 0, the largest number of time steps through which the gradient is
            propagated back, or None for all. 0 trains the head only. A value assigned
            to `model.t` takes effect at the next `fit`; do not assign during one.
        dropout: float, rate of dropout on embedding features, the same ones at every
            step of a sentence (Gal and Ghahramani, 2016), and on features of the last
            hidden state.
        **kwargs: `name`, `dtype`, `trainable`. Of layers that are frozen, only the
            cell is still frozen in a loaded model.

    Call arguments:
        token_ids: int tensor of shape `(batch, time)`, padded with 0 on the left or on
            the right. A row of padding only keeps `h_0`.
        training: bool, whether dropout is active.

    Returns:
        Logits of shape `(batch, 1)`, in the compute dtype.

    Raises:
        ValueError: If `t` is neither None nor an integer of at least 0, here or when
            it is assigned, or `dropout` is outside [0, 1].

    Example:

    ```python
    model = TBPTTClassifier(keras.layers.LSTMCell(64), vocab_size=20_000, t=8)
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(token_ids, labels, epochs=3)
    ```

    Reference:
        [Williams and Peng, 1990](https://doi.org/10.1162/neco.1990.2.4.490);
        dropout: [Gal and Ghahramani, 2016](https://arxiv.org/abs/1512.05287)
    """

    def __init__(
        self, cell, vocab_size, embedding_dim=128, t=None, dropout=0.0, **kwargs
    ):
        super().__init__(**kwargs)
        self.cell = cell
        self.vocab_size = vocab_size
        self.embedding_dim = embedding_dim
        self.dropout = dropout
        self.t = t
        policy = self.dtype_policy
        self.embedding = keras.layers.Embedding(vocab_size, embedding_dim, dtype=policy)
        self.feature_dropout = keras.layers.Dropout(dropout, dtype=policy)
        self.rnn = recurrent_layer(cell, return_state=True, dtype=policy)
        self.head_dropout = keras.layers.Dropout(dropout, dtype=policy)
        self.head = keras.layers.Dense(1, name="head", dtype=policy)
        self.build((None, None))  # no weight's shape depends on the data

    @property
    def t(self):
        return self._t

    @t.setter
    def t(self, t):
        integer = isinstance(t, numbers.Integral) and not isinstance(t, bool)
        if t is not None and not (integer and t >= 0):
            raise ValueError(
                f"`t` must be None or an integer of at least 0. Received: t={t!r}"
            )
        self._t = None if t is None else int(t)
        self.train_function = None  # the traced one has the old `t` built in

    def build(self, input_shape):
        batch, time = input_shape
        self.embedding.build(input_shape)
        if not self.cell.built:
            self.cell.build((batch, self.embedding_dim))
        self.rnn.build((batch, time, self.embedding_dim))
        self.head.build(self.hidden_state(self.initial_states(1)).shape)
        self.built = True

    def call(self, token_ids, training=False):
        # Keras tries an exported or distributed model on floats, as `Embedding` allows.
        token_ids = ops.cast(token_ids, "int32")
        return self.truncated_logits(token_ids, t=None, training=training)

    def train_step(self, data):
        """Takes one optimizer step on the truncated gradient.

        Args:
            data: `(token_ids, labels)`, or with a `sample_weight` behind.

        Returns:
            Dict of scalar tensors: the metrics of `compile`, and `gradient_norm`, the
            global norm of the gradient before the optimizer clips it. In the history
            of `fit` it is that of the last step of an epoch.
        """
        token_ids, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = self.trainable_weights
        if not self.optimizer.built:
            self.optimizer.build(weights)
        with tf.GradientTape() as tape:
            logits = self.truncated_logits(token_ids, self.t, training=True)
            loss = self.compute_loss(
                token_ids, labels, logits, sample_weight, training=True
            )
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, weights)
        # A weight that the truncation leaves out gets no step and no weight decay.
        pairs = [
            (tf.convert_to_tensor(gradient), weight)
            for gradient, weight in zip(gradients, weights, strict=True)
            if gradient is not None
        ]
        norm = tf.linalg.global_norm(
            [tf.cast(gradient, self.variable_dtype) for gradient, _ in pairs]
        ) / self.optimizer.scale_loss(1.0)
        self.optimizer.apply_gradients(pairs)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, tf.shape(token_ids)[0])
        logs = self.compute_metrics(token_ids, labels, logits, sample_weight)
        return {**logs, "gradient_norm": norm}

    def truncated_logits(self, token_ids, t, training=False):
        """Computes the logits of `call`, with gradient in the last `t` steps only.

        Args:
            token_ids: int tensor of shape `(batch, time)`, see the class.
            t: int or None, see the class.
            training: bool, whether dropout is active.

        Returns:
            Tensor of shape `(batch, 1)`, the same for every `t`.

        Raises:
            ValueError: If `token_ids` are not integers of that shape.
        """
        check_token_ids(token_ids)
        if t is not None:  # the last token of every row moves to the last column
            token_ids = pad_on_the_left(token_ids)
        batch = tf.shape(token_ids)[0]
        kept_features = self.feature_dropout(
            tf.ones((batch, 1, self.embedding_dim), self.compute_dtype),
            training=training,
        )

        def scan(token_ids, states):
            inputs = self.embedding(token_ids) * kept_features  # (batch, time, dim)
            mask = token_ids != PADDING_ID
            _, *new_states = self.rnn(
                inputs, initial_state=states, mask=mask, training=training
            )
            return keras.tree.pack_sequence_as(states, keras.tree.flatten(new_states))

        states = truncated_scan(scan, token_ids, self.initial_states(batch), t)
        return self.logits_from(states, training)

    def initial_states(self, batch_size):
        """Returns `h_0`, a list of tensors `(batch_size, units)`, one per state.

        With `StackedRNNCells` it is a list of such lists, one per cell.
        """
        states = self.rnn.get_initial_state(batch_size)
        states = list(states) if keras.tree.is_nested(states) else [states]
        # A cell may have a dtype of its own. The layer returns states in the model's.
        return keras.tree.map_structure(
            lambda state: tf.cast(state, self.compute_dtype), states
        )

    def hidden_state(self, states):
        """Returns `(batch, units)`, the first state of the cell or of the last cell."""
        stacked = isinstance(self.cell, keras.layers.StackedRNNCells)
        return keras.tree.flatten(states[-1] if stacked else states)[0]

    def logits_from(self, states, training=False):
        """Returns the logits `(batch, 1)` of the states after the last step."""
        state = self.head_dropout(self.hidden_state(states), training=training)
        return self.head(state)

    def get_config(self):
        return {
            **super().get_config(),
            "cell": keras.saving.serialize_keras_object(self.cell),
            "vocab_size": self.vocab_size,
            "embedding_dim": self.embedding_dim,
            "t": self.t,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config):
        cell = keras.saving.deserialize_keras_object(config.pop("cell"))
        return cls(cell, **config)


CELLS = {
    "simple_rnn": keras.layers.SimpleRNNCell,
    "irnn": functools.partial(
        keras.layers.SimpleRNNCell, activation="relu", recurrent_initializer="identity"
    ),
    "lstm": keras.layers.LSTMCell,
    "gru": keras.layers.GRUCell,
}


def train_tbptt(
    train_ds,
    validation_ds,
    *,
    t,
    cell="simple_rnn",
    vocab_size=None,
    units=128,
    embedding_dim=128,
    dropout=0.5,
    epochs=3,
    learning_rate=1e-3,
    weight_decay=0.3,
    global_clipnorm=1.0,
    seed=0,
    callbacks=None,
    backup_dir=None,
    jit_compile="auto",
    verbose="auto",
):
    """Trains a recurrent classifier, back-propagating through at most `t` time steps.

    The optimizer is AdamW, whose learning rate falls to 0 along a cosine.

    Args:
        train_ds: finite `tf.data.Dataset` of batches `(token_ids, labels)`: ids int
            `(batch, time)`, padded with 0 on the left or on the right; labels
            `(batch,)` or `(batch, 1)`, 0 or 1. See `common.text.bucketed_batches`. It
            is read once before training, to check it.
        validation_ds: the same, for the validation metrics of the history.
        t: int ≥ 0, the largest number of time steps through which the gradient is
            propagated back, or None for all of them.
        cell: "simple_rnn" (the Elman network, with tanh), "irnn" (an Elman network with
            ReLU and a recurrent kernel that starts as the identity), "lstm", "gru", or
            a new RNN cell; `units` is for the names.
        vocab_size: int. Defaults to the largest id in the data plus one.
        units: int, size of the hidden state.
        embedding_dim: int.
        dropout: float, see `TBPTTClassifier`.
        epochs: int.
        learning_rate: float, at the first step.
        weight_decay: float, of AdamW.
        global_clipnorm: float, the largest norm of the gradient, or None for any.
        seed: int, of the weights and the dropout. A cell that is passed in drew the
            seeds of its own when it was made: call `keras.utils.set_random_seed` first.
        callbacks: Keras callbacks, for `fit`.
        backup_dir: path of a folder for this training only, from which a training that
            was killed resumes (`common.resume.fit`). None keeps nothing.
        jit_compile: bool or "auto", whether XLA compiles the steps.
        verbose: as in `fit`.

    Returns:
        `(model, history)`: the trained `TBPTTClassifier` and the `History` of `fit`.
        The model is compiled with the constant rate `learning_rate`, for another `fit`.

    Raises:
        ValueError: If `t` or `cell` is not allowed, or a data set is empty or holds a
            batch of another form, an id of `vocab_size` or more, a sentence without a
            token, or padding inside a sentence; or if the backup is damaged.
        FloatingPointError: If the loss is not finite and `backup_dir` is given.

    Example:

    ```python
    class LeakyCell(keras.layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = self.state_size = units

        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], self.units))
            self.leak = self.add_weight(shape=(self.units,))

        def call(self, inputs, states):
            state = keras.ops.tanh(self.leak * states[0] + inputs @ self.kernel)
            return state, [state]

    model, history = train_tbptt(train_ds, validation_ds, t=16, cell="irnn")
    model, history = train_tbptt(train_ds, validation_ds, t=8, cell=LeakyCell(128))
    ```

    Reference:
        IRNN: [Le et al., 2015](https://arxiv.org/abs/1504.00941)
    """
    largest_id, batches = _check_dataset("train_ds", train_ds, vocab_size)
    largest_validation_id, _ = _check_dataset(
        "validation_ds", validation_ds, vocab_size
    )
    vocab_size = vocab_size or max(largest_id, largest_validation_id) + 1
    keras.utils.set_random_seed(seed)
    model = TBPTTClassifier(
        new_cell(cell, units), vocab_size, embedding_dim, t=t, dropout=dropout
    )

    def compile_with(rate):
        model.compile(
            optimizer=keras.optimizers.AdamW(
                rate, weight_decay=weight_decay, global_clipnorm=global_clipnorm
            ),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],
            jit_compile=jit_compile,
        )

    compile_with(
        keras.optimizers.schedules.CosineDecay(learning_rate, epochs * batches)
    )
    history = resume.fit(
        model,
        train_ds,
        validation_data=validation_ds,
        epochs=epochs,
        steps_per_epoch=batches,
        callbacks=callbacks,
        backup_dir=backup_dir,
        verbose=verbose,
    )
    compile_with(learning_rate)  # the schedule has ended at 0
    return model, history


def new_cell(cell, units):
    """Returns a cell that has no weights yet: a new one for a name, or the cell itself.

    Args:
        cell: RNN cell, or one of `CELLS`.
        units: int, size of the state of a new one.

    Raises:
        ValueError: If it is an unknown name, no RNN cell, or a cell that has weights:
            a second training would start with what the first one learned.
    """
    if isinstance(cell, str) and cell in CELLS:
        return CELLS[cell](units)
    layer = isinstance(cell, keras.Layer) and not isinstance(cell, keras.layers.RNN)
    if not (layer and hasattr(cell, "state_size")):
        raise ValueError(
            f"`cell` must be one of {', '.join(CELLS)} or an RNN cell such as "
            f"keras.layers.LSTMCell(128). Received: cell={cell!r}"
        )
    if cell.built:
        raise ValueError(
            "`cell` must be new. Received a cell that already has weights, such as "
            f"those of an earlier training: {cell!r}"
        )
    return cell


def _check_dataset(name, dataset, vocab_size):
    """Checks every batch; returns the largest id and the number of batches."""
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            f"`{name}` must be a tf.data.Dataset of batches (token_ids, labels). "
            f"Received: {type(dataset).__name__}"
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"`{name}` must end. Received: an infinite dataset")
    largest_id = batches = 0
    for batch in dataset.as_numpy_iterator():
        if not isinstance(batch, tuple) or len(batch) < 2:
            raise ValueError(f"`{name}` must hold pairs `(token_ids, labels)`.")
        token_ids, labels = batch[:2]
        check_batch(name, token_ids, labels, vocab_size)
        largest_id = max(largest_id, int(token_ids.max()))
        batches += 1
    if batches == 0:
        raise ValueError(f"`{name}` is empty.")
    return largest_id, batches
