"""How an autoencoder is paid for inverting its layers, as layers that hand states on.

FVU(t, p) = Σ‖t − p‖² / Σ‖t − mean(t)‖² is the fraction of variance that an estimate p
leaves unexplained, so that no error becomes small by making a state small. The
participation ratio PR = (Σλ)² / Σλ² counts the directions of a state, λ being the
eigenvalues of its covariance; 1 / PR is what it costs to make one of them large.
"""

import keras
from keras import ops


def unexplained_variance(targets, estimates):
    """Returns the FVU of a batch: 0 is exact, 1 no better than the mean.

    Targets that do not vary, such as a single image, have nothing to explain: 0.

    Args:
        targets: tensor `(batch, ...)`.
        estimates: tensor of the same shape.

    Returns:
        A scalar tensor.
    """
    errors = ops.sum(ops.square(targets - estimates))
    variance = ops.sum(ops.square(targets - ops.mean(targets, axis=0)))
    share = errors / ops.maximum(variance, keras.config.epsilon())
    return ops.where(variance > 0, share, 0.0)


def participation_ratio(states):
    """Counts the directions that a state varies in: (Σλ)² / Σλ² of its covariance.

    Args:
        states: tensor `(batch, ...)`, one state an image.

    Returns:
        A scalar tensor: 1 for a single direction, at most the width of the state and
        at most one less than the batch.
    """
    width = 1
    for size in states.shape[1:]:
        width *= size
    states = ops.reshape(states, (-1, width))  # (batch, width)
    states = states - ops.mean(states, axis=0)
    transposed = ops.transpose(states)
    # Both products have the same eigenvalues but zeros; of wide states, wider than
    # most batches, the one over images is the smaller.
    wide = width > 256
    gram = states @ transposed if wide else transposed @ states
    total = ops.sum(ops.square(states))
    eps = keras.config.epsilon()  # a state that does not vary counts as one direction
    return (ops.square(total) + eps) / (ops.sum(ops.square(gram)) + eps)


@keras.saving.register_keras_serializable("assignment14")
class InversionLoss(keras.layers.Layer):
    """Hands a state on and adds the error of an estimate to the model's loss.

    The FVU is a metric of the model under the layer's name, whatever the loss is.

    Args:
        weight: float, of the error in the loss.
        error: "relative" for √FVU, "squared" for the FVU, "absolute" for the mean
            squared error.
        **kwargs: for `keras.layers.Layer`.
    """

    def __init__(self, weight, error, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight
        self.error = error
        self.tracker = keras.metrics.Mean(name=self.name)

    def call(self, states, targets, estimates):
        fvu = unexplained_variance(targets, estimates)
        self.tracker.update_state(fvu)
        if self.error == "relative":
            error = ops.sqrt(fvu + keras.config.epsilon())  # its slope at 0 is finite
        elif self.error == "squared":
            error = fvu
        else:
            error = ops.mean(ops.square(targets - estimates))
        self.add_loss(self.weight * error)
        return states

    def compute_output_spec(self, states, targets, estimates):
        return keras.KerasTensor(states.shape, states.dtype)

    def get_config(self):
        return super().get_config() | {"weight": self.weight, "error": self.error}


@keras.saving.register_keras_serializable("assignment14")
class RankLoss(keras.layers.Layer):
    """Hands a state on and adds 1 / participation ratio to the model's loss.

    Args:
        weight: float, of that term in the loss.
        **kwargs: for `keras.layers.Layer`.
    """

    def __init__(self, weight, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight

    def call(self, states):
        self.add_loss(self.weight / participation_ratio(states))
        return states

    def compute_output_spec(self, states):
        return keras.KerasTensor(states.shape, states.dtype)

    def get_config(self):
        return super().get_config() | {"weight": self.weight}


@keras.saving.register_keras_serializable("assignment14")
class EveryOther(keras.layers.Layer):
    """Hands on every other state of a batch, from the first."""

    def call(self, states):
        return states[::2]

    def compute_output_spec(self, states):
        return keras.KerasTensor((None, *states.shape[1:]), states.dtype)


@keras.saving.register_keras_serializable("assignment14")
class StopGradient(keras.layers.Layer):
    """Hands a state on and no gradient back."""

    def call(self, states):
        return ops.stop_gradient(states)
