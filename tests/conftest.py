"""What all tests run under: the quick preset and a known seed."""

import os

import pytest

import common  # noqa: F401, before Keras

# Whatever the caller's environment says.
os.environ["PRESET"] = "quick"
os.environ.pop("RESULTS_ROOT", None)


@pytest.fixture(autouse=True)
def seed():
    import keras

    keras.utils.set_random_seed(0)
