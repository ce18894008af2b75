"""Autoencoders in which every decoder layer inverts its encoder layer.

The encoder is f_n ∘ … ∘ f_1 with hidden states h_0 = x and h_i = f_i(h_{i−1}); the
decoder passes on ĥ_n = h_n and ĥ_{i−1} = g_i(ĥ_i). Training minimises

    FVU(x, ĥ_0)  +  λ Σ_i √FVU(h_{i−1}, g_i(h_i))  +  μ Σ_i 1 / PR(h_i),

that is reconstruction, inversion layer by layer, and a price on states that vary in
few directions; the terms are defined in `losses.py`. The middle one, which costs a
second pass through every decoder layer, is taken on every other image of a batch, to
halve that cost. How close the layers come is measured by `inversion_report`.

```python
model = build_autoencoder("dense")
model.compile("adam", jit_compile=True)
model.fit(images, batch_size=128, epochs=20)
rows = inversion_report(model, test_images)
```
"""

import math
import numbers

import keras
from keras import ops

from q3_inverse_ae.losses import EveryOther, InversionLoss, RankLoss, StopGradient
from q3_inverse_ae.report import IMAGE_SHAPE, inversion_report

__all__ = ["build_autoencoder", "inversion_report"]

# Every choice, the default first.
CHOICES = {
    "kind": ("dense", "conv"),
    "error": ("relative", "squared", "absolute"),
    "scope": ("joint", "local", "chain"),
    "decoder_form": ("affine_activation", "inverse_affine"),
}
SLOPE = 0.2  # of leaky ReLU below 0, in Keras: invertible and far from linear
WIDTHS = {"dense": (512, 128, 64), "conv": (8, 32, 64)}  # units; filters
INVERSION_WEIGHT = {"dense": 0.2, "conv": 0.1}
# Kernel size, strides and padding: 28² to 14², 7², 3² and 1² positions.
WINDOWS = ((4, 2, "same"), (4, 2, "same"), (3, 2, "valid"), (3, 1, "valid"))


def build_autoencoder(
    kind,
    code_dim=32,
    *,
    widths=None,
    inversion_weight=None,
    rank_weight=0.02,
    error="relative",
    scope="joint",
    decoder_form="affine_activation",
    tied=False,
    name=None,
):
    """Builds an autoencoder of MNIST digits with its losses inside: `fit(images)`.

    Both kinds have four encoder layers f_i, leaky ReLU but for the code, and four
    decoder layers g_i, linear at the pixels, from `(28, 28, 1)` images in [0, 1] to a
    code and back. The decoder starts as the transpose of the encoder, which starts
    orthogonal. The losses are relative to variances within a batch, and the inversion
    terms of scope "joint" and "local" see every other image of it; the history has the
    FVU of the `reconstruction` and of `inversion_1` to `inversion_4`.

    Args:
        kind: "dense", or "conv" for convolutions and transposed convolutions alone,
            down to one position.
        code_dim: int, units or channels of the code.
        widths: three ints, units or filters of the layers before the code. Defaults
            to 512, 128, 64 units or 8, 32, 64 filters.
        inversion_weight: float λ ≥ 0; 0 leaves the inversion terms out. Defaults to
            0.2 for "dense" and 0.1 for "conv".
        rank_weight: float μ ≥ 0; 0 leaves the rank terms out.
        error: of the inversion terms: "relative", √FVU, "squared", FVU, or "absolute",
            mean squared error.
        scope: how far they reach. "joint": g_i inverts the encoder's own h_i, and the
            gradient shapes all layers up to i; "local": only f_i and g_i, since
            h_{i−1} is taken as given; "chain": as "joint", but g_i is fed with ĥ_i,
            what the decoder really passes on.
        decoder_form: "affine_activation", act(Wz + b), or "inverse_affine",
            W act⁻¹(z) + b.
        tied: bool, whether the decoder uses the encoder's kernels, transposed.
        name: str, name of the model.

    Returns:
        An `InverseAutoencoder`, not compiled; `compile` needs an optimizer, no loss.

    Raises:
        ValueError: If an argument is none of the above.
    """
    arguments = dict(locals())
    _check(**arguments)
    if inversion_weight is None:
        inversion_weight = arguments["inversion_weight"] = INVERSION_WEIGHT[kind]
    images = keras.Input(IMAGE_SHAPE)
    if kind == "dense":
        states = keras.layers.Reshape((-1,), name="pixels")(images)
    else:
        states = images
    sizes = (states.shape[-1], *(widths or WIDTHS[kind]), code_dim)
    pairs = [_pair(kind, i, sizes, decoder_form, tied) for i in range(1, len(sizes))]

    def invert(i, states, targets, estimates):
        loss = InversionLoss(inversion_weight, error, name=f"inversion_{i}")
        return loss(states, targets, estimates) if inversion_weight else states

    hidden = [states]
    for i, (encode, decode) in enumerate(pairs, start=1):
        inputs, states = states, encode(states)
        if scope != "chain" and inversion_weight:
            given = EveryOther(name=f"given_{i}")(inputs)
            coded = EveryOther(name=f"coded_{i}")(states)
            if scope == "local":
                given = StopGradient(name=f"stopped_{i}")(given)
                coded = encode(given)
            states = invert(i, states, given, decode(coded))
        if rank_weight:
            states = RankLoss(rank_weight, name=f"rank_{i}")(states)
        hidden.append(states)
    for i, (_, decode) in reversed(list(enumerate(pairs, start=1))):
        states = decode(states)
        if scope == "chain":
            states = invert(i, states, hidden[i - 1], states)
    states = InversionLoss(1.0, "squared", name="reconstruction")(
        states, hidden[0], states
    )
    if kind == "dense":
        states = keras.layers.Reshape(IMAGE_SHAPE, name="image")(states)
    if not tied:
        _start_mirrored(pairs)
    return InverseAutoencoder(images, states, pairs, arguments)


def _pair(kind, i, sizes, decoder_form, tied):
    """Makes encoder layer f_i, from `sizes[i - 1]` to `sizes[i]`, and g_i."""
    first, last = i == 1, i == len(sizes) - 1
    inverse_first = decoder_form == "inverse_affine"
    activation = None if last else "leaky_relu"
    undone = None if first or inverse_first else "leaky_relu"
    name = f"affine_{i}" if inverse_first else f"decoder_{i}"
    if kind == "dense":
        encode = keras.layers.Dense(
            sizes[i], activation, kernel_initializer="orthogonal", name=f"encoder_{i}"
        )
        affine = keras.layers.Dense(sizes[i - 1], undone, name=name)
    else:
        window, strides, padding = WINDOWS[i - 1]
        # A position lies in (window / strides)² windows where they overlap.
        gain = strides / window if strides > 1 else 1.0
        encode = keras.layers.Conv2D(
            sizes[i],
            window,
            strides,
            padding,
            activation=activation,
            kernel_initializer=keras.initializers.Orthogonal(gain),
            name=f"encoder_{i}",
        )
        affine = keras.layers.Conv2DTranspose(
            sizes[i - 1], window, strides, padding, activation=undone, name=name
        )
    if tied:
        affine = Transposed(encode, sizes[i - 1], undone, name=name)
    if not inverse_first:
        return encode, affine
    inverse = [] if last else [keras.layers.LeakyReLU(1 / SLOPE)]
    return encode, keras.Sequential([*inverse, affine], name=f"decoder_{i}")


def _start_mirrored(pairs):
    """Sets every decoder kernel to its encoder's, transposed."""
    for encode, decode in pairs:
        kernel = encode.kernel  # of a convolution it serves both directions as it is
        kernel = ops.transpose(kernel) if len(kernel.shape) == 2 else kernel
        decode.trainable_weights[0].assign(kernel)


class Transposed(keras.layers.Layer):
    """The decoder layer that has its encoder layer's kernel, and its own bias.

    Args:
        encode: built or unbuilt `Dense` or `Conv2D` layer.
        size: int, units or filters that come out.
        activation: name of an activation or None.
        **kwargs: for `keras.layers.Layer`.
    """

    def __init__(self, encode, size, activation, **kwargs):
        super().__init__(**kwargs)
        self.encode = encode
        self.size = size
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        self.bias = self.add_weight(shape=(self.size,), initializer="zeros")

    def call(self, states):
        layer = self.encode
        if isinstance(layer, keras.layers.Dense):
            states = states @ ops.transpose(layer.kernel)
        else:
            states = ops.conv_transpose(
                states, layer.kernel, layer.strides, layer.padding
            )
        return self.activation(states + self.bias)


def _check(kind, code_dim, widths, inversion_weight, rank_weight, tied, name, **rest):
    choices = {"kind": kind, **rest}
    for argument, allowed in CHOICES.items():
        if choices[argument] not in allowed:
            raise ValueError(
                f"`{argument}` must be one of {allowed}. Received: "
                f"{argument}={choices[argument]!r}"
            )
    depth = len(WINDOWS)
    sizes = [code_dim] if widths is None else [code_dim, *widths]
    if not all(_is_number(size, numbers.Integral) and size >= 1 for size in sizes):
        raise ValueError(
            "`code_dim` and `widths` must be ints of 1 or more. Received: "
            f"code_dim={code_dim!r}, widths={widths!r}"
        )
    if widths is not None and len(widths) != depth - 1:
        raise ValueError(f"`widths` must be {depth - 1} ints. Received: {widths!r}")
    weights = {"inversion_weight": inversion_weight, "rank_weight": rank_weight}
    if inversion_weight is None:  # the default of its kind
        del weights["inversion_weight"]
    for argument, weight in weights.items():
        if not (_is_number(weight, numbers.Real) and 0 <= weight < math.inf):
            raise ValueError(
                f"`{argument}` must be finite and 0 or more. Received: {weight!r}"
            )


def _is_number(value, kind):
    return isinstance(value, kind) and not isinstance(value, bool)


@keras.saving.register_keras_serializable("assignment14")
class InverseAutoencoder(keras.Model):
    """What `build_autoencoder` returns: a functional model that knows its pairs.

    Args:
        images: symbolic tensor `(batch, 28, 28, 1)`, the input.
        reconstructions: symbolic tensor of the same shape, the output.
        pairs: see below.
        arguments: dict, those of `build_autoencoder`; the model is saved as these.

    Attributes:
        pairs: list of `(f_i, g_i)`, encoder and decoder layer, from the pixels to the
            code. Dense layers take flat states.
    """

    def __init__(self, images, reconstructions, pairs, arguments):
        super().__init__(images, reconstructions, name=arguments["name"])
        self.pairs = pairs
        self.arguments = arguments

    def get_config(self):
        return dict(self.arguments)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return build_autoencoder(**config)
