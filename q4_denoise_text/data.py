"""From film reviews to batches: sentences, token ids, noise, examples.

```python
corpus = load_corpus("tfds", download=True)
sentences = [sentence for passage in corpus.train for sentence in passage]
tokenizer = make_tokenizer(learn_vocabulary(sentences))
batches = denoising_batches(tokenize(tokenizer, sentences))
```

The corpus is IMDB's training and unlabelled reviews. Their labels are not used, and
every text that SST-2's results are measured on is left out.
"""

import html
import itertools
import numbers
import re
import unicodedata
from typing import NamedTuple

import keras_nlp
import numpy as np
import tensorflow as tf

from common.data import load_sentences
from common.prepared import NotPreparedError, prepared_builder, read_texts
from common.text import bucketed_batches, check_texts

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[MASK]"]
PAD, UNKNOWN, MASK = range(len(SPECIAL_TOKENS))
MAX_LENGTH = 64  # tokens
LENGTHS = (8, 16, 24, 32, 48, MAX_LENGTH)  # of a batch, in tokens
TOKENS = 4_096  # of a batch, padding included
NOISE = {"mask_rate": 0.2, "replace_rate": 0.05, "shuffle_distance": 1}
OFF = dict.fromkeys(NOISE, 0)
PREDICTED = 0.5  # share of the positions that are predicted
HELD_OUT = 1_000  # reviews
SHORTEST = 3  # words of a sentence
SEED = 14
TREEBANK = {"-lrb-": "(", "-rrb-": ")", " n't": "n't", "``": '"', "''": '"', r"\/": "/"}
TAG = re.compile(r"</?[a-zA-Z][^<>]{0,20}>|[\x00-\x1f\x7f]")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")


# The corpus.


class Corpus(NamedTuple):
    """Unlabelled text under a name.

    `train` and `held_out` are lists of passages, each a list of str: sentences that
    follow each other in a review.
    """

    name: str
    train: list
    held_out: list


def load_corpus(source="auto", *, data_dir=None, download=False):
    """Loads text to train a denoiser on, and other text to evaluate it on.

    Args:
        source: "tfds" for the 75,000 IMDB reviews that are not test reviews,
            "embedded" for the rating sentences that `common.data.load_sentences`
            trains on, or "auto" for IMDB where it is prepared and those elsewhere.
        data_dir: str or path, folder of tensorflow-datasets, see `load_sentences`.
        download: bool, whether to download IMDB and SST-2 where they are missing.

    Returns:
        A `Corpus`. No sentence occurs twice, and reviews are held out whole.

    Raises:
        ValueError: If `source` is unknown.
        DataError: If the data are missing or damaged; the message says what to do.
    """
    if source not in ("auto", "tfds", "embedded"):
        raise ValueError(
            "`source` must be 'auto', 'tfds' or 'embedded'. Received: "
            f"source={source!r}"
        )
    if source != "embedded":
        wanted = ("q4_denoise_text.data.load_corpus", data_dir, download)
        try:
            imdb = prepared_builder("imdb_reviews/plain_text", *wanted)
            sst2 = prepared_builder("glue/sst2", *wanted)
            return _imdb(imdb, sst2)
        except NotPreparedError:
            if source == "tfds":
                raise
    ratings = load_sentences("embedded", verbose=False)
    train, held_out = (
        [[clean(text)] for text in split.texts]
        for split in (ratings.train, ratings.tuning)
    )
    return Corpus(ratings.name, train, held_out)


def _imdb(imdb, sst2):
    reviews = [
        text
        for split in ("train", "unsupervised")
        for text in read_texts(imdb, split, "text")[0]
    ]
    reviews = list(dict.fromkeys(map(clean, reviews)))  # some occur twice
    excluded = ExcludedTexts(
        text
        for split in ("validation", "test")
        for text in read_texts(sst2, split, "sentence")[0]
    )
    order = np.random.default_rng(SEED).permutation(len(reviews))
    seen, parts = set(), []
    for rows in (order[:HELD_OUT], order[HELD_OUT:]):
        passages = (_passages(reviews[row], excluded, seen) for row in rows)
        parts.append(list(itertools.chain.from_iterable(passages)))
    held_out, train = parts
    return Corpus("IMDB reviews", train, held_out)


def _passages(review, excluded, seen):
    """Cuts a review at sentences that are short, excluded, or seen before."""
    passages = [[]]
    for sentence in SENTENCE_END.split(review):
        known = bare(sentence)
        if len(sentence.split()) < SHORTEST or known in seen or sentence in excluded:
            passages.append([])
        else:
            seen.add(known)
            passages[-1].append(sentence)
    return [passage for passage in passages if passage]


class ExcludedTexts:
    """Texts to leave out, with every sentence of theirs.

    `in` tells whether a text is one of these or contains a long one.

    Args:
        texts: strings. Those of fewer than six words are found only as whole texts.
    """

    def __init__(self, texts):
        self.whole, self.beginnings = set(), {}
        for text in itertools.chain.from_iterable(
            [text, *SENTENCE_END.split(text)] for text in texts
        ):
            self.whole.add(bare(text))
            words = self._words(text)
            if len(words) >= 6:
                self.beginnings.setdefault((*words[:6],), []).append(words)

    def __contains__(self, text):
        words = self._words(text)
        return bare(text) in self.whole or any(
            words[i : i + len(found)] == found
            for i in range(len(words) - 5)
            for found in self.beginnings.get((*words[i : i + 6],), ())
        )

    @staticmethod
    def _words(text):
        return re.findall(r"\w+", clean(text).lower())


def clean(text):
    """Returns text without mark-up, in the spelling of running text.

    Tags, control characters and white space become single blanks, and entities become
    the characters that they stand for. Treebank spellings of SST-2, such as "does n't"
    or "-lrb-", become ordinary ones where a tokenizer would see a difference.

    Args:
        text: str.
    """
    text = html.unescape(TAG.sub(" ", text))
    for token, spelling in TREEBANK.items():
        text = text.replace(token, spelling)
    return " ".join(text.split())


def bare(text):
    """Returns only letters and digits, lower-case, to compare texts by."""
    plain = unicodedata.normalize("NFKC", clean(text).lower())
    return re.sub(r"[\W_]+", "", plain)


# Token ids.


def learn_vocabulary(texts, size=8_000):
    """Learns a WordPiece vocabulary.

    Args:
        texts: sequence of strings, *training* texts only.
        size: int, about how many pieces, special tokens included.

    Returns:
        List of strings, `SPECIAL_TOKENS` first.
    """
    dataset = tf.data.Dataset.from_tensor_slices(list(texts)).batch(1_024)
    return keras_nlp.tokenizers.compute_word_piece_vocabulary(
        dataset,
        size,
        lowercase=True,
        strip_accents=True,
        reserved_tokens=SPECIAL_TOKENS,
    )


def make_tokenizer(vocabulary):
    """Returns the `keras_nlp` tokenizer of a vocabulary, a list or a file's path."""
    return keras_nlp.tokenizers.WordPieceTokenizer(
        vocabulary, lowercase=True, strip_accents=True, oov_token="[UNK]"
    )


def word_starts(tokenizer):
    """Returns for every token id whether it starts a word: bools `(vocab_size,)`."""
    return np.array([not t.startswith("##") for t in tokenizer.get_vocabulary()])


def tokenize(tokenizer, texts, *, max_length=MAX_LENGTH):
    """Maps texts to token ids.

    Args:
        tokenizer: from `make_tokenizer`.
        texts: sequence of strings, see `common.text.check_texts`. They are cleaned
            first, see `clean`.
        max_length: int ≥ 1, keeps the first so many tokens of a longer text.

    Returns:
        List of int32 arrays, one per text, each of shape `(length,)`. A text without
        any token becomes one unknown token.

    Raises:
        ValueError: If `texts` are not texts, or `max_length` is not allowed.
    """
    _check_int("max_length", max_length, 1)
    texts = [clean(text) for text in check_texts("texts", texts)]
    if not texts:
        return []
    rows = []
    batches = tf.data.Dataset.from_tensor_slices(texts).batch(1_024)
    for ragged in batches.map(tokenizer, num_parallel_calls=tf.data.AUTOTUNE):
        ids, ends = ragged.flat_values.numpy(), ragged.row_splits.numpy()[1:-1]
        rows += np.split(ids.astype("int32"), ends)
    unknown = np.array([UNKNOWN], "int32")
    return [row[:max_length] if len(row) else unknown for row in rows]


def training_rows(passages, max_length=MAX_LENGTH):
    """Returns all sentences, followed by windows of several sentences.

    Args:
        passages: list of lists of int arrays `(length,)`, none longer than
            `max_length`, the sentences of each passage.
        max_length: int, the longest window in tokens.

    Returns:
        List of int arrays `(length,)`. A window holds two sentences or more of one
        passage, as many as fit.
    """
    windows = []
    for passage in passages:
        window = []
        for row in [*passage, None]:
            if row is None or sum(map(len, window)) + len(row) > max_length:
                if len(window) > 1:
                    windows.append(np.concatenate(window))
                window = []
            window.append(row)
    return [row for passage in passages for row in passage] + windows


# Noise.


def corrupt(
    token_ids, *, mask_rate, replace_rate, shuffle_distance, word_starts=None, seed
):
    """Corrupts sentences; every kind of noise is off at 0.

    First words change places with near ones (Lample et al. 2018), then tokens are
    masked or replaced (Devlin et al. 2019). A token is replaced by one drawn from the
    whole batch, thus by a common one more often, and sometimes by itself. Padding
    stays, and unknown tokens are neither masked nor replaced.

    Args:
        token_ids: int tensor `(batch, time)`, padded on the right with 0.
        mask_rate: float, the probability that a token becomes `[MASK]`.
        replace_rate: float, the probability that a token is replaced.
        shuffle_distance: int, the largest number of words by which a word moves.
        word_starts: array of bools `(vocab_size,)`, see `word_starts`; the pieces of a
            word move together. None takes every token for a word.
        seed: pair of ints or int tensor `(2,)`; the same seed gives the same noise.

    Returns:
        int32 tensor `(batch, time)`.

    Raises:
        ValueError: If `token_ids` has another shape, a rate is not in [0, 1],
            `mask_rate` and `replace_rate` exceed 1 together, or `shuffle_distance` is
            not an int of 0 or more.

    Reference:
        [Lample et al., 2018](https://arxiv.org/abs/1711.00043),
        [Devlin et al., 2019](https://arxiv.org/abs/1810.04805)
    """
    _check_noise(mask_rate, replace_rate, shuffle_distance)
    token_ids = tf.cast(token_ids, tf.int32)
    if token_ids.shape.rank != 2:
        raise ValueError(
            "`token_ids` must have the shape (batch, time). "
            f"Received: shape {token_ids.shape}"
        )
    seeds = tf.random.split(tf.cast(seed, tf.int32), 3)  # one per kind
    if shuffle_distance:
        token_ids = _shuffle_words(token_ids, shuffle_distance, word_starts, seeds[0])
    ordinary = token_ids >= len(SPECIAL_TOKENS)
    draw = tf.random.stateless_uniform(tf.shape(token_ids), seeds[1])
    replaced = ordinary & (draw >= mask_rate) & (draw < mask_rate + replace_rate)
    if replace_rate:
        # A batch without ordinary tokens has nothing to replace.
        others = tf.concat([tf.boolean_mask(token_ids, ordinary), [PAD]], axis=0)
        count = tf.maximum(tf.size(others) - 1, 1)
        drawn = tf.random.stateless_uniform(
            tf.shape(token_ids), seeds[2], 0, count, tf.int32
        )
        token_ids = tf.where(replaced, tf.gather(others, drawn), token_ids)
    return tf.where(ordinary & (draw < mask_rate), MASK, token_ids)


def _shuffle_words(token_ids, distance, word_starts, seed):
    starts = tf.ones_like(token_ids, tf.bool)
    if word_starts is not None:
        starts = tf.gather(tf.constant(word_starts), token_ids)
    word = tf.cumsum(tf.cast(starts, tf.int32), axis=1)  # of a token, 0 to time
    batch, time = tf.unstack(tf.shape(token_ids))
    jitter = tf.random.stateless_uniform((batch, time + 1), seed) * (distance + 1)
    places = tf.cast(word, tf.float32) + tf.gather(jitter, word, batch_dims=1)
    places = tf.where(token_ids == PAD, np.inf, places)
    order = tf.argsort(places, axis=1, stable=True)  # pieces of a word stay in order
    return tf.gather(token_ids, order, batch_dims=1)


def _check_noise(mask_rate, replace_rate, shuffle_distance):
    for name, rate in {"mask_rate": mask_rate, "replace_rate": replace_rate}.items():
        number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
        if not (number and 0 <= rate <= 1):
            raise ValueError(f"`{name}` must lie in [0, 1]. Received: {name}={rate!r}")
    if mask_rate + replace_rate > 1:
        raise ValueError(
            "`mask_rate` and `replace_rate` must not exceed 1 together. Received: "
            f"mask_rate={mask_rate}, replace_rate={replace_rate}"
        )
    _check_int("shuffle_distance", shuffle_distance, 0)


def _check_int(name, value, least):
    integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integer or value < least:
        raise ValueError(
            f"`{name}` must be an int of {least} or more. Received: {name}={value!r}"
        )


# Examples.


def denoising_batches(
    rows, *, noise=NOISE, seed=0, share=PREDICTED, tokens=TOKENS, lengths=LENGTHS
):
    """Makes endless training data for a denoiser; order and noise follow the seed.

    Args:
        rows: list of int arrays `(length,)`.
        noise: dict, the arguments of `corrupt` except the seed.
        seed: int ≥ 0.
        share: see `denoising_example`.
        tokens: int, ids in a batch, padding included.
        lengths: increasing ints, the lengths that rows are padded to.

    Returns:
        `tf.data.Dataset` of `(inputs, targets, weights)`, see `denoising_example`.
    """
    dataset = bucketed_batches(
        rows,
        tokens_per_batch=tokens,
        bucket_lengths=lengths,
        padding="right",
        seed=seed,
    )
    dataset = tf.data.Dataset.zip(dataset.repeat(), tf.data.Dataset.counter())
    dataset = dataset.map(
        lambda ids, step: denoising_example(ids, (seed, step), noise, share),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return dataset.prefetch(tf.data.AUTOTUNE)


def denoising_example(token_ids, seed, noise=NOISE, share=PREDICTED):
    """Turns a batch of sentences into input, target and weight of a denoiser.

    The softmax over the vocabulary costs most, so only a share of all positions is
    predicted: the corrupted ones first, then intact ones.

    Args:
        token_ids: int tensor `(batch, time)`, padded on the right.
        seed: pair of ints.
        noise: see `denoising_batches`.
        share: float in (0, 1], of all positions, padding counted and rounded up.

    Returns:
        `(inputs, targets, weights)`: dict of the int32 tensors `token_ids`
        `(batch, time)` and `positions` `(batch, n)`, int32 `(batch, n)`, and float32
        `(batch, n)`, 0 at padding.
    """
    token_ids = tf.cast(token_ids, tf.int32)
    corrupted = corrupt(token_ids, **noise, seed=seed)
    # Not one of the draws that corrupt: the choice must not tell what happened.
    seed = tf.random.fold_in(tf.cast(seed, tf.int32), 1)
    draw = tf.random.stateless_uniform(tf.shape(token_ids), seed)
    draw += tf.cast(corrupted != token_ids, tf.float32)
    draw = tf.where(token_ids == PAD, -1.0, draw)
    time = tf.cast(tf.shape(draw)[1], tf.float32)
    count = tf.cast(tf.math.ceil(share * time), tf.int32)
    positions = tf.math.top_k(draw, count).indices
    targets = tf.gather(token_ids, positions, batch_dims=1)
    weights = tf.cast(targets != PAD, tf.float32)
    return {"token_ids": corrupted, "positions": positions}, targets, weights


def intact_ratio(rows, *, noise=NOISE, batches=50):
    """Returns how often training asks for an intact token, relative to corrupted ones.

    Training asks for nearly all corrupted tokens and for fewer of the intact ones, so
    a denoiser learns to expect more corruption than there is. By Bayes' rule this
    ratio corrects it, see `restoration.denoise`.

    Args:
        rows: see `denoising_batches`.
        noise: see `denoising_batches`.
        batches: int, how many are looked at.

    Returns:
        P(asked | intact) / P(asked | corrupted), a float.
    """
    counts = np.zeros((2, 2))  # corrupted, asked
    dataset = bucketed_batches(
        rows, tokens_per_batch=TOKENS, bucket_lengths=LENGTHS, padding="right"
    )
    for step, ids in enumerate(dataset.take(batches).as_numpy_iterator()):
        inputs, _, _ = denoising_example(ids, (0, step), noise)
        asked = np.zeros(ids.shape, bool)
        np.put_along_axis(asked, inputs["positions"].numpy(), True, axis=1)
        corrupted = inputs["token_ids"].numpy() != ids
        np.add.at(counts, (corrupted[ids != PAD] * 1, asked[ids != PAD] * 1), 1)
    intact, corrupted = counts[:, 1] / counts.sum(axis=1)
    return float(intact / corrupted)
