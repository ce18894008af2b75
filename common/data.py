"""The text data of the course: labelled sentences and labelled reviews.

Each comes from one of two sources. "tfds" is tensorflow-datasets: SST-2 (GLUE) and
the IMDB reviews, read where they have been prepared. "embedded" is real data inside
a package on the Python registry, fetched once with pip and checked by sha256: 10,605
Rotten Tomatoes sentences that Hutto and Gilbert (2014) had people rate for VADER.
SST-2 is made from the same sentences, so the two must never meet in one experiment.
"""

import hashlib
import html
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

SOURCES = ("auto", "tfds", "embedded")
SEED = 14
HELD_OUT = 900  # sentences to tune on: about as many as SST-2 has to validate on


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


class DataError(RuntimeError):
    """The data cannot be had; the message says what to do about it."""


class NotPreparedError(DataError):
    """The set is not prepared, and nobody asked to download it."""


def load_sentences(source="auto", *, data_dir=None, download=False, verbose=True):
    """Load single sentences with their sentiment: SST-2 or the rating sentences.

    Args:
        source: "tfds" for SST-2, "embedded" for the rating sentences, or "auto" for
            SST-2 where it is prepared and the rating sentences elsewhere.
        data_dir: Folder of tensorflow-datasets; by default the environment's
            `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
        download: Whether to download and prepare SST-2 where it is missing.
        verbose: Whether to print one line with the source and the sizes.

    Returns:
        A `TextData`. The training texts of SST-2 are phrases of any length.

    Raises:
        ValueError: If `source` is unknown.
        DataError: If the data cannot be had; the message says what to do.
    """
    readers = {"tensorflow-datasets": _sst2, "embedded": _rating_sentences}
    wanted = ("glue/sst2", "load_sentences", data_dir, download)
    return _load(source, readers, wanted, verbose)


def load_reviews(source="auto", *, data_dir=None, download=False, verbose=True):
    """Load long texts with their sentiment: IMDB reviews or joined rating sentences.

    No registry package carries reviews. The embedded stand-in has the length of a
    review and not its prose: rating sentences of one label, joined at random into
    documents of about 400 words. IMDB's test reviews serve as validation; as
    published, 52 of them are also among the 25,000 that training is cut from.

    Args:
        source: As for `load_sentences`, with IMDB and the joined sentences.
        data_dir: As for `load_sentences`.
        download: As for `load_sentences`.
        verbose: As for `load_sentences`.

    Returns:
        A `TextData`.

    Raises:
        ValueError: If `source` is unknown.
        DataError: If the data cannot be had; the message says what to do.
    """
    readers = {"tensorflow-datasets": _imdb, "embedded": _joined_sentences}
    wanted = ("imdb_reviews/plain_text", "load_reviews", data_dir, download)
    return _load(source, readers, wanted, verbose)


def _load(source, readers, wanted, verbose):
    if source not in SOURCES:
        raise ValueError(f"source must be one of {SOURCES}, not {source!r}")
    chosen, arguments = "embedded", ()
    if source != "embedded":
        try:
            chosen, arguments = "tensorflow-datasets", (_prepared_builder(*wanted),)
        except NotPreparedError:
            if source == "tfds":
                raise
    data = readers[chosen](*arguments)
    if verbose:
        train, tuning, validation = (len(split.texts) for split in data[1:])
        sizes = f"{train:,} train, {tuning:,} tuning, {validation:,} validation"
        print(f"Data: {data.name}, {chosen}: {sizes}")
    return data


def _prepared_builder(dataset, loader, data_dir, download):
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    folder = os.path.expanduser(folder)
    # TensorFlow's notes about buffers; it listens only until it is first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow_datasets as tfds
        from absl import logging

        level = logging.get_verbosity()
        logging.set_verbosity(logging.ERROR)  # it warns of every set not prepared
        try:
            builder = tfds.builder(dataset, data_dir=folder)
            # Asked first, because tfds.load would try to download for minutes on end.
            prepared = builder.is_prepared()
        finally:
            logging.set_verbosity(level)
    except ImportError as error:
        raise (DataError if download else NotPreparedError)(
            f"{dataset} needs tensorflow-datasets, which cannot be imported ({error}): "
            "run `python -m pip install tensorflow-datasets importlib_resources`."
        ) from error
    if prepared:
        return builder
    if not download:
        call = f"{loader}('tfds', data_dir={folder!r}, download=True)"
        raise NotPreparedError(
            f"{dataset} is not prepared in {folder}: in the root of the repository, "
            f'download it with `python -c "from common.data import {loader}; {call}"`, '
            "or set TFDS_DATA_DIR to a folder that has it, or use source='embedded'."
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # whatever it was, the advice is the same
        raise DataError(
            f"{dataset} could not be downloaded to {folder} "
            f"({type(error).__name__}: {error}): check the network and that the "
            "folder can be written, then run again, or use source='embedded'."
        ) from error
    return builder


def _read(builder, split, key):
    # One batch of everything: a Python loop over the rows takes far longer.
    rows = builder.as_dataset(split=split, batch_size=-1)
    texts = [text.decode("utf-8") for text in rows[key].numpy().tolist()]
    return texts, rows["label"].numpy()


def _split(texts, labels):
    return Split(np.array(texts, dtype=object), np.array(labels, dtype="int32"))


def _take(split, rows):
    return Split(split.texts[rows], split.labels[rows])


def _sst2(builder):
    train, tuning = cut_tuning(*_read(builder, "train", "sentence"))
    texts, labels = _read(builder, "validation", "sentence")
    validation = _split([text.strip() for text in texts], labels)
    return TextData("SST-2 (GLUE)", train, tuning, validation)


def cut_tuning(texts, labels, sentences=HELD_OUT, seed=SEED):
    """Cut a tuning split of whole sentences, and what stems from them, out of phrases.

    Most phrases of SST-2 are parts of a longer one, so a random split would tune on
    what it trained on. A whole sentence is a phrase of six words or more that no
    other phrase contains as a run of words. Those drawn leave training, and so does
    every phrase of three words or more that occurs in one of them.

    Args:
        texts: `n` strings, words separated by blanks.
        labels: `n` integers.
        sentences: How many whole sentences to draw.
        seed: Seed of the draw, which does not depend on the order of the rows.

    Returns:
        `(train, tuning)`, two `Split`s; blanks are single, with none at the ends.

    Raises:
        ValueError: If there are fewer whole sentences than `sentences`.
    """
    texts = [" ".join(text.split()) for text in texts]
    labels = np.asarray(labels)
    label_of = dict(sorted(zip(texts, labels.tolist(), strict=True)))
    phrases = set(label_of)

    parts = set()
    for phrase in phrases:
        parts |= (_spans(phrase, least=6) & phrases) - {phrase}
    whole = [p for p in label_of if p not in parts and len(p.split()) >= 6]
    if sentences > len(whole):
        raise ValueError(
            f"sentences must be at most {len(whole)}, the number of whole sentences "
            f"among the texts, not {sentences}"
        )
    order = np.random.default_rng(seed).permutation(len(whole))
    drawn = [whole[i] for i in order[:sentences]]

    left_out = set().union(*(_spans(sentence, least=3) for sentence in drawn))
    kept = [i for i, text in enumerate(texts) if text not in left_out]
    train = _split([texts[i] for i in kept], labels[kept])
    return train, _split(drawn, [label_of[text] for text in drawn])


def _spans(text, least):
    # Every run of `least` words or more, as slices: joining lists of words is slower.
    starts = [0, *(i + 1 for i, character in enumerate(text) if character == " ")]
    ends = [*(start - 1 for start in starts[1:]), len(text)]
    runs = ((i, j) for k, i in enumerate(starts) for j in ends[k + least - 1 :])
    return {text[i:j] for i, j in runs}


def _imdb(builder):
    splits = []
    for split in ("train", "test"):
        texts, labels = _read(builder, split, "text")
        splits.append(_split([t.replace("<br />", " ") for t in texts], labels))
    reviews, validation = splits
    # A review that occurs twice stays in training, or tuning would see it trained on.
    _, first, count = np.unique(reviews.texts, return_index=True, return_counts=True)
    rng = np.random.default_rng(SEED)
    once = rng.permutation(first[count == 1])
    negative, positive = (once[reviews.labels[once] == k][:1_250] for k in (0, 1))
    tuning = rng.permutation(np.concatenate([negative, positive]))
    train = np.setdiff1d(np.arange(len(reviews.texts)), tuning)
    splits = (_take(reviews, train), _take(reviews, tuning), validation)
    return TextData("IMDB reviews", *splits)


def _rating_sentences():
    # The ratings lie in an archive inside the archive.
    outer = fetch(VADER).read_bytes()
    inner = read_member(outer, f"{VADER_RESOURCES}/hutto_ICWSM_2014.tar.gz")
    name = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    ratings = parse_ratings(read_member(inner, name))
    order = np.random.default_rng(SEED).permutation(len(ratings.texts))
    rows = np.split(order, [HELD_OUT, 2 * HELD_OUT])
    tuning, validation, train = (_take(ratings, part) for part in rows)
    return TextData("rating sentences (Rotten Tomatoes)", train, tuning, validation)


def parse_ratings(raw):
    """Read rated sentences and label those that people did not find neutral.

    Args:
        raw: UTF-8 `bytes`, on each line `id <tab> rating <tab> sentence`, with mean
            ratings between -4 and 4.

    Returns:
        A `Split` of the sentences with a rating of at least half a point, labelled
        by its sign; of sentences that differ in case alone the first.
    """
    sentences = {}
    # Not splitlines(): a sentence may hold one of Unicode's line separators.
    for line in raw.decode("utf-8").strip().split("\n"):
        _, rating, text = line.strip().split("\t", maxsplit=2)
        if abs(float(rating)) >= 0.5:
            text = html.unescape(text)
            sentences.setdefault(text.lower(), (text, float(rating) > 0))
    texts, labels = zip(*sentences.values(), strict=True)
    return _split(texts, labels)


def _joined_sentences():
    name, *splits = _rating_sentences()
    return TextData(f"joined {name}", *map(join_sentences, splits))


def join_sentences(sentences, words=400, seed=SEED):
    """Join sentences of one label into documents, each sentence used at most once.

    Args:
        sentences: A `Split` of single sentences.
        words: A document ends with the sentence that brings it to this length; the
            rest of a label that does not fill one is dropped.
        seed: Seed of the order of sentences and documents.

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
    return _take(_split(documents, labels), rng.permutation(len(documents)))


class Archive(NamedTuple):
    """A package on the registry, pinned to the digest of its sdist or wheel."""

    package: str
    version: str
    filename: str
    sha256: str


VADER = Archive(
    package="vaderSentiment",
    version="3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
VADER_RESOURCES = "vaderSentiment-3.3.2/additional_resources"
MEMBER_LIMIT = 64 * 2**20


def cache_dir():
    """Return the folder of fetched archives; `ASSIGNMENT14_CACHE` overrides it."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("ASSIGNMENT14_CACHE") or f"{base}/assignment14"
    return Path(folder).expanduser()


def fetch(archive):
    """Return the path of a verified archive, from the cache or else from the registry.

    Args:
        archive: The `Archive` to fetch.

    Returns:
        The `Path` of a file whose sha256 is the archive's.

    Raises:
        DataError: If the cache cannot be written, or pip cannot fetch the file, or
            the file has another digest.
    """
    path = cache_dir() / archive.filename
    try:
        if path.is_file() and _sha256(path) == archive.sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside its destination, so that the last step is one atomic rename.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            fetched = _pip_download(archive, Path(folder))
            if (found := _sha256(fetched)) != archive.sha256:
                raise DataError(
                    f"{archive.filename} has sha256 {found}, not {archive.sha256}: "
                    "the registry serves another file; run again with another one, "
                    f"or put the right file at {path} by hand."
                )
            fetched.replace(path)
    except OSError as error:
        raise DataError(
            f"{archive.filename} cannot be kept in the cache {path.parent} ({error}): "
            "set ASSIGNMENT14_CACHE to a folder that can be written, then run again."
        ) from error
    return path


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pip_download(archive, folder):
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"{archive.filename} is fetched with pip, which {sys.executable} does not "
            "have: run `python -m ensurepip`, then run again."
        )
    # pip runs a source distribution's setup.py to learn its name; with the digest
    # it does so only for the very file that is expected.
    requirement = f"{archive.package}=={archive.version}"
    form = "no-binary" if archive.filename.endswith(".gz") else "only-binary"
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{archive.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--retries=0", "--timeout=15"]
    command += ["--no-deps", f"--{form}={archive.package}", "--require-hashes"]
    command += [f"--requirement={requirements}", f"--dest={folder}"]
    try:
        pip = subprocess.run(command, capture_output=True, text=True, timeout=120)
        failed, reason = pip.returncode, pip.stderr
    except subprocess.TimeoutExpired:
        failed, reason = True, "no answer within two minutes"
    if failed:
        reason = " ".join(reason[max(reason.rfind("ERROR:"), 0) :].split())
        raise DataError(
            f"pip could not fetch {requirement} ({reason}): check the network and "
            "pip's index settings, then run again, or put "
            f"{archive.filename} into {cache_dir()} by hand."
        )
    return folder / archive.filename


def read_member(archive, name):
    """Read one file of a tar archive into memory; nothing is written to disk.

    Args:
        archive: The archive's `bytes`, compressed or not.
        name: Path of the file inside the archive.

    Returns:
        The file's `bytes`.

    Raises:
        DataError: If the archive is damaged, or the file is missing, not a regular
            file, outside the archive or larger than `MEMBER_LIMIT` bytes.
    """
    path = PurePosixPath(name)
    try:
        if path.is_absolute() or ".." in path.parts:
            raise tarfile.TarError("its path leads out of the archive")
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.getmember(name)
            if not member.isreg():
                raise tarfile.TarError("it is not a regular file")
            if member.size > MEMBER_LIMIT:
                raise tarfile.TarError(f"it is too large, {member.size:,} bytes")
            return tar.extractfile(member).read()
    except (tarfile.TarError, KeyError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{name} cannot be read from its archive ({error}): delete the archive "
            f"in {cache_dir()} and run again, which fetches it anew."
        ) from error
