"""q4_denoise_text/transfer.py: batches with labels, and what an encoder is good for."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from q4_denoise_text import pretraining, restoration, transfer
from q4_denoise_text.denoise_text import (
    build_classifier,
    build_denoiser,
    hidden_layers,
)
from tests.compiled import EAGER, compile_all

VOCAB = 30
SMALL = {"width": 16, "depth": 1, "heads": 2}


def rows_of(count=200, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 9, count)
    return [rng.integers(5, VOCAB, length).astype("int32") for length in lengths]


def labelled(count=120, seed=0):
    """Makes sentences whose label is whether token 6 occurs rather than token 5."""
    rows = rows_of(count, seed)
    labels = np.arange(count) % 2
    for row, label in zip(rows, labels, strict=True):
        row[row < 7] = 9
        row[label] = 5 + label
    return rows, labels


def test_labelled_batches_hold_every_sentence_once_with_its_label():
    rows, labels = labelled(70)
    found = {}
    for token_ids, answers in transfer.labelled_batches(rows, labels, batch=16):
        assert token_ids.shape[1] in pretraining.LENGTHS
        for ids, answer in zip(token_ids.numpy(), answers.numpy(), strict=True):
            found.setdefault((*ids[ids > 0].tolist(),), []).append(answer.item())
    expected = {}
    for row, label in zip(rows, labels, strict=True):
        expected.setdefault((*row.tolist(),), []).append(float(label))
    assert found == expected


def test_labelled_batches_are_shuffled_anew_and_repeat_with_their_seed():
    def epochs(seed):
        data = transfer.labelled_batches(*labelled(70), shuffle=True, seed=seed)
        return [np.concatenate([y.numpy() for _, y in data]) for _ in range(2)]

    first, second = epochs(0)
    assert not np.array_equal(first, second)
    assert all(map(np.array_equal, (first, second), epochs(0)))


def test_noise_is_drawn_afresh_every_epoch():
    noise = {"mask_rate": 0.5, "replace_rate": 0.0, "shuffle_distance": 0}
    data = transfer.labelled_batches(*labelled(40), noise=noise, batch=64)
    first, second = ([ids.numpy() for ids, _ in data] for _ in range(2))
    assert any((a != b).any() for a, b in zip(first, second, strict=True))
    assert 0.3 < np.mean(np.concatenate([a[a > 0] == 2 for a in first])) < 0.7


@pytest.mark.parametrize("layer", [None, 0])
def test_a_linear_head_is_given_the_weights_of_the_regression(layer):
    rows, labels = labelled(300)
    encoder = build_denoiser(VOCAB, **SMALL).get_layer("encoder")
    classifier = build_classifier(encoder, head="linear", layer=layer)
    before = [w.numpy() for w in classifier.get_layer("encoder").weights]
    transfer.fit_linear_head(classifier, (rows, labels), labelled(60, seed=1))
    after = [w.numpy() for w in classifier.get_layer("encoder").weights]
    assert all(map(np.array_equal, before, after))

    states = hidden_layers(encoder)(restoration.pad_rows(rows))
    states = states[:1] if layer == 0 else states
    features = np.array(
        [
            np.concatenate(
                [layer[i, : len(row)].numpy().mean(axis=0) for layer in states]
            )
            for i, row in enumerate(rows)
        ]
    )
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    expected = [
        LogisticRegression(C=c, max_iter=500).fit(features, labels)
        for c in (0.01, 0.1, 1.0)
    ]
    found = transfer.predict(classifier, rows)
    errors = [np.abs(found - e.decision_function(features)).max() for e in expected]
    assert min(errors) < 1e-2
    assert transfer.accuracy(found, labels) > 0.9


@pytest.mark.parametrize("head", ["linear", "attention"])
def test_a_classifier_learns_what_a_word_decides(head, monkeypatch):
    compile_all(monkeypatch, **EAGER)
    encoder = build_denoiser(VOCAB, **SMALL).get_layer("encoder")
    classifier = build_classifier(encoder, frozen=False, head=head, units=16)
    history = transfer.train_classifier(
        classifier,
        labelled(160),
        labelled(60, seed=1),
        epochs=2,
        learning_rate=3e-2,
        slow_rate=1.0,
        batch=16,
    )
    assert max(history["val_accuracy"]) > 0.95
    # The best epoch's weights are kept.
    rows, labels = labelled(60, seed=1)
    kept = transfer.accuracy(transfer.predict(classifier, rows), labels)
    assert kept == pytest.approx(max(history["val_accuracy"]))
