"""`gradient_magnitudes` measures what back-propagation by hand gives, and exact zeros.

The oracles share no code with the module: NumPy for the Elman cell, and for the others
a Python loop over the cell and a tape that watches every state on its way.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from q1_tbptt.gradients import parameter_gradient, truncation_bias
from q1_tbptt.tbptt import gradient_magnitudes
from q2_reset_cell.reset_cell import ResetCell
from tests.q1_tbptt import test_tbptt as oracles
from tests.q1_tbptt.test_tbptt import IDS, SENTENCES, UNITS, VOCAB, WIDTH, build

LABELS = oracles.LABELS.astype(int)
CELLS = ["simple_rnn", "lstm", "gru", "stack", "custom", "reset"]
RATES = {"dropout": 0.5, "recurrent_dropout": 0.5, "seed": 1}


@pytest.fixture(scope="module")
def elman():
    """A model whose dropout is active in no measurement."""
    cell = keras.layers.SimpleRNNCell(UNITS, **RATES, dtype="float64")
    return build(cell, dropout=0.5)


def elman_magnitudes(model, tokens, label):
    """Returns ‖∂L/∂h_k‖, k = 0 ... T, and ‖∂L/∂x_k‖, k = 1 ... T."""
    kernel, *_ = weights = model.get_weights()
    _, _, d_states, d_a = oracles.elman_backward(weights, tokens, label, model.t)
    return np.linalg.norm(d_states, axis=1), np.linalg.norm(d_a @ kernel.T, axis=1)


def loop_magnitudes(model, tokens, label):
    """Does the same for any cell, all states of a step taken together."""
    seen = []

    def watch(*tensors):
        tape.watch(tensors)
        seen.append(tensors)

    with tf.GradientTape() as tape:
        logit = oracles.loop_logit(model, tokens, model.t, watch)
        labels = tf.constant([[label]], "float64")
        loss = tf.nn.sigmoid_cross_entropy_with_logits(labels, logit)
    *steps, (last,) = tape.gradient(loss, seen, unconnected_gradients="zero")
    hidden = [tf.concat(d_states, 1) for _, *d_states in steps] + [last]
    inputs = [d_input for d_input, *_ in steps]
    return [np.linalg.norm(d) for d in hidden], [np.linalg.norm(d) for d in inputs]


def assert_measured(model, oracle, ids=IDS, labels=LABELS, rows=SENTENCES, rtol=1e-9):
    """Compares from the end; what is 0 must be exactly 0, what is not there NaN."""
    magnitudes = gradient_magnitudes(model, ids, labels)
    for row, tokens in enumerate(rows):
        pairs = zip(magnitudes, oracle(model, tokens, LABELS[row]), strict=True)
        for found, expected in pairs:
            there = len(expected)
            np.testing.assert_allclose(found[row, -there:], expected, rtol, atol=0)
            assert np.isnan(found[row, :-there]).all()
    return magnitudes


@pytest.mark.parametrize("t", oracles.TRUNCATIONS)
def test_elman_magnitudes_equal_numpy_and_leave_the_model_as_it_was(t, elman):
    elman.t = t
    weights = elman.get_weights()
    hidden, inputs = assert_measured(elman, elman_magnitudes)
    # The last t inputs have a gradient, and one state more.
    steps = np.minimum([7, 4, 2, 1], 7 if t is None else t)
    np.testing.assert_array_equal(np.sum(inputs > 0, axis=1), steps)
    np.testing.assert_array_equal(np.sum(hidden > 0, axis=1), steps + 1)
    assert hidden.shape == (4, 8) and inputs.shape == (4, 7)
    assert elman.t == t
    np.testing.assert_equal(elman.get_weights(), weights)


def test_magnitudes_equal_finite_differences(elman):
    elman.t = None
    weights, tokens = elman.get_weights(), SENTENCES[0]
    kernel, recurrent, bias, embeddings, *_ = weights

    def loss(added):
        to_states, to_inputs = added
        state = to_states[0]
        for k, token in enumerate(tokens):
            a = (embeddings[token] + to_inputs[k]) @ kernel + state @ recurrent + bias
            state = np.tanh(a) + to_states[k + 1]
        _, logit = oracles.elman_forward(weights, [], state)
        return np.log1p(np.exp(-logit))  # label 1

    zeros = [np.zeros((8, UNITS)), np.zeros((7, WIDTH))]
    expected = oracles.finite_differences(loss, zeros)
    found = gradient_magnitudes(elman, IDS[:1], LABELS[:1])
    for sizes, differences in zip(found, expected, strict=True):
        norms = np.linalg.norm(differences, axis=1)
        np.testing.assert_allclose(sizes[0], norms, rtol=1e-6)


LONG = [np.random.default_rng(0).integers(1, VOCAB, n).tolist() for n in (72, 9)]


@pytest.mark.parametrize(
    "cell, t, sentences",
    [
        *itertools.product(CELLS, [0, 1, 3, None], [SENTENCES]),
        *itertools.product(["simple_rnn", "stack"], [4, None], [LONG]),
    ],
)
def test_all_gradients_are_those_of_a_python_loop(cell, t, sentences):
    model = build(cell, t=t)
    labels = LABELS[: len(sentences)]
    assert_measured(model, loop_magnitudes, sentences, labels, sentences)
    of_weights = oracles.loop_gradients(model, IDS, LABELS, t)
    expected = np.concatenate([gradient.ravel() for gradient in of_weights])
    found = parameter_gradient(model, IDS, LABELS, t)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_a_float32_model_is_measured_as_well():
    exact, model = (build("lstm", t=2, dtype=name) for name in ("float64", "float32"))
    assert_measured(model, lambda _, *row: loop_magnitudes(exact, *row), rtol=1e-4)


@pytest.mark.parametrize(
    "ids, labels",
    [
        (SENTENCES, LABELS.tolist()),
        (IDS, LABELS[:, None]),
        (IDS, LABELS.astype("float32")),
        (IDS.astype("int64"), LABELS),
        (tf.constant(IDS), tf.constant(LABELS)),
        (oracles.RIGHT_PADDED, LABELS),
        (np.pad(IDS, ((0, 0), (5, 0))), LABELS),
    ],
)
def test_lists_columns_and_any_padding_are_taken(ids, labels, elman):
    elman.t = 3
    assert_measured(elman, elman_magnitudes, ids, labels)


LOWER = keras.layers.SimpleRNNCell(UNITS, recurrent_dropout=0.5, seed=1)
UPPER = [keras.layers.LSTMCell(3, **RATES) for _ in range(2)]


@pytest.mark.parametrize(
    "cell",
    [
        keras.layers.SimpleRNNCell(UNITS, dropout=0.5, seed=1),
        keras.layers.GRUCell(UNITS, recurrent_dropout=0.5, seed=1),
        ResetCell(UNITS, **RATES),
        keras.layers.StackedRNNCells([LOWER, keras.layers.StackedRNNCells(UPPER)]),
    ],
    ids=["dropout", "recurrent", "reset", "stacks"],
)
def test_measuring_leaves_no_dropout_mask_behind(cell):
    model = build(cell, t=2, dtype="float32")
    oracles.compile_with(model, keras.optimizers.SGD(0.0), run_eagerly=False)
    # Another batch size than that of training, which a mask would not fit.
    gradient_magnitudes(model, IDS[:3], LABELS[:3])
    losses = oracles.fit(model, epochs=6)["loss"]
    assert len(set(losses)) == 6  # no weight moves: every step has masks of its own
    # After training as well, whose masks belong to a graph.
    gradient_magnitudes(model, IDS[:3], LABELS[:3])
    np.testing.assert_array_equal(model(IDS), model(IDS))


def test_the_bias_is_the_relative_distance_from_the_full_gradient(elman):
    ts = [0, 2, 7]
    full, *parts = [parameter_gradient(elman, IDS, LABELS, t) for t in (None, *ts)]
    bias, cosine = truncation_bias(elman, IDS, LABELS, ts)
    size = np.linalg.norm(full)
    for part, far, angle in zip(parts, bias, cosine, strict=True):
        assert far == pytest.approx(np.linalg.norm(part - full) / size)
        assert angle == pytest.approx(part @ full / size / np.linalg.norm(part))
    assert bias[-1] == pytest.approx(0, abs=1e-9)


BAD = oracles.BAD_BATCHES | {
    "empty list": ([], LABELS, "token_ids"),
    "empty sentence": ([*SENTENCES[:3], []], LABELS, "token"),
    "ragged ids": (tf.ragged.constant([[5], [6, 7]]), LABELS, "token_ids.*Ragged"),
    "no batch axis": ([5, 6, 7], LABELS, "token_ids.*list"),
    "label none": (IDS, [0, 1, 0, None], "labels"),
    "ragged labels": (IDS, [[0], [1, 1], [0], [1]], "labels"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused(kind, elman):
    ids, labels, message = BAD[kind]
    with pytest.raises(ValueError, match=message.format("token_ids")):
        gradient_magnitudes(elman, ids, labels)
