"""Denoising metrics and baselines."""

import keras
import numpy as np

from q4_denoise_text.data import MASK, NOISE, OFF, PAD, SPECIAL_TOKENS, corrupt


def pad_rows(rows, length=None):
    """Returns rows of token ids as one int32 array, padded on the right with 0.

    Args:
        rows: list of int arrays `(length_i,)`.
        length: int, columns of the result; longer rows keep their first ids. Defaults
            to the longest row.
    """
    return keras.utils.pad_sequences(
        rows, length, dtype="int32", padding="post", truncating="post"
    )


def corrupted_copy(token_ids, noise=NOISE, seed=0):
    """Returns the corrupted form of a whole set, the same for the same seed.

    Args:
        token_ids: int array `(n, time)`, padded on the right with 0.
        noise: dict, the arguments of `corrupt` except the seed.
        seed: int.

    Returns:
        int32 array `(n, time)`.
    """
    return corrupt(token_ids, **noise, seed=(seed, 0)).numpy()


def denoise(denoiser, corrupted, intact=1.0, batch=64):
    """Returns the most likely token at every position.

    Args:
        denoiser: from `build_denoiser`.
        corrupted: int array `(n, time)`, padded on the right.
        intact: float, see `data.intact_ratio`: the odds of the token that is there
            already are divided by it.
        batch: int.

    Returns:
        int32 array `(n, time)`, 0 where `corrupted` is.
    """
    corrupted = np.asarray(corrupted, "int32")
    denoised = np.empty_like(corrupted)
    for start in range(0, len(corrupted), batch):
        token_ids = corrupted[start : start + batch]
        positions = np.broadcast_to(
            np.arange(token_ids.shape[1], dtype="int32"), token_ids.shape
        )
        # `predict` would keep the logits of all batches.
        logits = denoiser.predict_on_batch(
            {"token_ids": token_ids, "positions": positions}
        )
        there = token_ids[..., np.newaxis]
        copied = np.take_along_axis(logits, there, axis=-1) - np.log(intact)
        np.put_along_axis(logits, there, copied, axis=-1)
        denoised[start : start + batch] = logits.argmax(axis=-1)
    return np.where(corrupted == PAD, PAD, denoised)


def restoration_scores(original, corrupted, denoised):
    """Measures how many tokens a denoiser restores and how many it corrupts.

    Args:
        original: int array `(n, time)`, padded on the right with 0.
        corrupted: int array of the same shape.
        denoised: int array of the same shape.

    Returns:
        Dict of floats: `token_accuracy`; the same at `corrupted` and at `intact`
        positions; `error_reduction`, 1 − errors after / errors before; `sentences`,
        the share restored exactly.

    Raises:
        ValueError: If nothing is corrupted.
    """
    present = original != PAD
    right = denoised == original
    wrong_before = present & (corrupted != original)
    if not wrong_before.any():
        raise ValueError(
            "`corrupted` must differ from `original`. Received: equal arrays"
        )
    errors = np.sum(present & ~right)
    return {
        "token_accuracy": float(right[present].mean()),
        "corrupted": float(right[wrong_before].mean()),
        "intact": float(right[present & ~wrong_before].mean()),
        "error_reduction": float(1 - errors / wrong_before.sum()),
        "sentences": float(np.all(right | ~present, axis=1).mean()),
    }


def scores_by_rate(denoiser, token_ids, rates, *, word_starts, intact):
    """Measures a denoiser under one kind of noise at a time, at several rates.

    Args:
        denoiser: from `build_denoiser`.
        token_ids: int array `(n, time)`, sentences that it has not seen.
        rates: list of floats, of tokens that are masked, or replaced.
        word_starts: see `corrupt`.
        intact: see `denoise`.

    Returns:
        Dict from the kind to `(corrupted, scores)`: the share of the tokens that the
        noise changed, and `restoration_scores`, a list of each.
    """
    off = OFF | {"word_starts": word_starts}
    kinds = {
        "masks": [off | {"mask_rate": rate} for rate in rates],
        "other words": [off | {"replace_rate": rate} for rate in rates],
        "word order": [off | {"shuffle_distance": far} for far in (1, 2, 4, 8)],
    }
    found = {}
    for kind, noises in kinds.items():
        shares, scores = [], []
        for noise in noises:
            corrupted = corrupted_copy(token_ids, noise)
            shares.append(float(np.mean((corrupted != token_ids)[token_ids != PAD])))
            denoised = denoise(denoiser, corrupted, intact)
            scores.append(restoration_scores(token_ids, corrupted, denoised))
        found[kind] = shares, scores
    return found


def best_and_worst(original, corrupted, denoised, *, count=3, longest=24):
    """Returns row numbers of the sentences denoised best, and of those denoised worst.

    Args:
        original: int array `(n, time)`.
        corrupted: int array of the same shape.
        denoised: int array of the same shape.
        count: int, of each.
        longest: int, in tokens.
    """
    short = np.flatnonzero(np.sum(original != PAD, axis=1) <= longest)
    before = np.sum(corrupted != original, axis=1)[short]
    after = np.sum(denoised != original, axis=1)[short]
    best = short[np.argsort(after - before, kind="stable")][:count]
    return best, short[np.argsort(-after, kind="stable")][:count]


class Bigrams:
    """Fills a gap with the word that is most likely between its neighbours.

    The word w maximizes P(w | left) P(right | w), from counts of neighbours in the
    training text, with a tenth of the plain frequencies mixed in.

    Args:
        rows: list of int arrays, the training text.
        vocab_size: int.
    """

    def __init__(self, rows, vocab_size):
        # Padding stands between sentences, where they begin and end.
        ends = np.cumsum([0, *map(len, rows)])
        flat = np.insert(np.concatenate(rows), ends, PAD)
        pairs = flat[:-1].astype("int64") * vocab_size + flat[1:]
        counts = np.zeros((vocab_size, vocab_size), "float32")
        found, numbers = np.unique(pairs, return_counts=True)
        counts.ravel()[found] = numbers
        words = np.bincount(flat, minlength=vocab_size).astype("float64")
        words[: len(SPECIAL_TOKENS)] = 0
        self.frequency = words / words.sum()
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        self.following = 0.9 * counts / totals + 0.1 * self.frequency
        # A token that never follows any other, such as another gap, has no say.
        self.following[:, self.following.sum(axis=0) == 0] = 1

    def denoise(self, corrupted):
        """Fills every `[MASK]` from its neighbours, and copies the rest.

        Args:
            corrupted: int array `(n, time)`, padded on the right with 0.

        Returns:
            Array of the same shape and dtype.
        """
        denoised = corrupted.copy()
        wide = np.pad(corrupted, ((0, 0), (1, 1)))
        for row, column in np.argwhere(corrupted == MASK):
            left, right = wide[row, column], wide[row, column + 2]
            scores = self.following[left] * self.following[:, right]
            denoised[row, column] = np.argmax(scores * (self.frequency > 0))
        return denoised


def fill_most_frequent(rows, corrupted):
    """Fills every `[MASK]` with the most frequent token of `rows`.

    Args:
        rows: list of int arrays, the training text; special tokens do not count.
        corrupted: int array `(n, time)`.

    Returns:
        int32 array `(n, time)`.
    """
    counts = np.bincount(np.concatenate(rows))
    counts[: len(SPECIAL_TOKENS)] = 0
    return np.where(corrupted == MASK, np.argmax(counts), corrupted).astype("int32")
