"""The published denoiser: how it was made, and how it is loaded.

`python -m q4_denoise_text.published` makes it anew, which takes hours without a GPU.
It goes on where it was interrupted.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from common import presets, results
from q4_denoise_text.corpus import (
    learn_vocabulary,
    load_corpus,
    make_tokenizer,
    tokenize,
)
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import Buckets, pretrain, share_of_intact

QUESTION = "q4_denoise_text"
FOLDER = Path(__file__).parent / "results"
WEIGHTS = FOLDER / "denoiser.weights.h5"
VOCABULARY = FOLDER / "vocabulary.txt"
RECORD = FOLDER / "pretraining.json"
BUILD = presets.ROOT / "build" / QUESTION
EPOCHS, STEPS = 34, 500
SAMPLE = 60_000  # sentences that the vocabulary is learned from


def load_published():
    """Loads the published denoiser.

    Returns:
        `(denoiser, tokenizer, record)`; the record holds the history of its training.

    Raises:
        ValueError: If the weights are not those whose digest was published.
    """
    record = json.loads(RECORD.read_text("utf-8"))
    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    if digest != record["sha256"]:
        raise ValueError(
            f"{WEIGHTS} is not the published file: its sha256 is {digest} instead of "
            f"{record['sha256']}. Run `git checkout {WEIGHTS.name}` in its folder."
        )
    tokenizer = make_tokenizer(str(VOCABULARY))
    denoiser = build_denoiser(tokenizer.vocabulary_size())
    denoiser.load_weights(WEIGHTS)
    return denoiser, tokenizer, record


def encode_corpus(corpus, tokenizer):
    """Maps a corpus to token ids, once: a cache below `build` keeps them.

    Args:
        corpus: `Corpus`.
        tokenizer: from `make_tokenizer`.

    Returns:
        `(train, held_out)`, two lists of int32 arrays `(length,)`, see `tokenize`.
    """
    key = [corpus.name, len(corpus.train), *tokenizer.get_vocabulary()]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    path = BUILD / f"tokens-{digest}.npz"
    if not path.exists():
        arrays = {}
        for name in ("train", "held_out"):
            rows = tokenize(tokenizer, getattr(corpus, name))
            arrays[name] = np.concatenate(rows)
            arrays[f"{name}_ends"] = np.cumsum([len(row) for row in rows])
        results.write_atomic(path, lambda partial: np.savez(partial, **arrays))
    with np.load(path) as stored:
        return tuple(
            np.split(stored[name], stored[f"{name}_ends"][:-1])
            for name in ("train", "held_out")
        )


def main():
    """Makes vocabulary, weights and record."""
    corpus = load_corpus("tfds", download=True)
    print(f"{corpus.name}: {len(corpus.train):,} to train on", flush=True)
    if not VOCABULARY.exists():
        rng = np.random.default_rng(0)
        vocabulary = learn_vocabulary(rng.choice(corpus.train, SAMPLE, replace=False))
        VOCABULARY.write_text("".join(f"{piece}\n" for piece in vocabulary), "utf-8")
    tokenizer = make_tokenizer(str(VOCABULARY))
    train, _ = encode_corpus(corpus, tokenizer)
    denoiser, history = pretrain(
        lambda: build_denoiser(tokenizer.vocabulary_size()),
        train,
        folder=BUILD / "pretraining",
        epochs=EPOCHS,
        steps=STEPS,
        verbose=2,
    )
    # A model without an optimizer, whose state would be saved as well.
    published = build_denoiser(**denoiser.get_config())
    published.set_weights(denoiser.get_weights())
    published.save_weights(WEIGHTS)
    record = {
        "command": "python -m q4_denoise_text.published",
        "sha256": hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(),
        "data": corpus.name,
        "versions": presets.versions(),
        "sentences": len(train),
        "tokens": sum(map(len, train)),
        "lengths": np.bincount([len(row) for row in train]).tolist(),
        "tokens_of_epoch": round(STEPS * sum(map(len, train)) / len(Buckets(train))),
        "share_of_intact": share_of_intact(Buckets(train)),
        "history": history,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
