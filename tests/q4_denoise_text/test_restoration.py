"""q4_denoise_text/restoration.py: what is mended, and what has to be beaten."""

import numpy as np
import pytest

from q4_denoise_text import corpus, restoration
from q4_denoise_text.denoise_text import build_denoiser

VOCABULARY = [*corpus.SPECIAL_TOKENS, "a", "film", "good", "bad", "##ly", "."]
A, FILM, GOOD, BAD, LY, STOP = range(5, 11)
MASK = corpus.MASK


def test_scores_are_counted_by_hand():
    original = np.array([[A, GOOD, FILM, STOP], [BAD, FILM, 0, 0], [A, FILM, STOP, 0]])
    corrupted = np.array([[A, MASK, BAD, STOP], [MASK, FILM, 0, 0], [A, FILM, STOP, 0]])
    restored = np.array([[A, GOOD, BAD, FILM], [BAD, FILM, 0, 0], [A, FILM, STOP, 0]])
    found = restoration.restoration_scores(original, corrupted, restored)
    expected = {
        "token_accuracy": 7 / 9,
        "corrupted": 2 / 3,
        "intact": 5 / 6,
        "error_reduction": 1 - 2 / 3,
        "sentences": 2 / 3,
    }
    assert found == pytest.approx(expected)


def test_a_copy_removes_no_errors_and_breaks_nothing():
    rng = np.random.default_rng(0)
    original = rng.integers(5, 11, (20, 8)).astype("int32")
    corrupted = restoration.corrupted_copy(original)
    found = restoration.restoration_scores(original, corrupted, corrupted)
    assert found["error_reduction"] == found["corrupted"] == 0
    assert found["intact"] == 1


def test_restored_tokens_are_the_most_likely_ones_and_padding_stays():
    denoiser = build_denoiser(11, width=8, depth=1, heads=2, max_length=8)
    rng = np.random.default_rng(0)
    for weight in denoiser.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    corrupted = np.array([[A, MASK, FILM, STOP, 0], [MASK, GOOD, 0, 0, 0]], "int32")
    positions = np.tile(np.arange(5, dtype="int32"), (2, 1))
    logits = denoiser({"token_ids": corrupted, "positions": positions}).numpy()
    expected = np.where(corrupted > 0, logits.argmax(-1), 0)
    found = restoration.restore(denoiser, corrupted, batch=1)
    np.testing.assert_array_equal(found, expected)


def test_noise_grows_with_its_rate_and_is_of_one_kind():
    denoiser = build_denoiser(60, width=8, depth=1, heads=2, max_length=16)
    token_ids = np.random.default_rng(0).permuted(
        np.tile(np.arange(5, 60, dtype="int32"), (200, 1)), axis=1
    )[:, :16]
    found = restoration.restored_by_rate(denoiser, token_ids, [0.1, 0.4], intact=0.5)
    assert list(found) == ["masks", "other words", "word order"]
    assert found["masks"][0] == pytest.approx([0.1, 0.4], abs=0.03)
    # Now and then a word is replaced by itself.
    assert found["other words"][0] == pytest.approx([0.1, 0.4], abs=0.04)
    assert found["word order"][0] == sorted(found["word order"][0])
    for shares, scores in found.values():
        assert len(shares) == len(scores)


def test_the_best_and_the_worst_are_found():
    original = np.full((5, 4), A, "int32")
    original[4] = 0, 0, 0, 0
    original[4, :3] = A
    corrupted, restored = original.copy(), original.copy()
    corrupted[1, :3] = MASK  # all mended
    corrupted[2, :2] = restored[2, :2] = MASK  # nothing mended
    corrupted[3, 0] = restored[3, 1] = MASK  # one mended, one spoilt
    best, worst = restoration.best_and_worst(original, corrupted, restored, count=1)
    assert best.tolist() == [1]
    assert worst.tolist() == [2]
    _, worst = restoration.best_and_worst(
        original, corrupted, restored, count=1, longest=3
    )
    assert worst.tolist() == [4]


def test_the_token_that_is_there_is_made_likelier():
    denoiser = build_denoiser(11, width=8, depth=1, heads=2, max_length=8)
    rng = np.random.default_rng(0)
    corrupted = rng.integers(5, 11, (40, 6)).astype("int32")
    positions = np.tile(np.arange(6, dtype="int32"), (40, 1))
    logits = denoiser({"token_ids": corrupted, "positions": positions}).numpy()
    probability = np.exp(logits)
    there = np.eye(11)[corrupted] > 0
    expected = np.where(there, probability / 0.25, probability).argmax(-1)
    found = restoration.restore(denoiser, corrupted, 0.25)
    np.testing.assert_array_equal(found, expected)
    assert (found != restoration.restore(denoiser, corrupted)).any()


def test_word_errors_are_counted_in_words():
    tokenizer = corpus.make_tokenizer(VOCABULARY)
    original = np.array([[A, GOOD, FILM, STOP, 0], [BAD, LY, A, FILM, 0]])
    other = np.array([[A, FILM, STOP, 0, 0], [BAD, A, A, FILM, 0]])
    # One of "a good film ." is missing; of "badly a film" one is wrong, one too many.
    found = restoration.word_error_rate(tokenizer, original, other)
    assert found == pytest.approx((1 + 2) / (4 + 3))
    assert restoration.word_error_rate(tokenizer, original, original) == 0


def test_bigrams_fill_a_gap_from_both_its_neighbours():
    rows = [[A, GOOD, FILM]] * 5 + [[A, BAD, STOP]] * 6 + [[STOP, BAD, FILM]]
    bigrams = restoration.Bigrams([np.array(row) for row in rows], 11)
    corrupted = np.array([[A, MASK, FILM], [A, MASK, STOP], [MASK, BAD, 0]])
    # After "a", "bad" is more frequent, but "film" follows "good" more often.
    expected = [[A, GOOD, FILM], [A, BAD, STOP], [A, BAD, 0]]
    np.testing.assert_array_equal(bigrams.restore(corrupted), expected)


def test_bigrams_never_answer_with_a_special_token():
    rows = [np.array([A, MASK, FILM, 1, GOOD])] * 3
    bigrams = restoration.Bigrams(rows, 11)
    found = bigrams.restore(np.array([[MASK, MASK, MASK, 0]]))
    assert (found[0, :3] >= 5).all()
    assert found[0, 3] == 0


def test_the_most_frequent_word_fills_gaps_alone():
    rows = [np.array([1, 1, 1, FILM, FILM, A])]
    found = restoration.fill_most_frequent(rows, np.array([[A, MASK, BAD, 0]]))
    np.testing.assert_array_equal(found, [[A, FILM, BAD, 0]])
