"""How close decoder layers come to inverting their encoder layers."""

import math

import keras
import numpy as np
import tensorflow as tf

IMAGE_SHAPE = (28, 28, 1)
BATCH = 500
INVERTER_BATCH = 256
INVERTER_UNITS = 512
NOISE = 1e-6  # of the largest eigenvalue: directions below it do not count


def inversion_report(model, images, train_images=None, *, inverter_epochs=6):
    """Measures every pair of layers of an autoencoder on images.

    Below, h_0 is the images, h_i = f_i(h_{i−1}), ĥ_n = h_n, ĥ_{i−1} = g_i(ĥ_i); sums
    and means go over images, λ_k and u_k are the eigenvalues and eigenvectors of the
    covariance of h_{i−1}, and var = Σ‖h_{i−1} − mean‖². The keys of row i are

    - `layer`: i, and `width`: the number of units of h_i;
    - `local_fvu`: Σ‖g_i(h_i) − h_{i−1}‖² / var;
    - `chain_fvu`: Σ‖ĥ_{i−1} − h_{i−1}‖² / var;
    - `whitened_fvu`: mean over k of mean((u_k · (g_i(h_i) − h_{i−1}))²) / λ_k, in
      which every direction with λ_k > 1e-6 λ_1 counts alike;
    - `cosine`: mean cosine of g_i(h_i) − mean and h_{i−1} − mean;
    - `right_inverse_error`: Σ‖f_i(g_i(h_i)) − h_i‖² / Σ‖h_i − mean‖²;
    - `participation_ratio` of h_i: (Σλ)² / Σλ² of its covariance;
    - `effective_rank` of h_i: exp(−Σ p log p) with p = λ / Σλ (Roy and Vetterli 2007);
    - `pca_floor`: the least FVU of any affine map of h_{i−1} to `width` numbers and
      back, Σ_{k > width} λ_k / Σλ;
    - `inverter_fvu`: the FVU of a strong inverter of the frozen f_i, g_i plus the
      output of a network with two hidden layers trained to add what g_i lacks, and
      `oracle_ratio`: the local FVU of the same images over it.

    Args:
        model: from `build_autoencoder`.
        images: array `(n, 28, 28, 1)` of floats in [0, 1].
        train_images: images for the strong inverter to learn from. By default these
            are the first four fifths of `images`, and the ratio is of the last fifth.
        inverter_epochs: int, passes over them; 0 leaves the inverter out.

    Returns:
        List of dicts of numbers, one a layer, from the pixels to the code.

    Raises:
        ValueError: If images have another shape, dtype or range.
    """
    images = check_images(images)
    hidden = hidden_states(model, images)
    decoded = decoded_states(model, hidden[-1])
    train, test = None, None
    if inverter_epochs and train_images is None:
        cut = len(images) * 4 // 5
        train, test = [h[:cut] for h in hidden], [h[cut:] for h in hidden]
    elif inverter_epochs:
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
        row["pca_floor"] = eigenvalues[width:].sum() / eigenvalues.sum()
        if inverter_epochs:
            learn = (train[i - 1], train[i])
            judge = (test[i - 1], test[i])
            row |= _strong_inverter(decode, learn, judge, inverter_epochs)
        rows.append({k: v if isinstance(v, int) else float(v) for k, v in row.items()})
    return rows


def check_images(images, name="images"):
    """Returns images as a float32 array, or says what is wrong with them.

    Args:
        images: array.
        name: str, what the message calls them.

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
        model: from `build_autoencoder`.
        images: array `(n, 28, 28, 1)` of floats in [0, 1].
    """
    dense = len(model.pairs[0][0].kernel.shape) == 2
    states = [images.reshape(len(images), -1) if dense else images]
    for encode, _ in model.pairs:
        states.append(apply(encode, states[-1]))
    return states


def decoded_states(model, states, depth=None):
    """Returns ĥ_0, …, ĥ_depth as a list of arrays, decoded from h_depth.

    Args:
        model: from `build_autoencoder`.
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


def _strong_inverter(decode, train, test, epochs):
    """Trains what g_i lacks; `train` and `test` are `(h_{i-1}, h_i)`."""

    def prepare(inputs, states):
        lacking = (inputs - apply(decode, states)).reshape(len(states), -1)
        return (states.reshape(len(states), -1) - mean) / scale, lacking / unit

    flat = train[1].reshape(len(train[1]), -1)
    mean, scale = flat.mean(axis=0), flat.std() + keras.config.epsilon()
    unit = np.std(train[0] - apply(decode, train[1])) + keras.config.epsilon()
    states, lacking = prepare(*train)
    steps = epochs * math.ceil(len(states) / INVERTER_BATCH)
    network = keras.Sequential(
        [
            keras.layers.Dense(INVERTER_UNITS, "gelu"),
            keras.layers.Dense(INVERTER_UNITS, "gelu"),
            keras.layers.Dense(lacking.shape[1], kernel_initializer="zeros"),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    network.compile(keras.optimizers.Adam(rate), "mse", jit_compile=True)
    batches = tf.data.Dataset.from_tensor_slices((states, lacking))
    batches = batches.shuffle(len(states), seed=0).batch(INVERTER_BATCH)
    network.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    states, lacking = prepare(*test)
    left = np.square(lacking - network.predict(states, BATCH, verbose=0)).sum()
    ratio = (np.square(lacking).sum() + 1e-12) / (left + 1e-12)
    return {
        "inverter_fvu": fvu(test[0], apply(decode, test[1])) / ratio,
        "oracle_ratio": ratio,
    }


def jacobian_spectra(model, image):
    """Returns how the round trip g_i ∘ f_i stretches directions around one image.

    Where g_i is the pseudo-inverse of f_i, the Jacobian J_{g_i} J_{f_i} at h_{i−1} is
    a projector: its singular values are 1, `width` of them at most, and 0.

    Args:
        model: from `build_autoencoder`.
        image: array `(28, 28, 1)` of floats in [0, 1].

    Returns:
        List of arrays, one a layer: the singular values, falling.

    Raises:
        ValueError: If the image has another shape, dtype or range.
    """
    image = check_images(np.asarray(image)[np.newaxis], "image[np.newaxis]")
    spectra = []
    hidden = hidden_states(model, image)[:-1]
    for (encode, decode), states in zip(model.pairs, hidden, strict=True):
        jacobian = round_trip_jacobian(encode, decode, states)
        spectra.append(np.linalg.svd(jacobian, compute_uv=False))
    return spectra


def round_trip_jacobian(encode, decode, states):
    """Returns the Jacobian of g ∘ f at one state, `(width, width)`.

    Args:
        encode: f.
        decode: g.
        states: array `(1, ...)`.
    """
    directions = np.eye(states.size, dtype="float32")
    point = tf.constant(states)

    def trip(offsets):
        return decode(encode(point + tf.reshape(offsets, (-1, *states.shape[1:]))))

    # One row of zeros a direction: the derivative along it comes out in its row.
    with tf.autodiff.ForwardAccumulator(
        offsets := tf.zeros_like(directions), tf.constant(directions)
    ) as accumulator:
        moved = trip(offsets)
    columns = accumulator.jvp(moved).numpy()
    return columns.reshape(states.size, -1).T
