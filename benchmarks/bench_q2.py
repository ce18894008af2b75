"""Question 2: the reset cell, compared with stock Keras layers and PyTorch.

`python -m benchmarks.bench_q2` writes q2_reset_cell/results/bench.json.

Each candidate trains an embedding, one recurrent layer of 128 units and one logit from
its last state with Adam, on the CPU, on full-length sentences of random tokens. "Keras"
is `keras.layers.RNN` over the same cell. PyTorch's reset cell computes whatever does
not wait for the state for all steps at once, as ours does. Other layers show what the
cell costs compared with an Elman network and a GRU.
"""

import functools
import os
import statistics
import time

import keras
import numpy as np

from benchmarks import timing
from benchmarks.timing import EMBEDDING_DIM, OURS, UNITS, VOCAB_SIZE, torch
from common import sweep
from q2_reset_cell.networks import trained_network
from q2_reset_cell.reset_cell import ResetCell, ResetRNN
from q2_reset_cell.streams import sum_task

QUESTION = "q2_reset_cell"
PLAN = {
    "rounds": 5,
    "works": [(1, 32), (8, 32), (64, 32), (1, 256), (8, 256), (64, 256), (64, 1024)],
    "layers": (64, 256),
    "memory": [(64, 256)],
    "sweep": {"rounds": 3, "steps": 2_000},
}
LAYERS = {
    "ours": ResetRNN,
    "Keras": lambda units: keras.layers.RNN(ResetCell(units)),
    "SimpleRNN": keras.layers.SimpleRNN,
    "GRU": keras.layers.GRU,
}
SAME = [OURS, "Keras, no XLA", "Keras, XLA", *timing.PYTORCH]
OTHERS = [
    f"{name}, {compiler}"
    for name in ("ours", "SimpleRNN", "GRU")
    for compiler in ("no XLA", "XLA")
]
RUNS, WARM_UP = 6, 100  # runs of the sweep; steps of those that start Ray


def measure(plan, peak):
    """Times the steps and measures their memory; returns rows, headline and sweep."""

    def row(candidates, size, memory):
        batch, length = size
        size = {"batch": batch, "length": length}
        return timing.measure_row(
            build,
            candidates,
            size,
            work=f"batch {batch}, {length} tokens",
            rounds=plan["rounds"],
            memory=memory,
            gflop=1e-9 * flops(**size),
            peak=peak,
        )

    same = [row(SAME, size, size in plan["memory"]) for size in plan["works"]]
    others = row(OTHERS, plan["layers"], memory=False)
    return {
        "tables": [same, [others]],
        "headline": headline(same, others["seconds"]),
        "sweep": measure_sweep(**plan["sweep"]),
    }


def headline(same, seconds):
    """Returns PyTorch's time over ours, a GRU's over ours, and ours over `SimpleRNN`.

    Args:
        same: rows of the same work, see `timing.measure_row`.
        seconds: the seconds of the row of other layers.
    """
    batch, length = PLAN["layers"]
    size = {"batch": batch, "length": length}
    row = next(row for row in same if row["size"] == size)
    metrics = {"torch_ratio_T256": timing.torch_ratio(row)["median"]}
    for compiler, suffix in (("no XLA", ""), ("XLA", "_xla")):
        ours = seconds[f"ours, {compiler}"]
        gru = timing.ratio(seconds[f"GRU, {compiler}"], ours)
        simple = timing.ratio(ours, seconds[f"SimpleRNN, {compiler}"])
        metrics[f"speed_vs_keras_gru{suffix}"] = gru["median"]
        metrics[f"time_vs_simple_rnn{suffix}"] = simple["median"]
    return metrics


def flops(batch, length):
    """Estimates the floating-point operations of a training step of the reset cell.

    Counts products of matrices: two of the input and one of the state. The backward
    pass costs twice the forward pass.
    """
    step = 2 * 2 * EMBEDDING_DIM * UNITS + 2 * UNITS * UNITS
    return 3 * batch * (length * step + 2 * UNITS)


def build(name, compiler, batch, length):
    """Builds a candidate: a function `steps -> seconds of each step`."""
    if name == "PyTorch":
        train, batches = build_torch(compiler, batch, length)
        return functools.partial(timing.torch_steps, train, batches)
    model = keras.Sequential(
        [
            keras.layers.Embedding(VOCAB_SIZE, EMBEDDING_DIM),
            LAYERS[name](UNITS),
            keras.layers.Dense(1),
        ]
    )
    model.build((None, None))
    if name in ("ours", "Keras"):
        model.set_weights(start_weights())
    timing.compile_keras(model, compiler, batch * length)
    return functools.partial(timing.keras_steps, model, timing.sentences(batch, length))


def build_torch(compiler, batch, length):
    """Builds PyTorch's reset cell as `(train, batches)`, see `timing.torch_steps`.

    `train.parameters` has the weights in the order of `start_weights`.
    """
    functional, scan = torch.nn.functional, timing.torch_recurrence(compiler)
    parameters = timing.torch_parameters(start_weights())
    embeddings, kernel, recurrent, bias, gate, gate_bias, head, head_bias = parameters

    def loss_of(ids, labels):
        inputs = functional.embedding(ids, embeddings)  # (batch, time, features)
        gates = functional.hardsigmoid(torch.matmul(inputs, gate) + gate_bias)
        state = torch.zeros(len(ids), UNITS)
        state = scan(torch.matmul(inputs, kernel) + bias, gates, state, recurrent)
        logits = state @ head + head_bias
        return functional.binary_cross_entropy_with_logits(logits, labels)

    train = timing.torch_trainer(loss_of, parameters)
    return train, timing.torch_sentences(batch, length)


def start_weights():
    """Returns the weights that every reset cell starts from, in Keras's order."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(VOCAB_SIZE, EMBEDDING_DIM))
    scale = EMBEDDING_DIM**-0.5
    kernel, gate = rng.normal(0, scale, (2, EMBEDDING_DIM, UNITS))
    recurrent, _ = np.linalg.qr(rng.normal(size=(UNITS, UNITS)))
    head = rng.normal(0, UNITS**-0.5, (UNITS, 1))
    bias = np.zeros(UNITS)
    return [table, kernel, recurrent, bias, gate, bias + 1, head, np.zeros(1)]


# Many runs at once.


def measure_sweep(rounds, steps):
    """Times short trainings one after the other, and on Ray with a core for each.

    Returns:
        Dict: `runs`, `steps`, median seconds of all runs `one_after_the_other` and on
        `ray`, and their `ratio`.
    """
    time_sweep(WARM_UP, "local")  # starts its processes
    times = [
        (time_sweep(steps, None), time_sweep(steps, "local")) for _ in range(rounds)
    ]
    plain, on_ray = zip(*times, strict=True)
    found = {"runs": RUNS, "steps": steps, "ratio": timing.ratio(plain, on_ray)}
    medians = map(statistics.median, (plain, on_ray))
    return found | dict(zip(("one_after_the_other", "ray"), medians, strict=True))


def time_sweep(steps, address):
    """Trains from `RUNS` seeds, on Ray if there is an address; returns the seconds."""
    if address:
        os.environ["RAY_ADDRESS"] = address
    try:
        start = time.perf_counter()
        sweep.run_seeds(train_on, [steps], range(RUNS))
        return time.perf_counter() - start
    finally:
        os.environ.pop("RAY_ADDRESS", None)


def train_on(steps, seed):
    """Trains question 2's network from a seed, here or on Ray."""
    return sweep.compute(lambda: train(steps, seed))


def train(steps, seed):
    """Trains question 2's network from a seed; returns the losses."""
    keras.backend.clear_session()
    settings = {"units": 32, "steps": steps, "learning_rate": 0.03, "seed": seed}
    return trained_network(sum_task(), "reset", **settings)[1]


if __name__ == "__main__":
    timing.main(QUESTION, measure, PLAN)
