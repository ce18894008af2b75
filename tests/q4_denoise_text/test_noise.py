"""q4_denoise_text/noise.py: corrupted ids against NumPy, rates within their errors."""

import numpy as np
import pytest
import tensorflow as tf

from q4_denoise_text.corpus import SPECIAL_TOKENS
from q4_denoise_text.noise import corrupt

ORDINARY = len(SPECIAL_TOKENS)  # the first id that is no special token
MASK = SPECIAL_TOKENS.index("[MASK]")
OFF = {"mask_rate": 0.0, "replace_rate": 0.0, "shuffle_distance": 0}
IN_PLACE = {
    "mask": {"mask_rate": 0.5},
    "replace": {"replace_rate": 0.5},
    "shuffle": {"shuffle_distance": 3},
    "all three": {"mask_rate": 0.3, "replace_rate": 0.3, "shuffle_distance": 2},
}
EVERY = {**IN_PLACE, "delete": {"delete_rate": 0.4}}
ALL = {**IN_PLACE["all three"], "delete_rate": 0.3}
in_place = pytest.mark.parametrize("noise", IN_PLACE.values(), ids=IN_PLACE)
every = pytest.mark.parametrize("noise", EVERY.values(), ids=EVERY)
each_seed = pytest.mark.parametrize("seed", range(3))


def noisy(ids, seed=0, **noise):
    return corrupt(ids, **{**OFF, **noise}, seed=(seed, 1)).numpy()


def numbered(batch=200, time=50):
    """Rows whose ids tell the column that they come from."""
    return np.tile(np.arange(ORDINARY, ORDINARY + time, dtype="int32"), (batch, 1))


def sentences(seed, batch=200, time=50, shortest=20):
    """Numbered rows with special tokens among the others, padded on the right."""
    rng = np.random.default_rng(seed)
    ids = numbered(batch, time)
    special = rng.random(ids.shape) < 0.15
    ids[special] = rng.integers(1, ORDINARY, special.sum())
    lengths = rng.integers(shortest, time + 1, batch)
    ids[np.arange(time) >= lengths[:, None]] = 0
    return ids


def skewed(seed):
    """Full rows of ids of which some are far more common than others."""
    ids = np.random.default_rng(seed).geometric(0.3, (200, 50))
    return (ORDINARY - 1 + np.minimum(ids, 12)).astype("int32")


def assert_share(found, total, share):
    """Within four standard errors."""
    assert abs(found / total - share) < 4 * np.sqrt(share * (1 - share) / total)


def is_subsequence(part, whole):
    rest = iter(whole)
    return all(item in rest for item in part)


# -- What noise leaves alone ---------------------------------------------------------


@each_seed
def test_without_noise_nothing_changes(seed):
    ids = sentences(seed)
    np.testing.assert_array_equal(noisy(ids, seed), ids)


@in_place
@each_seed
def test_padding_and_special_tokens_stay(noise, seed):
    ids = sentences(seed)
    found = noisy(ids, seed, **noise)
    special = ids < ORDINARY
    assert (found != ids).any()
    np.testing.assert_array_equal(found[special], ids[special])
    # Nothing else becomes special, but what is masked.
    assert ((found[~special] >= ORDINARY) | (found[~special] == MASK)).all()
    if not noise.get("mask_rate"):
        assert (found[~special] >= ORDINARY).all()


@each_seed
def test_deletion_spares_special_tokens(seed):
    ids = sentences(seed)
    for row, found in zip(ids, noisy(ids, seed, delete_rate=0.6), strict=True):
        specials = [token for token in row if 0 < token < ORDINARY]
        assert [token for token in found if 0 < token < ORDINARY] == specials


def test_a_batch_of_special_tokens_and_padding_stays():
    ids = np.array([[3, 1, 2, 4, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], "int32")
    np.testing.assert_array_equal(noisy(ids, **ALL), ids)
    np.testing.assert_array_equal(noisy(ids[2:], **ALL), ids[2:])
    ones = {"shuffle_distance": 9, "delete_rate": 1.0}
    np.testing.assert_array_equal(noisy(ids, mask_rate=1.0, **ones), ids)
    np.testing.assert_array_equal(noisy(ids, replace_rate=1.0, **ones), ids)


@every
def test_shape_and_type(noise):
    for ids in (sentences(0), sentences(0, batch=1), sentences(0).astype("int64")):
        found = corrupt(tf.constant(ids), **{**OFF, **noise}, seed=(0, 0))
        assert found.shape == ids.shape
        assert found.dtype == tf.int32


# -- Masks and replacements ----------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.7])
@each_seed
def test_mask_rate(rate, seed):
    ids = sentences(seed)
    ordinary = ids >= ORDINARY
    found = noisy(ids, seed, mask_rate=rate)
    changed = found != ids
    assert (found[changed] == MASK).all()
    assert_share(changed[ordinary].sum(), ordinary.sum(), rate)


def test_masks_fall_on_every_row_and_column_alike():
    masked = noisy(numbered(400, 40), mask_rate=0.3) == MASK
    for axis in (0, 1):
        counts, total = masked.sum(axis=axis), masked.shape[axis]
        scores = (counts - 0.3 * total) / np.sqrt(total * 0.3 * 0.7)
        assert abs(scores).max() < 5
        assert 0.6 < scores.std() < 1.4  # neither one draw for all nor a quota


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
@each_seed
def test_replace_rate_and_what_replaces(rate, seed):
    ids = skewed(seed)
    found = noisy(ids, seed, replace_rate=rate)
    assert np.isin(found, ids).all()
    shares = np.bincount(ids.ravel()) / ids.size
    differs = 1 - (shares**2).sum()  # from a token drawn from the whole batch
    changed = found != ids
    assert_share(changed.sum(), ids.size, rate * differs)
    # Common ids replace more often, as they would if drawn from the batch.
    for token in (ORDINARY, ORDINARY + 3):
        expected = shares[token] * (1 - shares[token]) / differs
        assert_share((found[changed] == token).sum(), changed.sum(), expected)


def test_replacements_come_from_other_rows_too():
    ids = np.repeat(np.arange(ORDINARY, ORDINARY + 40, dtype="int32"), 20)
    ids = ids.reshape(40, 20)  # each row repeats an id of its own
    changed = noisy(ids, replace_rate=0.5) != ids
    assert_share(changed.sum(), ids.size, 0.5 * 39 / 40)


def test_replacements_are_no_padding_and_no_special_tokens():
    ids = np.zeros((200, 50), "int32")
    ids[:, :3] = [3, 7, 4]
    ids[::2, 1] = 8
    found = noisy(ids, replace_rate=1.0)
    assert set(found[:, 1]) == {7, 8}
    assert (found[:, 1] != ids[:, 1]).any()


@each_seed
def test_rates_of_masks_and_replacements_together(seed):
    ids = skewed(seed)
    found = noisy(ids, seed, mask_rate=0.3, replace_rate=0.7)
    differs = 1 - ((np.bincount(ids.ravel()) / ids.size) ** 2).sum()
    masked = found == MASK
    assert_share(masked.sum(), ids.size, 0.3)
    assert_share((~masked & (found != ids)).sum(), ids.size, 0.7 * differs)


def test_mask_rate_one_masks_all_ordinary_tokens():
    ids = sentences(0)
    expected = np.where(ids >= ORDINARY, MASK, ids)
    np.testing.assert_array_equal(noisy(ids, mask_rate=1.0), expected)
    np.testing.assert_array_equal(noisy(ids, mask_rate=1), expected)


# -- Shuffling -----------------------------------------------------------------------


@pytest.mark.parametrize("distance", [1, 2, 3, 7, 100])
@each_seed
def test_shuffled_rows_are_permutations_of_themselves(distance, seed):
    for ids in (numbered(), sentences(seed)):
        found = noisy(ids, seed, shuffle_distance=distance)
        assert (found != ids).any()
        np.testing.assert_array_equal(np.sort(found), np.sort(ids))


def moves(found):
    """How far the ordinary tokens of numbered rows went."""
    places = np.abs(found - ORDINARY - np.arange(found.shape[1]))
    return places[found >= ORDINARY]


@pytest.mark.parametrize("distance", [1, 2, 3])
@each_seed
def test_tokens_move_up_to_the_distance_and_no_farther(distance, seed):
    assert moves(noisy(numbered(), seed, shuffle_distance=distance)).max() == distance


@pytest.mark.parametrize("distance", [1, 3])
def test_special_tokens_do_not_count_as_places(distance):
    farthest = 0
    ids = sentences(0)
    for row, found in zip(ids, noisy(ids, shuffle_distance=distance), strict=True):
        ordinary, found = row[row >= ORDINARY], found[found >= ORDINARY]
        places = np.searchsorted(ordinary, found)  # numbered rows: they grow
        farthest = max(farthest, np.abs(places - np.arange(len(found))).max())
    assert farthest == distance


def test_a_greater_distance_moves_tokens_farther():
    means = [moves(noisy(numbered(), shuffle_distance=n)).mean() for n in range(5)]
    assert means[0] == 0
    assert (np.diff(means) > 0.1).all()


def test_rows_are_shuffled_independently():
    found = noisy(numbered(), shuffle_distance=3)
    assert len(np.unique(found, axis=0)) == len(found)


# -- Deletion ------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5])
@each_seed
def test_delete_rate(rate, seed):
    ids = sentences(seed)
    total = (ids >= ORDINARY).sum()
    left = (noisy(ids, seed, delete_rate=rate) >= ORDINARY).sum()
    assert_share(total - left, total, rate)


@each_seed
def test_deletion_keeps_the_order_and_pads_on_the_right(seed):
    ids = sentences(seed)
    for row, found in zip(ids, noisy(ids, seed, delete_rate=0.4), strict=True):
        kept = np.trim_zeros(found, "b")
        assert 0 < len(kept) < (row != 0).sum()
        assert (kept != 0).all()
        assert is_subsequence(kept.tolist(), row.tolist())


@each_seed
def test_a_row_that_would_lose_everything_loses_nothing(seed):
    ids = numbered()
    lengths = np.random.default_rng(seed).integers(0, 51, len(ids))
    ids[np.arange(50) >= lengths[:, None]] = 0
    np.testing.assert_array_equal(noisy(ids, seed, delete_rate=1.0), ids)


def test_special_tokens_left_over_do_not_count_as_a_sentence():
    ids = np.array([[3, 9, 8, 4, 0], [9, 1, 0, 0, 0]] * 100, "int32")
    np.testing.assert_array_equal(noisy(ids, delete_rate=1.0), ids)


def test_short_rows_are_never_emptied():
    alone = np.array([[9, 0, 0]] * 500, "int32")
    np.testing.assert_array_equal(noisy(alone, delete_rate=0.5), alone)
    pairs = np.array([[8, 9, 0]] * 4000, "int32")
    left = (noisy(pairs, delete_rate=0.7) != 0).sum(axis=1)
    assert set(left) == {1, 2}
    assert_share((left == 1).sum(), len(pairs), 2 * 0.7 * 0.3)


# -- All kinds together --------------------------------------------------------------


@each_seed
def test_every_kind_of_noise_together(seed):
    ids = numbered()
    found = noisy(ids, seed, mask_rate=0.2, shuffle_distance=2, delete_rate=0.3)
    left = found != 0
    assert_share(ids.size - left.sum(), ids.size, 0.3)
    assert_share((found == MASK).sum(), left.sum(), 0.2)
    for row in found:
        kept = np.trim_zeros(row, "b")
        assert (kept != 0).all()
        tokens = kept[kept != MASK]
        assert len(set(tokens)) == len(tokens)
        # Two tokens that were five or more apart cannot have changed places.
        assert all(
            tokens[n] < tokens[n + 1 :].min() + 5 for n in range(len(tokens) - 1)
        )


def test_masked_tokens_go_missing_like_others():
    found = noisy(numbered(), mask_rate=1.0, delete_rate=0.3)
    assert set(found.ravel()) == {0, MASK}
    assert_share((found == 0).sum(), found.size, 0.3)


# -- Seeds ---------------------------------------------------------------------------


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
    # Else the tokens that go missing would be the masked ones, or never them.
    ids = numbered()
    masked = noisy(ids, mask_rate=0.5) == MASK
    kept = noisy(ids, delete_rate=0.5)
    gone = np.array([~np.isin(*pair) for pair in zip(ids, kept, strict=True)])
    assert_share((masked & gone).sum(), ids.size, 0.25)


def test_works_inside_a_dataset():
    batches = [sentences(0), sentences(1, batch=3, time=20)]
    ids = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=tf.TensorSpec((None, None), tf.int32)
    )
    mapped = tf.data.Dataset.zip(ids, tf.data.Dataset.range(2)).map(
        lambda ids, step: corrupt(ids, **ALL, seed=tf.stack([7, step]))
    )
    found = list(mapped.as_numpy_iterator())
    assert len(found) == 2
    for step, batch in enumerate(batches):
        np.testing.assert_array_equal(
            found[step], corrupt(batch, **ALL, seed=(7, step))
        )


# -- Arguments -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mask_rate", "replace_rate", "delete_rate"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True, "x", None])
def test_bad_rates_raise(name, value):
    with pytest.raises(ValueError, match=name):
        noisy(sentences(0), **{name: value})


@pytest.mark.parametrize("value", [-1, 1.5, True, "x", None, float("nan")])
def test_bad_distances_raise(value):
    with pytest.raises(ValueError, match="shuffle_distance"):
        noisy(sentences(0), shuffle_distance=value)


def test_rates_above_one_together_raise():
    with pytest.raises(ValueError, match="mask_rate.*replace_rate"):
        noisy(sentences(0), mask_rate=0.6, replace_rate=0.5)
