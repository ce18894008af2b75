"""Runs the experiments of question 1 and returns plain numbers.

Trainings are `results.cached`, so that an interrupted run resumes.
"""

import time

import keras
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from common import results, sweep
from q1_tbptt.gradients import gradient_magnitudes
from q1_tbptt.tbptt import TBPTTClassifier, new_cell, train_tbptt

QUESTION = "q1_tbptt"
# The exploding network: each step back multiplies the gradient by the gain of the
# recurrent kernel, a multiple of a rotation, and by the slope of tanh.
GAIN = 2.5


class Recorder(keras.callbacks.Callback):
    """Keeps the gradient norm of every step and the training time of every epoch."""

    def __init__(self):
        super().__init__()
        self.gradient_norms = []
        self.epoch_seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.gradient_norms.append(float(logs["gradient_norm"]))
        self.end = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        # Until the last step: what follows it is validation.
        self.epoch_seconds.append(self.end - self.start)


@results.cached(QUESTION)
def accuracy_of_training(data, *, cell, t, seed, batch_size=128, **options):
    """Trains once and evaluates on the tuning split and on the validation set.

    Args:
        data: `common.text.EncodedData`.
        cell: name of a cell, see `train_tbptt`.
        t: int or None.
        seed: int.
        batch_size: int.
        **options: for `train_tbptt`.

    Returns:
        Dict of the accuracies `tuning` and `validation`, and of `epoch_seconds`, which
        are those of the training steps only.
    """
    keras.backend.clear_session()
    recorder = Recorder()
    model, _ = train_tbptt(
        data.batches("train", batch_size=batch_size, shuffle=True, seed=seed),
        data.batches("tuning", batch_size=300),
        cell=cell,
        t=t,
        vocab_size=data.vocab_size,
        seed=seed,
        callbacks=recorder,
        verbose=0,
        **options,
    )
    return {
        "tuning": accuracy(model, data, "tuning"),
        "validation": accuracy(model, data, "validation"),
        "epoch_seconds": recorder.epoch_seconds,
    }


def accuracy(model, data, split):
    """Evaluates a model on a split of `common.text.EncodedData`; returns a float."""
    batches = data.batches(split, batch_size=300)
    return model.evaluate(batches, verbose=0, return_dict=True)["accuracy"]


def bag_of_words_accuracy(texts):
    """Evaluates the baseline: TF-IDF of single words and logistic regression.

    The tuning split chooses the strength of the penalty.

    Args:
        texts: `common.data.TextData`.

    Returns:
        Accuracy on the validation set, a float.
    """
    models = [
        make_pipeline(
            TfidfVectorizer(token_pattern=r"\S+"),
            LogisticRegression(C=inverse_penalty, max_iter=2000),
        ).fit(*texts.train)
        for inverse_penalty in (0.3, 1, 3, 10)
    ]
    best = max(models, key=lambda model: model.score(*texts.tuning))
    return float(best.score(*texts.validation))


def untrained_model(cell, vocab_size, seed=0):
    """Returns a new `TBPTTClassifier` with a cell, or with a named one of 128 units."""
    keras.utils.set_random_seed(seed)
    return TBPTTClassifier(new_cell(cell, units=128), vocab_size)


def exploding_cell(seed=0):
    """Returns an Elman cell whose gradient grows on its way back."""
    kernel = keras.initializers.Orthogonal(GAIN, seed=seed)
    return keras.layers.SimpleRNNCell(128, recurrent_initializer=kernel)


@results.cached(QUESTION)
def exploding_training(data, *, t, global_clipnorm, seed, epochs):
    """Trains a network from an exploding start.

    Args:
        data: `common.text.EncodedData`.
        t: int or None.
        global_clipnorm: float or None.
        seed: int.
        epochs: int.

    Returns:
        Dict: `norms`, the gradient norm of every step, and the accuracy `tuning`.
    """
    keras.backend.clear_session()
    recorder = Recorder()
    model, _ = train_tbptt(
        data.batches("train", shuffle=True, seed=seed),
        data.batches("tuning", batch_size=300),
        cell=exploding_cell(seed),
        t=t,
        vocab_size=data.vocab_size,
        epochs=epochs,
        global_clipnorm=global_clipnorm,
        seed=seed,
        callbacks=recorder,
        verbose=0,
    )
    return {
        "norms": recorder.gradient_norms,
        "tuning": accuracy(model, data, "tuning"),
    }


def long_sentences(data, at_least):
    """Picks the validation sentences of at least so many tokens.

    Args:
        data: `common.text.EncodedData`.
        at_least: int, tokens of the shortest sentence.

    Returns:
        `(token_ids, labels)`: an int32 array of shape `(sentences, time)`, padded with
        0 on the left, and an int32 array of shape `(sentences,)`, 0 or 1.
    """
    rows = [i for i, row in enumerate(data.validation) if len(row) >= at_least]
    token_ids = keras.utils.pad_sequences([data.validation[i] for i in rows])
    return token_ids, data.texts.validation.labels[rows]


def largest_gradient_before_cut(model, data, ts):
    """Finds the largest gradient at any position that the truncation leaves out.

    Args:
        model: `TBPTTClassifier`; its `t` changes.
        data: `common.text.EncodedData`, whose validation sentences are all measured.
        ts: truncations, ints.

    Returns:
        The largest `‖∂L/∂h_k‖` with `k < T-t` and `‖∂L/∂x_k‖` with `k ≤ T-t`, over all
        sentences and all `t`, a float.
    """
    token_ids = keras.utils.pad_sequences(data.validation)
    largest = []
    for t in ts:
        model.t = t
        hidden_state, inputs = gradient_magnitudes(
            model, token_ids, data.texts.validation.labels
        )
        largest.append(np.nanmax(hidden_state[:, : -1 - t]))
        largest.append(np.nanmax(inputs[:, : inputs.shape[1] - t]))
    return float(max(largest))


def accuracy_by_t(data, cells, seeds, **options):
    """Trains every cell with every truncation and seed.

    Args:
        data: `common.text.EncodedData`.
        cells: dict from a title to `(cell, options, ts)`: a name that `train_tbptt`
            knows, a dict of further options of it, and a list of truncations.
        seeds: list of ints.
        **options: for all trainings, see `accuracy_of_training`.

    Returns:
        `(validation, tuning)`, each a dict from title to dict from `t` to the list of
        accuracies, one per seed.
    """

    def train(kind, seed):
        title, t = kind
        cell, own, _ = cells[title]
        return accuracy_of_training(data, cell=cell, t=t, seed=seed, **own, **options)

    kinds = [(title, t) for title, (_, _, ts) in cells.items() for t in ts]
    runs = sweep.run_seeds(train, kinds, seeds)
    return [
        {
            title: {t: [run[split] for run in runs[title, t]] for t in ts}
            for title, (_, _, ts) in cells.items()
        }
        for split in ("validation", "tuning")
    ]


def accuracy_table(validation, tuning, baseline):
    """Formats what `accuracy_by_t` returned, and the baseline, as a Markdown table."""
    rows = [
        [
            title,
            "full" if t is None else t,
            results.percent(tuning[title][t]),
            results.percent(accuracies),
        ]
        for title, by_t in validation.items()
        for t, accuracies in by_t.items()
    ]
    rows.append(["bag of words", "", "", results.percent(baseline)])
    return results.markdown_table(["model", "t", "tuning", "validation"], rows)


def collect_metrics(accuracies, baseline, remedies, reviews, review_baseline):
    """Reduces the results to the entries of `results.json`.

    Args:
        accuracies: dict from title to dict from `t` to accuracies, one per seed.
        baseline: float.
        remedies: dict from the name of a remedy to runs of `exploding_training`.
        reviews: dict from the name of a training to runs of `accuracy_of_training`.
        review_baseline: float.
    """
    metrics = {"validation_accuracy_bag_of_words": baseline}
    for title, by_t in accuracies.items():
        for t, values in by_t.items():
            name = f"{title.lower()}_{'full' if t is None else f't{t}'}"
            metrics[f"validation_accuracy_{name}"] = results.summarise(values)
    for remedy, runs in remedies.items():
        largest = max(max(run["norms"]) for run in runs)
        metrics[f"gradient_norm_max_{remedy}"] = largest
        metrics[f"exploding_accuracy_{remedy}"] = results.summarise(
            [run["tuning"] for run in runs]
        )
    metrics["review_accuracy_bag_of_words"] = review_baseline
    for name, runs in reviews.items():
        name = name.replace(", ", "_").replace(" = ", "").replace(" BPTT", "")
        # The fastest epoch: whatever else the machine does only adds.
        seconds = min(min(run["epoch_seconds"]) for run in runs)
        metrics[f"review_seconds_per_epoch_{name}"] = seconds
        metrics[f"review_accuracy_{name}"] = results.summarise(
            [run["validation"] for run in runs]
        )
    return metrics
