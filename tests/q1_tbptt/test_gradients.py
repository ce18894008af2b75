"""`gradient_magnitudes` measures what back-propagation by hand gives, and exact zeros.

The oracles share no code with the module: NumPy for the Elman cell, and for the others
a Python loop over the cell and a tape that watches every state on its way.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from q1_tbptt.gradients import parameter_gradient, truncation_bias
from q1_tbptt.tbptt import gradient_magnitudes
from q2_reset_cell.reset_cell import ResetCell
from tests.q1_tbptt import test_tbptt
from tests.q1_tbptt.test_tbptt import (
    IDS,
    RIGHT_PADDED,
    TRUNCATIONS,
    UNITS,
    VOCAB,
    WIDTH,
    build,
    compile_with,
    elman_backward,
    elman_logit,
    finite_differences,
    fit,
    loop_gradients,
    loop_logit,
    parameters,
    values,
)

SENTENCES = [row[row > 0].tolist() for row in IDS]
LABELS = test_tbptt.LABELS.astype(int)
CELLS = ["simple_rnn", "lstm", "gru", "stack", "custom"]


@pytest.fixture(scope="module")
def elman():
    return build()


def elman_magnitudes(weights, tokens, label, t):
    """Returns ‖∂L/∂h_k‖, k = 0 ... T, and ‖∂L/∂x_k‖, k = 1 ... T."""
    _, _, d_states, d_a = elman_backward(weights, tokens, label, t)
    return np.linalg.norm(d_states, axis=1), np.linalg.norm(d_a @ weights[1].T, axis=1)


def loop_magnitudes(model, tokens, label, t):
    """Does the same for any cell, all states of a step taken together."""
    seen = []

    def watch(*tensors):
        tape.watch(tensors)
        seen.append(tensors)

    with tf.GradientTape() as tape:
        logit = loop_logit(model, tokens, t, watch)
        labels = tf.constant([[label]], "float64")
        loss = tf.nn.sigmoid_cross_entropy_with_logits(labels, logit)
    *steps, (last,) = tape.gradient(loss, seen, unconnected_gradients="zero")
    hidden = [tf.concat(d_states, 1) for _, *d_states in steps] + [last]
    inputs = [d_input for d_input, *_ in steps]
    return [np.linalg.norm(d) for d in hidden], [np.linalg.norm(d) for d in inputs]


# -- The size of the gradient --------------------------------------------------------


def assert_rows(magnitudes, oracle, sentences=SENTENCES, labels=LABELS, rtol=1e-9):
    """Compares from the end; what is 0 must be exactly 0, what is not there NaN."""
    for row, sentence in enumerate(zip(sentences, labels, strict=True)):
        for found, expected in zip(magnitudes, oracle(*sentence), strict=True):
            there = len(expected)
            np.testing.assert_allclose(found[row, -there:], expected, rtol, atol=0)
            assert np.isnan(found[row, :-there]).all()


@pytest.mark.parametrize("t", TRUNCATIONS)
def test_elman_magnitudes_equal_numpy_and_leave_the_model_as_it_was(t, elman):
    elman.t = t
    weights = values(elman)
    hidden, inputs = magnitudes = gradient_magnitudes(elman, IDS, LABELS)
    assert_rows(magnitudes, functools.partial(elman_magnitudes, weights, t=t))
    # The last t inputs have a gradient, and one state more.
    steps = np.minimum([7, 4, 2, 1], 7 if t is None else t)
    np.testing.assert_array_equal(np.sum(inputs > 0, axis=1), steps)
    np.testing.assert_array_equal(np.sum(hidden > 0, axis=1), steps + 1)
    assert hidden.shape == (4, 8) and inputs.shape == (4, 7)
    assert elman.t == t
    np.testing.assert_equal(values(elman), weights)


def test_magnitudes_equal_finite_differences(elman):
    elman.t = None
    weights, tokens = values(elman), SENTENCES[0]
    embeddings, kernel, recurrent, bias, *_ = weights

    def loss(added):
        to_states, to_inputs = added
        state = to_states[0]
        for k, token in enumerate(tokens):
            a = (embeddings[token] + to_inputs[k]) @ kernel + state @ recurrent + bias
            state = np.tanh(a) + to_states[k + 1]
        return np.log1p(np.exp(-elman_logit(weights, state)))  # label 1

    found = gradient_magnitudes(elman, IDS[:1], LABELS[:1])
    expected = finite_differences(loss, [np.zeros((8, UNITS)), np.zeros((7, WIDTH))])
    for sizes, differences in zip(found, expected, strict=True):
        norms = np.linalg.norm(differences, axis=1)
        np.testing.assert_allclose(sizes[0], norms, rtol=1e-6)


@pytest.mark.parametrize("t", [0, 1, 3, None])
@pytest.mark.parametrize("cell", CELLS)
def test_all_states_of_all_layers_are_taken_together(cell, t):
    model = build(cell, t=t)
    magnitudes = gradient_magnitudes(model, IDS, LABELS)
    assert_rows(magnitudes, functools.partial(loop_magnitudes, model, t=t))


@pytest.mark.parametrize("t", [4, None])
@pytest.mark.parametrize("cell", ["simple_rnn", "stack"])
def test_long_sentences(cell, t):
    rng = np.random.default_rng(0)
    sentences = [rng.integers(1, VOCAB, length).tolist() for length in (72, 9)]
    model = build(cell, t=t)
    magnitudes = gradient_magnitudes(model, sentences, [1, 0])
    oracle = functools.partial(loop_magnitudes, model, t=t)
    assert_rows(magnitudes, oracle, sentences, [1, 0])


# -- What it does not depend on ------------------------------------------------------


@pytest.mark.parametrize(
    "ids, labels",
    [
        (SENTENCES, LABELS.tolist()),
        (IDS, LABELS[:, None]),
        (IDS, LABELS.astype("float32")),
        (IDS.astype("int64"), LABELS),
        (tf.constant(IDS), tf.constant(LABELS)),
        (RIGHT_PADDED, LABELS),
        (np.pad(IDS, ((0, 0), (5, 0))), LABELS),
    ],
)
def test_lists_columns_and_any_padding_are_taken(ids, labels, elman):
    elman.t = 3
    oracle = functools.partial(elman_magnitudes, values(elman), t=3)
    assert_rows(gradient_magnitudes(elman, ids, labels), oracle)


def test_dropout_is_not_active():
    cell = keras.layers.SimpleRNNCell(
        UNITS, dropout=0.5, recurrent_dropout=0.5, dtype="float64"
    )
    model = build(cell, t=3, dropout=0.5)
    oracle = functools.partial(elman_magnitudes, values(model), t=3)
    assert_rows(gradient_magnitudes(model, IDS, LABELS), oracle)


def stack_of_stacks(dropout, recurrent_dropout):
    lower = keras.layers.SimpleRNNCell(UNITS, recurrent_dropout=recurrent_dropout)
    rates = {"dropout": dropout, "recurrent_dropout": recurrent_dropout}
    upper = [keras.layers.LSTMCell(3, **rates) for _ in range(2)]
    return keras.layers.StackedRNNCells([lower, keras.layers.StackedRNNCells(upper)])


@pytest.mark.parametrize(
    "make, rates",
    [
        (functools.partial(keras.layers.SimpleRNNCell, UNITS), (0.5, 0.0)),
        (functools.partial(keras.layers.GRUCell, UNITS), (0.0, 0.5)),
        (functools.partial(ResetCell, UNITS), (0.5, 0.5)),
        (stack_of_stacks, (0.5, 0.5)),
    ],
    ids=["dropout", "recurrent", "reset", "stacks"],
)
def test_measuring_leaves_no_dropout_mask_behind(make, rates):
    keras.utils.set_random_seed(1)
    cell = make(dropout=rates[0], recurrent_dropout=rates[1])
    model = build(cell, t=2, dtype="float32")
    compile_with(model, keras.optimizers.SGD(0.0), run_eagerly=False)
    # Another batch size than that of training, which a mask would not fit.
    gradient_magnitudes(model, IDS[:3], LABELS[:3])
    losses = fit(model, epochs=6)["loss"]
    assert len(set(losses)) == 6  # no weight moves: every step has masks of its own
    # After training as well, whose masks belong to a graph.
    gradient_magnitudes(model, IDS[:3], LABELS[:3])
    np.testing.assert_array_equal(model(IDS), model(IDS))


def test_a_float32_model_is_measured_as_well():
    magnitudes = gradient_magnitudes(build("lstm", t=2, dtype="float32"), IDS, LABELS)
    exact = functools.partial(loop_magnitudes, build("lstm"), t=2)
    assert_rows(magnitudes, exact, rtol=1e-4)


# -- The gradient of all weights -----------------------------------------------------


@pytest.mark.parametrize("t", [0, 1, 3, None])
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_all_weights_is_that_of_a_python_loop(cell, t):
    model = build(cell)
    gradients = loop_gradients(model, IDS, LABELS.astype("float64"), t)
    gradient_of = dict(zip(map(id, parameters(model)), gradients, strict=True))
    expected = [gradient_of[id(weight)].ravel() for weight in model.trainable_weights]
    found = parameter_gradient(model, IDS, LABELS, t)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-6, atol=1e-9)


def test_the_bias_is_the_relative_distance_from_the_full_gradient(elman):
    ts = [0, 2, 7]
    full, *parts = [parameter_gradient(elman, IDS, LABELS, t) for t in (None, *ts)]
    bias, cosine = truncation_bias(elman, IDS, LABELS, ts)
    size = np.linalg.norm(full)
    for part, far, angle in zip(parts, bias, cosine, strict=True):
        assert far == pytest.approx(np.linalg.norm(part - full) / size)
        assert angle == pytest.approx(part @ full / size / np.linalg.norm(part))
    assert bias[-1] == pytest.approx(0, abs=1e-9)


# -- Bad input -----------------------------------------------------------------------


BAD_IDS = {
    "empty": (np.zeros((0, 7), "int32"), "token_ids"),
    "empty list": ([], "token_ids"),
    "only padding": (np.where(np.arange(4)[:, None] == 2, 0, IDS), "token"),
    "empty sentence": ([*SENTENCES[:3], []], "token"),
    "padding inside": (np.where(IDS == 9, 0, IDS), "padding .* inside .*row 0"),
    "ragged": (tf.ragged.constant([[5], [6, 7]]), "token_ids.*Ragged"),
    "no batch axis": ([5, 6, 7], "token_ids.*list"),
    "text": (IDS.astype(str), "token_ids"),
    "id 11 of 11": (np.where(IDS == 10, VOCAB, IDS), r"11"),
    "negative id": (np.where(IDS == 10, -1, IDS), r"-1"),
    "float ids": (IDS.astype("float32"), "token_ids.*float32"),
    "rank": (IDS[None], r"token_ids.*\(1, 4, 7\)"),
}
BAD_LABELS = {
    "fewer labels": LABELS[:3],
    "more labels": np.append(LABELS, 0),
    "two columns": np.eye(2)[LABELS],
    "a row": LABELS[None],
    "a number": 1,
    "2": 2 * LABELS,
    "-1": -LABELS,
    "0.5": LABELS / 2,
    "nan": np.where(LABELS, np.nan, 0),
    "text labels": LABELS.astype(str),
    "none": [0, 1, 0, None],
    "ragged labels": [[0], [1, 1], [0], [1]],
}


@pytest.mark.parametrize("kind", [*BAD_IDS, *BAD_LABELS])
def test_bad_input_is_refused(kind, elman):
    ids, message = BAD_IDS.get(kind, (IDS, "labels"))
    with pytest.raises(ValueError, match=message):
        gradient_magnitudes(elman, ids, BAD_LABELS.get(kind, LABELS))
