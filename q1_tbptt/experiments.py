"""The experiments of question 1, as functions that return plain numbers.

Long ones go through `experiment.remember`, so that a run that was interrupted takes
up where it stopped.
"""

import time
from typing import NamedTuple

import keras
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from common import experiment, text
from q1_tbptt.tbptt import TBPTTClassifier, train_tbptt

QUESTION = "q1_tbptt"


class EncodedData(NamedTuple):
    """Text data as token ids; see `encode_data`."""

    texts: object
    vectorizer: keras.layers.Layer
    train: list
    tuning: list
    validation: list
    bucket_lengths: tuple

    @property
    def vocab_size(self):
        return self.vectorizer.vocabulary_size()

    def batches(self, split, *, batch_size=128, shuffle=False, seed=0):
        """Returns the batches of the split named "train", "tuning" or "validation"."""
        return text.bucketed_batches(
            getattr(self, split),
            getattr(self.texts, split).labels,
            batch_size=batch_size,
            bucket_lengths=self.bucket_lengths,
            shuffle=shuffle,
            seed=seed,
        )


def encode_data(texts, *, max_tokens=8000, bucket_lengths=(4, 8, 16, 28, 40, 56)):
    """Encodes all splits with a vocabulary of the training texts.

    Args:
        texts: `common.data.TextData`.
        max_tokens: int, upper limit of the vocabulary.
        bucket_lengths: increasing ints; longer texts keep their last tokens.

    Returns:
        `EncodedData`.
    """
    vectorizer = text.build_vectorizer(texts.train.texts, max_tokens=max_tokens)
    splits = [
        text.encode(vectorizer, split.texts, max_length=bucket_lengths[-1])
        for split in (texts.train, texts.tuning, texts.validation)
    ]
    return EncodedData(texts, vectorizer, *splits, tuple(bucket_lengths))


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


def accuracy_of_training(
    data, *, cell, t, seed, on=("tuning", "validation"), **options
):
    """Trains once and evaluates.

    Args:
        data: `EncodedData`.
        cell: name of a cell, see `train_tbptt`.
        t: int or None.
        seed: int.
        on: names of the splits to evaluate on.
        **options: for `train_tbptt`.

    Returns:
        Dict of the accuracy on each split, `history`, `epoch_seconds` (training
        alone) and `seconds` (everything).
    """
    settings = {
        "data": [data.texts.name, data.bucket_lengths, data.vocab_size],
        "cell": cell,
        "t": t,
        "seed": seed,
        "on": on,
        **options,
    }

    def compute():
        keras.backend.clear_session()
        recorder = Recorder()
        model, history = train_tbptt(
            data.batches("train", shuffle=True, seed=seed),
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

    return experiment.remember(QUESTION, settings, compute)


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


def exploding_cell(gain, units=128):
    """Returns an Elman cell whose recurrent kernel starts as `gain` times a rotation.

    Args:
        gain: float; every step back multiplies the gradient by about `gain`, less
            what the slope of tanh takes away.
        units: int.
    """
    return keras.layers.SimpleRNNCell(
        units, recurrent_initializer=keras.initializers.Orthogonal(gain)
    )


def gradient_norms_in_training(data, *, t, global_clipnorm, seed, steps, gain, rate):
    """Trains from an exploding start and records the gradient norm of every step.

    Plain gradient descent, so that nothing but the named cure tames the gradient.

    Args:
        data: `EncodedData`.
        t: int or None.
        global_clipnorm: float or None.
        seed: int.
        steps: int, training steps.
        gain: float, of the orthogonal initial recurrent kernel; above 1 explodes.
        rate: float, learning rate.

    Returns:
        Dict: `norms`, list of `steps` floats.
    """
    settings = dict(locals(), data=[data.texts.name, "norms"])

    def compute():
        keras.utils.set_random_seed(seed)
        model = TBPTTClassifier(exploding_cell(gain), data.vocab_size, t=t)
        model.compile(
            keras.optimizers.SGD(rate, global_clipnorm=global_clipnorm),
            keras.losses.BinaryCrossentropy(from_logits=True),
        )
        recorder = Recorder()
        batches = data.batches("train", shuffle=True, seed=seed)
        model.fit(
            batches.repeat().take(steps), callbacks=[recorder], verbose=0, shuffle=False
        )
        return {"norms": recorder.gradient_norms}

    return experiment.remember(QUESTION, settings, compute)
