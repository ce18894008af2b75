"""q2_reset_cell/experiments.py: what is measured of networks, and its tables."""

import numpy as np
import pytest
import tensorflow as tf

from q2_reset_cell import experiments, networks
from q2_reset_cell.streams import flip_flop_task
from tests.compiled import NO_XLA, compile_all
from tests.q2_reset_cell.test_networks import SUMS, build, randomise


def test_score_of_bits_is_their_weighted_accuracy():
    task = flip_flop_task()
    targets = task.make(np.random.default_rng(7), 400, 20).targets
    right = experiments.score(lambda inputs: tf.constant(targets - 0.5), task, 20)
    wrong = experiments.score(lambda inputs: tf.constant(0.5 - targets), task, 20)
    assert (right, wrong) == (1.0, 0.0)
    reads_alone = experiments.score(
        lambda inputs: (targets - 0.5) * (2 * inputs[..., 2:3] - 1), task, 20
    )
    assert reads_alone == 1.0  # wrong wherever there is no read


def test_score_of_sums_is_the_weighted_share_of_variance():
    streams = SUMS.make(np.random.default_rng(7), 400, 20)
    weights = np.repeat(streams.weights[..., None], 2, -1)
    mean = np.average(streams.targets, weights=weights)

    def score(outputs):
        outputs = tf.constant(np.float32(outputs))
        return experiments.score(lambda inputs: outputs, SUMS, 20)

    assert score(streams.targets) == 0
    assert score(np.full_like(streams.targets, mean)) == pytest.approx(1, rel=1e-4)
    halfway = (streams.targets + mean) / 2
    assert score(halfway) == pytest.approx(0.25, rel=1e-4)


def test_prefix_swap_is_zero_for_the_oracle_alone():
    assert experiments.prefix_swap(randomise_readout(build("oracle")), SUMS) == 0.0
    assert experiments.prefix_swap(randomise(build("reset")), SUMS) > 1e-3


def randomise_readout(network):
    layer = network.layers[-1]
    layer.set_weights([np.ones_like(weight) for weight in layer.get_weights()])
    return network


def test_prefix_swap_looks_at_nothing_before_the_reset():
    def running_sum(inputs):
        return tf.cumsum(inputs[..., :1], axis=1)

    def present(inputs):
        return inputs[..., :1]

    assert experiments.prefix_swap(present, SUMS) == 0.0
    assert experiments.prefix_swap(running_sum, SUMS) > 0.1


def test_forgetting_returns_what_the_network_does(monkeypatch):
    compile_all(monkeypatch, **NO_XLA)
    monkeypatch.setattr(networks, "STEPS_IN_EPOCH", 20)
    settings = {"units": 2, "steps": 20, "learning_rate": 0.03}
    run = experiments.forgetting(SUMS, "reset", seed=0, **settings)
    network = experiments.restored(SUMS, "reset", run, units=2)
    assert run["swap"] == pytest.approx(experiments.prefix_swap(network, SUMS))
    assert run["score_40"] == pytest.approx(experiments.score(network, SUMS, 40))
    at_reset = network.layers[0].cell.reset_gate(SUMS.reset_input)
    np.testing.assert_allclose(run["gate_at_reset"], at_reset, rtol=1e-5)
    assert 0 < run["gate_elsewhere"] < 1
    assert len(run["losses"]) == 1


def test_one_stream_is_the_network_on_it():
    network = randomise(build())
    stream = experiments.one_stream(network, SUMS, time=30)
    assert stream["gate"].shape == (30, 4)
    assert stream["resets"].any() and not stream["resets"].all()
    assert (stream["target"][stream["resets"]] == 0).all()
    assert stream["output"].shape == (30,)


def test_slopes_tell_linear_from_saturated():
    network = build("elman")
    kernel = np.zeros((3, network.layers[0].units))
    zeros = [np.zeros((kernel.shape[1],) * 2), np.zeros(kernel.shape[1])]
    network.layers[0].set_weights([kernel, *zeros])
    assert experiments.slopes(network, SUMS) == (1.0, 1.0)
    kernel[SUMS.reset_feature] = 1.0
    network.layers[0].set_weights([kernel, *zeros])
    at_reset, elsewhere = experiments.slopes(network, SUMS)
    assert at_reset == pytest.approx(1 - np.tanh(1) ** 2, rel=1e-5)
    assert elsewhere == 1.0


def test_conditions_differ_from_the_first_by_what_they_say():
    conditions = experiments.closing_conditions(steps=300)
    first_task, first = conditions.pop("one sum, 32 units")
    assert first["steps"] == 300
    for name, (task, settings) in conditions.items():
        assert task.name != first_task.name or settings != first, name
        assert settings["steps"] == 300


def test_starting_gates():
    gates = experiments.starting_gates(units=32)
    assert gates["hard sigmoid, b = 3"] == 1.0
    assert gates["hard sigmoid, b = 1"] == pytest.approx(2 / 3)
    assert gates["sigmoid, b = 5"] == pytest.approx(1 / (1 + np.exp(-5)))
    assert gates["softmax, b = 0"] == pytest.approx(1 / 32)


def test_tables_hold_means_over_seeds():
    run = {
        "losses": [1.0, 0.2],
        "score_40": 0.1,
        "score_400": 0.2,
        "swap": 0.0,
        "gate_at_reset": [0.0, 0.5],
        "gate_elsewhere": 0.6,
        "unplugged_400": 3.0,
        "undone_400": 2.0,
    }
    other = run | {"score_40": 0.3, "swap": 0.5}
    line = experiments.describe("name", [run, other])
    assert "score at 40 steps 0.2 " in line and "prefix swap 0.25" in line
    assert "R at resets 0.25" in line and "resets undone 2 " in line
    runs = {("hard_sigmoid", 1.0): [run, run], ("relu", 0.0): [run, other]}
    table = experiments.gate_table(runs).splitlines()
    assert table[2].startswith("| hard sigmoid | 1 | 0.0003 | 0.1 ± 0 |")
    assert table[2].endswith("| 0.25 | 0.6 | 0 |")
    assert table[3].endswith("| 0.25 | 0.6 | 0.5 |")
