"""Many runs of an experiment, one after the other or all at once on a Ray cluster.

```python
runs = sweep.run_seeds(train_and_evaluate, CELLS, SEEDS)
runs["lstm"][0]
```

With `RAY_ADDRESS` in the environment, "local" or the address of a cluster, functions
that are `common.results.cached` run there, one task per run (`pip install -e .[sweep]`
first). Their results come back to this machine, which keeps them.
"""

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import keras

from common import interactive, presets

RETRIES = 3  # of a task whose worker was killed
# What a worker must know of the environment of this process.
PASSED_ON = ("PRESET", "TFDS_DATA_DIR")
_connecting = threading.Lock()


def run_all(run, settings):
    """Calls a function with each of some settings, on Ray all at once.

    Args:
        run: function, which computes through one that is `common.results.cached`.
        settings: iterable of tuples, the arguments of one call each.

    Returns:
        Dict from each tuple to what the function returned, in their order.

    Raises:
        ValueError: If two of the settings are equal.
    """
    settings = list(settings)
    if len(set(settings)) < len(settings):
        raise ValueError(f"`settings` must differ. Received: settings={settings!r}")
    live = interactive.is_live()
    bar = keras.utils.Progbar(len(settings), unit_name="run", verbose=int(live))
    results = []
    if on_ray():
        connected()  # here: what a thread has started ends with the thread
    # Threads that wait: each looks into the cache and sends a task.
    with ThreadPoolExecutor(max(1, len(settings))) as threads:
        all_at_once = threads.map if on_ray() else map
        for result in all_at_once(lambda arguments: run(*arguments), settings):
            results.append(result)
            bar.add(1)
    return dict(zip(settings, results, strict=True))


def run_seeds(run, kinds, seeds):
    """Calls a function for each of several kinds of run with each seed.

    Args:
        run: function of a kind and a seed, see `run_all`.
        kinds: iterable of kinds of run, such as names.
        seeds: list of ints.

    Returns:
        Dict from each kind to the list of what the function returned, one per seed.
    """
    kinds = list(kinds)
    found = run_all(run, itertools.product(kinds, seeds))
    return {kind: [found[kind, seed] for seed in seeds] for kind in kinds}


def on_ray():
    """Returns whether runs are computed on a Ray cluster."""
    return bool(os.environ.get("RAY_ADDRESS"))


def compute(function):
    """Calls a function without arguments, here or as a task on one CPU of a cluster.

    What it refers to and what it returns must be such that it can be pickled.
    """
    if not on_ray():
        return function()
    ray = connected()
    return ray.get(ray.remote(num_cpus=1, max_retries=RETRIES)(function).remote())


def connected():
    """Returns Ray, connected to the cluster at `RAY_ADDRESS` or to a local one."""
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "Ray is not installed: pip install -e .[sweep]. Without RAY_ADDRESS in the "
            "environment, runs go one after the other"
        ) from error
    with _connecting:
        if not ray.is_initialized():
            _connect(ray, os.environ.get("RAY_ADDRESS", "local"))
    return ray


def _connect(ray, address):
    environment = {
        "env_vars": {
            name: os.environ[name] for name in PASSED_ON if name in os.environ
        },
        "working_dir": str(presets.ROOT),  # which Ray copies to every machine
        "excludes": [".git", ".venv", "build", "*.ipynb", "*.png"],
    }
    options = {"log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address, runtime_env=environment, **options)
