"""Pre-training tokens a second with one worker and with several that share batches.

```
python -m benchmarks.bench_workers          # about ten minutes on two idle cores
python -m benchmarks.bench_workers --quick  # a few steps, into build/
```

The denoiser of question 4 trains on random tokens. "fit" is Keras's own, in one
process; workers are processes under `MultiWorkerMirroredStrategy`, joined by
`common.distributed.fit`. Each has a core of its own and one thread. They share either
the batch that one of them would have, or one as many times as large.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import timing

RESULTS = Path("benchmarks", "workers.json")
FULL = {"rounds": 3, "steps": 24}
QUICK = {"rounds": 1, "steps": 4}
TOKENS = 4_096  # of a batch, as in pre-training


def measure(plan):
    """Times a training step of every contestant in turns; returns a row for each."""
    workers = range(1, timing.CORES + 1)
    runs = {("fit", 1, TOKENS): [], **{("workers", n, TOKENS): [] for n in workers}}
    runs |= {("workers", n, n * TOKENS): [] for n in workers}
    for turn in range(plan["rounds"]):
        timing.progress(f"round {turn + 1} of {plan['rounds']}")
        for key, found in runs.items():
            seconds, weights = run_workers(*key, plan["steps"])
            found.append(seconds)
    return {"weights": weights, "rows": [row(*key, runs) for key in runs]}


def row(how, workers, tokens, runs):
    """Reduces the rounds of a contestant; ratios are to `fit` in the same round."""
    speeds = [tokens / seconds for seconds in runs[how, workers, tokens]]
    alone = [TOKENS / seconds for seconds in runs["fit", 1, TOKENS]]
    return {
        "how": how,
        "workers": workers,
        "tokens": tokens,
        "tokens_per_second": statistics.median(speeds),
        "over_fit": timing.ratio(speeds, alone),
    }


def run_workers(how, workers, tokens, steps):
    """Runs the processes of a contestant; returns seconds of a step, and weights."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(workers)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    processes = []
    for index in range(workers):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        command = [sys.executable, "-m", "benchmarks.bench_workers", "--worker"]
        command += [how, str(index), str(tokens), str(steps)]
        environment = {"TF_CONFIG": config, "OMP_NUM_THREADS": "1"}
        processes.append(
            subprocess.Popen(
                command,
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    outputs = [process.communicate()[0] for process in processes]
    codes = [process.returncode for process in processes]
    if any(codes):
        raise RuntimeError(f"{how} with {workers} workers ended with codes {codes}")
    return json.loads(outputs[0].splitlines()[-1])


def work(how, index, tokens, steps):
    """Trains as one of several; prints median seconds of a step, and weights."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {index})
    import keras
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if how == "workers":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    from benchmarks.bench_q4 import VOCAB_SIZE, sentences
    from common import distributed
    from q4_denoise_text.denoise_text import build_denoiser
    from q4_denoise_text.pretraining import Buckets, compile_denoiser, denoising_batches

    with strategy.scope():
        keras.utils.set_random_seed(0)
        denoiser = build_denoiser(VOCAB_SIZE)
        compile_denoiser(denoiser, steps=1_000, jit_compile=False)
    rows = sentences(8 * tokens // TOKENS, length=32)
    batches = denoising_batches(Buckets(rows, tokens=tokens))
    ends = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    options = {"epochs": 1, "steps_per_epoch": steps + 3, "callbacks": [clock]}
    if how == "fit":
        denoiser.fit(batches, **options, shuffle=False, verbose=0)
    else:
        distributed.fit(denoiser, batches, strategy=strategy, **options)
    seconds = [b - a for a, b in zip(ends[2:], ends[3:], strict=False)]
    weights = denoiser.count_params()
    print(json.dumps([statistics.median(seconds), weights]))


def report(results):
    """Formats the results as Markdown."""
    titles = {"how": "how", "workers": "workers", "tokens of a batch": "tokens"}
    columns = {"tokens_per_second": "tokens a second", "over_fit": "over `fit`"}
    return "\n\n".join(
        [
            f"Tokens a second of pre-training, a core for each worker, median of "
            f"{results['rounds']} rounds; ratio (min to max)",
            timing.table(columns, results["rows"], titles),
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--worker", nargs=4)
    worker = parser.parse_known_args()[0].worker
    if worker:
        work(worker[0], *map(int, worker[1:]))
    else:
        description = __doc__.splitlines()[0]
        timing.main(description, RESULTS, measure, report, full=FULL, quick=QUICK)
