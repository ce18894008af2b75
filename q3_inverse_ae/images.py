"""Checks the shape, the type and the range of images."""

import numpy as np
import tensorflow as tf

IMAGE_SHAPE = (28, 28, 1)


def check_images(images, name="images"):
    """Checks images and converts them to a float32 array.

    Args:
        images: array.
        name: str, the name of the argument in the message.

    Returns:
        Array of shape `(n, 28, 28, 1)`.

    Raises:
        ValueError: If they are not `(n, 28, 28, 1)` floats in [0, 1], n ≥ 1.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != IMAGE_SHAPE or not len(images):
        raise ValueError(
            f"`{name}` must have shape (n, 28, 28, 1), n of 1 or more. Received: "
            f"shape {images.shape}"
        )
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"`{name}` must be floats in [0, 1]. Received: dtype {images.dtype}"
        )
    if not (images.min() >= 0 and images.max() <= 1):  # NaN fails too
        raise ValueError(
            f"`{name}` must lie in [0, 1]. Received: values from {images.min()} to "
            f"{images.max()}"
        )
    return images.astype("float32")


def checked_batches(batches, wrong):
    """Returns a dataset that checks every batch as it comes.

    A look at a batch before the training would change the order of a shuffled dataset.

    Args:
        batches: `tf.data.Dataset` of arrays of images.
        wrong: list. The first batch that `check_images` refuses ends the dataset, and
            its ValueError is appended here.
    """
    spec = batches.element_spec
    if not isinstance(spec, tf.TensorSpec):  # `compute_loss` says what is wrong
        return batches
    fits = spec.shape.is_compatible_with((None, *IMAGE_SHAPE))
    if not (fits and spec.dtype.is_floating):  # else Keras fails before the first batch
        shape = [1 if size is None else size for size in spec.shape]
        check_images(np.zeros(shape, spec.dtype.as_numpy_dtype), "x")

    def look(images):
        try:
            check_images(images, "x")
        except ValueError as error:
            wrong.append(error)
            raise
        return True

    def keep(images):
        tf.numpy_function(look, [images], tf.bool)
        return images

    return batches.map(keep)
