"""Trains the autoencoders of question 3 and their controls, and measures them.

Trainings are `results.cached`, so that an interrupted run resumes.
"""

import base64

import keras
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA

from common import results, resume, sweep
from q3_inverse_ae import controls
from q3_inverse_ae.images import check_images
from q3_inverse_ae.inverse_ae import INVERSION_WEIGHT, InverseAutoencoder
from q3_inverse_ae.report import apply, inversion_report

QUESTION = "q3_inverse_ae"
BATCH = 128
INVERSE_IMAGES = 20_000  # on which the learned inverse is trained
LEARNING_RATE = {"dense": 3e-3, "conv": 6e-3}
# What is compared: a class and its arguments, all others at their defaults.
VARIANTS = {
    "ours": (InverseAutoencoder, {}),
    "baseline": (InverseAutoencoder, {"inversion_weight": 0.0, "rank_weight": 0.0}),
    "absolute errors": (controls.AbsoluteErrors, {"rank_weight": 0.0}),
    "relative errors": (InverseAutoencoder, {"rank_weight": 0.0}),
    "roots of errors": (controls.RootErrors, {"inversion_weight": 0.2}),
    "rank only": (InverseAutoencoder, {"inversion_weight": 0.0}),
    "local errors only": (controls.LocalErrors, {}),
    "chain errors only": (controls.ChainErrors, {}),
    "local gradients": (controls.LocalGradients, {}),
    "inverse activation first": (controls.InverseActivation, {}),
    "tied weights": (controls.TiedWeights, {}),
}


def build(kind, variant, **options):
    """Builds an autoencoder of a variant.

    Args:
        kind: "dense" or "conv".
        variant: key of `VARIANTS`.
        **options: further arguments of its class.

    Returns:
        An `InverseAutoencoder`.
    """
    autoencoder, own = VARIANTS[variant]
    return autoencoder(kind, **own | options)


def train(model, images, *, epochs, seed=0, backup_dir=None):
    """Trains an autoencoder with Adam and a learning rate that falls along a cosine.

    Args:
        model: `InverseAutoencoder`.
        images: array of shape `(n, 28, 28, 1)` of floats in [0, 1].
        epochs: int.
        seed: int, of the order of the images.
        backup_dir: path of a folder for this training only, from which a training that
            was killed resumes (`common.resume.fit`). None keeps nothing.

    Returns:
        The history of `fit`, a dict of lists.
    """
    images = check_images(images)
    # Every batch is full: the variances in the cost are of a batch.
    batches = tf.data.Dataset.from_tensor_slices(images)
    batches = batches.shuffle(len(images), seed=seed).batch(BATCH, drop_remainder=True)
    steps = epochs * (len(images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE[model.kind], steps)
    model.compile(keras.optimizers.Adam(rate, beta_2=0.98), jit_compile=True)
    history = resume.fit(
        model, batches.prefetch(2), epochs=epochs, backup_dir=backup_dir, verbose=0
    )
    return history.history


@results.cached(QUESTION)
def measured(kind, variant, data, *, epochs, seed, inverse_epochs=0, **options):
    """Trains a variant of an autoencoder and measures it.

    Args:
        kind: "dense" or "conv".
        variant: key of `VARIANTS`.
        data: `DigitData`; what is measured is measured on `data.test`.
        epochs: see `train`.
        seed: int, of everything.
        inverse_epochs: see `inversion_report`.
        **options: see `build`.

    Returns:
        Dict: `history`, see `train`; `mse` of the pixels; `rows`, see
        `inversion_report`; `weights`, as text, for `rebuild`.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build(kind, variant, **options)
    history = train(model, data.train.images, epochs=epochs, seed=seed)
    reconstructions = apply(model, data.test.images)
    rows = inversion_report(
        model,
        data.test.images,
        data.train.images[:INVERSE_IMAGES],
        inverse_epochs=inverse_epochs,
    )
    return {
        "history": history,
        "mse": float(np.mean(np.square(reconstructions - data.test.images))),
        "rows": rows,
        "weights": [_as_text(weight) for weight in model.get_weights()],
    }


def rebuild(kind, variant, run, **options):
    """Builds the model that `measured` trained.

    Args:
        kind: see `measured`.
        variant: see `measured`.
        run: what `measured` returned.
        **options: see `measured`.

    Returns:
        An `InverseAutoencoder`.
    """
    model = build(kind, variant, **options)
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
        data.train._make(part[rows] for part in data.train)
        for rows in (slice(None, -count), slice(-count, None))
    )
    return data._replace(name=f"{data.name}, held out", train=rest, test=cut)


def price(kind, weights, data, *, epochs, seeds):
    """Trains an autoencoder for every inversion weight.

    Args:
        kind: "dense" or "conv".
        weights: sequence of floats, λ.
        data: see `measured`.
        epochs: see `train`.
        seeds: list of ints.

    Returns:
        Dict from λ to a list of `(mse, largest local FVU)`, one per seed.
    """

    def train(weight, seed):
        default = weight == INVERSION_WEIGHT[kind]  # a run that may be cached
        options = {} if default else {"inversion_weight": weight}
        return measured(kind, "ours", data, epochs=epochs, seed=seed, **options)

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
    """Reduces the trainings of a kind to the entries of `results.json`.

    Args:
        kind: "dense" or "conv".
        runs: dict from `(kind, variant)`, "ours" and "baseline", to a list of what
            `measured` returns, one per seed, with a learned inverse.

    Returns:
        Dict from names to what `results.summarise` returns. `min_pr_share` is the
        smallest participation ratio over that of the baseline at the same layer.
    """
    ours, baseline = runs[kind, "ours"], runs[kind, "baseline"]
    pairs = list(zip(ours, baseline, strict=True))
    values = {
        "mse": [run["mse"] for run in ours],
        "baseline_mse": [run["mse"] for run in baseline],
        "price": [run["mse"] / other["mse"] for run, other in pairs],
        "min_pr_share": [smallest_share(*pair) for pair in pairs],
        "code_participation_ratio": [
            run["rows"][-1]["participation_ratio"] for run in ours
        ],
        "local_fvu_max": [largest(run, "local_fvu") for run in ours],
        "chain_fvu_max": [largest(run, "chain_fvu") for run in ours],
        "learned_inverse_fvu_max": [largest(r, "learned_inverse_fvu") for r in ours],
        "oracle_ratio_max": [largest(run, "oracle_ratio") for run in ours],
        "baseline_local_fvu_max": [largest(run, "local_fvu") for run in baseline],
        "baseline_learned_inverse_fvu_max": [
            largest(run, "learned_inverse_fvu") for run in baseline
        ],
    }
    for name, variant, column in [
        ("local_fvu", ours, "local_fvu"),
        ("chain_fvu", ours, "chain_fvu"),
        ("baseline_learned_inverse_fvu", baseline, "learned_inverse_fvu"),
    ]:
        for i in range(len(ours[0]["rows"])):
            of_seeds = [run["rows"][i][column] for run in variant]
            values[f"{name}_{i + 1}"] = of_seeds
    return {f"{kind}_{name}": results.summarise(v) for name, v in values.items()}


def smallest_share(run, baseline):
    """Returns the smallest participation ratio of a layer over the baseline's."""
    return min(
        row["participation_ratio"] / other["participation_ratio"]
        for row, other in zip(run["rows"], baseline["rows"], strict=True)
    )
