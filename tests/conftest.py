"""What all tests run under: the quick preset and a known seed."""

import os

import pytest

# Whatever the caller's environment says.
os.environ["PRESET"] = "quick"
os.environ.pop("RESULTS_ROOT", None)


@pytest.fixture(autouse=True)
def seed():
    from common import experiment

    experiment.seed_everything(0)
