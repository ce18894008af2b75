"""Trainings one after the other, and spread over the cores of this machine by Ray.

```
python -m benchmarks.bench_sweep          # about five minutes on two idle cores
python -m benchmarks.bench_sweep --quick  # one round of short ones, into build/
```

The reset cell of question 2 trains on sums from several seeds, compiled anew each time
as in its notebook, through `common.sweep`. Ray (needed: `make ray`) has its processes
started and TensorFlow loaded before the clock runs: whole sweeps take hours.
"""

import os
import statistics
import time
from pathlib import Path

import keras

from benchmarks import timing
from common import sweep
from q2_reset_cell.networks import trained_network
from q2_reset_cell.streams import sum_task

RESULTS = Path("benchmarks", "sweep.json")
FULL = {"rounds": 3, "steps": 4_000}
QUICK = {"rounds": 1, "steps": 100}
PLAIN, ON_RAY = "one after the other", "Ray, a run on each core"
RUNS = 3 * timing.CORES
TITLES = {"how": "how", "runs": "runs"}
COLUMNS = {"seconds": "seconds", "over_plain": "as fast as one after the other"}


def measure(plan):
    """Times all runs both ways in turns; returns a row for each."""
    ways = {PLAIN: None, ON_RAY: "local"}
    seconds = {how: [] for how in ways}
    time_runs(100, "local")  # starts the processes
    for turn in range(plan["rounds"]):
        timing.progress(f"round {turn + 1} of {plan['rounds']}")
        for how, address in ways.items():
            seconds[how].append(time_runs(plan["steps"], address))
    rows = [
        {
            "how": how,
            "runs": RUNS,
            "seconds": statistics.median(found),
            "over_plain": timing.ratio(seconds[PLAIN], found),
        }
        for how, found in seconds.items()
    ]
    return {"rows": rows}


def time_runs(steps, address):
    """Trains from `RUNS` seeds, on Ray if there is an address; returns the seconds."""
    if address:
        os.environ["RAY_ADDRESS"] = address
    try:
        start = time.perf_counter()
        sweep.run_seeds(run, [steps], list(range(RUNS)))
        return time.perf_counter() - start
    finally:
        os.environ.pop("RAY_ADDRESS", None)


def run(steps, seed):
    return sweep.compute(lambda: train(steps, seed))


def train(steps, seed):
    """Trains once; returns the losses."""
    keras.backend.clear_session()
    settings = {"units": 32, "steps": steps, "learning_rate": 0.03, "seed": seed}
    return trained_network(sum_task(), "reset", **settings)[1]


def report(results):
    """Formats the results as Markdown."""
    return "\n\n".join(
        [
            f"Seconds of all runs, median of {results['rounds']} rounds; ratio (min to "
            "max)",
            timing.table(COLUMNS, results["rows"], TITLES),
        ]
    )


if __name__ == "__main__":
    description = __doc__.splitlines()[0]
    timing.main(description, RESULTS, measure, report, full=FULL, quick=QUICK)
