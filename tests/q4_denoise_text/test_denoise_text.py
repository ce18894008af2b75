"""`q4_denoise_text.denoise_text`: the denoiser, its encoder, classifiers on it."""

import functools
import itertools

import keras
import keras_nlp
import numpy as np
import pytest

from q4_denoise_text import denoise_text
from q4_denoise_text.denoise_text import build_classifier, build_denoiser
from q4_denoise_text.pretraining import compile_denoiser

VOCAB = 40
SMALL = {"width": 16, "depth": 2, "heads": 2, "max_length": 24}


def sentences(count=4, time=9, seed=0):
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(5, VOCAB, (count, time)).astype("int32")
    for row, length in enumerate(rng.integers(3, time + 1, count)):
        token_ids[row, length:] = 0
    return token_ids


def wider(token_ids, more=6):
    return np.pad(token_ids, ((0, 0), (0, more)))


@functools.cache
def small_denoiser(**options):
    """Builds a denoiser, once, with weights so large that everything matters."""
    denoiser = build_denoiser(VOCAB, **SMALL | options)
    rng = np.random.default_rng(1)
    for weight in denoiser.weights:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    return denoiser


def positions_of(token_ids):
    return np.tile(np.arange(token_ids.shape[1], dtype="int32"), (len(token_ids), 1))


def states(denoiser, token_ids):
    return denoiser.get_layer("encoder")(token_ids).numpy()


def test_the_encoder_is_a_model_of_its_own():
    denoiser = small_denoiser()
    encoder = denoiser.get_layer("encoder")
    assert isinstance(encoder, keras.Model)
    assert encoder(sentences()).shape == (4, 9, 16)
    logits = denoiser({"token_ids": sentences(), "positions": np.array([[0, 2]] * 4)})
    assert logits.shape == (4, 2, VOCAB)


def test_logits_are_asked_for_by_position():
    denoiser, token_ids = small_denoiser(), sentences()
    inputs = {"token_ids": token_ids, "positions": positions_of(token_ids)}
    everywhere = denoiser(inputs).numpy()
    some = denoiser({"token_ids": token_ids, "positions": np.array([[2, 0]] * 4)})
    np.testing.assert_allclose(some, everywhere[:, [2, 0]], atol=1e-5)


def test_more_padding_changes_no_state_and_no_logit():
    denoiser, token_ids = small_denoiser(), sentences()
    present = token_ids > 0
    np.testing.assert_allclose(
        states(denoiser, wider(token_ids))[:, :9][present],
        states(denoiser, token_ids)[present],
        atol=1e-5,
    )
    positions = np.zeros((4, 3), "int32") + [0, 1, 2]
    short, long = (
        denoiser({"token_ids": ids, "positions": positions}).numpy()
        for ids in (token_ids, wider(token_ids))
    )
    np.testing.assert_allclose(long, short, atol=1e-5)


def test_the_mask_reaches_every_attention_layer(monkeypatch):
    found = []
    attend = keras.layers.MultiHeadAttention.call

    def spy(self, *args, attention_mask=None, **kwargs):
        found.append(attention_mask)
        return attend(self, *args, attention_mask=attention_mask, **kwargs)

    denoiser, token_ids = small_denoiser(), sentences()
    monkeypatch.setattr(keras.layers.MultiHeadAttention, "call", spy)
    denoiser({"token_ids": token_ids, "positions": positions_of(token_ids)})
    assert len(found) == SMALL["depth"] + 1  # the decoder's too
    for mask in found:
        np.testing.assert_array_equal(mask.numpy()[:, 0] > 0, token_ids > 0)


def test_words_are_read_in_both_directions():
    denoiser, token_ids = small_denoiser(), sentences(time=6)
    token_ids[:] = np.arange(6, 12)
    changed = token_ids.copy()
    changed[:, 3] = 20
    moved = np.abs(states(denoiser, changed) - states(denoiser, token_ids)).max((0, 2))
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


def test_hidden_layers_run_from_the_embedding_to_the_encoders_output():
    denoiser, token_ids = small_denoiser(), sentences()
    encoder = denoiser.get_layer("encoder")
    layers = denoise_text.hidden_layers(encoder)(token_ids)
    assert len(layers) == SMALL["depth"] + 1
    np.testing.assert_allclose(layers[-1], encoder(token_ids), atol=1e-6)
    embedding = encoder.get_layer("embedding")
    tokens, places = (w.numpy() for w in embedding.weights)
    np.testing.assert_allclose(layers[0], tokens[token_ids] + places[:9], atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("head", ["linear", "attention"])
def test_training_moves_the_head_and_the_encoder_unless_it_is_frozen(head, frozen):
    encoder = small_denoiser().get_layer("encoder")
    original = [w.numpy() for w in encoder.weights]
    classifier = build_classifier(encoder, frozen=frozen, head=head, units=8)
    inside = {w.path for w in classifier.get_layer("encoder").weights}
    before = {w.path: w.numpy() for w in classifier.weights}
    assert len(before) == len(classifier.weights)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    classifier.compile("adam", loss, run_eagerly=True)
    labels = np.array([[0.0], [1.0], [1.0], [0.0]])
    classifier.fit(sentences(time=24), labels, epochs=3, verbose=0)
    moved = {w.path: (before[w.path] != w.numpy()).any() for w in classifier.weights}
    # Of a softmax over words, what is added to all scores cancels out.
    assert all(moved[p] for p in moved if p not in inside and p != "scores/bias")
    if frozen:
        assert not any(moved[path] for path in inside)
    else:
        # So does the key's bias in attention.
        assert all(moved[p] for p in inside if not p.endswith("key/bias"))
    after = [w.numpy() for w in encoder.weights]
    assert all(map(np.array_equal, original, after))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("head", ["linear", "attention"])
def test_more_padding_changes_no_classification(head, frozen):
    encoder = small_denoiser().get_layer("encoder")
    classifier = build_classifier(encoder, frozen=frozen, head=head, units=8)
    short, long = (classifier(ids).numpy() for ids in (sentences(), wider(sentences())))
    assert short.shape == (4, 1)
    np.testing.assert_allclose(long, short, atol=1e-5)


@pytest.mark.parametrize("layer", [None, 1])
def test_the_linear_head_is_a_dot_product_with_mean_states(layer):
    encoder, token_ids = small_denoiser().get_layer("encoder"), sentences()
    classifier = build_classifier(encoder, head="linear", layer=layer)
    states = denoise_text.hidden_layers(encoder)(token_ids)
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


def test_slow_weights_take_smaller_steps():
    def steps(optimizer, slow):
        weights = [keras.Variable(np.ones(3), name=name) for name in "ab"]
        optimizer = optimizer(weights[1:] if slow else [])
        optimizer.apply([keras.ops.ones(3), keras.ops.ones(3)], weights)
        return [1 - w.numpy() for w in weights]

    for decay, factor in itertools.product((0.0, 0.5), (0.25, 1.0)):
        usual, smaller = (
            steps(lambda slow, r=rate, d=decay: keras.optimizers.AdamW(r, d), False)
            for rate in (0.1, 0.1 * factor)
        )
        options = {"slow_rate": factor, "weight_decay": decay}
        fast, slow = steps(
            lambda slow, o=options: denoise_text.FineTuning(
                0.1, [weight.path for weight in slow], **o
            ),
            True,
        )
        np.testing.assert_allclose(fast, usual[0], rtol=1e-5)
        np.testing.assert_allclose(slow, smaller[1], rtol=1e-5)
    config = denoise_text.FineTuning(0.1, ["b", "a"], slow_rate=0.5).get_config()
    again = denoise_text.FineTuning.from_config(config)
    assert (again.slow, again.slow_rate) == (["a", "b"], 0.5)


def copied(model, tmp_path, how):
    if how == "cloned":
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        return copy
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("how", ["saved", "cloned"])
def test_a_denoiser_is_copied_whole(tmp_path, how):
    denoiser, token_ids = small_denoiser(), sentences()
    compile_denoiser(denoiser, steps=10)
    denoiser.optimizer.build(denoiser.trainable_variables)
    copy = copied(denoiser, tmp_path, how)
    assert copy.count_params() == denoiser.count_params()  # tied embeddings
    if how == "saved":
        assert copy.optimizer.get_config() == denoiser.optimizer.get_config()
    inputs = {"token_ids": token_ids, "positions": positions_of(token_ids)}
    np.testing.assert_array_equal(copy(inputs), denoiser(inputs))
    np.testing.assert_array_equal(states(copy, token_ids), states(denoiser, token_ids))


@pytest.mark.parametrize("how", ["saved", "cloned"])
@pytest.mark.parametrize("names", [["encoder"], ["block_1", "decoder"], ["logits"]])
def test_frozen_layers_survive_copies(tmp_path, names, how):
    denoiser = build_denoiser(VOCAB, **SMALL, dropout=0.25)
    for name in names:
        parent = denoiser.encoder if name.startswith("block") else denoiser
        parent.get_layer(name).trainable = False
    copy = copied(denoiser, tmp_path, how)
    trained = [[w.path for w in each.trainable_weights] for each in (denoiser, copy)]
    assert 0 < len(trained[0]) < len(denoiser.weights)
    assert trained[0] == trained[1]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_classifier_is_saved_and_loaded_and_stays_frozen(tmp_path, frozen):
    encoder = small_denoiser().get_layer("encoder")
    classifier = build_classifier(encoder, frozen=frozen, units=8)
    classifier.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    classifier.optimizer.build(classifier.trainable_variables)
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(sentences()), classifier(sentences()))
    trained = len(classifier.trainable_variables)
    assert len(loaded.trainable_variables) == trained
    assert (trained < len(classifier.variables) / 2) == frozen


def test_an_encoder_is_frozen_and_unfrozen_as_any_layer(tmp_path):
    encoder = small_denoiser().get_layer("encoder")
    classifier = build_classifier(encoder, units=8)
    head = len(classifier.trainable_variables)
    for model in (classifier, copied(classifier, tmp_path, "saved")):
        model.get_layer("encoder").trainable = True
        assert len(model.trainable_variables) == head + len(encoder.weights)
        model.get_layer("encoder").trainable = False
        assert len(model.trainable_variables) == head


@pytest.mark.parametrize("head", ["linear", "attention"])
def test_a_row_without_tokens_does_no_harm(head):
    encoder, token_ids = small_denoiser().get_layer("encoder"), sentences()
    classifier = build_classifier(encoder, head=head, units=8)
    others = classifier(token_ids).numpy()[:3]
    token_ids[3] = 0
    logits = classifier(token_ids).numpy()
    np.testing.assert_allclose(logits[:3], others, atol=1e-5)
    assert np.isfinite(logits).all()
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    classifier.compile("adam", loss, run_eagerly=True)
    classifier.fit(token_ids, np.array([0, 1, 1, 0]), verbose=0)
    assert all(np.isfinite(weight.numpy()).all() for weight in classifier.weights)


def test_the_attention_head_reads_one_layer_if_asked():
    encoder, token_ids = small_denoiser().get_layer("encoder"), sentences()
    layers = denoise_text.hidden_layers(encoder)(token_ids)
    for layer in (0, 1, -1):
        classifier = build_classifier(encoder, layer=layer, units=8)
        names = ["mix", "hidden", "scores", "attention", "flatten", "logits"]
        (norm,) = [each for each in classifier.layers if "layer_norm" in each.name]
        mix, hidden, scores, attention, flatten, logits = (
            next(each for each in classifier.layers if each.name.startswith(name))
            for name in names
        )
        states = hidden(mix([norm(layers[layer])]))
        weights = attention(scores(states), mask=(token_ids > 0)[..., None])
        features = np.einsum("bth,btu->bhu", weights, states)
        expected = logits(flatten(features))
        np.testing.assert_allclose(classifier(token_ids), expected, atol=1e-5)


def test_dropout_is_of_training_alone_and_off_in_a_frozen_encoder():
    encoder, token_ids = small_denoiser(dropout=0.5).get_layer("encoder"), sentences()

    def blocks_are_noisy(frozen):
        classifier = build_classifier(
            encoder, frozen=frozen, head="linear", encoder_dropout=0.2
        )
        twice = [classifier(token_ids, training=True).numpy() for _ in range(2)]
        assert np.array_equal(*[classifier(token_ids).numpy() for _ in range(2)])
        return not np.array_equal(*twice)

    assert blocks_are_noisy(frozen=False)
    assert not blocks_are_noisy(frozen=True)


def test_all_layers_are_keras_nlps_where_it_has_them():
    kinds = [type(layer) for layer in small_denoiser().get_layer("encoder").layers]
    assert kinds.count(keras_nlp.layers.TransformerEncoder) == SMALL["depth"]
    assert keras_nlp.layers.TokenAndPositionEmbedding in kinds


@pytest.mark.parametrize(
    "bad",
    [
        {"vocab_size": 0},
        {"width": 15},
        {"depth": True},
        {"heads": 1.5},
        {"max_length": -1},
        {"dropout": 1.0},
    ],
)
def test_bad_arguments_of_a_denoiser_are_named(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        build_denoiser(**{"vocab_size": VOCAB} | SMALL | bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"head": "mean"},
        {"units": 0},
        {"dropout": -0.1},
        {"encoder_dropout": 1},
        *({"layer": layer} for layer in (3, -4, 9, "1", 1.0, True)),
    ],
)
def test_bad_arguments_of_a_classifier_are_named(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        build_classifier(small_denoiser().get_layer("encoder"), **bad)
