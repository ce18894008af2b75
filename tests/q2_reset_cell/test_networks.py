"""q2_reset_cell/networks.py: networks for streams, their training, changed gates."""

import numpy as np
import pytest

from q2_reset_cell import experiments, networks
from q2_reset_cell.streams import parity_task, sum_task
from tests.compiled import NO_XLA, compile_all

PARITY, SUMS = parity_task(), sum_task(dims=2, loudness=1.0)


def build(kind="reset", task=SUMS, units=4, **options):
    return networks.build_network(kind, task, units, **options)


def randomise(network, seed=0):
    """Sets weights large enough for every gate to matter."""
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(0, 0.7, w.shape) for w in network.get_weights()])
    return network


def some_streams(task, seed=0):
    return task.make(np.random.default_rng(seed), 8, 12)


def shorten_epochs(monkeypatch):
    """Has 20 steps make an epoch, and none of them wait for XLA."""
    monkeypatch.setattr(networks, "STEPS_IN_EPOCH", 20)
    compile_all(monkeypatch, **NO_XLA)


FORMULAS = {  # weights of u units that read f features
    "reset": lambda u, f: 2 * (f * u + u) + u * u,
    "elman": lambda u, f: f * u + u * u + u,
    "gru": lambda u, f: 3 * (f * u + u * u + 2 * u),  # Keras has two biases
}


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("units", [1, 4, 16])
def test_matching_units_have_just_as_many_weights(kind, units):
    formula = FORMULAS[kind]
    assert networks.count_weights(kind, units, 5) == formula(units, 5)
    assert build(kind, units=units).layers[0].count_params() == formula(units, 3)
    wanted = FORMULAS["reset"](units, 5)
    chosen = networks.matching_units(kind, units, 5)
    assert formula(chosen, 5) >= wanted > formula(chosen - 1, 5)


@pytest.mark.parametrize("task", [PARITY, SUMS], ids=["parity", "sums"])
def test_the_fixed_gate_resets_with_the_task_and_is_not_trained(task, monkeypatch):
    shorten_epochs(monkeypatch)
    fixed = build("fixed gate", task)
    before = fixed.get_weights()
    networks.train(fixed, task, steps=20, learning_rate=0.01, seed=0)
    pairs = zip(fixed.weights, before, strict=True)
    still = {weight.name for weight, old in pairs if (weight.numpy() == old).all()}
    assert still == {"reset_kernel", "reset_bias"}
    inputs = some_streams(task).inputs
    gate = fixed.layers[0].cell.reset_gate(inputs).numpy()
    resets = inputs[..., task.reset_feature] == 1
    assert resets.any()
    np.testing.assert_array_equal(gate[..., 0] == 0, resets)
    np.testing.assert_array_equal(gate[..., 0] == 1, ~resets)


def test_a_gate_fixed_at_1_makes_it_an_elman_network():
    network, elman = randomise(build()), build("elman")
    kernel, recurrent_kernel, bias, _, _, *readout = network.get_weights()
    elman.set_weights([kernel, recurrent_kernel, bias, *readout])
    inputs = some_streams(SUMS).inputs
    opened = networks.with_constant_gate(network, 1.0)
    np.testing.assert_allclose(opened(inputs), elman(inputs), rtol=1e-5, atol=1e-6)
    assert not np.allclose(network(inputs), elman(inputs), atol=1e-2)


def test_a_constant_gate_is_that_of_every_input():
    gate = np.array([0.0, 0.25, 0.5, 1.0])
    cell = networks.with_constant_gate(randomise(build()), gate).layers[0].cell
    found = cell.reset_gate(some_streams(SUMS).inputs)
    np.testing.assert_allclose(found, np.broadcast_to(gate, found.shape), atol=1e-6)


def test_a_gate_without_the_flag_is_blind_to_resets_only():
    network = randomise(build())
    hidden = networks.with_hidden_resets(network, SUMS)
    ordinary = np.array([[0.3, -0.2, 0.0]], "float32")
    told = ordinary + SUMS.reset_input
    before, after = (each.layers[0].cell.reset_gate for each in (network, hidden))
    np.testing.assert_array_equal(after(told), after(ordinary))
    np.testing.assert_array_equal(after(ordinary), before(ordinary))
    assert not np.allclose(before(told), before(ordinary), atol=1e-2)


def test_open_gates_are_averaged_at_resets_only():
    network = randomise(build())
    cell = network.layers[0].cell
    kernel = cell.reset_kernel.numpy()
    kernel[SUMS.reset_feature, 0] = -100
    cell.reset_kernel.assign(kernel)
    averaged = networks.with_averaged_gates(network, SUMS).layers[0].cell
    at_reset, level = (c.reset_gate(SUMS.reset_input).numpy() for c in (cell, averaged))
    assert np.ptp(at_reset[1:]) > 0.1
    assert level[0] == at_reset[0] == 0
    np.testing.assert_allclose(level[1:], at_reset[1:].mean(), rtol=1e-5)
    ordinary = np.array([0.3, -0.2, 0.0], "float32")
    gate = cell.reset_gate(ordinary)
    np.testing.assert_array_equal(averaged.reset_gate(ordinary), gate)


def test_leaks_that_cancel_no_longer_do_when_averaged():
    # Both units add up; the readout takes the second from the first, and at a reset
    # the first keeps a quarter and the second a half, which leaves nothing. (After a
    # second reset it would; the streams have but one.)
    task = sum_task(reset_rate=0.0)
    network = build("reset", task, units=2)
    kernel, recurrent_kernel = [[0.001, 0.002], [0, 0]], np.eye(2)
    reset_kernel, reset_bias = [[0, 0], [1.5 - 6, 3.0 - 6]], [3.0, 3.0]
    weights = [kernel, recurrent_kernel, [0, 0], reset_kernel, reset_bias]
    network.layers[0].set_weights([np.array(weight) for weight in weights])
    network.layers[1].set_weights([np.array([[2.0], [-0.5]]), np.zeros(1)])
    averaged = networks.with_averaged_gates(network, task)
    before, after = (experiments.prefix_change(n, task) for n in (network, averaged))
    assert after > 1e-4 > 1e-6 > before


def test_training_learns_from_its_seed(monkeypatch):
    shorten_epochs(monkeypatch)

    def losses(seed):
        settings = {"units": 4, "steps": 60, "learning_rate": 0.03}
        return networks.trained_network(sum_task(), "elman", seed=seed, **settings)[1]

    first = losses(0)
    assert len(first) == 3 and first[-1] < 0.8 * first[0]
    assert losses(1) != first


def test_unknown_kind():
    with pytest.raises(ValueError, match="'lstm'"):
        build("lstm")


@pytest.mark.parametrize("kind", ["reset", "elman"])
def test_token_classifier_computes_the_first_sum(kind):
    network = randomise(build(kind))
    model, tokens = experiments.token_classifier(network, SUMS)
    assert tokens == ["", "+1", "+2", "−1", "−2", "reset"]
    ids = experiments.token_stream(len(tokens), time=12, every=5)
    assert np.flatnonzero(ids[0] == 5).tolist() == [4, 9]
    vectors = np.array(
        [[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [-0.1, 0, 0], [0, -0.1, 0], [0, 0, 1]]
    )
    expected = network(vectors[ids].astype("float32")).numpy()[0, -1, 0]
    np.testing.assert_allclose(model(ids).numpy()[0, 0], expected, rtol=1e-4)
