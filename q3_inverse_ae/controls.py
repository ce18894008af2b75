"""Autoencoders that differ from `InverseAutoencoder` in one choice each."""

import keras
from keras import ops

from q3_inverse_ae.inverse_ae import InverseAutoencoder, flat, unexplained_variance

SLOPE = 0.2  # of leaky ReLU below 0, in Keras


@keras.saving.register_keras_serializable("assignment14")
class AbsoluteErrors(InverseAutoencoder):
    """Uses the mean squared error, which is small if the states are small."""

    def inversion_error(self, targets, estimates):
        targets, estimates = flat(targets, estimates)
        return ops.mean(ops.square(targets - estimates))


@keras.saving.register_keras_serializable("assignment14")
class RootErrors(InverseAutoencoder):
    """Uses √FVU, whose gradient does not vanish as the error becomes small."""

    def inversion_error(self, targets, estimates):
        fvu = unexplained_variance(targets, estimates)
        return ops.sqrt(fvu + keras.config.epsilon())  # its slope at 0 is finite


@keras.saving.register_keras_serializable("assignment14")
class LocalErrors(InverseAutoencoder):
    """Leaves out the errors along the chain (κ = 0)."""

    def chain(self, hidden):
        return []


@keras.saving.register_keras_serializable("assignment14")
class ChainErrors(InverseAutoencoder):
    """Replaces the local errors by those along the chain, in the metrics too."""

    def inversions(self, hidden):
        return self.chain(hidden)


@keras.saving.register_keras_serializable("assignment14")
class LocalGradients(LocalErrors):
    """Stops each inversion error at its own pair; other terms train all layers."""

    def inversions(self, hidden):
        given = [ops.stop_gradient(states) for states in hidden]
        return [
            (states, decode(encode(states)))
            for states, (encode, decode) in zip(given[:-1], self.pairs, strict=True)
        ]


@keras.saving.register_keras_serializable("assignment14")
class InverseActivation(InverseAutoencoder):
    """Decodes with W act⁻¹(z) + b: the inverse activation comes first."""

    def decoder_layer(self, i):
        affine = super().decoder_layer(i)
        affine.activation = keras.activations.linear
        affine.name = f"affine_{i}"
        inverse = keras.layers.LeakyReLU(1 / SLOPE, dtype=self.dtype_policy)
        layers = [affine] if i == len(self.sizes) - 1 else [inverse, affine]
        return keras.Sequential(layers, name=f"decoder_{i}")


@keras.saving.register_keras_serializable("assignment14")
class TiedWeights(InverseAutoencoder):
    """Decodes with the transposed kernels of the encoder and biases of its own."""

    def decoder_layer(self, i):
        return Transposed(
            self.encoder.get_layer(f"encoder_{i}"),
            None if i == 1 else "leaky_relu",
            name=f"decoder_{i}",
            dtype=self.dtype_policy,
        )

    def start_mirrored(self):
        """Does nothing: the kernels are the same."""


@keras.saving.register_keras_serializable("assignment14")
class Transposed(keras.layers.Layer):
    """Applies the transposed kernel of another layer, and a bias of its own."""

    def __init__(self, encode, activation, **kwargs):
        super().__init__(**kwargs)
        self.encode = encode
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        kernel = self.encode.kernel
        self.bias = self.add_weight(shape=(kernel.shape[-2],), initializer="zeros")

    def call(self, states):
        layer = self.encode
        if isinstance(layer, keras.layers.Dense):
            states = states @ ops.transpose(layer.kernel)
        else:
            states = ops.conv_transpose(
                states, layer.kernel, layer.strides, layer.padding
            )
        return self.activation(states + self.bias)

    def get_config(self):
        return super().get_config() | {
            "encode": keras.saving.serialize_keras_object(self.encode),
            "activation": keras.activations.serialize(self.activation),
        }

    @classmethod
    def from_config(cls, config):
        encode = keras.saving.deserialize_keras_object(config["encode"])
        return cls(**config | {"encode": encode})
