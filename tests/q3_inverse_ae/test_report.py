"""`q3_inverse_ae.report` measures what the docstring of `inversion_report` says.

The oracles share no code with the package: singular values and forward passes in
NumPy, and networks whose inverses are known by hand.
"""

import json
import types

import keras
import numpy as np
import pytest

from q3_inverse_ae import controls, inverse_ae, report
from q3_inverse_ae.report import inversion_report
from tests.compiled import EAGER, NO_XLA, compile_all
from tests.q3_inverse_ae.oracles import (
    BAD_IMAGES,
    CLASSES,
    GOOD,
    KINDS,
    LAYERED,
    STATES,
    flat,
    mixtures,
    noise,
    numpy_fvu,
    plain_pairs,
    plain_states,
    small,
)


def principal(states):
    """Returns mean, variances, falling, and directions (one a row) of states."""
    mean = flat(states).mean(axis=0)
    _, singular, directions = np.linalg.svd(flat(states) - mean, full_matrices=False)
    return mean, singular**2 / (len(states) - 1), directions


def linear(kernel, bias):
    layer = keras.layers.Dense(kernel.shape[1])
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel, bias])
    return layer


def linear_model(mean, ahead, back):
    """Returns a model of one pair, f(x) = A (x − mean) and g(z) = B z + mean."""
    pair = linear(ahead.T, -ahead @ mean), linear(back.T, mean)
    return types.SimpleNamespace(kind="dense", pairs=[pair])


def pca_model(images, width):
    mean, _, directions = principal(images)
    return linear_model(mean, directions[:width], directions[:width].T)


# -- The columns ---------------------------------------------------------------------


def expected_rows(model, images):
    pairs = plain_pairs(model)
    hidden, estimates, decoded = plain_states(model, images)
    for i, (encode, _) in enumerate(pairs, start=1):
        inputs, states, estimate = hidden[i - 1], hidden[i], estimates[i - 1]
        mean, variances, directions = principal(inputs)
        alive = variances > 1e-6 * variances[0]
        along = flat(estimate - inputs) @ directions[alive].T
        a, b = flat(estimate) - mean, flat(inputs) - mean
        lengths = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
        shares = principal(states)[1] / principal(states)[1].sum()
        shares = shares[shares > 1e-12]
        width = flat(states).shape[1]
        yield {
            "layer": i,
            "width": width,
            "local_fvu": numpy_fvu(inputs, estimate),
            "chain_fvu": numpy_fvu(inputs, decoded[i - 1]),
            "whitened_fvu": np.mean((along**2).mean(axis=0) / variances[alive]),
            "cosine": np.mean((a * b).sum(axis=1) / lengths),
            "right_inverse_error": numpy_fvu(states, encode(estimate)),
            "participation_ratio": 1 / np.sum(shares**2),
            "effective_rank": np.prod(shares**-shares),
            "pca_fvu": variances[width:].sum() / variances.sum(),
        }


@KINDS
@LAYERED
def test_every_column_is_that_of_numpy(monkeypatch, kind, variant):
    monkeypatch.setattr(report, "BATCH", 23)  # whose last batch is smaller
    model, images = small(kind, variant), noise(60)
    rows = inversion_report(model, images, inverse_epochs=0)
    for row, expected in zip(rows, expected_rows(model, images), strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(
                row[name], value, rtol=2e-4, atol=1e-6, err_msg=f"{name}, {row}"
            )
    assert [row["width"] for row in rows] == [np.prod(s) for s in STATES[kind][1:]]
    assert json.loads(json.dumps(rows)) == rows
    half = small(kind, variant, dtype="mixed_float16")
    again = inversion_report(half, images, inverse_epochs=0)
    for row, found in zip(rows, again, strict=True):
        assert found == pytest.approx(row, rel=0.02, abs=2e-3)


def test_whitening_counts_every_direction_alike_but_dead_ones():
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]] * 10)
    images = np.full((40, 784), 0.5)
    images[:, :3] += 0.4 * signs * [1, 1e-2, 1e-4]  # variances 1, 1e-4 and 1e-8
    images = np.float32(images.reshape(-1, 28, 28, 1))
    # Only the first direction comes back, one of the two that count.
    ahead, back = np.eye(3, 784), np.zeros((784, 3))
    back[0, 0] = 1
    model = linear_model(flat(images).mean(axis=0), ahead, back)
    (row,) = inversion_report(model, images, inverse_epochs=0)
    np.testing.assert_allclose(row["whitened_fvu"], 1 / 2 * 39 / 40, rtol=1e-4)
    np.testing.assert_allclose(row["local_fvu"], 1e-4, rtol=1e-3)


def test_pca_is_at_its_floor():
    images, width = noise(120), 10
    (row,) = inversion_report(pca_model(images, width), images, inverse_epochs=0)
    _, variances, _ = principal(images)
    floor = variances[width:].sum() / variances.sum()
    assert 0.5 < floor < 0.9
    for name in ("local_fvu", "chain_fvu", "pca_fvu"):
        np.testing.assert_allclose(row[name], floor, rtol=1e-5)
    assert row["right_inverse_error"] < 1e-9
    # No error in 10 of 119 directions, an error of v_k in the others.
    expected = (119 - width) / 119 * 119 / 120
    np.testing.assert_allclose(row["whitened_fvu"], expected, rtol=1e-4)


def test_a_square_orthogonal_network_starts_as_its_own_inverse(monkeypatch):
    monkeypatch.setattr(inverse_ae, "WIDTHS", {"dense": (784,) * 3})
    model = controls.InverseActivation("dense", 784)
    for row in inversion_report(model, noise(30), inverse_epochs=0):
        for name in ("local_fvu", "chain_fvu", "whitened_fvu", "right_inverse_error"):
            assert 0 <= row[name] < 1e-5, name
        assert row["cosine"] > 1 - 1e-5


# -- The learned inverse -------------------------------------------------------------


def gaussian_images(count, seed):
    """Returns images with a normal distribution of 30 dimensions around grey."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(784, 30)))[0]
    scores = np.random.default_rng(seed).normal(size=(count, 30))
    images = 0.5 + scores * np.linspace(0.5, 0.15, 30) @ basis.T
    assert 0 < images.min() and images.max() < 1
    return np.float32(images.reshape(-1, 28, 28, 1))


def test_nothing_is_gained_on_pca_of_normal_images():
    train, test = gaussian_images(1024, 1), gaussian_images(500, 2)
    model = pca_model(train, 8)
    (row,) = inversion_report(model, test, train, inverse_epochs=4)
    (without,) = inversion_report(model, test, inverse_epochs=0)
    assert row.keys() - without.keys() == {"learned_inverse_fvu", "oracle_ratio"}
    assert 0.95 < row["oracle_ratio"] < 1.05
    ratio = row["local_fvu"] / row["learned_inverse_fvu"]
    np.testing.assert_allclose(row["oracle_ratio"], ratio, rtol=1e-4)


def test_much_is_gained_where_the_inverse_is_curved(monkeypatch):
    compile_all(monkeypatch, **NO_XLA)
    rng = np.random.default_rng(0)
    a, b, c = np.linalg.qr(rng.normal(size=(784, 3)))[0].T
    t = rng.uniform(-1, 1, (1280, 2))
    bend = 0.7 * (3 * t[:, :1] ** 2 - 1)
    images = 0.5 + t @ np.stack([a, b]) + bend * c
    # The best linear inverse: t and its square are uncorrelated.
    plane = np.stack([a, b])
    model = linear_model(np.full(784, 0.5), plane, plane.T)
    images = images.reshape(-1, 28, 28, 1)
    (row,) = inversion_report(model, images, inverse_epochs=30)
    local = np.sum(bend**2) / np.sum((flat(images) - flat(images).mean(axis=0)) ** 2)
    np.testing.assert_allclose(row["local_fvu"], local, rtol=1e-3)
    assert row["oracle_ratio"] > 3
    # The ratio is of the last fifth, which the learned inverse has not seen.
    last = flat(images[1024:])
    local = np.sum(bend[1024:] ** 2) / np.sum((last - last.mean(axis=0)) ** 2)
    ratio = local / row["learned_inverse_fvu"]
    np.testing.assert_allclose(row["oracle_ratio"], ratio, rtol=1e-3)


def test_a_wrong_decoder_layer_is_no_obstacle_to_the_learned_inverse(monkeypatch):
    compile_all(monkeypatch, **NO_XLA)
    images = mixtures(400)  # of four dimensions
    mean, _, directions = principal(images)
    model = linear_model(mean, directions[:6], -3 * directions[:6].T)
    (row,) = inversion_report(model, images, inverse_epochs=1)
    assert row["local_fvu"] == pytest.approx(16, rel=1e-3)
    assert row["learned_inverse_fvu"] < 1e-3


def test_an_exact_inverse_has_a_finite_report(monkeypatch):
    compile_all(monkeypatch, **EAGER)
    model = linear_model(np.zeros(784), np.eye(784), np.eye(784))
    (row,) = inversion_report(model, noise(20), inverse_epochs=1)
    assert row["local_fvu"] == row["learned_inverse_fvu"] == 0
    assert np.isfinite(list(row.values())).all()


# -- What the figures show -----------------------------------------------------------


@KINDS
def test_depth_and_local_fvu_are_those_of_round_trips(kind):
    model, images = small(kind), noise(30)
    hidden, estimates, _ = plain_states(model, images)
    pairs = plain_pairs(model)
    expected = []
    for depth in range(1, 5):
        states = hidden[depth]
        for _, g in reversed(pairs[:depth]):
            states = g(states)
        expected.append(numpy_fvu(hidden[0], states))
    np.testing.assert_allclose(report.depth_fvu(model, images), expected, rtol=1e-4)
    expected = [numpy_fvu(hidden[i], estimates[i]) for i in range(4)]
    np.testing.assert_allclose(report.local_fvu(model, images), expected, rtol=1e-4)


def test_border_fvu_is_of_the_outermost_ring_and_the_rest():
    model, images = small("conv"), noise(20)
    hidden, estimates, _ = plain_states(model, images)
    for layer in range(1, 5):
        targets, estimate = hidden[layer - 1], estimates[layer - 1]
        errors = (targets - estimate) ** 2
        spread = (targets - targets.mean(axis=0)) ** 2
        within = [part[:, 1:-1, 1:-1].sum() for part in (errors, spread)]
        ring = [errors.sum() - within[0], spread.sum() - within[1]]
        expected = (ring[0] / ring[1], within[0] / within[1])
        found = report.border_fvu(model, images, layer)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_unfamiliar_images_have_the_pixels_of_the_digits():
    images = noise(6)
    found, again, other = (report.unfamiliar(images, seed) for seed in (0, 0, 1))
    assert len(found) == 5
    for name, changed in found.items():
        assert changed.shape == images.shape, name
        assert changed.dtype == images.dtype, name
        pixels = 1 - images if name == "negative" else images
        np.testing.assert_allclose(
            np.sort(flat(changed)), np.sort(flat(pixels)), atol=1e-7, err_msg=name
        )
        assert (name == "digits") == np.array_equal(changed, images)
        np.testing.assert_array_equal(again[name], changed)
    np.testing.assert_array_equal(found["flipped upside down"], images[:, ::-1])
    np.testing.assert_allclose(found["negative"] + images, 1, atol=1e-6)
    random = {name for name in found if not np.array_equal(other[name], found[name])}
    assert random == {"moved by up to 4 pixels", "pixels in another order"}
    images = np.zeros((200, 28, 28, 1), "float32")
    images[:, 14, 10] = 1
    found = report.unfamiliar(images)
    _, rows, columns, _ = np.nonzero(found["moved by up to 4 pixels"])
    assert set(rows) == set(range(10, 19))
    assert set(columns) == set(range(6, 15))
    assert len(set(zip(rows, columns, strict=True))) > 40
    mixed = found["pixels in another order"]
    np.testing.assert_array_equal(mixed, np.broadcast_to(mixed[:1], mixed.shape))


# -- Bad input -----------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_named_with_what_was_seen(name):
    bad, seen = BAD_IMAGES[name]
    model = pca_model(GOOD, 2)
    attempts = {
        "images": lambda: inversion_report(model, bad, inverse_epochs=0),
        "train_images": lambda: inversion_report(model, GOOD, bad, inverse_epochs=1),
    }
    for argument, attempt in attempts.items():
        with pytest.raises(ValueError, match=f"^`{argument}` .*Received: .*{seen}"):
            attempt()


SAME = np.repeat(noise(1), 20, axis=0)
MIXED = np.concatenate([noise(), SAME])
# Images and training images, inverse epochs, what the message names, and how many.
TOO_FEW = [
    ((noise(1),), 0, "images", 1),
    ((noise(1),), 6, "images", 1),
    ((SAME,), 0, "images", 20),
    ((SAME, noise()), 6, "images", 20),
    *(((noise(n),), 6, "the last fifth of images", 1) for n in (2, 3, 4, 5)),
    ((MIXED,), 6, "the last fifth of images", 8),
]


@pytest.mark.parametrize("images, epochs, name, count", TOO_FEW)
def test_too_few_different_images_are_named(images, epochs, name, count):
    message = f"^`{name}` must hold two different images or more.*: {count} equal"
    with pytest.raises(ValueError, match=message):
        inversion_report(pca_model(GOOD, 2), *images, inverse_epochs=epochs)


@KINDS
def test_few_images_have_a_finite_report(monkeypatch, kind):
    compile_all(monkeypatch, **EAGER)
    for code_dim, attempts, epochs in [
        (1, [(noise(2),), (noise(5),)], 0),
        (8, [(noise(6),), (noise(2), SAME[:1])], 1),
    ]:
        model = CLASSES["ours"](kind, code_dim)
        for images in attempts:
            for row in inversion_report(model, *images, inverse_epochs=epochs):
                assert np.isfinite(list(row.values())).all()
