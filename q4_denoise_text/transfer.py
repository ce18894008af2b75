"""Trains sentiment classifiers on an encoder."""

import keras
import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.text import bucketed_batches, check_labels
from q4_denoise_text.data import LENGTHS, MAX_LENGTH, corrupt
from q4_denoise_text.denoise_text import FineTuning
from q4_denoise_text.restoration import pad_rows

BATCH = 128


def labelled_batches(
    rows, labels, *, shuffle=False, seed=0, noise=None, batch_size=BATCH
):
    """Batches sentences of similar length with their labels.

    Args:
        rows: list of int arrays `(length,)`.
        labels: array `(len(rows),)`, 0 or 1.
        shuffle: see `common.text.bucketed_batches`.
        seed: int, of the order. The noise also depends on the global seed.
        noise: dict, arguments of `corrupt` except the seed, drawn again for each batch.
            None for none.
        batch_size: int. What does not fill a batch is dropped if `shuffle`.

    Returns:
        `tf.data.Dataset` of int32 `(batch, length)` and float32 `(batch,)`.

    Raises:
        ValueError: If labels are not 0 or 1, or rows are not token ids.
    """
    dataset = bucketed_batches(
        rows,
        labels,
        batch_size=batch_size,
        bucket_lengths=LENGTHS,
        padding="right",
        shuffle=shuffle,
        seed=seed,
    )
    if noise:
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
        dataset = tf.data.Dataset.zip(dataset, seeds).map(
            lambda batch, seeds: (corrupt(batch[0], **noise, seed=seeds), batch[1])
        )
    return dataset


def fit_linear_head(classifier, train, tuning, *, strengths=(0.01, 0.1, 1.0)):
    """Sets the head "linear" of a frozen encoder to a logistic regression.

    Features are scaled to unit variance for it, and the scale then becomes part of the
    weights. Of two values that are equally good the smaller one is taken, which is the
    stronger regularization. The classifier is changed in place.

    Args:
        classifier: from `build_classifier(encoder, head="linear")`.
        train: pair `(rows, labels)`, see `labelled_batches`.
        tuning: pair, to choose the strength on.
        strengths: increasing floats, values of scikit-learn's `C`, the inverse of the
            regularization.
    """
    pooled = in_a_graph(
        keras.Model(classifier.input, classifier.get_layer("logits").input)
    )

    def features(rows, labels):
        found = [
            (pooled(ids), labels) for ids, labels in labelled_batches(rows, labels)
        ]
        return map(np.concatenate, zip(*found, strict=True))

    train, tuning = (list(features(*part)) for part in (train, tuning))
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1_000))
        for c in strengths
    ]
    for model in models:
        model.fit(*train)
    scaler, regression = max(models, key=lambda model: model.score(*tuning))
    weights = (regression.coef_ / scaler.scale_).T  # (layers * width, 1)
    bias = regression.intercept_ - scaler.mean_ @ weights
    classifier.get_layer("logits").set_weights([weights, bias])


def train_classifier(
    classifier,
    train,
    tuning,
    *,
    epochs,
    learning_rate=1e-3,
    slow_rate=0.1,
    noise=None,
    seed=0,
    batch_size=BATCH,
    verbose=0,
):
    """Trains a classifier and keeps the weights of its best epoch.

    AdamW, a warm-up over a tenth of the steps, a cosine down to 0, and `slow_rate`
    times the learning rate for the encoder. The best epoch has the highest accuracy on
    the tuning sentences; of equal ones it is the first.

    Args:
        classifier: from `build_classifier`.
        train: pair `(rows, labels)`, see `labelled_batches`.
        tuning: pair, to choose the epoch on.
        epochs: int.
        learning_rate: float, the highest one.
        slow_rate: float, factor on it for the encoder.
        noise: see `labelled_batches`; only for training.
        seed: int, of order and noise.
        batch_size: int.
        verbose: as for `fit`.

    Returns:
        The history of `fit`, a dict of lists.
    """
    batches = labelled_batches(
        *train, shuffle=True, seed=seed, noise=noise, batch_size=batch_size
    )
    steps = epochs * int(batches.cardinality())
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps - steps // 10,
        warmup_target=learning_rate,
        warmup_steps=steps // 10,
    )
    encoder = classifier.get_layer("encoder")
    optimizer = FineTuning(
        rate,
        slow=[variable.path for variable in encoder.variables],
        slow_rate=slow_rate,
        weight_decay=0.01,
        global_clipnorm=1.0,
    )
    classifier.compile(
        optimizer,
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
        # XLA compiles once per length, which takes longer on a CPU than it saves.
        jit_compile=False,
    )
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=epochs, restore_best_weights=True
    )
    history = classifier.fit(
        batches,
        validation_data=labelled_batches(*tuning),
        epochs=epochs,
        callbacks=[best],
        shuffle=False,
        verbose=verbose,
    )
    return history.history


def predict(classifier, rows):
    """Returns the logits of sentences, a float32 array `(len(rows),)`.

    Args:
        classifier: from `build_classifier`.
        rows: list of int arrays `(length,)`; longer ones keep their first
            `MAX_LENGTH` ids.
    """
    if not rows:
        return np.empty(0, "float32")
    token_ids, run = pad_rows(rows, MAX_LENGTH), in_a_graph(classifier)
    starts = range(0, len(rows), BATCH)
    return np.concatenate([run(token_ids[i : i + BATCH])[:, 0] for i in starts])


def in_a_graph(model):
    """Compiles a model of `token_ids` once for all shapes, which `predict` does not."""
    return tf.function(model, input_signature=[tf.TensorSpec((None, None), tf.int32)])


def accuracy(logits, labels):
    """Returns the share of logits whose sign is that of their label; 0 is negative.

    Args:
        logits: float array `(n,)` or `(n, 1)`.
        labels: int array of the same size, 0 or 1.

    Raises:
        ValueError: If sizes differ, a logit is NaN, or a label is not 0 or 1.
    """
    logits = np.asarray(logits).ravel()
    labels = check_labels(np.asarray(labels).ravel(), len(logits))
    if np.isnan(logits).any():
        raise ValueError("`logits` must be numbers. Received: NaN")
    return float(np.mean((logits > 0) == (labels == 1)))
