"""How well corrupted text is restored, by the denoiser and by what it has to beat."""

import keras
import keras_nlp
import numpy as np
from keras import ops

from q4_denoise_text.corpus import MASK, PAD, SPECIAL_TOKENS
from q4_denoise_text.noise import corrupt
from q4_denoise_text.pretraining import NOISE


def pad_rows(rows, length=None):
    """Returns rows of token ids as one int32 array, padded on the right with 0."""
    return keras.utils.pad_sequences(rows, length, dtype="int32", padding="post")


def corrupted_copy(token_ids, noise=NOISE, seed=0):
    """Returns the corrupted form of a whole set, always the same for a seed."""
    return corrupt(token_ids, **noise, seed=(seed, 0)).numpy()


def restore(denoiser, corrupted, batch=64):
    """Returns the most likely token at every position.

    Args:
        denoiser: from `build_denoiser`, with a parallel decoder.
        corrupted: int array `(n, time)`, padded on the right.
        batch: int.

    Returns:
        int32 array `(n, time)`, 0 where `corrupted` is.
    """
    best = keras.Model(denoiser.inputs, ops.argmax(denoiser.output, axis=-1))
    positions = np.tile(
        np.arange(corrupted.shape[1], dtype="int32"), (len(corrupted), 1)
    )
    inputs = {"token_ids": corrupted, "positions": positions}
    restored = best.predict(inputs, batch_size=batch, verbose=0).astype("int32")
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
        """Fills every `[MASK]` from what stands beside it, and copies the rest."""
        restored = corrupted.copy()
        wide = np.pad(corrupted, ((0, 0), (1, 1)))
        for row, column in np.argwhere(corrupted == MASK):
            left, right = wide[row, column], wide[row, column + 2]
            scores = self.following[left] * self.following[:, right]
            restored[row, column] = np.argmax(scores * (self.frequency > 0))
        return restored


def fill_most_frequent(rows, corrupted):
    """Fills every `[MASK]` with the most frequent token of `rows`."""
    counts = np.bincount(np.concatenate(rows))
    counts[: len(SPECIAL_TOKENS)] = 0
    return np.where(corrupted == MASK, np.argmax(counts), corrupted).astype("int32")
