"""What question 3 trains and picks out, on a few random images."""

import numpy as np
import pytest

from common import experiment
from common.data import DigitData, Digits
from q3_inverse_ae import experiments, figures, probes
from q3_inverse_ae.report import apply

TINY = {"widths": (24, 16, 12)}


def digits(count, seed):
    """Images of rank 4, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(0).random((4, 784))
    images = (rng.dirichlet(np.ones(4), count) @ basis).reshape(-1, 28, 28, 1)
    return Digits(images.astype("float32"), np.arange(count, dtype="int32") % 10)


# TensorFlow's variables and NumPy 2, as Keras writes a file.
SAVES = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
DATA = DigitData("random images", digits(256, 1), digits(128, 2))


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    # What is in the repository decides no key here.
    monkeypatch.setattr(experiment, "code_sha256", lambda question: "")


@SAVES
def test_a_run_is_measured_and_its_network_restored():
    run = experiments.measured("dense", "ours", DATA, epochs=2, seed=3, **TINY)
    assert len(run["history"]["inversion_4"]) == 2
    model = experiments.restored("dense", "ours", run, **TINY)
    images = DATA.test.images
    error = np.mean(np.square(apply(model, images) - images))
    assert run["mse"] == pytest.approx(error, rel=1e-5)
    local = [row["local_fvu"] for row in run["rows"]]
    np.testing.assert_allclose(probes.local_fvu(model, images), local, rtol=1e-4)


@SAVES
def test_the_same_seed_trains_the_same_network():
    runs = [
        experiments.measured("dense", "plain", DATA, epochs=1, seed=seed, **TINY)
        for seed in (0, 0, 1)
    ]
    assert runs[0]["weights"] == runs[1]["weights"] != runs[2]["weights"]


def test_training_refuses_images_that_are_not_scaled():
    model = experiments.build_autoencoder("dense", **TINY)
    with pytest.raises(ValueError, match="`images` must lie in .*255"):
        experiments.train(model, 255 * np.ones((128, 28, 28, 1), "float32"), epochs=1)


def test_the_worst_images_are_those_of_the_largest_error():
    model = experiments.build_autoencoder("dense", **TINY)
    images = DATA.test.images
    errors = np.square(apply(model, images) - images).mean(axis=(1, 2, 3))
    chosen = probes.worst(model, images, 5)
    assert len(set(chosen)) == 5
    assert errors[chosen].min() >= np.delete(errors, chosen).max()


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_path_of_codes_begins_and_ends_at_its_images(kind):
    model = experiments.build_autoencoder(kind, **TINY)
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
    model = experiments.build_autoencoder("dense", **TINY)
    images = DATA.test.images
    rows = experiments.inversion_report(model, images, inverter_epochs=0)
    counts = probes.dimensions(model, images, rows)
    assert counts["width"] == [24, 16, 12, 32]
    # Mixtures of four images that add up to 1: three dimensions, in every layer.
    np.testing.assert_allclose(counts["intrinsic dimension (TwoNN)"], 3, atol=0.8)
    assert all(len(values) == 4 for values in counts.values())


def test_the_price_has_a_point_for_every_weight_and_seed(monkeypatch):
    seen = []

    def measured(kind, variant, data, *, epochs, seed, inversion_weight):
        seen.append((kind, variant, inversion_weight, seed))
        rows = [{"local_fvu": 0.1}, {"local_fvu": inversion_weight}]
        return {"mse": seed, "rows": rows}

    monkeypatch.setattr(experiments, "measured", measured)
    found = experiments.price("conv", [0.05, 0.5], DATA, epochs=1, seeds=[0, 7])
    assert found == {0.05: [(0, 0.1), (7, 0.1)], 0.5: [(0, 0.5), (7, 0.5)]}
    assert len(seen) == 4 and set(seen[0][:2]) == {"conv", "ours"}


def test_headline_metrics_are_the_worst_layer_of_every_seed():
    def run(mse, local, ratios):
        rows = [
            {
                "local_fvu": fvu,
                "chain_fvu": 2 * fvu,
                "participation_ratio": 9 + i,
                "oracle_ratio": ratio,
            }
            for i, (fvu, ratio) in enumerate(zip(local, ratios, strict=True))
        ]
        return {"mse": mse, "rows": rows}

    ours = [run(0.006, [0.01, 0.04], [1.2, 1.1]), run(0.008, [0.02, 0.01], [1.0, 1.4])]
    plain = [run(0.005, [3, 1], [1, 1]), run(0.004, [1, 5], [1, 1])]
    runs = {("dense", "ours"): ours, ("dense", "plain"): plain}
    metrics = experiments.headline_metrics("dense", runs)
    means = {name: metric["mean"] for name, metric in metrics.items()}
    assert means == pytest.approx(
        {
            "dense_mse": 0.007,
            "dense_plain_mse": 0.0045,
            "dense_price": 1.6,
            "dense_local_fvu_max": 0.03,
            "dense_chain_fvu_max": 0.06,
            "dense_plain_local_fvu_max": 4.0,
            "dense_code_participation_ratio": 10.0,
            "dense_oracle_ratio_max": 1.3,
        }
    )
    table = figures.control_table(runs)
    assert "| fully connected | plain | 0.0045 | 2 3 | 4 | 10.0 |" in table


def test_every_variant_can_be_built_and_is_another():
    arguments = []
    for variant, options in experiments.VARIANTS.items():
        arguments.append(experiments.build_autoencoder("conv", **options).arguments)
        assert arguments[-1] not in arguments[:-1], variant
