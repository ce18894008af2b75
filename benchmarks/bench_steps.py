"""What surrounds the mathematics of a training step, before and after it was mended.

```
python -m benchmarks.bench_steps          # about seven minutes on two idle cores
python -m benchmarks.bench_steps --quick  # short passes, into build/
```

Each question trains under `fit` as in its notebook (questions 3 and 4 on random images
and tokens), and beside it the same training as it would first be written. What is timed
is a pass over the same examples. XLA, which all but question 1 use, compiles a program
for each shape of a batch, in the first pass; Python is asked for the step when it is
traced, which should not happen again. Batches are made while steps run; how long making
them takes alone tells whether steps can have to wait for them. A backup
(`common.resume`) is written after an epoch.
"""

import functools
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks import bench_q4, timing
from common import data, resume, text
from q1_tbptt.tbptt import TBPTTClassifier
from q2_reset_cell.networks import build_network
from q2_reset_cell.streams import stream_batches, sum_task
from q3_inverse_ae.inverse_ae import build_autoencoder

RESULTS = Path("benchmarks", "steps.json")
FULL = {"rounds": 5, "steps": 400, "batches": 24}
QUICK = {"rounds": 1, "steps": 40, "batches": 6}
MENDED = {
    1: "sentences padded to one length",
    2: "a call for each step",
    3: "a last batch that is smaller",
    4: "rows padded to one length, softmax everywhere",
}
TITLES = {"question": "question", "mended": "before"}
COLUMNS = {
    "milliseconds_before": "ms before",
    "milliseconds": "ms after",
    "before_over_after": "before / after",
    "input_share": "input alone / all, after",
    "first_pass": "first pass / later one, after",
    "shapes": "shapes of a batch, after",
    "traced_again": "traced again, after",
    "backup_milliseconds": "a backup (ms)",
}


def measure(plan):
    """Times every training before and after; returns a row for each question."""
    return {"rows": [row(question, plan) for question in MENDED]}


def row(question, plan):
    """Times the training of a question in turns; milliseconds are of 1,000 examples."""
    build = TRAININGS[question]
    before, after = (Training(*build(mended, plan)) for mended in (False, True))
    runs = {"before": before, "after": after}
    seconds = timing.time_in_turns(runs, f"question {question}", plan["rounds"])
    slow, fast = (
        [1e6 * s / run.examples for s in seconds[name]] for name, run in runs.items()
    )
    a_pass = statistics.median(seconds["after"])
    return {
        "question": question,
        "before": MENDED[question],
        "milliseconds_before": statistics.median(slow),
        "milliseconds": statistics.median(fast),
        "before_over_after": timing.ratio(slow, fast),
        "input_share": after.input_seconds() / a_pass,
        "first_pass": after.first_pass / a_pass,
        "shapes": len(after.shapes),
        "traced_again": after.traced_again,
        "backup_milliseconds": after.backup_milliseconds(),
    }


class Training:
    """A training as a contestant of `timing.time_in_turns`: its step is a pass.

    Args:
        model: compiled.
        dataset: `tf.data.Dataset` of batches, without end.
        steps: int, batches of a pass.
    """

    def __init__(self, model, dataset, steps):
        self.model, self.dataset, self.steps = model, dataset, steps
        shapes = [tf.nest.flatten(batch)[0].shape for batch in dataset.take(steps)]
        self.shapes = {tuple(shape) for shape in shapes}
        self.examples = sum(shape[0] for shape in shapes)
        self.first_pass = None
        self.traced_again = 0
        self.train_step, model.train_step = model.train_step, self.traced_step

    def traced_step(self, *batch):
        self.traced_again += self.first_pass is not None
        return self.train_step(*batch)

    def __call__(self, size, passes):
        seconds = [self.train() for _ in range(passes)]
        self.first_pass = self.first_pass or seconds[0]
        return seconds

    def train(self):
        """Trains for a pass; returns the seconds until its last batch is done."""
        ends = []
        clock = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
        )
        start = time.perf_counter()
        self.model.fit(
            self.dataset,
            steps_per_epoch=self.steps,
            callbacks=[clock],
            shuffle=False,
            verbose=0,
        )
        return ends[-1] - start

    def input_seconds(self):
        """Makes the batches of a pass; returns the seconds that it takes."""
        start = time.perf_counter()
        for _ in self.dataset.take(self.steps):
            pass
        return time.perf_counter() - start

    def backup_milliseconds(self, times=5):
        """Returns how long it takes to keep everything that a killed run needs."""
        with tempfile.TemporaryDirectory() as folder:
            backup = resume.Backup(folder)
            backup.set_model(self.model)
            ends = [time.perf_counter()]
            for epoch in range(times):
                backup.on_epoch_end(epoch, {"loss": 0.0})
                ends.append(time.perf_counter())
        return 1e3 * float(np.median(np.diff(ends)))


# The trainings: functions of whether they are mended, and of the plan, that return
# what `Training` takes.


@functools.cache
def sentences():
    """Returns question 1's sentences as token ids."""
    return text.encode_data(data.load_sentences(verbose=False))


def truncated_bptt(mended, plan):
    encoded = sentences()
    if not mended:
        encoded = encoded._replace(bucket_lengths=encoded.bucket_lengths[-1:])
    model = TBPTTClassifier(
        keras.layers.SimpleRNNCell(timing.UNITS), encoded.vocab_size, t=8
    )
    model.compile(
        keras.optimizers.Adam(timing.LEARNING_RATE),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    batches = encoded.batches("train", shuffle=True)
    return model, batches.repeat(), plan["steps"]


def reset_cell(mended, plan):
    task = sum_task()
    model = build_network("reset", task, 32)
    model.compile(
        keras.optimizers.Adam(timing.LEARNING_RATE, global_clipnorm=1.0),
        task.loss,
        jit_compile=True,
        steps_per_execution=20 if mended else 1,
    )
    return model, stream_batches(task, seed=0), plan["steps"]


def autoencoder(mended, plan):
    model = build_autoencoder("conv")
    model.compile(keras.optimizers.Adam(timing.LEARNING_RATE), jit_compile=True)
    steps, size = plan["steps"] // 4, 128
    images = np.random.default_rng(1).random(
        (steps * size + size // 2, 28, 28, 1), dtype="float32"
    )
    batches = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images), seed=0)
    batches = batches.batch(size, drop_remainder=mended).prefetch(2)
    return model, batches.repeat(), steps if mended else steps + 1


def denoiser(mended, plan):
    rows = bench_q4.sentences(plan["batches"])
    return bench_q4.training("ours" if mended else "naive", rows)


TRAININGS = {1: truncated_bptt, 2: reset_cell, 3: autoencoder, 4: denoiser}


def report(results):
    """Formats the results as Markdown."""
    return "\n\n".join(
        [
            "Milliseconds of 1,000 sentences, streams of 40 steps or images under `fit`"
            f", median of {results['rounds']} rounds; ratio (min to max)",
            timing.table(COLUMNS, results["rows"], TITLES),
        ]
    )


if __name__ == "__main__":
    description = __doc__.splitlines()[0]
    timing.main(description, RESULTS, measure, report, full=FULL, quick=QUICK)
