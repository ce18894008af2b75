"""Pre-training of the denoiser: batches, noise drawn afresh, a run that resumes."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from common import resume
from q4_denoise_text.corpus import MAX_LENGTH, PAD, START
from q4_denoise_text.noise import corrupt

NOISE = {"mask_rate": 0.2, "replace_rate": 0.05, "shuffle_distance": 1}
LENGTHS = (8, 16, 24, 32, 48, MAX_LENGTH)  # of a batch, in tokens
TOKENS = 4_096  # of a batch, padding included
PREDICTED = 0.5  # share of the positions that are predicted


class Buckets:
    """Rows of token ids, sorted by length into arrays that are batched on their own.

    Args:
        rows: list of int arrays `(length,)`, none longer than the last of `lengths`.
        lengths: increasing ints, what rows are padded to.
        tokens: int, how many ids a batch holds, so that short rows come in larger
            batches.

    Raises:
        ValueError: If `lengths` or `tokens` are none of that, or there are not enough
            rows for a batch of any length.
    """

    def __init__(self, rows, *, lengths=LENGTHS, tokens=TOKENS):
        if not lengths or lengths[0] < 1 or list(lengths) != sorted(set(lengths)):
            raise ValueError(
                f"`lengths` must be ints of 1 or more that grow. Received: {lengths!r}"
            )
        if tokens < lengths[-1]:
            raise ValueError(
                f"`tokens` must be at least {lengths[-1]}, one row of the greatest "
                f"length. Received: tokens={tokens!r}"
            )
        sizes = np.array([len(row) for row in rows])
        if not len(rows) or sizes.max() > lengths[-1]:
            raise ValueError(
                f"`rows` must hold one or more arrays of at most {lengths[-1]} ids. "
                f"Received: {len(rows)} rows, the longest of {sizes.max(initial=0)}"
            )
        bucket = np.searchsorted(lengths, sizes)
        self.arrays, self.batches = [], []
        for i, length in enumerate(lengths):
            members = [rows[row] for row in np.flatnonzero(bucket == i)]
            if len(members) >= tokens // length:
                array = keras.utils.pad_sequences(
                    members, length, dtype="int32", padding="post"
                )
                self.arrays.append(array)
                self.batches.append(len(members) // (tokens // length))
        self.tokens = tokens
        if not self.arrays:
            raise ValueError(
                f"`tokens={tokens}` leaves no full batch of any length among "
                f"{len(rows)} rows; choose a smaller one."
            )

    def __len__(self):
        """Returns the number of batches in a pass over the rows."""
        return sum(self.batches)

    def order(self, seed, number):
        """Draws the batches of one pass, the same each time.

        Args:
            seed: int of 0 or more.
            number: int, of the pass, from 0.

        Returns:
            List of `(bucket, rows)`, one a batch: an index into `arrays`, and an int
            array `(batch,)`, rows of that array.
        """
        rng = np.random.default_rng([seed, number])
        found = []
        for i, (array, count) in enumerate(zip(self.arrays, self.batches, strict=True)):
            size = self.tokens // array.shape[1]
            rows = rng.permutation(len(array))[: count * size]
            found += [(i, part) for part in np.split(rows, count)]
        return [found[i] for i in rng.permutation(len(found))]

    def steps(self, seed):
        """Yields `(token_ids, step)` without end, pass after pass.

        Args:
            seed: int, see `order`.

        Yields:
            `(token_ids, step)`: int32 array `(batch, length)`, padded on the right with
            0, and an int that counts from 0.
        """
        step = itertools.count()
        for number in itertools.count():
            for bucket, rows in self.order(seed, number):
                yield self.arrays[bucket][rows], next(step)


def denoising_batches(
    buckets, *, noise=NOISE, seed=0, decoder="parallel", share=PREDICTED
):
    """Makes endless training data for a denoiser; order and noise follow the seed.

    Args:
        buckets: `Buckets`.
        noise: dict, the arguments of `corrupt` but the seed.
        seed: int.
        decoder: that of the denoiser, see `build_denoiser`.
        share: see `denoising_example`.

    Returns:
        `tf.data.Dataset` of `(inputs, targets, weights)`, see `denoising_example`.
    """
    signature = (tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((), tf.int32))
    dataset = tf.data.Dataset.from_generator(
        lambda: buckets.steps(seed), output_signature=signature
    )
    dataset = dataset.map(
        lambda ids, step: denoising_example(ids, (seed, step), noise, decoder, share),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return dataset.prefetch(tf.data.AUTOTUNE)


def denoising_example(
    token_ids, seed, noise=NOISE, decoder="parallel", share=PREDICTED
):
    """Turns a batch of sentences into input, target and weight of a denoiser.

    A parallel decoder is asked for corrupted positions first, then for intact ones,
    `share` of all positions in total, padding counted and rounded up: the softmax over
    the vocabulary is what costs most.

    Args:
        token_ids: int tensor `(batch, time)`, padded on the right.
        seed: pair of ints.
        noise: see `denoising_batches`.
        decoder: see `build_denoiser`.
        share: float in (0, 1].

    Returns:
        `(inputs, targets, weights)`: dict of int32 tensors, int32 `(batch, any)`, and
        float32 `(batch, any)`, 0 at padding.

    Raises:
        ValueError: If tokens are deleted and the decoder is parallel, which needs
            every token at its place.
    """
    if decoder == "parallel" and noise.get("delete_rate"):
        raise ValueError(
            "`noise` must not delete tokens unless the decoder is autoregressive. "
            f"Received: {noise}"
        )
    token_ids = tf.cast(token_ids, tf.int32)
    corrupted = corrupt(token_ids, **noise, seed=seed)
    present = token_ids != PAD
    if decoder == "autoregressive":
        start = tf.fill((tf.shape(token_ids)[0], 1), START)
        previous_ids = tf.concat([start, token_ids[:, :-1]], axis=1)
        inputs = {"token_ids": corrupted, "previous_ids": previous_ids}
        return inputs, token_ids, tf.cast(present, tf.float32)
    # Not one of the draws that corrupt: the choice must not tell what happened.
    seed = tf.random.fold_in(tf.cast(seed, tf.int32), 1)
    draw = tf.random.stateless_uniform(tf.shape(token_ids), seed)
    draw += tf.cast(corrupted != token_ids, tf.float32)
    draw = tf.where(present, draw, -1.0)
    count = tf.cast(
        tf.math.ceil(share * tf.cast(tf.shape(draw)[1], tf.float32)), "int32"
    )
    positions = tf.math.top_k(draw, count).indices
    targets = tf.gather(token_ids, positions, batch_dims=1)
    weights = tf.cast(targets != PAD, tf.float32)
    return {"token_ids": corrupted, "positions": positions}, targets, weights


def share_of_intact(buckets, *, batches=50):
    """Returns what share of the intact tokens training asks a parallel decoder for.

    Corrupted ones are all asked for, so that a denoiser learns to expect more of them
    than there are; by Bayes' rule this share is what corrects it (`restore`).

    Args:
        buckets: `Buckets`.
        batches: int, how many are looked at.
    """
    asked, intact = 0, 0
    for inputs, targets, weights in denoising_batches(buckets).take(batches):
        token_ids = inputs["token_ids"]
        seen = tf.gather(token_ids, inputs["positions"], batch_dims=1)
        corrupted = np.sum((seen != targets) & (weights > 0))
        asked += np.sum(weights) - corrupted
        intact += np.sum(token_ids != PAD) - corrupted
    return float(asked / intact)


def compile_denoiser(denoiser, *, steps, learning_rate=1.5e-3, jit_compile=True):
    """Compiles a denoiser with AdamW, a short warm-up and a cosine down to 0.

    Args:
        denoiser: from `build_denoiser`.
        steps: int, of the whole training.
        learning_rate: float, the highest one.
        jit_compile: bool, whether XLA compiles the training step.
    """
    warm_up = min(500, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=learning_rate, warmup_steps=warm_up
    )
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    denoiser.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.01, global_clipnorm=1.0),
        loss,
        weighted_metrics=[accuracy],
        jit_compile=jit_compile,
    )


def pretrain(
    build,
    rows,
    *,
    folder,
    epochs,
    steps=500,
    seed=0,
    noise=NOISE,
    decoder="parallel",
    tokens=TOKENS,
    learning_rate=1.5e-3,
    jit_compile=True,
    verbose=0,
):
    """Trains a denoiser, or goes on where an earlier run was interrupted.

    Args:
        build: function without arguments that returns a denoiser.
        rows: list of int arrays, see `Buckets`.
        folder: path, the `backup_dir` of `common.resume.fit`.
        epochs: int.
        steps: int, training steps of an epoch.
        seed: int, of weights, order and noise.
        noise: see `denoising_batches`.
        decoder: see `denoising_batches`.
        tokens: see `Buckets`.
        learning_rate: see `compile_denoiser`.
        jit_compile: see `compile_denoiser`.
        verbose: as for `fit`.

    Returns:
        `(denoiser, history)`, the latter a dict of lists, one value an epoch.

    Raises:
        FloatingPointError: If the loss is no number any more.
    """
    keras.utils.set_random_seed(seed)
    denoiser = build()
    compile_denoiser(
        denoiser,
        steps=epochs * steps,
        learning_rate=learning_rate,
        jit_compile=jit_compile,
    )
    buckets = Buckets(rows, tokens=tokens)
    history = resume.fit(
        denoiser,
        denoising_batches(buckets, noise=noise, seed=seed, decoder=decoder),
        epochs=epochs,
        steps_per_epoch=steps,
        backup_dir=folder,
        verbose=verbose,
    )
    return denoiser, history.history
