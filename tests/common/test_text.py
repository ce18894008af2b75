"""`common.text`: vocabulary, token ids, and batches that lose and repeat nothing."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import data
from common.text import (
    bucketed_batches,
    build_vectorizer,
    check_texts,
    encode,
    encode_data,
    standardize,
)


def test_standardize_lower_cases_and_sets_punctuation_apart():
    for text, tokens in {
        "A GOOD Film": ["a", "good", "film"],
        "good,bad...ugly!": ["good", ",", "bad", ".", ".", ".", "ugly", "!"],
        "(so-so)": ["(", "so", "-", "so", ")"],
        "it 's fine , is n't it ?": ["it", "'s", "fine", ",", "is", "n't", "it", "?"],
        "Don't miss O'Hara's": ["don't", "miss", "o'hara's"],
        "ÉLAN Ünd ÇA": ["élan", "ünd", "ça"],
        "“naïve”—très…": ["“", "naïve", "”", "—", "très", "…"],
        "  many \t spaces\n": ["many", "spaces"],
        "映画 2001": ["映画", "2001"],
        "": [],
    }.items():
        found = standardize(tf.constant([[text]] * 2))
        assert [row[0].decode("utf-8").split() for row in found.numpy()] == [tokens] * 2


class Series:
    """A column of a table as NumPy sees it, whatever its index."""

    def __init__(self, values):
        self.values = np.array(values, dtype=object)

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype)


def test_every_kind_of_sequence_of_texts_is_taken():
    texts = ["the zebra", "סרט 🙂", ""]
    raw = [text.encode() for text in texts]
    kinds = [tuple(texts), np.array(texts), np.array(texts, dtype=object)]
    kinds += [Series(texts), tf.constant(texts), raw, np.array(raw)]
    vectorizer = build_vectorizer(texts)
    for kind in [texts, *kinds]:
        found = check_texts("texts", kind)
        assert found == texts
        assert {type(text) for text in found} == {str}
        assert words(build_vectorizer(kind)) == words(vectorizer)
        assert encoded(vectorizer, kind) == encoded(vectorizer, texts)


def test_what_is_no_unicode_is_replaced(vectorizer):
    for text, expected in {
        b"dog \xff": "dog \ufffd",
        "dog \ud83d": "dog \ufffd",
        "dog \ude42\ud83d the": "dog \ufffd\ufffd the",
        "dog \ud83d\ude42": "dog 🙂",
    }.items():
        assert check_texts("texts", [text]) == [expected]
        assert encoded(vectorizer, [text])[0][:2] == [3, 1]
        assert "dog" in words(build_vectorizer([text]))


def test_what_are_no_texts_is_refused(vectorizer):
    for texts, message in [
        ("a film", "sequence.*str.*a film"),
        (b"a film", "sequence.*bytes"),
        (None, "sequence.*None"),
        (tf.constant("a film"), "sequence.*a film"),
        ((text for text in ["a film"]), "sequence.*generator"),
        (np.array([["a"], ["b"]]), r"sequence.*\(2, 1\)"),
        (["a film", None], "None in row 1"),
        (Series(["a", "b", float("nan")]), "nan in row 2"),
        (["a film", 3], "3 in row 1"),
        ([["a", "b"], ["c"]], r"\['a', 'b'\] in row 0"),
    ]:
        for use in (build_vectorizer, lambda texts: encode(vectorizer, texts)):
            with pytest.raises(ValueError, match=f"(?s)`texts`.*{message}"):
                use(texts)


TEXTS = ["The cat, the dog.", "the DOG barks", "a dog: the end"]


def words(vectorizer):
    padding, unknown, *found = vectorizer.get_vocabulary()
    assert (padding, unknown) == ("", "[UNK]")
    return found


def test_the_vocabulary_is_that_of_the_texts_most_frequent_first():
    vectorizer = build_vectorizer(TEXTS)
    the, dog, *once = found = words(vectorizer)
    assert (the, dog) == ("the", "dog")
    assert sorted(once) == [",", ".", ":", "a", "barks", "cat", "end"]
    ids = vectorizer(tf.constant(["The DOG", "dog the dog zebra"]))
    assert isinstance(ids, tf.RaggedTensor) and ids.dtype == tf.int64
    assert ids.to_list() == [[2, 3], [3, 2, 3, 1]]
    assert words(build_vectorizer(TEXTS[::-1])) == found
    # The limit counts padding and unknown.
    assert words(build_vectorizer(TEXTS, max_tokens=3)) == ["the"]
    assert words(build_vectorizer(TEXTS, max_tokens=4)) == ["the", "dog"]


def test_texts_without_words_and_bad_sizes_are_refused(vectorizer):
    for texts in ([], ["", " "]):
        with pytest.raises(ValueError, match="`texts` must hold at least one word"):
            build_vectorizer(texts)
    for room in (2, 9.5):
        with pytest.raises(ValueError, match=f"max_tokens.*{room}"):
            build_vectorizer(TEXTS, max_tokens=room)
    for max_length in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=f"max_length.*{max_length}"):
            encode(vectorizer, ["dog"], max_length=max_length)


@pytest.fixture(scope="module")
def vectorizer():
    return build_vectorizer(TEXTS, max_tokens=4)  # the 2, dog 3


def encoded(vectorizer, texts, **options):
    found = encode(vectorizer, texts, **options)
    assert isinstance(found, list)
    assert all(row.dtype == np.int32 and row.ndim == 1 for row in found)
    return [row.tolist() for row in found]


def test_encode_maps_words_to_ids(vectorizer):
    assert encoded(vectorizer, []) == []
    assert encoded(vectorizer, ["The zebra, the DOG", "dog"]) == [[2, 1, 1, 2, 3], [3]]
    # A text without any token becomes one unknown token.
    assert encoded(vectorizer, ["", "dog", " \n"]) == [[1], [3], [1]]
    # A longer text keeps its end.
    texts = ["the the dog dog the", "dog the", ""]
    assert encoded(vectorizer, texts, max_length=3) == [[3, 3, 2], [3, 2], [1]]
    assert encoded(vectorizer, ["dog", "the dog"] * 1_500) == [[3], [2, 3]] * 1_500


BUCKETS = (3, 6, 10)
SIZES = {"batch_size": 8, "bucket_lengths": BUCKETS}


def rows_of(count):
    """Make rows that end in a number of their own; the label is its parity."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 50, rng.integers(1, 11)) for _ in range(count)]
    for number, row in enumerate(rows, start=100):
        row[-1] = number
    return [row.astype("int32") for row in rows], np.arange(count) % 2


def batched(count=90, **options):
    rows, labels = rows_of(count)
    return bucketed_batches(rows, **{"labels": labels, **SIZES, **options})


def epoch(dataset):
    """Return one epoch's batches; check what holds for each of them."""
    found = [(ids.numpy(), labels.numpy()) for ids, labels in dataset]
    assert len(found) == len(dataset) > 0
    for ids, labels in found:
        assert ids.dtype == np.int32
        assert labels.dtype == np.float32
        assert ids.shape[1] in BUCKETS
        np.testing.assert_array_equal(labels, (ids[:, -1] - 100) % 2)
    return found


def numbers(batches):
    return [int(number) for ids, _ in batches for number in ids[:, -1]]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("options, side", [({}, "pre"), ({"padding": "right"}, "post")])
def test_rows_are_padded_to_the_least_bucket_or_cut_to_the_last(options, side, shuffle):
    rows = [np.arange(1, 2 + i % 25) + 100 * i for i in range(90)]
    batches = bucketed_batches(rows, **SIZES, **options, shuffle=shuffle)
    widths = set()
    for ids in batches.as_numpy_iterator():
        for padded in ids.tolist():
            row = rows[max(padded) // 100].tolist()
            width = min((size for size in BUCKETS if size >= len(row)), default=10)
            zeros = [0] * (width - len(row))
            expected = zeros + row[-width:] if side == "pre" else row[:width] + zeros
            assert padded == expected
            widths.add(width)
    assert widths == set(BUCKETS)


def test_without_shuffling_nothing_is_dropped_and_epochs_are_alike():
    dataset = batched(shuffle=False)
    first, second = epoch(dataset), epoch(dataset)
    assert sorted(numbers(first)) == list(range(100, 190))
    assert numbers(first) == numbers(second)
    assert max(len(ids) for ids, _ in first) == 8
    assert numbers(epoch(batched(count=1, shuffle=False))) == [100]


def test_a_pass_follows_from_the_seed_and_its_number_and_no_row_is_forgotten():
    rows, _ = rows_of(90)
    datasets, whole = [batched(seed=7) for _ in range(2)], []  # side by side
    for number in range(12):
        rng, batches = np.random.default_rng([7, number]), []
        for shorter, length in itertools.pairwise((0, *BUCKETS)):
            members = [i for i, row in enumerate(rows) if shorter < len(row) <= length]
            order = 100 + rng.permutation(members)
            batches += np.split(order[: len(order) // 8 * 8], len(order) // 8)
        expected = [n for i in rng.permutation(len(batches)) for n in batches[i]]
        for dataset in datasets:
            found = epoch(dataset)
            assert {len(ids) for ids, _ in found} == {8}
            assert numbers(found) == expected
        whole += expected
    assert set(whole) == set(range(100, 190))
    # A new data set goes on in the midst of a pass.
    rest = epoch(batched(seed=7).repeat().skip(12).take(50))
    assert numbers(rest) == whole[8 * 12 : 8 * 62]


class Recorder(keras.Sequential):
    """A model that remembers the sentences it is trained on."""

    def train_step(self, batch):
        self.seen = [*getattr(self, "seen", []), *batch[0].numpy()[:, -1]]
        return super().train_step(batch)


@pytest.mark.parametrize("repeat", [False, True])
def test_fit_sees_the_passes_in_turn(repeat):
    dataset = batched(bucket_lengths=(10,))
    steps = len(dataset) if repeat else None
    dataset = dataset.repeat() if repeat else dataset
    model = Recorder([keras.layers.Rescaling(0.01), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(dataset, epochs=3, steps_per_epoch=steps, shuffle=False, verbose=0)
    assert model.seen == numbers(epoch(batched(bucket_lengths=(10,)).repeat(3)))


@pytest.mark.parametrize("shuffle", [True, False])
def test_short_rows_come_in_larger_batches(shuffle):
    dataset = batched(200, batch_size=None, tokens_per_batch=40, shuffle=shuffle)
    found, sizes = epoch(dataset), {3: 13, 6: 6, 10: 4}
    assert {ids.shape[1] for ids, _ in found} == set(sizes)
    smaller = [ids.shape for ids, _ in found if len(ids) != sizes[ids.shape[1]]]
    assert len(smaller) == len(set(smaller)) <= (0 if shuffle else 3)
    if not shuffle:
        assert sorted(numbers(found)) == list(range(100, 300))


def test_shapes_are_static_where_all_batches_agree():
    def shape(**options):
        return batched(**options).element_spec[0].shape.as_list()

    assert shape() == [8, None]
    assert shape(bucket_lengths=(10,)) == [8, 10]
    assert shape(bucket_lengths=(10,), shuffle=False) == [None, 10]
    assert shape(batch_size=None, tokens_per_batch=40) == [None, None]


@pytest.mark.parametrize("kind", [list, tf.ragged.constant])
def test_rows_are_lists_or_ragged_too(kind):
    options = {"batch_size": 2, "bucket_lengths": np.array([3]), "shuffle": False}
    (ids,) = bucketed_batches(kind([[5, 6], [7]]), **options)
    assert ids.numpy().tolist() == [[0, 5, 6], [0, 0, 7]]


ROWS, LABELS = rows_of(20)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": [0] * 19}, r"labels.*\(19,\)"),
        ({"labels": LABELS[:, np.newaxis]}, r"labels.*\(20, 1\)"),
        ({"labels": 2 * LABELS - 1}, "labels.*-1"),
        ({"labels": np.where(LABELS, np.nan, 0)}, "labels.*nan"),
        ({"labels": ["good"] * 20}, "labels.*good"),
        ({"labels": [[0], [1, 0]]}, "labels"),
        *[({"batch_size": n}, f"batch_size.*{n}") for n in (64, -4, 0, 4.0)],
        ({"batch_size": None}, "batch_size.*tokens_per_batch.*None"),
        ({"tokens_per_batch": 400}, "batch_size.*tokens_per_batch.*400"),
        ({"batch_size": None, "tokens_per_batch": 9}, "tokens_per_batch.*10.*9"),
        ({"batch_size": None, "tokens_per_batch": 400}, "tokens_per_batch"),
        ({"token_ids": [], "labels": []}, "token_ids"),
        ({"token_ids": None}, "token_ids"),
        *[
            ({"token_ids": [*ROWS[:19], row]}, "token_ids.*padding.*row 19")
            for row in ([[1], [2]], [1.0, 2.0], "film", [], [5, 0], [2**31])
        ],
        ({"token_ids": [[[1], [2, 3]], *ROWS[1:]]}, "token_ids"),
        ({"bucket_lengths": (10, 3, 6)}, r"bucket_lengths.*\(10, 3, 6\)"),
        ({"bucket_lengths": (3, 3, 10)}, "bucket_lengths.*increasing"),
        ({"bucket_lengths": (0, 10)}, "bucket_lengths.*0"),
        ({"bucket_lengths": (2.5, 10)}, "bucket_lengths.*2.5"),
        *[({"bucket_lengths": n}, "bucket_lengths") for n in ((), [(3,), (6, 10)])],
        ({"padding": "post"}, "padding.*'post'"),
        ({"seed": -1}, "seed.*-1"),
    ],
)
def test_bad_input_is_refused(changed, message):
    good = {"token_ids": ROWS, "labels": LABELS, **SIZES, "batch_size": 4}
    with pytest.raises(ValueError, match=f"(?s)`{message}"):
        bucketed_batches(**good | changed)


def test_encoded_data_knows_words_of_training_alone():
    texts = ["a good film", "a bad film indeed"], ["a superb film"], ["bad"]
    toy = data.TextData("toy", *map(data.Split, texts, ([1, 0], [1], [0])))
    encoded = encode_data(toy, bucket_lengths=(2, 3))
    assert encoded.vocab_size == 2 + 5
    words = encoded.vectorizer.get_vocabulary()
    assert [words[i] for i in encoded.train[1]] == ["bad", "film", "indeed"]
    assert [words[i] for i in encoded.tuning[0]] == ["a", "[UNK]", "film"]
    ((ids, labels),) = encoded.batches("validation").as_numpy_iterator()
    assert (ids.tolist(), labels.tolist()) == ([[0, words.index("bad")]], [0.0])
    with pytest.raises(ValueError, match="bucket_lengths"):
        encode_data(toy, bucket_lengths=(8, 4))
