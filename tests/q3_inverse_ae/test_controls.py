"""`q3_inverse_ae.controls`: what sets each of them apart from `InverseAutoencoder`.

Their cost, gradients, precision and copies are tested in `test_inverse_ae`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.q3_inverse_ae import oracles
from tests.q3_inverse_ae.oracles import KINDS, eager, noise, small, untouched


@KINDS
def test_the_gradient_of_a_local_term_is_that_of_its_pair(kind):
    model = small(kind, "local", rank_weight=0.0)
    images = noise(20)
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        loss = model.compute_loss(images, None, model(images))
    found = tape.gradient(loss, variables)
    # The same cost, of pairs that are fed with constants.
    given = [tf.constant(h, "float32") for h in oracles.plain_states(model, images)[0]]
    with tf.GradientTape() as tape:
        pairs = [(images, model(images))]
        pairs += [(h, g(f(h))) for h, (f, g) in zip(given, model.pairs, strict=False)]
        first, *others = (
            tf.reduce_sum((h - estimate) ** 2)
            / tf.reduce_sum(20 * tf.math.reduce_variance(h, 0))
            for h, estimate in pairs
        )
        cost = first + 0.3 * sum(others)
    for gradient, other in zip(found, tape.gradient(cost, variables), strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("variant", ["ours", "absolute", "root"])
def test_an_exact_estimate_has_a_finite_gradient(variant):
    model, states = small("dense", variant), tf.constant(noise(6))
    with tf.GradientTape() as tape:
        tape.watch(states)
        error = model.inversion_error(noise(6), states)
    assert 0 <= float(error) < 1e-3
    np.testing.assert_array_equal(tape.gradient(error, states), np.zeros(states.shape))


@KINDS
def test_tied_decoders_add_only_biases(kind):
    untied, tied = untouched(kind), untouched(kind, "tied")
    kernels = sum(np.prod(shape) for shape in oracles.KERNELS[kind])
    biases = {"dense": 784 + 2 * (24 + 16 + 12) + 8, "conv": 1 + 2 * (4 + 6 + 8) + 8}
    assert tied.count_params() == kernels + biases[kind]
    assert untied.count_params() == 2 * kernels + biases[kind]
    assert len(tied.trainable_weights) == 4 + 8


def assert_tied(model):
    """Compares its layers with those that have the encoder's kernels as they are."""
    _, *hidden = oracles.plain_states(model, noise(3))[0]
    pairs = zip(model.pairs, oracles.plain_pairs(model), hidden, strict=True)
    for (_, decode), (_, g), states in pairs:
        found = decode(np.float32(states))
        np.testing.assert_allclose(found, g(states), rtol=1e-4, atol=1e-5)


@KINDS
def test_tied_kernels_stay_shared(kind, tmp_path):
    model = eager(untouched(kind, "tied"), keras.optimizers.Adam(0.05))
    before = [encode.kernel.numpy() for encode, _ in model.pairs]
    model.train_on_batch(noise())
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        assert type(each) is oracles.CLASSES["tied"]
        assert_tied(each)
        for (encode, _), old in zip(each.pairs, before, strict=True):
            assert abs(encode.kernel - old).numpy().max() > 0.01
        each.train_on_batch(noise(20, 1))
        assert_tied(each)
        for encode, _ in each.pairs:
            encode.kernel.assign(-2 * encode.kernel)
        assert_tied(each)
