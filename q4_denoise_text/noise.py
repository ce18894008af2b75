"""How text is corrupted: token ids in, token ids out, inside `tf.data`."""

import numbers

import tensorflow as tf

from q4_denoise_text.corpus import MASK, PAD, SPECIAL_TOKENS


def corrupt(
    token_ids, *, mask_rate, replace_rate, shuffle_distance, delete_rate=0.0, seed
):
    """Corrupts sentences; every kind of noise is off at 0.

    In this order: tokens are shuffled locally (Lample et al. 2018), masked or replaced
    (Devlin et al. 2019), and deleted. Padding and special tokens stay where and what
    they are, but that what follows a deleted token moves up. A token is replaced by
    one drawn from the whole batch, so by a common one more often, and now and then by
    itself.

    Args:
        token_ids: int tensor `(batch, time)`, padded on the right with 0.
        mask_rate: float, the probability that a token becomes `[MASK]`.
        replace_rate: float, the probability that a token becomes another one.
        shuffle_distance: int, the largest number of places that a token moves, as
            counted without special tokens.
        delete_rate: float, the probability that a token goes missing. A sentence
            that would lose all of them but special ones loses none.
        seed: pair of ints or int tensor `(2,)`; the same seed gives the same noise.

    Returns:
        int32 tensor `(batch, time)`.

    Raises:
        ValueError: If a rate is not in [0, 1], `mask_rate` and `replace_rate` exceed
            1 together, or `shuffle_distance` is not an int of 0 or more.
    """
    _check_noise(mask_rate, replace_rate, shuffle_distance, delete_rate)
    token_ids = tf.cast(token_ids, tf.int32)
    seeds = tf.random.split(tf.cast(seed, tf.int32), 4)  # one a kind
    if shuffle_distance:
        token_ids = _shuffle(token_ids, shuffle_distance, seeds[0])
    ordinary = token_ids >= len(SPECIAL_TOKENS)
    draw = tf.random.stateless_uniform(tf.shape(token_ids), seeds[1])
    replaced = ordinary & (draw >= mask_rate) & (draw < mask_rate + replace_rate)
    if replace_rate:
        others = tf.boolean_mask(token_ids, ordinary)
        # A batch of special tokens alone has nothing to draw from, nor to replace.
        others = tf.concat([others, [PAD]], axis=0)
        count = tf.maximum(tf.size(others) - 1, 1)
        drawn = tf.random.stateless_uniform(
            tf.shape(token_ids), seeds[2], 0, count, tf.int32
        )
        token_ids = tf.where(replaced, tf.gather(others, drawn), token_ids)
    token_ids = tf.where(ordinary & (draw < mask_rate), MASK, token_ids)
    if delete_rate:
        draw = tf.random.stateless_uniform(tf.shape(token_ids), seeds[3])
        token_ids = _delete(token_ids, ordinary, draw < delete_rate)
    return token_ids


def _shuffle(token_ids, distance, seed):
    ordinary = token_ids >= len(SPECIAL_TOKENS)
    place = tf.cumsum(tf.cast(ordinary, tf.int32), axis=1) - 1  # among the ordinary
    jitter = tf.random.stateless_uniform(tf.shape(token_ids), seed) * (distance + 1)
    last = tf.cast(tf.shape(token_ids)[1] + distance + 1, tf.float32)
    keys = tf.where(ordinary, tf.cast(place, tf.float32) + jitter, last)
    order = tf.argsort(keys, axis=1, stable=True)
    moved = tf.gather(token_ids, order, axis=1, batch_dims=1)  # ordinary ones first
    moved = tf.gather(moved, tf.maximum(place, 0), axis=1, batch_dims=1)
    return tf.where(ordinary, moved, token_ids)


def _delete(token_ids, ordinary, drawn):
    left = tf.reduce_any(ordinary & ~drawn, axis=1, keepdims=True)
    deleted = ordinary & drawn & left
    order = tf.argsort(tf.cast(deleted, tf.int32), axis=1, stable=True)
    kept = tf.where(deleted, PAD, token_ids)
    return tf.gather(kept, order, axis=1, batch_dims=1)


def _check_noise(mask_rate, replace_rate, shuffle_distance, delete_rate):
    rates = {
        "mask_rate": mask_rate,
        "replace_rate": replace_rate,
        "delete_rate": delete_rate,
    }
    for name, rate in rates.items():
        number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
        if not (number and 0 <= rate <= 1):
            raise ValueError(f"`{name}` must lie in [0, 1]. Received: {name}={rate!r}")
    if mask_rate + replace_rate > 1:
        raise ValueError(
            "`mask_rate` and `replace_rate` must not exceed 1 together. Received: "
            f"mask_rate={mask_rate}, replace_rate={replace_rate}"
        )
    whole = isinstance(shuffle_distance, numbers.Integral)
    if not whole or isinstance(shuffle_distance, bool) or shuffle_distance < 0:
        raise ValueError(
            "`shuffle_distance` must be an int of 0 or more. Received: "
            f"shuffle_distance={shuffle_distance!r}"
        )
