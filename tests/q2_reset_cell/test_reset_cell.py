"""`q2_reset_cell.reset_cell` computes the three equations of its first lines.

The oracles share no code with the module: the equations written out in NumPy, finite
differences of that, and stock Keras layers.
"""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from q2_reset_cell.reset_cell import ResetCell, ResetRNN
from tests.q1_tbptt.test_tbptt import finite_differences
from tests.two_devices import mirrored

BATCH, TIME, FEATURES, UNITS = 3, 5, 3, 4

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(BATCH, TIME, FEATURES))
STATE = RNG.normal(0, 0.5, (BATCH, UNITS))
PROBE = RNG.normal(size=(BATCH, TIME, UNITS))  # weighs the outputs of a loss
MASK = np.array([[1, 1, 0, 1, 1], [0, 0, 1, 0, 1], [1, 1, 1, 0, 0]], bool)

# The same recurrence: `RNN(ResetCell(...))` and `ResetRNN(...)`.
KINDS = pytest.mark.parametrize("kind", ["cell", "layer"])

LOOP = "return_sequences return_state go_backwards stateful unroll zero_output_for_mask"
OF_THE_LOOP = dict.fromkeys(LOOP.split(), True)


def make(kind, dtype="float64", filled=True, units=UNITS, features=FEATURES, **options):
    """Returns a built layer, whose weights neither vanish nor saturate if `filled`."""
    loop = {name: options.pop(name) for name in OF_THE_LOOP if name in options}
    if kind == "layer":
        layer = ResetRNN(units, dtype=dtype, **loop, **options)
    else:
        cell = ResetCell(units, dtype=dtype, **options)
        layer = keras.layers.RNN(cell, dtype=dtype, **loop)
    layer.build((BATCH, TIME, features))
    if filled:
        fill(layer)
    return layer


def fill(layer, seed=1):
    # The gate's are larger: the default activation is to reach 0 and 1.
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        scale = 2.5 if weight.name.startswith("reset") else 0.6
        weight.assign(rng.normal(0, scale, weight.shape))


def values(layer):
    return {weight.name: weight.numpy() for weight in layer.weights}


def assign(layer, **new):
    for weight in layer.weights:
        if weight.name in new:
            weight.assign(np.broadcast_to(new[weight.name], weight.shape))


def gradients(layer, inputs=INPUTS, state=STATE, probe=PROBE, **options):
    """Returns the outputs and the gradients of their sum, weighed by `probe`."""
    inputs, state = tf.constant(inputs), tf.constant(state)
    weights = {weight.name: weight.value for weight in layer.weights}
    with tf.GradientTape() as tape:
        tape.watch([inputs, state])
        outputs = layer(inputs, initial_state=[state], **options)
        loss = tf.reduce_sum(outputs * probe)
    sources = {"inputs": inputs, "initial_state": state, **weights}
    found = tape.gradient(loss, sources)
    return outputs.numpy(), {name: found[name].numpy() for name in found}


def assert_close(found, expected, rtol=1e-12):
    atol = rtol * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol, atol)


def assert_gradients(found, expected, rtol):
    assert found.keys() == expected.keys()
    for name in expected:
        assert np.abs(expected[name]).max() > 1e-2, name
        assert_close(found[name], expected[name], rtol)


GATES = {
    "hard_sigmoid": lambda a: np.clip(a + 3, 0, 6) / 6,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "softmax": lambda a: np.exp(a) / np.exp(a).sum(-1, keepdims=True),
}


def numpy_gates(weights, inputs, reset_activation="hard_sigmoid"):
    a = inputs @ weights["reset_kernel"] + weights.get("reset_bias", 0)
    return GATES[reset_activation](a)


def numpy_states(weights, inputs=INPUTS, state=0, mask=None, **options):
    """Returns h_1 ... h_T, of shape (batch, time, units)."""
    gates = numpy_gates(weights, inputs, **options)
    state = np.zeros((len(inputs), UNITS)) + state
    states = []
    for k in range(inputs.shape[1]):
        a = inputs[:, k] @ weights["kernel"] + state @ weights["recurrent_kernel"]
        new = np.tanh(a + weights.get("bias", 0)) * gates[:, k]
        state = new if mask is None else np.where(mask[:, k, None], new, state)
        states.append(state)
    return np.stack(states, axis=1)


VARIANTS = [
    *({"reset_activation": name} for name in GATES),
    {"use_bias": False},
    {"shared_reset": True},
    {"shared_reset": True, "use_bias": False, "reset_activation": "sigmoid"},
]


@KINDS
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_outputs_and_gradients_are_those_of_the_equations(kind, options):
    layer = make(kind, return_sequences=True, **options)
    weights = values(layer)
    assert len(weights) == (3 if "use_bias" in options else 5)
    columns = 1 if "shared_reset" in options else UNITS
    assert weights["reset_kernel"].shape == (FEATURES, columns)
    activation = options.get("reset_activation", "hard_sigmoid")

    def states(arrays):
        inputs, state = arrays["inputs"], arrays["initial_state"]
        return numpy_states(arrays, inputs, state, reset_activation=activation)

    arrays = {"inputs": INPUTS, "initial_state": STATE, **weights}
    expected = finite_differences(lambda moved: (states(moved) * PROBE).sum(), arrays)
    outputs, found = gradients(layer)
    assert_close(outputs, states(arrays))
    assert_gradients(found, expected, rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_open_gate_makes_it_the_cell_of_elman_bit_by_bit(dtype):
    ours = make("cell", dtype, return_sequences=True)
    assign(ours, reset_kernel=0, reset_bias=100)
    elman = keras.layers.SimpleRNNCell(UNITS, dtype=dtype)
    stock = keras.layers.RNN(elman, return_sequences=True, dtype=dtype)
    stock.build(INPUTS.shape)
    assign(stock, **values(ours))
    inputs = INPUTS.astype(dtype)
    np.testing.assert_array_equal(ours(inputs), stock(inputs))
    hoisted = make("layer", dtype, return_sequences=True)
    assign(hoisted, **values(ours))
    assert_close(hoisted(inputs), stock(inputs), 1e-6 if dtype == "float32" else 1e-12)


@KINDS
@pytest.mark.parametrize("shared", [False, True])
def test_a_closed_gate_cuts_off_its_own_and_all_earlier_inputs(kind, shared):
    layer = make(kind, return_sequences=True, shared_reset=shared)
    reset_kernel = values(layer)["reset_kernel"] / 10
    reset_kernel[-1] = -100  # the last feature closes every gate
    assign(layer, reset_kernel=reset_kernel, reset_bias=1)
    inputs, other = INPUTS.copy(), INPUTS[::-1].copy()
    inputs[..., -1] = other[..., -1] = 0
    inputs[:, 2, -1] = other[:, 2, -1] = 1
    other[:, 3:] = inputs[:, 3:]
    assert (inputs[0, :3] != other[0, :3]).sum() == 6  # also at the closed step

    late = np.where(np.arange(TIME)[:, None] > 2, PROBE, 0)
    outputs, found = gradients(layer, inputs, probe=late)
    others = layer(other, initial_state=[STATE + 1]).numpy()
    assert not outputs[:, 2].any()
    assert (outputs[0, :2] != others[0, :2]).all()
    np.testing.assert_array_equal(outputs[:, 2:], others[:, 2:])
    assert not found["initial_state"].any()
    assert not found["inputs"][:, :3].any()
    assert found["inputs"][:, 3:, :-1].all()

    # It was the gate that cut.
    inputs[:, 2, -1] = 0
    _, found = gradients(layer, inputs, probe=late)
    assert found["initial_state"].all() and found["inputs"][:, :3, :-1].all()


@KINDS
@pytest.mark.parametrize("unroll", [False, True])
def test_masked_steps_pass_the_state_unchanged_and_return_0_if_told(kind, unroll):
    options = {"return_sequences": True, "unroll": unroll}
    layer = make(kind, return_state=True, **options)
    outputs, last = layer(INPUTS, mask=MASK)
    expected = numpy_states(values(layer), mask=MASK)
    assert_close(outputs, expected)
    np.testing.assert_array_equal(outputs[:, -1], last)
    np.testing.assert_array_equal(outputs[0, 2], outputs[0, 1])
    with_zeros = make(kind, zero_output_for_mask=True, **options)
    assert_close(with_zeros(INPUTS, mask=MASK), expected * MASK[..., None])

    mask = MASK & [[True], [False], [True]]  # nothing of the second sequence
    _, last = layer(INPUTS, mask=mask, initial_state=[STATE])
    np.testing.assert_array_equal(last[1], STATE[1])
    assert_close(last, numpy_states(values(layer), state=STATE, mask=mask)[:, -1])


@KINDS
def test_padding_of_an_embedding_changes_nothing(kind):
    embedding = keras.layers.Embedding(7, FEATURES, mask_zero=True, dtype="float64")
    model = keras.Sequential([embedding, make(kind)])
    bare = np.array([[3, 1, 6]])
    states = numpy_states(values(model.layers[1]), embedding(bare).numpy())
    for ids in ([[0, 0, 3, 1, 6]], [[3, 1, 6, 0, 0]], [[3, 0, 1, 0, 6]], bare):
        assert_close(model(np.array(ids)), states[:, -1])


@KINDS
def test_the_loop_takes_any_number_of_steps_and_every_option(kind):
    layer = make(kind, return_sequences=True)
    expected = numpy_states(values(layer))
    unknown = tf.TensorSpec((None, None, FEATURES), "float64")
    function = tf.function(layer, input_signature=[unknown])
    for steps in (1, 3, TIME):
        assert_close(function(INPUTS[:, :steps]), expected[:, :steps])

    assert_close(make(kind)(INPUTS), expected[:, -1])
    assert_close(make(kind, unroll=True)(INPUTS), expected[:, -1])
    backwards = make(kind, go_backwards=True, return_sequences=True)
    assert_close(backwards(INPUTS), numpy_states(values(backwards), INPUTS[:, ::-1]))

    stateful = make(kind, stateful=True, return_sequences=True)
    assert_close(stateful(INPUTS[:, :2]), expected[:, :2])
    assert_close(stateful(INPUTS[:, 2:]), expected[:, 2:])
    stateful.reset_state()
    assert_close(stateful(INPUTS), expected)


def test_a_stack_of_cells_is_a_stack_of_layers():
    cells = [ResetCell(UNITS, dtype="float64") for _ in range(2)]
    stack = keras.layers.StackedRNNCells(cells, dtype="float64")
    layer = keras.layers.RNN(stack, return_sequences=True, dtype="float64")
    layer.build(INPUTS.shape)
    fill(layer)
    first = numpy_states(values(cells[0]))
    assert_close(layer(INPUTS), numpy_states(values(cells[1]), first))


@pytest.mark.parametrize("options", [{}, {"training": False}, {"training": True}])
@pytest.mark.parametrize("dropout", [0, 0.4])
@pytest.mark.parametrize("recurrent_dropout", [0, 0.4])
def test_the_layer_is_the_cell_in_a_loop(dropout, recurrent_dropout, options):
    rates = dict(dropout=dropout, recurrent_dropout=recurrent_dropout)

    def run(kind):
        layer = make(kind, return_sequences=True, seed=7, **rates)
        return [gradients(layer, **options) for _ in range(2)]

    ours, expected = run("layer"), run("cell")
    for one, other in zip(ours, expected, strict=True):
        assert_close(one[0], other[0])
        assert_gradients(one[1], other[1], 1e-12)

    (first, _), (second, _) = ours
    exact = numpy_states(values(make("cell")), state=STATE)
    if options.get("training") and dropout + recurrent_dropout > 0:
        assert np.abs(first - exact).max() > 0.01
        assert (first != second).any()  # every call draws another mask
    else:
        assert_close(first, exact)
        np.testing.assert_array_equal(first, second)


@KINDS
def test_a_dropped_feature_is_hidden_from_candidate_and_gate_alike(kind):
    linear = dict(activation="linear", reset_activation="linear", units=8, features=8)
    layer = make(kind, dropout=0.5, return_sequences=True, **linear)
    assign(layer, kernel=np.eye(8), recurrent_kernel=0, reset_kernel=np.eye(8))
    assign(layer, bias=1, reset_bias=2)
    found = layer(np.ones((50, TIME, 8)), training=True).numpy()
    # (m + 1)(m + 2), where m is 0 or, every second time, 1 / (1 - 0.5).
    assert set(found.flat) == {2.0, 12.0}
    assert 0.3 < (found[:, 0] == 2).mean() < 0.7
    assert (found == found[:, :1]).all()  # the same features at every step
    assert (found[0] != found[1:]).any()


@KINDS
def test_a_dropped_state_is_hidden_at_every_step(kind):
    linear = dict(activation="linear", return_sequences=True)
    layer = make(kind, recurrent_dropout=0.5, **linear)
    assign(layer, kernel=0, bias=0, recurrent_kernel=np.eye(UNITS))
    assign(layer, reset_kernel=0, reset_bias=100)
    inputs, ones = np.ones((50, TIME, FEATURES)), np.ones((50, UNITS))
    found = layer(inputs, initial_state=[ones], training=True).numpy()
    assert set(found[:, 0].flat) == {0.0, 2.0}
    assert_close(found, found[:, :1] * (2.0 ** np.arange(TIME))[:, None])


@pytest.mark.parametrize("shared", [False, True])
def test_reset_gate_takes_inputs_of_any_rank_or_names_their_shape(shared):
    # Dropout does not reach it.
    cell = make("cell", shared_reset=shared, dropout=0.5).cell
    for inputs in (INPUTS, INPUTS[0], INPUTS[0, 0]):
        assert_close(cell.reset_gate(inputs), numpy_gates(values(cell), inputs))
    for shape in ((2,), (7, 4), (2, 5, 1)):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            cell.reset_gate(np.zeros(shape))


@pytest.mark.parametrize(
    "use",
    [
        lambda cell: cell(INPUTS[:, 0], [STATE]),
        lambda cell: cell.project(INPUTS),
        lambda cell: cell.step(cell.project(INPUTS[:, 0]), STATE),
        lambda cell: cell.reset_gate(INPUTS),
    ],
    ids=["call", "project", "step", "reset_gate"],
)
def test_a_use_outside_a_layer_leaves_no_dropout_mask_behind(use):
    layer = make("cell", dropout=0.4, recurrent_dropout=0.4, return_sequences=True)
    use(layer.cell)
    # A mask of 3 sequences would not fit these 50.
    many = np.ones((50, TIME, FEATURES))
    first, second = (layer(many, training=True).numpy() for _ in range(2))
    assert first.shape == (50, TIME, UNITS) and (first != second).any()


@KINDS
def test_initial_weights(kind):
    layer = make(kind, "float32", filled=False)
    weights = values(layer)
    assert (weights["kernel"] != weights["reset_kernel"]).all()
    np.testing.assert_array_equal(weights["bias"], np.zeros(UNITS))
    recurrent = weights["recurrent_kernel"]
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(UNITS), atol=1e-6)
    gates = layer.cell.reset_gate(np.zeros((1, FEATURES)))
    np.testing.assert_allclose(gates, np.full((1, UNITS), 2 / 3), rtol=1e-6)


@KINDS
def test_every_weight_has_its_initializer(kind):
    names = ["kernel", "recurrent", "bias", "reset_kernel", "reset_bias"]
    options = {
        f"{name}_initializer": keras.initializers.Constant(k)
        for k, name in enumerate(names, 1)
    }
    weights = make(kind, filled=False, **options).weights
    for k, (name, weight) in enumerate(zip(names, weights, strict=True), 1):
        assert weight.name.startswith(name) and (weight.numpy() == k).all()


@KINDS
def test_a_kernel_regularizer_and_a_constraint_are_for_both_kernels(kind):
    regularizer = keras.regularizers.L2(0.1)
    layer = make(kind, kernel_regularizer=regularizer, kernel_constraint="non_neg")
    weights = values(layer)
    squares = [(weights[name] ** 2).sum() for name in ("kernel", "reset_kernel")]
    assert_close(sum(layer.losses), 0.1 * sum(squares), 1e-6)
    constrained = [w.name for w in layer.weights if w.constraint is not None]
    assert constrained == ["kernel", "reset_kernel"]


def test_an_activity_regularizer_adds_its_loss():
    layer = make("layer", activity_regularizer=keras.regularizers.L2(0.1))
    total = 0.1 * np.square(layer(INPUTS)).sum()
    # A mean over the batch, or a sum before Keras 3.14.
    assert np.isclose(sum(layer.losses), [total, total / BATCH], rtol=1e-5).any()


def test_a_frozen_layer_has_no_weights_to_train():
    layer = make("layer", trainable=False)
    assert len(layer.weights) == 5
    assert not layer.trainable_weights and not layer.cell.trainable_weights


OF_THE_CELL = {
    "activation": "sigmoid",
    "reset_activation": "relu",
    "use_bias": False,
    "kernel_initializer": keras.initializers.RandomNormal(seed=1),
    "recurrent_initializer": keras.initializers.RandomNormal(seed=2),
    "reset_kernel_initializer": keras.initializers.RandomNormal(seed=3),
    "bias_initializer": "ones",
    "reset_bias_initializer": keras.initializers.RandomNormal(seed=4),
    "shared_reset": True,
    "dropout": 0.1,
    "recurrent_dropout": 0.2,
    **{f"{name}_regularizer": "l2" for name in ("kernel", "recurrent", "bias")},
    **{f"{name}_constraint": "non_neg" for name in ("kernel", "recurrent", "bias")},
    "seed": 5,
    "trainable": False,
    "dtype": "float64",
}


@pytest.mark.parametrize(
    "layer_class, options",
    [
        (ResetCell, OF_THE_CELL),
        (ResetRNN, {**OF_THE_LOOP, **OF_THE_CELL, "activity_regularizer": "l2"}),
    ],
)
def test_every_option_is_in_the_config(layer_class, options):
    layer = layer_class(UNITS, name="n", **options)
    config, default = layer.get_config(), layer_class(3).get_config()
    json.dumps(config)
    assert {"units", "name", *options} <= config.keys()
    assert [name for name in default if config[name] == default[name]] == []
    assert layer_class.from_config(config).get_config() == config


@KINDS
def test_a_saved_model_is_the_same_model(kind, tmp_path):
    options = {**OF_THE_LOOP, **OF_THE_CELL, "return_state": False, "unroll": False}
    if kind == "layer":
        options["activity_regularizer"] = "l2"
    layer = make(kind, **options)
    sequences = keras.Input((TIME, FEATURES), batch_size=BATCH, dtype="float64")
    model = keras.Sequential([sequences, layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0]) is type(layer)
    assert type(loaded.layers[0].cell) is type(layer.cell)
    # Of a shape, JSON makes a list.
    assert loaded.to_json() == model.to_json()
    for _ in range(2):  # it is stateful
        np.testing.assert_array_equal(loaded(INPUTS), model(INPUTS))
    assert model(INPUTS).numpy().any()


class Holder(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs):
        return self.layer(inputs)


@pytest.mark.parametrize("kinds", [("cell", "layer"), ("layer", "cell")])
@pytest.mark.parametrize("by_file", [False, True])
def test_layer_and_cell_load_the_weights_of_each_other(kinds, by_file, tmp_path):
    source, target = (Holder(make(kind, "float32")) for kind in kinds)
    inputs = INPUTS.astype("float32")
    expected = source(inputs)
    target(inputs)
    fill(target.layer, seed=9)
    if by_file:
        source.save_weights(tmp_path / "some.weights.h5")
        target.load_weights(tmp_path / "some.weights.h5")
    else:
        target.set_weights(source.get_weights())
    np.testing.assert_allclose(target(inputs), expected, rtol=1e-5, atol=1e-6)


def fitted_weights(**options):
    """Returns the weights before and after two steps on batches of two lengths."""
    first = make("cell", "float32", return_sequences=True)
    second = make("layer", "float32", features=UNITS)
    model = keras.Sequential([keras.Input((None, FEATURES)), first, second])
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.5), "mse", **options)
    for length in (TIME, 3):
        inputs, targets = INPUTS[:2, :length], PROBE[:2, 0]
        model.fit(inputs, targets, batch_size=2, verbose=0, shuffle=False)
    return before, model.get_weights()


def test_xla_and_two_mirrored_devices_take_the_steps_of_a_graph():
    start, expected = fitted_weights(jit_compile=False)
    _, by_xla = fitted_weights(jit_compile=True)
    _, by_two = mirrored(__name__, "fitted_weights(jit_compile=False)")
    for before, after, *found in zip(start, expected, by_xla, by_two, strict=True):
        assert np.abs(after - before).max() > 1e-3
        for one in found:
            np.testing.assert_allclose(one, after, rtol=1e-4, atol=1e-5)


@KINDS
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(kind, policy):
    layer = make(kind, policy, return_sequences=True)
    outputs = layer(INPUTS)
    gates = layer.cell.reset_gate(INPUTS)
    assert {weight.dtype for weight in layer.weights} == {"float32"}
    half = policy.removeprefix("mixed_")
    assert outputs.dtype == gates.dtype == half
    exact = numpy_states(values(layer)), numpy_gates(values(layer), INPUTS)
    for found, expected in zip((outputs, gates), exact, strict=True):
        atol = 0.004 if half == "float16" else 0.03
        np.testing.assert_allclose(tf.cast(found, "float64"), expected, 0, atol)


BAD = [
    *(("units", bad) for bad in (0, -1)),
    *(("dropout", bad) for bad in (-0.1, 1.0, float("nan"))),
    *(("recurrent_dropout", bad) for bad in (-0.1, 1.0, float("nan"))),
]


@pytest.mark.parametrize("make_layer", [ResetCell, ResetRNN])
@pytest.mark.parametrize("name, bad", BAD)
def test_a_bad_argument_is_named_with_what_was_received(make_layer, name, bad):
    # Keras answers for all but the dropouts.
    received = f"Received: {name}={bad!r}" if "dropout" in name else str(bad)
    with pytest.raises(ValueError, match=re.escape(received)):
        make_layer(**{"units": UNITS, name: bad})
