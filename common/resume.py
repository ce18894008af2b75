"""Trains with `fit`, and resumes after a kill from the last whole epoch, to the bit.

```python
history = resume.fit(model, train_ds, epochs=20, backup_dir="build/mine")
```

`keras.callbacks.BackupAndRestore` restores the weights and the optimizer. This module
also restores the random state of dropout, the history and the place in the data, and
keeps all of it in one file, so that no part is newer than another.
"""

import json
import math
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from common import results

# What NumPy and JSON raise for a file that is cut or of another format.
DAMAGE = OSError, EOFError, LookupError, TypeError, ValueError, zipfile.BadZipFile


def fit(
    model,
    dataset,
    *,
    epochs,
    backup_dir=None,
    steps_per_epoch=None,
    callbacks=None,
    **options,
):
    """Trains a model, or resumes a training that was interrupted.

    Args:
        model: built, compiled again before every call, and seeded as in the training
            that was interrupted.
        dataset: `tf.data.Dataset` of batches, the same in every process that makes
            it. Data that end are repeated; epochs continue where the last one ended.
        epochs: int.
        backup_dir: path of a folder for this training only; None keeps nothing.
        steps_per_epoch: int ≥ 1, the number of batches in an epoch. Defaults to the
            length of the dataset; needed if that is unknown or infinite.
        callbacks: as for `fit`; they see only the epochs of this process, so one with
            a state of its own, such as the patience of `EarlyStopping`, starts again.
        **options: further arguments of `fit`, except `initial_epoch`.

    Returns:
        The `keras.callbacks.History` of all epochs. The same call does not continue a
        training that has ended, whether or not `EarlyStopping` ended it.

    Raises:
        FloatingPointError: If the loss is not finite and `backup_dir` is given.
        ValueError: If `dataset` is not a `tf.data.Dataset`, `steps_per_epoch` is
            missing or not allowed, or the backup is damaged or of another model.
    """
    steps_per_epoch = _steps_per_epoch(dataset, steps_per_epoch)
    callbacks, done = keras.tree.flatten(callbacks or []), 0
    if backup_dir is not None:
        backup = Backup(backup_dir)
        backup.restore(model)
        if epochs <= backup.epochs:
            return backup.replay(keras.callbacks.History(), model)
        callbacks, done = [*callbacks, backup], len(backup.logs)
    # `fit` rounds the batches of an epoch up to whole executions.
    executions = math.ceil(steps_per_epoch / model.steps_per_execution)
    history = model.fit(
        # One iterator for all epochs: how many `fit` would make is not documented.
        dataset.repeat().skip(done * executions * model.steps_per_execution),
        initial_epoch=done,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        callbacks=callbacks,
        **{"shuffle": False} | options,
    )
    return history if backup_dir is None else backup.replay(history, model)


def _steps_per_epoch(dataset, steps):
    if not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "`dataset` must be a tf.data.Dataset of batches, such as "
            "tf.data.Dataset.from_tensor_slices((x, y)).batch(32). "
            f"Received: {type(dataset).__name__}"
        )
    found = int(dataset.cardinality()) if steps is None else steps
    if steps is None and found < 1:
        raise ValueError(
            "`steps_per_epoch` must be given unless the length of the dataset is known "
            f"and finite. Received: None, with a cardinality of {found}"
        )
    if found < 1 or found != int(found):
        raise ValueError(
            f"`steps_per_epoch` must be an int of 1 or more. Received: {steps!r}"
        )
    return int(found)


class Backup(keras.callbacks.Callback):
    """Keeps the whole state of a training in one file, written atomically.

    The file is NumPy's because HDF5 crashes where the disk is full.

    Args:
        folder: path.

    Attributes:
        logs: list of dicts, one per epoch that is done.
        epochs: int, the `epochs` of the call that ended, even if it ended early; else
            0.
    """

    def __init__(self, folder):
        super().__init__()
        self.path = Path(folder) / "last.npz"
        self.logs = []
        self.epochs = 0

    def restore(self, model):
        """Loads the state of the training into a model, if there is a file.

        A file that is damaged or of another model is a ValueError.
        """
        if not self.path.exists():
            return
        model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        try:
            with self.path.open("rb") as file, np.load(file) as kept:
                arrays = [kept[f"arr_{i}"] for i in range(len(kept) - 1)]
                note = json.loads(str(kept["note"]))
            self.logs, self.epochs = note["logs"], note["epochs"]
        except DAMAGE as bad:
            raise ValueError(
                f"`backup_dir` holds a file that cannot be read: {self.path} ({bad}). "
                "Delete the file to train from the start."
            ) from bad
        if [a.shape for a in arrays] != [tuple(v.shape) for v in variables]:
            raise ValueError(
                "`backup_dir` must be a folder for this training only. Received: "
                f"{self.path}, which is of another model"
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def replay(self, history, model):
        """Fills the history of a model with all epochs and returns it."""
        history.set_model(model)
        history.on_train_begin()
        history.history = {}
        for epoch, logs in enumerate(self.logs):
            history.on_epoch_end(epoch, logs)
        return history

    def on_epoch_end(self, epoch, logs=None):
        # A metric may be an array, such as F1 per class.
        logs = {name: np.asarray(value).tolist() for name, value in logs.items()}
        if not np.isfinite(logs.get("loss", 0.0)):
            raise FloatingPointError(
                f"The loss became {logs['loss']} in epoch {epoch + 1}: a smaller "
                f"learning rate may help. {self.path} holds the epoch before."
            )
        self.logs.append(logs)
        self._save()

    def on_train_end(self, logs=None):
        # A callback may have restored the best weights, or stopped the training.
        self.epochs = self.params["epochs"]
        if self.logs:
            self._save()

    def _save(self):
        arrays = [variable.numpy() for variable in _variables(self.model)]
        note = json.dumps({"logs": self.logs, "epochs": self.epochs})
        results.write_atomic(self.path, lambda part: np.savez(part, *arrays, note=note))


def _variables(model):
    # `variables`, unlike `weights`, has the state of dropout's generators.
    return [*model.variables, *model.optimizer.variables]
