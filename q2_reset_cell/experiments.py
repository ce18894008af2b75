"""Learning to forget: networks trained on streams, and what a reset leaves of the past.

Long runs go through `experiment.remember`, so that a run that was interrupted takes
up where it stopped. What is done with sentences is in `language.py`.
"""

import itertools

import keras
import numpy as np

from common import experiment
from q2_reset_cell.reset_cell import ResetRNN
from q2_reset_cell.streams import SWAP_AT, StreamBatches, swapped_prefixes

QUESTION = "q2_reset_cell"
STEPS_IN_EPOCH = 100
LAYERS = {
    "reset": ResetRNN,
    "oracle": ResetRNN,
    "elman": keras.layers.SimpleRNN,
    "gru": keras.layers.GRU,
}


def units_for_parameters(layer_class, features, other):
    """Finds the smallest layer or cell with at least as many parameters as another.

    Args:
        layer_class: class of a recurrent layer or cell, made from its units.
        features: int, features of its input.
        other: the other layer or cell.

    Returns:
        The number of units, an int.
    """

    def parameters(layer):
        layer.build((None, None, features))
        return layer.count_params()

    wanted = parameters(other)
    units = itertools.count(1)
    return next(n for n in units if parameters(layer_class(n)) >= wanted)


def build_network(kind, task, units, **options):
    """Builds a recurrent layer and a linear readout of every state.

    Args:
        kind: "reset"; "oracle", a reset layer whose gate is told where the resets
            are, and not trained; "elman" or "gru", with at least as many parameters.
        task: `Task`.
        units: int, units of the reset layer.
        **options: for the layer.

    Returns:
        A `keras.Sequential` of the layer and the readout.
    """
    if kind not in LAYERS:
        raise ValueError(f"`kind` must be one of {list(LAYERS)}. Received: {kind!r}")
    features = len(task.reset_input)
    if kind in ("elman", "gru"):
        units = units_for_parameters(LAYERS[kind], features, ResetRNN(units))
    layer = LAYERS[kind](units, return_sequences=True, **options)
    network = keras.Sequential(
        [keras.Input((None, features)), layer, keras.layers.Dense(task.outputs)]
    )
    if kind == "oracle":
        kernel = np.zeros((features, units))
        kernel[task.reset_feature] = -6  # hard sigmoid: from 1 at 3 to 0 at -3
        _fix_gate(layer.cell, kernel, 3)
        layer.cell.reset_kernel.trainable = layer.cell.reset_bias.trainable = False
    return network


def _fix_gate(cell, kernel, bias):
    cell.reset_kernel.assign(kernel)
    cell.reset_bias.assign(np.full(cell.reset_bias.shape, bias))


def unplugged(network):
    """Returns a copy of a network whose gate is R = 1 for every input."""
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    # 1.0 in float32 for both sigmoids; softmax has no such value.
    _fix_gate(copy.layers[0].cell, np.zeros(copy.layers[0].cell.reset_kernel.shape), 50)
    return copy


def train(network, task, *, steps, learning_rate, seed):
    """Trains a network on fresh streams of 40 steps, with Adam and a cosine rate.

    Args:
        network: from `build_network`.
        task: `Task`.
        steps: int, batches of 64 streams, in whole hundreds.
        learning_rate: float, the first one.
        seed: int, of the streams.

    Returns:
        List of floats, the mean loss of every hundred steps.
    """
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    network.compile(
        keras.optimizers.Adam(schedule, global_clipnorm=1.0),
        task.loss,
        jit_compile=True,
    )
    batches = StreamBatches(task, STEPS_IN_EPOCH, seed)
    epochs = steps // STEPS_IN_EPOCH
    return network.fit(batches, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def score(network, task, time, batch=400, seed=7):
    """Measures how well a network does on streams that it has not seen.

    Args:
        network: from `build_network`.
        task: `Task`.
        time: int, steps of the streams.
        batch: int, number of streams.
        seed: int, of the streams.

    Returns:
        For bits the accuracy; for sums the share of their variance that is not
        explained (FVU), each step weighted as in training.
    """
    streams = task.make(np.random.default_rng(seed), batch, time)
    outputs = network(streams.inputs).numpy()
    weights = np.broadcast_to(streams.weights[..., None], outputs.shape)
    if task.binary:
        right = (outputs > 0) == (streams.targets > 0.5)
        return float(np.average(right, weights=weights))
    mean = np.average(streams.targets, weights=weights)
    errors = np.average((outputs - streams.targets) ** 2, weights=weights)
    return float(errors / np.average((streams.targets - mean) ** 2, weights=weights))


def prefix_swap(network, task):
    """Returns by how much outputs move when all inputs before a reset are swapped.

    Args:
        network: from `build_network`.
        task: `Task`.

    Returns:
        The largest absolute change of any output from the reset on; a float.
    """
    inputs, swapped = swapped_prefixes(task)
    change = np.abs(network(inputs).numpy() - network(swapped).numpy())
    return float(change[:, SWAP_AT:].max())


def gates(network, task):
    """Returns R of the reset input, `(units,)`, and of ordinary ones, their mean."""
    cell = network.layers[0].cell
    inputs = task.make(np.random.default_rng(6), 64, 40).inputs
    ordinary = inputs[inputs[..., task.reset_feature] != 1]
    at_reset = cell.reset_gate(task.reset_input[np.newaxis])[0]
    return at_reset.numpy(), float(np.mean(cell.reset_gate(ordinary)))


def trained_network(task, kind, *, units, steps, learning_rate, seed, **options):
    """Builds a network from a seed and trains it; returns it and its losses."""
    experiment.seed_everything(seed)
    network = build_network(kind, task, units, **options)
    losses = train(network, task, steps=steps, learning_rate=learning_rate, seed=seed)
    return network, losses


def forgetting(task, kind, **settings):
    """Trains a network and measures what it has learned and what it forgets.

    Args:
        task: `Task`.
        kind: see `build_network`.
        **settings: for `trained_network`; JSON must hold them.

    Returns:
        Dict: `losses`; `score_40` and `score_400`, see `score`; `swap`, see
        `prefix_swap`; and for "reset" `gate_at_reset`, one number a unit,
        `gate_elsewhere`, and `unplugged_400`, the score with R = 1.
    """

    def compute():
        keras.backend.clear_session()
        network, losses = trained_network(task, kind, **settings)
        measured = {
            "losses": losses,
            "score_40": score(network, task, 40),
            "score_400": score(network, task, 400),
            "swap": prefix_swap(network, task),
        }
        if kind == "reset":
            at_reset, elsewhere = gates(network, task)
            measured["gate_at_reset"] = at_reset.tolist()
            measured["gate_elsewhere"] = elsewhere
            measured["unplugged_400"] = score(unplugged(network), task, 400)
        return measured

    return experiment.remember(
        QUESTION, {"task": task.name, "kind": kind, **settings}, compute
    )
