"""From sentences to batches: vocabulary, token ids, length buckets.

Everything here pads on the *left*, so that the last column of a batch is the last
token of every sentence in it. Question 1 depends on that: the cut at `t` steps
before the end is then one column for the whole batch.
"""

import collections
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

PADDING_ID = 0
UNKNOWN_ID = 1


@keras.saving.register_keras_serializable("assignment14")
def standardize(texts):
    """Lower-cases and sets every punctuation mark apart, as SST-2 already is.

    Args:
        texts: string tensor of any shape.

    Returns:
        String tensor of the same shape; tokens are separated by white space.
        Apostrophes stay inside their word.
    """
    texts = tf.strings.lower(texts, encoding="utf-8")
    return tf.strings.regex_replace(texts, r"([^\pL\pN\s'])", r" \1 ")


def build_vectorizer(texts, *, max_tokens=20_000, min_count=1):
    """Builds the layer that maps text to token ids.

    Args:
        texts: sequence of strings, the *training* texts and no others.
        max_tokens: int, upper limit of the vocabulary, padding and unknown included.
        min_count: int, words seen fewer times become unknown.

    Returns:
        A `keras.layers.TextVectorization` that gives ragged int64 ids: 0 is padding,
        1 is unknown, then words from the most to the least frequent.

    Raises:
        ValueError: If there is no text, or `max_tokens` is less than 3.
    """
    if len(texts) == 0:
        raise ValueError("`texts` must hold at least one text. Received: none")
    if max_tokens < 3:
        raise ValueError(f"`max_tokens` must be 3 or more. Received: {max_tokens}")
    words = tf.strings.split(standardize(tf.constant(texts))).flat_values.numpy()
    counts = collections.Counter(words.tolist())
    # Ties are broken by the word, so that the order of the texts does not matter.
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    vocabulary = [word.decode() for word, count in ranked if count >= min_count]
    return keras.layers.TextVectorization(
        standardize=standardize,
        split="whitespace",
        ragged=True,
        vocabulary=vocabulary[: max_tokens - 2],
    )


def encode(vectorizer, texts, *, max_length=None):
    """Maps texts to lists of token ids.

    Args:
        vectorizer: layer made by `build_vectorizer`.
        texts: sequence of strings.
        max_length: int, keeps the last so many tokens of a longer text.

    Returns:
        List of int32 arrays, one a text, each of shape `(length,)`; a text without
        any token becomes one unknown token.
    """
    ragged = vectorizer(tf.constant(texts))
    ids = np.split(
        ragged.flat_values.numpy().astype("int32"), ragged.row_splits.numpy()[1:-1]
    )
    ids = [row if len(row) else np.array([UNKNOWN_ID], "int32") for row in ids]
    return [row[-max_length:] for row in ids] if max_length else ids


def pad_left(token_ids, length=None):
    """Pads lists of token ids on the left into one array.

    Args:
        token_ids: list of int arrays of shape `(length_i,)`.
        length: int, columns of the result. Defaults to the longest row.

    Returns:
        int32 array of shape `(len(token_ids), length)`.
    """
    return keras.utils.pad_sequences(
        token_ids, maxlen=length, dtype="int32", padding="pre", truncating="pre"
    )


def bucketed_batches(
    token_ids,
    labels,
    *,
    batch_size=64,
    bucket_lengths=(4, 8, 16, 28, 40, 56),
    shuffle=True,
    seed=0,
):
    """Batches sentences of similar length, so that little of a batch is padding.

    Every training batch is `(batch_size, bucket length)`: a handful of static
    shapes, which is what XLA wants.

    Args:
        token_ids: list of int arrays, see `encode`. Rows longer than the last bucket
            keep their last tokens.
        labels: array of shape `(len(token_ids),)`.
        batch_size: int, sentences in a batch.
        bucket_lengths: increasing ints, the lengths that rows are padded to.
        shuffle: bool. When True the sentences and the order of the batches differ in
            every epoch, and what does not fill a batch waits for another epoch. When
            False nothing is dropped: the form for evaluation.
        seed: int. As everywhere in TensorFlow it is the global seed at the time of
            the call (`keras.utils.set_random_seed`) and this one that together decide
            the whole sequence of epochs.

    Returns:
        `tf.data.Dataset` of `(ids, labels)`: int32 `(batch, length)`, left-padded
        with 0, and float32 `(batch,)`.

    Raises:
        ValueError: If there is no sentence, there are not as many labels, or `shuffle`
            is True and no bucket has enough sentences for a batch.
    """
    if len(token_ids) == 0 or len(token_ids) != len(labels):
        raise ValueError(
            "`token_ids` and `labels` must have the same length, at least 1. "
            f"Received: {len(token_ids)} and {len(labels)}"
        )
    labels = np.asarray(labels, "float32")
    lengths = np.minimum([len(row) for row in token_ids], bucket_lengths[-1])
    bucket_of_row = np.searchsorted(bucket_lengths, lengths)
    buckets, batches_in_bucket = [], []
    for bucket in np.unique(bucket_of_row):
        rows = np.flatnonzero(bucket_of_row == bucket)
        if shuffle and len(rows) < batch_size:
            continue
        ids = pad_left([token_ids[row] for row in rows], bucket_lengths[bucket])
        dataset = tf.data.Dataset.from_tensor_slices((ids, labels[rows]))
        if shuffle:
            dataset = dataset.shuffle(
                len(rows), seed=seed, reshuffle_each_iteration=True
            )
        buckets.append(dataset.batch(batch_size, drop_remainder=shuffle))
        batches_in_bucket.append(len(rows) // batch_size)
    if not buckets:
        raise ValueError(
            f"`batch_size={batch_size}` leaves no full batch in any length bucket of "
            f"{len(token_ids)} sentences; choose a smaller one."
        )
    if not shuffle:
        dataset = buckets[0]
        for bucket in buckets[1:]:
            dataset = dataset.concatenate(bucket)
        return dataset.prefetch(tf.data.AUTOTUNE)
    dataset = tf.data.Dataset.sample_from_datasets(
        buckets,
        weights=np.array(batches_in_bucket) / sum(batches_in_bucket),
        seed=seed,
        stop_on_empty_dataset=False,
        rerandomize_each_iteration=True,
    )
    dataset = dataset.apply(
        tf.data.experimental.assert_cardinality(sum(batches_in_bucket))
    )
    return dataset.prefetch(tf.data.AUTOTUNE)


class EncodedData(NamedTuple):
    """Text data as token ids; see `encode_data`.

    Attributes:
        texts: `common.data.TextData`.
        vectorizer: from `build_vectorizer`.
        train: list of int32 arrays of shape `(length,)`, see `encode`.
        tuning: the same.
        validation: the same.
        bucket_lengths: tuple of increasing ints, for `bucketed_batches`.
    """

    texts: object
    vectorizer: keras.layers.Layer
    train: list
    tuning: list
    validation: list
    bucket_lengths: tuple

    @property
    def vocab_size(self):
        return self.vectorizer.vocabulary_size()

    @property
    def cache_key(self):
        return [self.texts.name, self.bucket_lengths, self.vocab_size]

    def batches(self, split, *, batch_size=128, shuffle=False, seed=0):
        """Returns the batches of the split named "train", "tuning" or "validation".

        Args:
            split: str.
            batch_size: see `bucketed_batches`, which makes them.
            shuffle: see `bucketed_batches`.
            seed: see `bucketed_batches`.
        """
        return bucketed_batches(
            getattr(self, split),
            getattr(self.texts, split).labels,
            batch_size=batch_size,
            bucket_lengths=self.bucket_lengths,
            shuffle=shuffle,
            seed=seed,
        )


def encode_data(texts, *, max_tokens=20_000, bucket_lengths=(4, 8, 16, 28, 40, 56)):
    """Encodes all splits with a vocabulary of the training texts.

    Args:
        texts: `common.data.TextData`.
        max_tokens: int, upper limit of the vocabulary.
        bucket_lengths: increasing ints; longer texts keep their last tokens.

    Returns:
        `EncodedData`.
    """
    vectorizer = build_vectorizer(texts.train.texts, max_tokens=max_tokens)
    splits = [
        encode(vectorizer, split.texts, max_length=bucket_lengths[-1])
        for split in (texts.train, texts.tuning, texts.validation)
    ]
    return EncodedData(texts, vectorizer, *splits, tuple(bucket_lengths))


def check_token_ids(token_ids):
    """Checks that token ids are integers of shape `(batch, time)`.

    Args:
        token_ids: array or tensor.

    Raises:
        ValueError: If they are anything else.
    """
    if len(token_ids.shape) != 2 or "int" not in keras.backend.standardize_dtype(
        token_ids.dtype
    ):
        raise ValueError(
            "`token_ids` must be integers of shape (batch, time). Received: "
            f"shape {tuple(token_ids.shape)}, dtype {token_ids.dtype}"
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
    batch = len(token_ids)
    if labels.shape not in [(batch,), (batch, 1)] or not np.isin(labels, [0, 1]).all():
        raise ValueError(
            f"`labels` must be 0 or 1, one for each of the {batch} sentences. "
            f"Received: shape {labels.shape}, dtype {labels.dtype}, "
            f"values {np.unique(labels)[:5]}"
        )
