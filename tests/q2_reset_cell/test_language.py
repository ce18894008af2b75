"""q2_reset_cell/language.py: the cell on sentences, on a toy corpus."""

import keras
import numpy as np
import pytest

from common import data, text
from q2_reset_cell import language
from tests.compiled import EAGER, NO_XLA, compile_all

WORDS = np.array("bad awful dull good great fun film plot the a of it".split())


def split(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    texts = []
    for label in labels:
        said = rng.choice(WORDS[3 * label : 3 * label + 3], 2)
        rest = rng.choice(WORDS[6:], rng.integers(3, 10))
        texts.append(" ".join(rng.permutation([*said, *rest])))
    return data.Split(np.array(texts, dtype=object), labels.astype("int32"))


@pytest.fixture(scope="module")
def corpus():
    splits = [split(count, seed) for seed, count in enumerate((1200, 60, 60))]
    return text.encode_data(data.TextData("toy", *splits), bucket_lengths=(8, 12))


@pytest.fixture(scope="module")
def model(corpus):
    keras.utils.set_random_seed(0)
    model = language.sentiment_network(corpus.vocab_size, "reset", units=5)
    model.build((None, None))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


def test_few_sentences_are_half_positive_and_long_enough(corpus):
    token_ids, labels = language.few_sentences(corpus, count=10, least=8)
    assert labels.tolist() == [0] * 5 + [1] * 5
    assert ((token_ids > 0).sum(axis=1) >= 8).all()
    train = zip(corpus.train, corpus.texts.train.labels, strict=True)
    known = {tuple(ids): label for ids, label in train}
    for row, label in zip(token_ids, labels, strict=True):
        assert known[tuple(row[row > 0])] == label
        assert (np.diff(row > 0) >= 0).all()  # padded on the left


@pytest.mark.parametrize("shuffled", [False, True])
def test_sentences_are_memorized(corpus, shuffled, monkeypatch):
    compile_all(monkeypatch, **NO_XLA)
    run = language.overfit(corpus, seed=0, shuffled=shuffled, loss=0.05)
    assert run["accuracy"] == 1.0
    assert run["loss"] < 0.05 < run["losses"][0]
    # The toy corpus is so easy that the network generalizes, unless the labels were
    # shuffled.
    assert (run["tuning"] > 0.8) == (not shuffled)


def test_networks_have_at_least_as_many_weights():
    counts = {}
    for name, (kind, options) in language.NETWORKS.items():
        model = language.sentiment_network(30, kind, units=16, **options)
        model.build((None, None))
        layer = model.layers[2]
        counts[name] = layer.count_params()
        activation = "relu" if name.endswith("relu") else "tanh"
        assert keras.activations.serialize(layer.cell.activation) == activation
    wanted = counts["reset, relu"]
    assert all(wanted <= count < 1.1 * wanted for count in counts.values())


def test_dropout_hides_the_same_features_at_every_step():
    model = language.sentiment_network(30, "reset", units=2)
    model.build((None, None))
    embedding, dropout = model.layers[:2]
    embedding.set_weights([np.ones((30, language.FEATURES))])
    token_ids = np.array([[3, 4, 5, 6], [7, 8, 9, 3]])
    kept = dropout(embedding(token_ids), training=True).numpy()
    assert set(kept.flat) == {0.0, 2.0}
    assert (kept == kept[:, :1]).all() and (kept[0] != kept[1]).any()


def test_gate_of_words_is_sorted_and_of_frequent_words(corpus, model):
    words, gate = language.gate_of_words(model, corpus, least=1)
    assert sorted(words) == sorted(WORDS)
    assert (np.diff(gate) >= 0).all() and gate[0] < gate[-1]
    index = corpus.vectorizer.get_vocabulary().index(words[0])
    embedding = model.layers[0].embeddings.numpy()[index]
    expected = np.mean(model.layers[2].cell.reset_gate(embedding))
    assert gate[0] == pytest.approx(expected)
    some, _ = language.gate_of_words(model, corpus, least=500)
    assert 0 < len(some) < len(words)


def test_first_with_word(corpus):
    ids = language.first_with_word(corpus, "good", 8)
    words = [corpus.vectorizer.get_vocabulary()[i] for i in ids]
    assert "good" in words and len(words) == 8
    assert " ".join(words) in set(corpus.texts.validation.texts)


def test_a_gate_fixed_at_1_gives_the_predictions_of_an_elman_network(corpus, model):
    elman = language.sentiment_network(corpus.vocab_size, "reset", units=5)
    elman = keras.Sequential(
        [*elman.layers[:2], keras.layers.SimpleRNN(5), *elman.layers[3:]]
    )
    elman.build((None, None))
    embedding, kernel, recurrent, bias, _, _, *head = model.get_weights()
    elman.set_weights([embedding, kernel, recurrent, bias, *head])
    token_ids = keras.utils.pad_sequences(corpus.validation)
    found, positive = (
        network.predict(token_ids, verbose=0)[:, 0] > 0 for network in (model, elman)
    )
    labels = corpus.texts.validation.labels
    trained, _, fixed = language.accuracy_without_the_gate(model, corpus)
    assert trained[1:] == (np.mean(found == labels), 0)
    assert fixed[1:] == (np.mean(positive == labels), np.mean(found != positive))
    assert fixed[2] > 0


def test_a_gate_that_is_the_same_for_all_words_is_its_mean(corpus):
    same = language.sentiment_network(
        corpus.vocab_size, "reset", units=5, reset_kernel_initializer="zeros"
    )
    same.build((None, None))
    _, mean, _ = language.accuracy_without_the_gate(same, corpus)
    assert mean[2] == 0


def test_networks_are_trained_once_for_every_seed_and_the_first_model_is_kept(
    corpus, monkeypatch
):
    compile_all(monkeypatch, **EAGER)
    trained = []

    def train(data, name, *, seed, epochs):
        trained.append((name, seed))
        return train_sentiment(data, name, seed=seed, epochs=epochs, units=8)

    train_sentiment = language.train_sentiment
    monkeypatch.setattr(language, "train_sentiment", train)
    names = ["reset, relu", "elman, tanh"]
    runs, model = language.sentiment_trainings(corpus, names, seeds=[3, 5], epochs=3)
    assert trained == [(name, seed) for name in names for seed in (3, 5)]
    assert [len(runs[name]) for name in names] == [2, 2]
    scores = model.evaluate(corpus.batches("validation"), return_dict=True, verbose=0)
    assert runs[names[0]][0]["validation"] == pytest.approx(scores["accuracy"])
    assert runs[names[0]][0]["weights"] == model.layers[2].count_params()


def test_a_trained_model_is_not_trained_again(corpus, monkeypatch):
    compile_all(monkeypatch, **EAGER)
    settings = {"seed": 0, "epochs": 1, "units": 4}
    model = language.train_sentiment(corpus, "reset, tanh", **settings)
    before = model.get_weights()
    language.sentiment_training(corpus, "reset, tanh", trained=model, **settings)
    np.testing.assert_equal(model.get_weights(), before)
