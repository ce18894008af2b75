"""What is trained and measured for question 3.

Long runs are `results.cached`, so that a run that was interrupted resumes.
"""

import base64

import keras
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA

from common import results, resume, sweep
from q3_inverse_ae.inverse_ae import build_autoencoder
from q3_inverse_ae.report import apply, check_images, inversion_report

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


def train(
    model, images, *, epochs, learning_rate=3e-3, seed=0, backup_dir=None, verbose=0
):
    """Trains an autoencoder with Adam and a cosine rate.

    Args:
        model: from `build_autoencoder`.
        images: array `(n, 28, 28, 1)` of floats in [0, 1].
        epochs: int.
        learning_rate: float, the first one.
        seed: int, of the order of the images.
        backup_dir: path of a folder for this training alone: one that was killed goes
            on from there (`common.resume.fit`). None keeps nothing.
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
    history = resume.fit(
        model,
        batches.prefetch(2),
        epochs=epochs,
        backup_dir=backup_dir,
        verbose=verbose,
    )
    return history.history


@results.cached(QUESTION)
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
        `inversion_report`; `weights`, as text, for `restored`.
    """
    options = VARIANTS[variant] | options

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
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
        "weights": [_as_text(weight) for weight in model.get_weights()],
    }


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
    for variable, text in zip(model.weights, run["weights"], strict=True):
        array = np.frombuffer(base64.b64decode(text), "<f4")
        variable.assign(array.reshape(variable.shape))
    return model


def _as_text(array):
    return base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")


def pca_mse(data, code_dim=32):
    """Returns the pixel error on test images of PCA fitted to the training images.

    Args:
        data: `DigitData`.
        code_dim: int, how many components are kept.

    Returns:
        The mean squared error, a float, of pixels in [0, 1].
    """
    train, test = (part.images.reshape(len(part.images), -1) for part in data[1:])
    pca = PCA(code_dim, svd_solver="covariance_eigh").fit(train)
    return float(np.mean(np.square(pca.inverse_transform(pca.transform(test)) - test)))


def held_out(data, count):
    """Returns the data with its last `count` training images as test, to choose on.

    Args:
        data: `DigitData`.
        count: int of 1 or more.

    Returns:
        A `DigitData`, without the test images of `data`.
    """
    rest, cut = (
        type(data.train)(*(part[rows] for part in data.train))
        for rows in (slice(None, -count), slice(-count, None))
    )
    return type(data)(f"{data.name}, held out", rest, cut)


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

    def train(weight, seed):
        return measured(
            kind, "ours", data, epochs=epochs, seed=seed, inversion_weight=weight
        )

    runs = sweep.run_seeds(train, weights, seeds)
    return {
        w: [(run["mse"], largest(run, "local_fvu")) for run in runs[w]] for w in runs
    }


def largest(run, column):
    """Returns the largest value over the layers of what `measured` returned.

    Args:
        run: what `measured` returned.
        column: str, a key of its rows, see `inversion_report`.
    """
    return max(row[column] for row in run["rows"])


def headline_metrics(kind, runs):
    """Picks the metrics that stand for a kind.

    Args:
        kind: "dense" or "conv".
        runs: dict from `(kind, variant)`, "ours" and "plain", to a list of what
            `measured` returns, one a seed.

    Returns:
        Dict from names to what `results.summarise` returns.
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
    return {f"{kind}_{name}": results.summarise(v) for name, v in values.items()}
