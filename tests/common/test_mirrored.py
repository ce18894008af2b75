"""Several devices: `fit` under `tf.distribute.MirroredStrategy`, on two logical CPUs.

Keras clips the gradient of every replica before it sums them, which
https://github.com/tensorflow/tensorflow/issues/33929 calls "usually wrong", and a
weighted loss is the mean of the replicas' weighted means. Where that makes a
difference, the oracle does what Keras does.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from q1_tbptt.gradients import parameter_gradient
from q1_tbptt.tbptt import TBPTTClassifier
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import Buckets, compile_denoiser, denoising_batches
from tests.two_devices import mirrored

STEPS, VOCAB, LIMIT = 3, 20, 0.05


def classifier(cell, clipnorm=None):
    """Returns a compiled model of question 1 in float64, and data for it."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, VOCAB, (4 * STEPS, 5))
    ids[::3, :2] = 0
    labels = rng.integers(0, 2, 4 * STEPS)
    keras.utils.set_random_seed(0)
    cell = cell(4, dtype="float64")
    model = TBPTTClassifier(cell, VOCAB, 3, t=2, dropout=0.0, dtype="float64")
    optimizer = keras.optimizers.SGD(1.0, momentum=0.9, global_clipnorm=clipnorm)
    loss = keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64")
    model.compile(optimizer, loss, jit_compile=False)
    return model, ids, labels


def truncated(cell, clipnorm=None):
    """Returns weights and history of a few steps of question 1, in float64."""
    model, ids, labels = classifier(cell, clipnorm)
    history = model.fit(ids, labels, batch_size=4, shuffle=False, verbose=0)
    return model.get_weights(), history.history


def truncated_halves_clipped_by_hand(cell, clipnorm):
    """Trains question 1: clips the gradients of half batches, then adds them."""
    model, ids, labels = classifier(cell)
    variables = model.trainable_variables
    ends = np.cumsum([np.prod(v.shape) for v in variables])
    for start in range(0, len(ids), 4):
        total = 0.0
        for half in (slice(start, start + 2), slice(start + 2, start + 4)):
            part = parameter_gradient(model, ids[half], labels[half], t=2) / 2
            norm = np.linalg.norm(part)
            assert norm > clipnorm
            total += part * clipnorm / norm
        parts = zip(np.split(total, ends[:-1]), variables, strict=True)
        gradients = [tf.reshape(part, variable.shape) for part, variable in parts]
        model.optimizer.apply(gradients, variables)
    return model.get_weights()


def denoiser():
    """Returns a compiled denoiser of question 4 and the weights that it starts from."""
    keras.utils.set_random_seed(0)
    model = build_denoiser(VOCAB, width=4, depth=1, heads=1, max_length=8)
    compile_denoiser(model, steps=10 * STEPS, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model, model.get_weights()


# Of rows: the shortest length. Of weights: what they start from is multiplied by, so
# that no gradient is clipped, or every one.
PRETRAININGS = {"whole": (8, 0.2), "padded": (3, 2.0)}


def rewind(model, start, name):
    """Takes a model back and returns batches of eight rows of up to eight tokens."""
    shortest, scale = PRETRAININGS[name]
    model.set_weights([scale * weight for weight in start])
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape))
    rng = np.random.default_rng(0)
    sentences = [rng.integers(5, VOCAB, n) for n in rng.integers(shortest, 9, 64)]
    return denoising_batches(Buckets(sentences, lengths=(8,), tokens=64))


def denoised():
    """Returns the weights after a few steps of each pre-training, traced once."""
    model, start = denoiser()
    found = {}
    for name in PRETRAININGS:
        batches = rewind(model, start, name)
        model.fit(batches, steps_per_epoch=STEPS, shuffle=False, verbose=0)
        found[name] = model.get_weights()
    return found


def halves_clipped_by_hand():
    """Trains on padded rows: clips the gradients of half batches, then adds them."""
    model, start = denoiser()
    batches = rewind(model, start, "padded").take(STEPS)
    limit, model.optimizer.global_clipnorm = model.optimizer.global_clipnorm, None
    variables = model.trainable_variables
    for batch in batches:
        total = [0.0] * len(variables)
        for half in (slice(4), slice(4, 8)):
            positions, ids, targets, weights = (
                part[half] for part in tf.nest.flatten(batch)
            )
            with tf.GradientTape() as tape:
                logits = model({"token_ids": ids, "positions": positions})
                costs = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
                loss = tf.reduce_sum(costs * weights) / tf.reduce_sum(weights) / 2
            part = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]
            norm = np.sqrt(sum(np.sum(np.square(g)) for g in part))
            assert norm > limit
            total = [t + g * (limit / norm) for t, g in zip(total, part, strict=True)]
        model.optimizer.apply(total, variables)
    return model.get_weights()


QUESTION_1 = {
    "lstm": (keras.layers.LSTMCell, None),
    "clipped": (keras.layers.SimpleRNNCell, LIMIT),
}


def all_cases():
    """Returns what the two devices find: one process for all, as they start slowly."""
    question_1 = {name: truncated(*case) for name, case in QUESTION_1.items()}
    return question_1 | denoised()


@pytest.fixture(scope="module")
def two_devices():
    return mirrored(__name__, "all_cases()")


def largest_difference(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


def test_two_devices_take_the_truncated_steps_of_one(two_devices):
    weights, history = truncated(*QUESTION_1["lstm"])
    found, logs = two_devices["lstm"]
    assert largest_difference(found, weights) < 1e-9
    # The logged loss is the share of one of two replicas.
    np.testing.assert_allclose(2 * np.array(logs["loss"]), history["loss"], rtol=1e-6)


def test_two_devices_take_the_clipped_truncated_steps_of_their_halves(two_devices):
    case = QUESTION_1["clipped"]
    expected = truncated_halves_clipped_by_hand(*case)
    assert largest_difference(two_devices["clipped"][0], expected) < 1e-9
    assert largest_difference(truncated(*case)[0], expected) > 0.01


def test_two_devices_pretrain_as_one_but_for_what_their_halves_weigh(two_devices):
    one_device = denoised()
    assert largest_difference(two_devices["whole"], one_device["whole"]) < 1e-5
    # Padded rows: each half is averaged, and clipped, by itself.
    expected = halves_clipped_by_hand()
    assert largest_difference(two_devices["padded"], expected) < 1e-5
    assert largest_difference(one_device["padded"], expected) > 1e-4
