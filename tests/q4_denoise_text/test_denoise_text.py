"""`q4_denoise_text.denoise_text`: the denoiser, its encoder, classifiers on it."""

import functools

import keras
import keras_nlp
import numpy as np
import pytest

from q4_denoise_text import denoise_text
from q4_denoise_text.denoise_text import build_classifier, build_denoiser
from q4_denoise_text.pretraining import compile_denoiser

VOCAB = 40
SMALL = {"width": 16, "depth": 2, "heads": 2, "max_length": 24}


def sentences(time=9, seed=0):
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(5, VOCAB, (4, time)).astype("int32")
    for row, length in enumerate(rng.integers(3, time + 1, 4)):
        token_ids[row, length:] = 0
    return token_ids


def new_denoiser(**options):
    """Builds a denoiser with weights so large that everything matters."""
    denoiser = build_denoiser(VOCAB, **SMALL | options)
    rng = np.random.default_rng(1)
    for weight in denoiser.weights:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    return denoiser


small_denoiser = functools.cache(new_denoiser)


def small_encoder():
    return small_denoiser().get_layer("encoder")


def small_classifier(**options):
    classifier = build_classifier(small_encoder(), units=8, **options)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    classifier.compile("adam", loss, run_eagerly=True)
    return classifier


def logits_of(denoiser, token_ids, positions=None):
    """Of the same positions in all rows; None takes all of them."""
    positions = np.arange(token_ids.shape[1]) if positions is None else positions
    positions = np.tile(np.array(positions, "int32"), (len(token_ids), 1))
    return denoiser({"token_ids": token_ids, "positions": positions}).numpy()


def test_the_encoder_is_keras_nlps_layers_from_its_embedding_to_its_output():
    encoder, token_ids = small_encoder(), sentences()
    assert isinstance(encoder, keras.Model)
    assert encoder(token_ids).shape == (4, 9, 16)
    kinds = [type(layer) for layer in encoder.layers]
    assert kinds.count(keras_nlp.layers.TransformerEncoder) == SMALL["depth"]
    assert keras_nlp.layers.TokenAndPositionEmbedding in kinds
    layers = denoise_text.hidden_layers(encoder)(token_ids)
    assert len(layers) == SMALL["depth"] + 1
    np.testing.assert_allclose(layers[-1], encoder(token_ids), atol=1e-6)
    tokens, places = (w.numpy() for w in encoder.get_layer("embedding").weights)
    np.testing.assert_allclose(layers[0], tokens[token_ids] + places[:9], atol=1e-6)


def test_logits_are_asked_for_by_position():
    everywhere = logits_of(small_denoiser(), sentences())
    some = logits_of(small_denoiser(), sentences(), [2, 0])
    assert some.shape == (4, 2, VOCAB)
    np.testing.assert_allclose(some, everywhere[:, [2, 0]], atol=1e-5)


def test_more_padding_changes_no_state_and_no_logit():
    both = sentences(), np.pad(sentences(), ((0, 0), (0, 6)))
    present = both[0] > 0
    short, long = (small_encoder()(ids).numpy() for ids in both)
    np.testing.assert_allclose(long[:, :9][present], short[present], atol=1e-5)
    short, long = (logits_of(small_denoiser(), ids, [0, 1, 2]) for ids in both)
    np.testing.assert_allclose(long, short, atol=1e-5)


def test_words_are_read_in_both_directions():
    token_ids = np.arange(6, 12, dtype="int32")[None]
    changed = np.where(token_ids == 9, 20, token_ids)
    encoder = small_encoder()
    moved = np.abs(encoder(changed).numpy() - encoder(token_ids).numpy()).max((0, 2))
    assert (moved > 1e-4).all()


def test_the_loss_is_the_mean_cross_entropy_of_what_has_weight():
    denoiser, token_ids = small_denoiser(), sentences()
    compile_denoiser(denoiser, steps=10)
    rng = np.random.default_rng(0)
    positions = np.argsort(rng.random((4, 9)), axis=1)[:, :4].astype("int32")
    targets = np.take_along_axis(sentences(seed=9), positions, axis=1)
    weights = (targets > 0).astype("float32")
    assert 0 < weights.mean() < 1
    inputs = {"token_ids": token_ids, "positions": positions}
    found = denoiser.evaluate(
        inputs, targets, sample_weight=weights, verbose=0, return_dict=True
    )
    logits = denoiser(inputs).numpy().astype("float64")
    normal = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    right = np.take_along_axis(normal, targets[..., None], axis=-1)[..., 0]
    loss = -(right * weights).sum() / weights.sum()
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    hit = (logits.argmax(-1) == targets) * weights
    np.testing.assert_allclose(found["accuracy"], hit.sum() / weights.sum(), rtol=1e-5)


def test_dropout_is_active_in_fit_and_nowhere_else():
    denoiser, ids = new_denoiser(dropout=0.5), sentences()
    denoiser.compile("sgd", keras.losses.MeanSquaredError())
    denoiser.optimizer.learning_rate = 0.0
    batch = {"token_ids": ids, "positions": ids[:, :1] * 0}, np.zeros((4, 1, VOCAB))
    losses = denoiser.fit(*batch, epochs=3, verbose=0).history["loss"]
    assert len(set(losses)) == 3
    assert denoiser.evaluate(*batch, verbose=0) == denoiser.evaluate(*batch, verbose=0)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("head", ["linear", "attention"])
def test_training_moves_the_head_and_the_encoder_unless_it_is_frozen(head, frozen):
    original = small_encoder().get_weights()
    classifier = small_classifier(frozen=frozen, head=head)
    inside = {w.path for w in classifier.get_layer("encoder").weights}
    before = {w.path: w.numpy() for w in classifier.weights}
    assert len(before) == len(classifier.weights)
    classifier.fit(sentences(time=24), np.array([0, 1, 1, 0]), epochs=3, verbose=0)
    moved = {w.path: (before[w.path] != w.numpy()).any() for w in classifier.weights}
    # Of a softmax over words, what is added to all scores cancels out.
    assert all(moved[p] for p in moved if p not in inside and p != "scores/bias")
    if frozen:
        assert not any(moved[path] for path in inside)
    else:
        # So does the key's bias in attention.
        assert all(moved[p] for p in inside if not p.endswith("key/bias"))
    assert all(map(np.array_equal, original, small_encoder().get_weights()))


@pytest.mark.parametrize("layer", [None, 1])
def test_the_linear_head_is_a_dot_product_with_mean_states(layer):
    token_ids = sentences()
    classifier = small_classifier(head="linear", layer=layer)
    states = denoise_text.hidden_layers(small_encoder())(token_ids)
    states = np.concatenate(states, axis=-1) if layer is None else states[layer].numpy()
    present = (token_ids > 0)[..., None]
    mean = (states * present).sum(1) / present.sum(1)
    kernel, bias = (w.numpy() for w in classifier.get_layer("logits").weights)
    np.testing.assert_allclose(classifier(token_ids), mean @ kernel + bias, atol=1e-5)


def test_the_mix_of_layers_starts_as_their_mean_and_follows_its_weights():
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(2, 3, 4)).astype("float32") for _ in range(3)]
    mix = denoise_text.LayerMix()
    np.testing.assert_allclose(mix(layers), np.mean(layers, axis=0), atol=1e-6)
    mix.logits.assign([0.0, np.log(2), np.log(5)])
    expected = (layers[0] + 2 * layers[1] + 5 * layers[2]) / 8
    np.testing.assert_allclose(mix(layers), expected, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("factor", [0.25, 1.0])
def test_slow_weights_take_smaller_steps(factor, decay):
    def steps(optimizer):
        weights = [keras.Variable(np.ones(3), name=name) for name in "ab"]
        optimizer.apply([keras.ops.ones(3), keras.ops.ones(3)], weights)
        return [1 - w.numpy() for w in weights]

    usual, _ = steps(keras.optimizers.AdamW(0.1, decay))
    _, smaller = steps(keras.optimizers.AdamW(0.1 * factor, decay))
    options = {"slow_rate": factor, "weight_decay": decay}
    config = denoise_text.FineTuning(0.1, ["c", "b"], **options).get_config()
    optimizer = denoise_text.FineTuning.from_config(config)
    assert optimizer.slow == ["b", "c"]
    fast, slow = steps(optimizer)
    np.testing.assert_allclose(fast, usual, rtol=1e-5)
    np.testing.assert_allclose(slow, smaller, rtol=1e-5)


def copied(model, tmp_path, how):
    if how == "cloned":
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        return copy
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("how", ["saved", "cloned"])
@pytest.mark.parametrize("frozen", ["", "encoder", "block_1 decoder", "logits"])
def test_a_denoiser_is_copied_whole_with_its_frozen_layers(tmp_path, frozen, how):
    denoiser, token_ids = new_denoiser(dropout=0.25), sentences()
    for name in frozen.split():
        parent = denoiser.encoder if name.startswith("block") else denoiser
        parent.get_layer(name).trainable = False
    compile_denoiser(denoiser, steps=10)
    denoiser.optimizer.build(denoiser.trainable_variables)
    copy = copied(denoiser, tmp_path, how)
    assert copy.get_config() == denoiser.get_config()
    assert copy.count_params() == denoiser.count_params()  # tied embeddings
    if how == "saved":
        assert copy.optimizer.get_config() == denoiser.optimizer.get_config()
    trained = [[w.path for w in each.trainable_weights] for each in (denoiser, copy)]
    assert trained[0] == trained[1] != []
    assert (len(trained[0]) < len(denoiser.weights)) == bool(frozen)
    found, expected = (logits_of(each, token_ids) for each in (copy, denoiser))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(copy.encoder(token_ids), denoiser.encoder(token_ids))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_classifier_is_saved_and_stays_frozen_until_unfrozen(tmp_path, frozen):
    classifier = small_classifier(frozen=frozen)
    classifier.optimizer.build(classifier.trainable_variables)
    loaded = copied(classifier, tmp_path, "saved")
    np.testing.assert_array_equal(loaded(sentences()), classifier(sentences()))
    inside = len(small_encoder().weights)
    head = len(classifier.weights) - inside
    for model in (classifier, loaded):
        assert len(model.trainable_variables) == head + (0 if frozen else inside)
        model.get_layer("encoder").trainable = True
        assert len(model.trainable_variables) == head + inside
        model.get_layer("encoder").trainable = False
        assert len(model.trainable_variables) == head


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("head", ["linear", "attention"])
def test_neither_more_padding_nor_a_row_without_tokens_does_harm(head, frozen):
    classifier = small_classifier(frozen=frozen, head=head)
    token_ids = sentences()
    expected = classifier(token_ids).numpy()
    assert expected.shape == (4, 1)
    longer = np.pad(token_ids, ((0, 0), (0, 6)))
    np.testing.assert_allclose(classifier(longer), expected, atol=1e-5)
    token_ids[3] = 0
    logits = classifier(token_ids).numpy()
    np.testing.assert_allclose(logits[:3], expected[:3], atol=1e-5)
    assert np.isfinite(logits).all()
    classifier.fit(token_ids, np.array([0, 1, 1, 0]), verbose=0)
    assert all(np.isfinite(weight.numpy()).all() for weight in classifier.weights)


def test_the_attention_head_reads_one_layer_if_asked():
    token_ids = sentences()
    present = (token_ids > 0)[..., None]
    layers = denoise_text.hidden_layers(small_encoder())(token_ids)
    for layer in (0, 1, -1):
        classifier = small_classifier(layer=layer)
        (norm,) = [each for each in classifier.layers if "layer_norm" in each.name]
        get = classifier.get_layer
        states = get("hidden")(get("mix")([norm(layers[layer])]))
        weights = get("attention")(get("scores")(states), mask=present)
        features = np.einsum("bth,btu->bhu", weights, states)
        expected = get("logits")(features.reshape(4, -1))
        np.testing.assert_allclose(classifier(token_ids), expected, atol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_dropout_is_of_training_alone_and_off_in_a_frozen_encoder(frozen):
    options = {"head": "linear", "encoder_dropout": 0.2, "frozen": frozen}
    classifier = build_classifier(small_denoiser(dropout=0.5).encoder, **options)
    for training in (None, True):
        one, other = (classifier(sentences(), training=training) for _ in range(2))
        assert np.array_equal(one, other) == (frozen or not training)


def test_bad_arguments_of_a_denoiser_are_named():
    sizes = {"vocab_size": 0, "width": 15, "depth": True, "heads": 1.5}
    for name, value in {**sizes, "max_length": -1, "dropout": 1.0}.items():
        with pytest.raises(ValueError, match=f"`{name}`"):
            build_denoiser(**{"vocab_size": VOCAB} | SMALL | {name: value})


def test_bad_arguments_of_a_classifier_are_named():
    bad = [("head", "mean"), ("units", 0), ("dropout", -0.1), ("encoder_dropout", 1)]
    for name, value in bad + [("layer", n) for n in (3, -4, 9, "1", 1.0, True)]:
        with pytest.raises(ValueError, match=f"`{name}`"):
            build_classifier(small_encoder(), **{name: value})
