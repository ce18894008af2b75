"""`inversion_report` and what surrounds it measure what their first lines say.

The oracles share no code with the package: singular values and forward passes in
NumPy, finite differences, and networks whose inverses are known by hand.
"""

import json
import types

import keras
import numpy as np
import pytest

from q3_inverse_ae.inverse_ae import build_autoencoder
from q3_inverse_ae.report import (
    apply,
    check_images,
    decoded_states,
    fvu,
    hidden_states,
    inversion_report,
    jacobian_spectra,
    ranks,
    round_trip_jacobian,
    spectrum,
)
from tests.compiled import EAGER, NO_XLA, compile_all
from tests.q3_inverse_ae.test_inverse_ae import (
    STATES,
    noise,
    numpy_fvu,
    plain_pairs,
    plain_states,
    small,
)

CASES = pytest.mark.parametrize(
    "kind, form, tied",
    [
        ("dense", "affine_activation", False),
        ("dense", "inverse_affine", True),
        ("conv", "affine_activation", True),
        ("conv", "inverse_affine", False),
    ],
)


def flat(states):
    return np.float64(states).reshape(len(states), -1)


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
    return types.SimpleNamespace(pairs=[pair])


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
            "pca_floor": variances[width:].sum() / variances.sum(),
        }


@CASES
def test_every_column_is_that_of_numpy(kind, form, tied):
    model = small(kind, decoder_form=form, tied=tied)
    images = noise(60)
    rows = inversion_report(model, images, inverter_epochs=0)
    for row, expected in zip(rows, expected_rows(model, images), strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(
                row[name], value, rtol=2e-4, atol=1e-6, err_msg=f"{name}, {row}"
            )
    widths = [np.prod(shape) for shape in STATES[kind][1:]]
    assert [row["width"] for row in rows] == widths
    assert json.loads(json.dumps(rows)) == rows


def test_whitening_counts_every_direction_alike_but_dead_ones():
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]] * 10)
    images = np.full((40, 784), 0.5)
    images[:, :3] += 0.4 * signs * [1, 1e-2, 1e-4]  # variances 1, 1e-4 and 1e-8
    images = np.float32(images.reshape(-1, 28, 28, 1))
    # Only the first direction comes back, one of the two that count.
    ahead, back = np.eye(3, 784), np.zeros((784, 3))
    back[0, 0] = 1
    model = linear_model(flat(images).mean(axis=0), ahead, back)
    (row,) = inversion_report(model, images, inverter_epochs=0)
    np.testing.assert_allclose(row["whitened_fvu"], 1 / 2 * 39 / 40, rtol=1e-4)
    np.testing.assert_allclose(row["local_fvu"], 1e-4, rtol=1e-3)


def test_pca_is_at_its_floor():
    images, width = noise(120), 10
    model = pca_model(images, width)
    (row,) = inversion_report(model, images, inverter_epochs=0)
    _, variances, _ = principal(images)
    floor = variances[width:].sum() / variances.sum()
    assert 0.5 < floor < 0.9
    for name in ("local_fvu", "chain_fvu", "pca_floor"):
        np.testing.assert_allclose(row[name], floor, rtol=1e-5)
    assert row["right_inverse_error"] < 1e-9
    # No error in 10 of 119 directions, an error of λ in the others.
    expected = (119 - width) / 119 * 119 / 120
    np.testing.assert_allclose(row["whitened_fvu"], expected, rtol=1e-4)
    (singular,) = jacobian_spectra(model, images[0])
    assert singular.shape == (784,)
    np.testing.assert_allclose(singular[:width], 1, atol=1e-5)
    np.testing.assert_allclose(singular[width:], 0, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_a_square_orthogonal_network_starts_as_its_own_inverse(tied):
    model = build_autoencoder(
        "dense", 784, widths=(784,) * 3, decoder_form="inverse_affine", tied=tied
    )
    images = noise(30)
    rows = inversion_report(model, images, inverter_epochs=0)
    assert len(rows) == 4
    for row in rows:
        for name in ("local_fvu", "chain_fvu", "whitened_fvu", "right_inverse_error"):
            assert 0 <= row[name] < 1e-5, name
        assert row["cosine"] > 1 - 1e-5
    for singular in jacobian_spectra(model, images[0]):
        np.testing.assert_allclose(singular, np.ones(784), atol=1e-4)


def test_a_saved_model_has_the_same_report(tmp_path):
    model, images = small("conv", tied=True), noise(30)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    rows, again = (
        inversion_report(each, images, inverter_epochs=0) for each in (model, loaded)
    )
    for row, other in zip(rows, again, strict=True):
        assert other == pytest.approx(row, rel=1e-6)


# -- The strong inverter -------------------------------------------------------------


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
    (row,) = inversion_report(model, test, train, inverter_epochs=4)
    (without,) = inversion_report(model, test, inverter_epochs=0)
    assert row.keys() - without.keys() == {"inverter_fvu", "oracle_ratio"}
    assert 0.95 < row["oracle_ratio"] < 1.05
    ratio = row["local_fvu"] / row["inverter_fvu"]
    np.testing.assert_allclose(row["oracle_ratio"], ratio, rtol=1e-4)
    mean, _, directions = principal(train)
    estimates = (flat(test) - mean) @ directions[:8].T @ directions[:8] + mean
    np.testing.assert_allclose(row["local_fvu"], numpy_fvu(flat(test), estimates), 1e-4)


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
    (row,) = inversion_report(model, images, inverter_epochs=30)
    local = np.sum(bend**2) / np.sum((flat(images) - flat(images).mean(axis=0)) ** 2)
    np.testing.assert_allclose(row["local_fvu"], local, rtol=1e-3)
    assert row["oracle_ratio"] > 3
    # The ratio is of the last fifth, which the inverter has not seen.
    last = flat(images[1024:])
    local = np.sum(bend[1024:] ** 2) / np.sum((last - last.mean(axis=0)) ** 2)
    ratio = local / row["inverter_fvu"]
    np.testing.assert_allclose(row["oracle_ratio"], ratio, rtol=1e-3)


def test_an_exact_inverse_has_a_finite_report(monkeypatch):
    compile_all(monkeypatch, **EAGER)
    model = linear_model(np.zeros(784), np.eye(784), np.eye(784))
    (row,) = inversion_report(model, noise(20), inverter_epochs=1)
    assert row["local_fvu"] == row["inverter_fvu"] == 0
    assert np.isfinite(list(row.values())).all()


# -- Jacobians -----------------------------------------------------------------------


@CASES
def test_the_jacobian_is_that_of_finite_differences(kind, form, tied):
    model = small(kind, decoder_form=form, tied=tied)
    hidden, _, _ = plain_states(model, noise(1))
    rng = np.random.default_rng(5)
    for i, (f, g) in enumerate(plain_pairs(model)):
        states = hidden[i]
        found = round_trip_jacobian(*model.pairs[i], np.float32(states))
        assert found.shape == (states.size, states.size)
        for _ in range(3):
            direction = rng.normal(size=states.shape)
            step = 1e-6 * direction
            moved = (g(f(states + step)) - g(f(states - step))) / 2e-6
            expected = moved.ravel()
            assert abs(expected).max() > 1e-2
            along = found @ direction.ravel()
            np.testing.assert_allclose(along, expected, rtol=1e-3, atol=1e-4)


def test_jacobian_spectra_are_those_of_every_round_trip():
    model, image = small("conv"), noise(1)[0]
    spectra = jacobian_spectra(model, image)
    hidden, _, _ = plain_states(model, image[None])
    for i, singular in enumerate(spectra):
        states = np.float32(hidden[i])
        jacobian = round_trip_jacobian(*model.pairs[i], states)
        assert singular.shape == (states.size,)
        assert (np.diff(singular) <= 0).all()
        squares = np.linalg.eigvalsh(np.float64(jacobian) @ jacobian.T)[::-1]
        np.testing.assert_allclose(
            singular**2, squares, rtol=1e-3, atol=1e-5 * squares[0]
        )


# -- What the report is made of --------------------------------------------------------


def test_states_are_those_of_the_layers_one_by_one():
    model, images = small(), noise(7)
    hidden, _, decoded = plain_states(model, images)
    pairs = plain_pairs(model)
    for found, expected in zip(hidden_states(model, images), hidden, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    codes = hidden_states(model, images)[-1]
    for found, expected in zip(decoded_states(model, codes), decoded, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    shallow = decoded_states(model, np.float32(hidden[2]), 2)
    assert len(shallow) == 3
    expected = [pairs[0][1](pairs[1][1](hidden[2])), pairs[1][1](hidden[2]), hidden[2]]
    for found, state in zip(shallow, expected, strict=True):
        np.testing.assert_allclose(found, state, rtol=1e-4, atol=1e-5)
    assert hidden_states(small("conv"), images)[0].shape == (7, 28, 28, 1)


@pytest.mark.parametrize("count", [1, 500, 1001])
def test_batches_come_back_in_order(count):
    states = np.random.default_rng(0).normal(size=(count, 6)).astype("float32")
    layer = linear(np.eye(6, 4) * 2, np.arange(4.0))
    expected = 2 * states[:, :4] + np.arange(4)
    np.testing.assert_allclose(apply(layer, states), expected, rtol=1e-5)


def test_fvu_by_hand():
    targets = np.array([[0, 0], [2, 0], [0, 4], [2, 4]], "float32")
    # Variance: 4 · (1 + 4) = 20.
    assert fvu(targets, targets) == 0
    assert fvu(targets, targets + 1) == pytest.approx(8 / 20)
    assert fvu(targets[:, :, None], 0 * targets[:, :, None]) == pytest.approx(40 / 20)
    assert fvu(targets + 1000, targets + 1001) == pytest.approx(8 / 20)


@pytest.mark.parametrize("shape", [(5,), (80,), (4, 4, 3), (1,)])
def test_the_spectrum_is_that_of_the_covariance(shape):
    rng = np.random.default_rng(0)
    states = rng.normal(2, 1, (30, *shape)).astype("float32")
    values, vectors = spectrum(states)
    centred = flat(states) - flat(states).mean(axis=0)
    covariance = centred.T @ centred / 29
    width = len(covariance)
    assert values.shape == (width,)
    assert (values >= 0).all()
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(width), atol=1e-8)
    np.testing.assert_allclose(vectors * values @ vectors.T, covariance, atol=1e-8)


def test_ranks_by_hand():
    found = ranks(np.array([4.0, 1.0, 1.0, 0.0]))
    assert found.keys() == {"participation_ratio", "effective_rank"}
    assert found["participation_ratio"] == pytest.approx(36 / 18)
    entropy = np.log(6) - 4 / 6 * np.log(4)
    assert found["effective_rank"] == pytest.approx(np.exp(entropy))
    for value in ranks(np.array([0.3] * 7 + [0.0] * 3)).values():
        assert value == pytest.approx(7)


# -- Bad input -----------------------------------------------------------------------


def with_pixel(value):
    images = noise(4)
    images[2, 5, 5] = value
    return images


GOOD = noise(4)
BAD_IMAGES = {
    "flat": (GOOD.reshape(4, 784), r"shape \(4, 784\)"),
    "no channel": (GOOD[..., 0], r"shape \(4, 28, 28\)"),
    "one image": (GOOD[0], r"shape \(28, 28, 1\)"),
    "no images": (GOOD[:0], r"shape \(0, 28, 28, 1\)"),
    "colour": (np.repeat(GOOD, 3, axis=-1), r"shape \(4, 28, 28, 3\)"),
    "bytes": (np.uint8(255 * GOOD), "uint8"),
    "ints": (np.zeros(GOOD.shape, "int64"), "int64"),
    "0 to 255": (255 * np.ones_like(GOOD), "255"),
    "negative": (with_pixel(-0.25), r"-0\.25"),
    "above 1": (with_pixel(1.75), r"1\.75"),
    "nan": (with_pixel(np.nan), "nan"),
    "infinite": (with_pixel(np.inf), "inf"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_named_with_what_was_seen(name):
    bad, seen = BAD_IMAGES[name]
    model = pca_model(GOOD, 2)
    attempts = {
        "images": lambda: inversion_report(model, bad, inverter_epochs=0),
        "train_images": lambda: inversion_report(model, GOOD, bad, inverter_epochs=1),
        "pictures": lambda: check_images(bad, "pictures"),
    }
    for argument, attempt in attempts.items():
        with pytest.raises(ValueError, match=f"^`{argument}` .*Received: .*{seen}"):
            attempt()


@pytest.mark.parametrize("name", ["flat", "bytes", "negative", "above 1", "nan"])
def test_a_bad_image_has_no_jacobian(name):
    bad, _ = BAD_IMAGES[name]
    with pytest.raises(ValueError, match="`image.*Received: "):
        jacobian_spectra(pca_model(GOOD, 2), bad[2])


def test_good_images_come_back_in_single_precision():
    for dtype in ("float16", "float32", "float64"):
        images = check_images(GOOD.astype(dtype))
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images, GOOD.astype(dtype).astype("float32"))
    ends = np.float32([0, 1]).reshape(2, 1, 1, 1) * np.ones((2, 28, 28, 1))
    np.testing.assert_array_equal(check_images(ends), ends)
