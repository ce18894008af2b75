"""`gradient_magnitudes` measures what back-propagation by hand gives, and exact zeros.

The oracles share no code with the module: NumPy for the Elman cell, and for the
others a Python loop over the cell with a zero added to every state on its way.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from q1_tbptt.gradients import parameter_gradient, truncation_bias
from q1_tbptt.tbptt import TBPTTClassifier, gradient_magnitudes
from q2_reset_cell.reset_cell import ResetCell
from tests.q1_tbptt import test_tbptt
from tests.q1_tbptt.test_tbptt import (
    IDS,
    RIGHT_PADDED,
    UNITS,
    VOCAB,
    WIDTH,
    build,
    elman_states,
    loop_gradients,
    parameters,
    values,
)

SENTENCES = [row[row > 0].tolist() for row in IDS]
LABELS = test_tbptt.LABELS.astype(int)
TRUNCATIONS = [0, 1, 2, 3, 6, 7, 10, None]
CELLS = ["simple_rnn", "lstm", "gru", "stack"]


@pytest.fixture(scope="module")
def elman():
    return build()


@pytest.fixture(scope="module", params=TRUNCATIONS, ids=lambda t: f"t={t}")
def measured(request, elman):
    """Measures the magnitudes for each t, for several tests."""
    elman.t = request.param
    return request.param, elman, gradient_magnitudes(elman, IDS, LABELS)


def steps_of(tokens, t):
    return len(tokens) if t is None else min(t, len(tokens))


# -- Oracles -------------------------------------------------------------------------


def elman_logit(weights, tokens, state_shift=(0, 0.0), input_shift=(0, 0.0)):
    """Runs the cell, with something added to h_k and to x_k for one k each."""
    embeddings, kernel, recurrent, bias, head, head_bias = weights
    state = np.zeros(UNITS) + (state_shift[1] if state_shift[0] == 0 else 0)
    for k, token in enumerate(tokens, start=1):
        x = embeddings[token] + (input_shift[1] if input_shift[0] == k else 0)
        state = np.tanh(x @ kernel + state @ recurrent + bias)
        state = state + (state_shift[1] if state_shift[0] == k else 0)
    return (state @ head + head_bias)[0]


def elman_magnitudes(weights, tokens, label, t):
    """Returns the lists of ‖∂L/∂h_k‖, k = 0 ... T, and ‖∂L/∂x_k‖, k = 1 ... T."""
    _, kernel, recurrent, _, head, head_bias = weights
    states = elman_states(weights, tokens)
    logit = (states[-1] @ head + head_bias)[0]
    d_state = head[:, 0] * (1 / (1 + np.exp(-logit)) - label)
    hidden = [0.0] * len(tokens) + [np.linalg.norm(d_state)]
    inputs = [0.0] * len(tokens)
    for back in range(steps_of(tokens, t)):
        k = len(tokens) - back
        d_a = d_state * (1 - states[k] ** 2)
        inputs[k - 1] = np.linalg.norm(kernel @ d_a)
        d_state = recurrent @ d_a
        hidden[k - 1] = np.linalg.norm(d_state)
    return hidden, inputs


def loop_magnitudes(model, tokens, label, t):
    """Does the same for any cell: adds a zero to each state where it is passed on.

    The last zero stands between the last hidden state and the head.
    """
    sizes = model.cell.state_size
    sizes = list(sizes) if keras.tree.is_nested(sizes) else [sizes]
    states = keras.tree.map_structure(lambda n: tf.zeros((1, n), "float64"), sizes)
    zeros = [[tf.zeros_like(s) for s in tf.nest.flatten(states)] for _ in tokens]
    zero = tf.zeros((1, model.head.kernel.shape[0]), "float64")
    inputs = [tf.gather(model.embedding.embeddings, [token]) for token in tokens]
    cut = len(tokens) - steps_of(tokens, t)
    with tf.GradientTape() as tape:
        tape.watch([zeros, zero, inputs])
        for k, x in enumerate(inputs):
            if k == cut:
                states = tf.nest.map_structure(tf.stop_gradient, states)
            added = [
                s + z for s, z in zip(tf.nest.flatten(states), zeros[k], strict=True)
            ]
            states = tf.nest.pack_sequence_as(states, added)
            output, states = model.cell(x, states)
        if cut == len(tokens):
            output = tf.stop_gradient(output)
        loss = tf.nn.sigmoid_cross_entropy_with_logits(
            tf.constant([[label]], "float64"), model.head(output + zero)
        )
    d_states, d_last, d_inputs = tape.gradient(
        loss, [zeros, zero, inputs], unconnected_gradients="zero"
    )
    hidden = [np.sqrt(sum(np.sum(d**2) for d in states)) for states in d_states]
    inputs = [np.linalg.norm(d) for d in d_inputs]
    return [*hidden, np.linalg.norm(d_last)], inputs


# -- The size of the gradient --------------------------------------------------------


def assert_row(magnitudes, row, hidden, inputs):
    """Compares from the end; what is 0 must be exactly 0, what is not there NaN."""
    for found, expected in (
        (magnitudes.hidden_state[row], hidden),
        (magnitudes.inputs[row], inputs),
    ):
        there = len(expected)
        np.testing.assert_allclose(found[-there:], expected, rtol=1e-9, atol=0)
        assert np.isnan(found[: len(found) - there]).all()


def assert_rows(magnitudes, oracle, sentences=SENTENCES, labels=LABELS):
    for row, pair in enumerate(zip(sentences, labels, strict=True)):
        assert_row(magnitudes, row, *oracle(*pair))


def test_elman_magnitudes_equal_numpy(measured):
    t, model, magnitudes = measured
    assert_rows(magnitudes, functools.partial(elman_magnitudes, values(model), t=t))


def test_the_cut_is_exact_and_positions_align_on_the_end(measured):
    t, _, (hidden, inputs) = measured
    back = np.arange(7, -1, -1)  # steps before the end
    lengths = np.array([[7], [4], [2], [1]])
    steps = lengths if t is None else np.minimum(t, lengths)
    for found, reached, there in (
        (hidden, back <= steps, back <= lengths),
        (inputs, back[1:] < steps, back[1:] < lengths),
    ):
        assert found.shape == there.shape
        np.testing.assert_array_equal(np.isfinite(found), there)
        assert (found[reached] > 0).all()
        assert (found[there & ~reached] == 0.0).all()


@pytest.mark.parametrize("k", [0, 3, 7])
def test_magnitudes_equal_finite_differences(k, elman):
    elman.t = None
    weights = values(elman)
    tokens = SENTENCES[0]

    def difference(name, size, step=1e-5):
        ends = []
        for unit in np.eye(size) * step:
            logits = [
                elman_logit(weights, tokens, **{name: (k, sign * unit)})
                for sign in (1, -1)
            ]
            plus, minus = np.log1p(np.exp(-np.array(logits)))  # label 1
            ends.append((plus - minus) / (2 * step))
        return np.linalg.norm(ends)

    magnitudes = gradient_magnitudes(elman, IDS[:1], LABELS[:1])
    expected = difference("state_shift", UNITS)
    np.testing.assert_allclose(magnitudes.hidden_state[0, k], expected, rtol=1e-6)
    if k > 0:
        expected = difference("input_shift", WIDTH)
        np.testing.assert_allclose(magnitudes.inputs[0, k - 1], expected, rtol=1e-6)


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


def assert_same(found, expected):
    np.testing.assert_allclose(found.hidden_state, expected.hidden_state, rtol=1e-9)
    np.testing.assert_allclose(found.inputs, expected.inputs, rtol=1e-9)


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm"])
def test_a_row_of_a_batch_equals_its_sentence_alone(cell):
    model = build(cell, t=2)
    batch = gradient_magnitudes(model, IDS, LABELS)
    for row, (tokens, label) in enumerate(zip(SENTENCES, LABELS, strict=True)):
        single = gradient_magnitudes(model, [tokens], [label])
        assert single.hidden_state.shape == (1, len(tokens) + 1)
        assert single.inputs.shape == (1, len(tokens))
        assert_row(batch, row, single.hidden_state[0], single.inputs[0])


def test_lists_and_columns_of_labels_are_taken(elman):
    elman.t = 3
    expected = gradient_magnitudes(elman, IDS, LABELS)
    for ids, labels in (
        (SENTENCES, LABELS.tolist()),
        (IDS, LABELS[:, None]),
        (IDS, LABELS.astype("float32")),
        (IDS.astype("int64"), LABELS),
        (tf.constant(IDS), tf.constant(LABELS)),
        (RIGHT_PADDED, LABELS),
    ):
        assert_same(gradient_magnitudes(elman, ids, labels), expected)


def test_more_padding_adds_only_nan(elman):
    elman.t = 3
    expected = gradient_magnitudes(elman, IDS, LABELS)
    padded = gradient_magnitudes(elman, np.pad(IDS, ((0, 0), (5, 0))), LABELS)
    for found, other in zip(padded, expected, strict=True):
        width = other.shape[1]
        np.testing.assert_allclose(found[:, -width:], other, rtol=1e-9)
        assert np.isnan(found[:, :-width]).all()


def test_dropout_is_not_active():
    def cell(rate):
        return keras.layers.SimpleRNNCell(
            UNITS, dropout=rate, recurrent_dropout=rate, dtype="float64"
        )

    clean = build(cell(0.0), t=3)
    noisy = build(cell(0.5), t=3, dropout=0.5)
    expected = gradient_magnitudes(clean, IDS, LABELS)
    assert_same(gradient_magnitudes(noisy, IDS, LABELS), expected)


def test_the_model_is_left_as_it_was():
    model = build("lstm", t=2)
    before = model.get_weights()
    first = gradient_magnitudes(model, IDS, LABELS)
    assert model.t == 2
    for old, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, weight)
    model.t = None
    assert (gradient_magnitudes(model, IDS, LABELS).hidden_state[0] > 0).all()
    model.t = 2
    assert_same(gradient_magnitudes(model, IDS, LABELS), first)


@pytest.mark.parametrize(
    "make",
    [
        lambda rate: keras.layers.SimpleRNNCell(UNITS, dropout=rate),
        lambda rate: keras.layers.GRUCell(UNITS, recurrent_dropout=rate),
        lambda rate: ResetCell(UNITS, dropout=rate, recurrent_dropout=rate),
        lambda rate: keras.layers.StackedRNNCells(
            [
                keras.layers.SimpleRNNCell(UNITS, recurrent_dropout=rate),
                keras.layers.StackedRNNCells(
                    [keras.layers.LSTMCell(3, dropout=rate) for _ in range(2)]
                ),
            ]
        ),
    ],
    ids=["dropout", "recurrent", "reset", "stacks"],
)
def test_measuring_leaves_no_dropout_mask_behind(make):
    keras.utils.set_random_seed(1)
    model = build(make(0.5), t=2, dtype="float32")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, jit_compile=False)
    # Another batch size than that of training, which a mask would not fit.
    gradient_magnitudes(model, IDS[:3], LABELS[:3])
    losses = []
    for _ in range(6):
        losses += model.fit(IDS, LABELS, batch_size=len(IDS), verbose=0).history["loss"]
    assert len(set(losses)) == 6  # no weight moves: every step has masks of its own
    # After training as well, whose masks belong to a graph.
    gradient_magnitudes(model, IDS[:3], LABELS[:3])


class BareCell(keras.layers.Layer):
    """A cell with `state_size` and nothing else that Keras does not ask for."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))
        self.recurrent = self.add_weight(shape=(self.units, self.units))

    def call(self, inputs, states):
        state = keras.ops.tanh(inputs @ self.kernel + states[0] @ self.recurrent)
        return state, [state]


def test_a_cell_needs_no_output_size():
    model = build(BareCell(UNITS, dtype="float64"), t=2)
    magnitudes = gradient_magnitudes(model, IDS, LABELS)
    assert_rows(magnitudes, functools.partial(loop_magnitudes, model, t=2))


def test_a_float32_model_is_measured_as_well():
    cell = keras.layers.LSTMCell(UNITS)
    model = TBPTTClassifier(cell, VOCAB, WIDTH, t=2)
    model(IDS)
    exact = build("lstm", t=2)
    model.set_weights(exact.get_weights())
    found, expected = (gradient_magnitudes(m, IDS, LABELS) for m in (model, exact))
    for ours, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-4)
        np.testing.assert_array_equal(ours == 0.0, other == 0.0)


# -- The gradient of all weights -----------------------------------------------------


@pytest.mark.parametrize("t", [0, 1, 3, None])
@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_of_all_weights_is_that_of_a_python_loop(cell, t):
    model = build(cell)
    expected = {
        weight.path: gradient.ravel()
        for weight, gradient in zip(
            parameters(model),
            loop_gradients(model, IDS, LABELS.astype("float64"), t),
            strict=True,
        )
    }
    expected = [expected[weight.path] for weight in model.trainable_weights]
    found = parameter_gradient(model, IDS, LABELS, t)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-6, atol=1e-9)


def test_the_bias_is_the_relative_distance_from_the_full_gradient(elman):
    ts = [0, 2, 7]
    bias, cosine = truncation_bias(elman, IDS, LABELS, ts)
    full = parameter_gradient(elman, IDS, LABELS, None)
    for t, far, angle in zip(ts, bias, cosine, strict=True):
        part = parameter_gradient(elman, IDS, LABELS, t)
        size = np.linalg.norm(full)
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


@pytest.mark.parametrize("kind", BAD_IDS)
def test_bad_token_ids_are_refused(kind, elman):
    ids, message = BAD_IDS[kind]
    with pytest.raises(ValueError, match=message):
        gradient_magnitudes(elman, ids, LABELS[:4])


BAD_LABELS = {
    "fewer": LABELS[:3],
    "more": np.append(LABELS, 0),
    "two columns": np.eye(2)[LABELS],
    "a row": LABELS[None],
    "a number": 1,
    "2": 2 * LABELS,
    "-1": -LABELS,
    "0.5": LABELS / 2,
    "nan": np.where(LABELS, np.nan, 0),
    "text": LABELS.astype(str),
    "none": [0, 1, 0, None],
    "ragged": [[0], [1, 1], [0], [1]],
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_bad_labels_are_refused(kind, elman):
    with pytest.raises(ValueError, match="labels"):
        gradient_magnitudes(elman, IDS, BAD_LABELS[kind])
