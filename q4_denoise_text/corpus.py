"""What the denoiser learns from: sentences of film reviews, as token ids.

IMDB's training and unsupervised reviews are cut into sentences. Labels are never
read. Whatever text SST-2 is judged on is left out.
"""

import html
import re
import unicodedata
from typing import NamedTuple

import keras_nlp
import numpy as np
import tensorflow as tf

from common.data import load_sentences
from common.prepared import NotPreparedError, prepared_builder, read_texts

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[MASK]", "[START]", "[END]"]
PAD, UNKNOWN, MASK, START, END = range(len(SPECIAL_TOKENS))
MAX_LENGTH = 64  # tokens
HELD_OUT = 1_000  # reviews
SHORTEST = 3  # words of a sentence
SEED = 14
TREEBANK = {"-lrb-": "(", "-rrb-": ")", " n't": "n't", "``": '"', "''": '"', r"\/": "/"}
TAG = re.compile(r"</?[a-zA-Z][^<>]{0,20}>|[\x00-\x1f\x7f]")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")


class Corpus(NamedTuple):
    """Unlabelled sentences, `(n,)` objects of type `str`, under a name."""

    name: str
    train: np.ndarray
    held_out: np.ndarray


def load_corpus(source="auto", *, data_dir=None, download=False):
    """Loads sentences to train a denoiser on, and others to judge it on.

    Args:
        source: "tfds" for the 75,000 IMDB reviews that are not test reviews,
            "embedded" for the rating sentences that `common.data.load_sentences`
            trains on, or "auto" for IMDB where it is prepared and those elsewhere.
        data_dir: str or path, folder of tensorflow-datasets, see `load_sentences`.
        download: bool, whether to download IMDB and SST-2 where they are missing.

    Returns:
        A `Corpus`. Sentences are distinct, and reviews are held out whole.

    Raises:
        ValueError: If `source` is unknown.
        DataError: If the data cannot be had; the message says what to do.
    """
    if source not in ("auto", "tfds", "embedded"):
        raise ValueError(
            "`source` must be 'auto', 'tfds' or 'embedded'. Received: "
            f"source={source!r}"
        )
    if source != "embedded":
        loader = "q4_denoise_text.corpus.load_corpus"
        try:
            wanted = (loader, data_dir, download)
            imdb = prepared_builder("imdb_reviews/plain_text", *wanted)
            sst2 = prepared_builder("glue/sst2", *wanted)
            return _imdb(imdb, sst2)
        except NotPreparedError:
            if source == "tfds":
                raise
    ratings = load_sentences("embedded", verbose=False)
    train, held_out = (
        np.array([clean(text) for text in split.texts], dtype=object)
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
    judged = Judged(
        text
        for split in ("validation", "test")
        for text in read_texts(sst2, split, "sentence")[0]
    )
    order = np.random.default_rng(SEED).permutation(len(reviews))
    held_out, train = np.split(order, [HELD_OUT])
    seen, parts = set(), []
    for rows in (held_out, train):
        found = []
        for row in rows:
            sentences = SENTENCE_END.split(reviews[row])
            sentences = [s for s in sentences if len(s.split()) >= SHORTEST]
            found += [s for s in sentences if s not in judged]
        new = [text for text in dict.fromkeys(found) if bare(text) not in seen]
        seen.update(map(bare, new))
        parts.append(np.array(new, dtype=object))
    return Corpus("sentences of IMDB reviews", parts[1], parts[0])


class Judged:
    """Sentences to keep out: `in` tells whether a text is one, or holds a long one.

    Args:
        texts: strings; those of fewer than six words are only met as they are.
    """

    def __init__(self, texts):
        self.whole, self.beginnings = set(), {}
        for text in texts:
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

    Tags, control characters and white space become single blanks, entities what they
    stand for, and what SST-2 writes as the Penn Treebank does, such as "does n't" or
    "-lrb-", is written as elsewhere where a tokenizer would see a difference.

    Args:
        text: str.
    """
    text = html.unescape(TAG.sub(" ", text))
    for token, spelling in TREEBANK.items():
        text = text.replace(token, spelling)
    return " ".join(text.split())


def bare(text):
    """Returns letters and digits alone, lower-case, to compare texts by."""
    plain = unicodedata.normalize("NFKC", clean(text).lower())
    return re.sub(r"[\W_]+", "", plain)


def learn_vocabulary(texts, size=8_000):
    """Learns a WordPiece vocabulary.

    Args:
        texts: sequence of strings, the *training* texts and no others.
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


def tokenize(tokenizer, texts, *, max_length=MAX_LENGTH):
    """Maps texts to token ids.

    Args:
        tokenizer: from `make_tokenizer`.
        texts: sequence of strings or UTF-8 bytes; bytes that are no UTF-8 are
            replaced.
        max_length: int, keeps the first so many tokens of a longer text.

    Returns:
        List of int32 arrays, one a text, each of shape `(length,)`; texts are cleaned
        first, see `clean`, and one without any token becomes one unknown token.
    """
    if not len(texts):
        return []
    texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in texts]
    texts = tf.data.Dataset.from_tensor_slices(list(map(clean, texts))).batch(1_024)
    rows = []
    for ragged in texts.map(tokenizer, num_parallel_calls=tf.data.AUTOTUNE):
        ids, ends = ragged.flat_values.numpy(), ragged.row_splits.numpy()[1:-1]
        rows += np.split(ids.astype("int32"), ends)
    rows = [row[:max_length] if len(row) else np.array([UNKNOWN]) for row in rows]
    return [row.astype("int32") for row in rows]
