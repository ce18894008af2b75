"""q4_denoise_text/pretraining.py: rows in batches, denoising examples, training."""

import functools
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from common import resume
from q4_denoise_text.corpus import SPECIAL_TOKENS
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import (
    LENGTHS,
    NOISE,
    Buckets,
    denoising_batches,
    denoising_example,
    pretrain,
    share_of_intact,
)
from tests.compiled import EAGER, compile_all
from tests.interruption import KillAt, Killed

ORDINARY = len(SPECIAL_TOKENS)
MASK = SPECIAL_TOKENS.index("[MASK]")
START = SPECIAL_TOKENS.index("[START]")
OFF = {"mask_rate": 0.0, "replace_rate": 0.0, "shuffle_distance": 0}
each_seed = pytest.mark.parametrize("seed", range(3))
each_decoder = pytest.mark.parametrize("decoder", ["parallel", "autoregressive"])


def numbered_rows(count=500, longest=64):
    """Rows of all lengths, each of one id that is its own."""
    lengths = np.random.default_rng(0).permutation(np.arange(count) % longest + 1)
    return [np.full(size, ORDINARY + n, "int32") for n, size in enumerate(lengths)]


def buckets(count=500, tokens=256, **options):
    return Buckets(numbered_rows(count), tokens=tokens, **options)


def steps(buckets, count, seed=0):
    return [ids for ids, _ in itertools.islice(buckets.steps(seed), count)]


def row_numbers(batches):
    return [row[0] - ORDINARY for batch in batches for row in batch]


# -- Batches of rows -----------------------------------------------------------------


@each_seed
def test_a_pass_uses_every_row_at_most_once(seed):
    rows, data = numbered_rows(), buckets()
    for number in range(3):
        end = (number + 1) * len(data)
        numbers = row_numbers(steps(data, end, seed)[-len(data) :])
        assert len(set(numbers)) == len(numbers)
        # What is left over is less than a batch of each length.
        left = set(range(len(rows))) - set(numbers)
        for shorter, length in itertools.pairwise((0, *LENGTHS)):
            missing = [n for n in left if shorter < len(rows[n]) <= length]
            assert len(missing) < max(256 // length, 1)


def test_rows_left_over_differ_between_passes():
    data = buckets()
    assert len(set(row_numbers(steps(data, len(data))))) < 500
    assert set(row_numbers(steps(data, 20 * len(data)))) == set(range(500))


@each_seed
def test_rows_are_whole_and_as_little_padded_as_lengths_allow(seed):
    rows, data = numbered_rows(), buckets()
    for batch in steps(data, len(data), seed):
        length = batch.shape[1]
        assert length in LENGTHS
        for row in batch:
            original = rows[row[0] - ORDINARY]
            np.testing.assert_array_equal(row[: len(original)], original)
            assert (row[len(original) :] == 0).all()
            assert min(n for n in LENGTHS if n >= len(original)) == length


def test_all_rows_of_a_batch_fit_other_lengths():
    # Of 15 rows of up to 5 ids and 45 of up to 20.
    data = Buckets(numbered_rows(60, 20), lengths=(5, 20), tokens=50)
    shapes = [batch.shape for batch in steps(data, len(data))]
    assert sorted(shapes) == [(2, 20)] * (45 // 2) + [(10, 5)] * (15 // 10)


@pytest.mark.parametrize("tokens", [64, 256, 1000])
def test_batches_hold_about_so_many_ids(tokens):
    data = buckets(tokens=tokens)
    batches = steps(data, len(data))
    assert {batch.shape[1] for batch in batches} <= set(LENGTHS)
    assert len({batch.shape[1] for batch in batches}) > 1
    for batch in batches:
        assert abs(batch.size - tokens) < batch.shape[1]


def test_passes_differ():
    data = buckets()
    batches = steps(data, 2 * len(data))
    first, second = row_numbers(batches[: len(data)]), row_numbers(batches[len(data) :])
    assert first != second
    # Nor are the batches the same ones in another order.
    assert not {frozenset(row_numbers([batch])) for batch in batches[: len(data)]} & {
        frozenset(row_numbers([batch])) for batch in batches[len(data) :]
    }


def test_lengths_follow_each_other_in_no_order():
    data = buckets()
    found = [batch.shape[1] for batch in steps(data, len(data))]
    changes = sum(one != next_one for one, next_one in itertools.pairwise(found))
    assert changes > 2 * len(LENGTHS)


def test_seed_and_number_of_the_pass_alone_decide_on_the_order():
    def flat(seed, number):
        order = buckets().order(seed, number)
        return [(bucket, list(numbers)) for bucket, numbers in order]

    data = buckets()
    assert len(data.order(0, 0)) == len(data)
    assert flat(3, 2) == flat(3, 2)
    assert flat(3, 2) != flat(3, 1)
    assert flat(3, 2) != flat(2, 2)
    sizes = [len(numbers) for _, numbers in data.order(3, 2)]
    found = steps(data, 3 * len(data), seed=3)[2 * len(data) :]
    assert sizes == [len(batch) for batch in found]


def test_steps_are_numbered_over_the_end_of_a_pass():
    data = buckets()
    found = itertools.islice(data.steps(1), 3 * len(data))
    assert [step for _, step in found] == list(range(3 * len(data)))


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ([], {}),
        (numbered_rows(3), {}),
        (numbered_rows(500, 65), {"tokens": 256}),
        (numbered_rows(500, 20), {"lengths": (8, 16), "tokens": 64}),
    ],
    ids=["none", "too few", "a row too long", "rows too long"],
)
def test_bad_rows_raise(rows, options):
    with pytest.raises(ValueError, match="rows"):
        Buckets(rows, **options)


@pytest.mark.parametrize(
    "options",
    [{"tokens": 0}, {"tokens": 4}, {"lengths": ()}, {"lengths": (64, 8)}],
    ids=["no tokens", "less than a row", "no lengths", "decreasing lengths"],
)
def test_bad_sizes_raise(options):
    with pytest.raises(ValueError):
        Buckets(numbered_rows(), **{"tokens": 256, **options})


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


def test_the_share_of_intact_tokens_that_are_asked_for():
    rng = np.random.default_rng(0)
    rows = list(rng.integers(ORDINARY, 9_000, (600, 32), dtype="int32"))
    data = Buckets(rows, lengths=(32,), tokens=1_024)
    asked, intact = 0, 0
    for ids, step in itertools.islice(data.steps(0), 15):
        inputs, _, _ = example(ids, (0, step))
        same = inputs["token_ids"] == ids
        asked += np.take_along_axis(same, inputs["positions"], axis=1).sum()
        intact += same.sum()
    assert share_of_intact(data, batches=15) == pytest.approx(asked / intact, abs=0.01)


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


@each_seed
def test_an_autoregressive_decoder_reads_the_original_moved_on(seed):
    ids = sentences(seed)
    inputs, targets, weights = example(ids, (seed, 1), decoder="autoregressive")
    assert set(inputs) == {"token_ids", "previous_ids"}
    assert (inputs["token_ids"] != ids).any()
    assert (inputs["previous_ids"][:, 0] == START).all()
    np.testing.assert_array_equal(inputs["previous_ids"][:, 1:], ids[:, :-1])
    np.testing.assert_array_equal(targets, ids)
    np.testing.assert_array_equal(weights, ids != 0)


def test_deletion_leaves_autoregressive_targets_alone():
    ids = sentences()
    noise = {**NOISE, "delete_rate": 0.3}
    inputs, targets, weights = example(ids, noise=noise, decoder="autoregressive")
    assert (inputs["token_ids"] != 0).sum() < 0.8 * (ids != 0).sum()
    np.testing.assert_array_equal(targets, ids)
    np.testing.assert_array_equal(weights, ids != 0)


@each_decoder
def test_the_seed_alone_decides_on_the_noise(decoder):
    ids = sentences()
    one, same, other = (
        example(ids, seed, decoder=decoder) for seed in [(1, 2), (1, 2), (1, 3)]
    )
    for found, expected in zip(
        tf.nest.flatten(same), tf.nest.flatten(one), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert (other[0]["token_ids"] != one[0]["token_ids"]).any()


@each_decoder
def test_types(decoder):
    inputs, targets, weights = denoising_example(sentences(), (0, 0), decoder=decoder)
    assert {value.dtype for value in inputs.values()} == {tf.int32}
    assert (tf.as_dtype(targets.dtype), weights.dtype) == (tf.int32, tf.float32)


@each_decoder
def test_any_int_ids_will_do(decoder):
    ids = sentences()
    found = example(tf.constant(ids, tf.int64), decoder=decoder)
    expected = example(ids, decoder=decoder)
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


# -- Endless batches -----------------------------------------------------------------


def take(dataset, count):
    return [tf.nest.flatten(batch) for batch in dataset.take(count).as_numpy_iterator()]


def assert_same_batches(found, expected):
    assert len(found) == len(expected) > 0
    for batch, other in zip(found, expected, strict=True):
        for array, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, same)


@each_decoder
def test_data_made_anew_are_the_same_over_the_end_of_a_pass(decoder):
    def data():
        return denoising_batches(buckets(120, 512), seed=3, decoder=decoder)

    count = len(buckets(120, 512)) + 3
    assert_same_batches(take(data(), count), take(data(), count))


def test_the_seed_alone_decides_on_the_data():
    def first_batches(seed):
        return take(denoising_batches(buckets(), seed=seed), 3)

    one = first_batches(1)
    assert_same_batches(first_batches(1), one)
    ids, others = one[0][-2], first_batches(2)[0][-2]
    assert ids.shape != others.shape or (ids != others).any()


def test_noise_is_drawn_afresh_for_every_pass():
    rows = [np.arange(ORDINARY, ORDINARY + 64, dtype="int32") for _ in range(4)]
    data = Buckets(rows, lengths=(64,), tokens=256)  # one batch, of equal rows
    assert len(data) == 1
    inputs = [inputs["token_ids"] for inputs, _, _ in denoising_batches(data).take(3)]
    for one, other in itertools.combinations(inputs, 2):
        assert (one.numpy() != other.numpy()).any()


def test_noise_is_that_asked_for():
    data = buckets()
    off = denoising_batches(data, noise=OFF, decoder="autoregressive")
    for inputs, targets, _ in off.take(3):
        np.testing.assert_array_equal(inputs["token_ids"], targets)
    noise = {**OFF, "mask_rate": 1.0}
    masked = denoising_batches(data, noise=noise, decoder="autoregressive")
    for inputs, targets, _ in masked.take(3):
        expected = np.where(targets != 0, MASK, 0)
        np.testing.assert_array_equal(inputs["token_ids"], expected)


# -- A pre-training ------------------------------------------------------------------


def pretrained(folder):
    return pretrain(
        lambda: build_denoiser(ORDINARY + 60, width=16, depth=1, heads=2),
        numbered_rows(60, 8),
        folder=folder,
        epochs=3,
        steps=2,
        tokens=64,
    )


def test_a_killed_pretraining_ends_with_the_same_weights(tmp_path, monkeypatch):
    compile_all(monkeypatch, **EAGER)
    whole, history = pretrained(tmp_path / "whole")
    with monkeypatch.context() as patch:
        killed = functools.partial(resume.fit, callbacks=[KillAt(5)])
        patch.setattr(resume, "fit", killed)
        with pytest.raises(Killed):  # in the third epoch
            pretrained(tmp_path / "part")
    resumed, resumed_history = pretrained(tmp_path / "part")
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert history == resumed_history
    assert len(history["loss"]) == 3
