"""Small recurrent networks for streams: the reset cell and its controls.

A network is a recurrent layer and a linear readout of every state.
"""

import itertools

import keras
import numpy as np

from common import resume
from q2_reset_cell.reset_cell import ResetRNN
from q2_reset_cell.streams import stream_batches

STEPS_IN_EPOCH = 100
LAYERS = {
    "reset": ResetRNN,
    "fixed gate": ResetRNN,
    "elman": keras.layers.SimpleRNN,
    "gru": keras.layers.GRU,
}


def count_weights(kind, units, features):
    """Counts the weights of a recurrent layer.

    Args:
        kind: one of `LAYERS`.
        units: int.
        features: int, features of its input.

    Returns:
        An int.
    """
    layer = LAYERS[kind](units)
    layer.build((None, None, features))
    return layer.count_params()


def matching_units(kind, units, features):
    """Returns the units with which a layer has as many weights as a reset layer.

    Args:
        kind: one of `LAYERS`.
        units: int, units of the reset layer.
        features: int, features of the input.

    Returns:
        The smallest number of units with at least as many weights, an int.
    """
    wanted = count_weights("reset", units, features)
    return next(
        n for n in itertools.count(1) if count_weights(kind, n, features) >= wanted
    )


def build_network(kind, task, units, **options):
    """Builds a recurrent layer and a linear readout of every state.

    Args:
        kind: "reset", "elman", "gru", or "fixed gate", a reset layer whose gate is 0
            at resets and 1 elsewhere, and is not trained.
        task: `Task`.
        units: int.
        **options: for the layer.

    Returns:
        A `keras.Sequential` of the layer and the readout.

    Raises:
        ValueError: If `kind` is none of the above.
    """
    if kind not in LAYERS:
        raise ValueError(f"`kind` must be one of {list(LAYERS)}. Received: {kind!r}")
    features = len(task.reset_input)
    layer = LAYERS[kind](units, return_sequences=True, **options)
    network = keras.Sequential(
        [keras.Input((None, features)), layer, keras.layers.Dense(task.outputs)]
    )
    if kind == "fixed gate":
        kernel = np.zeros((features, units))
        kernel[task.reset_feature] = -6  # hard sigmoid: from 1 at 3 to 0 at -3
        layer.cell.reset_kernel.assign(kernel)
        layer.cell.reset_bias.assign(np.full(units, 3))
        layer.cell.reset_kernel.trainable = layer.cell.reset_bias.trainable = False
    return network


def with_constant_gate(network, gate):
    """Returns a copy of a network whose gate does not depend on the input.

    Args:
        network: `keras.Sequential` with one `ResetRNN`, whose gate is a hard sigmoid.
        gate: float or array of shape `(units,)`, R in [0, 1].

    Returns:
        A `keras.Sequential`.
    """
    copy, cell = _copy(network)
    cell.reset_kernel.assign(np.zeros(cell.reset_kernel.shape))
    cell.reset_bias.assign(np.broadcast_to(_logits(gate), cell.reset_bias.shape))
    return copy


def with_hidden_resets(network, task):
    """Returns a copy of a network whose gate does not see the reset flag.

    Args:
        network: from `build_network`, of kind "reset".
        task: `Task`.

    Returns:
        A `keras.Sequential`.
    """
    copy, cell = _copy(network)
    kernel = cell.reset_kernel.numpy()
    kernel[task.reset_feature] = 0
    cell.reset_kernel.assign(kernel)
    return copy


def with_averaged_gates(network, task):
    """Returns a copy whose open gates at a reset are averaged.

    If the leaks of their units cancel each other at a reset, they no longer do in the
    copy. A gate that is closed, R = 0, stays closed.

    Args:
        network: from `build_network`, of kind "reset", with a hard sigmoid.
        task: `Task`, from `sum_task`.

    Returns:
        A `keras.Sequential`.
    """
    copy, cell = _copy(network)
    gate = cell.reset_gate(task.reset_input[np.newaxis])[0].numpy()
    if gate.any():
        gate[gate > 0] = gate[gate > 0].mean()
    kernel = cell.reset_kernel.numpy()
    kernel[task.reset_feature] = _logits(gate) - cell.reset_bias.numpy()
    cell.reset_kernel.assign(kernel)
    return copy


def _copy(network):
    """Returns a copy of a network and the cell of its `ResetRNN`."""
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    (layer,) = [layer for layer in copy.layers if isinstance(layer, ResetRNN)]
    return copy, layer.cell


def _logits(gate):
    return 6 * np.asarray(gate) - 3  # the inverse of the hard sigmoid


def train(network, task, *, steps, learning_rate, seed, backup_dir=None):
    """Trains a network on new streams of 40 steps, with Adam and a cosine rate.

    Args:
        network: from `build_network`.
        task: `Task`.
        steps: int, batches of 64 streams, in whole hundreds.
        learning_rate: float, at the first step.
        seed: int, of the streams.
        backup_dir: path of a folder for this training only, from which a training that
            was killed resumes (`common.resume.fit`). None keeps nothing.

    Returns:
        List of floats, the mean loss of every hundred steps.
    """
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    network.compile(
        keras.optimizers.Adam(schedule, global_clipnorm=1.0),
        task.loss,
        jit_compile=True,
        steps_per_execution=20,  # a single step takes less time than its call
    )
    history = resume.fit(
        network,
        stream_batches(task, seed),
        epochs=steps // STEPS_IN_EPOCH,
        steps_per_epoch=STEPS_IN_EPOCH,
        backup_dir=backup_dir,
        verbose=0,
    )
    return history.history["loss"]


def trained_network(task, kind, *, units, steps, learning_rate, seed, **options):
    """Builds a network from a seed and trains it.

    Args:
        task: `Task`.
        kind: see `build_network`.
        units: see `build_network`.
        steps: see `train`.
        learning_rate: see `train`.
        seed: int, of everything.
        **options: for the layer.

    Returns:
        `(network, losses)`, see `train`.
    """
    keras.utils.set_random_seed(seed)
    network = build_network(kind, task, units, **options)
    losses = train(network, task, steps=steps, learning_rate=learning_rate, seed=seed)
    return network, losses
