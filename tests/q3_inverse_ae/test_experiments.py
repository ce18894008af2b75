"""What question 3 trains and picks out, on a few random images."""

import numpy as np
import pytest

from common.data import DigitData, Digits
from q3_inverse_ae import experiments, figures, probes
from q3_inverse_ae.report import apply
from tests.compiled import EAGER, compile_all
from tests.q3_inverse_ae.test_inverse_ae import noise

TINY = {"widths": (24, 16, 12)}


def digits(count, seed):
    """Makes images of rank 4, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(0).random((4, 784))
    images = (rng.dirichlet(np.ones(4), count) @ basis).reshape(-1, 28, 28, 1)
    return Digits(images.astype("float32"), np.arange(count, dtype="int32") % 10)


DATA = DigitData("random images", digits(256, 1), digits(128, 2))


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    compile_all(monkeypatch, **EAGER)


def test_a_run_is_measured_and_its_network_restored():
    run = experiments.measured("dense", "ours", DATA, epochs=2, seed=3, **TINY)
    assert len(run["history"]["inversion_4"]) == 2
    model = experiments.restored("dense", "ours", run, **TINY)
    images = DATA.test.images
    error = np.mean(np.square(apply(model, images) - images))
    assert run["mse"] == pytest.approx(error, rel=1e-5)
    local = [row["local_fvu"] for row in run["rows"]]
    np.testing.assert_allclose(probes.local_fvu(model, images), local, rtol=1e-4)


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


def made_up(train, test):
    def some(count, first):
        return Digits(noise(count, first), np.arange(first, first + count))

    return DigitData("made up", some(train, 0), some(test, 1000))


def test_pca_mse_is_that_of_singular_vectors_of_the_training_images():
    data = made_up(90, 40)
    train, test = (part.images.reshape(-1, 784) for part in data[1:])
    mean = train.mean(axis=0)
    directions = np.linalg.svd(train - mean, full_matrices=False)[2][:12]
    errors = (test - mean) - (test - mean) @ directions.T @ directions
    found = experiments.pca_mse(data, 12)
    assert found == pytest.approx((errors**2).mean(), rel=1e-4)


def test_held_out_images_come_from_training_alone():
    data = made_up(50, 9)
    cut = experiments.held_out(data, 20)
    assert type(cut) is DigitData
    assert cut.name != data.name
    assert cut.train.labels.tolist() == list(range(30))
    assert cut.test.labels.tolist() == list(range(30, 50))
    np.testing.assert_array_equal(cut.train.images, data.train.images[:30])
    np.testing.assert_array_equal(cut.test.images, data.train.images[30:])
