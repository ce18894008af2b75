"""Measures, layer by layer, how well a decoder layer inverts its encoder layer."""

import math

import keras
import numpy as np
import tensorflow as tf
from sklearn.linear_model import Ridge

from q3_inverse_ae.images import check_images

BATCH = 500
INVERSE_BATCH = 256  # of the learned inverse
INVERSE_UNITS = 512
NOISE = 1e-6  # of the largest eigenvalue: directions below it do not count


def inversion_report(model, images, train_images=None, *, inverse_epochs=6):
    """Measures every pair of layers of an autoencoder on images.

    Below, h_0 is the images, h_i = f_i(h_{i−1}), ĥ_n = h_n, ĥ_{i−1} = g_i(ĥ_i). Sums
    and means are over images, v_k and u_k are the eigenvalues and eigenvectors of the
    covariance of h_{i−1}, and var = Σ‖h_{i−1} − mean‖². The keys of row i are

    - `layer`: i, and `width`: the number of units of h_i;
    - `local_fvu`: Σ‖g_i(h_i) − h_{i−1}‖² / var;
    - `chain_fvu`: Σ‖ĥ_{i−1} − h_{i−1}‖² / var;
    - `whitened_fvu`: mean over k of mean((u_k · (g_i(h_i) − h_{i−1}))²) / v_k. Every
      direction with v_k > 1e-6 v_1 has the same weight;
    - `cosine`: mean cosine of g_i(h_i) − mean and h_{i−1} − mean;
    - `right_inverse_error`: Σ‖f_i(g_i(h_i)) − h_i‖² / Σ‖h_i − mean‖²;
    - `participation_ratio` of h_i: (Σ v_k)² / Σ v_k², with its own eigenvalues;
    - `effective_rank` of h_i: exp(−Σ p log p) with p = v / Σ v_k;
    - `pca_fvu`: the least FVU of any affine map of h_{i−1} to `width` numbers and
      back, Σ_{k > width} v_k / Σ v_k;
    - `learned_inverse_fvu`: the FVU of an inverse that is learned afterwards, with f_i
      frozen. It is g_i plus a correction: a ridge regression on h_i and g_i(h_i), then
      a network with two hidden layers on h_i;
    - `oracle_ratio`: the local FVU of the same images over `learned_inverse_fvu`.

    Args:
        model: `InverseAutoencoder`.
        images: array of shape `(n, 28, 28, 1)` of floats in [0, 1], n ≥ 2, that are
            not all equal.
        train_images: images on which the learned inverse is trained. By default these
            are the first four fifths of `images`, and it is evaluated on the last
            fifth, which must have two images or more.
        inverse_epochs: int, passes over them; 0 leaves the learned inverse out.

    Returns:
        List of dicts of numbers, one per layer, from the pixels to the code.

    Raises:
        ValueError: If images have another shape, dtype or range, or too few of them
            differ.

    Example:

    ```python
    rows = inversion_report(model, test_images, inverse_epochs=0)
    print([row["local_fvu"] for row in rows])
    ```

    Reference:
        Effective rank: [Roy and Vetterli, 2007](https://ieeexplore.ieee.org/document/7098875)
    """
    images = _varied(images, "images")
    hidden = hidden_states(model, images)
    decoded = decoded_states(model, hidden[-1])
    train, test = None, None
    if inverse_epochs and train_images is None:
        cut = len(images) * 4 // 5
        _varied(images[cut:], "the last fifth of images")
        train, test = [h[:cut] for h in hidden], [h[cut:] for h in hidden]
    elif inverse_epochs:
        train = hidden_states(model, check_images(train_images, "train_images"))
        test = hidden
    spectra = [spectrum(states) for states in hidden]
    rows = []
    for i, (encode, decode) in enumerate(model.pairs, start=1):
        inputs, states = hidden[i - 1], hidden[i]
        estimates = apply(decode, states)
        eigenvalues, eigenvectors = spectra[i - 1]
        width = math.prod(states.shape[1:])
        row = {"layer": i, "width": width}
        row |= _pair_errors(inputs, estimates, eigenvalues, eigenvectors)
        row["chain_fvu"] = fvu(inputs, decoded[i - 1])
        row["right_inverse_error"] = fvu(states, apply(encode, estimates))
        row |= ranks(spectra[i][0])
        row["pca_fvu"] = eigenvalues[width:].sum() / eigenvalues.sum()
        if inverse_epochs:
            learn = (train[i - 1], train[i])
            evaluate = (test[i - 1], test[i])
            row |= _learned_inverse(decode, learn, evaluate, inverse_epochs)
        rows.append({k: v if isinstance(v, int) else float(v) for k, v in row.items()})
    return rows


def _varied(images, name):
    images = check_images(images, name)
    if not np.any(images != images[0]):
        raise ValueError(
            f"`{name}` must hold two different images or more. Received: "
            f"{len(images)} equal ones"
        )
    return images


def apply(layer, states):
    """Applies a layer to an array of states, in batches.

    Args:
        layer: Keras layer or model.
        states: float array `(n, ...)`.

    Returns:
        Array `(n, ...)`, float32 unless the layer computes in another dtype.
    """
    batches = np.split(states, range(BATCH, len(states), BATCH))
    return np.concatenate([layer(tf.constant(batch)).numpy() for batch in batches])


def hidden_states(model, images):
    """Returns h_0, …, h_n as a list of arrays; h_0 is flat for dense layers.

    Args:
        model: `InverseAutoencoder`.
        images: array `(n, 28, 28, 1)` of floats in [0, 1].
    """
    states = [images.reshape(len(images), -1) if model.kind == "dense" else images]
    for encode, _ in model.pairs:
        states.append(apply(encode, states[-1]))
    return states


def decoded_states(model, states, depth=None):
    """Returns ĥ_0, …, ĥ_depth as a list of arrays, decoded from h_depth.

    Args:
        model: `InverseAutoencoder`.
        states: array `(n, ...)`, h_depth.
        depth: int, the number of its layer; the code's by default.
    """
    states = [states]
    for _, decode in reversed(model.pairs[:depth]):
        states.insert(0, apply(decode, states[0]))
    return states


def fvu(targets, estimates):
    """Returns Σ‖t − p‖² / Σ‖t − mean(t)‖², of arrays `(n, ...)`, in float64."""
    errors = np.sum(np.square(targets - estimates), dtype="float64")
    centred = targets - targets.mean(axis=0, dtype="float64")
    return errors / np.sum(np.square(centred))


def spectrum(states):
    """Computes eigenvalues and eigenvectors of the covariance of states.

    Args:
        states: array `(n, ...)`, n of 2 or more.

    Returns:
        `(values, vectors)`: float64 arrays of shape `(width,)`, falling and at least 0,
        and `(width, width)`, an eigenvector a column.
    """
    flat = states.reshape(len(states), -1).astype("float64")
    covariance = np.atleast_2d(np.cov(flat, rowvar=False))
    values, vectors = np.linalg.eigh(covariance)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


def ranks(eigenvalues):
    """Returns participation ratio and effective rank of a spectrum.

    Args:
        eigenvalues: array `(width,)`, at least 0 and not all of them 0.

    Returns:
        Dict of floats: `participation_ratio`, `effective_rank`, see `inversion_report`.
    """
    shares = eigenvalues / eigenvalues.sum()
    shares = shares[shares > 0]
    return {
        "participation_ratio": 1 / np.sum(shares**2),
        "effective_rank": np.exp(-np.sum(shares * np.log(shares))),
    }


def _pair_errors(targets, estimates, eigenvalues, eigenvectors):
    targets = targets.reshape(len(targets), -1)
    estimates = estimates.reshape(len(targets), -1)
    alive = eigenvalues > NOISE * eigenvalues[0]
    along = (estimates - targets) @ eigenvectors[:, alive]  # (n, directions)
    whitened = np.mean(np.square(along), axis=0) / eigenvalues[alive]
    mean = targets.mean(axis=0)
    a, b = estimates - mean, targets - mean
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = np.sum(a * b, axis=1) / np.maximum(norms, 1e-12)
    return {
        "local_fvu": fvu(targets, estimates),
        "whitened_fvu": whitened.mean(),
        "cosine": cosines.mean(),
    }


def _learned_inverse(decode, train, test, epochs):
    """Trains a correction of g_i, a linear regression and then a network.

    `train` and `test` are `(h_{i-1}, h_i)`.
    """

    def prepare(inputs, states):
        estimates = apply(decode, states)
        inputs, states, estimates = (
            each.reshape(len(each), -1) for each in (inputs, states, estimates)
        )
        states = (states - mean) / scale
        features = np.hstack([states, estimates], dtype="float64")
        return inputs - estimates, states, features

    flat = train[1].reshape(len(train[1]), -1)
    mean, scale = flat.mean(axis=0), flat.std() + keras.config.epsilon()
    lacking, states, features = prepare(*train)
    linear = Ridge(solver="cholesky").fit(features, lacking)
    lacking = (lacking - linear.predict(features)).astype("float32")
    unit = lacking.std() + keras.config.epsilon()
    network = keras.Sequential(
        [
            keras.layers.Dense(INVERSE_UNITS, "gelu"),
            keras.layers.Dense(INVERSE_UNITS, "gelu"),
            keras.layers.Dense(lacking.shape[1], kernel_initializer="zeros"),
        ]
    )
    steps = epochs * math.ceil(len(states) / INVERSE_BATCH)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    network.compile(keras.optimizers.Adam(rate), "mse", jit_compile=True)
    batches = tf.data.Dataset.from_tensor_slices((states, lacking / unit))
    batches = batches.shuffle(len(states), seed=0).batch(INVERSE_BATCH)
    network.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    lacking, states, features = prepare(*test)
    learned = unit * network.predict(states, BATCH, verbose=0)
    learned = learned + linear.predict(features)
    left = np.square(lacking - learned).sum()
    ratio = (np.square(lacking).sum() + 1e-12) / (left + 1e-12)
    return {
        "learned_inverse_fvu": fvu(test[0], apply(decode, test[1])) / ratio,
        "oracle_ratio": ratio,
    }


def local_fvu(model, images):
    """Returns every layer's local FVU, see `inversion_report`: a list.

    Args:
        model: `InverseAutoencoder`.
        images: array of shape `(n, 28, 28, 1)`.
    """
    hidden = hidden_states(model, images)
    return [
        fvu(hidden[i], apply(decode, hidden[i + 1]))
        for i, (_, decode) in enumerate(model.pairs)
    ]


def depth_fvu(model, images):
    """Returns the FVU of the pixels after a round trip to h_1, …, h_n: a list.

    Args:
        model: `InverseAutoencoder`.
        images: array of shape `(n, 28, 28, 1)`.
    """
    hidden = hidden_states(model, images)
    return [
        fvu(hidden[0], decoded_states(model, states, depth)[0])
        for depth, states in enumerate(hidden[1:], start=1)
    ]


def unfamiliar(images, seed=0):
    """Makes images that differ from the training digits, such as moved digits.

    Args:
        images: array of shape `(n, 28, 28, 1)`.
        seed: int, of shifts and permutation.

    Returns:
        Dict from a name to an array of the same shape.
    """
    rng = np.random.default_rng(seed)
    flat = images.reshape(len(images), -1)
    shifts = rng.integers(-4, 5, (len(images), 2))
    shifted = [np.roll(x, s, (0, 1)) for x, s in zip(images, shifts, strict=True)]
    return {
        "digits": images,
        "moved by up to 4 pixels": np.stack(shifted),
        "flipped upside down": images[:, ::-1],
        "negative": 1 - images,
        "pixels in another order": flat[:, rng.permutation(784)].reshape(images.shape),
    }


def border_fvu(model, images, layer):
    """Returns the local FVU of a convolution's input at its border and inside it.

    Args:
        model: `InverseAutoencoder` of kind "conv".
        images: array of shape `(n, 28, 28, 1)`.
        layer: int, from 1.

    Returns:
        `(border, inside)`, two floats: the outermost ring of positions and the rest.
    """
    hidden = hidden_states(model, images)
    states = hidden[layer - 1]
    estimates = apply(model.pairs[layer - 1][1], hidden[layer])
    inside = np.zeros(states.shape[1:3], bool)
    inside[1:-1, 1:-1] = True
    return tuple(fvu(states[:, m], estimates[:, m]) for m in (~inside, inside))
