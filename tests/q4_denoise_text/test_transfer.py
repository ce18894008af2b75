"""`q4_denoise_text.transfer`: batches with labels, classifiers, accuracy."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from q4_denoise_text import restoration, transfer
from q4_denoise_text.data import LENGTHS
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


def test_labelled_batches_are_shuffled_again_and_repeat_with_their_seed():
    def epochs(seed):
        data = transfer.labelled_batches(*labelled(140), shuffle=True, seed=seed)
        assert {ids.shape[1] for ids, _ in data} <= set(LENGTHS)
        return [np.concatenate([y.numpy() for _, y in data]) for _ in range(2)]

    first, second, again = *epochs(0), epochs(0)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, epochs(1)[0])
    assert all(map(np.array_equal, (first, second), again))


def test_noise_is_drawn_again_in_every_epoch():
    noise = {"mask_rate": 0.5, "replace_rate": 0.0, "shuffle_distance": 0}
    data = transfer.labelled_batches(*labelled(40), noise=noise)
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
        batch_size=16,
    )
    assert max(history["val_accuracy"]) > 0.95
    # The best epoch's weights are kept.
    rows, labels = labelled(60, seed=1)
    kept = transfer.accuracy(transfer.predict(classifier, rows), labels)
    assert kept == pytest.approx(max(history["val_accuracy"]))


def test_accuracy_takes_columns_and_no_nan():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 50)
    logits = np.where(labels, 1.0, -1.0) * rng.random(50)
    logits[:5] *= -1
    for one in (logits, logits[:, None]):
        for other in (labels, labels[:, None]):
            assert transfer.accuracy(one, other) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="`logits`"):
        transfer.accuracy(np.full(50, np.nan), labels)
    with pytest.raises(ValueError, match="`labels`"):
        transfer.accuracy(logits[1:], labels)
    with pytest.raises(ValueError, match="`labels` must be 0 or 1"):
        transfer.accuracy(logits, 2 * labels)
    with pytest.raises(ValueError, match="`labels` must be 0 or 1"):
        transfer.labelled_batches(rows_of(50), 2 * labels)


def test_no_sentences_have_no_logits():
    encoder = build_denoiser(VOCAB, **SMALL).get_layer("encoder")
    assert len(transfer.predict(build_classifier(encoder, units=8), [])) == 0
