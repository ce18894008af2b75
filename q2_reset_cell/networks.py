"""Small recurrent networks for streams: the reset cell and its controls, trained.

A network is a recurrent layer and a linear readout of every state.
"""

import itertools

import keras
import numpy as np

from common import resume
from q1_tbptt.tbptt import TBPTTClassifier  # for its plot of the gradient
from q2_reset_cell.reset_cell import ResetCell, ResetRNN
from q2_reset_cell.streams import TIME, stream_batches

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

    Raises:
        ValueError: If `kind` is none of the above.
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
    """Returns a copy of a network whose gate is R = 1 for every input.

    Args:
        network: from `build_network`, of kind "reset", its gate a sigmoid, a hard
            sigmoid or a tanh.

    Returns:
        A `keras.Sequential`.
    """
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    # 1.0 in float32 for both sigmoids and tanh; ReLU and softmax give something else.
    _fix_gate(copy.layers[0].cell, np.zeros(copy.layers[0].cell.reset_kernel.shape), 50)
    return copy


def undone(network, task):
    """Returns a copy whose gate takes no notice of what tells a reset.

    Args:
        network: from `build_network`, of kind "reset".
        task: `Task`.

    Returns:
        A `keras.Sequential`.
    """
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    kernel = copy.layers[0].cell.reset_kernel.numpy()
    kernel[task.reset_feature] = 0
    copy.layers[0].cell.reset_kernel.assign(kernel)
    return copy


def levelled(network, task):
    """Returns a copy whose open gates at a reset are at the mean of what they were.

    If the leaks of their units cancel each other there, they no longer do in the copy.
    A gate that is closed, R = 0, stays closed.

    Args:
        network: from `build_network`, of kind "reset", with a hard sigmoid.
        task: `Task`, from `sum_task`.

    Returns:
        A `keras.Sequential`.
    """
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    cell = copy.layers[0].cell
    gate = cell.reset_gate(task.reset_input[np.newaxis])[0].numpy()
    if gate.any():
        gate[gate > 0] = gate[gate > 0].mean()
    kernel = cell.reset_kernel.numpy()
    kernel[task.reset_feature] = 6 * gate - 3 - cell.reset_bias.numpy()
    cell.reset_kernel.assign(kernel)
    return copy


def train(network, task, *, steps, learning_rate, seed, backup_dir=None):
    """Trains a network on fresh streams of 40 steps, with Adam and a cosine rate.

    Args:
        network: from `build_network`.
        task: `Task`.
        steps: int, batches of 64 streams, in whole hundreds.
        learning_rate: float, the first one.
        seed: int, of the streams.
        backup_dir: path of a folder for this training alone: one that was killed goes
            on from there (`common.resume.fit`). None keeps nothing.

    Returns:
        List of floats, the mean loss of every hundred steps.
    """
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    network.compile(
        keras.optimizers.Adam(schedule, global_clipnorm=1.0),
        task.loss,
        jit_compile=True,
        steps_per_execution=20,  # a step alone takes less time than its call
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


def trained_network(
    task, kind, *, units, steps, learning_rate, seed, state_penalty=0.0, **options
):
    """Builds a network from a seed and trains it.

    Args:
        task: `Task`.
        kind: see `build_network`.
        units: see `build_network`.
        steps: see `train`.
        learning_rate: see `train`.
        seed: int, of everything.
        state_penalty: float, weight in the loss of the mean of |h|, over units, steps
            and streams.
        **options: for the layer.

    Returns:
        `(network, losses)`, see `train`.
    """
    keras.utils.set_random_seed(seed)
    if state_penalty:  # Keras divides by the batch alone
        states = units * TIME
        l1 = keras.regularizers.L1(state_penalty / states)
        options = {**options, "activity_regularizer": l1}
    network = build_network(kind, task, units, **options)
    losses = train(network, task, steps=steps, learning_rate=learning_rate, seed=seed)
    return network, losses


def token_classifier(network, task):
    """Puts a network for sums into question 1's classifier, to plot its gradient.

    The tokens are steps up or down in one of the sums, and the reset; the class is the
    sign of the first sum.

    Args:
        network: trained, of kind "reset" or "elman".
        task: `Task`, from `sum_task`.

    Returns:
        `(model, tokens)`: a `TBPTTClassifier` and the names of its token ids, of which
        0 is padding and the last one is the reset.
    """
    dims = task.outputs
    up = 0.1 * np.eye(dims, dims + 1)
    vectors = np.vstack([np.zeros(dims + 1), up, -up, task.reset_input])
    tokens = [f"{sign}{i + 1}" for sign in "+−" for i in range(dims)]
    cell = network.layers[0].cell
    copy = ResetCell if isinstance(cell, ResetCell) else type(cell)
    copy = copy.from_config(cell.get_config())
    model = TBPTTClassifier(copy, len(vectors), embedding_dim=dims + 1)
    copy.set_weights(cell.get_weights())
    model.embedding.set_weights([vectors])
    kernel, bias = network.layers[-1].get_weights()
    model.head.set_weights([kernel[:, :1], bias[:1]])
    return model, ["", *tokens, "reset"]
