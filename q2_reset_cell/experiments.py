"""Learning to forget: what networks make of streams, and what a reset leaves.

Long runs are `results.cached`, so that a run that was interrupted resumes. The cell on
sentences is in `language.py`.
"""

import keras
import numpy as np
import tensorflow as tf

from common import results
from q2_reset_cell.networks import (
    build_network,
    trained_network,
    undone,
    unplugged,
)
from q2_reset_cell.streams import SWAP_AT, sum_task, swapped_prefixes

QUESTION = "q2_reset_cell"


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
    outputs = tf.function(network)(streams.inputs).numpy()
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
    outputs = tf.function(network)
    change = np.abs(np.subtract(*map(outputs, swapped_prefixes(task))))
    return float(change[:, SWAP_AT:].max())


def gates(network, task):
    """Measures R of the input that resets, and of ordinary ones.

    Args:
        network: from `build_network`, of kind "reset".
        task: `Task`.

    Returns:
        `(at_reset, elsewhere)`: a float array of shape `(units,)`, or `(1,)` with a
        shared gate, and a float, the mean over units and inputs of random streams.
    """
    cell = network.layers[0].cell
    inputs = task.make(np.random.default_rng(6), 64, 40).inputs
    ordinary = inputs[inputs[..., task.reset_feature] != 1]
    at_reset = cell.reset_gate(task.reset_input[np.newaxis])[0]
    return at_reset.numpy(), float(np.mean(cell.reset_gate(ordinary)))


@results.cached(QUESTION)
def forgetting(task, kind, **settings):
    """Trains a network and measures what it has learned and what it forgets.

    Args:
        task: `Task`.
        kind: see `build_network`.
        **settings: for `trained_network`; JSON must hold them.

    Returns:
        Dict: `losses`; `score_40` and `score_400`, see `score`; `swap`, see
        `prefix_swap`; `weights`, for `restored`; and for "reset" `gate_at_reset`, one
        number a gate, `gate_elsewhere`, and the scores without the button: with R = 1
        throughout `unplugged_400`, with a gate blind to resets `undone_400`.
    """

    keras.backend.clear_session()
    network, losses = trained_network(task, kind, **settings)
    measured = {
        "losses": losses,
        "score_40": score(network, task, 40),
        "score_400": score(network, task, 400),
        "swap": prefix_swap(network, task),
        "weights": [weight.tolist() for weight in network.get_weights()],
    }
    if kind == "reset":
        at_reset, elsewhere = gates(network, task)
        measured["gate_at_reset"] = at_reset.tolist()
        measured["gate_elsewhere"] = elsewhere
        measured["unplugged_400"] = score(unplugged(network), task, 400)
        measured["undone_400"] = score(undone(network, task), task, 400)
    return measured


def restored(task, kind, run, *, units, **options):
    """Builds the network that `forgetting` trained, from the weights it returned.

    Args:
        task: `Task`.
        kind: see `build_network`.
        run: what `forgetting` returned.
        units: see `build_network`.
        **options: for the layer, as they were for `forgetting`.

    Returns:
        The `keras.Sequential`.
    """
    network = build_network(kind, task, units, **options)
    network.set_weights([np.array(weight, "float32") for weight in run["weights"]])
    return network


def closing_conditions(steps):
    """Lists what may make the gate close, one change from the first condition each.

    Args:
        steps: int, of every training.

    Returns:
        Dict from a name to `(task, settings)`, for `forgetting`.
    """
    one, often, four = sum_task(), sum_task(reset_rate=0.3), sum_task(dims=4)
    loud = sum_task(loudness=2.0)
    base = {"units": 32, "steps": steps, "learning_rate": 0.03}
    sigmoid, shared = {"reset_activation": "sigmoid"}, {"shared_reset": True}
    return {
        "one sum, 32 units": (one, base),
        "sigmoid": (one, base | sigmoid),
        "learning rate 0.003": (one, base | {"learning_rate": 0.003}),
        "resets three times as often": (often, base),
        "by volume": (loud, base),
        "penalty on the state": (one, base | {"state_penalty": 1.0}),
        "one gate for all units": (one, base | shared),
        "the same, sigmoid": (one, base | shared | sigmoid),
        "no unit to spare: 1 unit": (one, base | {"units": 1}),
        "no unit to spare: 4 sums, 4 units": (four, base | {"units": 4}),
    }


def slopes(network, task):
    """Returns the mean slope of tanh at a reset and elsewhere.

    Args:
        network: trained, of kind "elman".
        task: `Task`.

    Returns:
        `(at_reset, elsewhere)`, floats in [0, 1]: 1 where tanh is linear, 0 where it
        is saturated.
    """
    inputs, _ = swapped_prefixes(task)
    found = 1 - np.square(network.layers[0](inputs))
    resets = inputs[..., task.reset_feature] == 1
    return float(found[resets].mean()), float(found[~resets].mean())


def starting_gates(units=32):
    """Returns the R that a gate starts from, for some activations and biases.

    Args:
        units: int, units that softmax shares 1 among.

    Returns:
        Dict from a label to R, for an input kernel of 0.
    """
    choices = [("hard_sigmoid", 3.0), ("hard_sigmoid", 1.0)]
    choices += [("sigmoid", 5.0), ("sigmoid", 3.0), ("sigmoid", 1.0), ("softmax", 0.0)]
    return {
        f"{name.replace('_', ' ')}, b = {bias:g}": float(
            keras.activations.get(name)(keras.ops.full((1, units), bias))[0, 0]
        )
        for name, bias in choices
    }


def describe(name, runs):
    """Formats what `forgetting` returned for several seeds as one line.

    Args:
        name: str, what the line begins with.
        runs: list of what `forgetting` returned, one a seed.

    Returns:
        The line as text, with means over seeds.
    """
    columns = {
        "score at 40 steps": "score_40",
        "at 400": "score_400",
        "R = 1": "unplugged_400",
        "resets undone": "undone_400",
        "prefix swap": "swap",
    }
    line = f"{name:34s}"
    for title, key in columns.items():
        if key in runs[0]:
            line += f"  {title} {np.mean([run[key] for run in runs]):.3g}"
    if "gate_at_reset" in runs[0]:
        gate = np.mean([np.mean(run["gate_at_reset"]) for run in runs])
        line += f"  R at resets {gate:.2g}"
    return line


def gate_table(runs):
    """Formats the comparison of activations and biases as a Markdown table.

    Args:
        runs: dict from `(activation, bias)` to a list of what `forgetting` returns.

    Returns:
        The table as text: what the start would leave of a memory after 20 steps, then
        means over seeds, and the largest swap.
    """
    titles = ["activation", "bias", "R^20 at the start", "FVU at 40 steps", "at 400"]
    titles += ["R at resets", "R elsewhere", "prefix swap"]
    lines = []
    for (activation, bias), of_seeds in runs.items():
        units = len(of_seeds[0]["gate_at_reset"])
        start = keras.activations.get(activation)(keras.ops.full((1, units), bias))
        cells = [activation.replace("_", " "), f"{bias:g}"]
        cells.append(f"{float(start[0, 0]) ** 20:.1g}")
        for key in ("score_40", "score_400"):
            cells.append(results.show([run[key] for run in of_seeds], ".2g"))
        for key in ("gate_at_reset", "gate_elsewhere"):
            cells.append(f"{np.mean([np.mean(run[key]) for run in of_seeds]):.2g}")
        cells.append(f"{max(run['swap'] for run in of_seeds):.1g}")
        lines.append(cells)
    return results.markdown_table(titles, lines)


def one_stream(network, task, time=80, seed=5):
    """Runs a network on one stream of sums.

    Args:
        network: trained, of kind "reset".
        task: `Task`, from `sum_task`.
        time: int, steps.
        seed: int, of the stream.

    Returns:
        Dict of arrays: `gate`, `(time, units)`; `resets`, `(time,)`; `target` and
        `output`, `(time,)`, of the first sum.
    """
    streams = task.make(np.random.default_rng(seed), 1, time)
    return {
        "gate": network.layers[0].cell.reset_gate(streams.inputs)[0].numpy(),
        "resets": streams.inputs[0, :, task.reset_feature] == 1,
        "target": streams.targets[0, :, 0],
        "output": network(streams.inputs).numpy()[0, :, 0],
    }


def token_stream(vocab_size, time=32, every=10, seed=4):
    """Draws tokens for a `token_classifier`, with resets at equal distances.

    Args:
        vocab_size: int; the last token is the reset.
        time: int, tokens.
        every: int, distance of the resets.
        seed: int.

    Returns:
        int32 array of shape `(1, time)`.
    """
    ids = np.random.default_rng(seed).integers(1, vocab_size - 1, (1, time))
    ids[:, every - 1 :: every] = vocab_size - 1
    return ids.astype("int32")
