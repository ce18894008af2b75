"""Truncated back-propagation through time for a recurrent sentence classifier.

For a sentence of `T` tokens the recurrent state is `h_0 … h_T`, `h_k = cell(x_k,
h_{k-1})`, and the loss `L` depends on `h_T` alone. Truncation to `t` steps keeps the
forward pass as it is and lets exactly the last `t` applications of the cell carry
gradient: `h_{T-t}` enters them as a constant. So `∂L/∂h_k` is non-zero for
`k ≥ T-t` and exactly 0 before, and exactly the last `t` embeddings are trained.

The story: one function makes the cut (`truncated_scan`); a model trains through it
(`TBPTTClassifier`); a function trains the model (`train_tbptt`); and a function
measures, through the same cut, how large the gradient is at every position
(`gradient_magnitudes`).
"""

import functools
import numbers

import keras
import tensorflow as tf

from common import resume
from common.text import PADDING_ID
from q1_tbptt.checks import check_batch, check_token_ids
from q1_tbptt.gradients import GradientMagnitudes, gradient_magnitudes
from q1_tbptt.truncation import ElmanRecurrence, HoistedRNN, truncated_scan

__all__ = [
    "GradientMagnitudes",
    "TBPTTClassifier",
    "gradient_magnitudes",
    "train_tbptt",
]


@keras.saving.register_keras_serializable("assignment14")
class TBPTTClassifier(keras.Model):
    """Recurrent binary classifier of sentences, trained by truncated BPTT.

    Embedding, a recurrence over any Keras RNN cell, and one logit from the last
    hidden state, which is the first state of the (last) cell. `call` is the whole
    forward pass; `train_step` cuts the gradient.

    A cell's own dropout draws one mask before the cut and another after it; the mask
    of `dropout` holds for the whole sentence, so that the loss does not depend on `t`.

    Args:
        cell: RNN cell with the contract of `keras.layers.RNN`: `SimpleRNNCell`,
            `LSTMCell`, `GRUCell`, `StackedRNNCells`, or a custom one.
        vocab_size: int, token ids are in `[0, vocab_size)`; 0 is padding.
        embedding_dim: int.
        t: int ≥ 0, the largest number of time steps through which the gradient is
            propagated back, or None for all. 0 trains the head alone. Assigning to
            `model.t` later takes effect at the next `fit`.
        dropout: float, share of embedding features, the same ones at every step of
            a sentence (Gal and Ghahramani, 2016), and of features of the last hidden
            state, set to 0 in training.

    Call arguments:
        token_ids: int tensor of shape `(batch, time)`, padded with 0 on the left. A
            row of padding alone keeps `h_0 = 0` and gets the bias of the head.

    Returns of a call: logits of shape `(batch, 1)`.

    Raises:
        ValueError: if `t` is neither None nor an integer of at least 0, here or when
            it is assigned.

    Reference:
        [Williams and Peng, 1990](https://doi.org/10.1162/neco.1990.2.4.490)
    """

    def __init__(
        self,
        cell,
        vocab_size,
        embedding_dim=128,
        t=None,
        dropout=0.0,
        **kwargs,
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
        self.head_dropout = keras.layers.Dropout(dropout, dtype=policy)
        self.head = keras.layers.Dense(1, name="head", dtype=policy)
        if type(cell) is keras.layers.SimpleRNNCell and not (
            cell.dropout or cell.recurrent_dropout
        ):
            self.rnn = HoistedRNN(
                ElmanRecurrence(cell), return_state=True, dtype=policy
            )
        else:
            self.rnn = keras.layers.RNN(cell, return_state=True, dtype=policy)
        self.build((None, None))  # nothing about the weights depends on the data

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
        self.train_function = None  # the traced one has the old cut built in

    def build(self, input_shape):
        batch, time = input_shape
        self.embedding.build(input_shape)
        if not self.cell.built:
            self.cell.build((batch, self.embedding_dim))
        self.rnn.build((batch, time, self.embedding_dim))
        self.head.build(self.hidden_state(self.initial_states(1)).shape)
        self.built = True

    def call(self, token_ids, training=False):
        if tf.distribute.has_strategy():  # where Keras tries a new model on floats
            token_ids = tf.cast(token_ids, "int32")
        return self.truncated_logits(token_ids, t=None, training=training)

    def truncated_logits(self, token_ids, t, training=False):
        """Computes the logits of `call`, with gradient in the last `t` steps only.

        Args:
            token_ids: int tensor of shape `(batch, time)`, padded on the left.
            t: int or None, see the class.
            training: bool, whether dropout is active.

        Returns:
            Tensor of shape `(batch, 1)`, the same for every `t`.
        """
        check_token_ids(token_ids)
        batch = tf.shape(token_ids)[0]
        kept_features = self.feature_dropout(
            tf.ones((batch, 1, self.embedding_dim), self.compute_dtype),
            training=training,
        )

        def scan(token_ids, states):
            inputs = self.embedding(token_ids) * kept_features  # (batch, time, dim)
            _, *new_states = self.rnn(
                inputs,
                initial_state=states,
                mask=token_ids != PADDING_ID,
                training=training,
            )
            return keras.tree.pack_sequence_as(states, keras.tree.flatten(new_states))

        states = truncated_scan(scan, token_ids, self.initial_states(batch), t)
        return self.logits_from(states, training)

    def initial_states(self, batch_size):
        """Returns `h_0`: the cell's states for `batch_size` sentences.

        Args:
            batch_size: int or scalar int tensor.

        Returns:
            List of float tensors of shape `(batch_size, units)`, one a state of the
            cell; of `StackedRNNCells` a list of such lists, one a cell.
        """
        states = self.rnn.get_initial_state(batch_size)
        return list(states) if keras.tree.is_nested(states) else [states]

    def hidden_state(self, states):
        """Returns the hidden state among all states: the first of the (last) cell.

        Args:
            states: structure of tensors of shape `(batch, units)`, as that of
                `initial_states`.

        Returns:
            Tensor of shape `(batch, units)`.
        """
        stacked = isinstance(self.cell, keras.layers.StackedRNNCells)
        return keras.tree.flatten(states[-1] if stacked else states)[0]

    def logits_from(self, states, training=False):
        """Returns the logits `(batch, 1)` of the last states.

        Args:
            states: structure of tensors of shape `(batch, units)`, as that of
                `initial_states`.
            training: bool, whether dropout is active.
        """
        return self.head(
            self.head_dropout(self.hidden_state(states), training=training)
        )

    def train_step(self, data):
        """Takes one optimizer step on the truncated gradient.

        Beside the metrics of `compile` the logs hold `gradient_norm`, the global norm
        of this step's gradient, before any clipping by the optimizer.
        """
        token_ids, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self.optimizer.built:  # for all weights, though t = 0 trains but some
            self.optimizer.build(self.trainable_weights)
        with tf.GradientTape() as tape:
            logits = self.truncated_logits(token_ids, self.t, training=True)
            loss = self.compute_loss(
                token_ids, labels, logits, sample_weight, training=True
            )
            scaled_loss = self.optimizer.scale_loss(loss)
        pairs = [
            (tf.convert_to_tensor(gradient), variable)
            for gradient, variable in zip(
                tape.gradient(scaled_loss, self.trainable_weights),
                self.trainable_weights,
                strict=True,
            )
            # What the cut leaves out is left alone, weight decay included.
            if gradient is not None
        ]
        gradients = [gradient for gradient, _ in pairs]
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce("sum", gradients)
            if limit := self.optimizer.global_clipnorm:
                # Keras would clip in each replica, before the sum: here, after it.
                clipped, _ = tf.clip_by_global_norm(gradients, limit)
                variables = [variable for _, variable in pairs]
                pairs = zip([g / replicas for g in clipped], variables, strict=True)
        self.optimizer.apply_gradients(pairs)

        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss * replicas, tf.shape(token_ids)[0])
        norm = tf.linalg.global_norm(gradients)
        return {
            **self.compute_metrics(token_ids, labels, logits, sample_weight),
            "gradient_norm": norm / self.optimizer.scale_loss(1.0),
        }

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
    weight_decay=0.1,
    global_clipnorm=None,
    seed=0,
    callbacks=(),
    backup_dir=None,
    jit_compile="auto",
    verbose="auto",
):
    """Trains a recurrent classifier, back-propagating through at most `t` time steps.

    AdamW with a cosine rate. Validation and the returned model use a moving average of
    the weights over about a tenth of the training, so that the result does not hang
    on where the last step fell.

    Args:
        train_ds: finite `tf.data.Dataset` of batches `(token_ids, labels)`:
            ids int `(batch, time)`, padded with 0 on the left; labels `(batch,)` or
            `(batch, 1)`, 0 or 1. See `common.text.bucketed_batches`.
        validation_ds: the same, for the validation metrics of the history.
        t: int ≥ 0, the largest number of time steps through which the gradient is
            propagated back, or None for all of them.
        cell: "simple_rnn", "irnn" (an Elman cell too, with ReLU and a recurrent kernel
            that starts as the identity, Le et al., 2015), "lstm", "gru", or an RNN
            cell; `units` is for the names.
        vocab_size: int. Defaults to the largest id in the data plus one.
        units: int, size of the hidden state.
        embedding_dim: int.
        dropout: float, see `TBPTTClassifier`.
        epochs: int.
        learning_rate: float, at the first step; falls to 0 along a half cosine.
        weight_decay: float, of AdamW.
        global_clipnorm: float, the norm that gradients are clipped to, or None.
        seed: int, of the weights and the dropout.
        callbacks: Keras callbacks, for `fit`.
        backup_dir: path of a folder for this training alone: one that was killed goes
            on from there (`common.resume.fit`). None keeps nothing.
        jit_compile: bool or "auto", whether XLA compiles the steps.
        verbose: as in `fit`.

    Returns:
        `(model, history)`: the trained `TBPTTClassifier` and the `History` of `fit`.

    Raises:
        ValueError: if `t` or `cell` is not allowed, or a data set is empty or holds a
            batch of another form, an id beyond `vocab_size`, a sentence without a
            token, or padding that is not on the left.
    """
    largest_id, batches = _check_dataset("train_ds", train_ds, vocab_size)
    largest_validation_id, _ = _check_dataset(
        "validation_ds", validation_ds, vocab_size
    )
    keras.utils.set_random_seed(seed)
    model = TBPTTClassifier(
        as_cell(cell, units),
        vocab_size or max(largest_id, largest_validation_id) + 1,
        embedding_dim,
        t=t,
        dropout=dropout,
    )
    steps = epochs * batches
    model.compile(
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps),
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            use_ema=True,
            ema_momentum=max(0.0, 1 - 10 / steps),
        ),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],
        jit_compile=jit_compile,
    )
    history = resume.fit(
        model,
        train_ds.repeat(),
        validation_data=validation_ds,
        epochs=epochs,
        steps_per_epoch=batches,
        callbacks=[keras.callbacks.SwapEMAWeights(), *callbacks],
        backup_dir=backup_dir,
        verbose=verbose,
    )
    return model, history


def as_cell(cell, units):
    """Returns a cell as it is, and a new one for a name that `train_tbptt` knows.

    Args:
        cell: RNN cell, or a name.
        units: int, size of the state of a new one.

    Raises:
        ValueError: if the name is unknown.
    """
    names = {
        "simple_rnn": keras.layers.SimpleRNNCell,
        "irnn": functools.partial(
            keras.layers.SimpleRNNCell,
            activation="relu",
            recurrent_initializer="identity",
        ),
        "lstm": keras.layers.LSTMCell,
        "gru": keras.layers.GRUCell,
    }
    if isinstance(cell, str):
        if cell not in names:
            raise ValueError(
                f"`cell` must be one of {', '.join(names)} or an RNN cell. "
                f"Received: cell={cell!r}"
            )
        return names[cell](units)
    return cell


def _check_dataset(name, dataset, vocab_size):
    """Checks every batch once, before training: the largest id, and how many."""
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
