"""Question 1: truncated and full BPTT, compared with stock Keras and PyTorch.

`python -m benchmarks.bench_q1` writes q1_tbptt/results/bench.json.

Each candidate takes the same steps from the same weights, on the CPU: an embedding, an
Elman layer, one logit from its last state, Adam, full-length sentences of random
tokens. Ours and stock Keras run under `fit` and look for padding, though there is none.
PyTorch knows no padding and truncates as one would by hand: the prefix under `no_grad`,
the suffix with gradient. Eager PyTorch uses `nn.RNN`, which `torch.compile` does not
compile; the compiled one uses the same recurrence written as a loop.
"""

import functools

import keras
import numpy as np

from benchmarks import timing
from benchmarks.timing import EMBEDDING_DIM, OURS, UNITS, VOCAB_SIZE, torch
from q1_tbptt.tbptt import TBPTTClassifier

QUESTION = "q1_tbptt"
# Sentences in a batch, tokens in a sentence, and t.
HEADLINE = (64, 512, 16)
PLAN = {
    "rounds": 5,
    "works": [
        (1, 32, None), (8, 32, None), (64, 32, None), (64, 128, None), (64, 128, 16),
        (64, 512, None), HEADLINE, (64, 2048, None), (64, 2048, 16),
    ],
    "memory": [(64, 512, None), HEADLINE],
}  # fmt: skip


def measure(plan, peak):
    """Times the steps and measures their memory; returns rows and headline."""
    rows = []
    for batch, length, t in plan["works"]:
        size = {"batch": batch, "length": length, "t": t}
        cut = "full BPTT" if t is None else f"t = {t}"
        row = timing.measure_row(
            build,
            candidates(t),
            size,
            work=f"batch {batch}, {length} tokens, {cut}",
            rounds=plan["rounds"],
            memory=(batch, length, t) in plan["memory"],
            gflop=1e-9 * flops(**size),
            peak=peak,
        )
        rows.append(row)
    return {"tables": [rows], "headline": headline(rows)}


def headline(rows):
    """Returns the main figures: what truncation saves, and PyTorch's time over ours."""
    rows = {tuple(row["size"].values()): row for row in rows}
    batch, length, _ = HEADLINE
    full, cut = rows[batch, length, None], rows[HEADLINE]
    speedup = timing.ratio(full["seconds"][OURS], cut["seconds"][OURS])
    return {
        "speedup_T512_t16": speedup["median"],
        "flop_estimate_T512_t16": flops(batch, length) / flops(*HEADLINE),
        "torch_ratio_T512_t16": timing.torch_ratio(cut)["median"],
    }


def flops(batch, length, t=None):
    """Estimates the floating-point operations of a training step.

    Counts products of matrices. Those of the backward pass cost twice those of the
    forward pass, and only the last `t` tokens have one.
    """
    backward = length if t is None else min(t, length)
    step = 2 * EMBEDDING_DIM * UNITS + 2 * UNITS * UNITS
    return batch * ((length + 2 * backward) * step + 3 * 2 * UNITS)


def candidates(t):
    """Lists who can truncate to `t` steps; None is full BPTT, which all can."""
    stock = ["Keras, no XLA", "Keras, XLA"] if t is None else []
    return [OURS, *stock, *timing.PYTORCH]


def build(name, compiler, batch, length, t):
    """Builds a candidate: a function `steps -> seconds of each step`."""
    if name == "PyTorch":
        train, batches = build_torch(compiler, batch, length, t)
        return functools.partial(timing.torch_steps, train, batches)
    if name == "ours":
        cell = keras.layers.SimpleRNNCell(UNITS)
        model = TBPTTClassifier(cell, VOCAB_SIZE, EMBEDDING_DIM, t=t)
        layers = [model.embedding, cell, model.head]
    else:
        layers = [
            keras.layers.Embedding(VOCAB_SIZE, EMBEDDING_DIM, mask_zero=True),
            keras.layers.SimpleRNN(UNITS),
            keras.layers.Dense(1),
        ]
        model = keras.Sequential(layers)
        model.build((None, None))
    for layer, weights in zip(layers, start_weights(), strict=True):
        layer.set_weights(weights)
    timing.compile_keras(model, compiler, batch * length)
    return functools.partial(timing.keras_steps, model, timing.sentences(batch, length))


def build_torch(compiler, batch, length, t):
    """Builds PyTorch's `(train, batches)`, see `timing.torch_steps`.

    `train.parameters` has the weights in the order of `start_weights`.
    """
    weights = [weight for layer in start_weights() for weight in layer]
    parameters = timing.torch_parameters(weights)
    embeddings, kernel, recurrent, bias, head, head_bias = parameters
    functional, scan = torch.nn.functional, timing.torch_recurrence(compiler)
    rnn = torch.nn.RNN(EMBEDDING_DIM, UNITS, batch_first=True)
    _, (w, u, b), _ = start_weights()
    timing.torch_copy(rnn, w.T, u.T, b, b)
    rnn.bias_hh_l0.requires_grad_(False)  # Keras has one bias
    if compiler == "eager":
        parameters[1:4] = rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0

    def advance(ids, state):
        inputs = functional.embedding(ids, embeddings)  # (batch, time, features)
        if compiler == "eager":
            return rnn(inputs, state[None])[1][0]
        return scan(torch.matmul(inputs, kernel) + bias, None, state, recurrent)

    def loss_of(ids, labels):
        state = torch.zeros(len(ids), UNITS)
        if t is not None:
            with torch.no_grad():
                state = advance(ids[:, :-t], state)
            ids = ids[:, -t:]
        logits = advance(ids, state) @ head + head_bias
        return functional.binary_cross_entropy_with_logits(logits, labels)

    train = timing.torch_trainer(loss_of, parameters)
    return train, timing.torch_sentences(batch, length)


def start_weights():
    """Returns the weights that every candidate starts from, a list per layer."""
    rng = np.random.default_rng(0)
    table = rng.uniform(-0.05, 0.05, (VOCAB_SIZE, EMBEDDING_DIM))
    kernel = rng.normal(0, EMBEDDING_DIM**-0.5, (EMBEDDING_DIM, UNITS))
    recurrent, _ = np.linalg.qr(rng.normal(size=(UNITS, UNITS)))
    head_kernel = rng.normal(0, UNITS**-0.5, (UNITS, 1))
    return [table], [kernel, recurrent, np.zeros(UNITS)], [head_kernel, np.zeros(1)]


if __name__ == "__main__":
    timing.main(QUESTION, measure, PLAN)
