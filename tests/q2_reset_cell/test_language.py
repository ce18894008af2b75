"""q2_reset_cell/language.py: the cell on sentences, on a toy corpus."""

import keras
import numpy as np
import pytest

from common import data, text
from q1_tbptt.tbptt import TBPTTClassifier
from q2_reset_cell import language
from q2_reset_cell.reset_cell import ResetCell
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
    splits = [split(count, seed) for seed, count in enumerate((400, 60, 60))]
    return text.encode_data(data.TextData("toy", *splits), bucket_lengths=(8, 12))


@pytest.fixture(scope="module")
def model(corpus):
    keras.utils.set_random_seed(0)
    model = TBPTTClassifier(ResetCell(5), corpus.vocab_size, embedding_dim=4)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.8, weight.shape))
    model.head.bias.assign([0.0])
    return model


def test_few_sentences_are_half_positive_and_long_enough(corpus):
    rows, token_ids, labels = language.few_sentences(corpus, count=10, least=8)
    assert labels.tolist() == [0] * 5 + [1] * 5
    assert len(set(rows.tolist())) == 10
    assert ((token_ids > 0).sum(axis=1) >= 8).all()
    np.testing.assert_array_equal(token_ids[3][-8:], corpus.train[rows[3]][-8:])


@pytest.mark.parametrize("shuffled", [False, True])
def test_sentences_are_learned_by_heart(corpus, shuffled, monkeypatch):
    compile_all(monkeypatch, **NO_XLA)
    run = language.learn_by_heart(corpus, seed=0, shuffled=shuffled, loss=0.05)
    assert run["accuracy"] == 1.0
    assert run["loss"] < 0.05 < run["losses"][0]
    # The toy corpus is so easy that what was learned by heart holds elsewhere, unless
    # the labels were dealt out at random.
    assert (run["tuning"] > 0.8) == (not shuffled)


def test_controls_have_as_many_parameters():
    counts = {}
    for kind in ("reset", "elman", "gru"):
        cell = language.sentiment_cell(kind, units=16)
        cell.build((None, language.FEATURES))
        counts[kind] = cell.count_params()
    for kind in ("elman", "gru"):
        assert counts["reset"] <= counts[kind] < 1.1 * counts["reset"]
    with pytest.raises(ValueError, match="'lstm'"):
        language.sentiment_cell("lstm")


def test_options_reach_the_cell():
    cell = language.sentiment_cell("elman", units=4, activation="relu")
    assert cell.activation is keras.activations.relu


def test_gate_of_words_is_sorted_and_of_frequent_words(corpus, model):
    words, gate = language.gate_of_words(model, corpus, least=1)
    assert sorted(words) == sorted(WORDS)
    assert (np.diff(gate) >= 0).all() and gate[0] < gate[-1]
    index = corpus.vectorizer.get_vocabulary().index(words[0])
    embedding = model.embedding.embeddings.numpy()[index]
    expected = model.cell.reset_gate(embedding[np.newaxis]).numpy().mean()
    assert gate[0] == pytest.approx(expected)
    some, _ = language.gate_of_words(model, corpus, least=150)
    assert 0 < len(some) < len(words)


def test_trained_gate_gives_the_trained_logits(corpus, model):
    token_ids = keras.utils.pad_sequences(corpus.validation)
    expected = model(token_ids).numpy()[:, 0]
    table = language.gate_table(model)
    by_token = language.logits_with_gate(model, token_ids, table)
    np.testing.assert_allclose(by_token, expected, rtol=1e-4, atol=1e-5)
    by_position = language.logits_with_gate(model, token_ids, table[token_ids])
    np.testing.assert_array_equal(by_position, by_token)


def test_open_gate_gives_the_logits_of_an_elman_cell(corpus, model):
    cell = keras.layers.SimpleRNNCell(5)
    elman = TBPTTClassifier(cell, corpus.vocab_size, embedding_dim=4)
    ours = model.cell
    cell.set_weights([ours.kernel, ours.recurrent_kernel, ours.bias])
    elman.embedding.set_weights(model.embedding.get_weights())
    elman.head.set_weights(model.head.get_weights())
    token_ids = keras.utils.pad_sequences(corpus.validation)
    ones = np.ones_like(language.gate_table(model))
    opened = language.logits_with_gate(model, token_ids, ones)
    np.testing.assert_allclose(opened, elman(token_ids)[:, 0], rtol=1e-4, atol=1e-5)


def test_undoing_resets_changes_what_the_gate_does(corpus, model):
    undone = language.undo_resets(model, corpus)
    changed = undone.pop("changed")
    assert changed["as trained"] == 0
    assert changed["all undone"] > 0
    predicted = model(keras.utils.pad_sequences(corpus.validation)).numpy()[:, 0] > 0
    right = np.mean(predicted == corpus.texts.validation.labels)
    assert undone["as trained"] == pytest.approx(right)


def test_a_gate_that_is_the_same_for_all_words_cannot_be_undone(corpus):
    keras.utils.set_random_seed(0)
    model = TBPTTClassifier(
        ResetCell(5, reset_kernel_initializer="zeros"), corpus.vocab_size, 4
    )
    changed = language.undo_resets(model, corpus)["changed"]
    assert changed["all undone"] == changed["strongest undone"] == 0


def test_gated_sentences_show_words_and_their_gate(corpus, model):
    length = len(corpus.validation[0])
    ((words, gate, title),) = language.gated_sentences(model, corpus, [length])
    assert " ".join(words) in set(corpus.texts.validation.texts)
    known, by_word = language.gate_of_words(model, corpus, least=1)
    for word, value in zip(words, gate, strict=True):
        assert value == pytest.approx(by_word[known.index(word)])
    assert title.startswith("label ")


def test_cells_are_trained_for_every_seed_and_the_first_model_is_kept(
    corpus, monkeypatch
):
    compile_all(monkeypatch, **EAGER)
    trained = []

    def train(data, kind, *, seed, epochs, **options):
        trained.append((kind, seed))
        return train_sentiment(data, kind, seed=seed, epochs=epochs, units=4)

    train_sentiment = language.train_sentiment
    monkeypatch.setattr(language, "train_sentiment", train)
    names = ["reset", "elman"]
    runs, model = language.sentiment_by_cell(corpus, names, seeds=[3, 5], epochs=1)
    assert trained == [("reset", 3), ("reset", 5), ("elman", 3), ("elman", 5)]
    assert [len(runs[name]) for name in names] == [2, 2]
    scores = model.evaluate(corpus.batches("validation"), return_dict=True, verbose=0)
    assert runs["reset"][0]["validation"] == pytest.approx(scores["accuracy"])


def test_sentiment_is_learned_and_a_trained_model_is_not_trained_again(
    corpus, monkeypatch
):
    compile_all(monkeypatch, **EAGER)
    settings = {"seed": 0, "epochs": 3, "units": 8}
    model = language.train_sentiment(corpus, "reset", **settings)
    before = model.cell.kernel.numpy()
    run = language.sentiment_accuracy(corpus, "reset", trained=model, **settings)
    np.testing.assert_array_equal(model.cell.kernel.numpy(), before)
    scores = model.evaluate(corpus.batches("validation"), return_dict=True, verbose=0)
    assert run["validation"] == pytest.approx(scores["accuracy"])
    assert run["parameters"] == model.cell.count_params()
