"""q4_denoise_text/denoise_text.py: the denoiser, its encoder, classifiers on it."""

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


def test_autoregressive_logits_know_the_past_and_the_sentence_alone():
    denoiser = small_denoiser(decoder="autoregressive")
    token_ids, previous_ids = sentences(), sentences(seed=3)
    previous_ids[previous_ids == 0] = 7

    def logits(ids, previous):
        return denoiser({"token_ids": ids, "previous_ids": previous}).numpy()

    before = logits(token_ids, previous_ids)
    assert before.shape == (4, 9, VOCAB)
    later = previous_ids.copy()
    later[:, 5] = 30
    after = logits(token_ids, later)
    np.testing.assert_allclose(after[:, :5], before[:, :5], atol=1e-5)
    assert np.abs(after[:, 5:] - before[:, 5:]).max() > 1e-3
    # What it is told of the sentence is a mean: more padding does not move it.
    np.testing.assert_allclose(
        logits(wider(token_ids), previous_ids), before, atol=1e-4
    )
    other = logits(sentences(seed=5), previous_ids)
    assert np.abs(other - before).max() > 1e-3


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

    def fine_tuning(slow):
        paths = [w.path for w in slow]
        return denoise_text.FineTuning(0.1, paths, slow_rate=0.25, weight_decay=0.0)

    usual = steps(lambda slow: keras.optimizers.AdamW(0.1, weight_decay=0.0), False)
    fast, slow = steps(fine_tuning, True)
    np.testing.assert_allclose(fast, usual[0], rtol=1e-5)
    np.testing.assert_allclose(slow, usual[1] / 4, rtol=1e-5)
    config = denoise_text.FineTuning(0.1, ["b", "a"], slow_rate=0.5).get_config()
    again = denoise_text.FineTuning.from_config(config)
    assert (again.slow, again.slow_rate) == (["a", "b"], 0.5)


@pytest.mark.parametrize("decoder", ["parallel", "autoregressive"])
def test_a_denoiser_is_saved_and_loaded(tmp_path, decoder):
    denoiser, token_ids = small_denoiser(decoder=decoder), sentences()
    compile_denoiser(denoiser, steps=10)
    denoiser.optimizer.build(denoiser.trainable_variables)
    denoiser.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.count_params() == denoiser.count_params()
    assert loaded.optimizer.get_config() == denoiser.optimizer.get_config()
    second = "positions" if decoder == "parallel" else "previous_ids"
    inputs = {"token_ids": token_ids, second: positions_of(token_ids)}
    np.testing.assert_array_equal(loaded(inputs), denoiser(inputs))
    np.testing.assert_array_equal(
        loaded.get_layer("encoder")(token_ids), states(denoiser, token_ids)
    )


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


def test_dropout_is_of_training_alone_and_off_in_a_frozen_encoder():
    encoder, token_ids = small_denoiser(dropout=0.5).get_layer("encoder"), sentences()

    def blocks_are_noisy(frozen):
        classifier = build_classifier(
            encoder, frozen=frozen, head="linear", dropout=0.6
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
        {"decoder": "serial"},
    ],
)
def test_bad_arguments_of_a_denoiser_are_named(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        build_denoiser(**{"vocab_size": VOCAB} | SMALL | bad)


@pytest.mark.parametrize("bad", [{"head": "mean"}, {"units": 0}, {"dropout": -0.1}])
def test_bad_arguments_of_a_classifier_are_named(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        build_classifier(small_denoiser().get_layer("encoder"), **bad)
