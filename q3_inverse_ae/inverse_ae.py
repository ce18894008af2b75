"""Autoencoders in which every decoder layer inverts its encoder layer.

The encoder is f_n ∘ … ∘ f_1 with hidden states h_0 = x and h_i = f_i(h_{i−1}). The
decoder computes ĥ_n = h_n and ĥ_{i−1} = g_i(ĥ_i). Training minimizes

    FVU(x, ĥ_0) + Σ_i [λ FVU(h_{i−1}, g_i(h_i)) + κ FVU(h_{i−1}, ĥ_{i−1})
                       − μ log PR(h_i)]

FVU is the normalized error 1 − R² (`unexplained_variance`), PR the participation ratio
(`participation_ratio`), and i runs from 1 to n. The first term is the reconstruction.
The second one asks every decoder layer for the
inverse of its encoder layer, on what the encoder produces, and the third one on what
the decoder passes on. The last one keeps the hidden states from collapsing to a few
directions, which would be trivially easy to invert.

Example:

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
import tensorflow as tf
from keras import ops

from q3_inverse_ae.images import IMAGE_SHAPE, check_images, checked_batches
from q3_inverse_ae.report import inversion_report

__all__ = ["InverseAutoencoder", "build_autoencoder", "inversion_report"]

WIDTHS = {"dense": (512, 256, 128), "conv": (8, 32, 64)}  # units; filters
INVERSION_WEIGHT = {"dense": 0.5, "conv": 0.1}  # λ
CHAIN_WEIGHT = {"dense": 0.1, "conv": 0.05}  # κ
RANK_WEIGHT = {"dense": 0.02, "conv": 0.014}  # μ
# Kernel size, strides and padding: 28² to 14², 7², 3² and 1² positions.
WINDOWS = ((4, 2, "same"), (4, 2, "same"), (3, 2, "valid"), (3, 1, "valid"))
IMAGES_ONLY = (
    "`fit` takes images only, which are input and target: no `y`, no `sample_weight`, "
    "no `class_weight`."
)


def build_autoencoder(kind, code_dim=32, *, inversion_weight=None, rank_weight=None):
    """Builds an autoencoder of MNIST digits whose layers invert each other.

    Args:
        kind: "dense", or "conv" for convolutions and transposed convolutions only,
            down to one position.
        code_dim: int, units or channels of the code.
        inversion_weight: float λ ≥ 0. Defaults to 0.5 for "dense" and 0.1 for "conv".
            0 leaves out the errors along the chain as well.
        rank_weight: float μ ≥ 0. Defaults to 0.02 for "dense" and 0.014 for "conv".

    Returns:
        An `InverseAutoencoder`, not compiled. `compile` needs an optimizer and no loss.

    Raises:
        ValueError: If an argument is not one of those listed.

    Example:

    >>> model = build_autoencoder("conv", code_dim=16)
    >>> model.encoder.output_shape
    (None, 1, 1, 16)
    """
    return InverseAutoencoder(
        kind, code_dim, inversion_weight=inversion_weight, rank_weight=rank_weight
    )


@keras.saving.register_keras_serializable("assignment14")
class InverseAutoencoder(keras.Model):
    """An autoencoder that is trained for inverse layers, not only for its output.

    Both kinds have four encoder layers f_i, with leaky ReLU except for the code, and
    four decoder layers g_i, linear at the pixels. The decoder starts as the transpose
    of the encoder, which starts orthogonal up to a gain. `fit` takes images only: they
    are input and target. Variances are those of a batch, so batches of 32 or more are
    advised; a batch of one image teaches nothing. The history has the normalized error
    of the `reconstruction` and of every layer, `inversion_1` to `inversion_4`.

    Args:
        kind: see `build_autoencoder`.
        code_dim: see `build_autoencoder`.
        inversion_weight: see `build_autoencoder`.
        rank_weight: see `build_autoencoder`.
        frozen: list of names of layers that are not trained.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        images: float tensor of shape `(batch, 28, 28, 1)`, in [0, 1].

    Returns:
        Reconstructions, a tensor of the same shape.

    Attributes:
        encoder: functional `keras.Model` from images to codes.
        decoder: functional `keras.Model` from codes to images.
        pairs: list of `(f_i, g_i)`, from the pixels to the code. Dense layers take
            flat states.
        chain_weight: float κ, 0.1 for "dense" and 0.05 for "conv".

    Raises:
        ValueError: see `build_autoencoder`.

    Example: see `build_autoencoder`.

    Reference:
        Participation ratio: [Gao et al., 2017](https://doi.org/10.1101/214262)
    """

    def __init__(
        self,
        kind,
        code_dim=32,
        *,
        inversion_weight=None,
        rank_weight=None,
        frozen=(),
        **kwargs,
    ):
        _check(kind, code_dim, inversion_weight, rank_weight)
        super().__init__(**kwargs)
        if inversion_weight is None:
            inversion_weight = INVERSION_WEIGHT[kind]
        if rank_weight is None:
            rank_weight = RANK_WEIGHT[kind]
        self.kind = kind
        self.code_dim = int(code_dim)
        self.inversion_weight = float(inversion_weight)
        self.chain_weight = CHAIN_WEIGHT[kind]
        self.rank_weight = float(rank_weight)
        channels = IMAGE_SHAPE[-1] if kind == "conv" else math.prod(IMAGE_SHAPE)
        self.sizes = (channels, *WIDTHS[kind], self.code_dim)
        depth = range(1, len(self.sizes))

        images = keras.Input(IMAGE_SHAPE, dtype=self.compute_dtype, name="images")
        states = images
        if kind == "dense":
            states = self.reshape((channels,), "pixels")(images)
        for i in depth:
            states = self.encoder_layer(i)(states)
        self.encoder = keras.Model(images, states, name="encoder")

        codes = keras.Input(states.shape[1:], dtype=self.compute_dtype, name="codes")
        states = codes
        for i in reversed(depth):
            states = self.decoder_layer(i)(states)
        if kind == "dense":
            states = self.reshape(IMAGE_SHAPE, "image")(states)
        self.decoder = keras.Model(codes, states, name="decoder")

        self.start_mirrored()
        # A layer sets its parts too: a tied decoder layer holds that of the encoder.
        for encode, decode in self.pairs:
            for layer in (decode, encode):
                layer.trainable = layer.name not in frozen
        self.errors = [UnexplainedVariance(name="reconstruction")]
        self.errors += [UnexplainedVariance(name=f"inversion_{i}") for i in depth]
        self.build((None, *IMAGE_SHAPE))

    def reshape(self, shape, name):
        """Makes a layer that reshapes in the precision of the model."""
        return keras.layers.Reshape(shape, dtype=self.dtype_policy, name=name)

    def encoder_layer(self, i):
        """Makes f_i, a layer from `sizes[i - 1]` to `sizes[i]`."""
        options = {
            "activation": None if i == len(self.sizes) - 1 else "leaky_relu",
            "name": f"encoder_{i}",
            "dtype": self.dtype_policy,
        }
        if self.kind == "dense":
            return keras.layers.Dense(
                self.sizes[i], kernel_initializer="orthogonal", **options
            )
        window, strides, padding = WINDOWS[i - 1]
        # A position lies in (window / strides)² windows where they overlap.
        gain = strides / window if strides > 1 else 1.0
        return keras.layers.Conv2D(
            self.sizes[i],
            window,
            strides,
            padding,
            kernel_initializer=keras.initializers.Orthogonal(gain),
            **options,
        )

    def decoder_layer(self, i):
        """Makes g_i, a layer from `sizes[i]` to `sizes[i - 1]`."""
        options = {
            "activation": None if i == 1 else "leaky_relu",
            "name": f"decoder_{i}",
            "dtype": self.dtype_policy,
        }
        if self.kind == "dense":
            return keras.layers.Dense(self.sizes[i - 1], **options)
        return keras.layers.Conv2DTranspose(
            self.sizes[i - 1], *WINDOWS[i - 1], **options
        )

    def start_mirrored(self):
        """Sets every decoder kernel to its encoder's, transposed."""
        for encode, decode in self.pairs:
            kernel = encode.kernel  # that of a convolution serves both directions
            kernel = ops.transpose(kernel) if self.kind == "dense" else kernel
            decode.trainable_weights[0].assign(kernel)

    @property
    def pairs(self):
        return [
            (
                self.encoder.get_layer(f"encoder_{i}"),
                self.decoder.get_layer(f"decoder_{i}"),
            )
            for i in range(1, len(self.sizes))
        ]

    def call(self, images):
        return self.decoder(self.encoder(images))

    def hidden_states(self, images):
        """Returns h_0, …, h_n as a list of tensors; h_0 is flat for dense layers."""
        if self.kind == "dense":
            images = ops.reshape(images, (-1, self.sizes[0]))
        hidden = [images]
        for encode, _ in self.pairs:
            hidden.append(encode(hidden[-1]))
        return hidden

    def inversions(self, hidden):
        """Returns pairs of h_{i−1} and g_i(h_i), one pair per layer."""
        return [
            (hidden[i], decode(hidden[i + 1]))
            for i, (_, decode) in enumerate(self.pairs)
        ]

    def chain(self, hidden):
        """Returns pairs of h_{i−1} and ĥ_{i−1}, one pair per layer."""
        decoded = [hidden[-1]]
        for _, decode in reversed(self.pairs):
            decoded.insert(0, decode(decoded[0]))
        return list(zip(hidden[:-1], decoded[:-1], strict=True))

    def inversion_error(self, targets, estimates):
        """Returns the FVU, the error of one layer in the cost."""
        return unexplained_variance(targets, estimates)

    def cost(self, images, reconstructions, hidden):
        """Returns the cost of a batch, see the formula at the top of this file.

        Args:
            images: float tensor of shape `(batch, 28, 28, 1)`.
            reconstructions: float tensor of the same shape.
            hidden: from `hidden_states`.

        Returns:
            A scalar tensor of at least float32.
        """
        cost = unexplained_variance(images, reconstructions)
        if self.inversion_weight:
            local = sum(self.inversion_error(*pair) for pair in self.inversions(hidden))
            chain = sum(self.inversion_error(*pair) for pair in self.chain(hidden))
            cost += self.inversion_weight * local + self.chain_weight * chain
        if self.rank_weight:
            ranks = [ops.log(participation_ratio(states)) for states in hidden[1:]]
            cost -= self.rank_weight * sum(ranks)
        return cost

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """Computes the cost of a batch and updates the errors in the history.

        It has no other losses, neither those of `add_loss` nor regularizers.
        """
        if y is not None or sample_weight is not None:
            raise ValueError(IMAGES_ONLY)
        x = ops.cast(x, self.variable_dtype)
        hidden = self.hidden_states(x)
        measured = [(x, y_pred), *self.inversions(hidden)]
        for error, pair in zip(self.errors, measured, strict=True):
            error.update_state(*pair)
        # Keras adds up the gradients of all devices.
        devices = tf.distribute.get_strategy().num_replicas_in_sync
        return self.cost(x, y_pred, hidden) / devices

    def fit(self, x=None, *args, **kwargs):
        """Trains as `keras.Model.fit` does, on images that it checks first.

        Args:
            x: array of shape `(n, 28, 28, 1)` of floats in [0, 1], or a
                `tf.data.Dataset` of batches of such images, each checked as it comes.
            *args: as for `keras.Model.fit`.
            **kwargs: as for `keras.Model.fit`. The range of `validation_data` is not
                checked.

        Returns:
            The `keras.callbacks.History`.

        Raises:
            ValueError: If the images have another shape, dtype or range, or if there
                are targets or weights.
        """
        # Keras drops the weights of images without targets.
        if not all(kwargs.get(f"{of}_weight") is None for of in ("sample", "class")):
            raise ValueError(IMAGES_ONLY)
        wrong = []
        if isinstance(x, tf.data.Dataset):
            x = checked_batches(x, wrong)
        else:
            check_images(x, "x")
        try:
            return super().fit(x, *args, **kwargs)
        except tf.errors.OpError:
            if wrong:
                raise wrong[0] from None
            raise

    def get_config(self):
        layers = [layer for pair in self.pairs for layer in pair]
        return super().get_config() | {
            "kind": self.kind,
            "code_dim": self.code_dim,
            "inversion_weight": self.inversion_weight,
            "rank_weight": self.rank_weight,
            "frozen": [layer.name for layer in layers if not layer.trainable],
        }


def unexplained_variance(targets, estimates):
    """Returns the normalized error of a batch, FVU = Σ‖t − p‖² / Σ‖t − mean(t)‖².

    0 is exact, and 1 is no better than the mean. Scaling targets and estimates together
    does not change it. Targets that do not vary, such as a single image, have an FVU of
    0.

    Args:
        targets: float tensor of shape `(batch, ...)`.
        estimates: float tensor of the same shape.

    Returns:
        A scalar tensor of at least float32.
    """
    errors, variance = _errors_and_variance(targets, estimates)
    return ops.where(variance > 0, errors / ops.where(variance > 0, variance, 1), 0.0)


def participation_ratio(states):
    """Counts the directions in which states vary, PR = (Σ v_k)² / Σ v_k².

    v_k are the eigenvalues of the covariance of the batch.

    Args:
        states: float tensor of shape `(batch, ...)`, one state per image.

    Returns:
        A scalar tensor of at least float32: 1 for a single direction, at most the width
        of the state and at most one less than the batch. 1 for states that do not vary.
    """
    (states,) = flat(states)
    states = states - ops.mean(states, axis=0)
    total = ops.sum(ops.square(states))
    states = states * ops.rsqrt(ops.maximum(total, 1e-30))  # now Σ v_k = 1
    transposed = ops.transpose(states)
    # Both products have the same eigenvalues except zeros. Of wide states the one over
    # images, (batch, batch), is the smaller one.
    wide = states.shape[-1] > 256
    gram = states @ transposed if wide else transposed @ states
    total = ops.sum(ops.square(states))
    eps = 1e-6
    return (ops.square(total) + eps) / (ops.sum(ops.square(gram)) + eps)


@keras.saving.register_keras_serializable("assignment14")
class UnexplainedVariance(keras.metrics.Metric):
    """Computes the FVU over all batches: summed errors over summed variances.

    The variance of a batch is around its own mean, as in the cost. A batch that does
    not vary is left out, and a result without any variance is NaN. `sample_weight` is
    ignored.

    Args:
        name: str.
        dtype: dtype or policy.
    """

    def __init__(self, name="unexplained_variance", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.errors = self.add_variable((), "zeros", name="errors")
        self.variance = self.add_variable((), "zeros", name="variance")

    def update_state(self, targets, estimates, sample_weight=None):
        errors, variance = _errors_and_variance(targets, estimates)
        self.errors.assign_add(ops.where(variance > 0, errors, 0.0))
        self.variance.assign_add(variance)

    def result(self):
        return self.errors / self.variance


def _errors_and_variance(targets, estimates):
    targets, estimates = flat(targets, estimates)
    errors = ops.sum(ops.square(targets - estimates))
    variance = ops.sum(ops.square(targets - ops.mean(targets, axis=0)))
    # Rounding lets equal targets seem to vary: less than this counts as none.
    rounding = 1e-10 * ops.sum(ops.square(targets))
    return errors, ops.where(variance > rounding, variance, 0.0)


def flat(*states):
    """Returns states as `(batch, width)`, all in one precision, at least float32.

    Args:
        *states: float tensors of shape `(batch, ...)`.
    """
    dtype = keras.backend.result_type("float32", *(each.dtype for each in states))
    return [
        ops.reshape(ops.cast(each, dtype), (-1, math.prod(each.shape[1:])))
        for each in states
    ]


def _check(kind, code_dim, inversion_weight, rank_weight):
    if not isinstance(kind, str) or kind not in WIDTHS:
        raise ValueError(f"`kind` must be one of {list(WIDTHS)}. Received: {kind!r}")
    if not _is(numbers.Integral, code_dim) or code_dim < 1:
        raise ValueError(f"`code_dim` must be an int ≥ 1. Received: {code_dim!r}")
    weights = {"inversion_weight": inversion_weight, "rank_weight": rank_weight}
    for name, weight in weights.items():
        if weight is None:  # the default of its kind
            continue
        if not _is(numbers.Real, weight) or not 0 <= weight < math.inf:
            raise ValueError(
                f"`{name}` must be a finite number ≥ 0. Received: {weight!r}"
            )


def _is(numeric, value):
    return isinstance(value, numeric) and not isinstance(value, bool)
