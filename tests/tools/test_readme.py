"""The code in README.md and docs/reuse.md runs as it stands, on data as described."""

import re

import numpy as np
import pytest

from common.text import bucketed_batches
from tools.pages import ROOT

TEXTS = [(ROOT / name).read_text("utf-8") for name in ("README.md", "docs/reuse.md")]
BLOCKS = re.findall(r"```python\n(.*?)```", "\n".join(TEXTS), re.S)


@pytest.fixture
def names():
    """What is left to the reader: a few sentences and images."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(2, 50, length) for length in rng.integers(9, 20, 32)]
    labels = np.arange(32) % 2
    batches = bucketed_batches(rows, labels, bucket_lengths=(20,), batch_size=16)
    images = rng.random((128, 28, 28, 1), dtype="float32")
    token_ids = rng.integers(5, 50, (4, 20)).astype("int32")
    names = {"train_ds": batches, "validation_ds": batches, "labels": labels[:4]}
    names |= {"images": images, "test_images": images[:16], "token_ids": token_ids}
    return names


def block(question):
    """Returns the only block of code that uses a question, with little to train."""
    (code,) = [code for code in BLOCKS if f"from {question}" in code]
    return code.replace("epochs=10", "epochs=1")


def test_there_is_a_block_for_each_question():
    assert len(BLOCKS) == 4


def test_the_gradient_ends_where_the_readme_says(names):
    exec(block("q1_tbptt"), names)
    magnitudes = names["hidden_state"]
    assert magnitudes.shape == (4, 21)
    assert not magnitudes[:, : -1 - 8].any()
    assert magnitudes[:, -1 - 8 :].all()


def test_a_reset_layer_is_one_among_keras_layers(names):
    exec(block("q2_reset_cell"), names)
    assert names["model"](names["token_ids"]).shape == (4, 1)


def test_every_layer_is_reported(names):
    exec(block("q3_inverse_ae"), names)
    assert len(names["rows"]) == 4


def test_the_published_encoder_is_reused_frozen(names):
    exec(block("q4_denoise_text"), names)
    encoder = names["denoiser"].get_layer("encoder")
    published = names["load_published"]()[0].get_layer("encoder")
    for weight, expected in zip(encoder.weights, published.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
