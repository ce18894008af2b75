"""Trains networks on streams and measures what they learn and what they forget.

Trainings are `results.cached`, so that an interrupted run resumes. The cell on
sentences is in `language.py`.
"""

import keras
import numpy as np
import tensorflow as tf

from common import results, sweep
from q1_tbptt.tbptt import TBPTTClassifier  # for its plot of the gradient
from q2_reset_cell.networks import (
    build_network,
    matching_units,
    trained_network,
    with_constant_gate,
    with_hidden_resets,
)
from q2_reset_cell.reset_cell import ResetCell
from q2_reset_cell.streams import RESET_AT, replaced_prefixes, sum_task

QUESTION = "q2_reset_cell"
TUNING_SEED, TEST_SEED = 9, 7  # of the streams that choose and of those that evaluate


def score(network, task, time, batch=400, seed=TEST_SEED):
    """Evaluates a network on new streams.

    Args:
        network: from `build_network`.
        task: `Task`.
        time: int, steps of the streams.
        batch: int, number of streams.
        seed: int, of the streams.

    Returns:
        For bits the accuracy. For sums the fraction of variance unexplained, `1 - R²`,
        with each step weighted as in training.
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


def prefix_change(network, task):
    """Replaces all inputs before a reset and measures the change of the outputs.

    Args:
        network: from `build_network`.
        task: `Task`.

    Returns:
        The largest absolute change of any output from the reset on, a float.
    """
    outputs = tf.function(network)
    change = np.abs(np.subtract(*map(outputs, replaced_prefixes(task))))
    return float(change[:, RESET_AT:].max())


def gates(network, task):
    """Measures R at the input that resets and at ordinary inputs.

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
def stream_training(task, kind, **settings):
    """Trains a network on streams and evaluates it.

    Args:
        task: `Task`.
        kind: see `build_network`.
        **settings: for `trained_network`; JSON must hold them.

    Returns:
        Dict: `tuning`, the score on tuning streams of 40 steps; `score_40` and
        `score_400`, on test streams; `prefix_change`; `weights`, for `rebuild`; and for
        "reset" `gate_at_reset`, one number per gate, and `gate_elsewhere`.
    """
    keras.backend.clear_session()
    network, _ = trained_network(task, kind, **settings)
    measured = {
        "tuning": score(network, task, 40, seed=TUNING_SEED),
        "score_40": score(network, task, 40),
        "score_400": score(network, task, 400),
        "prefix_change": prefix_change(network, task),
        "weights": [weight.tolist() for weight in network.get_weights()],
    }
    if kind == "reset":
        at_reset, elsewhere = gates(network, task)
        measured |= {"gate_at_reset": at_reset.tolist(), "gate_elsewhere": elsewhere}
    return measured


def rebuild(task, kind, run, *, units):
    """Builds the network of a `stream_training` from the weights it returned.

    Args:
        task: `Task`.
        kind: see `build_network`.
        run: what `stream_training` returned.
        units: see `build_network`.

    Returns:
        The `keras.Sequential`.
    """
    network = build_network(kind, task, units)
    network.set_weights([np.array(weight, "float32") for weight in run["weights"]])
    return network


def trainings(task, kinds, seeds, **settings):
    """Trains networks of several kinds, each from several seeds.

    Args:
        task: `Task`.
        kinds: list of pairs `(kind, units)`.
        seeds: list of ints.
        **settings: for `stream_training`.

    Returns:
        Dict from each pair to a list of what `stream_training` returned, one per seed.
    """

    def train(kind, seed):
        name, units = kind
        return stream_training(task, name, units=units, seed=seed, **settings)

    return sweep.run_seeds(train, kinds, seeds)


def trainings_at_best_rate(task, kinds, seeds, rates, **settings):
    """Trains networks, each at the learning rate that suits it best.

    The tuning streams choose it, in trainings from the first seed.

    Args:
        task: `Task`, of sums.
        kinds: list of pairs `(kind, units)`.
        seeds: list of ints.
        rates: list of floats.
        **settings: for `stream_training`.

    Returns:
        What `trainings` returns, and with each run its `learning_rate`.
    """

    def train(kind, rate, seed):
        settings_of_run = {**settings, "learning_rate": rate, "seed": seed}
        run = stream_training(task, kind[0], units=kind[1], **settings_of_run)
        return run | {"learning_rate": rate}

    first = sweep.run_all(
        train, [(kind, rate, seeds[0]) for kind in kinds for rate in rates]
    )
    best = {
        kind: min(rates, key=lambda rate: first[kind, rate, seeds[0]]["tuning"])
        for kind in kinds
    }
    others = sweep.run_all(
        train, [(kind, best[kind], seed) for kind in kinds for seed in seeds[1:]]
    )
    runs = first | others
    return {kind: [runs[kind, best[kind], seed] for seed in seeds] for kind in kinds}


def trainings_of_gates(task, gates, seeds, **settings):
    """Trains reset cells with several activations of the gate.

    Args:
        task: `Task`.
        gates: list of pairs `(activation, bias)`: a name and a float, where the bias
            of the gate starts.
        seeds: list of ints.
        **settings: for `stream_training`.

    Returns:
        Dict from each pair to a list of what `stream_training` returned, one per seed.
    """

    def train(gate, seed):
        activation, bias = gate
        constant = {"class_name": "Constant", "config": {"value": bias}}
        options = {"reset_activation": activation, "reset_bias_initializer": constant}
        return stream_training(task, "reset", seed=seed, **options, **settings)

    return sweep.run_seeds(train, gates, seeds)


def kinds_of_equal_size(kinds, task, units):
    """Returns pairs `(kind, units)` with as many weights as a reset layer.

    Args:
        kinds: list of kinds, see `build_network`.
        task: `Task`.
        units: int, units of the reset layer.
    """
    features = len(task.reset_input)
    return [(kind, matching_units(kind, units, features)) for kind in kinds]


def scores_without_the_gate(task, runs, *, units):
    """Evaluates trained reset cells whose gate was changed, on streams of 400 steps.

    Args:
        task: `Task`.
        runs: list of what `stream_training` returned for the kind "reset".
        units: int.

    Returns:
        Dict: `gate fixed at 1` and `reset flag hidden`, lists of scores, one per run.
    """
    networks = [rebuild(task, "reset", run, units=units) for run in runs]
    changed = {
        "gate fixed at 1": [with_constant_gate(network, 1.0) for network in networks],
        "reset flag hidden": [with_hidden_resets(net, task) for net in networks],
    }
    return {
        name: [score(network, task, 400) for network in copies]
        for name, copies in changed.items()
    }


def closing_conditions(steps):
    """Lists what may make the gate close, compared with the first condition.

    Args:
        steps: int, of every training.

    Returns:
        Dict from a name to `(task, settings)`, for `stream_training`.
    """
    one, four = sum_task(), sum_task(dims=4)
    base = {"units": 32, "steps": steps, "learning_rate": 0.03}
    return {
        "one sum, 32 units": (one, base),
        "one gate for all units": (one, base | {"shared_reset": True}),
        "one sum, 1 unit": (one, base | {"units": 1}),
        "four sums, 4 units": (four, base | {"units": 4}),
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
    inputs, _ = replaced_prefixes(task)
    found = 1 - np.square(network.layers[0](inputs))
    resets = inputs[..., task.reset_feature] == 1
    return float(found[resets].mean()), float(found[~resets].mean())


def one_stream(task, network=None, time=80, seed=5):
    """Draws one stream of sums and, if there is a network, runs it.

    Args:
        task: `Task`, from `sum_task`.
        network: trained, of kind "reset", or None.
        time: int, steps.
        seed: int, of the stream.

    Returns:
        Dict of arrays: `resets`, `(time,)`; `value` and `target`, `(time,)`, of the
        first sum; with a network `output`, `(time,)`, and `gate`, `(time, units)`.
    """
    streams = task.make(np.random.default_rng(seed), 1, time)
    stream = {
        "resets": streams.inputs[0, :, task.reset_feature] == 1,
        "value": streams.inputs[0, :, 0],
        "target": streams.targets[0, :, 0],
    }
    if network is not None:
        stream["output"] = network(streams.inputs).numpy()[0, :, 0]
        stream["gate"] = network.layers[0].cell.reset_gate(streams.inputs)[0].numpy()
    return stream


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


def collect_metrics(overfitted, leak_runs, parity_runs, plain_runs, sentiment):
    """Reduces the results to the entries of `results.json`.

    Args:
        overfitted: dict from the kind of labels to runs of `language.overfit`.
        leak_runs: dict from `(kind, units)` to runs, of the sums with volumes.
        parity_runs: the same, of parity.
        plain_runs: the same, of the plain sum.
        sentiment: dict from a name to runs of `language.sentiment_training`.
    """
    true, shuffled = overfitted["true labels"], overfitted["shuffled labels"]
    metrics = {
        "overfit_accuracy": min(run["accuracy"] for run in true),
        "overfit_loss": max(run["loss"] for run in true),
        "overfit_epochs": max(len(run["losses"]) for run in true),
        "overfit_accuracy_shuffled": min(run["accuracy"] for run in shuffled),
    }
    for (kind, units), runs in leak_runs.items():
        name = metric_name(kind, units, leak_runs)
        scores = results.summarise([run["score_400"] for run in runs])
        metrics[f"sum_fvu_400_{name}"] = scores
        metrics[f"prefix_change_{name}"] = max(run["prefix_change"] for run in runs)
    for title, found in (
        ("parity_accuracy", parity_runs),
        ("plain_sum_fvu", plain_runs),
    ):
        for (kind, _), runs in found.items():
            scores = results.summarise([run["score_400"] for run in runs])
            metrics[f"{title}_400_{kind}"] = scores
    for name, runs in sentiment.items():
        scores = results.summarise([run["validation"] for run in runs])
        metrics[f"validation_accuracy_{name.replace(', ', '_').lower()}"] = scores
    return metrics


def metric_name(kind, units, kinds):
    """Names a network: by its kind, and by its units if the kind comes in sizes."""
    sizes = [other for name, other in kinds if name == kind]
    name = kind.replace(" ", "_")
    return name if units == sizes[0] and kind != "gru" else f"{name}_{units}"
