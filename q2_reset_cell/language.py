"""The cell on sentences: a few learned by heart, sentiment, and the gate of words.

The classifier and its training are those of question 1, which take any cell.
"""

import keras
import numpy as np
import tensorflow as tf

from common import results, sweep, text
from q1_tbptt.tbptt import TBPTTClassifier, train_tbptt
from q2_reset_cell.experiments import QUESTION
from q2_reset_cell.networks import units_for_parameters
from q2_reset_cell.reset_cell import ResetCell

FEATURES = 128
# What question 1 found best for its Elman cell.
RELU = {"activation": "relu", "recurrent_initializer": "identity"}
CELLS = {
    "reset": ("reset", RELU),
    "elman": ("elman", RELU),
    "gru": ("gru", {}),
    "reset, tanh": ("reset", {}),
    "elman, tanh": ("elman", {}),
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
        `(rows, token_ids, labels)`: indices into the training split, an int32 array
        of shape `(count, time)`, padded on the left, and labels of shape `(count,)`.
    """
    labels = data.texts.train.labels
    long = np.array([len(ids) >= least for ids in data.train])
    rows = [np.flatnonzero(long & (labels == k))[: count // 2] for k in (0, 1)]
    rows = np.concatenate(rows)
    return (
        rows,
        keras.utils.pad_sequences([data.train[row] for row in rows]),
        labels[rows],
    )


@results.cached(QUESTION)
def learn_by_heart(data, *, seed, shuffled=False, units=64, loss=5e-4, epochs=600):
    """Trains on 32 sentences until they are known by heart.

    Args:
        data: `common.text.EncodedData`.
        seed: int, of weights and of the shuffle.
        shuffled: bool, whether labels are dealt out at random among the sentences.
        units: int, size of the cell's state.
        loss: float, where training ends.
        epochs: int, the latest end.

    Returns:
        Dict: `loss` and `accuracy` on the 32 sentences after training, the history of
        both as `losses` and `accuracies`, and `tuning`, the accuracy on the tuning
        split.
    """
    _, token_ids, labels = few_sentences(data)
    if shuffled:
        labels = np.random.default_rng(seed).permutation(labels)
    keras.utils.set_random_seed(seed)
    model = TBPTTClassifier(ResetCell(units), data.vocab_size, embedding_dim=units)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)],
    )
    batch = tf.data.Dataset.from_tensors((token_ids, labels[:, np.newaxis]))
    history = model.fit(
        batch,
        epochs=epochs,
        callbacks=[StopWhenLearned(loss)],
        shuffle=False,
        verbose=0,
    ).history
    reached = model.evaluate(batch, verbose=0, return_dict=True)
    tuning = data.batches("tuning", batch_size=300)
    return {
        "loss": reached["loss"],
        "accuracy": reached["accuracy"],
        "losses": history["loss"],
        "accuracies": history["accuracy"],
        "tuning": model.evaluate(tuning, verbose=0, return_dict=True)["accuracy"],
    }


def sentiment_cell(kind, units=128, **options):
    """Makes a cell for sentiment, its controls with at least as many parameters.

    Args:
        kind: "reset", "elman" or "gru".
        units: int, units of the reset cell.
        **options: for the cell.

    Returns:
        The cell.

    Raises:
        ValueError: If `kind` is none of the above.
    """
    cells = {
        "reset": ResetCell,
        "elman": keras.layers.SimpleRNNCell,
        "gru": keras.layers.GRUCell,
    }
    if kind not in cells:
        raise ValueError(f"`kind` must be one of {list(cells)}. Received: {kind!r}")
    if kind != "reset":
        units = units_for_parameters(cells[kind], FEATURES, ResetCell(units))
    return cells[kind](units, **options)


def train_sentiment(data, kind, *, seed, epochs, **options):
    """Trains question 1's classifier with a cell.

    Args:
        data: `common.text.EncodedData`.
        kind: see `sentiment_cell`.
        seed: int, of weights, dropout and the order of the sentences.
        epochs: int.
        **options: for `sentiment_cell`.

    Returns:
        The trained `TBPTTClassifier`.
    """
    keras.utils.set_random_seed(seed)
    model, _ = train_tbptt(
        data.batches("train", shuffle=True, seed=seed),
        data.batches("tuning", batch_size=300),
        t=None,
        cell=sentiment_cell(kind, **options),
        vocab_size=data.vocab_size,
        embedding_dim=FEATURES,
        epochs=epochs,
        seed=seed,
        verbose=0,
    )
    return model


@results.cached(QUESTION, ignore=["trained"])
def sentiment_accuracy(data, kind, *, trained=None, **settings):
    """Trains as `train_sentiment` and evaluates on the splits not trained on.

    Args:
        data: `common.text.EncodedData`.
        kind: see `sentiment_cell`.
        trained: the model that `train_sentiment` returned for the same arguments, to
            spare the training, or None.
        **settings: for `train_sentiment`; JSON must hold them.

    Returns:
        Dict of accuracies: `tuning`, `validation`; and the cell's `parameters`.
    """

    model = trained or train_sentiment(data, kind, **settings)
    scores = {
        split: model.evaluate(
            data.batches(split, batch_size=300), verbose=0, return_dict=True
        )["accuracy"]
        for split in ("tuning", "validation")
    }
    return scores | {"parameters": model.cell.count_params()}


def sentiment_by_cell(data, names, *, seeds, epochs):
    """Trains cells of equal size for sentiment.

    Args:
        data: `common.text.EncodedData`.
        names: list of keys of `CELLS`.
        seeds: list of ints.
        epochs: int.

    Returns:
        `(runs, model)`: dict from a name to a list of what `sentiment_accuracy`
        returns, one a seed; and the reset cell's model of the first seed.
    """
    kind, options = CELLS["reset"]
    model = train_sentiment(data, kind, seed=seeds[0], epochs=epochs, **options)
    trained = {("reset", seeds[0]): model}

    def accuracy(name, seed):
        kind, options = CELLS[name]
        of_model = {"trained": trained.get((name, seed)), "seed": seed}
        return sentiment_accuracy(data, kind, **of_model, epochs=epochs, **options)

    return sweep.run_seeds(accuracy, names, seeds), model


def gate_of_words(model, data, least=50):
    """Tabulates the gate over the vocabulary.

    Args:
        model: `TBPTTClassifier` with a `ResetCell`.
        data: `common.text.EncodedData`.
        least: int, words seen fewer times in training are left out.

    Returns:
        `(words, gate)`: list of words, from the one that forgets most to the one that
        forgets least, and an array with the mean of R over units for each.
    """
    counts = np.bincount(np.concatenate(data.train), minlength=data.vocab_size)
    counts[: text.UNKNOWN_ID + 1] = 0
    frequent = np.flatnonzero(counts >= least)
    gate = np.mean(gate_table(model)[frequent], axis=-1)
    order = np.argsort(gate)
    vocabulary = data.vectorizer.get_vocabulary()
    return [vocabulary[frequent[i]] for i in order], gate[order]


def gated_sentences(model, data, lengths):
    """Picks a validation sentence of each length and reads the gate of its words.

    Args:
        model: `TBPTTClassifier` with a `ResetCell`.
        data: `common.text.EncodedData`.
        lengths: ints, numbers of tokens.

    Returns:
        List of `(words, gate, title)`: R of each word, mean over units.
    """
    vocabulary = data.vectorizer.get_vocabulary()
    gate = gate_table(model).mean(axis=-1)
    labels = data.texts.validation.labels
    picked = []
    for length in lengths:
        row = text.first_of_length(data.validation, length)
        ids = data.validation[row]
        logit = model.truncated_logits(ids[np.newaxis], t=None).numpy()[0, 0]
        title = f"label {'-+'[labels[row]]}, logit {logit:+.1f}"
        picked.append(([vocabulary[i] for i in ids], gate[ids], title))
    return picked


def gate_table(model):
    """Returns R of every token id, an array of shape `(vocab_size, units)`.

    Args:
        model: `TBPTTClassifier` with a `ResetCell`.
    """
    return model.cell.reset_gate(model.embedding.embeddings).numpy()


def logits_with_gate(model, token_ids, table):
    """Computes logits with another gate for each token id than the trained one.

    Args:
        model: `TBPTTClassifier` with a `ResetCell`.
        token_ids: int array of shape `(batch, time)`, padded on the left.
        table: float array, R by token id, of shape `(vocab_size, units)`; or, R by
            position, of shape `(batch, time, units)`.

    Returns:
        Array of shape `(batch,)`.
    """
    reset = table[token_ids] if table.ndim == 2 else table
    projected, _ = model.cell.project(model.embedding(token_ids))
    hidden_state = model.initial_states(len(token_ids))[0]
    present = (token_ids != text.PADDING_ID)[..., np.newaxis]  # (batch, time, 1)
    for step in range(token_ids.shape[1]):
        new_state = model.cell.step(projected[:, step], reset[:, step], hidden_state)
        hidden_state = tf.where(present[:, step], new_state, hidden_state)
    return model.logits_from([hidden_state]).numpy()[:, 0]


def undo_resets(model, data, share=0.1, seed=0):
    """Undoes the strongest resets of every validation sentence, or random ones.

    Undone, a token's gate is the mean over all tokens of the split, unit by unit.

    Args:
        model: `TBPTTClassifier` with a `ResetCell`.
        data: `common.text.EncodedData`.
        share: float, share of a sentence's tokens, at least one.
        seed: int, of the random choice.

    Returns:
        Dict of accuracies: `as trained`, `strongest undone`, `random undone`, `all
        undone`, `R = 1`; and under `changed` the shares of predictions that differ
        from those as trained.
    """
    token_ids, labels = (
        keras.utils.pad_sequences(data.validation),
        data.texts.validation.labels,
    )
    table = gate_table(model)
    present = token_ids != text.PADDING_ID
    reset = table[token_ids]  # (batch, time, units)
    usual = reset[present].mean(axis=0)
    count = np.maximum(1, np.round(share * present.sum(axis=1)))[:, np.newaxis]

    def lowest(values):  # (batch, time) -> bool, true at the `count` lowest
        values = np.where(present, values, np.inf)
        return np.argsort(np.argsort(values, axis=1), axis=1) < count

    random = np.random.default_rng(seed).random(present.shape)
    undone = {
        "as trained": np.zeros_like(present),
        "strongest undone": lowest(reset.mean(axis=-1)),
        "random undone": lowest(random),
        "all undone": present,
    }
    gates = {
        name: np.where(where[..., np.newaxis], usual, reset)
        for name, where in undone.items()
    }
    gates["R = 1"] = np.ones_like(reset)
    positive = {n: logits_with_gate(model, token_ids, g) > 0 for n, g in gates.items()}
    accuracy = {name: float(np.mean(p == labels)) for name, p in positive.items()}
    changed = {
        n: float(np.mean(p != positive["as trained"])) for n, p in positive.items()
    }
    return accuracy | {"changed": changed}
