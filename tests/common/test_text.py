"""`common.text`: vocabulary, token ids, and batches that lose and repeat nothing."""

import collections
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import data
from common.text import (
    UNKNOWN_ID,
    bucketed_batches,
    build_vectorizer,
    check_texts,
    encode,
    encode_data,
    standardize,
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A GOOD Film", ["a", "good", "film"]),
        ("good,bad...ugly!", ["good", ",", "bad", ".", ".", ".", "ugly", "!"]),
        ("(so-so)", ["(", "so", "-", "so", ")"]),
        ("it 's fine , is n't it ?", ["it", "'s", "fine", ",", "is", "n't", "it", "?"]),
        ("Don't miss O'Hara's", ["don't", "miss", "o'hara's"]),
        ("ÉLAN Ünd ÇA", ["élan", "ünd", "ça"]),
        ("“naïve”—très…", ["“", "naïve", "”", "—", "très", "…"]),
        ("  many \t spaces\n", ["many", "spaces"]),
        ("映画 2001", ["映画", "2001"]),
        ("", []),
    ],
)
def test_standardize_lower_cases_and_sets_punctuation_apart(text, tokens):
    found = standardize(tf.constant([[text]] * 2))
    assert [row[0].decode("utf-8").split() for row in found.numpy()] == [tokens] * 2


class Series:
    """A column of a table as NumPy sees it, whatever its index."""

    def __init__(self, values):
        self.values = np.array(values, dtype=object)

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype)


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda texts: np.array(texts, dtype=object),
        Series,
        tf.constant,
        lambda texts: [text.encode() for text in texts],
        lambda texts: np.array([text.encode() for text in texts]),
    ],
)
def test_every_kind_of_sequence_of_texts_is_taken(make):
    texts = ["the zebra", "סרט 🙂", ""]
    found = check_texts("texts", make(texts))
    assert found == texts
    assert {type(text) for text in found} == {str}
    vectorizer = build_vectorizer(make(texts))
    assert encoded(vectorizer, make(texts)) == encoded(vectorizer, texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"dog \xff", "dog \ufffd"),
        ("dog \ud83d", "dog \ufffd"),
        ("dog \ude42\ud83d the", "dog \ufffd\ufffd the"),
        ("dog \ud83d\ude42", "dog 🙂"),
    ],
)
def test_what_is_no_unicode_is_replaced(vectorizer, text, expected):
    assert check_texts("texts", [text]) == [expected]
    assert encoded(vectorizer, [text])[0][:2] == [3, 1]
    assert "dog" in words(build_vectorizer([text]))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
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
    ],
)
def test_what_are_no_texts_is_refused(vectorizer, texts, message):
    for use in (build_vectorizer, lambda texts: encode(vectorizer, texts)):
        with pytest.raises(ValueError, match=f"(?s)`texts`.*{message}"):
            use(texts)


TEXTS = ["The cat, the dog.", "the DOG barks", "a dog: the end"]


def words(vectorizer):
    """Return the words from id 2 on."""
    padding, unknown, *found = vectorizer.get_vocabulary()
    assert padding == ""
    assert unknown == "[UNK]"
    return found


def test_the_vocabulary_is_that_of_the_texts_most_frequent_first():
    the, dog, *once = found = words(build_vectorizer(TEXTS))
    assert (the, dog) == ("the", "dog")
    assert sorted(once) == [",", ".", ":", "a", "barks", "cat", "end"]
    assert words(build_vectorizer(TEXTS[::-1])) == found
    # The limit counts padding and unknown.
    assert words(build_vectorizer(TEXTS, max_tokens=3)) == ["the"]
    assert words(build_vectorizer(TEXTS, max_tokens=4)) == ["the", "dog"]


def test_the_layer_gives_ragged_int64_ids():
    ids = build_vectorizer(TEXTS)(tf.constant(["The DOG", "dog the dog zebra"]))
    assert isinstance(ids, tf.RaggedTensor)
    assert ids.dtype == tf.int64
    assert ids.to_list() == [[2, 3], [3, 2, 3, 1]]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "texts"),
        (["", " "], {}, "texts"),
        (TEXTS, {"max_tokens": 2}, "max_tokens.*2"),
        (TEXTS, {"max_tokens": 9.5}, "max_tokens.*9.5"),
    ],
)
def test_a_vocabulary_needs_words_and_room(texts, options, message):
    with pytest.raises(ValueError, match=message):
        build_vectorizer(texts, **options)


@pytest.fixture(scope="module")
def vectorizer():
    return build_vectorizer(TEXTS, max_tokens=4)  # the 2, dog 3


def encoded(vectorizer, texts, **options):
    found = encode(vectorizer, texts, **options)
    assert isinstance(found, list)
    assert all(row.dtype == np.int32 and row.ndim == 1 for row in found)
    return [row.tolist() for row in found]


@pytest.mark.parametrize(
    ("texts", "max_length", "expected"),
    [
        ([], None, []),
        (["The zebra, the DOG", "dog"], None, [[2, 1, 1, 2, 3], [3]]),
        # A text without any token becomes one unknown token.
        (["", "dog", " \n"], None, [[1], [3], [1]]),
        # A longer text keeps its end.
        (["the the dog dog the", "dog the", ""], 3, [[3, 3, 2], [3, 2], [1]]),
        (["dog", "the dog"] * 1_500, None, [[3], [2, 3]] * 1_500),
    ],
)
def test_encode_maps_words_to_ids(vectorizer, texts, max_length, expected):
    assert encoded(vectorizer, texts, max_length=max_length) == expected


@pytest.mark.parametrize("max_length", [0, -1, 2.0, True])
def test_a_length_that_is_none_is_refused(vectorizer, max_length):
    with pytest.raises(ValueError, match=f"max_length.*{max_length}"):
        encode(vectorizer, ["dog"], max_length=max_length)


BUCKETS = (3, 6, 10)


def rows_of(count):
    """Make rows that end in a number of their own; the label is its parity."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 50, rng.integers(1, 11)) for _ in range(count)]
    for number, row in enumerate(rows, start=100):
        row[-1] = number
    return [row.astype("int32") for row in rows], np.arange(count) % 2


def batched(count=90, **options):
    rows, labels = rows_of(count)
    good = {"labels": labels, "batch_size": 8, "bucket_lengths": BUCKETS}
    return bucketed_batches(rows, **{**good, **options})


def epoch(dataset):
    """Return one epoch's batches; check what holds for each of them."""
    found = [(ids.numpy(), labels.numpy()) for ids, labels in dataset]
    assert len(found) == len(dataset) > 0
    for ids, labels in found:
        assert ids.dtype == np.int32
        assert labels.dtype == np.float32
        assert labels.shape == (len(ids),)
        assert ids.shape[1] in BUCKETS
        np.testing.assert_array_equal(labels, (ids[:, -1] - 100) % 2)
    return found


def numbers(batches):
    return [int(number) for ids, _ in batches for number in ids[:, -1]]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("options", "side"), [({}, "pre"), ({"padding": "right"}, "post")]
)
def test_rows_are_padded_to_the_least_bucket_or_cut_to_the_last(options, side, shuffle):
    rows = [np.arange(1, 2 + i % 25) + 100 * i for i in range(90)]
    options = {
        "batch_size": 8,
        "bucket_lengths": BUCKETS,
        "shuffle": shuffle,
        **options,
    }
    widths = set()
    for ids in bucketed_batches(rows, **options).as_numpy_iterator():
        for padded in ids.tolist():
            row = rows[max(padded) // 100].tolist()
            width = min((size for size in BUCKETS if size >= len(row)), default=10)
            zeros = [0] * (width - len(row))
            expected = zeros + row[-width:] if side == "pre" else row[:width] + zeros
            (of_keras,) = keras.utils.pad_sequences(
                [row], width, padding=side, truncating=side
            )
            assert padded == expected == of_keras.tolist()
            widths.add(width)
    assert widths == set(BUCKETS)


def test_training_batches_are_full_and_each_row_comes_in_time():
    dataset, seen = batched(), collections.Counter()
    for _ in range(12):
        batches = epoch(dataset)
        assert {len(ids) for ids, _ in batches} == {8}
        assert len(numbers(batches)) == len(set(numbers(batches)))
        seen.update(numbers(batches))
    assert set(seen) == set(range(100, 190))
    # A batch's worth of each bucket is left over at most.
    assert sum(seen.values()) >= 12 * (90 - 7 * len(BUCKETS))


def test_without_shuffling_nothing_is_dropped_and_epochs_are_alike():
    dataset = batched(shuffle=False)
    first, second = epoch(dataset), epoch(dataset)
    assert sorted(numbers(first)) == list(range(100, 190))
    assert numbers(first) == numbers(second)
    assert max(len(ids) for ids, _ in first) == 8
    assert numbers(epoch(batched(count=1, shuffle=False))) == [100]


def test_a_pass_follows_from_the_seed_and_its_number():
    rows, _ = rows_of(90)
    datasets = [batched(seed=7) for _ in range(2)]  # side by side
    for number in range(3):
        rng, batches = np.random.default_rng([7, number]), []
        for shorter, length in itertools.pairwise((0, *BUCKETS)):
            members = [i for i, row in enumerate(rows) if shorter < len(row) <= length]
            order = 100 + rng.permutation(members)
            batches += np.split(order[: len(order) // 8 * 8], len(order) // 8)
        expected = np.concatenate([batches[i] for i in rng.permutation(len(batches))])
        for dataset in datasets:
            assert numbers(epoch(dataset)) == expected.tolist()


def test_a_new_data_set_goes_on_where_another_ended():
    keras.utils.set_random_seed(0)
    length = len(batched())
    whole = epoch(batched().repeat(4))
    keras.utils.set_random_seed(1)
    rest = epoch(batched().repeat().skip(length + 2).take(3 * length - 2))
    for one, other in zip(whole[length + 2 :], rest, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


class Recorder(keras.Sequential):
    """A model that remembers the sentences it is trained on."""

    def train_step(self, batch):
        self.seen = [*getattr(self, "seen", []), *batch[0].numpy()[:, -1]]
        return super().train_step(batch)


@pytest.mark.parametrize("repeat", [False, True])
def test_fit_sees_the_passes_in_turn(repeat):
    dataset = batched(bucket_lengths=(10,))
    options = {"steps_per_epoch": len(dataset)} if repeat else {}
    model = Recorder([keras.layers.Rescaling(0.01), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    dataset = dataset.repeat() if repeat else dataset
    model.fit(dataset, epochs=3, shuffle=False, verbose=0, **options)
    assert model.seen == numbers(epoch(batched(bucket_lengths=(10,)).repeat(3)))


@pytest.mark.parametrize("shuffle", [True, False])
def test_short_rows_come_in_larger_batches(shuffle):
    rows, _ = rows_of(200)
    dataset = batched(200, batch_size=None, tokens_per_batch=40, shuffle=shuffle)
    found, sizes = epoch(dataset), {3: 13, 6: 6, 10: 4}
    assert {ids.shape[1] for ids, _ in found} == set(sizes)
    smaller = [ids.shape for ids, _ in found if len(ids) != sizes[ids.shape[1]]]
    if shuffle:
        assert not smaller
    else:
        assert len(smaller) == len(set(smaller)) <= 3
        assert sorted(numbers(found)) == [row[-1] for row in rows]


def test_shapes_are_static_where_all_batches_agree():
    def shape(**options):
        return batched(**options).element_spec[0].shape.as_list()

    assert shape() == [8, None]
    assert shape(bucket_lengths=(10,)) == [8, 10]
    assert shape(bucket_lengths=(10,), shuffle=False) == [None, 10]
    assert shape(batch_size=None, tokens_per_batch=40) == [None, None]


@pytest.mark.parametrize("kind", [list, tf.ragged.constant])
def test_rows_are_lists_or_ragged_too(kind):
    rows = kind([[5, 6], [7]])
    (ids,) = bucketed_batches(
        rows, batch_size=2, bucket_lengths=np.array([3]), shuffle=False
    )
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
        ({"bucket_lengths": ()}, "bucket_lengths"),
        ({"bucket_lengths": (0, 10)}, "bucket_lengths.*0"),
        ({"bucket_lengths": (2.5, 10)}, "bucket_lengths.*2.5"),
        ({"bucket_lengths": [(3,), (6, 10)]}, "bucket_lengths"),
        ({"padding": "post"}, "padding.*'post'"),
        ({"seed": -1}, "seed.*-1"),
    ],
)
def test_bad_input_is_refused(changed, message):
    good = {"token_ids": ROWS, "labels": LABELS, "batch_size": 4}
    options = {"bucket_lengths": BUCKETS, **good, **changed}
    with pytest.raises(ValueError, match=f"(?s)`{message}"):
        bucketed_batches(**options)


def test_encoded_data_knows_words_of_training_alone():
    splits = [
        data.Split(np.array(texts, dtype=object), np.array(labels, "int32"))
        for texts, labels in [
            (["a good film", "a bad film indeed"], [1, 0]),
            (["a superb film"], [1]),
            (["bad"], [0]),
        ]
    ]
    toy = data.TextData("toy", *splits)
    encoded = encode_data(toy, bucket_lengths=(2, 3))
    assert encoded.vocab_size == 2 + 5
    words = encoded.vectorizer.get_vocabulary()
    assert [words[i] for i in encoded.train[1]] == ["bad", "film", "indeed"]
    a_superb_film = [words.index("a"), UNKNOWN_ID, words.index("film")]
    assert encoded.tuning[0].tolist() == a_superb_film
    ((ids, labels),) = encoded.batches("validation").as_numpy_iterator()
    assert (ids.tolist(), labels.tolist()) == ([[0, words.index("bad")]], [0.0])
    with pytest.raises(ValueError, match="bucket_lengths"):
        encode_data(toy, bucket_lengths=(8, 4))
