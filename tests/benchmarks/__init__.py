"""Tests of `benchmarks`, and rows for them."""

import contextlib

import pytest

from benchmarks import timing
from benchmarks.timing import EAGER, INDUCTOR, OURS

with contextlib.suppress(ImportError):
    # Inductor needs it, and it must be there before anything imports distutils.
    import setuptools  # noqa: F401

needs_torch = pytest.mark.skipif(timing.torch is None, reason="needs PyTorch")
SECONDS = {OURS: [0.1, 0.2, 0.1], EAGER: [0.3, 0.2, 0.2], INDUCTOR: [0.1, 0.1, 0.1]}


def make_row(seconds=SECONDS, **about):
    """Makes a row of 2 GFLOP, in which ours takes 20% of the machine's peak."""
    row = {"work": "batch 8", "size": {}, "gflop": 2.0, "seconds": seconds}
    return row | {"mebibytes": {}, "share_of_peak": 0.2} | about
