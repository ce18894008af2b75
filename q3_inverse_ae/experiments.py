"""What is trained and measured for question 3.

Long runs go through `experiment.remember`, so that a run that was interrupted takes
up where it stopped.
"""

import hashlib
import os

import keras
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from common import experiment
from q3_inverse_ae.inverse_ae import build_autoencoder
from q3_inverse_ae.report import (
    apply,
    check_images,
    decoded_states,
    fvu,
    hidden_states,
    inversion_report,
)

QUESTION = "q3_inverse_ae"
BATCH = 128
# What is compared: arguments of `build_autoencoder`, all others at their defaults.
VARIANTS = {
    "ours": {},
    "plain": {"inversion_weight": 0.0, "rank_weight": 0.0},
    "absolute errors": {"error": "absolute", "rank_weight": 0.0},
    "relative errors": {"rank_weight": 0.0},
    "squared errors": {"error": "squared", "inversion_weight": 0.5},
    "rank alone": {"inversion_weight": 0.0},
    "local gradients": {"scope": "local"},
    "along the chain": {"scope": "chain"},
    "inverse activation first": {"decoder_form": "inverse_affine"},
    "tied weights": {"tied": True},
}


def train(model, images, *, epochs, learning_rate=3e-3, seed=0, verbose=0):
    """Trains an autoencoder with Adam and a cosine rate.

    Args:
        model: from `build_autoencoder`.
        images: array `(n, 28, 28, 1)` of floats in [0, 1].
        epochs: int.
        learning_rate: float, the first one.
        seed: int, of the order of the images.
        verbose: as for `fit`.

    Returns:
        The history of `fit`, a dict of lists.
    """
    images = check_images(images)
    # Every batch is full: the variances in the losses are of a batch.
    batches = tf.data.Dataset.from_tensor_slices(images)
    batches = batches.shuffle(len(images), seed=seed).batch(BATCH, drop_remainder=True)
    steps = epochs * (len(images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate), jit_compile=True)
    history = model.fit(
        batches.prefetch(2), epochs=epochs, shuffle=False, verbose=verbose
    )
    return history.history


def measured(kind, variant, data, *, epochs, seed, inverter_epochs=0, **options):
    """Trains a variant of an autoencoder and measures it.

    Args:
        kind: "dense" or "conv".
        variant: key of `VARIANTS`.
        data: `DigitData`; what is measured is measured on `data.test`.
        epochs: see `train`.
        seed: int, of everything.
        inverter_epochs: see `inversion_report`.
        **options: further arguments of `build_autoencoder`.

    Returns:
        Dict: `history`, see `train`; `mse` of the pixels; `rows`, see
        `inversion_report`; `weights`, the path of a file, for `restored`.
    """
    options = VARIANTS[variant] | options

    def compute():
        keras.backend.clear_session()
        experiment.seed_everything(seed)
        model = build_autoencoder(kind, **options)
        history = train(model, data.train.images, epochs=epochs, seed=seed)
        reconstructions = apply(model, data.test.images)
        rows = inversion_report(
            model,
            data.test.images,
            data.train.images,
            inverter_epochs=inverter_epochs,
        )
        return {
            "history": history,
            "mse": float(np.mean(np.square(reconstructions - data.test.images))),
            "rows": rows,
            "weights": _save_weights(model),
        }

    settings = {
        "kind": kind,
        "options": options,
        "data": [data.name, len(data.train.images), len(data.test.images)],
        "epochs": epochs,
        "seed": seed,
        "inverter_epochs": inverter_epochs,
    }
    return experiment.remember(QUESTION, settings, compute)


def _save_weights(model):
    folder = experiment.ROOT / "build" / "runs" / QUESTION
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"partial-{os.getpid()}.weights.h5"
    model.save_weights(partial)
    digest = hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights()))
    path = folder / f"{digest.hexdigest()[:16]}.weights.h5"
    partial.replace(path)
    return str(path.relative_to(experiment.ROOT))


def restored(kind, variant, run, **options):
    """Builds the model that `measured` trained.

    Args:
        kind: see `measured`.
        variant: see `measured`.
        run: what `measured` returned.
        **options: see `measured`.

    Returns:
        An `InverseAutoencoder`.
    """
    model = build_autoencoder(kind, **VARIANTS[variant] | options)
    model.load_weights(experiment.ROOT / run["weights"])
    return model


def pca_mse(data, code_dim=32):
    """Returns the pixel error on test images of PCA fitted to the training images."""
    train, test = (part.images.reshape(len(part.images), -1) for part in data[1:])
    pca = PCA(code_dim, svd_solver="covariance_eigh").fit(train)
    return float(np.mean(np.square(pca.inverse_transform(pca.transform(test)) - test)))


def held_out(data, count):
    """Returns the data with its last `count` training images as test, to choose on."""
    rest, cut = (
        type(data.train)(*(part[rows] for part in data.train))
        for rows in (slice(None, -count), slice(-count, None))
    )
    return type(data)(f"{data.name}, held out", rest, cut)


# What the layers do, beyond the report.


def depth_fvu(model, images):
    """Returns the FVU of the pixels after a round trip to h_1, …, h_n: a list."""
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
    """Returns the multiplications of each encoder layer for one image: a list."""
    counts = []
    for encode, _ in model.pairs:
        positions = np.prod(encode.output.shape[1:-1], dtype=int)
        counts.append(int(positions * np.prod(encode.kernel.shape)))
    return counts


def local_fvu(model, images):
    """Returns every layer's local FVU, see `inversion_report`: a list."""
    hidden = hidden_states(model, images)
    return [
        fvu(hidden[i], apply(decode, hidden[i + 1]))
        for i, (_, decode) in enumerate(model.pairs)
    ]


def worst(model, images, count):
    """Returns the indices of the images that are reconstructed worst: a list."""
    errors = np.mean(np.square(apply(model, images) - images), axis=(1, 2, 3))
    return np.argsort(errors)[::-1][:count].tolist()


def price(kind, weights, data, *, epochs, seeds):
    """Trains an autoencoder for every inversion weight.

    Args:
        kind: "dense" or "conv".
        weights: sequence of floats, λ.
        data: see `measured`.
        epochs: see `train`.
        seeds: list of ints.

    Returns:
        Dict from λ to a list of `(mse, largest local FVU)`, one a seed.
    """
    runs = {
        weight: [
            measured(
                kind, "ours", data, epochs=epochs, seed=seed, inversion_weight=weight
            )
            for seed in seeds
        ]
        for weight in weights
    }
    return {
        w: [(run["mse"], largest(run, "local_fvu")) for run in runs[w]] for w in runs
    }


def largest(run, column):
    """Returns the largest value over the layers of what `measured` returned."""
    return max(row[column] for row in run["rows"])


def headline_metrics(kind, runs):
    """Picks the metrics that stand for a kind.

    Args:
        kind: "dense" or "conv".
        runs: dict from `(kind, variant)`, "ours" and "plain", to a list of what
            `measured` returns, one a seed.

    Returns:
        Dict from names to what `experiment.summarise` returns.
    """
    ours, plain = runs[kind, "ours"], runs[kind, "plain"]
    code = [run["rows"][-1]["participation_ratio"] for run in ours]
    ratios = [run["mse"] / other["mse"] for run, other in zip(ours, plain, strict=True)]
    values = {
        "mse": [run["mse"] for run in ours],
        "plain_mse": [run["mse"] for run in plain],
        "price": ratios,
        "local_fvu_max": [largest(run, "local_fvu") for run in ours],
        "chain_fvu_max": [largest(run, "chain_fvu") for run in ours],
        "plain_local_fvu_max": [largest(run, "local_fvu") for run in plain],
        "code_participation_ratio": code,
        "oracle_ratio_max": [largest(run, "oracle_ratio") for run in ours],
    }
    return {f"{kind}_{name}": experiment.summarise(v) for name, v in values.items()}
