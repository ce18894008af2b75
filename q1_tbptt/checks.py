"""Checks of what a person may pass to the classifier."""

import numpy as np
import tensorflow as tf

from common.text import PADDING_ID, as_array, check_labels


def check_token_ids(token_ids):
    """Checks that token ids are integers of shape `(batch, time)`.

    Args:
        token_ids: array or tensor.

    Raises:
        ValueError: If they are anything else, such as a list or a ragged tensor.
    """
    shape = getattr(token_ids, "shape", None)
    dtype = getattr(token_ids, "dtype", None)
    ragged = isinstance(token_ids, tf.RaggedTensor)
    if ragged or tf.TensorShape(shape).rank != 2 or "int" not in str(dtype):
        raise ValueError(
            "`token_ids` must be integers of shape (batch, time). Received: "
            f"{type(token_ids).__name__} of shape {shape}, dtype {dtype}"
        )


def check_batch(name, token_ids, labels, vocab_size=None):
    """Checks that a batch is like those that `bucketed_batches` makes.

    Args:
        name: str, what the message calls the batch.
        token_ids: int array of shape `(batch, time)`.
        labels: array of shape `(batch,)` or `(batch, 1)`.
        vocab_size: int, ids must be smaller, or None for any.

    Raises:
        ValueError: If the batch is empty or of another form, a sentence has no token,
            padding is not on the left, an id is negative or not below `vocab_size`,
            or `labels` are not a 0 or 1 for each sentence.
    """
    check_token_ids(token_ids)
    token_ids, labels = np.asarray(token_ids), as_array("labels", labels)
    if 0 in token_ids.shape:
        raise ValueError(f"`{name}` is empty. Received: shape {token_ids.shape}")
    present = token_ids != PADDING_ID
    if not present.any(axis=1).all():
        row = int(np.argmin(present.any(axis=1)))
        raise ValueError(f"`{name}` has a sentence without any token, in row {row}.")
    if (present[:, :-1] & ~present[:, 1:]).any():
        raise ValueError(f"`{name}` has padding (id 0) that is not on the left.")
    upper = np.inf if vocab_size is None else vocab_size
    if token_ids.min() < 0 or token_ids.max() >= upper:
        raise ValueError(
            f"`{name}` must hold ids in [0, {upper}). "
            f"Received: {token_ids.min()} to {token_ids.max()}"
        )
    column = labels.shape == (len(token_ids), 1)
    check_labels(labels[:, 0] if column else labels, len(token_ids))
