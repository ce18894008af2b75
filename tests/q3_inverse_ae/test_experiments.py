"""What question 3 trains and picks out, on a few images."""

import json

import numpy as np
import pytest

from common.data import DigitData, Digits
from q3_inverse_ae import experiments, figures
from q3_inverse_ae.report import apply, local_fvu
from tests.compiled import EAGER, compile_all
from tests.q3_inverse_ae.oracles import CODE, KINDS, mixtures, noise


def made_up(train, test, images=noise):
    parts = [(train, 0), (test, 1000)]
    sets = [Digits(images(n, start), np.arange(start, start + n)) for n, start in parts]
    return DigitData("made up", *sets)


DATA = made_up(256, 128, mixtures)


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    compile_all(monkeypatch, **EAGER)


def measured(variant="ours", **options):
    return experiments.measured(
        "dense", variant, DATA, **{"epochs": 1, "seed": 3, "code_dim": CODE} | options
    )


def test_a_run_is_measured_and_its_network_rebuilt():
    run = json.loads(json.dumps(measured(epochs=2)))
    assert len(run["history"]["inversion_4"]) == 2
    model = experiments.rebuild("dense", "ours", run, code_dim=CODE)
    images = DATA.test.images
    error = np.mean(np.square(apply(model, images) - images))
    assert run["mse"] == pytest.approx(error, rel=1e-5)
    local = [row["local_fvu"] for row in run["rows"]]
    np.testing.assert_allclose(local_fvu(model, images), local, rtol=1e-4)


def test_the_same_seed_trains_the_same_network():
    first, second, other = (measured("baseline", seed=seed) for seed in (0, 0, 1))
    assert first["weights"] == second["weights"] != other["weights"]


def test_training_refuses_images_that_are_not_scaled():
    model = experiments.build("dense", "ours", code_dim=CODE)
    with pytest.raises(ValueError, match="`images` must lie in .*255"):
        experiments.train(model, 255 * np.ones((128, 28, 28, 1), "float32"), epochs=1)


@KINDS
def test_every_variant_is_another(kind):
    models = [experiments.build(kind, name) for name in experiments.VARIANTS]
    built = {(type(m), m.inversion_weight, m.rank_weight) for m in models}
    assert len(built) == len(experiments.VARIANTS)


def test_the_price_has_a_point_for_every_weight_and_seed(monkeypatch):
    def measured(kind, variant, data, *, epochs, seed, inversion_weight):
        assert (kind, variant) == ("conv", "ours")
        rows = [{"local_fvu": 0.1}, {"local_fvu": inversion_weight}]
        return {"mse": seed, "rows": rows}

    monkeypatch.setattr(experiments, "measured", measured)
    found = experiments.price("conv", [0.05, 0.5], DATA, epochs=1, seeds=[0, 7])
    assert found == {0.05: [(0, 0.1), (7, 0.1)], 0.5: [(0, 0.5), (7, 0.5)]}


def made_up_run(mse, local, learned, ranks):
    rows = [
        {
            "layer": i + 1,
            "width": 9,
            "local_fvu": local[i],
            "chain_fvu": 2 * local[i],
            "learned_inverse_fvu": learned[i],
            "oracle_ratio": local[i] / learned[i],
            "participation_ratio": ranks[i],
        }
        for i in range(2)
    ]
    return {"mse": mse, "rows": rows}


RUNS = {
    ("dense", "ours"): [
        made_up_run(0.006, [0.01, 0.04], [0.005, 0.01], [12, 8]),
        made_up_run(0.008, [0.02, 0.01], [0.01, 0.01], [20, 30]),
    ],
    ("dense", "baseline"): [
        made_up_run(0.005, [3, 1], [0.5, 0.2], [10, 10]),
        made_up_run(0.004, [1, 5], [0.4, 0.1], [10, 10]),
    ],
}


def test_headline_metrics_are_the_worst_layer_of_every_seed():
    metrics = experiments.headline_metrics("dense", RUNS)
    assert {metric["n"] for metric in metrics.values()} == {2}
    means = {name: metric["mean"] for name, metric in metrics.items()}
    assert means == pytest.approx(
        {
            "dense_mse": 0.007,
            "dense_baseline_mse": 0.0045,
            "dense_price": 1.6,
            "dense_min_pr_share": (0.8 + 2.0) / 2,
            "dense_code_participation_ratio": 19,
            "dense_local_fvu_max": 0.03,
            "dense_chain_fvu_max": 0.06,
            "dense_learned_inverse_fvu_max": 0.01,
            "dense_oracle_ratio_max": 3.0,
            "dense_baseline_local_fvu_max": 4.0,
            "dense_baseline_learned_inverse_fvu_max": 0.45,
            "dense_local_fvu_1": 0.015,
            "dense_local_fvu_2": 0.025,
            "dense_chain_fvu_1": 0.03,
            "dense_chain_fvu_2": 0.05,
            "dense_baseline_learned_inverse_fvu_1": 0.45,
            "dense_baseline_learned_inverse_fvu_2": 0.15,
        }
    )


def test_tables_hold_means_over_seeds():
    columns = {"local": ("ours", "local_fvu"), "base": ("baseline", "local_fvu")}
    *_, first, second = figures.comparison_table(RUNS, columns).split("\n")
    assert first == "| 1 | 0.015 | 2 |"
    assert second == "| 2 | 0.025 | 3 |"
    table = figures.summary_table(RUNS)
    assert "| baseline | 0.0045 ± 0.0007 | 4 ± 1.4 | 8 ± 2.8 | 2 3 | 10 10 |" in table


def test_pca_mse_is_that_of_singular_vectors_of_the_training_images():
    data = made_up(90, 40)
    train, test = (part.images.reshape(-1, 784) for part in data[1:])
    mean = train.mean(axis=0)
    directions = np.linalg.svd(train - mean, full_matrices=False)[2][:12]
    errors = (test - mean) - (test - mean) @ directions.T @ directions
    found = experiments.pca_mse(data, 12)
    assert found == pytest.approx((errors**2).mean(), rel=1e-4)


def test_held_out_images_come_from_training_only():
    data = made_up(50, 9)
    cut = experiments.held_out(data, 20)
    assert type(cut) is DigitData
    assert cut.name != data.name
    assert cut.train.labels.tolist() == list(range(30))
    assert cut.test.labels.tolist() == list(range(30, 50))
    np.testing.assert_array_equal(cut.train.images, data.train.images[:30])
    np.testing.assert_array_equal(cut.test.images, data.train.images[30:])
