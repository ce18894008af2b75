"""`common.text`: vocabulary, token ids, and batches that lose and repeat nothing."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import data
from common.text import (
    UNKNOWN_ID,
    bucketed_batches,
    build_vectorizer,
    encode,
    encode_data,
    pad_left,
    standardize,
)

# -- Words ---------------------------------------------------------------------------


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
    found = standardize(tf.constant([text])).numpy()[0].decode("utf-8")
    assert found.split() == tokens


def test_standardize_keeps_the_shape():
    texts = tf.constant([["A,b"], ["C"]])
    found = standardize(texts)
    assert found.shape == (2, 1)
    assert [row[0].decode().split() for row in found.numpy()] == [
        ["a", ",", "b"],
        ["c"],
    ]


# -- Vocabulary ----------------------------------------------------------------------

TEXTS = ["The cat, the dog.", "the DOG barks", "a dog: the end"]


def words(vectorizer):
    """Return the words from id 2 on."""
    padding, unknown, *found = vectorizer.get_vocabulary()
    assert padding == ""
    assert unknown == "[UNK]"
    return found


def test_the_vocabulary_is_that_of_the_texts_most_frequent_first():
    found = words(build_vectorizer(TEXTS))
    assert found[:2] == ["the", "dog"]
    counts = {"the": 4, "dog": 3, "cat": 1, ",": 1, ".": 1, "barks": 1, "a": 1}
    assert set(found) == {*counts, ":", "end"}
    assert len(found) == len(set(found))


def test_rare_words_become_unknown():
    assert words(build_vectorizer(TEXTS, min_count=2)) == ["the", "dog"]
    assert words(build_vectorizer(TEXTS, min_count=4)) == ["the"]


def test_the_limit_counts_padding_and_unknown():
    assert words(build_vectorizer(TEXTS, max_tokens=3)) == ["the"]
    assert words(build_vectorizer(TEXTS, max_tokens=4, min_count=2)) == ["the", "dog"]


def test_the_vocabulary_does_not_depend_on_the_order_of_texts():
    expected = words(build_vectorizer(TEXTS))
    assert words(build_vectorizer(TEXTS[::-1])) == expected


def test_arrays_of_texts_are_taken():
    vectorizer = build_vectorizer(np.array(TEXTS, dtype=object))
    assert words(vectorizer) == words(build_vectorizer(TEXTS))


def test_the_layer_gives_ragged_int64_ids():
    ids = build_vectorizer(TEXTS)(tf.constant(["The DOG", "dog the dog zebra"]))
    assert isinstance(ids, tf.RaggedTensor)
    assert ids.dtype == tf.int64
    assert ids.to_list() == [[2, 3], [3, 2, 3, 1]]


# -- Token ids -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def vectorizer():
    return build_vectorizer(TEXTS, min_count=2)  # the 2, dog 3


def encoded(vectorizer, texts, **options):
    found = encode(vectorizer, texts, **options)
    assert isinstance(found, list)
    assert all(row.dtype == np.int32 and row.ndim == 1 for row in found)
    return [row.tolist() for row in found]


def test_encode_maps_words_to_ids_and_others_to_one(vectorizer):
    texts = ["The zebra, the DOG", "dog"]
    assert encoded(vectorizer, texts) == [[2, 1, 1, 2, 3], [3]]
    assert encoded(vectorizer, np.array(texts, dtype=object)) == [[2, 1, 1, 2, 3], [3]]


def test_a_text_without_any_token_becomes_one_unknown_token(vectorizer):
    assert encoded(vectorizer, ["", "dog", " \n"]) == [[1], [3], [1]]


def test_a_longer_text_keeps_its_end(vectorizer):
    texts = ["the the dog dog the", "dog the", ""]
    assert encoded(vectorizer, texts, max_length=3) == [[3, 3, 2], [3, 2], [1]]


def test_encode_takes_more_texts_than_fit_one_batch(vectorizer):
    texts = ["the " * (i % 5 + 1) for i in range(3_000)]
    assert encoded(vectorizer, texts) == [[2] * (i % 5 + 1) for i in range(3_000)]


def test_pad_left():
    rows = [np.array([5, 6], "int32"), np.array([7], "int32")]
    padded = pad_left(rows)
    assert padded.dtype == np.int32
    assert padded.tolist() == [[5, 6], [0, 7]]
    assert pad_left(rows, 4).tolist() == [[0, 0, 5, 6], [0, 0, 0, 7]]
    assert pad_left([[5, 6, 7], [8]]).tolist() == [[5, 6, 7], [0, 0, 8]]


# -- Batches -------------------------------------------------------------------------

BUCKETS = (3, 6, 10)


def rows_of(count, longest=10, seed=0):
    """Make rows that end in a number of their own; the label is its parity."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, 50, rng.integers(1, longest + 1)) for _ in range(count)]
    for number, row in enumerate(rows, start=100):
        row[-1] = number
    return [row.astype("int32") for row in rows], np.arange(count) % 2


def batched(count=90, longest=10, **options):
    options = {"batch_size": 8, "bucket_lengths": BUCKETS, **options}
    return bucketed_batches(*rows_of(count, longest), **options)


def epoch(dataset):
    """Return one epoch's batches; check what holds for each of them."""
    found = [(ids.numpy(), labels.numpy()) for ids, labels in dataset]
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
def test_every_row_is_padded_on_the_left_to_the_least_bucket(shuffle):
    rows, _ = rows_of(90)
    for ids, _ in epoch(batched(shuffle=shuffle)):
        for padded in ids:
            row = rows[padded[-1] - 100]
            assert padded.tolist() == [0] * (len(padded) - len(row)) + row.tolist()
            assert len(padded) == min(size for size in BUCKETS if size >= len(row))


def test_training_batches_are_full_and_of_static_shapes():
    for ids, labels in batched().take(20):
        assert ids.shape in [(8, size) for size in BUCKETS]
        assert labels.shape == (8,)


def test_no_row_comes_twice_in_an_epoch_and_each_comes_in_time():
    dataset, seen = batched(), collections.Counter()
    for _ in range(12):
        found = numbers(epoch(dataset))
        assert len(found) == len(set(found))
        seen.update(found)
    assert set(seen) == set(range(100, 190))
    # A batch's worth of each bucket is left over at most.
    assert sum(seen.values()) >= 12 * (90 - 7 * len(BUCKETS))


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_number_of_batches_is_known(shuffle):
    dataset = batched(shuffle=shuffle)
    assert dataset.cardinality().numpy() == len(epoch(dataset)) > 0
    assert len(dataset) == len(epoch(dataset))


def test_epochs_differ_in_batches_and_their_order():
    dataset = batched()
    first, second, third = (epoch(dataset) for _ in range(3))
    assert numbers(first) != numbers(second) != numbers(third) != numbers(first)
    batches = [{frozenset(ids[:, -1]) for ids, _ in each} for each in (first, second)]
    assert not batches[0] & batches[1]
    widths = [[ids.shape[1] for ids, _ in each] for each in (first, second, third)]
    assert widths[0] != widths[1] or widths[1] != widths[2]
    assert any(each != sorted(each) for each in widths)  # not bucket by bucket


def test_the_seeds_decide_the_whole_sequence_of_epochs():
    runs = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(0)
        dataset = batched(seed=seed)
        runs.append([numbers(epoch(dataset)) for _ in range(3)])
    assert runs[0] == runs[1]
    assert all(one != other for one, other in zip(runs[0], runs[2], strict=True))


def test_data_sets_side_by_side_do_not_disturb_each_other():
    alone = batched(seed=3)
    expected = [numbers(epoch(alone)) for _ in range(2)]
    one, other = batched(seed=3), batched(seed=3)
    found = []
    for _ in range(2):
        found.append(numbers(epoch(one)))
        epoch(other)
    assert found == expected


def test_without_shuffling_nothing_is_dropped_and_epochs_are_alike():
    dataset = batched(shuffle=False)
    first, second = epoch(dataset), epoch(dataset)
    assert sorted(numbers(first)) == list(range(100, 190))
    assert numbers(first) == numbers(second)
    assert max(len(ids) for ids, _ in first) == 8


def test_one_row_is_enough_without_shuffling():
    assert numbers(epoch(batched(count=1, shuffle=False))) == [100]


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_beyond_the_last_bucket_keep_their_last_tokens(shuffle):
    rows, _ = rows_of(90, longest=25)
    longer = 0
    for ids, _ in epoch(batched(longest=25, shuffle=shuffle)):
        for padded in ids:
            row = rows[padded[-1] - 100]
            assert padded[padded > 0].tolist() == row[-10:].tolist()
            longer += len(row) > 10
    assert longer > 20


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": [0] * 19}, "labels"),
        ({"batch_size": 64}, "batch_size.*64"),
        ({"token_ids": [], "labels": []}, "token_ids"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_bad_input_is_refused(changed, message):
    rows, labels = rows_of(20)
    good = {"token_ids": rows, "labels": labels, "batch_size": 4}
    with pytest.raises(ValueError, match=message):
        bucketed_batches(**{**good, **changed})


def test_encoded_data_knows_words_of_training_alone():
    splits = [
        data.Split(np.array(texts, dtype=object), np.array(labels, "int32"))
        for texts, labels in [
            (["a good film", "a bad film indeed"], [1, 0]),
            (["a superb film"], [1]),
            (["bad"], [0]),
        ]
    ]
    encoded = encode_data(data.TextData("toy", *splits), bucket_lengths=(2, 3))
    assert encoded.vocab_size == 2 + 5
    words = encoded.vectorizer.get_vocabulary()
    assert [words[i] for i in encoded.train[1]] == ["bad", "film", "indeed"]
    assert encoded.tuning[0].tolist() == [
        words.index("a"),
        UNKNOWN_ID,
        words.index("film"),
    ]
    ((ids, labels),) = encoded.batches("validation").as_numpy_iterator()
    assert (ids.tolist(), labels.tolist()) == ([[0, words.index("bad")]], [0.0])
