"""Whatever somebody may put in: an answer, or a ValueError that names the argument."""

import re

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common import text
from q1_tbptt.gradients import check_batch
from q4_denoise_text import data

PIECES = ["good", "film", "a", "##s", "!", "מ", "🙂"]
TOKENIZER = data.make_tokenizer([*data.SPECIAL_TOKENS, *PIECES])
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
    rows = data.tokenize(TOKENIZER, [*texts, *(text.encode() for text in texts)])
    for row in rows:
        assert row.dtype == np.int32
        assert 1 <= len(row) <= data.MAX_LENGTH
        # Nothing that somebody writes is padding.
        assert row.min() > data.PAD and row.max() < TOKENIZER.vocabulary_size()
    half = len(texts)
    for row, same in zip(rows[:half], rows[half:], strict=True):
        np.testing.assert_array_equal(row, same)


@fast
@with_odd_sentences
@given(sentences)
def test_any_sentence_is_cleaned(sentence):
    clean = data.clean(sentence)
    assert not re.search(r"[\x00-\x1f\x7f]", clean)
    assert clean == clean.strip()


@fast
@with_odd_sentences
@example("\ud83d film")
@given(st.text(st.characters(), max_size=80))
def test_any_sentence_is_encoded_for_a_recurrent_network(sentence):
    (ids,) = text.encode(VECTORIZER, [sentence])
    assert len(ids) >= 1 and min(ids) > text.PADDING_ID


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


@fast
@given(
    arrays.arrays(
        st.sampled_from(["float32", "int64", "bool", "U2"]),
        st.sampled_from([(3,), (3, 1), (0,), (2,), (4,), (1, 3), ()]),
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
