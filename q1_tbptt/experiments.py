"""The experiments of question 1, as functions that return plain numbers.

Long ones are `results.cached`, so that a run that was interrupted resumes.
"""

import time

import keras
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from common import results, sweep, text
from q1_tbptt.gradients import gradient_magnitudes
from q1_tbptt.tbptt import TBPTTClassifier, as_cell, train_tbptt

QUESTION = "q1_tbptt"


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
        # Up to the last step: what comes behind it is validation.
        self.epoch_seconds.append(self.end - self.start)


@results.cached(QUESTION)
def accuracy_of_training(
    data, *, cell, t, seed, batch_size=128, on=("tuning", "validation"), **options
):
    """Trains once and evaluates.

    Args:
        data: `common.text.EncodedData`.
        cell: name of a cell, see `train_tbptt`.
        t: int or None.
        seed: int.
        batch_size: int.
        on: names of the splits to evaluate on.
        **options: for `train_tbptt`.

    Returns:
        Dict of the accuracy on each split, `history`, `epoch_seconds` (training
        alone) and `seconds` (everything).
    """
    keras.backend.clear_session()
    recorder = Recorder()
    model, history = train_tbptt(
        data.batches("train", batch_size=batch_size, shuffle=True, seed=seed),
        data.batches("tuning", batch_size=300),
        cell=cell,
        t=t,
        vocab_size=data.vocab_size,
        seed=seed,
        callbacks=[recorder],
        verbose=0,
        **options,
    )
    scores = {
        split: model.evaluate(
            data.batches(split, batch_size=300), verbose=0, return_dict=True
        )["accuracy"]
        for split in on
    }
    return {
        **scores,
        "history": history.history,
        "epoch_seconds": recorder.epoch_seconds,
    }


def bag_of_words_accuracy(texts, on="validation", regularisation=(0.3, 1, 3, 10)):
    """Evaluates the floor: TF-IDF of single words and logistic regression.

    Args:
        texts: `common.data.TextData`.
        on: name of the split to evaluate on.
        regularisation: values of scikit-learn's `C`; the tuning split chooses.

    Returns:
        Accuracy, a float.
    """
    models = []
    for inverse_penalty in regularisation:
        model = make_pipeline(
            TfidfVectorizer(token_pattern=r"\S+"),
            LogisticRegression(C=inverse_penalty, max_iter=2000),
        )
        models.append(model.fit(*texts.train))
    best = max(models, key=lambda model: model.score(*texts.tuning))
    return float(best.score(*getattr(texts, on)))


def untrained_model(cell, vocab_size, seed=0):
    """Returns a fresh `TBPTTClassifier` with a cell, or the cell of that name.

    Args:
        cell: RNN cell, or a name that `train_tbptt` knows, for one of 128 units.
        vocab_size: int.
        seed: int, of the weights.
    """
    keras.utils.set_random_seed(seed)
    return TBPTTClassifier(as_cell(cell, units=128), vocab_size)


def exploding_model(vocab_size, gain, seed=0):
    """Returns an untrained Elman network whose gradient grows on its way back.

    Args:
        vocab_size: int.
        gain: float, the initial recurrent kernel is `gain` times a rotation: every
            step back multiplies the gradient by `gain`, less what the slope of tanh
            takes away.
        seed: int.
    """
    cell = keras.layers.SimpleRNNCell(
        128, recurrent_initializer=keras.initializers.Orthogonal(gain, seed=seed)
    )
    return untrained_model(cell, vocab_size, seed)


@results.cached(QUESTION)
def gradient_norms_in_training(
    data, *, t, global_clipnorm, seed, steps, gain=2.5, learning_rate=0.1
):
    """Trains from an exploding start and records the gradient norm of every step.

    Plain gradient descent, so that nothing but the named cure tames the gradient.

    Args:
        data: `common.text.EncodedData`.
        t: int or None.
        global_clipnorm: float or None.
        seed: int.
        steps: int, training steps.
        gain: float, see `exploding_model`.
        learning_rate: float.

    Returns:
        Dict: `norms`, list of `steps` floats.
    """
    model = exploding_model(data.vocab_size, gain, seed)
    model.t = t
    model.compile(
        keras.optimizers.SGD(learning_rate, global_clipnorm=global_clipnorm),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    recorder = Recorder()
    batches = data.batches("train", shuffle=True, seed=seed)
    model.fit(
        batches.repeat().take(steps), callbacks=[recorder], verbose=0, shuffle=False
    )
    return {"norms": recorder.gradient_norms}


def first_of_length(token_ids, length):
    """Returns the index of the first row with `length` tokens, none of them unknown.

    Args:
        token_ids: list of int arrays of shape `(length_i,)`, see `common.text.encode`.
        length: int.

    Raises:
        ValueError: If there is no such row.
    """
    for index, row in enumerate(token_ids):
        if len(row) == length and text.UNKNOWN_ID not in row:
            return index
    raise ValueError(f"`token_ids` has no row of {length} known tokens.")


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
    return (
        keras.utils.pad_sequences([data.validation[i] for i in rows]),
        data.texts.validation.labels[rows],
    )


def largest_gradient_beyond_cut(models, data, ts):
    """Finds the largest gradient at any position that truncation cuts off.

    Args:
        models: dict from name to `TBPTTClassifier`.
        data: `common.text.EncodedData`, whose validation sentences are all measured.
        ts: truncations, ints.

    Returns:
        Dict from name to the largest `‖∂L/∂h_k‖` with `k < T-t` and `‖∂L/∂x_k‖` with
        `k ≤ T-t`, over all sentences and all `t`.
    """
    ids, labels = (
        keras.utils.pad_sequences(data.validation),
        data.texts.validation.labels,
    )
    largest = {}
    for name, model in models.items():
        largest[name] = 0.0
        for t in ts:
            model.t = t
            hidden_state, inputs = gradient_magnitudes(model, ids, labels)
            beyond = [hidden_state[:, : -1 - t], inputs[:, : inputs.shape[1] - t]]
            largest[name] = max(largest[name], *(float(np.nanmax(b)) for b in beyond))
    return largest


def accuracy_by_t(data, cells, seeds, **options):
    """Trains every cell with every truncation and seed.

    Args:
        data: `common.text.EncodedData`.
        cells: dict from a title to `(cell, batch_size, ts)`: a name that
            `train_tbptt` knows, an int, and a list of truncations.
        seeds: list of ints.
        **options: for `train_tbptt`.

    Returns:
        `(validation, tuning)`, each a dict from title to dict from `t`: to the list
        of accuracies, one a seed, on the validation sentences, and to the mean
        accuracy on the tuning split.
    """

    def train(kind, seed):
        title, t = kind
        cell, batch_size, _ = cells[title]
        return accuracy_of_training(
            data, cell=cell, t=t, seed=seed, batch_size=batch_size, **options
        )

    kinds = [(title, t) for title, (_, _, ts) in cells.items() for t in ts]
    validation, tuning = ({title: {} for title in cells} for _ in range(2))
    for (title, t), runs in sweep.run_seeds(train, kinds, seeds).items():
        validation[title][t] = [run["validation"] for run in runs]
        tuning[title][t] = float(np.mean([run["tuning"] for run in runs]))
        print(
            f"{title:11s} t={t!s:4s}  tuning {results.percent(tuning[title][t])}   "
            f"validation {results.percent(validation[title][t])}   "
            f"{np.mean([run['seconds'] for run in runs]):.0f} s a run"
        )
    return validation, tuning


def quantiles(runs):
    """Returns the median, 99 % quantile and maximum over all numbers of all runs.

    Args:
        runs: list of lists of numbers, one list a run.

    Returns:
        List of three floats.
    """
    return np.quantile(np.concatenate(runs), (0.5, 0.99, 1.0)).tolist()
