"""Several devices: `fit` under `tf.distribute.MirroredStrategy`, on two logical CPUs.

Keras clips the gradient of every replica before it sums them, which
https://github.com/tensorflow/tensorflow/issues/33929 calls "usually wrong", and a
weighted loss is the mean of the replicas' weighted means. Question 1's `train_step`
clips the sum. For question 4's pre-training, which stock Keras trains, the oracle does
what Keras does.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from q1_tbptt.tbptt import TBPTTClassifier
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import Buckets, compile_denoiser, denoising_batches
from tests.two_devices import mirrored

STEPS, VOCAB, LIMIT = 3, 20, 0.05


def truncated(cell, **options):
    """Returns weights and history of a few steps of question 1, in float64."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, VOCAB, (4 * STEPS, 5))
    ids[::3, :2] = 0
    labels = rng.integers(0, 2, 4 * STEPS)
    keras.utils.set_random_seed(0)
    cell = cell(4, dtype="float64")
    model = TBPTTClassifier(cell, VOCAB, 3, t=2, dropout=0.0, dtype="float64")
    model.compile(
        keras.optimizers.SGD(1.0, momentum=0.9, **options),
        keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64"),
        jit_compile=False,
    )
    history = model.fit(ids, labels, batch_size=4, shuffle=False, verbose=0)
    return model.get_weights(), history.history


def denoiser():
    """Returns a compiled denoiser of question 4 and the weights that it starts from."""
    keras.utils.set_random_seed(0)
    model = build_denoiser(VOCAB, width=4, depth=1, heads=1, max_length=8)
    compile_denoiser(model, steps=10 * STEPS, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model, model.get_weights()


def rows(shortest):
    """Returns batches of eight rows of `shortest` to eight tokens."""
    rng = np.random.default_rng(0)
    sentences = [rng.integers(5, VOCAB, n) for n in rng.integers(shortest, 9, 64)]
    return denoising_batches(Buckets(sentences, lengths=(8,), tokens=64))


# Of rows: the shortest length. Of weights: what they start from is multiplied by, so
# that no gradient is clipped, or every one.
PRETRAININGS = {"whole": (8, 0.2), "padded": (3, 2.0)}


def rewind(model, start, scale):
    model.set_weights([scale * weight for weight in start])
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape))


def denoised():
    """Returns the weights after a few steps of each pre-training, traced once."""
    model, start = denoiser()
    found = {}
    for name, (shortest, scale) in PRETRAININGS.items():
        rewind(model, start, scale)
        batches = rows(shortest)
        model.fit(batches, steps_per_epoch=STEPS, shuffle=False, verbose=0)
        found[name] = model.get_weights()
    return found


def halves_clipped_by_hand():
    """Trains on padded rows: clips the gradients of half batches, then adds them."""
    model, start = denoiser()
    shortest, scale = PRETRAININGS["padded"]
    rewind(model, start, scale)
    limit, model.optimizer.global_clipnorm = model.optimizer.global_clipnorm, None
    variables = model.trainable_variables
    for batch in rows(shortest).take(STEPS):
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
    "lstm": (keras.layers.LSTMCell, {}),
    "clipped": (keras.layers.SimpleRNNCell, {"global_clipnorm": LIMIT}),
}


def all_cases():
    """Returns what the two devices find: one process for all, as they start slowly."""
    question_1 = {name: truncated(c, **more) for name, (c, more) in QUESTION_1.items()}
    return question_1 | denoised()


@pytest.fixture(scope="module")
def two_devices():
    return mirrored(__name__, "all_cases()")


@pytest.fixture(scope="module")
def denoisers():
    return denoised()


def largest_difference(one, other):
    return max(np.abs(a - b).max() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", QUESTION_1)
def test_two_devices_take_the_truncated_steps_of_one(two_devices, name):
    cell, options = QUESTION_1[name]
    weights, history = truncated(cell, **options)
    found, logs = two_devices[name]
    assert largest_difference(found, weights) < 1e-9
    for log in ("loss", "gradient_norm"):
        np.testing.assert_allclose(logs[log], history[log], rtol=1e-5, err_msg=log)
    if options:
        assert largest_difference(weights, truncated(cell)[0]) > 0.1


def test_two_devices_pretrain_as_one_where_rows_weigh_the_same(two_devices, denoisers):
    assert largest_difference(two_devices["whole"], denoisers["whole"]) < 1e-5


def test_two_devices_pretrain_on_the_clipped_means_of_their_halves(
    two_devices, denoisers
):
    expected = halves_clipped_by_hand()
    assert largest_difference(two_devices["padded"], expected) < 1e-5
    assert largest_difference(denoisers["padded"], expected) > 1e-4
