"""The cell on sentences: overfitting, sentiment, and the gate of words."""

import keras
import numpy as np

from common import results, sweep, text
from q2_reset_cell.experiments import QUESTION
from q2_reset_cell.networks import LAYERS, matching_units, with_constant_gate
from q2_reset_cell.reset_cell import ResetRNN

FEATURES, UNITS = 128, 128
# What question 1 found best for its Elman network.
RELU = {"activation": "relu", "recurrent_initializer": "identity"}
NETWORKS = {
    "reset, relu": ("reset", RELU),
    "elman, relu": ("elman", RELU),
    "reset, tanh": ("reset", {}),
    "elman, tanh": ("elman", {}),
    "gru": ("gru", {}),
}


class StopWhenLearned(keras.callbacks.Callback):
    """Ends training once every sentence is right and the loss is below a bound.

    Args:
        loss: float, the bound on the mean loss of an epoch.
    """

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def on_epoch_end(self, epoch, logs=None):
        if logs["loss"] < self.loss and logs["accuracy"] == 1.0:
            self.model.stop_training = True


def few_sentences(data, count=32, least=10):
    """Picks training sentences, half of them positive.

    Args:
        data: `common.text.EncodedData`.
        count: int, even.
        least: int, tokens of the shortest sentence.

    Returns:
        `(token_ids, labels)`: an int32 array of shape `(count, time)`, padded on the
        left, and labels of shape `(count,)`.
    """
    labels = data.texts.train.labels
    long = np.array([len(ids) >= least for ids in data.train])
    rows = [np.flatnonzero(long & (labels == k))[: count // 2] for k in (0, 1)]
    rows = np.concatenate(rows)
    return keras.utils.pad_sequences([data.train[row] for row in rows]), labels[rows]


@results.cached(QUESTION)
def overfit(data, *, seed, shuffled=False, units=64, loss=5e-4, epochs=600):
    """Trains on 32 sentences until the network has memorized them.

    Args:
        data: `common.text.EncodedData`.
        seed: int, of weights and of the shuffle.
        shuffled: bool, whether the labels are shuffled among the sentences.
        units: int, size of the cell's state.
        loss: float, where training ends.
        epochs: int, the latest end.

    Returns:
        Dict: `loss` and `accuracy` on the 32 sentences after training, `losses`, one
        per epoch, and `tuning`, the accuracy on the tuning split.
    """
    token_ids, labels = few_sentences(data)
    if shuffled:
        labels = np.random.default_rng(seed).permutation(labels)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.layers.Embedding(data.vocab_size, units, mask_zero=True),
            ResetRNN(units),
            keras.layers.Dense(1),
        ]
    )
    _compile(model, keras.optimizers.Adam(3e-3))
    history = model.fit(
        token_ids,
        labels,
        epochs=epochs,
        callbacks=[StopWhenLearned(loss)],
        verbose=0,
    ).history
    reached = model.evaluate(token_ids, labels, verbose=0, return_dict=True)
    tuning = data.batches("tuning", batch_size=300)
    return {
        "loss": reached["loss"],
        "accuracy": reached["accuracy"],
        "losses": history["loss"],
        "tuning": model.evaluate(tuning, verbose=0, return_dict=True)["accuracy"],
    }


def _compile(model, optimizer):
    model.compile(
        optimizer,
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],
    )


def sentiment_network(vocab_size, kind, units=UNITS, **options):
    """Builds a sentence classifier around a recurrent layer.

    Args:
        vocab_size: int.
        kind: "reset", "elman" or "gru". The others have at least as many weights as
            the reset layer.
        units: int, units of the reset layer.
        **options: for the layer.

    Returns:
        A `keras.Sequential` from token ids `(batch, time)` to logits `(batch, 1)`.
    """
    same_features = (None, 1, FEATURES)  # at every step of a sentence
    return keras.Sequential(
        [
            keras.layers.Embedding(vocab_size, FEATURES, mask_zero=True),
            keras.layers.Dropout(0.5, noise_shape=same_features),
            LAYERS[kind](matching_units(kind, units, FEATURES), **options),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )


def train_sentiment(data, name, *, seed, epochs, units=UNITS):
    """Trains a sentence classifier, with question 1's settings in batches of 256.

    Args:
        data: `common.text.EncodedData`.
        name: one of `NETWORKS`.
        seed: int, of weights, dropout and the order of the sentences.
        epochs: int.
        units: int, units of the reset layer.

    Returns:
        The trained `keras.Sequential`.
    """
    keras.utils.set_random_seed(seed)
    train_ds = data.batches("train", batch_size=256, shuffle=True, seed=seed)
    kind, options = NETWORKS[name]
    model = sentiment_network(data.vocab_size, kind, units, **options)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, epochs * len(train_ds))
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.3, global_clipnorm=1.0)
    _compile(model, optimizer)
    model.fit(train_ds, epochs=epochs, shuffle=False, verbose=0)
    return model


@results.cached(QUESTION, ignore=["trained"])
def sentiment_training(data, name, *, trained=None, **settings):
    """Trains as `train_sentiment` and evaluates on the splits not trained on.

    Args:
        data: `common.text.EncodedData`.
        name: one of `NETWORKS`.
        trained: the model that `train_sentiment` returned for the same arguments, to
            save the training, or None.
        **settings: for `train_sentiment`; JSON must hold them.

    Returns:
        Dict: the accuracies `tuning` and `validation`, and `weights`, the number of
        weights of the recurrent layer.
    """
    model = trained or train_sentiment(data, name, **settings)
    scores = {
        split: model.evaluate(
            data.batches(split, batch_size=300), verbose=0, return_dict=True
        )["accuracy"]
        for split in ("tuning", "validation")
    }
    return scores | {"weights": model.layers[2].count_params()}


def sentiment_trainings(data, names, *, seeds, epochs):
    """Trains networks of equal size for sentiment.

    Args:
        data: `common.text.EncodedData`.
        names: list of `NETWORKS`, the first one with a reset cell.
        seeds: list of ints.
        epochs: int.

    Returns:
        `(runs, model)`: dict from a name to a list of what `sentiment_training`
        returns, one per seed; and the model of the first name and seed.
    """
    model = train_sentiment(data, names[0], seed=seeds[0], epochs=epochs)

    def train(name, seed):
        first = (name, seed) == (names[0], seeds[0])
        trained = model if first else None
        return sentiment_training(data, name, trained=trained, seed=seed, epochs=epochs)

    return sweep.run_seeds(train, names, seeds), model


def gate_by_token(model):
    """Returns R of every token id, an array of shape `(vocab_size, units)`.

    Args:
        model: from `sentiment_network`, of kind "reset".
    """
    embedding, layer = model.layers[0], model.layers[2]
    return layer.cell.reset_gate(embedding.embeddings).numpy()


def gate_of_words(model, data, least=50):
    """Tabulates the gate over the vocabulary.

    Args:
        model: from `sentiment_network`, of kind "reset".
        data: `common.text.EncodedData`.
        least: int, words seen fewer times in training are left out.

    Returns:
        `(words, gate)`: list of words, from the lowest gate to the highest, and an
        array with the mean of R over units for each.
    """
    counts = np.bincount(np.concatenate(data.train), minlength=data.vocab_size)
    counts[: text.UNKNOWN_ID + 1] = 0
    frequent = np.flatnonzero(counts >= least)
    gate = np.mean(gate_by_token(model)[frequent], axis=-1)
    order = np.argsort(gate)
    vocabulary = data.vectorizer.get_vocabulary()
    return [vocabulary[frequent[i]] for i in order], gate[order]


def first_with_word(data, word, length):
    """Returns the first validation sentence of a length with a word, as token ids.

    Args:
        data: `common.text.EncodedData`.
        word: str.
        length: int, number of tokens.
    """
    token = data.vectorizer.get_vocabulary().index(word)
    return next(ids for ids in data.validation if len(ids) == length and token in ids)


def accuracy_without_the_gate(model, data):
    """Evaluates a model whose gate does not depend on the word.

    Args:
        model: from `sentiment_network`, of kind "reset".
        data: `common.text.EncodedData`.

    Returns:
        List of `(gate, accuracy, changed)`: the name of the gate, the accuracy on the
        validation set, and the share of predictions that differ from the trained ones.
    """
    token_ids = keras.utils.pad_sequences(data.validation)
    usual = gate_by_token(model)[np.concatenate(data.validation)].mean(axis=0)
    models = {
        "as trained": model,
        "its mean, unit by unit": with_constant_gate(model, usual),
        "fixed at 1": with_constant_gate(model, 1.0),
    }
    positive = {
        name: copy.predict(token_ids, batch_size=300, verbose=0)[:, 0] > 0
        for name, copy in models.items()
    }
    labels = data.texts.validation.labels
    return [
        (name, np.mean(found == labels), np.mean(found != positive["as trained"]))
        for name, found in positive.items()
    ]
