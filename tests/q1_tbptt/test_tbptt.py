"""`q1_tbptt.tbptt` trains on the truncated gradient and on nothing else.

The oracles share no code with the module: back-propagation written out in NumPy,
finite differences with a frozen prefix, a Python loop over the cell, and stock Keras.
"""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.text import bucketed_batches
from q1_tbptt.tbptt import TBPTTClassifier, train_tbptt
from q2_reset_cell.reset_cell import ResetCell
from tests.compiled import EAGER, compile_all

VOCAB, WIDTH, UNITS = 11, 3, 4

# Token 5 occurs three times in the first one, and again in the second; token 1 is the
# unknown word.
SENTENCES = [[5, 2, 9, 5, 3, 10, 5], [7, 5, 1, 8], [6, 4], [2]]
IDS = keras.utils.pad_sequences(SENTENCES)
RIGHT_PADDED = keras.utils.pad_sequences(SENTENCES, padding="post")
LABELS = np.array([1, 0, 0, 1], "float32")
TIME = IDS.shape[1]
TRUNCATIONS = [0, 1, 2, 3, TIME - 1, TIME, TIME + 3, None]
PADDING_ROW = np.pad(IDS, ((0, 1), (0, 0)))  # and a row without a token


@keras.saving.register_keras_serializable(package="tests")
class LeakyCell(keras.layers.Layer):
    """The least that `keras.layers.RNN` asks of a cell: not even an `output_size`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))
        self.leak = self.add_weight(shape=(self.units,))

    def call(self, inputs, states):
        state = keras.ops.tanh(self.leak * states[0] + inputs @ self.kernel)
        return state, [state]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class SineCell(LeakyCell):
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
    "reset": lambda dtype: ResetCell(UNITS, dtype=dtype),
}


def build(cell="simple_rnn", t=None, dtype="float64", **options):
    if isinstance(cell, str):
        cell = CELLS[cell](dtype)
    model = TBPTTClassifier(cell, VOCAB, WIDTH, t=t, dtype=dtype, **options)
    model(IDS)
    # So large that no part of the gradient is lost in the others.
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.6, w.shape) for w in model.get_weights()])
    return model


def compile_with(model, optimizer, **options):
    # A Keras loss computes in float32 unless told.
    loss = keras.losses.BinaryCrossentropy(from_logits=True, dtype=model.compute_dtype)
    # A graph takes longer to trace, and XLA to compile, than these steps to run.
    model.compile(optimizer, loss, **{**EAGER, **options})
    return model


def batches(*data):
    return tf.data.Dataset.from_tensors(data)


BATCH = batches(IDS, LABELS)


def fit(model, data=BATCH, **options):
    return model.fit(data, shuffle=False, verbose=0, **options).history


def one_step(model, *data, **options):
    """Returns the gradients that one step of `fit` takes, and its logs."""
    before = model.get_weights()
    compile_with(model, keras.optimizers.SGD(1.0), **options)
    logs = fit(model, batches(*data) if data else BATCH)
    gradients = moves(model.get_weights(), before)
    model.set_weights(before)
    return gradients, logs


def moves(before, after):
    return [new - old for old, new in zip(before, after, strict=True)]


def norm(arrays):
    return np.sqrt(sum((array**2).sum() for array in arrays))


def assert_gradients(found, expected, rtol=1e-9, atol=None):
    """Compares to the largest entry of a parameter; all 0 must be exactly 0."""
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol, (atol or rtol) * scale)


def elman_forward(weights, tokens, start=0.0, masks=None, head_mask=1.0):
    """Returns h_0 ... h_T of the Elman cell and the logit; masks multiply inputs."""
    kernel, recurrent, bias, embeddings, head, head_bias = weights
    states = [np.zeros(len(bias)) + start]
    for k, token in enumerate(tokens):
        x = embeddings[token] * (1 if masks is None else masks[k])
        states.append(np.tanh(x @ kernel + states[-1] @ recurrent + bias))
    return np.array(states), (states[-1] * head_mask @ head + head_bias)[0]


def elman_backward(weights, tokens, label, t):
    """Returns ∂L/∂logit and, where h_k = tanh(a_k), all h_k, ∂L/∂h_k and ∂L/∂a_k."""
    _, recurrent, _, _, head, _ = weights
    states, logit = elman_forward(weights, tokens)
    error = 1 / (1 + np.exp(-logit)) - label
    d_states, d_a = np.zeros_like(states), np.zeros_like(states)
    d_states[-1] = error * head[:, 0]
    steps = len(tokens) if t is None else min(t, len(tokens))
    for k in range(len(tokens), len(tokens) - steps, -1):
        d_a[k] = d_states[k] * (1 - states[k] ** 2)
        d_states[k - 1] = recurrent @ d_a[k]
    return error, states, d_states, d_a[1:]


def elman_gradients(weights, ids, labels, t):
    """Returns the sum over the last t steps of what each adds to the gradients."""
    kernel, _, _, embeddings, *_ = weights
    sums = d_kernel, d_recurrent, d_bias, d_embeddings, d_head, d_head_bias = [
        np.zeros_like(weight) for weight in weights
    ]
    for row, label in zip(ids, labels, strict=True):
        tokens = row[row > 0]
        error, states, _, d_a = elman_backward(weights, tokens, label, t)
        np.add.at(d_embeddings, tokens, d_a @ kernel.T)
        d_kernel += embeddings[tokens].T @ d_a
        d_recurrent += states[:-1].T @ d_a
        d_bias += d_a.sum(axis=0)
        d_head += error * states[-1:].T
        d_head_bias += error
    return [each / len(ids) for each in sums]


def finite_differences(function, arrays, step=1e-5):
    """Returns the central differences by every entry of a list or dict of arrays."""
    arrays = keras.tree.map_structure(np.copy, arrays)

    def differences(array):
        result = np.zeros_like(array)
        for index, value in np.ndenumerate(array):
            array[index] = value + step
            above = function(arrays)
            array[index] = value - step
            result[index] = (above - function(arrays)) / (2 * step)
            array[index] = value
        return result

    return keras.tree.map_structure(differences, arrays)


def frozen_prefix_differences(weights, ids, labels, t):
    """Returns finite differences of a loss whose h_{T-t} stays where it was."""
    parts = []
    for row, label in zip(ids, labels, strict=True):
        tokens = row[row > 0]
        cut = 0 if t is None else max(len(tokens) - t, 0)
        states, _ = elman_forward(weights, tokens[:cut])
        parts.append((tokens[cut:], states[-1], -1 if label else 1))

    def loss(weights):
        total = 0.0
        for tokens, frozen, sign in parts:
            _, logit = elman_forward(weights, tokens, frozen)
            total += np.log1p(np.exp(sign * logit))
        return total / len(ids)

    return finite_differences(loss, weights)


def loop_logit(model, tokens, t, watch=lambda *tensors: None):
    """Calls the cell once for every token, and stops every state's gradient at T-t.

    `watch` sees x_k and the states that enter each step, and what the head reads.
    """
    sizes = model.cell.state_size
    states = keras.tree.map_structure(
        lambda size: tf.zeros((1, size), model.compute_dtype),
        list(sizes) if keras.tree.is_nested(sizes) else [sizes],
    )
    cut = -1 if t is None else max(len(tokens) - t, 0)
    for k, token in enumerate(tokens):
        pass_on = tf.stop_gradient if k == cut else tf.identity
        states = keras.tree.map_structure(pass_on, states)
        x = tf.gather(model.embedding.embeddings, [token])
        watch(x, *keras.tree.flatten(states))
        output, states = model.cell(x, states)
    if cut == len(tokens):
        output = tf.stop_gradient(output)
    watch(output)
    return model.head(output)


def taped_gradients(model, logits, labels):
    """Returns the gradients of the cross-entropy of `logits()`."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(
            tf.nn.sigmoid_cross_entropy_with_logits(
                tf.constant(labels, model.compute_dtype)[:, None], logits()
            )
        )
    weights = [weight.value for weight in model.trainable_weights]
    gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
    return [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


def loop_gradients(model, ids, labels, t):
    def logits():
        return tf.concat([loop_logit(model, row[row > 0], t) for row in ids], 0)

    return taped_gradients(model, logits, labels)


@pytest.mark.parametrize("t", TRUNCATIONS)
def test_a_step_takes_the_gradient_of_the_last_t_steps_whatever_the_padding(t):
    model = build(t=t)
    weights = model.get_weights()
    expected = elman_gradients(weights, IDS, LABELS, t)
    gradients, _ = one_step(model)
    assert_gradients(gradients, expected)
    differences = frozen_prefix_differences(weights, IDS, LABELS, t)
    assert_gradients(gradients, differences, rtol=1e-6)
    # Exactly the last t tokens of every sentence train their embedding.
    last = IDS if t is None else IDS[:, max(TIME - t, 0) :]
    assert set(np.flatnonzero(gradients[3].any(axis=1))) == set(last[last > 0])
    for ids, more in ((IDS, (5, 0)), (RIGHT_PADDED, (0, 0)), (RIGHT_PADDED, (2, 3))):
        padded = np.pad(ids, ((0, 0), more))
        assert_gradients(one_step(model, padded, LABELS)[0], expected)
        np.testing.assert_allclose(model(padded), model(IDS), rtol=1e-12)


@pytest.mark.parametrize("t", [0, 1, 2, 3, TIME, None])
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_cuts_every_cell_like_a_python_loop(cell, t):
    model = build(cell, t=t)
    gradients, _ = one_step(model, run_eagerly=t != 2)
    assert_gradients(gradients, loop_gradients(model, IDS, LABELS, t))


def test_the_head_reads_the_first_state_even_where_the_output_is_another():
    sine, leaky = (
        build(cell(UNITS, dtype="float64")) for cell in (SineCell, LeakyCell)
    )
    np.testing.assert_array_equal(sine(IDS), leaky(IDS))


def test_call_is_the_whole_forward_pass_whatever_t():
    model = build("lstm", t=1)
    found = taped_gradients(model, lambda: model(IDS, training=True), LABELS)
    assert_gradients(found, loop_gradients(model, IDS, LABELS, None))


def test_a_sentence_of_weight_zero_is_out_of_the_gradient():
    model = build(t=2)
    found, _ = one_step(model, IDS, LABELS, np.array([0, 3, 0, 1], "float32"))
    rows = [1, 1, 1, 3]
    expected = elman_gradients(model.get_weights(), IDS[rows], LABELS[rows], 2)
    assert_gradients(found, expected)


LONG_IDS = np.random.default_rng(0).integers(1, VOCAB, (3, 150), "int32")
LONG_IDS[np.arange(150) < 150 - np.array([[150], [131], [3]])] = 0
LONG = LONG_IDS, np.array([1, 0, 1], "float32")


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
@pytest.mark.parametrize("cell", ["simple_rnn", "lstm"])
def test_eager_graph_and_xla_agree_behind_a_long_prefix(cell, how):
    model = build(cell, t=4)
    options = {"run_eagerly": how == "eager", "jit_compile": how == "xla"}
    gradients, _ = one_step(model, *LONG, **options)
    assert_gradients(gradients, loop_gradients(model, *LONG, 4))


@pytest.mark.parametrize("t", [1, 21, 22, 64, 149])
def test_a_prefix_of_any_length_is_run_to_its_end(t):
    model = build(t=t)
    expected = elman_gradients(model.get_weights(), *LONG, t)
    assert_gradients(one_step(model, *LONG)[0], expected)


def test_shapes_may_be_unknown_until_the_step_runs():
    # In the second batch T ≤ t for every sentence, and there are fewer sentences.
    data = [(IDS, LABELS), (IDS[1:, -4:], LABELS[1:])]
    signature = tf.TensorSpec((None, None), "int32"), tf.TensorSpec((None,), "float32")
    dynamic = tf.data.Dataset.from_generator(lambda: data, output_signature=signature)
    dynamic = dynamic.apply(tf.data.experimental.assert_cardinality(2))
    model = build(t=4)
    expected = model.get_weights()
    for batch in data:
        expected = moves(elman_gradients(expected, *batch, 4), expected)
    fit(compile_with(model, keras.optimizers.SGD(1.0), run_eagerly=False), dynamic)
    assert_gradients(model.get_weights(), expected)


def test_frozen_layers_stay_and_the_others_get_the_same_gradient():
    model = build(t=2)
    expected = elman_gradients(model.get_weights(), IDS, LABELS, 2)
    expected[3][:] = 0
    model.embedding.trainable = False
    assert_gradients(one_step(model)[0], expected)


def three_batches():
    """No token is repeated: stock Keras gives Adam each repetition as a gradient."""
    rng = np.random.default_rng(1)
    mask = np.arange(TIME) >= TIME - np.array([[7], [2], [1]])
    ids = np.zeros((3, *mask.shape), "int32")
    for batch in ids:
        batch[mask] = rng.permutation(VOCAB - 1) + 1
    labels = rng.integers(0, 2, (3, 3)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((ids, labels))


LIKE_STOCK = CELLS | {
    "regularized": lambda dtype: keras.layers.SimpleRNNCell(
        UNITS,
        kernel_regularizer=keras.regularizers.L2(0.1),
        recurrent_regularizer=keras.regularizers.L1(0.1),
        recurrent_constraint=keras.constraints.MaxNorm(1.0),
        dtype=dtype,
    )
}
FULL = [("simple_rnn", t) for t in (TIME, TIME + 3, None)]
FULL += [(name, None) for name in ("lstm", "gru", "stack", "custom", "regularized")]


@pytest.mark.parametrize("name, t", FULL)
def test_the_full_gradient_trains_like_stock_keras(name, t):
    model = build(LIKE_STOCK[name]("float32"), t=t, dtype="float32")
    embedding = keras.layers.Embedding(VOCAB, WIDTH, mask_zero=True)
    rnn = keras.layers.RNN(LIKE_STOCK[name]("float32"))
    twin = keras.Sequential([embedding, rnn, keras.layers.Dense(1)])
    twin(IDS)
    *cell, embeddings, head, bias = model.get_weights()
    twin.set_weights([embeddings, *cell, head, bias])
    for each in (model, twin):
        compile_with(each, keras.optimizers.Adam(0.01), run_eagerly=t != TIME)
    ours, theirs = (fit(each, three_batches())["loss"] for each in (model, twin))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    embeddings, *cell, head, bias = twin.get_weights()
    expected = [*cell, embeddings, head, bias]
    for found, other in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, other, rtol=0, atol=2e-6)


def test_adam_sees_the_gradients_of_a_repeated_token_as_one():
    model = build(t=4)
    before = model.get_weights()
    fit(compile_with(model, keras.optimizers.Adam(0.01, epsilon=1e-15)))
    expected = [-0.01 * np.sign(g) for g in elman_gradients(before, IDS, LABELS, 4)]
    assert_gradients(moves(before, model.get_weights()), expected, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_logits_do_not_depend_on_t(cell):
    model = build(cell)
    expected = [loop_logit(model, row[row > 0], None).numpy()[0] for row in IDS]
    expected.append(model.head.bias.numpy())  # of a row of padding
    np.testing.assert_allclose(model(PADDING_ROW), expected, rtol=1e-9)
    for t in TRUNCATIONS:
        logits = model.truncated_logits(tf.constant(PADDING_ROW), t)
        np.testing.assert_allclose(logits, expected, rtol=1e-9)


@pytest.mark.parametrize("cell, eager", [("simple_rnn", False), ("lstm", True)])
def test_the_loss_does_not_depend_on_t_under_dropout(cell, eager):
    losses = []
    for t in (0, 2, None):
        keras.utils.set_random_seed(3)
        model = build(cell, t=t, dropout=0.5)
        compile_with(model, keras.optimizers.SGD(0.0), run_eagerly=eager)
        losses.append(fit(model, BATCH.repeat(2), epochs=2)["loss"])
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-6)
    clean = model.evaluate(IDS, LABELS, verbose=0)
    assert len({*losses[0], clean}) == 3  # dropout, another in every epoch


COPIES = np.tile(np.array([[0, 0, 5, 9, 3]], "int32"), (256, 1))


def drawn_masks(model, t, possible):
    """Returns which masks, of all inputs and of the head, each of `COPIES` has got."""
    weights, tokens = model.get_weights(), COPIES[0, 2:]
    expected = [elman_forward(weights, tokens, 0, *masks)[1] for masks in possible]
    logits = model.truncated_logits(tf.constant(COPIES), t, training=True)
    distances = np.abs(logits.numpy() - expected)
    assert distances.min(axis=1).max() < 1e-9
    return distances.argmin(axis=1)


def dropout_masks(size, rate):
    """Returns every mask that dropout can draw for so many features."""
    kept = itertools.product((0, 1), repeat=size)
    return [np.array(mask) / (1 - rate) for mask in kept]


@pytest.mark.parametrize("t", [0, 1, 2, None])
def test_dropout_takes_the_same_features_at_every_step_of_a_sentence(t):
    model = build(dropout=0.25)
    kept = dropout_masks(WIDTH + UNITS, 0.25)
    possible = [([mask[:WIDTH]] * 3, mask[WIDTH:]) for mask in kept]
    drawn = np.array(kept)[drawn_masks(model, t, possible)] > 0
    np.testing.assert_allclose(drawn.mean(axis=0), 0.75, atol=0.12)
    assert len(np.unique(drawn, axis=0)) > 20  # sentences are not masked alike


@pytest.mark.parametrize("t", [2, None])
def test_a_cell_s_own_dropout_draws_before_and_after_the_cut(t):
    model = build(keras.layers.SimpleRNNCell(UNITS, dropout=0.5, dtype="float64"))
    kept = dropout_masks(WIDTH, 0.5)
    pairs = itertools.product(kept, repeat=2) if t else zip(kept, kept, strict=True)
    possible = [([a, b, b], 1) for a, b in pairs]
    # Keras draws a cell's mask for each row.
    first, second = (drawn_masks(model, t, possible) for _ in range(2))
    assert len(np.unique(first)) > 0.5 * len(possible)
    assert (first != second).any()  # no mask is kept for the next batch


def test_evaluate_and_predict_take_plain_arrays():
    model = compile_with(
        build("lstm", t=1),
        keras.optimizers.SGD(0.0),
        run_eagerly=False,
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")],
    )
    logits = np.concatenate([loop_logit(model, row[row > 0], None) for row in IDS])
    losses = np.log1p(np.exp(np.where(LABELS, -1, 1) * logits[:, 0]))
    expected = {"loss": losses, "accuracy": (logits[:, 0] > 0) == LABELS}
    np.testing.assert_allclose(model.predict(IDS, verbose=0), logits, rtol=1e-9)
    evaluated = model.evaluate(IDS, LABELS, verbose=0, return_dict=True)
    trained = model.fit(IDS, LABELS, verbose=0).history
    for name, of_rows in expected.items():
        for found in (evaluated, trained):
            np.testing.assert_allclose(found[name], np.mean(of_rows), rtol=1e-6)


class Watch(keras.callbacks.Callback):
    """Keeps what every step has, and the epochs begun."""

    def __init__(self):
        super().__init__()
        self.weights, self.norms, self.rates, self.epochs = [], [], [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        self.weights.append(self.model.get_weights())
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        self.norms.append(logs["gradient_norm"])


GROWING = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), 8.0, 2)


@pytest.mark.parametrize(
    "dtype, optimizer, longest",
    [
        ("float64", keras.optimizers.SGD(1.0), np.inf),
        ("float64", keras.optimizers.SGD(1.0, global_clipnorm=1e-3), 1e-3),
        ("float32", GROWING, 0),  # the loss scale doubles after every second step
    ],
)
def test_the_logged_norm_is_that_of_every_gradient(dtype, optimizer, longest):
    model, watch = build(t=3, dtype=dtype), Watch()
    compile_with(model, optimizer, run_eagerly=False)
    steps = BATCH.concatenate(batches(IDS[:2], LABELS[:2])).repeat(3)
    fit(model, steps, callbacks=[watch])
    expected = [
        norm(elman_gradients(weights, *batch, 3))
        for weights, batch in zip(watch.weights, steps.as_numpy_iterator(), strict=True)
    ]
    np.testing.assert_allclose(watch.norms, expected, rtol=1e-5)
    pairs = itertools.pairwise([*watch.weights, model.get_weights()])
    lengths = [norm(moves(before, after)) for before, after in pairs]
    np.testing.assert_allclose(lengths, np.minimum(expected, longest), rtol=1e-5)


def test_t_zero_trains_the_head_alone_bit_for_bit(recwarn):
    model = build("stack", t=0, dtype="float32")
    before = model.get_weights()
    compile_with(model, keras.optimizers.AdamW(0.1, weight_decay=0.1))
    fit(model, epochs=2)
    *others, head, bias = [move.any() for move in moves(before, model.get_weights())]
    assert not any(others)
    assert head and bias
    assert not [w for w in recwarn.list if "radients do not exist" in str(w.message)]


def test_assigning_t_takes_effect_at_the_next_fit():
    model = compile_with(build(), keras.optimizers.SGD(1.0), run_eagerly=False)
    before = model.get_weights()
    for t in (0, None, 0, 2):
        model.set_weights(before)
        model.t = t
        assert model.t == t
        fit(model)
        expected = elman_gradients(before, IDS, LABELS, t)
        assert_gradients(moves(model.get_weights(), before), expected)


@pytest.mark.parametrize("name", ["simple_rnn", "lstm", "stack", "custom", "reset"])
def test_a_saved_model_goes_on_where_it_was(name, tmp_path):
    model, eager = build(name, t=2, dtype="float32"), name != "simple_rnn"
    fit(compile_with(model, keras.optimizers.Adam(0.01), run_eagerly=eager))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, TBPTTClassifier)
    assert type(loaded.cell) is type(model.cell)
    assert loaded.t == 2
    np.testing.assert_array_equal(loaded(IDS), model(IDS))
    for each in (model, loaded):
        fit(each)
    for found, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(found, other, rtol=0, atol=1e-7)


def test_the_config_rebuilds_the_model():
    cell = keras.layers.GRUCell(UNITS, activation="relu")
    sizes = {"vocab_size": VOCAB, "embedding_dim": WIDTH}
    options = {**sizes, "t": 2, "dropout": 0.1, "name": "named"}
    model = TBPTTClassifier(cell, **{**options, "t": np.int64(2)})
    again = TBPTTClassifier.from_config(json.loads(json.dumps(model.get_config())))
    assert again.cell.get_config() == cell.get_config()
    assert options.items() <= again.get_config().items()


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16"])
@pytest.mark.parametrize("t", [2, None])
def test_a_cell_may_have_a_dtype_of_its_own(t, dtype):
    model = build(keras.layers.LSTMCell(UNITS, dtype=dtype), t=t, dtype="float32")
    expected = loop_gradients(build("lstm"), IDS, LABELS, t)
    assert_gradients(one_step(model)[0], expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("signature", [None, "int32"])
def test_an_exported_model_answers_as_the_model(tmp_path, signature):
    model = build("gru", t=2, dtype="float32")
    if signature:
        signature = [keras.InputSpec(shape=(None, None), dtype=signature)]
    model.export(tmp_path / "exported", input_signature=signature, verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    ids = tf.constant(IDS if signature else IDS.astype("float32"))
    np.testing.assert_allclose(served.serve(ids), model(IDS), rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["simple_rnn", "lstm"])
def test_mixed_precision_takes_nearly_the_same_step(name, policy, request):
    usual = keras.config.dtype_policy()
    request.addfinalizer(lambda: keras.config.set_dtype_policy(usual))
    keras.config.set_dtype_policy(policy)
    model = build(name, t=2, dtype=policy)
    # In float16 the loss is scaled, which a graph does with a condition.
    gradients, logs = one_step(model, run_eagerly=policy != "mixed_float16")
    expected, other = one_step(build(name, t=2))
    assert model.cell.trainable_weights[0].dtype == "float32"
    assert model.compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_allclose(logs["loss"], other["loss"], rtol=0.03)
    np.testing.assert_allclose(logs["gradient_norm"], other["gradient_norm"], rtol=0.05)
    assert_gradients(gradients, expected, rtol=0.1, atol=0.05)


def train_on(train_ds=BATCH, validation_ds=BATCH, **options):
    settings = {"t": 2, "epochs": 1, "verbose": 0} | options
    return train_tbptt(train_ds, validation_ds, **settings)


@pytest.mark.parametrize("t", [-1, 1.5, 2.0, True, "3"])
def test_t_must_be_a_count_of_steps(t):
    model = build()
    for attempt in (
        lambda: TBPTTClassifier(CELLS["lstm"](None), VOCAB, t=t),
        lambda: setattr(model, "t", t),
        lambda: train_on(t=t),
    ):
        with pytest.raises(ValueError, match=rf"\bt\b.*{t!r}"):
            attempt()
    assert model.t is None


def test_token_ids_must_be_an_integer_matrix_in_training():
    model = compile_with(build(t=2), "sgd")
    for ids in (IDS[0], IDS[None]):
        for attempt in (model, lambda x: model.truncated_logits(tf.constant(x), 2)):
            with pytest.raises(ValueError, match="token_ids"):
                attempt(ids)
    floats = IDS.astype("float32")
    np.testing.assert_array_equal(model(floats), model(IDS))
    with pytest.raises(ValueError, match="token_ids.*float32"):
        fit(model, batches(floats, LABELS))


# Token ids, labels, and what is said of them: {} is what they were passed as.
BAD_BATCHES = {
    "empty": (IDS[:0], LABELS[:0], "{}.*empty"),
    "id 11 of 11": (IDS + (IDS == 10), LABELS, r"{}.*\[0, 11\).* 11"),
    "negative id": (np.where(IDS == 2, -2, IDS), LABELS, "{}.*-2"),
    "only padding": (PADDING_ROW, [1, 0, 0, 1, 1], "{}.*no token in row 4"),
    "padding inside": (IDS * (IDS != 9), LABELS, "{}.*padding .*inside .* row 0"),
    "float ids": (IDS.astype("float32"), LABELS, "token_ids.*float32"),
    "text ids": (IDS.astype(str), LABELS, "token_ids"),
    "rank of ids": (IDS[None], LABELS, r"token_ids.*\(1, 4, 7\)"),
    "more labels": (IDS, np.append(LABELS, 0), r"labels.*\(5,\)"),
    "one-hot labels": (IDS, np.stack([LABELS] * 2, 1), r"labels.*\(4, 2\)"),
    "label 2": (IDS, 2 * LABELS, "labels.*2"),
}
BAD_SETS = {
    "no batch": (BATCH.take(0), "{}.*empty"),
    "endless": (BATCH.repeat(), "{}.*infinite"),
    "a tuple": ((IDS, LABELS), "{}.*tuple"),
    "no labels": (batches(IDS), "labels|_ds"),
    **{kind: (batches(*bad), message) for kind, (*bad, message) in BAD_BATCHES.items()},
}


@pytest.mark.parametrize("place", ["train_ds", "validation_ds"])
@pytest.mark.parametrize("kind", BAD_SETS)
def test_train_tbptt_refuses_bad_data_and_names_it(kind, place):
    bad, message = BAD_SETS[kind]
    with pytest.raises(ValueError, match=message.format(place)):
        train_on(**{place: bad}, vocab_size=VOCAB)


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
)
def test_train_tbptt_refuses_what_is_no_cell(cell):
    with pytest.raises(ValueError, match="(?s)`cell` must be .* Received: cell="):
        train_on(cell=cell)


def sentences(count, seed):
    """Makes sentences that one of their last three tokens decides."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    ids = [rng.integers(4, VOCAB, rng.integers(3, 9)).astype("int32") for _ in labels]
    for row, label in zip(ids, labels, strict=True):
        row[-rng.integers(1, 4)] = 2 + label
    return ids, labels


def to_batches(ids, labels, shuffle=False):
    options = {"batch_size": 16, "bucket_lengths": (8,), "shuffle": shuffle}
    return bucketed_batches(ids, labels, **options)


def train(count=96, shuffle=True, **options):
    settings = {
        "train_ds": to_batches(*sentences(count, seed=0), shuffle),
        "validation_ds": to_batches(*sentences(count, seed=1)),
        "t": 3,
        "units": 8,
        "embedding_dim": 8,
        "dropout": 0.0,
        "learning_rate": 0.03,
        "jit_compile": False,
    }
    return train_on(**settings | options)


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
    model, _ = train_on(cell="irnn", units=4, learning_rate=0.0)
    np.testing.assert_array_equal(model.cell.recurrent_kernel, np.eye(4))
    assert model.cell.activation is keras.activations.relu


def test_train_tbptt_takes_any_new_cell_and_labels_in_a_column(monkeypatch):
    compile_all(monkeypatch, **EAGER)
    data, cell = batches(IDS, LABELS[:, None]), make_stack("float32")
    model, _ = train_on(data, data, t=0, cell=cell)
    assert model.t == 0
    assert model.cell is cell
    assert model.embedding.embeddings.shape == (VOCAB, 128)
    before = model.get_weights()
    with pytest.raises(ValueError, match="`cell` must be new"):
        train_on(data, data, cell=cell)
    np.testing.assert_equal(model.get_weights(), before)


def test_the_vocabulary_covers_both_data_sets(monkeypatch):
    compile_all(monkeypatch, **EAGER)
    few = batches(IDS[2:], LABELS[2:])
    for data in ((few, BATCH), (BATCH, few)):
        model, _ = train_on(*data, t=1, units=2)
        assert model.embedding.embeddings.shape[0] == VOCAB


def test_the_rate_falls_along_half_a_cosine_and_training_can_go_on():
    watch = Watch()
    options = {"epochs": 5, "global_clipnorm": 0.25, "weight_decay": 0.07}
    model, history = train(callbacks=[watch], **options)
    assert watch.epochs == [0, 1, 2, 3, 4]
    assert len(watch.rates) == len(watch.norms) == 30
    expected = 0.03 * (1 + np.cos(np.pi * np.arange(30) / 30)) / 2
    np.testing.assert_allclose(watch.rates, expected, rtol=1e-4, atol=1e-8)
    assert min(watch.norms) > 0
    assert isinstance(model.optimizer, keras.optimizers.AdamW)
    assert model.optimizer.global_clipnorm == 0.25
    assert model.optimizer.weight_decay == 0.07

    # The model is that of the last validation.
    data, before = to_batches(*sentences(96, seed=1)), model.get_weights()
    loss = model.evaluate(data, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(loss, history.history["val_loss"][-1], rtol=1e-5)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.03)
    model.t = 2
    model.fit(data, verbose=0)
    assert all(move.any() for move in moves(before, model.get_weights()))


def test_the_seed_decides():
    runs = [train(count=32, dropout=0.3, seed=seed)[1].history for seed in (0, 0, 5)]
    assert runs[0] == runs[1] != runs[2]
