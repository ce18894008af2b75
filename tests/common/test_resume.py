"""common/resume.py: a training that was killed ends as one that was not."""

import os
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import resume
from tests.interruption import KillAt, Killed

EPOCHS, BATCHES = 4, 6


def data(endless):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(48, 5)).astype("float32")
    targets = (inputs.sum(axis=1, keepdims=True) > 0).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((inputs, targets))
    if endless:
        dataset = dataset.repeat()
    return dataset.shuffle(48, seed=3).batch(8)


def validation_data():
    rng = np.random.default_rng(9)
    inputs = rng.normal(size=(40, 5)).astype("float32")
    return inputs, (inputs[:, :1] > 0).astype("float32")


def train(folder, *, kill=None, endless=False, best=None, epochs=EPOCHS, callbacks=()):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, "tanh"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    model.compile(
        keras.optimizers.AdamW(0.05, use_ema=True),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],
    )
    dataset = data(endless)
    callbacks = [keras.callbacks.SwapEMAWeights(), *callbacks]
    history = resume.fit(
        model,
        dataset,
        validation_data=validation_data(),
        epochs=epochs,
        backup_dir=folder,
        steps_per_epoch=BATCHES if endless else None,
        best=best,
        callbacks=callbacks + ([KillAt(kill)] if kill else []),
        verbose=0,
    )
    return model, history.history


def assert_same(one, other):
    for (model, history), (again, history_again) in [(one, other)]:
        assert history == history_again
        for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize("best", [None, "val_accuracy"])
def test_a_training_killed_anywhere_ends_the_same(tmp_path, endless, best):
    options = {"endless": endless, "best": best}
    whole = train(tmp_path / "whole", **options)
    assert len(whole[1]["loss"]) == EPOCHS
    for kill in np.random.default_rng(0).integers(1, EPOCHS * BATCHES, 3):
        folder = tmp_path / f"killed-{kill}"
        with pytest.raises(Killed):
            train(folder, kill=kill, **options)
        assert_same(train(folder, **options), whole)


def test_a_training_killed_again_and_again_ends_the_same(tmp_path):
    whole = train(tmp_path / "whole")
    for _ in range(EPOCHS - 1):
        with pytest.raises(Killed):
            train(tmp_path / "killed", kill=BATCHES + 3)
    assert_same(train(tmp_path / "killed"), whole)


@pytest.mark.parametrize("name", ["last.npz", "best.npz"])
def test_a_kill_while_a_file_is_written_ends_the_same(tmp_path, monkeypatch, name):
    whole = train(tmp_path / "whole", best="val_accuracy")
    replace = os.replace

    def killed(partial, path):
        if path.name == name and (tmp_path / "killed" / "last.npz").exists():
            raise Killed
        replace(partial, path)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        train(tmp_path / "killed", best="val_accuracy")
    monkeypatch.undo()
    assert_same(train(tmp_path / "killed", best="val_accuracy"), whole)


def test_a_full_disk_ends_a_training_that_goes_on_with_room(tmp_path):
    whole = train(tmp_path / "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class FillDisk(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))

    try:
        with pytest.raises(OSError, match="last.npz cannot be written.*room"):
            train(tmp_path / "full", callbacks=[FillDisk()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.glob("full/partial*"))
    assert_same(train(tmp_path / "full"), whole)


def test_what_is_finished_is_not_trained_again(tmp_path):
    whole = train(tmp_path)
    before = (tmp_path / "last.npz").read_bytes()
    assert_same(train(tmp_path, kill=1), whole)
    assert (tmp_path / "last.npz").read_bytes() == before


def test_the_best_epoch_is_the_one_that_is_kept(tmp_path):
    model, history = train(tmp_path, best="val_loss")  # the worst loss, to tell it
    assert np.argmax(history["val_loss"]) != EPOCHS - 1
    loss, _ = model.evaluate(*validation_data(), verbose=0)
    assert loss == pytest.approx(max(history["val_loss"]), rel=1e-5)


def test_without_a_folder_nothing_is_kept_and_the_weights_are_the_same(tmp_path):
    assert_same(train(None), train(tmp_path / "kept"))
    with pytest.raises(ValueError, match="`best` needs a `backup_dir`"):
        train(None, best="val_accuracy")


def test_a_loss_that_is_no_number_spoils_no_file(tmp_path):
    train(tmp_path, epochs=1)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    backup = resume.Backup(tmp_path)
    with pytest.raises(FloatingPointError, match="became nan in epoch 2"):
        backup.on_epoch_end(1, {"loss": float("nan")})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_the_backup_of_another_model_is_refused(tmp_path):
    train(tmp_path, epochs=1)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="`backup_dir` must be"):
        resume.fit(model, data(False), epochs=1, backup_dir=tmp_path)
