"""How well corrupted text is restored, by the denoiser and by what it has to beat."""

import keras
import keras_nlp
import numpy as np

from q4_denoise_text.corpus import MASK, PAD, SPECIAL_TOKENS
from q4_denoise_text.noise import corrupt
from q4_denoise_text.pretraining import NOISE

# Milder than in training, where more noise is more to learn from.
JUDGED = {"mask_rate": 0.15, "replace_rate": 0.03, "shuffle_distance": 1}


def pad_rows(rows, length=None):
    """Returns rows of token ids as one int32 array, padded on the right with 0.

    Args:
        rows: list of int arrays `(length_i,)`.
        length: int, columns of the result; longer rows keep their last ids. Defaults to
            the longest row.
    """
    return keras.utils.pad_sequences(rows, length, dtype="int32", padding="post")


def corrupted_copy(token_ids, noise=NOISE, seed=0):
    """Returns the corrupted form of a whole set, always the same for a seed.

    Args:
        token_ids: int array `(n, time)`, padded on the right with 0.
        noise: dict, the arguments of `corrupt` but the seed.
        seed: int.

    Returns:
        int32 array `(n, time)`.
    """
    return corrupt(token_ids, **noise, seed=(seed, 0)).numpy()


def restore(denoiser, corrupted, intact=1.0, batch=64):
    """Returns the most likely token at every position.

    Args:
        denoiser: from `build_denoiser`, with a parallel decoder.
        corrupted: int array `(n, time)`, padded on the right.
        intact: float, see `pretraining.share_of_intact`: the probability of the token
            that is there already is corrected by that factor.
        batch: int.

    Returns:
        int32 array `(n, time)`, 0 where `corrupted` is.
    """
    restored = np.empty_like(corrupted)
    for start in range(0, len(corrupted), batch):
        token_ids = corrupted[start : start + batch]
        positions = np.broadcast_to(
            np.arange(token_ids.shape[1], dtype="int32"), token_ids.shape
        )
        # Not `predict`, which would keep the logits of all batches.
        logits = denoiser.predict_on_batch(
            {"token_ids": token_ids, "positions": positions}
        )
        copied = np.take_along_axis(logits, token_ids[..., np.newaxis], axis=-1)
        np.put_along_axis(
            logits, token_ids[..., np.newaxis], copied - np.log(intact), axis=-1
        )
        restored[start : start + batch] = logits.argmax(axis=-1)
    return np.where(corrupted == PAD, PAD, restored)


def restoration_scores(original, corrupted, restored):
    """Counts what a restoration mends and what it breaks.

    Args:
        original: int array `(n, time)`, padded on the right with 0.
        corrupted: int array of the same shape.
        restored: int array of the same shape.

    Returns:
        Dict of floats: `token_accuracy`, and the same at `corrupted` and at `intact`
        positions; `error_reduction`, 1 − errors after / errors before; `sentences`,
        the share restored exactly.
    """
    present = original != PAD
    right = restored == original
    wrong_before = present & (corrupted != original)
    errors = np.sum(present & ~right)
    return {
        "token_accuracy": float(right[present].mean()),
        "corrupted": float(right[wrong_before].mean()),
        "intact": float(right[present & ~wrong_before].mean()),
        "error_reduction": float(1 - errors / wrong_before.sum()),
        "sentences": float(np.all(right | ~present, axis=1).mean()),
    }


def restored_by_rate(denoiser, token_ids, rates, *, intact, distances=(1, 2, 4, 8)):
    """Measures restoration under one kind of noise at a time, more and more of it.

    Args:
        denoiser: from `build_denoiser`, with a parallel decoder.
        token_ids: int array `(n, time)`, sentences it has not seen.
        rates: list of floats, of tokens that are masked, or replaced.
        intact: see `restore`.
        distances: ints, how far words are moved.

    Returns:
        Dict from the kind to `(corrupted, scores)`: the share of the tokens that the
        noise changed and `restoration_scores`, a list of each.
    """
    off = {"mask_rate": 0.0, "replace_rate": 0.0, "shuffle_distance": 0}
    kinds = {
        "masks": [off | {"mask_rate": rate} for rate in rates],
        "other words": [off | {"replace_rate": rate} for rate in rates],
        "word order": [off | {"shuffle_distance": far} for far in distances],
    }
    found = {}
    for kind, noises in kinds.items():
        shares, scores = [], []
        for noise in noises:
            corrupted = corrupted_copy(token_ids, noise)
            shares.append(float(np.mean((corrupted != token_ids)[token_ids != PAD])))
            restored = restore(denoiser, corrupted, intact)
            scores.append(restoration_scores(token_ids, corrupted, restored))
        found[kind] = shares, scores
    return found


def best_and_worst(original, corrupted, restored, *, count=3, longest=24):
    """Returns row numbers: of the sentences mended best, then of those mended worst.

    Args:
        original: int array `(n, time)`.
        corrupted: int array of the same shape.
        restored: int array of the same shape.
        count: int, of each.
        longest: int, in tokens.
    """
    short = np.flatnonzero(np.sum(original != PAD, axis=1) <= longest)
    before = np.sum(corrupted != original, axis=1)[short]
    after = np.sum(restored != original, axis=1)[short]
    best = short[np.argsort(after - before, kind="stable")][:count]
    return best, short[np.argsort(-after, kind="stable")][:count]


def word_error_rate(tokenizer, original, other):
    """Returns the edit distance of the words of two sets of sentences, per word.

    Args:
        tokenizer: see `corpus.make_tokenizer`.
        original: int array `(n, time)`.
        other: int array `(n, time)`.
    """
    metric = keras_nlp.metrics.EditDistance(normalize=True)
    for a, b in zip(original, other, strict=True):
        words = [tokenizer.detokenize(row[row != PAD]).split() for row in (a, b)]
        metric.update_state(*words)
    return float(metric.result())


class Bigrams:
    """Fills a gap with the word that is likeliest between its neighbours.

    P(w | left) P(right | w), with counts of neighbours in the training text, a tenth
    of the plain frequencies mixed in.

    Args:
        rows: list of int arrays, the training text.
        vocab_size: int.
    """

    def __init__(self, rows, vocab_size):
        # Padding keeps sentences apart, and tells where they end.
        flat = pad_rows(rows, 1 + max(map(len, rows))).ravel()
        pairs = flat[:-1].astype("int64") * vocab_size + flat[1:]
        counts = np.zeros((vocab_size, vocab_size), "float32")
        found, numbers = np.unique(pairs, return_counts=True)
        counts.ravel()[found] = numbers
        words = np.bincount(flat, minlength=vocab_size).astype("float64")
        words[: len(SPECIAL_TOKENS)] = 0
        self.frequency = words / words.sum()
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        self.following = 0.9 * counts / totals + 0.1 * self.frequency
        # What never follows anything, such as another gap, tells nothing.
        self.following[:, self.following.sum(axis=0) == 0] = 1

    def restore(self, corrupted):
        """Fills every `[MASK]` from what stands beside it, and copies the rest.

        Args:
            corrupted: int array `(n, time)`, padded on the right with 0.

        Returns:
            Array of the same shape and dtype.
        """
        restored = corrupted.copy()
        wide = np.pad(corrupted, ((0, 0), (1, 1)))
        for row, column in np.argwhere(corrupted == MASK):
            left, right = wide[row, column], wide[row, column + 2]
            scores = self.following[left] * self.following[:, right]
            restored[row, column] = np.argmax(scores * (self.frequency > 0))
        return restored


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
