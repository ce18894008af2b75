"""Shared code of the four questions.

Importing it, before Keras, makes Keras run on TensorFlow whatever `keras.json` or
`KERAS_BACKEND` say, and keeps TensorFlow's notes about the machine off the screen.
"""

import contextlib
import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _start_tensorflow():
    """Imports TensorFlow and lets it look for GPUs, with standard error shut.

    No log level holds back what its libraries write while they are loaded.
    """
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        import tensorflow

        tensorflow.config.list_physical_devices("GPU")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


with contextlib.suppress(ModuleNotFoundError):  # not all code here needs it
    _start_tensorflow()
