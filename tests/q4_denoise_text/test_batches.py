"""`q4_denoise_text.data`: denoising examples, and batches of them without end."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from common.text import bucketed_batches
from q4_denoise_text import data
from q4_denoise_text.data import LENGTHS, OFF, SPECIAL_TOKENS, TOKENS

ORDINARY = len(SPECIAL_TOKENS)  # the first id that is no special token
MASK = SPECIAL_TOKENS.index("[MASK]")
each_seed = pytest.mark.parametrize("seed", range(3))


def numbered_rows(count=500, longest=64):
    """Rows of all lengths, each of one id that is its own."""
    lengths = np.random.default_rng(0).permutation(np.arange(count) % longest + 1)
    return [np.full(size, ORDINARY + n, "int32") for n, size in enumerate(lengths)]


def sentences(seed=0, batch=200, time=32, shortest=3):
    """Ids in which no row repeats one, padded on the right."""
    rng = np.random.default_rng(seed)
    ids = rng.permuted(np.tile(np.arange(ORDINARY, 200), (batch, 1)), axis=1)
    ids = ids[:, :time].astype("int32")
    lengths = rng.integers(shortest, time + 1, batch)
    ids[np.arange(time) >= lengths[:, None]] = 0
    return ids


def example(ids, seed=(0, 0), **options):
    return tf.nest.map_structure(np.array, data.denoising_example(ids, seed, **options))


@each_seed
def test_targets_are_the_original_ids_at_the_positions(seed):
    ids = sentences(seed)
    inputs, targets, weights = example(ids, (seed, 1))
    assert set(inputs) == {"token_ids", "positions"}
    assert {value.dtype.name for value in (*inputs.values(), targets)} == {"int32"}
    assert weights.dtype == np.float32
    assert inputs["token_ids"].shape == ids.shape
    assert (inputs["token_ids"] != ids).any()
    expected = np.take_along_axis(ids, inputs["positions"], axis=1)
    np.testing.assert_array_equal(targets, expected)
    np.testing.assert_array_equal(weights, expected != 0)
    for positions in inputs["positions"]:
        assert len(set(positions)) == len(positions)


@each_seed
@pytest.mark.parametrize("share", [0.05, 0.35, 1.0])
def test_corrupted_positions_come_first(seed, share):
    ids = sentences(seed)
    inputs, _, _ = example(ids, (seed, 1), share=share)
    corrupted = inputs["token_ids"] != ids
    asked_for = np.zeros_like(corrupted)
    np.put_along_axis(asked_for, inputs["positions"], True, axis=1)
    few = corrupted.sum(axis=1) <= inputs["positions"].shape[1]
    assert few.any()
    assert asked_for[corrupted & few[:, None]].all()
    assert corrupted[asked_for & ~few[:, None]].all()


@pytest.mark.parametrize("step", range(3))
def test_the_choice_does_not_tell_what_happened_to_a_token(step):
    ids = sentences(batch=2_000, time=20, shortest=20)
    noise = OFF | {"shuffle_distance": 1}
    inputs, targets, _ = example(ids, (0, step), noise=noise, share=0.1)
    token_ids, positions = inputs["token_ids"], inputs["positions"]
    before = np.take_along_axis(token_ids, np.maximum(positions - 1, 0), axis=1)
    corrupted = np.take_along_axis(token_ids, positions, axis=1)
    moved_left = (before == targets)[corrupted != targets].mean()
    assert abs(moved_left - 0.5) < 0.05


def test_the_ratio_is_that_of_bayes_rule():
    rng = np.random.default_rng(0)
    rows = list(rng.integers(ORDINARY, 9_000, (TOKENS // 32 * 15, 32), dtype="int32"))
    asked = {True: [], False: []}  # by whether a token is corrupted
    options = {"tokens_per_batch": TOKENS, "bucket_lengths": LENGTHS}
    batches = bucketed_batches(rows, **options, padding="right")
    for step, ids in enumerate(batches.as_numpy_iterator()):
        inputs, _, _ = example(ids, (0, step))
        corrupted = inputs["token_ids"] != ids
        for row, places in zip(corrupted, inputs["positions"], strict=True):
            for place in range(32):
                asked[bool(row[place])].append(place in places)
    expected = np.mean(asked[False]) / np.mean(asked[True])
    assert np.mean(asked[True]) < 1
    assert data.intact_ratio(rows, batches=15) == pytest.approx(expected)


@each_seed
@pytest.mark.parametrize("share", [0.01, 0.35, 0.5, 0.9, 1.0])
def test_a_share_of_all_positions_is_asked_for_and_padding_last(share, seed):
    for time in (1, 7, 8, 9, 11, 16, 20, 32):
        ids = sentences(seed, time=time, shortest=1)
        inputs, targets, weights = example(ids, (seed, 1), share=share)
        shape = (200, math.ceil(share * time))
        assert inputs["positions"].shape == targets.shape == weights.shape == shape
        expected = np.minimum((ids != 0).sum(axis=1), shape[1])
        np.testing.assert_array_equal(weights.sum(axis=1), expected)


def test_intact_positions_are_drawn_at_random():
    ids = sentences(batch=400, time=20, shortest=20)
    inputs, _, _ = example(ids, noise=OFF, share=0.5)
    np.testing.assert_array_equal(inputs["token_ids"], ids)
    counts = np.bincount(inputs["positions"].ravel(), minlength=20)
    assert abs(counts - 200).max() < 5 * np.sqrt(400 * 0.5 * 0.5)


def test_the_seed_alone_decides_on_the_noise_whatever_the_type_of_the_ids():
    ids = sentences()
    one, same, other = (example(ids, seed) for seed in [(1, 2), (1, 2), (1, 3)])
    of_int64 = example(tf.constant(ids, tf.int64), (1, 2))
    for found in (same, of_int64):
        tf.nest.map_structure(np.testing.assert_array_equal, found, one)
    assert (other[0]["token_ids"] != one[0]["token_ids"]).any()


def numbered_batches(seed=0, **options):
    return data.denoising_batches(numbered_rows(), seed=seed, tokens=256, **options)


def test_the_seed_alone_decides_on_the_data_over_the_end_of_a_pass():
    rows = numbered_rows()
    one_pass = bucketed_batches(rows, tokens_per_batch=256, bucket_lengths=LENGTHS)
    count = len(one_pass) + 3
    one, same, other = (
        list(numbered_batches(seed).take(count).as_numpy_iterator())
        for seed in (3, 3, 2)
    )
    assert len(one) == count
    tf.nest.map_structure(np.testing.assert_array_equal, same, one)
    targets, others = one[0][1], other[0][1]
    assert targets.shape != others.shape or (targets != others).any()


def test_noise_is_drawn_again_for_every_pass():
    rows = [np.arange(ORDINARY, ORDINARY + 64, dtype="int32") for _ in range(4)]
    batches = data.denoising_batches(rows, lengths=(64,), tokens=256)  # one, equal rows
    inputs = [inputs["token_ids"] for inputs, _, _ in batches.take(3)]
    for one, other in itertools.combinations(inputs, 2):
        assert (one.numpy() != other.numpy()).any()


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_noise_is_that_asked_for(rate):
    batches = numbered_batches(noise=OFF | {"mask_rate": rate}, share=1.0)
    for inputs, targets, _ in batches.take(3):
        order = np.argsort(inputs["positions"], axis=1)
        original = np.take_along_axis(targets.numpy(), order, axis=1)
        expected = np.where(original != 0, MASK, 0) if rate else original
        np.testing.assert_array_equal(inputs["token_ids"], expected)
