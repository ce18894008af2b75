"""Trainings of all questions, killed again and again, or repeated, to the same bits."""

import functools
import multiprocessing
import os
import random
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.text import bucketed_batches
from q1_tbptt.tbptt import train_tbptt
from q2_reset_cell import networks, streams
from q3_inverse_ae import experiments as inversion
from q3_inverse_ae.inverse_ae import build_autoencoder
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import pretrain
from tests.interruption import KillAt, Killed

KILLS, EPOCHS = 10, 12
VOCAB = 30


def truncated_bptt(folder):
    rng = np.random.default_rng(0)
    rows = [rng.integers(2, VOCAB, length) for length in rng.integers(2, 9, 64)]
    labels = np.array([row[-1] % 2 for row in rows])
    options = {"bucket_lengths": (4, 8), "batch_size": 16}
    sets = [bucketed_batches(rows, labels, shuffle=s, **options) for s in (True, False)]
    settings = {"t": 3, "units": 8, "embedding_dim": 8, "epochs": EPOCHS, "verbose": 0}
    model, history = train_tbptt(*sets, vocab_size=VOCAB, backup_dir=folder, **settings)
    return model, history.history


def reset_cell(folder):
    task = streams.sum_task(dims=2, loudness=1.0)
    keras.utils.set_random_seed(0)
    network = networks.build_network("reset", task, 4)
    steps = EPOCHS * networks.STEPS_IN_EPOCH
    options = {"learning_rate": 0.01, "seed": 0, "backup_dir": folder}
    return network, {"loss": networks.train(network, task, steps=steps, **options)}


def denoiser(folder):
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, VOCAB, length) for length in rng.integers(2, 9, 200)]
    size = {"width": 8, "depth": 1, "heads": 2, "max_length": 64, "dropout": 0.3}
    options = {"epochs": EPOCHS, "steps": 3, "tokens": 64, "jit_compile": False}
    build = functools.partial(build_denoiser, VOCAB, **size)
    return pretrain(build, rows, folder=folder, **options)


def autoencoder(folder):
    keras.utils.set_random_seed(0)
    model = build_autoencoder("dense")
    images = np.random.default_rng(0).random((300, 28, 28, 1), dtype="float32")
    return model, inversion.train(model, images, epochs=EPOCHS, backup_dir=folder)


TRAININGS = {"q1": truncated_bptt, "q2": reset_cell, "q3": autoencoder, "q4": denoiser}
BATCHES = {"q1": 5, "q2": 2, "q3": 4, "q4": 5}  # in the second of two epochs


def with_callback(callback):
    """Returns `keras.Model.fit` with one more callback."""
    fit = keras.Model.fit
    return lambda *args, callbacks=(), **options: fit(
        *args, callbacks=[*callbacks, callback], **options
    )


def train(question, folder, kill_at, results):
    """Train in this process; `kill_at` is the batch that it does not survive."""
    seen = []

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)
            if len(seen) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    keras.Model.fit = with_callback(Kill())
    model, history = TRAININGS[question](folder)
    results.put((len(seen), history, model.get_weights()))


@pytest.fixture
def brief(question, monkeypatch):
    """Trains for few steps, and traces nothing, which takes longer than they do."""
    monkeypatch.setitem(globals(), "EPOCHS", 2)
    monkeypatch.setattr(networks, "STEPS_IN_EPOCH", 20)
    # The loop of question 2 over the time steps is slow unless compiled.
    tf.config.run_functions_eagerly(question != "q2")
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config:UserWarning")
@pytest.mark.parametrize("question, batch", BATCHES.items())
def test_a_killed_training_ends_with_the_same_bits(
    question, batch, tmp_path, brief, monkeypatch
):
    model, history = TRAININGS[question](tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", with_callback(KillAt(batch)))
        with pytest.raises(Killed):
            TRAININGS[question](tmp_path / "killed")
    again, history_again = TRAININGS[question](tmp_path / "killed")
    assert history == history_again
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.kills
@pytest.mark.parametrize("question", TRAININGS)
def test_ten_kills_change_no_bit(question, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def run(folder, kill_at=None):
        results = context.Queue()
        arguments = question, folder, kill_at, results
        process = context.Process(target=train, args=arguments)
        process.start()
        found = None if kill_at else results.get(timeout=120)
        process.join()
        assert process.exitcode == (-signal.SIGKILL if kill_at else 0)
        return found

    batches, history, weights = run(tmp_path / "whole")
    rng = random.Random(0)
    for _ in range(KILLS):  # in the first epoch of that process, or the second
        run(tmp_path / "killed", rng.randint(1, 2 * batches // EPOCHS - 1))
    rest, history_again, weights_again = run(tmp_path / "killed")
    assert 0 < rest < batches
    assert history_again == history
    for one, other in zip(weights, weights_again, strict=True):
        np.testing.assert_array_equal(one, other)
