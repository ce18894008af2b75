"""q2_reset_cell: networks for streams, and what is measured of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from common import resume
from q2_reset_cell import experiments, networks
from q2_reset_cell.reset_cell import ResetRNN
from q2_reset_cell.streams import flip_flop_task, parity_task, sum_task
from tests.interruption import KillAt, Killed

PARITY, SUMS = parity_task(), sum_task(dims=2, loudness=1.0)


def build(kind="reset", task=SUMS, units=4, **options):
    return networks.build_network(kind, task, units, **options)


def randomise(network, seed=0):
    """Weights large enough for every gate to matter."""
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(0, 0.7, w.shape) for w in network.get_weights()])
    return network


def some_streams(task, seed=0):
    return task.make(np.random.default_rng(seed), 8, 12)


# -- Networks ------------------------------------------------------------------------


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


def test_oracle_is_not_trained_and_the_rest_is():
    oracle = build("oracle")
    before = {w.path: w.numpy() for w in oracle.weights}
    networks.train(oracle, SUMS, steps=100, learning_rate=0.01, seed=0)
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


def test_training_repeats_and_learns():
    def losses(seed):
        settings = {"units": 4, "steps": 300, "learning_rate": 0.03}
        return networks.trained_network(PARITY, "elman", seed=seed, **settings)[1]

    first = losses(0)
    assert len(first) == 3 and first[-1] < 0.8 * first[0]
    np.testing.assert_allclose(losses(0), first, rtol=1e-5)
    assert losses(1) != first


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, monkeypatch):
    def train(backup_dir):
        keras.utils.set_random_seed(3)
        network = build()
        settings = {"steps": 300, "learning_rate": 0.01, "seed": 0}
        losses = networks.train(network, SUMS, **settings, backup_dir=backup_dir)
        return network, losses

    whole, losses = train(None)
    fit = resume.fit
    monkeypatch.setattr(
        resume, "fit", lambda *args, **kw: fit(*args, **kw, callbacks=[KillAt(7)])
    )
    with pytest.raises(Killed):  # in the second epoch, after 140 of 300 steps
        train(tmp_path)
    monkeypatch.undo()
    resumed, losses_again = train(tmp_path)
    assert losses_again == losses and len(losses) == 3
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_state_penalty_is_a_mean_over_states():
    def loss(state_penalty):
        network, _ = networks.trained_network(
            SUMS,
            "reset",
            units=4,
            steps=100,
            learning_rate=0.0,
            seed=0,
            state_penalty=state_penalty,
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


# -- Measurements --------------------------------------------------------------------


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
    settings = {"units": 2, "steps": 100, "learning_rate": 0.03}
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
