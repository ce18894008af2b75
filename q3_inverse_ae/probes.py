"""What the layers of a trained autoencoder do, beyond `inversion_report`."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from q3_inverse_ae.report import apply, decoded_states, fvu, hidden_states


def depth_fvu(model, images):
    """Returns the FVU of the pixels after a round trip to h_1, …, h_n: a list.

    Args:
        model: from `build_autoencoder`.
        images: array `(n, 28, 28, 1)`.
    """
    hidden = hidden_states(model, images)
    return [
        fvu(hidden[0], decoded_states(model, states, depth)[0])
        for depth, states in enumerate(hidden[1:], start=1)
    ]


def decoded_codes(model, images, start, end, count=10, seed=0):
    """Decodes codes that are not those of an image.

    Args:
        model: from `build_autoencoder`.
        images: array `(n, 28, 28, 1)`.
        start: int, the image that the path begins at.
        end: int, the image that it ends at.
        count: int, how many of each.
        seed: int, of the noise.

    Returns:
        Two arrays `(count, 28, 28, 1)`: of normal noise with mean and covariance of the
        codes of the images, and of the straight line between two codes.
    """
    codes = hidden_states(model, images)[-1]
    flat = codes.reshape(len(codes), -1)
    rng = np.random.default_rng(seed)
    noise = rng.multivariate_normal(flat.mean(axis=0), np.cov(flat.T), count)
    path = np.linspace(flat[start], flat[end], count)
    both = np.concatenate([noise, path]).astype("float32")
    decoded = decoded_states(model, both.reshape(-1, *codes.shape[1:]))[0]
    return np.split(decoded.reshape(-1, *images.shape[1:]), 2)


def dimensions(model, images, rows):
    """Counts the dimensions of every layer's states in four ways.

    Args:
        model: from `build_autoencoder`.
        images: array `(n, 28, 28, 1)`.
        rows: what `inversion_report` returns.

    Returns:
        Dict from the name of a count to a list, one number a layer.
    """
    hidden = hidden_states(model, images)[1:]
    return {
        "width": [row["width"] for row in rows],
        "effective rank": [row["effective_rank"] for row in rows],
        "participation ratio": [row["participation_ratio"] for row in rows],
        "intrinsic dimension (TwoNN)": [intrinsic_dimension(h) for h in hidden],
    }


def intrinsic_dimension(states):
    """Estimates the dimension of the set that states lie on, with two neighbours.

    The maximum-likelihood form of TwoNN: the inverse mean of log(r_2 / r_1), the
    distances to the second and to the nearest neighbour (Facco et al. 2017).

    Args:
        states: array `(n, ...)`, no two equal.

    Returns:
        A float.
    """
    flat = states.reshape(len(states), -1)
    distances, _ = NearestNeighbors(n_neighbors=3).fit(flat).kneighbors(flat)
    ratios = distances[:, 2] / np.maximum(distances[:, 1], 1e-12)
    return float(1 / np.mean(np.log(ratios)))


def unfamiliar(images, seed=0):
    """Makes images unlike digits, to see which layers invert those too.

    Args:
        images: array `(n, 28, 28, 1)`.
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
        "upside down": images[:, ::-1],
        "negative": 1 - images,
        "pixels in another order": flat[:, rng.permutation(784)].reshape(images.shape),
    }


def border_fvu(model, images, layer):
    """Returns the local FVU of a convolution's input at its border and inside it.

    Args:
        model: of kind "conv".
        images: array `(n, 28, 28, 1)`.
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


def multiplications(model):
    """Returns the multiplications of each encoder layer for one image: a list.

    Args:
        model: from `build_autoencoder`.
    """
    counts = []
    for encode, _ in model.pairs:
        positions = np.prod(encode.output.shape[1:-1], dtype=int)
        counts.append(int(positions * np.prod(encode.kernel.shape)))
    return counts


def local_fvu(model, images):
    """Returns every layer's local FVU, see `inversion_report`: a list.

    Args:
        model: from `build_autoencoder`.
        images: array `(n, 28, 28, 1)`.
    """
    hidden = hidden_states(model, images)
    return [
        fvu(hidden[i], apply(decode, hidden[i + 1]))
        for i, (_, decode) in enumerate(model.pairs)
    ]


def worst(model, images, count):
    """Returns the indices of the images that are reconstructed worst: a list.

    Args:
        model: from `build_autoencoder`.
        images: array `(n, 28, 28, 1)`.
        count: int, how many.
    """
    errors = np.mean(np.square(apply(model, images) - images), axis=(1, 2, 3))
    return np.argsort(errors)[::-1][:count].tolist()
