"""From sentences to batches: vocabulary, token ids, length buckets."""

import collections
import itertools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

PADDING_ID = 0
UNKNOWN_ID = 1


@keras.saving.register_keras_serializable("assignment14")
def standardize(texts):
    """Lower-cases and sets apart what is no letter, digit, apostrophe or white space.

    Args:
        texts: string tensor of any shape.

    Returns:
        String tensor of the same shape; tokens are separated by white space.
        Apostrophes stay inside their word.
    """
    texts = tf.strings.lower(texts, encoding="utf-8")
    return tf.strings.regex_replace(texts, r"([^\pL\pN\s'])", r" \1 ")


def check_texts(name, texts):
    """Converts texts to a list of strings.

    Args:
        name: str, what the message calls them.
        texts: sequence, array or string tensor of shape `(n,)` of strings or UTF-8
            bytes. What is not valid Unicode becomes U+FFFD.

    Returns:
        List of str, one per text.

    Raises:
        ValueError: If `texts` is a single text or not one-dimensional, or a row is
            neither str nor bytes, such as a missing value.
    """
    rows = np.asarray(texts, dtype=object)
    if rows.ndim != 1:
        raise ValueError(
            f"`{name}` must be a sequence of texts, of shape (n,). "
            f"Received: {type(texts).__name__} of shape {rows.shape}, {texts!r:.80}"
        )
    found = []
    for number, row in enumerate(rows):
        if isinstance(row, bytes):
            row = row.decode("utf-8", "replace")
        if not isinstance(row, str):
            raise ValueError(
                f"`{name}` must hold strings. Received: {row!r:.80} in row {number}"
            )
        # Surrogates are joined where they are pairs; TensorFlow takes no single one.
        units = row.encode("utf-16-le", "surrogatepass")
        found.append(units.decode("utf-16-le", "replace"))
    return found


def build_vectorizer(texts, *, max_tokens=20_000):
    """Builds the layer that maps text to token ids.

    Args:
        texts: sequence of strings, see `check_texts`: the *training* texts only.
        max_tokens: int ≥ 3, upper limit of the vocabulary, padding and unknown
            included.

    Returns:
        A `keras.layers.TextVectorization` that gives ragged int64 ids: 0 is padding,
        1 is unknown, then words from the most to the least frequent.

    Raises:
        ValueError: If `texts` are not texts or hold no word, or `max_tokens` is not
            allowed.
    """
    _check_int("max_tokens", max_tokens, 3)
    texts = tf.constant(check_texts("texts", texts), tf.string)
    words = tf.strings.split(standardize(texts)).flat_values.numpy()
    if len(words) == 0:
        raise ValueError(
            f"`texts` must hold at least one word. Received: {len(texts)} texts"
        )
    counts = collections.Counter(words.tolist())
    # Ties are broken by the word, so that the order of the texts does not matter.
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return keras.layers.TextVectorization(
        standardize=standardize,
        split="whitespace",
        ragged=True,
        vocabulary=[word.decode() for word in ranked[: max_tokens - 2]],
    )


def encode(vectorizer, texts, *, max_length=None):
    """Maps texts to lists of token ids.

    Args:
        vectorizer: layer made by `build_vectorizer`.
        texts: sequence of strings, see `check_texts`.
        max_length: int ≥ 1, keeps the last so many tokens of a longer text, or None
            for all.

    Returns:
        List of int32 arrays, one per text, each of shape `(length,)`; a text without
        any token becomes one unknown token.

    Raises:
        ValueError: If `texts` are not texts, or `max_length` is not allowed.
    """
    if max_length is not None:
        _check_int("max_length", max_length, 1)
    texts = check_texts("texts", texts)
    if not texts:
        return []
    ragged = vectorizer(tf.constant(texts))
    ids = np.split(
        ragged.flat_values.numpy().astype("int32"), ragged.row_splits.numpy()[1:-1]
    )
    ids = [row if len(row) else np.array([UNKNOWN_ID], "int32") for row in ids]
    return [row[-max_length:] for row in ids] if max_length else ids


def first_of_length(token_ids, length):
    """Returns the index of the first row with `length` tokens, none of them unknown.

    Args:
        token_ids: list of int arrays of shape `(length_i,)`, see `encode`.
        length: int.

    Raises:
        ValueError: If there is no such row.
    """
    for index, row in enumerate(token_ids):
        if len(row) == length and UNKNOWN_ID not in row:
            return index
    raise ValueError(f"`token_ids` has no row of {length} known tokens.")


def bucketed_batches(
    token_ids,
    labels=None,
    *,
    batch_size=None,
    tokens_per_batch=None,
    bucket_lengths=(4, 8, 16, 28, 40, 56),
    padding="left",
    shuffle=True,
    seed=0,
):
    """Batches sentences of similar length, so that little of a batch is padding.

    Each pass is drawn from `np.random.default_rng([seed, number of the pass])` when its
    first batch is read. The dataset counts its passes from 0, whichever iterator reads
    them. A new process that makes it, repeats it and skips what an interrupted run has
    seen gets the same batches, bit for bit. To start again, make the dataset again.

    Args:
        token_ids: list of int arrays of shape `(length,)`, ids of 1 or more.
        labels: array of shape `(len(token_ids),)`, 0 or 1, or None.
        batch_size: int, sentences in a batch.
        tokens_per_batch: int, ids in a batch, padding included, in place of
            `batch_size`: shorter sentences come in larger batches. At least the last
            of `bucket_lengths`.
        bucket_lengths: increasing ints, the lengths that rows are padded to.
        padding: "left" or "right". Of rows longer than the last bucket, "left" keeps
            the last tokens and "right" the first.
        shuffle: bool. When True, each pass has other batches in another order and drops
            what does not fill a batch. When False, nothing is dropped and every pass is
            the same: the form for evaluation.
        seed: int ≥ 0.

    Returns:
        `tf.data.Dataset` of known cardinality, of `(ids, labels)`: int32
        `(batch, bucket length)`, padded with 0, and float32 `(batch,)`; without
        labels, of `ids`.

    Raises:
        ValueError: If an argument is not one of those listed, both or neither of
            `batch_size` and `tokens_per_batch` are given, or `shuffle` is True and
            no bucket has enough sentences for a batch.

    Example:

    >>> rows = [np.array([7, 8]), np.array([9]), np.array([4, 5, 6])]
    >>> batches = bucketed_batches(
    ...     rows, batch_size=2, bucket_lengths=(2, 4), shuffle=False
    ... )
    >>> [ids.tolist() for ids in batches.as_numpy_iterator()]
    [[[7, 8], [0, 9]], [[0, 4, 5, 6]]]
    """
    rows = _check_rows(token_ids)
    if labels is not None:
        labels = check_labels(labels, len(rows))
    bucket_lengths = _check_bucket_lengths(bucket_lengths)
    if padding not in ("left", "right"):
        raise ValueError(
            f'`padding` must be "left" or "right". Received: padding={padding!r}'
        )
    _check_int("seed", seed, 0)
    sizes = _batch_sizes(bucket_lengths, batch_size, tokens_per_batch)
    buckets = _fill_buckets(rows, bucket_lengths, sizes, only_full=shuffle)
    passes = itertools.count()
    side = "pre" if padding == "left" else "post"

    def one_pass():
        rng = np.random.default_rng([seed, next(passes)]) if shuffle else None
        for length, members in _draw_pass(buckets, rng):
            ids = keras.utils.pad_sequences(
                [rows[i] for i in members], length, padding=side, truncating=side
            )
            yield ids if labels is None else (ids, labels[members])

    # The static shape, as far as it is that of every batch.
    batch = batch_size if shuffle else None
    time = bucket_lengths[0] if len(bucket_lengths) == 1 else None
    signature = tf.TensorSpec([batch, time], "int32")
    if labels is not None:
        signature = (signature, tf.TensorSpec([batch], "float32"))
    dataset = tf.data.Dataset.from_generator(one_pass, output_signature=signature)
    batches = sum(
        len(members) // size if shuffle else -(-len(members) // size)
        for _, size, members in buckets
    )
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    return dataset.prefetch(tf.data.AUTOTUNE)


def _batch_sizes(bucket_lengths, batch_size, tokens_per_batch):
    """Returns the number of sentences in a batch of each bucket."""
    if (batch_size is None) == (tokens_per_batch is None):
        raise ValueError(
            "Exactly one of `batch_size` and `tokens_per_batch` must be given. "
            f"Received: {batch_size} and {tokens_per_batch}"
        )
    if tokens_per_batch is None:
        _check_int("batch_size", batch_size, 1)
        return [batch_size] * len(bucket_lengths)
    _check_int("tokens_per_batch", tokens_per_batch, bucket_lengths[-1])
    return [tokens_per_batch // length for length in bucket_lengths]


def _fill_buckets(rows, bucket_lengths, sizes, only_full):
    """Returns `(length, sentences in a batch, int array of row numbers)` per bucket."""
    lengths = np.minimum([len(row) for row in rows], bucket_lengths[-1])
    bucket_of_row = np.searchsorted(bucket_lengths, lengths)
    buckets = []
    for bucket, (length, size) in enumerate(zip(bucket_lengths, sizes, strict=True)):
        members = np.flatnonzero(bucket_of_row == bucket)
        if len(members) >= (size if only_full else 1):
            buckets.append((length, size, members))
    if not buckets:
        raise ValueError(
            "`batch_size` or `tokens_per_batch` must leave a full batch in some length "
            f"bucket. Received: batches of {sizes} sentences for {len(rows)} rows"
        )
    return buckets


def _draw_pass(buckets, rng):
    """Returns `(length, int array of row numbers)` of each batch, shuffled by `rng`."""
    batches = []
    for length, size, rows in buckets:
        if rng is not None:
            rows = rng.permutation(rows)[: len(rows) // size * size]
        parts = np.split(rows, range(size, len(rows), size))
        batches += [(length, part) for part in parts]
    return (
        batches if rng is None else [batches[i] for i in rng.permutation(len(batches))]
    )


class EncodedData(NamedTuple):
    """Text data as token ids; see `encode_data`.

    `train`, `tuning` and `validation` are lists of int32 arrays of shape `(length,)`.
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
        """Returns the `bucketed_batches` of "train", "tuning" or "validation"."""
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
    bucket_lengths = _check_bucket_lengths(bucket_lengths)
    vectorizer = build_vectorizer(texts.train.texts, max_tokens=max_tokens)
    splits = [
        encode(vectorizer, split.texts, max_length=bucket_lengths[-1])
        for split in (texts.train, texts.tuning, texts.validation)
    ]
    return EncodedData(texts, vectorizer, *splits, bucket_lengths)


def check_labels(labels, count):
    """Returns labels as float32 `(count,)`; raises ValueError unless all are 0 or 1."""
    labels = as_array("labels", labels)
    if labels.shape != (count,) or not np.isin(labels, [0, 1]).all():
        raise ValueError(
            f"`labels` must be 0 or 1, one for each of the {count} sentences. "
            f"Received: shape {labels.shape}, dtype {labels.dtype}, "
            f"values {list(dict.fromkeys(labels.ravel().tolist()))[:5]}"
        )
    return labels.astype("float32")


def _check_rows(token_ids):
    """Returns rows of ids as int32 arrays; raises ValueError if one is none."""
    try:
        rows = list(token_ids)
    except TypeError:
        rows = []
    if not rows:
        raise ValueError(
            "`token_ids` must be a list of at least one int array. "
            f"Received: {token_ids!r:.80}"
        )
    for number, row in enumerate(rows):
        row = as_array("token_ids", row)
        integers = row.ndim == 1 and row.dtype.kind in "iu" and len(row)
        if not integers or row.min() <= PADDING_ID or row.max() > np.iinfo("int32").max:
            raise ValueError(
                "`token_ids` must be int arrays of shape (length,), with ids of 1 or "
                f"more (0 is padding). Received: {row!r:.80} in row {number}"
            )
        rows[number] = row.astype("int32", copy=False)
    return rows


def _check_bucket_lengths(bucket_lengths):
    """Returns a tuple of ints; raises ValueError unless they are positive and grow."""
    lengths = tuple(as_array("bucket_lengths", bucket_lengths).ravel().tolist())
    for length in lengths:
        _check_int("bucket_lengths", length, 1)
    if not lengths or list(lengths) != sorted(set(lengths)):
        raise ValueError(
            "`bucket_lengths` must be one or more increasing ints. "
            f"Received: {bucket_lengths!r}"
        )
    return lengths


def _check_int(name, value, least):
    """Raises ValueError unless a value is an int, and at least so large."""
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not integer or value < least:
        raise ValueError(
            f"`{name}` must be an int of at least {least}. Received: {name}={value!r}"
        )


def as_array(name, values):
    """Returns an array; raises ValueError that names what cannot become one."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be an array. Received: {values!r:.80}"
        ) from error
