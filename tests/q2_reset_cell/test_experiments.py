"""q2_reset_cell/experiments.py: measurements of networks, and their tables."""

import numpy as np
import pytest
import tensorflow as tf

from q2_reset_cell import experiments, figures, networks
from q2_reset_cell.streams import flip_flop_task, sum_task
from tests.q2_reset_cell.test_networks import SUMS, build, randomise, shorten_epochs


def test_score_of_bits_is_their_weighted_accuracy():
    task = flip_flop_task()
    targets = task.make(np.random.default_rng(7), 400, 20).targets

    def score(network):
        return experiments.score(network, task, 20)

    assert score(lambda inputs: tf.constant(targets - 0.5)) == 1.0
    assert score(lambda inputs: tf.constant(0.5 - targets)) == 0.0
    # Right only at the reads.
    assert score(lambda inputs: (targets - 0.5) * (2 * inputs[..., 2:3] - 1)) == 1.0


def test_score_of_sums_is_the_weighted_share_of_variance():
    streams = SUMS.make(np.random.default_rng(7), 400, 20)
    weights = np.repeat(streams.weights[..., None], 2, -1)
    mean = np.average(streams.targets, weights=weights)

    def score(outputs):
        outputs = tf.constant(np.float32(outputs))
        return experiments.score(lambda inputs: outputs, SUMS, 20)

    assert score(streams.targets) == 0
    assert score(np.full_like(streams.targets, mean)) == pytest.approx(1, rel=1e-4)
    halfway = score((streams.targets + mean) / 2)
    assert halfway == pytest.approx(0.25, rel=1e-4)


def test_prefix_change_looks_at_nothing_before_the_reset():
    fixed = build("fixed gate")
    readout = fixed.layers[-1]
    readout.set_weights([np.ones_like(weight) for weight in readout.get_weights()])
    assert experiments.prefix_change(fixed, SUMS) == 0.0
    assert experiments.prefix_change(lambda x: x[..., :1], SUMS) == 0.0
    assert experiments.prefix_change(randomise(build("reset")), SUMS) > 1e-3
    assert experiments.prefix_change(lambda x: tf.cumsum(x[..., :1], 1), SUMS) > 0.1


def test_a_training_returns_what_the_network_does(monkeypatch):
    shorten_epochs(monkeypatch)
    settings = {"units": 2, "steps": 20, "learning_rate": 0.03}
    run = experiments.stream_training(SUMS, "reset", seed=0, **settings)
    network = experiments.rebuild(SUMS, "reset", run, units=2)
    change = experiments.prefix_change(network, SUMS)
    assert run["prefix_change"] == pytest.approx(change)
    assert run["score_40"] == pytest.approx(experiments.score(network, SUMS, 40))
    tuning = experiments.score(network, SUMS, 40, seed=experiments.TUNING_SEED)
    assert run["tuning"] == pytest.approx(tuning) != run["score_40"]
    at_reset = network.layers[0].cell.reset_gate(SUMS.reset_input)
    np.testing.assert_allclose(run["gate_at_reset"], at_reset, rtol=1e-5)
    assert 0 < run["gate_elsewhere"] < 1

    changed = experiments.scores_without_the_gate(SUMS, [run], units=2)
    opened = networks.with_constant_gate(network, 1.0)
    assert changed["gate fixed at 1"] == [experiments.score(opened, SUMS, 400)]
    hidden = networks.with_hidden_resets(network, SUMS)
    assert changed["reset flag hidden"] == [experiments.score(hidden, SUMS, 400)]


def test_the_tuning_streams_of_the_first_seed_choose_the_rate(monkeypatch):
    trained = []

    def training(task, kind, *, units, learning_rate, seed, steps):
        trained.append((kind, units, learning_rate, seed))
        suits = {3: 0.1, 5: 0.2}[units]
        # On the test streams, and from another seed, the other rate is better.
        better = learning_rate == suits
        return {"tuning": 1 - better, "score_40": 0 + better, "seed": seed}

    monkeypatch.setattr(experiments, "stream_training", training)
    kinds, rates = [("gru", 3), ("gru", 5)], [0.1, 0.2]
    found = experiments.trainings_at_best_rate(SUMS, kinds, [4, 8], rates, steps=20)
    for kind, rate in zip(kinds, rates, strict=True):
        chosen = [(run["learning_rate"], run["seed"]) for run in found[kind]]
        assert chosen == [(rate, 4), (rate, 8)]
    assert len(trained) == len(set(trained)) == 6


def test_kinds_of_equal_size():
    kinds = experiments.kinds_of_equal_size(["reset", "gru"], SUMS, 16)
    assert kinds[0] == ("reset", 16)
    sizes = [networks.count_weights(*kind, 3) for kind in kinds]
    assert sizes[0] <= sizes[1] < 1.3 * sizes[0]


def test_one_stream_is_the_network_on_it():
    network = randomise(build())
    stream = experiments.one_stream(SUMS, network, time=30)
    assert stream["gate"].shape == (30, 4)
    assert stream["resets"].any() and not stream["resets"].all()
    assert (stream["target"][stream["resets"]] == 0).all()
    assert stream["output"].shape == (30,)
    bare = experiments.one_stream(SUMS, time=30)
    assert bare.keys() == {"resets", "value", "target"}
    np.testing.assert_array_equal(bare["target"], stream["target"])
    begin = np.flatnonzero(stream["resets"])[-1]
    expected = np.cumsum(bare["value"][begin:])
    np.testing.assert_allclose(bare["target"][begin:], expected, atol=1e-6)


def test_slopes_tell_linear_from_saturated():
    network = build("elman", units=4)
    kernel, others = np.zeros((3, 4)), [np.zeros((4, 4)), np.zeros(4)]
    for weight in (0, 1):
        kernel[SUMS.reset_feature] = weight
        network.layers[0].set_weights([kernel, *others])
        at_reset, elsewhere = experiments.slopes(network, SUMS)
        assert at_reset == pytest.approx(1 - np.tanh(weight) ** 2, rel=1e-5)
        assert elsewhere == 1.0


def test_conditions_differ_from_the_first_by_what_they_say():
    conditions = experiments.closing_conditions(steps=300)
    first_task, first = conditions.pop("one sum, 32 units")
    assert first["steps"] == 300
    for name, (task, settings) in conditions.items():
        assert task.name != first_task.name or settings != first, name
        assert settings["steps"] == 300


RUN = {
    "score_40": 0.1,
    "score_400": 0.2,
    "prefix_change": 0.0,
    "gate_at_reset": [0.0, 0.5],
    "gate_elsewhere": 0.6,
}
OTHER = RUN | {"score_40": 0.3, "score_400": 0.4, "prefix_change": 0.5}


def test_tables_hold_means_over_seeds_and_the_largest_change():
    task = sum_task(dims=4)
    runs = {("reset", 4): [RUN, OTHER], ("gru", 5): [RUN, RUN]}
    _, _, reset, gru = figures.stream_table(task, runs).splitlines()
    cells = [cell.strip() for cell in reset.strip("|").split("|")]
    assert cells[0] == "reset cell, 4 units" and cells[1] == "64"
    assert cells[2:4] == ["20 ± 14%", "30 ± 14%"] and cells[4:] == ["0.5", "0.25"]
    assert gru.startswith("| GRU, 5 units | 180 |") and gru.endswith("| 0 |  |")

    runs = {("hard_sigmoid", 1.0): [RUN, RUN], ("relu", 0.0): [RUN, OTHER]}
    table = figures.activation_table(runs).splitlines()
    assert table[2] == "| hard sigmoid | 1 | 0.67 | 20 ± 0% | 0.25 | 0.6 | 0 |"
    assert table[3].endswith("| 0.25 | 0.6 | 0.5 |")


def test_metrics_name_networks_by_kind_and_size():
    leak = {("reset", 4): [RUN], ("elman", 6): [RUN], ("elman", 10): [OTHER]}
    leak |= {("gru", 3): [OTHER], ("fixed gate", 4): [RUN]}
    overfitted = {"losses": [1.0, 0.1], "accuracy": 1.0, "loss": 0.1}
    labels = {"true labels": [overfitted], "shuffled labels": [overfitted]}
    sentiment = {"reset, relu": [{"validation": 0.8}, {"validation": 0.9}]}
    plain = {("gru", 18): [OTHER]}
    metrics = experiments.collect_metrics(labels, leak, leak, plain, sentiment)
    assert metrics["overfit_epochs"] == 2 and metrics["overfit_loss"] == 0.1
    assert metrics["sum_fvu_400_reset"]["mean"] == 0.2
    assert metrics["sum_fvu_400_elman_10"]["mean"] == 0.4
    assert metrics["prefix_change_gru_3"] == 0.5
    assert metrics["prefix_change_fixed_gate"] == 0
    assert metrics["parity_accuracy_400_reset"]["n"] == 1
    assert metrics["plain_sum_fvu_400_gru"]["mean"] == 0.4
    assert metrics["validation_accuracy_reset_relu"]["mean"] == pytest.approx(0.85)
