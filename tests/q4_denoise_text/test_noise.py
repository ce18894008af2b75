"""`q4_denoise_text.data.corrupt` against NumPy, with rates within their errors."""

import numpy as np
import pytest
import tensorflow as tf

from q4_denoise_text.data import OFF, corrupt
from tests.q4_denoise_text.test_batches import MASK, ORDINARY, each_seed

KINDS = {
    "mask": {"mask_rate": 0.5},
    "replace": {"replace_rate": 0.5},
    "shuffle": {"shuffle_distance": 3},
    "all three": {"mask_rate": 0.3, "replace_rate": 0.3, "shuffle_distance": 2},
}
ALL = KINDS["all three"]
every = pytest.mark.parametrize("noise", KINDS.values(), ids=KINDS)


def noisy(ids, seed=0, **noise):
    found = corrupt(tf.constant(ids), **{**OFF, **noise}, seed=(seed, 1))
    assert (found.shape, found.dtype) == (ids.shape, tf.int32)
    return found.numpy()


def numbered(batch=200, time=50):
    """Rows whose ids tell the column that they come from."""
    return np.tile(np.arange(ORDINARY, ORDINARY + time, dtype="int32"), (batch, 1))


def sentences(seed, batch=200, time=50):
    """Numbered rows with special tokens among the others, padded on the right."""
    rng = np.random.default_rng(seed)
    ids = numbered(batch, time)
    special = rng.random(ids.shape) < 0.15
    ids[special] = rng.integers(1, ORDINARY, special.sum())
    lengths = rng.integers(20, time + 1, batch)
    ids[np.arange(time) >= lengths[:, None]] = 0
    return ids


def skewed(seed):
    """Full rows of ids of which some are far more common than others."""
    ids = np.random.default_rng(seed).geometric(0.3, (200, 50))
    return (ORDINARY - 1 + np.minimum(ids, 12)).astype("int32")


def assert_share(found, total, share):
    """Within four standard errors."""
    assert abs(found / total - share) <= 4 * np.sqrt(share * (1 - share) / total)


@every
@each_seed
def test_padding_stays_and_special_tokens_are_kept(noise, seed):
    for ids in (sentences(seed), sentences(seed).astype("int64"), sentences(seed, 1)):
        found = noisy(ids, seed, **noise)
        assert (found != ids).any()
        np.testing.assert_array_equal(found == 0, ids == 0)
        for special in range(1, ORDINARY):
            if special != MASK or not noise.get("mask_rate"):
                counts = [(each == special).sum(axis=1) for each in (ids, found)]
                np.testing.assert_array_equal(*counts)
        if not noise.get("shuffle_distance"):
            special = ids < ORDINARY
            np.testing.assert_array_equal(found[special], ids[special])


def test_a_batch_of_special_tokens_and_padding_stays():
    ids = np.array([[1, 1, 1, 1, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0]], "int32")
    for noise in (ALL, {"mask_rate": 1.0}, {"replace_rate": 1.0}):
        np.testing.assert_array_equal(noisy(ids, **noise), ids)
        np.testing.assert_array_equal(noisy(ids[2:], **noise), ids[2:])


@pytest.mark.parametrize("rate", [0, 0.0, 0.05, 0.2, 0.7, 1.0, 1])
@each_seed
def test_ordinary_tokens_are_masked_at_the_rate_and_no_token_changes_else(rate, seed):
    ids = sentences(seed)
    ordinary = ids >= ORDINARY
    found = noisy(ids, seed, mask_rate=rate)
    masked = ordinary & (found == MASK)
    np.testing.assert_array_equal(found, np.where(masked, MASK, ids))
    assert_share(masked.sum(), ordinary.sum(), rate)


def test_masks_fall_on_every_row_and_column_alike():
    masked = noisy(numbered(400, 40), mask_rate=0.3) == MASK
    for axis in (0, 1):
        counts, total = masked.sum(axis=axis), masked.shape[axis]
        scores = (counts - 0.3 * total) / np.sqrt(total * 0.3 * 0.7)
        assert abs(scores).max() < 5
        assert 0.6 < scores.std() < 1.4  # neither one draw for all nor a quota


@pytest.mark.parametrize("rate, masks", [(0.05, 0), (0.3, 0), (1.0, 0), (0.7, 0.3)])
@each_seed
def test_replace_rate_and_what_replaces(rate, masks, seed):
    ids = skewed(seed)
    found = noisy(ids, seed, mask_rate=masks, replace_rate=rate)
    masked = found == MASK
    assert_share(masked.sum(), ids.size, masks)
    assert np.isin(found[~masked], ids).all()
    shares = np.bincount(ids.ravel()) / ids.size
    differs = 1 - (shares**2).sum()  # from a token drawn from the whole batch
    changed = (found != ids) & ~masked
    assert_share(changed.sum(), ids.size, rate * differs)
    # Common ids replace more often, as they would if drawn from the batch.
    for token in (ORDINARY, ORDINARY + 3):
        expected = shares[token] * (1 - shares[token]) / differs
        assert_share((found[changed] == token).sum(), changed.sum(), expected)


def test_replacements_come_from_other_rows_too():
    ids = numbered(20, 40).T  # each row repeats an id of its own
    changed = noisy(ids, replace_rate=0.5) != ids
    assert_share(changed.sum(), ids.size, 0.5 * 39 / 40)


@pytest.mark.parametrize("distance", [1, 2, 3, 7, 100])
@each_seed
def test_shuffled_rows_are_permutations_of_themselves(distance, seed):
    for ids in (numbered(), sentences(seed)):
        found = noisy(ids, seed, shuffle_distance=distance)
        assert (found != ids).any()
        np.testing.assert_array_equal(np.sort(found), np.sort(ids))


@each_seed
def test_tokens_move_up_to_the_distance_and_in_each_row_for_themselves(seed):
    rows = [noisy(numbered(), seed, shuffle_distance=n) for n in range(5)]
    moves = [np.abs(found - numbered()) for found in rows]
    assert [each.max() for each in moves] == [0, 1, 2, 3, 4]
    assert (np.diff([each.mean() for each in moves]) > 0.1).all()
    assert len(np.unique(rows[3], axis=0)) == len(rows[3])


def words_of(row, starts):
    """Splits a row into tuples of token ids, one per word."""
    ends = np.flatnonzero(starts[row])[1:]
    return [tuple(word) for word in np.split(row, ends)]


@pytest.mark.parametrize("distance", [1, 2, 5])
@each_seed
def test_the_pieces_of_a_word_move_together(distance, seed):
    starts = np.random.default_rng(seed).random(ORDINARY + 50) < 0.6
    starts[: ORDINARY + 1] = True
    ids, farthest = numbered(), 0
    options = {"shuffle_distance": distance, "word_starts": starts.tolist()}
    found = noisy(ids, seed, **options)
    words = words_of(ids[0], starts)
    for row in found:
        places = [words.index(word) for word in words_of(row, starts)]
        assert sorted(places) == list(range(len(words)))
        farthest = max(farthest, np.abs(places - np.arange(len(places))).max())
    assert farthest == distance


def test_a_piece_without_its_word_moves_as_a_word():
    ids = np.array([[4, 5, 6, 0]] * 200, "int32")  # begins inside a word
    starts = np.array([True] * 4 + [False, True, True])
    found = noisy(ids, shuffle_distance=1, word_starts=starts)
    assert {tuple(row) for row in found} > {(4, 5, 6, 0), (5, 4, 6, 0)}
    assert (found[:, 3] == 0).all()


@every
def test_the_seed_alone_decides(noise):
    ids = sentences(0)
    noise = {**OFF, **noise}
    first = corrupt(ids, **noise, seed=(1, 2)).numpy()
    for same in ((1, 2), [1, 2], tf.constant([1, 2]), tf.constant([1, 2], tf.int64)):
        np.testing.assert_array_equal(corrupt(ids, **noise, seed=same), first)
    for other in ((1, 3), (2, 2), (2, 1)):
        assert (corrupt(ids, **noise, seed=other).numpy() != first).any()


def test_kinds_of_noise_are_drawn_apart():
    # Else the tokens that move would be the masked ones, or never them.
    ids = numbered()
    masked = noisy(ids, mask_rate=0.5) == MASK
    moved = noisy(ids, shuffle_distance=1) != ids
    assert_share((masked & moved).sum(), moved.sum(), 0.5)


def test_works_inside_a_dataset():
    batches = [sentences(0), sentences(1, batch=3, time=20)]
    ids = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=tf.TensorSpec((None, None), tf.int32)
    )
    mapped = tf.data.Dataset.zip(ids, tf.data.Dataset.range(2)).map(
        lambda ids, step: corrupt(ids, **ALL, seed=tf.stack([7, step]))
    )
    for step, found in enumerate(mapped.as_numpy_iterator()):
        expected = corrupt(batches[step], **ALL, seed=(7, step))
        np.testing.assert_array_equal(found, expected)
    assert step == 1


@pytest.mark.parametrize("name", OFF)
@pytest.mark.parametrize("value", [-1, -0.1, 1.1, 1.5, float("nan"), True, "x", None])
def test_bad_rates_and_distances_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        noisy(sentences(0), **{name: value})


def test_rates_above_one_together_and_a_single_sentence_are_named():
    with pytest.raises(ValueError, match="mask_rate.*replace_rate"):
        noisy(sentences(0), mask_rate=0.6, replace_rate=0.5)
    with pytest.raises(ValueError, match="`token_ids` must have the shape"):
        noisy(sentences(0)[0], **ALL)
