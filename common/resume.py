"""A `fit` that a kill does not undo: it goes on at the last whole epoch, to the bit.

```python
history = resume.fit(model, train_ds, epochs=20, backup_dir="build/mine")
```

`keras.callbacks.BackupAndRestore` brings back weights and optimizer. What it leaves to
chance is here: all that decides how a training goes on is one file, so that no part is
newer than another, dropout's random state and the history are part of it, the data go
on where they would have been, and the best epoch so far is not forgotten.
"""

import itertools
import json
from pathlib import Path

import keras
import numpy as np

from common import results


def fit(
    model,
    dataset,
    *,
    epochs,
    backup_dir=None,
    steps_per_epoch=None,
    best=None,
    callbacks=(),
    **options,
):
    """Trains a model, or goes on with a training that was interrupted.

    Args:
        model: compiled and built; seeded as in the training that was interrupted.
        dataset: `tf.data.Dataset`. Its passes, or its batches where it has no end, must
            be the same for every process that makes it: seeds decide them.
        epochs: int.
        backup_dir: path of a folder for this training alone. None: nothing is kept,
            and the weights are the same.
        steps_per_epoch: int, for data whose length is not known, or that has no end.
        best: name of a metric of the logs, such as "val_accuracy": in the end the model
            has the weights of the epoch in which it was highest, or their moving
            average if the optimizer keeps one. None: of the last one.
        callbacks: for `fit`; they see the epochs of this process alone.
        **options: for `fit`.

    Returns:
        The `keras.callbacks.History`, with the epochs before the interruption.

    Raises:
        FloatingPointError: If the loss is no number any more and `backup_dir` is
            given; the backup is of the epoch before.
        ValueError: If the backup is of another model, or a length or the folder for
            the best epoch is missing.
    """
    if best and backup_dir is None:
        raise ValueError(
            f"`best` needs a `backup_dir`. Received: best={best!r}, backup_dir=None"
        )
    if steps_per_epoch is None:
        steps_per_epoch = int(dataset.cardinality())
        if steps_per_epoch < 1:
            raise ValueError(
                "`steps_per_epoch` must be given for a dataset whose length is not "
                f"known. Received: a cardinality of {steps_per_epoch}"
            )
        # One iterator for all epochs: how many `fit` would make is its own affair.
        dataset = dataset.repeat()
    backups = [] if backup_dir is None else [Backup(backup_dir, best)]
    done = sum(backup.restore(model) for backup in backups)
    history = model.fit(  # where all is done, it still averages the weights
        dataset.skip(done * steps_per_epoch),
        initial_epoch=done,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        callbacks=[*callbacks, *backups],
        shuffle=False,
        **options,
    )
    for backup in backups:
        logs = backup.history
        history.history = {name: [values[name] for values in logs] for name in logs[0]}
        history.epoch = list(range(len(logs)))
        if best:
            load(backup.folder / "best.npz", _state(model))
            model.optimizer.finalize_variable_values(model.trainable_variables)
    return history


class Backup(keras.callbacks.Callback):
    """Keeps the whole state of a training after every epoch.

    Every file is complete at any time: `last.npz` and, if asked for, `best.npz`. They
    are NumPy's because HDF5 crashes where the disk is full.

    Args:
        folder: path.
        best: see `fit`.
    """

    def __init__(self, folder, best=None):
        super().__init__()
        self.folder = Path(folder)
        self.best = best
        self.history = []

    def restore(self, model):
        """Brings a model to where it was.

        Args:
            model: compiled and built, see `fit`.

        Returns:
            The number of epochs behind it, an int: 0 without a backup.

        Raises:
            ValueError: If the backup is of another model.
        """
        last = self.folder / "last.npz"
        if last.exists():
            model.optimizer.build(model.trainable_variables)
            self.history = json.loads(load(last, _state(model)))
        return len(self.history)

    def on_epoch_end(self, epoch, logs=None):
        logs = {name: float(value) for name, value in logs.items()}
        if not np.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"The loss became {logs['loss']} in epoch {epoch + 1}: a smaller "
                f"learning rate may help. {self.folder} holds the epoch before."
            )
        if self.best:
            earlier = [past[self.best] for past in self.history]
            if logs[self.best] > max(earlier, default=-np.inf):
                save(self.folder / "best.npz", _state(self.model))
        self.history.append(logs)
        save(self.folder / "last.npz", _state(self.model), json.dumps(self.history))


def _state(model):
    # `variables`, unlike `weights`, has what dropout's generators remember.
    return [*model.variables, *model.optimizer.variables]


def save(path, variables, note=""):
    """Writes variables, and a note, to a file that is complete or not there.

    Args:
        path: `Path` of the file, which ends in ".npz".
        variables: list of Keras variables.
        note: str.
    """
    arrays = [variable.numpy() for variable in variables]
    results.write_atomic(path, lambda part: np.savez(part, *arrays, note=note))


def load(path, variables):
    """Gives variables the values of a file that `save` wrote.

    Args:
        path: of the file.
        variables: list of Keras variables, of the same shapes in the same order.

    Returns:
        The note, a str.

    Raises:
        ValueError: If the file is of another model.
    """
    with np.load(path) as kept:
        arrays = [kept[f"arr_{i}"] for i in range(len(kept) - 1)]
        note = str(kept["note"])
    for found, expected in itertools.zip_longest(arrays, variables):
        if np.shape(found) != getattr(expected, "shape", None):
            raise ValueError(
                "`backup_dir` must be a folder for this training alone. Received: "
                f"{path}, which is of another model"
            )
    for array, variable in zip(arrays, variables, strict=True):
        variable.assign(array)
    return note
