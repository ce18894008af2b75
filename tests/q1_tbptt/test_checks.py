"""q1_tbptt/checks.py: batches that are accepted and refused."""

import numpy as np
import pytest
import tensorflow as tf

from q1_tbptt.checks import check_batch

IDS = np.array([[0, 5], [6, 7]])


@pytest.mark.parametrize("kind", [np.array, tf.constant])
def test_a_good_batch_is_accepted(kind):
    for labels in ([0, 1], [[0.0], [1.0]], [True, False]):
        check_batch("batch", kind(IDS), kind(labels), vocab_size=8)


@pytest.mark.parametrize(
    ("token_ids", "labels", "message"),
    [
        (tf.ragged.constant([[5], [6, 7]]), [0, 1], "token_ids.*Ragged"),
        ([[5], [6, 7]], [0, 1], "token_ids.*list"),
        (IDS[0], [0, 1], r"token_ids.*\(2,\)"),
        (IDS.astype("float32"), [0, 1], "token_ids.*float32"),
        (IDS.astype(str), [0, 1], "token_ids"),
        (IDS[:0], [], "batch.*empty"),
        (IDS * [[1], [0]], [0, 1], "batch.*row 1"),
        (IDS[:, ::-1], [0, 1], "batch.*left"),
        (-IDS, [0, 1], "batch.*-7"),
        (IDS + [[0], [1]], [0, 1], "batch.*8"),
        (IDS, [0, 1, 1], r"labels.*\(3,\)"),
        (IDS, [[0, 1], [1, 0]], r"labels.*\(2, 2\)"),
        (IDS, [-1, 1], "labels.*-1"),
        (IDS, [0, np.nan], "labels.*nan"),
        (IDS, [0, None], "labels.*None"),
        (IDS, [[0], [1, 1]], "labels"),
    ],
)
def test_a_bad_batch_is_refused(token_ids, labels, message):
    with pytest.raises(ValueError, match=f"(?s)`{message}"):
        check_batch("batch", token_ids, labels, vocab_size=8)
