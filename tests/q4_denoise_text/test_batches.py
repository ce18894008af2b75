"""`q4_denoise_text.data`: denoising examples, and batches of them without end."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from common.text import bucketed_batches
from q4_denoise_text.data import (
    LENGTHS,
    SPECIAL_TOKENS,
    TOKENS,
    denoising_batches,
    denoising_example,
    intact_ratio,
)

ORDINARY = len(SPECIAL_TOKENS)
MASK = SPECIAL_TOKENS.index("[MASK]")
OFF = {"mask_rate": 0.0, "replace_rate": 0.0, "shuffle_distance": 0}
each_seed = pytest.mark.parametrize("seed", range(3))


def numbered_rows(count=500, longest=64):
    """Rows of all lengths, each of one id that is its own."""
    lengths = np.random.default_rng(0).permutation(np.arange(count) % longest + 1)
    return [np.full(size, ORDINARY + n, "int32") for n, size in enumerate(lengths)]


# -- Denoising examples --------------------------------------------------------------


def sentences(seed=0, batch=200, time=32, shortest=3):
    """Ids in which no row repeats one, padded on the right."""
    rng = np.random.default_rng(seed)
    ids = rng.permuted(np.tile(np.arange(ORDINARY, 200), (batch, 1)), axis=1)
    ids = ids[:, :time].astype("int32")
    lengths = rng.integers(shortest, time + 1, batch)
    ids[np.arange(time) >= lengths[:, None]] = 0
    return ids


def example(ids, seed=(0, 0), **options):
    inputs, targets, weights = denoising_example(ids, seed, **options)
    inputs = {name: np.array(value) for name, value in inputs.items()}
    return inputs, np.array(targets), np.array(weights)


@each_seed
def test_targets_are_the_original_ids_at_the_positions(seed):
    ids = sentences(seed)
    inputs, targets, weights = example(ids, (seed, 1))
    assert set(inputs) == {"token_ids", "positions"}
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
    places = inputs["positions"].shape[1]
    few = corrupted.sum(axis=1) <= places
    assert few.any()
    assert asked_for[corrupted & few[:, None]].all()
    assert corrupted[asked_for & ~few[:, None]].all()


@pytest.mark.parametrize("step", range(3))
def test_the_choice_does_not_tell_what_happened_to_a_token(step):
    ids = sentences(batch=2_000, time=20, shortest=20)
    noise = OFF | {"shuffle_distance": 1}
    inputs, targets, _ = example(ids, (0, step), noise=noise, share=0.1)
    before = np.take_along_axis(
        inputs["token_ids"], np.maximum(inputs["positions"] - 1, 0), axis=1
    )
    corrupted = np.take_along_axis(inputs["token_ids"], inputs["positions"], axis=1)
    moved_left = (before == targets)[corrupted != targets].mean()
    assert abs(moved_left - 0.5) < 0.05


def test_the_ratio_is_that_of_bayes_rule():
    rng = np.random.default_rng(0)
    rows = list(rng.integers(ORDINARY, 9_000, (TOKENS // 32 * 15, 32), dtype="int32"))
    asked = {True: [], False: []}  # by whether a token is corrupted
    batches = bucketed_batches(
        rows, tokens_per_batch=TOKENS, bucket_lengths=LENGTHS, padding="right"
    )
    for step, ids in enumerate(batches.as_numpy_iterator()):
        inputs, _, _ = example(ids, (0, step))
        for row, before, places in zip(
            inputs["token_ids"], ids, inputs["positions"], strict=True
        ):
            for place in range(32):
                corrupted = row[place] != before[place]
                asked[corrupted].append(place in places)
    expected = np.mean(asked[False]) / np.mean(asked[True])
    assert np.mean(asked[True]) < 1
    assert intact_ratio(rows, batches=15) == pytest.approx(expected)


@each_seed
def test_padding_comes_last(seed):
    ids = sentences(seed)
    _, _, weights = example(ids, (seed, 1), share=0.5)
    expected = np.minimum((ids != 0).sum(axis=1), 16)
    np.testing.assert_array_equal(weights.sum(axis=1), expected)


@pytest.mark.parametrize(
    ("share", "time"),
    [(0.35, 16), (0.35, 20), (0.5, 9), (0.01, 8), (1.0, 7), (0.9, 11), (0.35, 1)],
)
def test_number_of_positions(share, time):
    ids = sentences(batch=5, time=time, shortest=1)
    inputs, targets, weights = example(ids, share=share)
    shape = (5, math.ceil(share * time))
    assert inputs["positions"].shape == targets.shape == weights.shape == shape


def test_intact_positions_are_drawn_at_random():
    ids = sentences(batch=400, time=20, shortest=20)
    inputs, _, _ = example(ids, noise=OFF, share=0.5)
    np.testing.assert_array_equal(inputs["token_ids"], ids)
    counts = np.bincount(inputs["positions"].ravel(), minlength=20)
    assert abs(counts - 200).max() < 5 * np.sqrt(400 * 0.5 * 0.5)


def test_the_seed_alone_decides_on_the_noise():
    ids = sentences()
    one, same, other = (example(ids, seed) for seed in [(1, 2), (1, 2), (1, 3)])
    for found, expected in zip(
        tf.nest.flatten(same), tf.nest.flatten(one), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert (other[0]["token_ids"] != one[0]["token_ids"]).any()


def test_types():
    inputs, targets, weights = denoising_example(sentences(), (0, 0))
    assert {value.dtype for value in inputs.values()} == {tf.int32}
    assert (tf.as_dtype(targets.dtype), weights.dtype) == (tf.int32, tf.float32)


def test_any_int_ids_will_do():
    ids = sentences()
    found = example(tf.constant(ids, tf.int64))
    expected = example(ids)
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


# -- Endless batches -----------------------------------------------------------------


def take(dataset, count):
    return [tf.nest.flatten(batch) for batch in dataset.take(count).as_numpy_iterator()]


def assert_same_batches(found, expected):
    assert len(found) == len(expected) > 0
    for batch, other in zip(found, expected, strict=True):
        for array, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, same)


def numbered_batches(seed=0, **options):
    return denoising_batches(numbered_rows(), seed=seed, tokens=256, **options)


def test_data_made_again_are_the_same_over_the_end_of_a_pass():
    passes = bucketed_batches(
        numbered_rows(), tokens_per_batch=256, bucket_lengths=LENGTHS
    )
    count = int(passes.cardinality()) + 3
    both = [take(numbered_batches(seed=3), count) for _ in range(2)]
    assert_same_batches(*both)


def test_the_seed_alone_decides_on_the_data():
    one = take(numbered_batches(1), 3)
    assert_same_batches(take(numbered_batches(1), 3), one)
    ids, others = one[0][-2], take(numbered_batches(2), 3)[0][-2]
    assert ids.shape != others.shape or (ids != others).any()


def test_noise_is_drawn_again_for_every_pass():
    rows = [np.arange(ORDINARY, ORDINARY + 64, dtype="int32") for _ in range(4)]
    data = denoising_batches(rows, lengths=(64,), tokens=256)  # one batch, equal rows
    inputs = [inputs["token_ids"] for inputs, _, _ in data.take(3)]
    for one, other in itertools.combinations(inputs, 2):
        assert (one.numpy() != other.numpy()).any()


def test_noise_is_that_asked_for():
    for inputs, targets, _ in numbered_batches(noise=OFF, share=1.0).take(3):
        order = np.argsort(inputs["positions"], axis=1)
        original = np.take_along_axis(targets.numpy(), order, axis=1)
        np.testing.assert_array_equal(inputs["token_ids"], original)
    noise = {**OFF, "mask_rate": 1.0}
    for inputs, targets, _ in numbered_batches(noise=noise, share=1.0).take(3):
        order = np.argsort(inputs["positions"], axis=1)
        original = np.take_along_axis(targets.numpy(), order, axis=1)
        expected = np.where(original != 0, MASK, 0)
        np.testing.assert_array_equal(inputs["token_ids"], expected)
