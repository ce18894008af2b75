"""A training that ends at some batch, as a signal would end it."""

import keras


class Killed(BaseException):
    """What no `except Exception` holds up."""


class KillAt(keras.callbacks.Callback):
    """Ends a training after so many batches of this process."""

    def __init__(self, batch):
        super().__init__()
        self.left = batch

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise Killed
