"""q2_reset_cell/networks.py: networks for streams, their training, what undoes them."""

import functools

import keras
import numpy as np
import pytest

from common import resume
from q2_reset_cell import experiments, networks
from q2_reset_cell.reset_cell import ResetRNN
from q2_reset_cell.streams import parity_task, sum_task
from tests.compiled import NO_XLA, compile_all
from tests.interruption import KillAt, Killed

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


@pytest.fixture
def short_epochs(monkeypatch):
    """Has 20 steps make an epoch, and none of them wait for XLA."""
    monkeypatch.setattr(networks, "STEPS_IN_EPOCH", 20)
    compile_all(monkeypatch, **NO_XLA)


@pytest.mark.parametrize("kind", ["elman", "gru"])
@pytest.mark.parametrize("units", [1, 4, 16])
def test_controls_have_just_as_many_parameters(kind, units):
    def parameters(layer):
        layer.build((None, None, 3))
        return layer.count_params()

    wanted = parameters(ResetRNN(units))
    layer_class = networks.LAYERS[kind]
    chosen = build(kind, units=units).layers[0].units
    assert parameters(layer_class(chosen)) >= wanted
    assert chosen == 1 or parameters(layer_class(chosen - 1)) < wanted


@pytest.mark.parametrize("task", [PARITY, SUMS], ids=["parity", "sums"])
def test_oracle_resets_where_the_task_does(task):
    oracle = build("oracle", task)
    inputs = some_streams(task).inputs
    gate = oracle.layers[0].cell.reset_gate(inputs).numpy()
    resets = inputs[..., task.reset_feature] == 1
    assert resets.any()
    np.testing.assert_array_equal(gate[..., 0] == 0, resets)
    np.testing.assert_array_equal(gate[..., 0] == 1, ~resets)


@pytest.mark.usefixtures("short_epochs")
def test_oracle_is_not_trained_and_the_rest_is():
    oracle = build("oracle")
    before = {w.path: w.numpy() for w in oracle.weights}
    networks.train(oracle, SUMS, steps=20, learning_rate=0.01, seed=0)
    moved = {w.name: (w.numpy() != before[w.path]).any() for w in oracle.weights}
    still = {name for name, has_moved in moved.items() if not has_moved}
    assert still == {"reset_kernel", "reset_bias"}


def test_unplugged_network_is_an_elman_network():
    network = randomise(build())
    cell = network.layers[0].cell
    elman = keras.Sequential(
        [
            keras.Input((None, 3)),
            keras.layers.SimpleRNN(4, return_sequences=True),
            keras.layers.Dense(2),
        ]
    )
    elman.layers[0].set_weights([cell.kernel, cell.recurrent_kernel, cell.bias])
    elman.layers[1].set_weights(network.layers[1].get_weights())
    inputs = some_streams(SUMS).inputs
    unplugged = networks.unplugged(network)
    np.testing.assert_allclose(unplugged(inputs), elman(inputs), rtol=1e-5, atol=1e-6)
    assert not np.allclose(network(inputs), elman(inputs), atol=1e-2)


def test_an_undone_gate_is_blind_to_resets_alone():
    network = randomise(build())
    undone = networks.undone(network, SUMS)
    ordinary = np.array([[0.3, -0.2, 0.0]], "float32")
    told = ordinary + SUMS.reset_input
    before, after = (each.layers[0].cell.reset_gate for each in (network, undone))
    np.testing.assert_array_equal(after(told), after(ordinary))
    np.testing.assert_array_equal(after(ordinary), before(ordinary))
    assert not np.allclose(before(told), before(ordinary), atol=1e-2)


def test_open_gates_are_levelled_at_resets_alone():
    network = randomise(build())
    cell = network.layers[0].cell
    kernel = cell.reset_kernel.numpy()
    kernel[SUMS.reset_feature, 0] = -100
    cell.reset_kernel.assign(kernel)
    levelled = networks.levelled(network, SUMS)
    cells = [each.layers[0].cell for each in (network, levelled)]
    at_reset, level = (cell.reset_gate(SUMS.reset_input).numpy() for cell in cells)
    assert np.ptp(at_reset[1:]) > 0.1
    assert level[0] == at_reset[0] == 0
    np.testing.assert_allclose(level[1:], at_reset[1:].mean(), rtol=1e-5)
    ordinary = np.array([0.3, -0.2, 0.0], "float32")
    usual, same = (cell.reset_gate(ordinary).numpy() for cell in cells)
    np.testing.assert_array_equal(usual, same)


def test_leaks_that_cancel_no_longer_do_when_levelled():
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
    trained = experiments.prefix_swap(network, task)
    levelled = experiments.prefix_swap(networks.levelled(network, task), task)
    assert levelled > 1e-4 > 1e-6 > trained


@pytest.mark.usefixtures("short_epochs")
def test_training_repeats_and_learns():
    def losses(seed):
        settings = {"units": 4, "steps": 60, "learning_rate": 0.03}
        return networks.trained_network(sum_task(), "elman", seed=seed, **settings)[1]

    first = losses(0)
    assert len(first) == 3 and first[-1] < 0.8 * first[0]
    np.testing.assert_allclose(losses(0), first, rtol=1e-5)
    assert losses(1) != first


@pytest.mark.usefixtures("short_epochs")
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, monkeypatch):
    def train(backup_dir):
        keras.utils.set_random_seed(3)
        network = build()
        settings = {"steps": 60, "learning_rate": 0.01, "seed": 0}
        losses = networks.train(network, SUMS, **settings, backup_dir=backup_dir)
        return network, losses

    whole, losses = train(None)
    with monkeypatch.context() as patch:
        killed = functools.partial(resume.fit, callbacks=[KillAt(2)])
        patch.setattr(resume, "fit", killed)
        with pytest.raises(Killed):  # at the last step of the second of three epochs
            train(tmp_path)
    resumed, losses_again = train(tmp_path)
    assert losses_again == losses and len(losses) == 3
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("short_epochs")
def test_state_penalty_is_a_mean_over_states():
    def loss(state_penalty):
        settings = {"units": 4, "steps": 20, "learning_rate": 0.0, "seed": 0}
        network, _ = networks.trained_network(
            SUMS, "reset", **settings, state_penalty=state_penalty
        )
        streams = SUMS.make(np.random.default_rng(0), 64, 40)
        states = network.layers[0](streams.inputs)
        return network.evaluate(*streams[:2], batch_size=64, verbose=0), states

    plain, states = loss(0.0)
    penalised, _ = loss(10.0)
    assert penalised - plain == pytest.approx(10 * np.abs(states).mean(), rel=1e-3)


def test_unknown_kind():
    with pytest.raises(ValueError, match="'lstm'"):
        build("lstm")


@pytest.mark.parametrize("kind", ["reset", "elman"])
def test_token_classifier_computes_the_first_sum(kind):
    network = randomise(build(kind))
    model, tokens = networks.token_classifier(network, SUMS)
    assert tokens == ["", "+1", "+2", "−1", "−2", "reset"]
    ids = experiments.token_stream(len(tokens), time=12, every=5)
    assert np.flatnonzero(ids[0] == 5).tolist() == [4, 9]
    vectors = {"": [0, 0, 0], "reset": [0, 0, 1]}
    vectors |= {"+1": [0.1, 0, 0], "+2": [0, 0.1, 0]}
    vectors |= {"−1": [-0.1, 0, 0], "−2": [0, -0.1, 0]}
    inputs = np.array([[vectors[tokens[i]] for i in ids[0]]], "float32")
    expected = network(inputs).numpy()[0, -1, 0]
    np.testing.assert_allclose(model(ids).numpy()[0, 0], expected, rtol=1e-4)
