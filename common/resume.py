"""A `fit` that a kill does not undo: it goes on at the last whole epoch, to the bit.

```python
history = resume.fit(model, train_ds, epochs=20, backup_dir="build/mine")
```

`keras.callbacks.BackupAndRestore` brings back weights and optimizer. What it leaves to
chance is here: weights and epoch are one file, so that neither is newer than the
other; the data go on where they would have been; the history is whole, and the best
epoch so far is not forgotten.
"""

import json
from pathlib import Path

import keras
import numpy as np

from common import experiment


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
        FloatingPointError: If the loss is no number any more; the backup is of the
            epoch before.
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
        logs = [epoch["logs"] for epoch in backup.history]
        history.history = {name: [values[name] for values in logs] for name in logs[0]}
        history.epoch = list(range(len(logs)))
        if best:
            model.load_weights(backup.folder / "best.weights.h5")
            model.optimizer.finalize_variable_values(model.trainable_variables)
    return history


def generators(model):
    """Returns the variables of a model's random generators, such as dropout's.

    Keras saves them with no model and no weights.
    """
    return [v for v in model.variables if v.path.endswith("seed_generator_state")]


class Backup(keras.callbacks.Callback):
    """Keeps the whole state of a training after every epoch.

    Every file is complete at any time. `last.weights.h5` holds weights and optimizer;
    what belongs to them stands in `history.json`, which is written first and may be
    ahead by one epoch.

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
        """Brings a model to where it was; returns the number of epochs behind it."""
        last = self.folder / "last.weights.h5"
        if not last.exists():
            return 0
        model.optimizer.build(model.trainable_variables)
        try:
            model.load_weights(last)
        except ValueError as error:
            raise ValueError(
                f"`backup_dir` must be a folder for this training alone. {last} is of "
                f"another model: {error}"
            ) from error
        self.history = json.loads((self.folder / "history.json").read_text("utf-8"))
        steps = int(model.optimizer.iterations.numpy())
        while self.history[-1]["steps"] > steps:
            self.history.pop()
        states = self.history[-1]["generators"]
        for generator, state in zip(generators(model), states, strict=True):
            generator.assign(np.array(state, "uint32"))
        return len(self.history)

    def on_epoch_end(self, epoch, logs=None):
        logs = {name: float(value) for name, value in logs.items()}
        if not np.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"The loss became {logs['loss']} in epoch {epoch + 1}: a smaller "
                f"learning rate may help. {self.folder} holds the epoch before."
            )
        del self.history[epoch:]
        if self.best:
            earlier = [past["logs"][self.best] for past in self.history]
            if logs[self.best] > max(earlier, default=-np.inf):
                self._write("best.weights.h5", self.model.save_weights)
        states = [generator.numpy().tolist() for generator in generators(self.model)]
        steps = int(self.model.optimizer.iterations.numpy())
        self.history.append({"logs": logs, "steps": steps, "generators": states})
        text = json.dumps(self.history)
        self._write("history.json", lambda path: path.write_text(text, "utf-8"))
        self._write("last.weights.h5", self.model.save_weights)

    def _write(self, name, write):
        experiment.write_whole(self.folder / name, write)
