"""`q3_inverse_ae.losses`: shares and counts by hand and by NumPy, layer by layer."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from q3_inverse_ae.losses import (
    EveryOther,
    InversionLoss,
    RankLoss,
    StopGradient,
    participation_ratio,
    unexplained_variance,
)
from tests.q3_inverse_ae.test_inverse_ae import (
    noise,
    numpy_error,
    numpy_fvu,
    numpy_participation_ratio,
)

ERRORS = pytest.mark.parametrize("error", ["relative", "squared", "absolute"])


@pytest.mark.parametrize("shape", [(5,), (40,), (256,), (257,), (300,), (5, 5, 13)])
@pytest.mark.parametrize("count", [7, 60])
def test_participation_ratio_is_that_of_the_eigenvalues(shape, count):
    rng = np.random.default_rng(0)
    states = rng.normal(3, 1, (count, *shape)) * rng.exponential(size=shape)
    expected = numpy_participation_ratio(states)
    assert 1 < expected < min(np.prod(shape), count - 1)
    for scale in (0.1, 1, 100):
        found = participation_ratio(tf.constant(scale * states, "float32"))
        np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("width", [20, 300])
def test_participation_ratio_counts_directions(width):
    rng = np.random.default_rng(0)
    one = rng.normal(size=(50, 1)) * rng.normal(size=width)
    np.testing.assert_allclose(participation_ratio(np.float32(one + 2)), 1, rtol=1e-4)
    three = np.zeros((4, width), "float32")
    three[:3, :3] = np.eye(3)
    three[3, :3] = -1
    # Columns (1, 0, 0, -1) and so on: eigenvalues 4, 1 and 1.
    np.testing.assert_allclose(participation_ratio(three), 36 / 18, rtol=1e-5)


def test_unexplained_variance_is_one_at_the_mean_and_zero_where_exact():
    rng = np.random.default_rng(0)
    targets = rng.normal(2, 1, (30, 4, 4, 3)).astype("float32")
    mean = np.broadcast_to(targets.mean(axis=0), targets.shape)
    assert float(unexplained_variance(targets, targets)) == 0
    np.testing.assert_allclose(unexplained_variance(targets, mean), 1, rtol=1e-5)
    halfway = (targets + mean) / 2
    np.testing.assert_allclose(unexplained_variance(targets, halfway), 0.25, rtol=1e-5)
    estimates = rng.normal(size=targets.shape).astype("float32")
    expected = numpy_fvu(targets, estimates)
    for scale in (0.1, 1, 100):
        found = unexplained_variance(scale * targets, scale * estimates)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_targets_that_do_not_vary_leave_nothing_unexplained():
    targets, estimates = tf.constant(noise(1)), tf.constant(noise(1, 1))
    with tf.GradientTape() as tape:
        tape.watch([targets, estimates])
        share = unexplained_variance(targets, estimates)
    assert float(share) == 0
    for gradient in tape.gradient(share, [targets, estimates]):
        np.testing.assert_array_equal(gradient, np.zeros(targets.shape))


@pytest.mark.parametrize("count", [1, 5, 6])
def test_every_other_state_counts_from_the_first(count):
    states = noise(count)
    found = EveryOther()(states)
    np.testing.assert_array_equal(found, states[list(range(0, count, 2))])
    symbolic = EveryOther()(keras.Input((28, 28, 1), batch_size=count))
    assert symbolic.shape == (None, 28, 28, 1)


@pytest.mark.parametrize(
    "layer, options",
    [
        (InversionLoss, {"weight": 0.25, "error": "relative", "name": "one"}),
        (InversionLoss, {"weight": 2.0, "error": "absolute"}),
        (InversionLoss, {"weight": 1, "error": "squared", "name": "three"}),
        (RankLoss, {"weight": 0.125, "name": "two"}),
        (EveryOther, {"name": "half"}),
        (StopGradient, {"name": "four"}),
    ],
)
def test_the_config_rebuilds_a_loss_layer(layer, options):
    first = layer(**options)
    config = json.loads(json.dumps(first.get_config()))
    assert {**options, "name": first.name}.items() <= config.items()
    assert layer.from_config(config).get_config() == first.get_config()
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(first)))
    stored = keras.saving.deserialize_keras_object(stored)
    assert type(stored) is layer
    assert stored.get_config() == first.get_config()


@ERRORS
def test_an_inversion_loss_hands_states_on_and_adds_its_error(error):
    states, targets, estimates = (noise(6, seed) for seed in range(3))
    layer = InversionLoss(2.0, error, name="term")
    np.testing.assert_array_equal(layer(states, targets, estimates), states)
    expected = 2 * numpy_error(error, targets, estimates)
    np.testing.assert_allclose(layer.losses[0], expected, rtol=1e-5)
    (metric,) = layer.metrics
    assert metric.name == "term"
    expected = numpy_fvu(targets, estimates)
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-5)


@ERRORS
def test_an_exact_estimate_has_a_finite_gradient(error):
    states = tf.constant(noise(6))
    layer = InversionLoss(1.0, error)
    with tf.GradientTape() as tape:
        tape.watch(states)
        layer(states, noise(6), states)
        (loss,) = layer.losses
    assert 0 <= float(loss) < 1e-3
    np.testing.assert_array_equal(tape.gradient(loss, states), np.zeros(states.shape))


def test_a_rank_loss_and_a_stopped_gradient_hand_states_on():
    states = tf.constant(noise(6))
    rank = RankLoss(3.0)
    np.testing.assert_array_equal(rank(states), states)
    expected = 3 / numpy_participation_ratio(states)
    np.testing.assert_allclose(rank.losses[0], expected, rtol=1e-4)
    with tf.GradientTape() as tape:
        tape.watch(states)
        stopped = StopGradient()(states)
    np.testing.assert_array_equal(stopped, states)
    assert tape.gradient(stopped, states) is None
