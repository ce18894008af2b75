"""Sentiment from a pre-trained encoder: training of a classifier, and its floor."""

import keras
import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from q4_denoise_text.corpus import MAX_LENGTH
from q4_denoise_text.denoise_text import FineTuning
from q4_denoise_text.noise import corrupt
from q4_denoise_text.pretraining import LENGTHS
from q4_denoise_text.restoration import pad_rows

BATCH = 64


def labelled_batches(rows, labels, *, shuffle=False, seed=0, noise=None, batch=BATCH):
    """Batches sentences of similar length with their labels.

    Args:
        rows: list of int32 arrays `(length,)`.
        labels: int array `(len(rows),)`.
        shuffle: bool, whether order and batches differ in every epoch.
        seed: int, of order and noise.
        noise: dict, arguments of `corrupt` but the seed, drawn afresh for each batch,
            or None.
        batch: int, sentences in a batch.

    Returns:
        `tf.data.Dataset` of int32 `(batch, length)` and float32 `(batch, 1)`.
    """
    ids = tf.RaggedTensor.from_row_lengths(
        np.concatenate(rows), [len(row) for row in rows]
    )
    labels = np.asarray(labels, "float32")[:, np.newaxis]
    dataset = tf.data.Dataset.from_tensor_slices((ids, labels))
    if shuffle:
        dataset = dataset.shuffle(len(rows), seed=seed)
    # Bucketing takes tensors alone, which a row of a ragged tensor is not yet.
    dataset = dataset.map(lambda ids, label: (tf.ensure_shape(ids, [None]), label))
    dataset = dataset.bucket_by_sequence_length(
        lambda ids, label: tf.size(ids),
        [length + 1 for length in LENGTHS],
        [batch] * (len(LENGTHS) + 1),
        pad_to_bucket_boundary=True,
    )
    # Keras warns when data ends that does not say how long it is.
    buckets = np.searchsorted(LENGTHS, [len(row) for row in rows])
    batches = -(-np.bincount(buckets) // batch)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches.sum()))
    if noise:

        def corrupted(seeds, pair):
            return corrupt(pair[0], **noise, seed=seeds), pair[1]

        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
        dataset = tf.data.Dataset.zip(seeds, dataset).map(corrupted)
    return dataset.prefetch(tf.data.AUTOTUNE)


def fit_linear_head(classifier, train, tuning, *, strengths=(0.01, 0.1, 1.0)):
    """Gives the head "linear" of a frozen encoder the best weights there are.

    Nothing but a logistic regression is left to train, which has one optimum: no
    learning rate, no epochs, no seed. Features are scaled to unit variance for it, and
    the scale then goes into the weights.

    Args:
        classifier: from `build_classifier(encoder, head="linear")`.
        train: pair `(rows, labels)`, see `labelled_batches`.
        tuning: pair, to choose the strength on.
        strengths: floats, the inverse of how much is regularised.
    """
    pooled = keras.Model(classifier.input, classifier.get_layer("mean").output)

    def features(rows, labels):
        batches = labelled_batches(rows, labels, batch=8 * BATCH)
        found = [(pooled.predict_on_batch(ids), label) for ids, label in batches]
        states, labels = map(np.concatenate, zip(*found, strict=True))
        return states, labels[:, 0]

    train, tuning = features(*train), features(*tuning)
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))
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
    batch=BATCH,
    jit_compile=False,
    verbose=0,
):
    """Trains a classifier and keeps the weights of its best epoch.

    AdamW, a warm-up over a tenth of the steps, a cosine down to 0, and smaller steps
    for the encoder's weights. The best epoch has the highest accuracy on the
    tuning sentences.

    Args:
        classifier: from `build_classifier`.
        train: pair `(rows, labels)`, see `labelled_batches`.
        tuning: pair, to choose the epoch on.
        epochs: int.
        learning_rate: float, the highest one.
        slow_rate: float, the encoder's learning rate is so many times that.
        noise: see `labelled_batches`; for training alone.
        seed: int, of order and noise.
        batch: int.
        jit_compile: bool, whether XLA compiles the training step, once for every
            length of a batch, which takes longer on a CPU than a few epochs save.
        verbose: as for `fit`.

    Returns:
        The history of `fit`, a dict of lists.
    """
    steps = epochs * (len(train[0]) // batch + 1)
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
        jit_compile=jit_compile,
    )
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=epochs, restore_best_weights=True
    )
    history = classifier.fit(
        labelled_batches(*train, shuffle=True, seed=seed, noise=noise, batch=batch),
        validation_data=labelled_batches(*tuning),
        epochs=epochs,
        shuffle=False,
        callbacks=[best],
        verbose=verbose,
    )
    return history.history


def predict(classifier, rows):
    """Returns the logits of sentences, an array `(len(rows),)`.

    Args:
        classifier: from `build_classifier`.
        rows: list of int arrays `(length,)`, none longer than `MAX_LENGTH`.
    """
    token_ids = pad_rows(rows, MAX_LENGTH)
    return classifier.predict(token_ids, batch_size=BATCH, verbose=0)[:, 0]


def accuracy(logits, labels):
    """Returns the share of logits whose sign is that of their label.

    Args:
        logits: float array `(n,)`.
        labels: int array `(n,)`, 0 or 1.
    """
    return float(np.mean((logits > 0) == (np.asarray(labels) == 1)))
