"""Whatever somebody may put in: an answer, or a ValueError that names the argument."""

import functools
import re

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common import text
from q1_tbptt.gradients import check_batch
from q1_tbptt.tbptt import TBPTTClassifier
from q3_inverse_ae.inverse_ae import build_autoencoder
from q3_inverse_ae.report import check_images
from q4_denoise_text import corpus
from q4_denoise_text.noise import corrupt

PIECES = ["good", "film", "a", "##s", "!", "מ", "🙂"]
TOKENIZER = corpus.make_tokenizer([*corpus.SPECIAL_TOKENS, *PIECES])
VECTORIZER = text.build_vectorizer(["a good film", "films !"])
# No surrogates, which no UTF-8 file can hold; control characters, right-to-left
# writing, emoji and combining marks are among the rest.
sentences = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
odd = [
    "",
    " ",
    "\x00\x07\x1b",
    "a",
    "good " * 10_000,
    "🙂👩‍👩‍👧‍👦" * 50,
    "\u202eסרט טוב\u202c",
    "e\u0301" * 20,
    "[MASK] [PAD]",
    "<br />" * 40 + "&lt;&amp;",
]
fast = settings(max_examples=60, deadline=None)


def with_odd_sentences(test):
    for sentence in odd:
        test = example(sentence)(test)
    return test


# One call takes many sentences, because TensorFlow traces the tokenizer in each.
@settings(max_examples=8, deadline=None)
@example(odd)
@given(st.lists(sentences, min_size=1, max_size=20))
def test_any_sentence_becomes_token_ids(texts):
    rows = corpus.tokenize(TOKENIZER, [*texts, *(text.encode() for text in texts)])
    for row in rows:
        assert row.dtype == np.int32
        assert 1 <= len(row) <= corpus.MAX_LENGTH
        # Nothing that somebody writes is padding.
        assert row.min() > corpus.PAD and row.max() < TOKENIZER.vocabulary_size()
    half = len(texts)
    for row, same in zip(rows[:half], rows[half:], strict=True):
        np.testing.assert_array_equal(row, same)


@fast
@with_odd_sentences
@given(sentences)
def test_any_sentence_is_cleaned(sentence):
    clean = corpus.clean(sentence)
    assert not re.search(r"[\x00-\x1f\x7f]", clean)
    assert clean == clean.strip()


@fast
@with_odd_sentences
@example("\ud83d film")
@given(st.text(st.characters(), max_size=80))
def test_any_sentence_is_encoded_for_a_recurrent_network(sentence):
    (ids,) = text.encode(VECTORIZER, [sentence])
    assert len(ids) >= 1 and min(ids) > text.PADDING_ID
    padded = keras.utils.pad_sequences([ids, ids[:1]])
    np.testing.assert_array_equal(padded[0], ids)
    assert not padded[1, :-1].any() and padded[1, -1] == ids[0]


@fast
@given(st.lists(st.one_of(st.text(), st.binary(), st.none(), st.floats()), max_size=4))
def test_texts_are_taken_or_the_row_is_named(texts):
    fitting = [isinstance(row, (str, bytes)) for row in texts]
    try:
        found = text.check_texts("texts", texts)
    except ValueError as error:
        assert f"row {fitting.index(False)}" in str(error)
    else:
        assert all(fitting) and len(found) == len(texts)
        for row, given_row in zip(found, texts, strict=True):
            assert row == given_row or isinstance(given_row, bytes)


# TensorFlow has numbers below the smallest normal one flushed to zero.
floats = functools.partial(st.floats, allow_subnormal=False)
rates = st.one_of(floats(), st.integers(-2, 2), st.none(), st.booleans(), st.text())


noises = dict.fromkeys(["mask_rate", "replace_rate", "delete_rate"], rates)


@fast
@given(st.fixed_dictionaries(noises))
def test_a_rate_is_taken_or_named(noise):
    token_ids = np.array([[5, 6, 7, 0], [1, 2, 0, 0]])
    try:
        found = corrupt(token_ids, **noise, shuffle_distance=1, seed=(0, 0)).numpy()
    except ValueError as error:
        named = re.search(r"`(\w+)`", str(error))[1]
        assert named in noise
        assert "Received" in str(error)
    else:
        assert all(0 <= rate <= 1 for rate in noise.values())
        assert ((found == 0) >= (token_ids == 0)).all()
        np.testing.assert_array_equal(found[1], token_ids[1])


@fast
@given(
    arrays.arrays(
        st.sampled_from(["float32", "int64", "bool", "U2"]),
        st.sampled_from([(3,), (3, 1), (0,), (2,), (1, 3), ()]),
        elements={"allow_subnormal": False},
    )
)
@example(np.array([0, 1, 1]))
@example(np.array([[0.0], [1.0], [0.0]]))
@example(np.array([0, 1, np.nan]))
@example(np.array([0, 1, 2]))
@example(np.array([True, False, True]))
def test_labels_are_taken_or_described(labels):
    token_ids = np.array([[2], [3], [4]])
    fitting = labels.shape in [(3,), (3, 1)] and all(x in (0, 1) for x in labels.flat)
    try:
        check_batch("train_ds", token_ids, labels)
    except ValueError as error:
        assert not fitting
        assert "`labels`" in str(error) and "Received" in str(error)
    else:
        assert fitting


@fast
@given(
    arrays.arrays(
        st.sampled_from(["float32", "float64", "uint8", "int64", "bool"]),
        st.one_of(
            st.tuples(st.integers(0, 2), st.just(28), st.just(28), st.just(1)),
            arrays.array_shapes(max_dims=4, max_side=3),
        ),
    )
)
def test_images_are_taken_or_described(images):
    try:
        checked = check_images(images)
    except ValueError as error:
        assert "`images`" in str(error) and "Received" in str(error)
    else:
        assert checked.dtype == np.float32 and checked.shape[1:] == (28, 28, 1)
        assert 0 <= checked.min() <= checked.max() <= 1


@fast
@given(
    st.sampled_from(["code_dim", "inversion_weight", "rank_weight"]),
    st.one_of(floats(max_value=0), st.integers(max_value=-1), st.none(), st.text()),
)
def test_an_autoencoder_takes_a_size_or_names_it(name, value):
    if name != "code_dim" and (value is None or value == 0):
        return  # the default of the kind, or a term that is switched off
    with pytest.raises(ValueError, match=f"`{name}`"):
        build_autoencoder("dense", **{name: value})


@fast
@given(st.one_of(st.integers(max_value=-1), floats(), st.booleans(), st.text()))
def test_a_truncation_is_named_that_is_none(t):
    with pytest.raises(ValueError, match="`t`"):
        TBPTTClassifier("simple_rnn", 10, t=t)
