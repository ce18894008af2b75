"""A Transformer that denoises text, and classifiers on its encoder.

The denoiser reads a corrupted sentence and predicts the original token at chosen
positions. The encoder maps tokens to hidden states, the decoder maps hidden states to
logits over the vocabulary, and the loss is the cross-entropy of the original tokens
(Vincent et al. 2008; Devlin et al. 2019). A classifier then reads sentiment from the
encoder.

```python
denoiser = build_denoiser(vocab_size=8_000)
loss = keras.losses.SparseCategoricalCrossentropy(
    from_logits=True, reduction="mean_with_sample_weight"
)
denoiser.compile("adam", loss)
denoiser.fit(denoising_batches(rows), steps_per_epoch=500)
classifier = build_classifier(denoiser.get_layer("encoder"))
```
"""

import hashlib
import json
import numbers
from pathlib import Path

import keras
import keras_nlp
from keras import ops

from q4_denoise_text.data import MAX_LENGTH, PAD, corrupt, make_tokenizer

__all__ = [
    "build_classifier",
    "build_denoiser",
    "corrupt",
    "hidden_layers",
    "load_published",
]

HEADS = ("linear", "attention")
FOLDER = Path(__file__).parent / "results"
WEIGHTS = FOLDER / "denoiser.weights.h5"
VOCABULARY = FOLDER / "vocabulary.txt"
RECORD = FOLDER / "pretraining.json"


def build_denoiser(
    vocab_size,
    *,
    width=128,
    depth=4,
    heads=4,
    max_length=MAX_LENGTH,
    dropout=0.0,
    name="denoiser",
):
    """Builds a denoising autoencoder of text.

    Args:
        vocab_size: int.
        width: int, of the hidden states, a multiple of `heads`.
        depth: int, the number of Transformer blocks of the encoder.
        heads: int, of every attention layer.
        max_length: int, the longest input in tokens.
        dropout: float in [0, 1), of the embeddings and the blocks.
        name: str, name of the model.

    Returns:
        A `Denoiser`, not compiled.

    Raises:
        ValueError: If a size is not an int of 1 or more, `width` is no multiple of
            `heads`, or `dropout` is outside [0, 1).

    Example:

    >>> denoiser = build_denoiser(8_000, width=64, depth=2)
    >>> denoiser.encoder.output_shape
    (None, None, 64)
    """
    return Denoiser(
        vocab_size,
        width=width,
        depth=depth,
        heads=heads,
        max_length=max_length,
        dropout=dropout,
        name=name,
    )


@keras.saving.register_keras_serializable("assignment14")
class Denoiser(keras.Model):
    """Predicts the original tokens of corrupted sentences.

    The decoder is one more Transformer block; a dense layer, a normalization and logits
    (`MaskedLMHead`) follow at the positions asked for. Blocks normalize first (Xiong et
    al. 2020), and the logits use the token embedding again (Press and Wolf 2017).

    Args:
        vocab_size: see `build_denoiser`.
        width: see `build_denoiser`.
        depth: see `build_denoiser`.
        heads: see `build_denoiser`.
        max_length: see `build_denoiser`.
        dropout: see `build_denoiser`.
        frozen: list of names of layers that are not trained. A layer that is trained
            inside a frozen encoder is frozen, too, in a loaded model.
        **kwargs: `name`, `trainable`. Layers have the global dtype policy.

    Call arguments:
        inputs: dict of int32 tensors, `token_ids` `(batch, time)`, padded on the right
            with 0, and `positions` `(batch, n)`.

    Returns:
        Logits, a tensor of shape `(batch, n, vocab_size)`.

    Attributes:
        encoder: functional `keras.Model` from `token_ids` to hidden states
            `(batch, time, width)`.
        decoder: the block behind it.

    Raises:
        ValueError: see `build_denoiser`.

    Example: see `build_denoiser`.

    Reference:
        [Xiong et al., 2020](https://arxiv.org/abs/2002.04745),
        [Press and Wolf, 2017](https://arxiv.org/abs/1608.05859)
    """

    def __init__(
        self,
        vocab_size,
        *,
        width=128,
        depth=4,
        heads=4,
        max_length=MAX_LENGTH,
        dropout=0.0,
        frozen=(),
        **kwargs,
    ):
        self.sizes = {
            "vocab_size": vocab_size,
            "width": width,
            "depth": depth,
            "heads": heads,
            "max_length": max_length,
        }
        _check_sizes(**self.sizes)
        if width % heads:
            raise ValueError(
                "`width` must be a multiple of `heads`. Received: "
                f"width={width}, heads={heads}"
            )
        _check_dropout("dropout", dropout)
        super().__init__(**kwargs)
        self.dropout = float(dropout)
        normal = keras.initializers.RandomNormal(stddev=0.02)
        embedding = keras_nlp.layers.TokenAndPositionEmbedding(
            vocab_size,
            max_length,
            width,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=0.1),
            name="embedding",
        )
        block = {
            "intermediate_dim": 4 * width,
            "num_heads": heads,
            "dropout": dropout,
            "activation": "gelu",
            "kernel_initializer": normal,
            "normalize_first": True,
        }
        self.encoder = self.build_encoder(embedding, block, depth)
        self.decoder = keras_nlp.layers.TransformerEncoder(**block, name="decoder")
        self.norm = keras.layers.LayerNormalization(name="decoder_norm")
        self.logits = keras_nlp.layers.MaskedLMHead(
            token_embedding=embedding.token_embedding,
            intermediate_activation="gelu",
            kernel_initializer=normal,
            name="logits",
        )
        # Built now, so that there are weights to load and to freeze.
        self({name: ops.zeros((1, 1), "int32") for name in ("token_ids", "positions")})
        for layer in self.layers_by_depth():
            if layer.name in frozen:
                layer.trainable = False

    def build_encoder(self, embedding, block, depth):
        """Builds the encoder on an embedding; `block` are arguments of its blocks."""
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        padding_mask = ops.not_equal(token_ids, PAD)  # (batch, time)
        states = keras.layers.Dropout(self.dropout, name="embedding_dropout")(
            embedding(token_ids)
        )
        for i in range(1, depth + 1):
            layer = keras_nlp.layers.TransformerEncoder(**block, name=f"block_{i}")
            states = layer(states, padding_mask=padding_mask)
        states = keras.layers.LayerNormalization(name="norm")(
            states
        )  # (batch, time, width)
        return keras.Model(token_ids, states, name="encoder")

    def call(self, inputs, training=None):
        token_ids = inputs["token_ids"]
        padding_mask = ops.not_equal(token_ids, PAD)
        states = self.encoder(token_ids, training=training)
        states = self.decoder(states, padding_mask=padding_mask, training=training)
        return self.logits(self.norm(states), mask_positions=inputs["positions"])

    def layers_by_depth(self):
        """Returns the layers, followed by those of the encoder."""
        return [*self.layers, *self.encoder.layers]

    def get_config(self):
        frozen = [each.name for each in self.layers_by_depth() if not each.trainable]
        return (
            super().get_config()
            | self.sizes
            | {
                "dropout": self.dropout,
                "frozen": frozen,
            }
        )


def load_published():
    """Loads the published denoiser.

    Returns:
        `(denoiser, tokenizer, record)`. The record is a dict with the history of its
        training.

    Raises:
        FileNotFoundError: If there are no weights.
        ValueError: If the weights are not those whose digest was published.

    Example:

    ```python
    denoiser, tokenizer, record = load_published()
    classifier = build_classifier(denoiser.get_layer("encoder"))
    ```
    """
    record = json.loads(RECORD.read_text("utf-8"))
    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    if digest != record["sha256"]:
        raise ValueError(
            f"{WEIGHTS} is not the published file: its sha256 is {digest} instead of "
            f"{record['sha256']}. Run `git checkout {WEIGHTS.name}` in its folder."
        )
    tokenizer = make_tokenizer(str(VOCABULARY))
    denoiser = build_denoiser(**record["size"])
    denoiser.load_weights(WEIGHTS)
    return denoiser, tokenizer, record


def hidden_layers(encoder, dropout=None):
    """Copies an encoder into a model that returns the states of all its layers.

    Args:
        encoder: from `build_denoiser(...).get_layer("encoder")`.
        dropout: float, of the copy's embeddings and blocks; None keeps it.

    Returns:
        A `keras.Model` from token ids to a list of `(batch, time, width)`: the
        embeddings, and the output of each block, the last one normalized.
    """

    def copy(layer):
        config = layer.get_config()
        if dropout is not None:
            config |= {name: dropout for name in ("dropout", "rate") if name in config}
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
    encoder_dropout=0.1,
    name=None,
):
    """Builds a binary classifier on a copy of an encoder.

    Args:
        encoder: from `build_denoiser(...).get_layer("encoder")`; it is left alone.
        frozen: bool, whether the copy is not trained. As for any layer of Keras,
            `get_layer("encoder").trainable` changes it later.
        head: "linear", one weight for each number of the states of all layers,
            averaged over the sentence; or "attention", a learned mix of all layers
            (Peters et al. 2018), a hidden layer, and a weighted average over the
            sentence for each of four attention heads.
        layer: int from -(depth + 1) to depth, the only layer that the head reads: 0 is
            the embeddings, -1 the encoder's output. None reads all of them.
        units: int, of the hidden layer of the head "attention".
        dropout: float in [0, 1), of the head "attention".
        encoder_dropout: float in [0, 1), of the encoder while it is trained.
        name: str, name of the model.

    Returns:
        A `keras.Model` from `token_ids` `(batch, time)`, padded on the right with 0,
        to logits `(batch, 1)`. A row without any token gets a finite logit too.

    Raises:
        ValueError: If an argument is not one of those listed.

    Example:

    >>> encoder = build_denoiser(8_000).get_layer("encoder")
    >>> classifier = build_classifier(encoder, head="linear")
    >>> len(classifier.trainable_variables)
    2

    Reference:
        Mixed layers: [Peters et al., 2018](https://arxiv.org/abs/1802.05365); several
        weighted averages: [Lin et al., 2017](https://arxiv.org/abs/1703.03130)
    """
    _check_sizes(units=units)
    _check_dropout("dropout", dropout)
    _check_dropout("encoder_dropout", encoder_dropout)
    if head not in HEADS:
        raise ValueError(f"`head` must be one of {HEADS}. Received: {head!r}")
    layers = Encoder(hidden_layers(encoder, encoder_dropout), name="encoder")
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    states = layers(token_ids)  # a list of (batch, time, width)
    layers.trainable = not frozen
    if layer is not None:
        states = [states[_check_layer(layer, len(states))]]
    present = ops.not_equal(token_ids, PAD)[:, :, None]  # (batch, time, 1)
    if head == "linear":
        states = ops.concatenate(states, axis=-1)
        present = ops.cast(present, states.dtype)
        count = ops.maximum(ops.sum(present, axis=1), 1)
        features = ops.sum(states * present, axis=1) / count  # (batch, layers * width)
    else:
        states = [keras.layers.LayerNormalization()(layer) for layer in states]
        states = LayerMix(name="mix")(states)
        states = keras.layers.Dropout(dropout)(states)
        states = keras.layers.Dense(units, "gelu", name="hidden")(states)
        scores = keras.layers.Dense(4, name="scores")(states)  # (batch, time, 4)
        weights = keras.layers.Softmax(axis=1, name="attention")(scores, mask=present)
        features = ops.einsum("bth,btu->bhu", weights, states)
        features = keras.layers.Flatten()(features)  # (batch, 4 * units)
        features = keras.layers.Dropout(dropout)(features)
    logits = keras.layers.Dense(1, name="logits")(features)
    return keras.Model(token_ids, logits, name=name or "classifier")


@keras.saving.register_keras_serializable("assignment14")
class Encoder(keras.layers.Wrapper):
    """Runs a layer, without dropout while it is frozen.

    Frozen means `trainable = False`, which also holds for a loaded copy. Freeze the
    whole of it: Keras forgets that a single layer inside was frozen.

    Args:
        layer: `keras.Model`, see `hidden_layers`.

    Call arguments:
        inputs: as for the layer.

    Returns:
        What the layer returns.
    """

    def build(self, input_shape=None):
        super().build(input_shape)
        # Of a loaded copy, only the layer knows that it is frozen, its weights do not.
        # Keras ignores the assignment of a value that is there already.
        if not self.trainable:
            self.trainable = True
            self.trainable = False

    def call(self, inputs, training=None):
        return self.layer(inputs, training=training if self.trainable else False)


@keras.saving.register_keras_serializable("assignment14")
class LayerMix(keras.layers.Layer):
    """Averages states with learned weights, a softmax that starts equal.

    Call arguments:
        states: list of tensors of one shape.

    Returns:
        A tensor of that shape.
    """

    def build(self, input_shape):
        self.logits = self.add_weight(shape=(len(input_shape),), initializer="zeros")

    def call(self, states):
        weights = ops.softmax(self.logits)
        return sum(weights[i] * layer for i, layer in enumerate(states))

    def compute_output_shape(self, input_shape):
        return input_shape[0]


@keras.saving.register_keras_serializable("assignment14")
class FineTuning(keras.optimizers.AdamW):
    """AdamW with a lower learning rate for some weights, such as a pre-trained encoder.

    All weights decay. Keras 3.13, which Colab has, lacks `MultiOptimizer`.

    Args:
        learning_rate: float or schedule.
        slow: collection of paths of variables, `variable.path`. An earlier
            `exclude_from_weight_decay` is overwritten.
        slow_rate: float, factor on the learning rate of these variables, which scales
            their weight decay too.
        **kwargs: for `keras.optimizers.AdamW`.

    Example:

    ```python
    slow = [variable.path for variable in classifier.get_layer("encoder").variables]
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    classifier.compile(FineTuning(5e-3, slow, slow_rate=0.1), loss)
    ```
    """

    def __init__(self, learning_rate=1e-3, slow=(), slow_rate=0.1, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.slow = sorted(slow)
        self.slow_rate = slow_rate

    def build(self, variables):
        slow = [self.slow_rate != 1 and v.path in self.slow for v in variables]
        self.rates = [self.slow_rate if each else 1.0 for each in slow]
        # Keras decays all weights at one rate; `update_step` does it for these.
        self.exclude_from_weight_decay(
            var_list=[v for v, each in zip(variables, slow, strict=True) if each]
        )
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        rate = self.rates[self._get_variable_index(variable)]
        if rate != 1.0 and self.weight_decay:
            decay = ops.cast(self.weight_decay * rate * learning_rate, variable.dtype)
            self.assign_sub(variable, decay * variable)
        super().update_step(gradient, variable, learning_rate * rate)

    def get_config(self):
        return super().get_config() | {"slow": self.slow, "slow_rate": self.slow_rate}


def _check_sizes(**sizes):
    for name, size in sizes.items():
        whole = isinstance(size, numbers.Integral) and not isinstance(size, bool)
        if not whole or size < 1:
            raise ValueError(
                f"`{name}` must be an int of 1 or more. Received: {name}={size!r}"
            )


def _check_dropout(name, rate):
    number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
    if not (number and 0 <= rate < 1):
        raise ValueError(f"`{name}` must lie in [0, 1). Received: {name}={rate!r}")


def _check_layer(layer, count):
    whole = isinstance(layer, numbers.Integral) and not isinstance(layer, bool)
    if not (whole and -count <= layer < count):
        raise ValueError(
            f"`layer` must be None or an int from {-count} to {count - 1}. "
            f"Received: layer={layer!r}"
        )
    return layer
