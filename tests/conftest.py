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


@pytest.fixture(scope="session")
def whole_sets(tmp_path_factory):
    from tests.tiny_sets import prepare_tiny_sets

    return prepare_tiny_sets(tmp_path_factory.mktemp("whole"))
