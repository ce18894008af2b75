"""common/resume.py: a training that was killed ends as one that was not."""

import functools
import itertools
import os
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import resume
from tests.interruption import KillAt, Killed

EPOCHS, BATCHES = 3, 3
KINDS = ("finite", "endless", "filtered", "generator")
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(12, 3)).astype("float32")
TARGETS = np.eye(2, dtype="float32")[(INPUTS.sum(axis=1) > 0).astype(int)]
VALIDATION = tf.data.Dataset.from_tensor_slices((INPUTS + 1, TARGETS)).batch(4)

# Keras reads TensorFlow variables through NumPy in the way of NumPy 1.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)


def data(kind="finite"):
    dataset = tf.data.Dataset.from_tensor_slices((INPUTS, TARGETS))
    dataset = dataset.shuffle(12, seed=3).batch(4)
    if kind == "generator":
        spec = dataset.element_spec
        return tf.data.Dataset.from_generator(dataset.__iter__, output_signature=spec)
    endless, filtered = dataset.repeat(), dataset.filter(lambda *batch: True)
    return {"finite": dataset, "endless": endless, "filtered": filtered}[kind]


def compiled(metrics=("accuracy",), **options):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(2), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    optimizer = keras.optimizers.AdamW(0.05, use_ema=True)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    options = {"metrics": [*metrics], "jit_compile": False} | options
    model.compile(optimizer, loss, **options)
    return model


@functools.cache
def traced(**options):
    model = compiled(**options)
    model.optimizer.build(model.trainable_variables)
    return model, [value.numpy() for value in state(model)]


def state(model):
    return [*model.variables, *model.optimizer.variables]


def rewound(**options):
    """Returns a model as `compiled` makes it, but traced only once: that is slow."""
    model, start = traced(**options)
    keras.utils.set_random_seed(1)
    for variable, value in zip(state(model), start, strict=True):
        variable.assign(value)
    return model


def train(folder, *, kill=None, kind="finite", make=rewound, **options):
    model = make()
    if kill:
        options["callbacks"] = [options.get("callbacks", []), KillAt(kill)]
    options = {"epochs": EPOCHS, "validation_data": VALIDATION, "verbose": 0} | options
    history = resume.fit(model, data(kind), backup_dir=folder, **options)
    return model.get_weights(), history


def fit(*, kind="endless", make=rewound, **options):
    """Trains with stock Keras."""
    model = make()
    options = {"validation_data": VALIDATION, "verbose": 0, "shuffle": False} | options
    history = model.fit(data(kind), **options)
    return model.get_weights(), history


def assert_same(one, other):
    (weights, history), (weights_again, history_again) = one, other
    assert history.epoch == history_again.epoch
    assert list(history.history) == list(history_again.history)
    np.testing.assert_equal(history.history, history_again.history)
    np.testing.assert_equal(weights, weights_again)


@pytest.fixture(scope="module")
def whole():
    return train(None)


@pytest.mark.parametrize(
    "kind, steps", [("finite", None), *itertools.product(KINDS, (BATCHES, 2))]
)
def test_data_of_any_length_are_trained_on_as_by_fit(tmp_path, kind, steps):
    options = {"kind": kind, "steps_per_epoch": steps}
    # Where data end within an epoch, `fit` warns and advises to repeat them.
    steps = steps or BATCHES
    expected = fit(epochs=EPOCHS, steps_per_epoch=steps)
    assert_same(train(None, **options), expected)
    with pytest.raises(Killed):
        train(tmp_path, kill=2 * steps + 1, **options)
    assert_same(train(tmp_path, **options), expected)


OPTIONS = {
    "no validation": {"validation_data": None},
    "every second validation": {"validation_freq": 2},
    "one validation": {"validation_freq": [2]},
    "part of the validation": {
        "validation_data": VALIDATION.repeat(),
        "validation_steps": 2,
    },
    "class weights": {"class_weight": {0: 1.0, 1: 3.0}},
    "rates in the logs": {
        "callbacks": [keras.callbacks.LearningRateScheduler(lambda _, rate: rate / 2)]
    },
    "averages, a callback in no list": {"callbacks": keras.callbacks.SwapEMAWeights()},
    "metric in arrays": {"make": functools.partial(rewound, metrics=("f1_score",))},
    "executions": {"make": functools.partial(rewound, steps_per_execution=2)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_that_of_fit(tmp_path, name):
    options = {"epochs": EPOCHS, "steps_per_epoch": BATCHES} | OPTIONS[name]
    expected = fit(**options)
    assert_same(train(tmp_path / "whole", **options), expected)
    with pytest.raises(Killed):
        kill = 3 if name == "executions" else BATCHES + 1
        train(tmp_path / "part", kill=kill, **options)
    assert_same(train(tmp_path / "part", **options), expected)


@pytest.mark.parametrize(
    "kills",
    [[1], [BATCHES], [BATCHES + 1], [EPOCHS * BATCHES], [BATCHES + 3] * (EPOCHS - 1)],
)
def test_a_training_killed_anywhere_ends_the_same(tmp_path, whole, kills):
    for kill in kills:
        with pytest.raises(Killed):
            train(tmp_path, kill=kill)
    assert_same(train(tmp_path), whole)


@pytest.mark.parametrize("write", [1, 2, EPOCHS + 1])
def test_a_kill_while_writing_ends_the_same(tmp_path, monkeypatch, whole, write):
    replace, written = os.replace, []

    def killed(partial, path):
        written.append(path)
        if len(written) == write:
            raise Killed
        replace(partial, path)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        train(tmp_path)
    monkeypatch.undo()
    assert_same(train(tmp_path), whole)


def test_a_full_disk_ends_a_training_that_a_new_model_resumes(tmp_path, whole):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(epoch, logs):
        if epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))

    try:
        with pytest.raises(OSError, match="last.npz cannot be written.*room"):
            train(tmp_path, callbacks=keras.callbacks.LambdaCallback(fill_disk))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["last.npz"]
    assert not compiled().optimizer.built
    assert_same(train(tmp_path, make=compiled), whole)


def stop(**options):
    """No loss falls by 9: stops after the second epoch, and the first is the best."""
    return keras.callbacks.EarlyStopping("loss", min_delta=9.0, **options)


class StopWithin(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == 1


@pytest.mark.parametrize(
    "callback, epochs",
    [
        (keras.callbacks.Callback, EPOCHS),
        (stop, 2),
        (functools.partial(stop, restore_best_weights=True), 2),
        # Ends with the last epoch, but not with its weights.
        (functools.partial(stop, restore_best_weights=True, patience=9), EPOCHS),
        (StopWithin, 1),
    ],
)
def test_what_is_finished_is_not_trained_again(tmp_path, callback, epochs):
    expected = fit(callbacks=[callback()], epochs=EPOCHS, steps_per_epoch=BATCHES)
    assert len(expected[1].epoch) == epochs
    assert_same(train(tmp_path, callbacks=[callback()]), expected)
    before = (tmp_path / "last.npz").read_bytes()
    for _ in range(2):
        assert_same(train(tmp_path, callbacks=[callback()], kill=1), expected)
        assert (tmp_path / "last.npz").read_bytes() == before


def test_more_epochs_continue_what_is_finished(tmp_path, whole):
    train(tmp_path, epochs=1)
    with pytest.raises(Killed):
        train(tmp_path, kill=1)
    _, history = train(tmp_path)
    assert history.epoch == whole[1].epoch
    assert history.history["loss"][0] == whole[1].history["loss"][0]


def test_no_epochs_leave_the_model_and_the_folder_as_they_were(tmp_path):
    assert_same(train(tmp_path, epochs=0), fit(epochs=0, steps_per_epoch=BATCHES))
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_spoils_no_file_and_a_bad_file_is_named(tmp_path):
    train(tmp_path, epochs=1)
    file = tmp_path / "last.npz"
    whole = file.read_bytes()
    with pytest.raises(FloatingPointError, match="became nan in epoch 2"):
        resume.Backup(tmp_path).on_epoch_end(1, {"loss": float("nan")})
    assert file.read_bytes() == whole
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="`backup_dir` must be"):
        resume.fit(model, data(), epochs=1, backup_dir=tmp_path)
    changed = bytes([*whole[:300], whole[300] ^ 1, *whole[301:]])
    cuts = [whole[:length] for length in (0, 9, len(whole) // 2, len(whole) - 9)]
    for damaged in (*cuts, changed):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last\.npz .*Delete the file"):
            train(tmp_path)


def test_data_without_a_length_and_arrays_are_refused():
    for steps in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"`steps_per_epoch` must be .*{steps}"):
            resume.fit(rewound(), data(), epochs=1, steps_per_epoch=steps)
    for kind in KINDS[1:]:
        with pytest.raises(ValueError, match="`steps_per_epoch` must be given"):
            resume.fit(rewound(), data(kind), epochs=1)
    for arrays in ((INPUTS, TARGETS), INPUTS, None):
        with pytest.raises(ValueError, match=r"`dataset` must be a tf\.data\.Dataset"):
            resume.fit(rewound(), arrays, epochs=1)
