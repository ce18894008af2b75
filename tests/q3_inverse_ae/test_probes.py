"""`q3_inverse_ae.probes`: what it measures against NumPy, and what it picks out."""

import numpy as np
import pytest

from q3_inverse_ae import probes
from q3_inverse_ae.inverse_ae import build_autoencoder, inversion_report
from q3_inverse_ae.report import apply
from tests.q3_inverse_ae.test_experiments import DATA, TINY
from tests.q3_inverse_ae.test_inverse_ae import (
    noise,
    numpy_fvu,
    plain_pairs,
    plain_states,
    small,
    untouched,
)
from tests.q3_inverse_ae.test_report import flat


def test_depth_fvu_is_that_of_ever_deeper_round_trips():
    model, images = small(), noise(30)
    hidden, _, _ = plain_states(model, images)
    pairs = plain_pairs(model)
    expected = []
    for depth in range(1, 5):
        states = hidden[depth]
        for _, g in reversed(pairs[:depth]):
            states = g(states)
        expected.append(numpy_fvu(hidden[0], states))
    found = probes.depth_fvu(model, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    rows = inversion_report(model, images, inverter_epochs=0)
    assert found[0] == pytest.approx(rows[0]["local_fvu"], rel=1e-5)
    assert found[-1] == pytest.approx(rows[0]["chain_fvu"], rel=1e-5)


@pytest.mark.parametrize("dimension, found", [(1, (0.9, 1.1)), (3, (2.7, 3.3))])
def test_intrinsic_dimension_is_that_of_a_subspace(dimension, found):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2000, dimension)) @ rng.normal(size=(dimension, 50))
    least, most = found
    assert least < probes.intrinsic_dimension(points) < most
    states = (3 * points + 5).reshape(2000, 5, 5, 2)
    assert least < probes.intrinsic_dimension(states) < most


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
        found = probes.border_fvu(model, images, layer)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("scope", ["joint", "local", "chain"])
def test_multiplications_by_hand(scope):
    conv, dense = (untouched(kind, scope=scope) for kind in ("conv", "dense"))
    # Positions, filters, and the window times what it looks at.
    expected = [196 * 4 * 16, 49 * 6 * 16 * 4, 9 * 8 * 9 * 6, 1 * 8 * 9 * 8]
    assert probes.multiplications(conv) == expected
    expected = [784 * 24, 24 * 16, 16 * 12, 12 * 8]
    assert probes.multiplications(dense) == expected


def test_unfamiliar_images_have_the_pixels_of_the_digits():
    images = noise(6)
    found = probes.unfamiliar(images)
    assert len(found) == 5
    for name, changed in found.items():
        assert changed.shape == images.shape, name
        assert changed.dtype == images.dtype, name
        assert 0 <= changed.min() and changed.max() <= 1, name
        pixels = 1 - images if name == "negative" else images
        np.testing.assert_allclose(
            np.sort(flat(changed)), np.sort(flat(pixels)), atol=1e-7, err_msg=name
        )
        assert (name == "digits") == np.array_equal(changed, images)
    np.testing.assert_array_equal(found["upside down"], images[:, ::-1])
    np.testing.assert_allclose(found["negative"] + images, 1, atol=1e-6)
    again, other = (probes.unfamiliar(images, seed) for seed in (0, 1))
    for name in found:
        np.testing.assert_array_equal(again[name], found[name])
    random = {name for name in found if not np.array_equal(other[name], found[name])}
    assert random == {"moved by up to 4 pixels", "pixels in another order"}


def test_unfamiliar_images_move_each_and_mix_their_pixels_alike():
    images = np.zeros((200, 28, 28, 1), "float32")
    images[:, 14, 10] = 1
    found = probes.unfamiliar(images)
    _, rows, columns, _ = np.nonzero(found["moved by up to 4 pixels"])
    assert set(rows) == set(range(10, 19))
    assert set(columns) == set(range(6, 15))
    assert len(set(zip(rows, columns, strict=True))) > 40
    mixed = found["pixels in another order"]
    np.testing.assert_array_equal(mixed, np.broadcast_to(mixed[:1], mixed.shape))


def test_the_worst_images_are_those_of_the_largest_error():
    model = build_autoencoder("dense", **TINY)
    images = DATA.test.images
    errors = np.square(apply(model, images) - images).mean(axis=(1, 2, 3))
    chosen = probes.worst(model, images, 5)
    assert len(set(chosen)) == 5
    assert errors[chosen].min() >= np.delete(errors, chosen).max()


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_path_of_codes_begins_and_ends_at_its_images(kind):
    model = build_autoencoder(kind, **TINY)
    images = DATA.test.images
    noise, path = probes.decoded_codes(model, images, 3, 8, count=6)
    assert noise.shape == path.shape == (6, 28, 28, 1)
    ends = apply(model, images[[3, 8]])
    np.testing.assert_allclose(path[[0, -1]], ends, rtol=1e-4, atol=1e-5)
    assert np.ptp(noise, axis=0).max() > 0
    again, _ = probes.decoded_codes(model, images, 3, 8, count=6)
    other, _ = probes.decoded_codes(model, images, 3, 8, count=6, seed=1)
    np.testing.assert_array_equal(again, noise)
    assert abs(other - noise).max() > 0


def test_dimensions_are_counted_for_every_layer():
    model = build_autoencoder("dense", **TINY)
    images = DATA.test.images
    rows = inversion_report(model, images, inverter_epochs=0)
    counts = probes.dimensions(model, images, rows)
    assert counts["width"] == [24, 16, 12, 32]
    # Mixtures of four images that add up to 1: three dimensions, in every layer.
    np.testing.assert_allclose(counts["intrinsic dimension (TwoNN)"], 3, atol=0.8)
    assert all(len(values) == 4 for values in counts.values())
