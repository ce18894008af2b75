"""Measures the gradient of the loss at every position of a sentence."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from common.text import PADDING_ID, as_array, check_labels
from q1_tbptt.truncation import pad_on_the_left, truncated_scan


class GradientMagnitudes(NamedTuple):
    """Gradient norms by position, aligned on the end of the sentence.

    Column `-1 - d` belongs to `d` steps before the end. A sentence shorter than the
    longest one of the batch has NaN where it has no such position.

    Attributes:
        hidden_state: float array of shape `(batch, time + 1)`, `‖∂L/∂h_k‖` for
            `k = 0 … T`, all states of all layers of the cell taken together.
        inputs: float array of shape `(batch, time)`, `‖∂L/∂x_k‖` for `k = 1 … T`,
            where `x_k` is the embedding of token `k`.
    """

    hidden_state: np.ndarray
    inputs: np.ndarray


def gradient_magnitudes(model, token_ids, labels):
    """Measures how large the loss gradient is at every position of every sentence.

    `L` is the cross-entropy of one sentence, without dropout. With `model.t = t` the
    gradient is that of training, truncated by the same `truncated_scan`: `∂L/∂h_k` is
    that of full BPTT for `k ≥ T-t` and exactly 0.0 for `k < T-t`, as is `∂L/∂x_k` for
    `k ≤ T-t`.
    A zero is added to every state as it enters the next step, and `L` is differentiated
    by that zero, since a state inside the recurrence is no variable.

    Args:
        model: `TBPTTClassifier`; assign to `model.t` for another truncation.
        token_ids: int array of shape `(batch, time)`, padded with 0 on the left or on
            the right, or a list of lists of ids of any lengths.
        labels: array of shape `(batch,)` or `(batch, 1)`, 0 or 1.

    Returns:
        `GradientMagnitudes`.

    Raises:
        ValueError: If `token_ids` is empty or of another form, holds a sentence without
            a token, padding inside a sentence or an id beyond the vocabulary, or
            `labels` are not a 0 or 1 for each sentence.

    Example:

    >>> model = TBPTTClassifier(keras.layers.GRUCell(4), vocab_size=10, t=1)
    >>> gradient_magnitudes(model, [[5, 6, 7]], [1]).hidden_state[0] > 0
    array([False, False,  True,  True])
    """
    if isinstance(token_ids, (list, tuple)) and token_ids:
        if all(np.ndim(row) == 1 for row in token_ids):
            token_ids = keras.utils.pad_sequences(token_ids)
    check_batch("token_ids", token_ids, labels, model.vocab_size)
    token_ids = pad_on_the_left(tf.constant(token_ids)).numpy()
    labels = np.asarray(labels)
    hidden_state, inputs = _gradient_norms(
        model, tf.constant(token_ids), tf.constant(labels.reshape(-1, 1))
    )
    # (batch, time + 1): h_0 stands in the column before the first token.
    inside = np.pad(token_ids != PADDING_ID, [[0, 0], [0, 1]], constant_values=True)
    return GradientMagnitudes(
        np.where(inside, hidden_state, np.nan),
        np.where(inside[:, :-1], inputs, np.nan),
    )


def parameter_gradient(model, token_ids, labels, t):
    """Computes the gradient of the mean loss by all weights, truncated to `t` steps.

    Args:
        model: `TBPTTClassifier`.
        token_ids: int array of shape `(batch, time)`, see `gradient_magnitudes`.
        labels: array of shape `(batch,)`, 0 or 1.
        t: int or None.

    Returns:
        Array of shape `(parameters,)`.
    """
    check_batch("token_ids", token_ids, labels, model.vocab_size)
    with tf.GradientTape() as tape:
        logits = model.truncated_logits(tf.constant(token_ids), t)
        loss = tf.reduce_mean(
            keras.losses.binary_crossentropy(
                labels.reshape(-1, 1), logits, from_logits=True
            )
        )
    weights = model.trainable_weights
    gradients = [  # None where the truncation leaves a weight out
        np.zeros(weight.shape) if gradient is None else tf.convert_to_tensor(gradient)
        for gradient, weight in zip(tape.gradient(loss, weights), weights, strict=True)
    ]
    return np.concatenate([np.ravel(gradient) for gradient in gradients])


def truncation_bias(model, token_ids, labels, ts):
    """Measures how far the truncated gradient `g_t` is from the full one, `g_∞`.

    Args:
        model: `TBPTTClassifier`.
        token_ids: int array of shape `(batch, time)`, see `gradient_magnitudes`.
        labels: array of shape `(batch,)`, 0 or 1.
        ts: truncations, a list of int.

    Returns:
        `(bias, cosine)`, arrays of shape `(len(ts),)`: `‖g_t - g_∞‖ / ‖g_∞‖` and the
        cosine of the angle between the two.

    Reference:
        [Aicher et al., 2019](https://arxiv.org/abs/1905.07473) choose `t` by this bias.
    """
    full = parameter_gradient(model, token_ids, labels, None)
    bias, cosine = [], []
    for t in ts:
        truncated = parameter_gradient(model, token_ids, labels, t)
        scale = np.linalg.norm(truncated) * np.linalg.norm(full)
        bias.append(np.linalg.norm(truncated - full) / np.linalg.norm(full))
        cosine.append(truncated @ full / scale)
    return np.array(bias), np.array(cosine)


def _gradient_norms(model, token_ids, labels):
    inputs = model.embedding(token_ids)  # (batch, time, embedding_dim)
    initial_states = model.initial_states(len(token_ids))
    state_dim = sum(state.shape[-1] for state in keras.tree.flatten(initial_states))
    probes = tf.zeros((*token_ids.shape, state_dim), inputs.dtype)
    rnn = keras.layers.RNN(
        ProbedCell(model.cell), return_state=True, dtype=model.dtype_policy
    )

    def scan(sequences, states):
        probed_inputs, mask = sequences
        _, *new_states = rnn(probed_inputs, initial_state=states, mask=mask)
        return keras.tree.pack_sequence_as(states, keras.tree.flatten(new_states))

    with tf.GradientTape() as tape:
        tape.watch([inputs, probes])
        sequences = (tf.concat([inputs, probes], -1), token_ids != PADDING_ID)
        reset_dropout_masks(model.cell)
        states = truncated_scan(scan, sequences, initial_states, model.t)
        reset_dropout_masks(model.cell)  # the next training draws its own
        states = keras.tree.map_structure(tf.identity, states)
        tape.watch(keras.tree.flatten(states))  # the cut may lie right before them
        # A sum over sentences: the gradient of each is that of its own loss.
        loss = tf.reduce_sum(
            keras.losses.binary_crossentropy(
                labels, model.logits_from(states), from_logits=True
            )
        )
    by_input, by_probe, *by_last_state = tape.gradient(
        loss,
        [inputs, probes, *keras.tree.flatten(states)],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    by_last_state = tf.concat(by_last_state, -1)[:, tf.newaxis]  # (batch, 1, state_dim)
    by_state = tf.concat([by_probe, by_last_state], 1)  # (batch, time + 1, state_dim)
    return tf.norm(by_state, axis=-1), tf.norm(by_input, axis=-1)


class ProbedCell(keras.layers.Layer):
    """Adds a probe to the states that enter each step of another cell.

    The inputs hold, behind the features of the cell, one number for every state
    feature. Zeros there change nothing and have a gradient.

    Args:
        cell: RNN cell, whose weights are used.
    """

    def __init__(self, cell):
        super().__init__(dtype=cell.dtype_policy)
        self.cell = cell
        self.state_size = cell.state_size
        self.output_size = getattr(cell, "output_size", None)  # a cell may have none

    def call(self, inputs, states):
        flat_states = keras.tree.flatten(states)
        sizes = [state.shape[-1] for state in flat_states]
        inputs, *probes = tf.split(
            inputs, [inputs.shape[-1] - sum(sizes), *sizes], axis=-1
        )
        probed = [
            state + probe for state, probe in zip(flat_states, probes, strict=True)
        ]
        return self.cell(inputs, keras.tree.pack_sequence_as(states, probed))


def reset_dropout_masks(cell):
    """Drops the dropout masks of a cell, as `keras.layers.RNN` does for its own."""
    for inner in getattr(cell, "cells", []):
        reset_dropout_masks(inner)
    if hasattr(cell, "reset_dropout_mask"):
        cell.reset_dropout_mask()
        cell.reset_recurrent_dropout_mask()


def check_token_ids(token_ids):
    """Raises ValueError unless token ids are integers of shape `(batch, time)`."""
    shape = getattr(token_ids, "shape", None)
    dtype = getattr(token_ids, "dtype", None)
    ragged = isinstance(token_ids, tf.RaggedTensor)
    if ragged or tf.TensorShape(shape).rank != 2 or "int" not in str(dtype):
        raise ValueError(
            "`token_ids` must be integers of shape (batch, time). Received: "
            f"{type(token_ids).__name__} of shape {shape}, dtype {dtype}"
        )


def check_batch(name, token_ids, labels, vocab_size=None):
    """Raises ValueError unless token ids and labels are a batch of sentences.

    Args:
        name: str, what the message calls the batch.
        token_ids: int array of shape `(batch, time)`, padded with 0 on either side.
        labels: array of shape `(batch,)` or `(batch, 1)`, 0 or 1.
        vocab_size: int, ids must be smaller, or None for any.
    """
    check_token_ids(token_ids)
    token_ids, labels = np.asarray(token_ids), as_array("labels", labels)
    if 0 in token_ids.shape:
        raise ValueError(f"`{name}` is empty. Received: shape {token_ids.shape}")
    present = np.pad(token_ids != PADDING_ID, [(0, 0), (1, 0)])
    runs = (present[:, 1:] & ~present[:, :-1]).sum(axis=1)  # of tokens, in each row
    for row in np.flatnonzero(runs != 1)[:1]:
        fault = "padding (id 0) inside a sentence" if runs[row] else "no token"
        raise ValueError(f"`{name}` has {fault} in row {row}: {token_ids[row]}")
    upper = np.inf if vocab_size is None else vocab_size
    if token_ids.min() < 0 or token_ids.max() >= upper:
        raise ValueError(
            f"`{name}` must hold ids in [0, {upper}). "
            f"Received: {token_ids.min()} to {token_ids.max()}"
        )
    column = labels.shape == (len(token_ids), 1)
    check_labels(labels[:, 0] if column else labels, len(token_ids))
