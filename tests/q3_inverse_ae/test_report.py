"""`q3_inverse_ae.report` measures what the docstring of `inversion_report` says.

Besides NumPy, the oracles are networks whose inverses are known by hand.
"""

import json
import types

import keras
import numpy as np
import pytest

from q3_inverse_ae import controls, inverse_ae, report
from q3_inverse_ae.report import inversion_report
from tests.compiled import EAGER, NO_XLA, compile_all
from tests.q3_inverse_ae import oracles
from tests.q3_inverse_ae.oracles import GOOD, KINDS, LAYERED, flat, noise, small

close = np.testing.assert_allclose
equal = np.testing.assert_array_equal


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


def expected_rows(model, images):
    pairs = oracles.plain_pairs(model)
    hidden, estimates, decoded = oracles.plain_states(model, images)
    for i, (encode, _) in enumerate(pairs, start=1):
        inputs, states, estimate = hidden[i - 1], hidden[i], estimates[i - 1]
        mean, variances, directions = principal(inputs)
        alive = variances > 1e-6 * variances[0]
        along = flat(estimate - inputs) @ directions[alive].T
        a, b = flat(estimate) - mean, flat(inputs) - mean
        lengths = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
        shares = principal(states)[1] / principal(states)[1].sum()
        shares = shares[shares > 1e-12]
        width = np.prod(oracles.STATES[model.kind][i])
        yield {
            "layer": i,
            "width": width,
            "local_fvu": oracles.numpy_fvu(inputs, estimate),
            "chain_fvu": oracles.numpy_fvu(inputs, decoded[i - 1]),
            "whitened_fvu": np.mean((along**2).mean(axis=0) / variances[alive]),
            "cosine": np.mean((a * b).sum(axis=1) / lengths),
            "right_inverse_error": oracles.numpy_fvu(states, encode(estimate)),
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
            close(row[name], value, rtol=2e-4, atol=1e-6, err_msg=f"{name}, {row}")
    assert json.loads(json.dumps(rows)) == rows
    local = [row["local_fvu"] for row in rows]
    close(report.local_fvu(model, images), local, rtol=1e-4)
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
    close(row["whitened_fvu"], 1 / 2 * 39 / 40, rtol=1e-4)
    close(row["local_fvu"], 1e-4, rtol=1e-3)


def test_pca_is_at_its_floor():
    images, width = noise(120), 10
    (row,) = inversion_report(pca_model(images, width), images, inverse_epochs=0)
    variances = principal(images)[1]
    floor = variances[width:].sum() / variances.sum()
    assert 0.5 < floor < 0.9
    for name in ("local_fvu", "chain_fvu", "pca_fvu"):
        close(row[name], floor, rtol=1e-5)
    assert row["right_inverse_error"] < 1e-9
    # No error in 10 of 119 directions, an error of v_k in the others.
    close(row["whitened_fvu"], (119 - width) / 119 * 119 / 120, rtol=1e-4)


def test_a_square_orthogonal_network_starts_as_its_own_inverse(monkeypatch):
    monkeypatch.setattr(inverse_ae, "WIDTHS", {"dense": (784,) * 3})
    model = controls.InverseActivation("dense", 784)
    for row in inversion_report(model, noise(30), inverse_epochs=0):
        for name in ("local_fvu", "chain_fvu", "whitened_fvu", "right_inverse_error"):
            assert 0 <= row[name] < 1e-5, name
        assert row["cosine"] > 1 - 1e-5


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
    close(row["oracle_ratio"], ratio, rtol=1e-4)


def test_much_is_gained_where_the_inverse_is_curved(monkeypatch):
    compile_all(monkeypatch, **NO_XLA)
    rng = np.random.default_rng(0)
    a, b, c = np.linalg.qr(rng.normal(size=(784, 3)))[0].T
    t = rng.uniform(-1, 1, (1280, 2))
    bend, plane = 0.7 * (3 * t[:, :1] ** 2 - 1), np.stack([a, b])
    # The best linear inverse: t and its square are uncorrelated.
    best = 0.5 + t @ plane
    images = best + bend * c
    model = linear_model(np.full(784, 0.5), plane, plane.T)
    (row,) = inversion_report(model, images.reshape(-1, 28, 28, 1), inverse_epochs=30)
    close(row["local_fvu"], oracles.numpy_fvu(images, best), rtol=1e-3)
    assert row["oracle_ratio"] > 3
    # The ratio is of the last fifth, which the learned inverse has not seen.
    local = oracles.numpy_fvu(images[1024:], best[1024:])
    close(row["oracle_ratio"], local / row["learned_inverse_fvu"], rtol=1e-3)


def test_a_wrong_decoder_layer_is_no_obstacle_to_the_learned_inverse(monkeypatch):
    compile_all(monkeypatch, **NO_XLA)
    images = oracles.mixtures(400)  # of four dimensions
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


@KINDS
def test_depth_fvu_is_that_of_round_trips(kind):
    model, images, inverses, expected = small(kind), noise(30), [], []
    start, *hidden = oracles.plain_states(model, images)[0]
    for (_, g), states in zip(oracles.plain_pairs(model), hidden, strict=True):
        inverses.insert(0, g)
        for inverse in inverses:
            states = inverse(states)
        expected.append(oracles.numpy_fvu(start, states))
    close(report.depth_fvu(model, images), expected, rtol=1e-4)


def test_border_fvu_is_of_the_outermost_ring_and_the_rest():
    model, images = small("conv"), noise(20)
    hidden, estimates, _ = oracles.plain_states(model, images)
    for layer, estimate in enumerate(estimates, start=1):
        targets = hidden[layer - 1]
        squares = [(targets - other) ** 2 for other in (estimate, targets.mean(axis=0))]
        within = np.array([square[:, 1:-1, 1:-1].sum() for square in squares])
        ring = np.array([square.sum() for square in squares]) - within
        expected = ring[0] / ring[1], within[0] / within[1]
        close(report.border_fvu(model, images, layer), expected, rtol=1e-4)


def test_unfamiliar_images_have_the_pixels_of_the_digits():
    images = noise(6)
    found, again, other = (report.unfamiliar(images, seed) for seed in (0, 0, 1))
    assert len(found) == 5
    for name, changed in found.items():
        assert changed.shape == images.shape, name
        assert changed.dtype == images.dtype, name
        pixels = 1 - images if name == "negative" else images
        pixels, changed = np.sort(flat(pixels)), np.sort(flat(changed))
        close(changed, pixels, atol=1e-7, err_msg=name)
        equal(again[name], found[name])
    equal(found["digits"], images)
    equal(found["flipped upside down"], images[:, ::-1])
    close(found["negative"] + images, 1, atol=1e-6)
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
    equal(mixed, np.broadcast_to(mixed[:1], mixed.shape))


@oracles.EACH_BAD
def test_bad_images_are_named_with_what_was_seen(bad, seen):
    for name, images in {"images": [bad], "train_images": [GOOD, bad]}.items():
        with pytest.raises(ValueError, match=f"^`{name}` .*Received: .*{seen}"):
            inversion_report(pca_model(GOOD, 2), *images, inverse_epochs=1)


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
        model = oracles.CLASSES["ours"](kind, code_dim)
        for images in attempts:
            for row in inversion_report(model, *images, inverse_epochs=epochs):
                assert np.isfinite(list(row.values())).all()
