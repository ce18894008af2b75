"""Several devices: `fit` under `tf.distribute.MirroredStrategy`, on two logical CPUs.

Gradients are small and rows are whole here: Keras clips the gradient of every replica
before it sums them, and averages a weighted loss replica by replica.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from q1_tbptt.tbptt import TBPTTClassifier
from q4_denoise_text.data import denoising_batches
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import compile_denoiser
from tests.two_devices import mirrored

STEPS, VOCAB = 3, 20


def truncated():
    """Returns weights and history of a few steps of question 1, in float64."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, VOCAB, (4 * STEPS, 5))
    ids[::3, :2] = 0
    labels = rng.integers(0, 2, 4 * STEPS)
    keras.utils.set_random_seed(0)
    cell = keras.layers.LSTMCell(4, dtype="float64")
    model = TBPTTClassifier(cell, VOCAB, 3, t=2, dropout=0.0, dtype="float64")
    optimizer = keras.optimizers.SGD(1.0, momentum=0.9)
    loss = keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64")
    model.compile(optimizer, loss, jit_compile=False)
    history = model.fit(ids, labels, batch_size=4, shuffle=False, verbose=0)
    return model.get_weights(), history.history


def denoised():
    """Returns the weights after a few steps of question 4's pre-training."""
    keras.utils.set_random_seed(0)
    model = build_denoiser(VOCAB, width=4, depth=1, heads=1, max_length=8)
    compile_denoiser(model, steps=10 * STEPS, jit_compile=False)
    model.set_weights([0.2 * weight for weight in model.get_weights()])
    rows = [np.random.default_rng(i).integers(5, VOCAB, 8) for i in range(64)]
    batches = denoising_batches(rows, lengths=(8,), tokens=64).take(STEPS)
    # A strategy may begin to read more than once: each time the same batches.
    stacked = keras.tree.map_structure(
        lambda *parts: np.stack(parts), *batches.as_numpy_iterator()
    )
    batches = tf.data.Dataset.from_tensor_slices(stacked)
    model.fit(batches, steps_per_epoch=STEPS, shuffle=False, verbose=0)
    return model.get_weights()


def both():
    """Returns what the two devices find: one process, as they start slowly."""
    return truncated(), denoised()


@pytest.fixture(scope="module")
def two_devices():
    return mirrored(__name__, "both()")


def largest_difference(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


def test_two_devices_take_the_truncated_steps_of_one(two_devices):
    weights, history = truncated()
    found, logs = two_devices[0]
    assert largest_difference(found, weights) < 1e-9
    # The logged loss is the share of one of two replicas.
    np.testing.assert_allclose(2 * np.array(logs["loss"]), history["loss"], rtol=1e-6)


def test_two_devices_pretrain_as_one(two_devices):
    assert largest_difference(two_devices[1], denoised()) < 1e-5
