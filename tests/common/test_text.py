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
    check_texts,
    encode,
    encode_data,
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


# -- Texts ---------------------------------------------------------------------------


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


def test_no_text_is_no_row(vectorizer):
    assert check_texts("texts", []) == encode(vectorizer, []) == []


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


def test_the_limit_counts_padding_and_unknown():
    assert words(build_vectorizer(TEXTS, max_tokens=3)) == ["the"]
    assert words(build_vectorizer(TEXTS, max_tokens=4)) == ["the", "dog"]


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


# -- Token ids -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def vectorizer():
    return build_vectorizer(TEXTS, max_tokens=4)  # the 2, dog 3


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


@pytest.mark.parametrize("max_length", [0, -1, 2.0, True])
def test_a_length_that_is_none_is_refused(vectorizer, max_length):
    with pytest.raises(ValueError, match=f"max_length.*{max_length}"):
        encode(vectorizer, ["dog"], max_length=max_length)


def test_encode_takes_more_texts_than_fit_one_batch(vectorizer):
    texts = ["the " * (i % 5 + 1) for i in range(3_000)]
    assert encoded(vectorizer, texts) == [[2] * (i % 5 + 1) for i in range(3_000)]


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
    rows, labels = rows_of(count, longest)
    good = {"labels": labels, "batch_size": 8, "bucket_lengths": BUCKETS}
    return bucketed_batches(rows, **{**good, **options})


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


def test_the_seed_alone_decides_the_whole_sequence_of_epochs():
    runs = []
    for seed, elsewhere in ((3, 0), (3, 1), (4, 0)):
        keras.utils.set_random_seed(elsewhere)
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


def test_a_pass_follows_from_the_seed_and_its_number():
    ids = np.arange(1, 91)
    dataset = bucketed_batches(
        ids[:, np.newaxis], batch_size=8, bucket_lengths=(1,), seed=7
    )
    for number in range(3):
        rng = np.random.default_rng([7, number])
        order = rng.permutation(90)
        batches = [ids[order[8 * i : 8 * i + 8]] for i in range(11)]
        expected = [batches[i] for i in rng.permutation(11)]
        np.testing.assert_array_equal([batch[:, 0] for batch in dataset], expected)


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
    steps = len(dataset)
    model = Recorder([keras.layers.Rescaling(0.01), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    if repeat:
        options = {"x": dataset.repeat(), "steps_per_epoch": steps}
    else:
        options = {"x": dataset}
    model.fit(epochs=3, shuffle=False, verbose=0, **options)
    assert model.seen == numbers(epoch(batched(bucket_lengths=(10,)).repeat(3)))


@pytest.mark.parametrize("shuffle", [True, False])
def test_labels_are_optional(shuffle):
    found = list(batched(labels=None, shuffle=shuffle))
    for ids, (expected, _) in zip(found, epoch(batched(shuffle=shuffle)), strict=True):
        np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("shuffle", [True, False])
def test_short_rows_come_in_larger_batches(shuffle):
    rows, _ = rows_of(200)
    dataset = batched(200, batch_size=None, tokens_per_batch=40, shuffle=shuffle)
    found, sizes = epoch(dataset), {3: 13, 6: 6, 10: 4}
    assert len(dataset) == len(found)
    assert {ids.shape[1] for ids, _ in found} == set(sizes)
    smaller = [ids.shape for ids, _ in found if len(ids) != sizes[ids.shape[1]]]
    if shuffle:
        assert not smaller
    else:
        assert len(smaller) == len(set(smaller)) <= 3
        assert sorted(numbers(found)) == [row[-1] for row in rows]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("padding", "side"), [("left", "pre"), ("right", "post")])
def test_rows_are_padded_and_cut_as_keras_does_it(padding, side, shuffle):
    rows = [np.arange(1, 2 + i % 25) + 100 * i for i in range(90)]
    options = {"batch_size": 8, "bucket_lengths": BUCKETS, "shuffle": shuffle}
    widths = set()
    for ids in bucketed_batches(rows, padding=padding, **options):
        members = [rows[number] for number in ids.numpy().max(axis=1) // 100]
        expected = keras.utils.pad_sequences(
            members, ids.shape[1], padding=side, truncating=side
        )
        np.testing.assert_array_equal(ids, expected)
        widths.add(ids.shape[1])
    assert widths == set(BUCKETS)


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
        ({"batch_size": 64}, "batch_size.*64"),
        ({"batch_size": -4}, "batch_size.*-4"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"batch_size": 4.0}, "batch_size.*4.0"),
        ({"batch_size": None}, "batch_size.*tokens_per_batch.*None"),
        ({"tokens_per_batch": 400}, "batch_size.*tokens_per_batch.*400"),
        ({"batch_size": None, "tokens_per_batch": 9}, "tokens_per_batch.*10.*9"),
        ({"batch_size": None, "tokens_per_batch": 400}, "tokens_per_batch"),
        ({"token_ids": [], "labels": []}, "token_ids"),
        ({"token_ids": None}, "token_ids"),
        ({"token_ids": [*ROWS[:19], [[1], [2]]]}, "token_ids.*row 19"),
        ({"token_ids": [*ROWS[:19], [1.0, 2.0]]}, "token_ids.*row 19"),
        ({"token_ids": [*ROWS[:19], "film"]}, "token_ids.*row 19"),
        ({"token_ids": [[], *ROWS[1:]]}, "token_ids.*row 0"),
        ({"token_ids": [[5, 0], *ROWS[1:]]}, "token_ids.*padding.*row 0"),
        ({"token_ids": [[2**31], *ROWS[1:]]}, "token_ids.*row 0"),
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


def test_encoded_data_needs_lengths_that_grow():
    with pytest.raises(ValueError, match="bucket_lengths"):
        encode_data(data.TextData("toy", None, None, None), bucket_lengths=(8, 4))
