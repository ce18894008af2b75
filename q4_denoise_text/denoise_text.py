"""A Transformer that restores corrupted text, and classifiers on its encoder.

The denoiser reads a corrupted sentence and predicts the original token at chosen
positions: the encoder turns tokens into hidden states, the decoder turns hidden states
into logits over the vocabulary, and the loss is the cross-entropy of the original
tokens (Vincent et al. 2008; Devlin et al. 2019). The encoder is a Keras model of its
own, which a classifier then reads sentiment from.

```python
denoiser = build_denoiser(vocab_size=8_000)
denoiser.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
denoiser.fit(batches)
classifier = build_classifier(denoiser.get_layer("encoder"))
```
"""

import numbers

import keras
import keras_nlp
from keras import ops

from q4_denoise_text.corpus import MAX_LENGTH, PAD
from q4_denoise_text.noise import corrupt

__all__ = ["build_classifier", "build_denoiser", "corrupt", "hidden_layers"]

DECODERS = ("parallel", "autoregressive")
HEADS = ("linear", "attention")


def build_denoiser(
    vocab_size,
    *,
    width=128,
    depth=4,
    heads=4,
    max_length=MAX_LENGTH,
    dropout=0.0,
    decoder="parallel",
    name=None,
):
    """Builds a denoising autoencoder of text.

    The encoder, `get_layer("encoder")`, maps `token_ids` `(batch, time)`, padded on
    the right with 0, to hidden states `(batch, time, width)`. Blocks normalise first
    (Xiong et al. 2020), and logits use the token embedding once more (Press and Wolf
    2017).

    Args:
        vocab_size: int.
        width: int, of the hidden states; a multiple of `heads`.
        depth: int, the number of Transformer blocks of the encoder.
        heads: int, of every attention layer.
        max_length: int, the longest input in tokens.
        dropout: float in [0, 1), of the blocks.
        decoder: "parallel", a Transformer block over all hidden states and logits for
            all the positions asked for at once: inputs `token_ids` and `positions`,
            `(batch, any)`. Or "autoregressive", a block that predicts each token from
            those before it and the *mean* of the hidden states alone (Wang et al.
            2021): inputs `token_ids` and `previous_ids`, the original moved on by one
            place.
        name: str, name of the model.

    Returns:
        A `Denoiser` with logits `(batch, any, vocab_size)`, not compiled.

    Raises:
        ValueError: If an argument is none of the above.
    """
    arguments = dict(locals())
    _check_sizes(
        vocab_size=vocab_size,
        width=width,
        depth=depth,
        heads=heads,
        max_length=max_length,
    )
    if width % heads:
        raise ValueError(
            "`width` must be a multiple of `heads`. Received: "
            f"width={width}, heads={heads}"
        )
    _check_dropout(dropout)
    _check_choice("decoder", decoder, DECODERS)
    embed = keras_nlp.layers.TokenAndPositionEmbedding(
        vocab_size,
        max_length,
        width,
        # Smaller ones drown in what the blocks add: training then stands still at
        # the frequencies of the words for several hundred steps.
        embeddings_initializer=_normal(0.1),
        name="embedding",
    )
    block = {
        "intermediate_dim": 4 * width,
        "num_heads": heads,
        "dropout": dropout,
        "activation": "gelu",
        "kernel_initializer": _normal(),
        "normalize_first": True,
    }
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    padding_mask = ops.not_equal(token_ids, PAD)  # (batch, time)
    hidden_states = _build_encoder(embed, block, depth)(token_ids)
    if decoder == "parallel":
        second = positions = keras.Input((None,), dtype="int32", name="positions")
        layer = keras_nlp.layers.TransformerEncoder(**block, name="decoder")
        states = layer(hidden_states, padding_mask=padding_mask)
    else:
        second = keras.Input((None,), dtype="int32", name="previous_ids")
        sentence = keras.layers.GlobalAveragePooling1D(keepdims=True, name="sentence")
        layer = keras_nlp.layers.TransformerDecoder(**block, name="decoder")
        states = layer(embed(second), sentence(hidden_states, mask=padding_mask))
        # The head wants positions: all of them, in order.
        positions = ops.cumsum(ops.ones_like(second), axis=1) - 1
    states = keras.layers.LayerNormalization(name="decoder_norm")(states)
    logits = keras_nlp.layers.MaskedLMHead(
        token_embedding=embed.token_embedding,
        intermediate_activation="gelu",
        kernel_initializer=_normal(),
        name="logits",
    )(states, mask_positions=positions)
    inputs = {"token_ids": token_ids, second.name: second}
    return Denoiser(inputs, logits, arguments)


def _build_encoder(embed, block, depth):
    """Builds the encoder on an embedding layer; `block` are arguments of its blocks."""
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    padding_mask = ops.not_equal(token_ids, PAD)  # (batch, time)
    hidden_states = embed(token_ids)  # (batch, time, width)
    for i in range(1, depth + 1):
        layer = keras_nlp.layers.TransformerEncoder(**block, name=f"block_{i}")
        hidden_states = layer(hidden_states, padding_mask=padding_mask)
    hidden_states = keras.layers.LayerNormalization(name="norm")(hidden_states)
    return keras.Model(token_ids, hidden_states, name="encoder")


@keras.saving.register_keras_serializable("assignment14")
class Denoiser(keras.Model):
    """What `build_denoiser` returns: a functional model that is saved as its arguments.

    Saved layer by layer, it would come back with an output embedding of its own.

    Args:
        inputs: dict of two symbolic int32 tensors by their names, see `build_denoiser`.
        logits: symbolic tensor `(batch, any, vocab_size)`.
        arguments: dict, those of `build_denoiser`.
    """

    def __init__(self, inputs, logits, arguments):
        super().__init__(inputs, logits, name=arguments["name"] or "denoiser")
        self.arguments = arguments

    def get_config(self):
        return dict(self.arguments)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return build_denoiser(**config)


def hidden_layers(encoder, dropout=None):
    """Copies an encoder into a model that returns the states of all its layers.

    Args:
        encoder: from `build_denoiser(...).get_layer("encoder")`.
        dropout: float, of the copy's blocks; None leaves it as it is.

    Returns:
        A `keras.Model` from token ids to a list of `(batch, time, width)`: the
        embeddings, what comes out of each block, the last one normalised.
    """

    def copy(layer):
        config = layer.get_config()
        if dropout is not None and "dropout" in config:
            config["dropout"] = dropout
        return type(layer).from_config(config)

    copied = keras.models.clone_model(encoder, clone_function=copy)
    copied.set_weights(encoder.get_weights())
    blocks = [layer for layer in copied.layers if layer.name.startswith("block_")]
    layers = [copied.get_layer("embedding"), *blocks[:-1], copied.get_layer("norm")]
    states = [layer.output for layer in layers]
    return keras.Model(copied.input, states, name="encoder")


def build_classifier(
    encoder,
    *,
    frozen=True,
    head="attention",
    layer=None,
    units=512,
    dropout=0.3,
    name=None,
):
    """Builds a binary classifier on a copy of an encoder.

    Args:
        encoder: from `build_denoiser(...).get_layer("encoder")`; it is left alone.
        frozen: bool, whether the copy's weights stay as they are. False is for
            fine-tuning, with a lower rate for the encoder (`FineTuning`).
        head: "linear", one weight for each number of the states of all layers,
            averaged over the sentence; or "attention", a learned mix of all layers
            (Peters et al. 2018), a hidden layer, and a weighted average over the
            sentence for each of four attention heads.
        layer: int, the only layer that the head "linear" reads; 0 is the embeddings,
            None all of them.
        units: int, of the hidden layer of the head "attention".
        dropout: float in [0, 1), of the head, and, unless frozen, a third of it in the
            encoder.
        name: str, name of the model.

    Returns:
        A `keras.Model` from `token_ids` `(batch, time)` to logits `(batch, 1)`.

    Raises:
        ValueError: If an argument is none of the above.
    """
    _check_sizes(units=units)
    _check_dropout(dropout)
    _check_choice("head", head, HEADS)
    layers = hidden_layers(encoder, 0.0 if frozen else dropout / 3)
    if frozen:
        layers = Frozen(layers, name="encoder")
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    padding_mask = ops.not_equal(token_ids, PAD)  # (batch, time)
    states = layers(token_ids)  # a list of (batch, time, width)
    if head == "linear":
        if layer is None:
            states = ops.concatenate(states, axis=-1)
        else:
            states = states[layer]
        pool = keras.layers.GlobalAveragePooling1D(name="mean")
        features = pool(states, mask=padding_mask)  # (batch, layers * width)
    else:
        states = [keras.layers.LayerNormalization()(layer) for layer in states]
        states = LayerMix(name="mix")(states)
        states = keras.layers.Dropout(dropout)(states)
        states = keras.layers.Dense(units, "gelu", name="hidden")(states)
        scores = keras.layers.Dense(4, name="scores")(states)  # (batch, time, 4)
        weights = keras.layers.Softmax(axis=1, name="attention")(
            scores, mask=padding_mask[:, :, None]
        )
        features = ops.einsum("bth,btu->bhu", weights, states)
        features = keras.layers.Flatten()(features)  # (batch, 4 * units)
        features = keras.layers.Dropout(dropout)(features)
    logits = keras.layers.Dense(1, name="logits")(features)
    return keras.Model(token_ids, logits, name=name or "classifier")


@keras.saving.register_keras_serializable("assignment14")
class Frozen(keras.layers.Wrapper):
    """Runs a layer whose weights stay as they are, in a loaded model too."""

    def build(self, input_shape=None):
        super().build(input_shape)
        # A loaded layer says that it is frozen when what it holds is not yet: setting
        # the same value again would do nothing.
        self.layer.trainable = True
        self.layer.trainable = False

    def call(self, inputs):
        return self.layer(inputs, training=False)


@keras.saving.register_keras_serializable("assignment14")
class LayerMix(keras.layers.Layer):
    """A weighted average of states; the weights are a softmax and start equal."""

    def build(self, input_shape):
        self.logits = self.add_weight(shape=(len(input_shape),), initializer="zeros")

    def call(self, states):
        weights = ops.softmax(self.logits)
        return sum(weights[i] * layer for i, layer in enumerate(states))

    def compute_output_shape(self, input_shape):
        return input_shape[0]


@keras.saving.register_keras_serializable("assignment14")
class FineTuning(keras.optimizers.AdamW):
    """AdamW with a lower learning rate for some weights.

    Args:
        learning_rate: float or schedule.
        slow: collection of paths of variables, such as those of an encoder.
        slow_rate: float, their learning rate is so many times the others'.
        **kwargs: for `keras.optimizers.AdamW`.
    """

    def __init__(self, learning_rate=1e-3, slow=(), slow_rate=0.3, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.slow = sorted(slow)
        self.slow_rate = slow_rate

    def build(self, variables):
        super().build(variables)
        slow = set(self.slow)
        self.rates = [self.slow_rate if v.path in slow else 1.0 for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        rate = self.rates[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * rate)

    def get_config(self):
        return super().get_config() | {"slow": self.slow, "slow_rate": self.slow_rate}


def _normal(stddev=0.02):
    return keras.initializers.RandomNormal(stddev=stddev)


def _check_sizes(**sizes):
    for name, size in sizes.items():
        whole = isinstance(size, numbers.Integral) and not isinstance(size, bool)
        if not whole or size < 1:
            raise ValueError(
                f"`{name}` must be an int of 1 or more. Received: {name}={size!r}"
            )


def _check_dropout(dropout):
    if not (isinstance(dropout, numbers.Real) and 0 <= dropout < 1):
        raise ValueError(f"`dropout` must lie in [0, 1). Received: dropout={dropout!r}")


def _check_choice(name, choice, allowed):
    if choice not in allowed:
        raise ValueError(f"`{name}` must be one of {allowed}. Received: {choice!r}")
