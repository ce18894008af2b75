"""Tests of `benchmarks`, and rows for them."""

from benchmarks import timing
from benchmarks.timing import EAGER, INDUCTOR, OURS

SECONDS = {OURS: [0.1, 0.2, 0.1], EAGER: [0.3, 0.2, 0.2], INDUCTOR: [0.1, 0.1, 0.1]}


def make_rows(seconds=SECONDS, **about):
    """Makes the rows of one work, of 2 GFLOP on a machine of 100 GFLOP/s."""
    about = {"question": 1, "work": "batch 8", "size": {}, "memory": {}} | about
    about = {"comparison": "same work"} | about
    return timing.compare(seconds, gflop=2.0, peak=100.0, **about)
