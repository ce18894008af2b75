"""`q1_tbptt.tbptt` trains on the truncated gradient and on nothing else.

The oracles share no code with the module: back-propagation written out in NumPy,
finite differences with a frozen prefix, a Python loop over the cell, and stock Keras.
"""

import itertools
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.text import bucketed_batches
from q1_tbptt.tbptt import TBPTTClassifier, train_tbptt
from tests.compiled import EAGER, compile_all
from tests.interruption import KillAt, Killed

VOCAB, WIDTH, UNITS = 11, 3, 4

# Sentences of 7, 4, 2 and 1 tokens. Token 5 occurs three times in the first one, and
# again in the second; token 1 is the unknown word.
IDS = np.array(
    [
        [5, 2, 9, 5, 3, 10, 5],
        [0, 0, 0, 7, 5, 1, 8],
        [0, 0, 0, 0, 0, 6, 4],
        [0, 0, 0, 0, 0, 0, 2],
    ],
    "int32",
)
RIGHT_PADDED = np.array([[*row[row > 0], *row[row == 0]] for row in IDS], "int32")
LABELS = np.array([1, 0, 0, 1], "float32")
TIME = IDS.shape[1]
TRUNCATIONS = [0, 1, 2, 3, TIME, TIME + 3, None]


# -- Models --------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="tests")
class LeakyCell(keras.layers.Layer):
    """The least that `keras.layers.RNN` asks of a cell."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))
        self.leak = self.add_weight(shape=(self.units,))

    def call(self, inputs, states):
        state = keras.ops.tanh(self.leak * states[0] + inputs @ self.kernel)
        return state, [state]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class SineCell(LeakyCell):
    """Its output is not its state."""

    def call(self, inputs, states):
        state, states = super().call(inputs, states)
        return keras.ops.sin(3 * state), states


def make_stack(dtype, step=1):
    """Stacks cells: the hidden state is neither the first state nor the widest."""
    cells = [
        keras.layers.SimpleRNNCell(5, dtype=dtype),
        keras.layers.LSTMCell(UNITS, dtype=dtype),
    ]
    return keras.layers.StackedRNNCells(cells[::step], dtype=dtype)


CELLS = {
    "simple_rnn": lambda dtype: keras.layers.SimpleRNNCell(UNITS, dtype=dtype),
    "simple_rnn_sin": lambda dtype: keras.layers.SimpleRNNCell(
        UNITS, activation=keras.ops.sin, use_bias=False, dtype=dtype
    ),
    "lstm": lambda dtype: keras.layers.LSTMCell(UNITS, dtype=dtype),
    "gru": lambda dtype: keras.layers.GRUCell(UNITS, dtype=dtype),
    "stack": make_stack,
    "other_stack": lambda dtype: make_stack(dtype, -1),
    "custom": lambda dtype: LeakyCell(UNITS, dtype=dtype),
}


def parameters(model):
    layers = [model.embedding, model.cell, model.head]
    found = [weight for layer in layers for weight in layer.trainable_weights]
    assert len(found) == len(model.trainable_variables)
    return found


def values(model):
    return [weight.numpy() for weight in parameters(model)]


def fill(model, seed=0):
    """Sets weights so large that no part of the gradient is lost in the others."""
    rng = np.random.default_rng(seed)
    for weight in parameters(model):
        weight.assign(rng.normal(0, 0.6, weight.shape))


def build(cell="simple_rnn", t=None, dtype="float64", **options):
    if isinstance(cell, str):
        cell = CELLS[cell](dtype)
    model = TBPTTClassifier(cell, VOCAB, WIDTH, t=t, dtype=dtype, **options)
    model(IDS)
    fill(model)
    return model


def cross_entropy(model):
    # A Keras loss computes in float32 unless told.
    return keras.losses.BinaryCrossentropy(from_logits=True, dtype=model.compute_dtype)


def compile_with(model, optimizer, **options):
    # A graph takes longer to trace, and XLA to compile, than these steps to run.
    options = {"run_eagerly": True, "jit_compile": False, **options}
    model.compile(optimizer, loss=cross_entropy(model), **options)
    return model


def batches(*data):
    return tf.data.Dataset.from_tensors(data)


def fit(model, data=None, **options):
    """Calls `fit` on a data set, by default one batch; returns the history's dict."""
    data = batches(IDS, LABELS) if data is None else data
    return model.fit(data, shuffle=False, verbose=0, **options).history


def one_step(model, *data, **options):
    """Returns the gradients that one step of `fit` takes, and its logs."""
    before = values(model)
    compile_with(model, keras.optimizers.SGD(1.0), **options)
    history = fit(model, batches(*data) if data else None)
    gradients = moves(values(model), before)
    for weight, value in zip(parameters(model), before, strict=True):
        weight.assign(value)
    return gradients, {name: found[0] for name, found in history.items()}


def moves(before, after):
    return [new - old for old, new in zip(before, after, strict=True)]


def assert_gradients(found, expected, rtol=1e-9):
    """Compares to the largest entry of a parameter; what is 0 must be exactly 0."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol, atol=rtol * np.abs(other).max())


# -- Oracles -------------------------------------------------------------------------


def elman_states(weights, tokens, masks=None):
    """Returns h_0 ... h_T of the Elman cell, x_k multiplied by its mask."""
    embeddings, kernel, recurrent, bias, *_ = weights
    states = [np.zeros(len(bias))]
    for k, token in enumerate(tokens):
        x = embeddings[token] * (1 if masks is None else masks[k])
        states.append(np.tanh(x @ kernel + states[-1] @ recurrent + bias))
    return states


def elman_gradients(weights, ids, labels, t):
    """Returns the sum over the last t steps of what each adds to the gradients."""
    embeddings, kernel, recurrent, bias, head, head_bias = weights
    sums = d_embeddings, d_kernel, d_recurrent, d_bias, d_head, d_head_bias = [
        np.zeros_like(weight) for weight in weights
    ]
    for row, label in zip(ids, labels, strict=True):
        tokens = row[row > 0]
        states = elman_states(weights, tokens)
        logit = (states[-1] @ head + head_bias)[0]
        error = (1 / (1 + np.exp(-logit)) - label) / len(ids)
        d_head += error * states[-1][:, None]
        d_head_bias += error
        d_state = error * head[:, 0]
        steps = len(tokens) if t is None else min(t, len(tokens))
        for back in range(steps):
            k = len(tokens) - back  # h_k = tanh(a_k)
            d_a = d_state * (1 - states[k] ** 2)
            d_kernel += np.outer(embeddings[tokens[k - 1]], d_a)
            d_recurrent += np.outer(states[k - 1], d_a)
            d_bias += d_a
            d_embeddings[tokens[k - 1]] += kernel @ d_a
            d_state = recurrent @ d_a
    return sums


def finite_differences(weights, ids, labels, t, step=1e-5):
    """Returns central differences of a loss whose h_{T-t} stays where it was."""
    sentences = [row[row > 0] for row in ids]
    cuts = [0 if t is None else max(len(s) - t, 0) for s in sentences]
    frozen = [
        elman_states(weights, s[:cut])[-1]
        for s, cut in zip(sentences, cuts, strict=True)
    ]

    def loss(perturbed):
        embeddings, kernel, recurrent, bias, head, head_bias = perturbed
        total = 0.0
        for s, cut, state, label in zip(sentences, cuts, frozen, labels, strict=True):
            for token in s[cut:]:
                state = np.tanh(embeddings[token] @ kernel + state @ recurrent + bias)
            logit = (state @ head + head_bias)[0]
            total += np.log1p(np.exp(-logit if label else logit))
        return total / len(ids)

    def difference(which, index):
        ends = []
        for sign in (1, -1):
            perturbed = [weight.copy() for weight in weights]
            perturbed[which][index] += sign * step
            ends.append(loss(perturbed))
        return (ends[0] - ends[1]) / (2 * step)

    result = [np.zeros_like(weight) for weight in weights]
    for which, weight in enumerate(weights):
        for index in np.ndindex(weight.shape):
            result[which][index] = difference(which, index)
    return result


def loop_logit(model, tokens, t):
    """Calls the cell once for every token, and stops every state's gradient at T-t."""
    sizes = model.cell.state_size
    states = keras.tree.map_structure(
        lambda size: tf.zeros((1, size), model.compute_dtype),
        list(sizes) if keras.tree.is_nested(sizes) else [sizes],
    )
    cut = -1 if t is None else max(len(tokens) - t, 0)
    for k, token in enumerate(tokens):
        if k == cut:
            states = keras.tree.map_structure(tf.stop_gradient, states)
        x = tf.gather(model.embedding.embeddings, [token])
        output, states = model.cell(x, states)
    if cut == len(tokens):
        output = tf.stop_gradient(output)
    return model.head(output)


def loop_gradients(model, ids, labels, t):
    with tf.GradientTape() as tape:
        logits = [loop_logit(model, row[row > 0], t) for row in ids]
        loss = tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(
                tf.constant(labels, model.compute_dtype)[:, None], tf.concat(logits, 0)
            )
        )
    return dense_gradients(tape, loss, model)


def dense_gradients(tape, loss, model):
    found = tape.gradient(loss, [weight.value for weight in parameters(model)])
    return [
        np.zeros(weight.shape) if g is None else tf.convert_to_tensor(g).numpy()
        for g, weight in zip(found, parameters(model), strict=True)
    ]


def stock_twin(model, cell):
    """Builds an ordinary Keras model with the weights of `model`."""
    twin = keras.Sequential(
        [
            keras.layers.Embedding(VOCAB, WIDTH, mask_zero=True),
            keras.layers.RNN(cell),
            keras.layers.Dense(1),
        ]
    )
    twin(IDS)
    twin.set_weights(values(model))
    return twin


# -- The truncated gradient ----------------------------------------------------------


@pytest.fixture(scope="module")
def elman():
    return build()


@pytest.fixture(scope="module", params=TRUNCATIONS, ids=lambda t: f"t={t}")
def elman_step(request, elman):
    """One step of `fit` for each t, looked at by several tests."""
    elman.t = request.param
    return request.param, values(elman), one_step(elman)[0]


def test_gradients_equal_the_partial_sums_of_numpy(elman_step):
    t, weights, gradients = elman_step
    assert_gradients(gradients, elman_gradients(weights, IDS, LABELS, t))


def test_gradients_equal_finite_differences_behind_a_frozen_prefix(elman_step):
    t, weights, gradients = elman_step
    expected = finite_differences(weights, IDS, LABELS, t)
    for found, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, other, 1e-6, atol=1e-6 * abs(other).max())


def test_exactly_the_last_t_tokens_of_every_sentence_train_their_embedding(elman_step):
    t, _, (d_embeddings, *_) = elman_step
    last = IDS if t is None else IDS[:, max(TIME - t, 0) :]
    trained = set(last[last > 0])
    assert set(np.flatnonzero(d_embeddings.any(axis=1))) == trained


def truncated_gradients(model, ids, labels, t):
    with tf.GradientTape() as tape:
        logits = model.truncated_logits(tf.constant(ids), t)
        loss = cross_entropy(model)(labels[:, None], logits)
    return dense_gradients(tape, loss, model)


@pytest.mark.parametrize("t", [0, 1, 3, TIME, None])
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_cut_like_a_python_loop(cell, t):
    model = build(cell)
    expected = loop_gradients(model, IDS, LABELS, t)
    assert_gradients(truncated_gradients(model, IDS, LABELS, t), expected)


@pytest.mark.parametrize("cell", [name for name in CELLS if name != "simple_rnn"])
def test_fit_takes_the_cut_gradient_of_every_cell(cell):
    model = build(cell, t=2)
    gradients, _ = one_step(model, run_eagerly=False)
    assert_gradients(gradients, loop_gradients(model, IDS, LABELS, 2))


def test_the_head_reads_the_first_state_even_where_the_output_is_another():
    logits = [
        build(cell(UNITS, dtype="float64"))(IDS) for cell in (SineCell, LeakyCell)
    ]
    np.testing.assert_array_equal(*logits)


def test_call_is_the_whole_forward_pass_whatever_t():
    model = build("lstm", t=1)
    with tf.GradientTape() as tape:
        logits = model(tf.constant(IDS), training=True)
        loss = cross_entropy(model)(LABELS[:, None], logits)
    expected = loop_gradients(model, IDS, LABELS, None)
    assert_gradients(dense_gradients(tape, loss, model), expected)


def test_the_gradient_of_a_batch_is_the_mean_of_its_sentences_alone(elman):
    elman.t = 2
    alone = [
        one_step(elman, row[row > 0][None], label[None])[0]
        for row, label in zip(IDS, LABELS, strict=True)
    ]
    mean = [np.mean(found, axis=0) for found in zip(*alone, strict=True)]
    assert_gradients(one_step(elman)[0], mean)


def test_more_padding_changes_nothing(elman):
    elman.t = 3
    padded = np.pad(IDS, ((0, 0), (5, 0)))
    gradients, _ = one_step(elman, padded, LABELS)
    assert_gradients(gradients, elman_gradients(values(elman), IDS, LABELS, 3))
    np.testing.assert_allclose(elman(padded), elman(IDS), rtol=1e-12)


@pytest.mark.parametrize("t", TRUNCATIONS)
def test_padding_may_be_on_the_right(elman, t):
    elman.t = t
    both_sides = np.pad(RIGHT_PADDED, ((0, 0), (2, 3)))
    expected = elman_gradients(values(elman), IDS, LABELS, t)
    for ids in (RIGHT_PADDED, both_sides):
        assert_gradients(one_step(elman, ids, LABELS)[0], expected)
        np.testing.assert_allclose(elman(ids), elman(IDS), rtol=1e-12)


def test_a_sentence_of_weight_zero_is_out_of_the_gradient(elman):
    elman.t = 2
    weights = np.array([0, 3, 0, 1], "float32")
    found, _ = one_step(elman, IDS, LABELS, weights)
    kept = elman_gradients(values(elman), IDS[[1, 1, 1, 3]], LABELS[[1, 1, 1, 3]], 2)
    assert_gradients(found, kept)


LONG = 150


@pytest.fixture(scope="module")
def long_batch():
    ids = np.random.default_rng(0).integers(1, VOCAB, (3, LONG), "int32")
    for row, length in enumerate([LONG, 131, 3]):
        ids[row, : LONG - length] = 0
    return ids, np.array([1, 0, 1], "float32")


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
@pytest.mark.parametrize("cell", ["simple_rnn", "lstm"])
def test_eager_graph_and_xla_agree_behind_a_long_prefix(cell, how, long_batch):
    model = build(cell, t=4)
    options = {"run_eagerly": how == "eager", "jit_compile": how == "xla"}
    gradients, _ = one_step(model, *long_batch, **options)
    assert_gradients(gradients, loop_gradients(model, *long_batch, 4))


@pytest.mark.parametrize("t", [1, 21, 22, 64, 149])
def test_a_prefix_of_any_length_is_run_to_its_end(t, long_batch):
    ids, labels = long_batch
    model = build()
    expected = elman_gradients(values(model), ids, labels, t)
    assert_gradients(truncated_gradients(model, ids, labels, t), expected)


def test_shapes_may_be_unknown_until_the_step_runs():
    short = IDS[1:, -4:]  # T ≤ t for every sentence, and fewer sentences

    def generate():
        yield IDS, LABELS
        yield short, LABELS[1:]

    ids, labels = (
        tf.TensorSpec((None, None), "int32"),
        tf.TensorSpec((None,), "float32"),
    )
    dynamic = tf.data.Dataset.from_generator(generate, output_signature=(ids, labels))
    dynamic = dynamic.apply(tf.data.experimental.assert_cardinality(2))
    model, other = build(t=4), build(t=4)
    fit(compile_with(model, keras.optimizers.SGD(1.0), run_eagerly=False), dynamic)
    fit(compile_with(other, keras.optimizers.SGD(1.0)))
    fit(other, batches(short, LABELS[1:]))
    assert_gradients(values(model), values(other))


def test_frozen_layers_stay_and_the_others_get_the_same_gradient():
    model = build(t=2)
    expected = elman_gradients(values(model), IDS, LABELS, 2)
    frozen = model.embedding.embeddings.numpy()
    model.embedding.trainable = False
    gradients, _ = one_step(model)
    assert_gradients(gradients, expected[1:])
    np.testing.assert_array_equal(model.embedding.embeddings.numpy(), frozen)


# -- Full back-propagation is stock Keras --------------------------------------------


def three_batches():
    """No token is repeated: stock Keras gives Adam each repetition as a gradient."""
    rng = np.random.default_rng(1)
    mask = np.arange(TIME) >= TIME - np.array([[7], [2], [1]])
    ids = np.zeros((3, *mask.shape), "int32")
    for batch in ids:
        batch[mask] = rng.permutation(VOCAB - 1) + 1
    labels = rng.integers(0, 2, (3, 3)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((ids, labels))


def assert_trains_like_stock_keras(model, cell, **options):
    twin = stock_twin(model, cell)
    for each in (model, twin):
        compile_with(each, keras.optimizers.Adam(0.01), **options)
    ours, theirs = (fit(each, three_batches())["loss"] for each in (model, twin))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    for found, other in zip(values(model), twin.get_weights(), strict=True):
        np.testing.assert_allclose(found, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("t", [TIME, TIME + 3, None])
def test_t_of_the_whole_sentence_trains_like_stock_keras(t):
    cell, model = CELLS["simple_rnn"]("float32"), build(t=t, dtype="float32")
    assert_trains_like_stock_keras(model, cell, run_eagerly=t != TIME)


@pytest.mark.parametrize("name", ["lstm", "gru", "stack", "custom"])
def test_untruncated_cells_train_like_stock_keras(name):
    model = build(name, dtype="float32")
    assert_trains_like_stock_keras(model, CELLS[name]("float32"))


def test_regularizers_and_constraints_of_the_cell_act_as_in_stock_keras():
    def cell():
        return keras.layers.SimpleRNNCell(
            UNITS,
            kernel_regularizer=keras.regularizers.L2(0.1),
            recurrent_regularizer=keras.regularizers.L1(0.1),
            recurrent_constraint=keras.constraints.MaxNorm(1.0),
        )

    model = build(cell(), dtype="float32")
    assert_trains_like_stock_keras(model, cell())


def test_adam_sees_the_gradients_of_a_repeated_token_as_one():
    model = build(t=4)
    before = values(model)
    compile_with(model, keras.optimizers.Adam(0.01, epsilon=1e-15))
    fit(model)
    expected = [-0.01 * np.sign(g) for g in elman_gradients(before, IDS, LABELS, 4)]
    assert_gradients(moves(before, values(model)), expected, rtol=1e-5)


# -- The forward pass ----------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_logits_do_not_depend_on_t(cell):
    model = build(cell)
    expected = np.concatenate([loop_logit(model, r[r > 0], None) for r in IDS])
    np.testing.assert_allclose(model(IDS), expected, rtol=1e-9)
    for t in TRUNCATIONS:
        logits = model.truncated_logits(tf.constant(IDS), t)
        np.testing.assert_allclose(logits, expected, rtol=1e-9)


@pytest.mark.parametrize("cell, eager", [("simple_rnn", False), ("lstm", True)])
def test_the_loss_does_not_depend_on_t_under_dropout(cell, eager):
    losses = []
    for t in (0, 2, None):
        keras.utils.set_random_seed(3)
        model = build(cell, t=t, dropout=0.5)
        compile_with(model, keras.optimizers.SGD(0.0), run_eagerly=eager)
        losses.append(fit(model, batches(IDS, LABELS).repeat(2), epochs=2)["loss"])
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-6)
    clean = model.evaluate(IDS, LABELS, verbose=0)
    assert len({*losses[0], clean}) == 3  # dropout, another in every epoch


def nearest(logits, possible):
    """Return which possible logit each one is; each must be one of them."""
    distances = np.abs(np.asarray(logits) - np.asarray(possible)[None])
    assert distances.min(axis=1).max() < 1e-9
    return distances.argmin(axis=1)


COPIES = np.tile(np.array([[0, 0, 5, 9, 3]], "int32"), (256, 1))


@pytest.mark.parametrize("t", [0, 1, 2, None])
def test_dropout_takes_the_same_features_at_every_step_of_a_sentence(t):
    model = build(dropout=0.25)
    weights, tokens = values(model), COPIES[0, 2:]
    head, bias = weights[-2:]
    kept = [np.array(mask) for mask in itertools.product((0, 1), repeat=WIDTH + UNITS)]
    possible = []
    for mask in kept:
        state = elman_states(weights, tokens, [mask[:WIDTH] / 0.75] * 3)[-1]
        possible.append((state * mask[WIDTH:] / 0.75) @ head + bias)
    logits = model.truncated_logits(tf.constant(COPIES), t, training=True)
    drawn = np.array([kept[i] for i in nearest(logits, np.ravel(possible))])
    np.testing.assert_allclose(drawn.mean(axis=0), 0.75, atol=0.12)
    assert len(np.unique(drawn, axis=0)) > 20  # sentences are not masked alike


@pytest.mark.parametrize("t", [2, None])
def test_a_cell_s_own_dropout_draws_before_and_after_the_cut(t):
    cell = keras.layers.SimpleRNNCell(UNITS, dropout=0.5, dtype="float64")
    model = build(cell)
    weights, tokens = values(model), COPIES[0, 2:]
    head, bias = weights[-2:]
    kept = [np.array(mask) * 2 for mask in itertools.product((0, 1), repeat=WIDTH)]
    masks = [[mask] * 3 for mask in kept]
    if t is not None:
        masks = [[a, b, b] for a, b in itertools.product(kept, repeat=2)]
    possible = [elman_states(weights, tokens, m)[-1] @ head + bias for m in masks]
    # Keras draws a cell's mask for each row.
    drawn = [
        nearest(
            model.truncated_logits(tf.constant(COPIES), t, training=True),
            np.ravel(possible),
        )
        for _ in range(2)
    ]
    assert len(np.unique(drawn[0])) > 0.5 * len(masks)
    assert (drawn[0] != drawn[1]).any()  # no mask is kept for the next batch


def test_a_cell_s_own_dropout_draws_anew_at_every_step_of_fit():
    cell = keras.layers.LSTMCell(
        UNITS, dropout=0.5, recurrent_dropout=0.5, dtype="float64"
    )
    model = build(cell, t=2)
    compile_with(model, keras.optimizers.SGD(0.0), run_eagerly=False)
    losses = fit(model, epochs=4)["loss"]
    assert len(set(losses)) == 4
    np.testing.assert_array_equal(model(IDS), model(IDS))


def test_a_row_of_padding_alone_gets_the_bias_of_the_head():
    for cell in ("simple_rnn", "lstm", "stack"):
        model = build(cell)
        ids = IDS.copy()
        ids[1] = 0
        for logits in (model(ids), model.truncated_logits(tf.constant(ids), 2)):
            np.testing.assert_array_equal(logits[1], model.head.bias)
            np.testing.assert_allclose(logits[0], model(IDS)[0], rtol=1e-12)


# -- A Keras model like any other ----------------------------------------------------


def test_evaluate_and_predict_take_plain_arrays():
    model = compile_with(
        build("lstm", t=1),
        keras.optimizers.SGD(0.0),
        run_eagerly=False,
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
    )
    logits = np.concatenate([loop_logit(model, row[row > 0], None) for row in IDS])
    loss = np.mean(np.log1p(np.exp(np.where(LABELS, -1, 1) * logits[:, 0])))
    accuracy = np.mean((logits[:, 0] > 0) == LABELS)
    found = model.evaluate(IDS, LABELS, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(found["accuracy"], accuracy, rtol=1e-6)
    prediction = model.predict(IDS, verbose=0)
    assert prediction.shape == (len(IDS), 1)
    np.testing.assert_allclose(prediction, logits, rtol=1e-9)
    logs = model.fit(IDS, LABELS, verbose=0).history
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(logs["accuracy"], accuracy, rtol=1e-6)


class Watch(keras.callbacks.Callback):
    """Keeps the weights and the logs after every step, and the epochs begun."""

    def __init__(self):
        super().__init__()
        self.weights, self.logs, self.rates, self.epochs = [], [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(values(self.model))
        self.logs.append(dict(logs))


def test_the_logged_norm_is_that_of_the_step_when_the_loss_scale_grows():
    exact, model, watch = build(t=3), build(t=3, dtype="float32"), Watch()
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.0), initial_scale=8.0, dynamic_growth_steps=2
    )
    compile_with(model, optimizer)
    fit(model, batches(IDS, LABELS).repeat(5), callbacks=[watch])
    norm = math.sqrt(sum((g**2).sum() for g in one_step(exact)[0]))
    norms = [logs["gradient_norm"] for logs in watch.logs]
    np.testing.assert_allclose(norms, [norm] * 5, rtol=1e-5)


def distance(before, after):
    return math.sqrt(sum(np.sum(move**2) for move in moves(before, after)))


def test_the_logged_gradient_norm_is_that_of_each_step():
    model, watch = build(t=3), Watch()
    start = values(model)
    compile_with(model, keras.optimizers.SGD(1.0), run_eagerly=False)
    steps = batches(IDS, LABELS).concatenate(batches(IDS[:2], LABELS[:2])).repeat(2)
    fit(model, steps, callbacks=[watch])
    lengths = [distance(*pair) for pair in itertools.pairwise([start, *watch.weights])]
    assert len(lengths) == 4
    norms = [logs["gradient_norm"] for logs in watch.logs]
    np.testing.assert_allclose(norms, lengths, rtol=1e-5)


def test_the_logged_gradient_norm_is_from_before_clipping():
    model = build(t=3)
    expected = elman_gradients(values(model), IDS, LABELS, 3)
    start = values(model)
    compile_with(model, keras.optimizers.SGD(1.0, global_clipnorm=1e-3))
    logs = fit(model)
    norm = math.sqrt(sum((each**2).sum() for each in expected))
    np.testing.assert_allclose(logs["gradient_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(distance(start, values(model)), 1e-3, rtol=1e-5)


def test_t_zero_trains_the_head_alone_bit_for_bit(recwarn):
    model = build("stack", t=0, dtype="float32")
    before = values(model)
    compile_with(model, keras.optimizers.AdamW(0.1, weight_decay=0.1))
    fit(model, epochs=2)
    *others, head, bias = [move.any() for move in moves(before, values(model))]
    assert not any(others)
    assert head and bias
    assert not [w for w in recwarn.list if "radients do not exist" in str(w.message)]


def test_assigning_t_takes_effect_at_the_next_fit():
    model = compile_with(build(), keras.optimizers.SGD(1.0), run_eagerly=False)
    for t in (0, None, 0, 2):
        model.t = t
        assert model.t == t
        fill(model)
        before = values(model)
        fit(model)
        found = moves(values(model), before)
        assert_gradients(found, elman_gradients(before, IDS, LABELS, t))


@pytest.mark.parametrize("name", ["simple_rnn", "lstm", "stack", "custom"])
def test_a_saved_model_goes_on_where_it_was(name, tmp_path):
    model = build(name, t=2, dtype="float32")
    fit(
        compile_with(
            model, keras.optimizers.Adam(0.01), run_eagerly=name != "simple_rnn"
        )
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, TBPTTClassifier)
    assert type(loaded.cell) is type(model.cell)
    assert loaded.t == 2
    np.testing.assert_array_equal(loaded(IDS), model(IDS))
    for each in (model, loaded):
        fit(each)
    for found, other in zip(values(loaded), values(model), strict=True):
        np.testing.assert_allclose(found, other, rtol=0, atol=1e-7)


def test_the_config_rebuilds_the_model():
    cell = keras.layers.GRUCell(UNITS, activation="relu")
    model = TBPTTClassifier(
        cell, VOCAB, WIDTH, t=np.int64(2), dropout=0.1, name="named"
    )
    config = json.loads(json.dumps(model.get_config()))
    again = TBPTTClassifier.from_config(config)
    assert again.cell.get_config() == cell.get_config()
    expected = {"vocab_size": VOCAB, "embedding_dim": WIDTH, "t": 2, "dropout": 0.1}
    assert {**expected, "name": "named"}.items() <= again.get_config().items()


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16"])
@pytest.mark.parametrize("t", [2, None])
def test_a_cell_may_have_a_dtype_of_its_own(t, dtype):
    model = build(keras.layers.LSTMCell(UNITS, dtype=dtype), t=t, dtype="float32")
    gradients, _ = one_step(model)
    exact, other = build("lstm"), build("lstm")
    for found, expected in zip(values(exact), values(other), strict=True):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(
        gradients, loop_gradients(exact, IDS, LABELS, t), strict=True
    ):
        atol = 0.02 * abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0.05, atol=atol)


@pytest.mark.parametrize("signature", [None, "int32"])
def test_an_exported_model_answers_as_the_model(tmp_path, signature):
    model = build("gru", t=2, dtype="float32")
    if signature:
        signature = [keras.InputSpec(shape=(None, None), dtype=signature)]
    model.export(tmp_path / "exported", input_signature=signature, verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    ids = tf.constant(IDS if signature else IDS.astype("float32"))
    np.testing.assert_allclose(served.serve(ids), model(IDS), rtol=1e-6)


@pytest.fixture
def dtype_policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    "dtype_policy", ["mixed_float16", "mixed_bfloat16"], indirect=True
)
@pytest.mark.parametrize("name", ["simple_rnn", "lstm"])
def test_mixed_precision_takes_nearly_the_same_step(name, dtype_policy):
    model = build(name, t=2, dtype=dtype_policy)
    # In float16 the loss is scaled, which a graph does with a condition.
    gradients, logs = one_step(model, run_eagerly=dtype_policy != "mixed_float16")
    expected, other = one_step(build(name, t=2))
    assert model.cell.trainable_weights[0].dtype == "float32"
    assert model.compute_dtype == dtype_policy.removeprefix("mixed_")
    np.testing.assert_allclose(logs["loss"], other["loss"], rtol=0.03)
    np.testing.assert_allclose(logs["gradient_norm"], other["gradient_norm"], rtol=0.05)
    for found, exact in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, exact, rtol=0.1, atol=0.05 * abs(exact).max())


# -- Bad input -----------------------------------------------------------------------


@pytest.mark.parametrize("t", [-1, 1.5, True, "3"])
def test_t_must_be_a_count_of_steps(t):
    model = build()
    data = batches(IDS, LABELS)
    for attempt in (
        lambda: TBPTTClassifier(CELLS["lstm"](None), VOCAB, t=t),
        lambda: setattr(model, "t", t),
        lambda: train_tbptt(data, data, t=t),
    ):
        with pytest.raises(ValueError, match=rf"\bt\b.*{t!r}"):
            attempt()
    assert model.t is None


@pytest.mark.parametrize("ids", [IDS[0], IDS[None]], ids=["rank 1", "rank 3"])
def test_token_ids_must_be_a_matrix(ids):
    model = build()
    for attempt in (model, lambda x: model.truncated_logits(tf.constant(x), 2)):
        with pytest.raises(ValueError, match="token_ids"):
            attempt(ids)


def test_float_ids_are_called_and_not_trained_on():
    model = compile_with(build(t=2), "sgd")
    np.testing.assert_array_equal(model(IDS.astype("float32")), model(IDS))
    with pytest.raises(ValueError, match="token_ids.*float32"):
        fit(model, batches(IDS.astype("float32"), LABELS))


PADDING_ROW = np.concatenate([IDS, np.zeros((1, TIME), "int32")])
FIVE_LABELS = np.append(LABELS, LABELS[:1])
BAD_BATCHES = {
    "empty": (batches(IDS, LABELS).take(0), "_ds.*empty"),
    "empty batch": (batches(IDS[:0], LABELS[:0]), "_ds.*empty"),
    "endless": (batches(IDS, LABELS).repeat(), "_ds.*infinite"),
    "id 11 of 11": (batches(IDS + (IDS == 10), LABELS), r"_ds.*\[0, 11\).* 11"),
    "negative id": (batches(np.where(IDS == 2, -2, IDS), LABELS), r"_ds.*-2"),
    "only padding": (batches(PADDING_ROW, FIVE_LABELS), "_ds.*no token in row 4"),
    "padding inside": (batches(IDS * (IDS != 9), LABELS), "_ds.*inside .* row 0"),
    "a tuple": ((IDS, LABELS), "_ds.*tuple"),
    "float ids": (batches(IDS.astype("float32"), LABELS), "token_ids.*float32"),
    "rank of ids": (batches(IDS[None], LABELS), r"token_ids.*\(1, 4, 7\)"),
    "no labels": (batches(IDS), "labels|_ds"),
    "fewer labels": (batches(IDS, LABELS[:2]), r"labels.*\(2,\)"),
    "one-hot labels": (batches(IDS, np.stack([LABELS] * 2, 1)), r"labels.*\(4, 2\)"),
    "text labels": (batches(IDS, LABELS.astype(str)), "labels"),
    "label 2": (batches(IDS, 2 * LABELS), "labels.*2"),
    "label 0.5": (batches(IDS, LABELS / 2), r"labels.*0\.5"),
}


@pytest.mark.parametrize("place", ["train_ds", "validation_ds"])
@pytest.mark.parametrize("kind", BAD_BATCHES)
def test_train_tbptt_refuses_bad_data_and_names_it(kind, place):
    bad, message = BAD_BATCHES[kind]
    good = batches(IDS, LABELS)
    data = {"train_ds": good, "validation_ds": good, place: bad}
    with pytest.raises(ValueError, match=message):
        train_tbptt(**data, t=2, vocab_size=VOCAB, epochs=1, verbose=0)


@pytest.mark.parametrize(
    "cell",
    [
        "elman",
        keras.layers.LSTM(4),
        [keras.layers.LSTMCell(4)],
        keras.layers.Dense(4),
        keras.layers.LSTMCell,
        None,
    ],
    ids=str,
)
def test_train_tbptt_refuses_what_is_no_cell(cell):
    data = batches(IDS, LABELS)
    with pytest.raises(
        ValueError, match="(?s)`cell` must be one of .* Received: cell="
    ):
        train_tbptt(data, data, t=2, cell=cell)


def test_a_cell_is_trained_once(monkeypatch):
    compile_all(monkeypatch, **EAGER)
    data, cell = batches(IDS, LABELS), keras.layers.GRUCell(UNITS)
    model, _ = train_tbptt(data, data, t=2, cell=cell, epochs=1, verbose=0)
    before = model.get_weights()
    with pytest.raises(ValueError, match="`cell` must be new"):
        train_tbptt(data, data, t=2, cell=cell, epochs=1, verbose=0)
    for found, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


# -- train_tbptt ---------------------------------------------------------------------


def sentences(count, seed):
    """Makes sentences that one of their last three tokens decides."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    ids = [rng.integers(4, VOCAB, rng.integers(3, 9)).astype("int32") for _ in labels]
    for row, label in zip(ids, labels, strict=True):
        row[-rng.integers(1, 4)] = 2 + label
    return ids, labels


def synthetic(count, seed=0, **options):
    options = {"batch_size": 16, "bucket_lengths": (8,), **options}
    return bucketed_batches(*sentences(count, seed), **options)


def train(t=3, count=96, shuffle=True, **options):
    settings = {
        "units": 8,
        "embedding_dim": 8,
        "dropout": 0.0,
        "epochs": 3,
        "learning_rate": 0.03,
        "jit_compile": False,
        "verbose": 0,
    }
    validation = synthetic(count, seed=1, shuffle=False)
    data = synthetic(count, shuffle=shuffle), validation
    return train_tbptt(*data, t=t, **{**settings, **options})


@pytest.mark.parametrize("cell", ["simple_rnn", "lstm", "gru"])
def test_train_tbptt_learns_what_the_last_steps_tell(cell):
    model, history = train(cell=cell, epochs=10)
    assert isinstance(model, TBPTTClassifier)
    assert model.t == 3
    assert model.cell.units == 8
    assert model.embedding.embeddings.shape == (VOCAB, 8)
    assert len(history.history["loss"]) == len(history.history["val_loss"]) == 10
    assert history.history["val_accuracy"][-1] > 0.9
    ids, labels = sentences(96, seed=1)
    logits = np.array([loop_logit(model, row, None)[0, 0] for row in ids])
    accuracy = np.mean((logits > 0) == labels)
    np.testing.assert_allclose(history.history["val_accuracy"][-1], accuracy, atol=1e-6)


def test_irnn_starts_as_the_sum_of_its_inputs():
    data = batches(IDS, LABELS)
    model, _ = train_tbptt(
        data, data, t=2, cell="irnn", units=4, epochs=1, learning_rate=0.0, verbose=0
    )
    np.testing.assert_array_equal(model.cell.recurrent_kernel, np.eye(4))
    assert model.cell.activation is keras.activations.relu


def test_train_tbptt_takes_any_cell_and_labels_in_a_column(monkeypatch):
    compile_all(monkeypatch, **EAGER)
    data = batches(IDS, LABELS[:, None])
    cell = make_stack("float32")
    model, _ = train_tbptt(data, data, t=2, cell=cell, epochs=1, verbose=0)
    assert model.cell is cell
    assert model.embedding.embeddings.shape == (VOCAB, 128)


def test_the_vocabulary_covers_both_data_sets(monkeypatch):
    compile_all(monkeypatch, **EAGER)
    few, many = batches(IDS[2:], LABELS[2:]), batches(IDS, LABELS)
    for data in ((few, many), (many, few)):
        model, _ = train_tbptt(*data, t=1, units=2, epochs=1, verbose=0)
        assert model.embedding.embeddings.shape[0] == VOCAB


def test_train_tbptt_with_t_zero_leaves_all_but_the_head_as_it_was(monkeypatch):
    compile_all(monkeypatch, **EAGER)
    watch = Watch()
    model, history = train(t=0, count=32, epochs=3, callbacks=[watch])
    *others, head, bias = zip(watch.weights[0], values(model), strict=True)
    for old, new in others:
        np.testing.assert_array_equal(old, new)
    assert (head[0] != head[1]).all()
    assert history.history["loss"][1] < history.history["loss"][0]


def test_the_seed_decides_weights_dropout_and_history(monkeypatch):
    compile_all(monkeypatch, **EAGER)
    options = {"count": 32, "dropout": 0.3, "epochs": 1, "shuffle": False}
    histories = []
    for seed, elsewhere in ((4, 0), (4, 1), (5, 0)):
        keras.utils.set_random_seed(elsewhere)
        histories.append(train(seed=seed, **options)[1].history)
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]


@pytest.fixture(scope="module")
def watched():
    watch = Watch()
    options = {"epochs": 5, "global_clipnorm": 0.25, "weight_decay": 0.07}
    return watch, *train(callbacks=[watch], **options)


def test_the_rate_falls_along_half_a_cosine_and_the_optimizer_holds_the_rest(watched):
    watch, model, _ = watched
    assert watch.epochs == [0, 1, 2, 3, 4]
    steps = len(watch.rates)
    assert steps == len(watch.logs) == 30
    expected = 0.03 * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    np.testing.assert_allclose(watch.rates, expected, rtol=1e-4, atol=1e-8)
    assert all(logs["gradient_norm"] > 0 for logs in watch.logs)
    assert isinstance(model.optimizer, keras.optimizers.AdamW)
    assert model.optimizer.global_clipnorm == 0.25
    assert model.optimizer.weight_decay == 0.07


def test_the_model_is_that_of_the_last_validation_and_can_be_trained_further(watched):
    _, model, history = watched
    data = synthetic(96, seed=1, shuffle=False)
    before, logs = values(model), model.evaluate(data, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], history.history["val_loss"][-1], rtol=1e-5)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.03)
    model.t = 2
    model.fit(data, verbose=0)
    assert all(move.any() for move in moves(before, values(model)))


def test_the_best_weights_are_those_that_were_validated():
    ids, labels = sentences(96, seed=1)
    options = {"batch_size": 16, "bucket_lengths": (8,), "shuffle": False}
    wrong = bucketed_batches(ids, 1 - labels, **options)  # more so at every epoch
    best = keras.callbacks.EarlyStopping(
        "val_loss", patience=5, restore_best_weights=True
    )
    settings = {"units": 8, "embedding_dim": 8, "epochs": 4, "learning_rate": 0.03}
    model, history = train_tbptt(
        synthetic(96), wrong, t=3, callbacks=best, verbose=0, **settings
    )
    losses = history.history["val_loss"]
    assert min(losses) < 0.8 * losses[-1]
    loss = model.evaluate(wrong, verbose=0)[0]
    assert loss == pytest.approx(min(losses), rel=1e-5)


INTERRUPTED = {"count": 32, "epochs": 3, "dropout": 0.3}  # 2 steps in an epoch


@pytest.fixture(scope="module")
def uninterrupted():
    with pytest.MonkeyPatch.context() as patch:
        compile_all(patch, **EAGER)
        return train(**INTERRUPTED)


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_an_interrupted_training_ends_with_the_same_bits(
    tmp_path, batch, monkeypatch, uninterrupted
):
    compile_all(monkeypatch, **EAGER)
    whole, whole_history = uninterrupted
    options = {**INTERRUPTED, "backup_dir": tmp_path}
    with pytest.raises(Killed):
        train(**options, callbacks=[KillAt(batch)])
    watch = Watch()
    resumed, history = train(**options, callbacks=[watch])
    assert history.epoch == [0, 1, 2]
    assert watch.epochs == ([0, 1, 2] if batch == 1 else [1, 2])
    assert history.history == whole_history.history
    for found, other in zip(values(resumed), values(whole), strict=True):
        np.testing.assert_array_equal(found, other)
