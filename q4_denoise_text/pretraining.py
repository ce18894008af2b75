"""Pre-trains the published denoiser.

`python -m q4_denoise_text.pretraining` makes its vocabulary, weights and record, which
takes hours without a GPU. The learning rate falls to 0 at the end of every piece
(Loshchilov and Hutter 2017), and the weights are published then: the command resumes
after the last published piece, or inside a piece where it was interrupted. Without
`results/pretraining.json` it begins from scratch.
"""

import hashlib
import json
import shutil

import keras
import numpy as np

from common import presets, results, resume
from q4_denoise_text import denoise_text
from q4_denoise_text.data import (
    MAX_LENGTH,
    NOISE,
    denoising_batches,
    intact_ratio,
    learn_vocabulary,
    load_corpus,
    make_tokenizer,
    tokenize,
    training_rows,
    word_starts,
)

BUILD = presets.ROOT / "build" / "q4_denoise_text"
SIZE = {"width": 128, "depth": 4, "heads": 4}
LEARNING_RATES = (1.5e-3,)  # the highest one of each piece
EPOCHS, STEPS = 40, 500  # of each piece
SAMPLE = 60_000  # sentences that the vocabulary is learned from


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
    denoiser,
    rows,
    *,
    epochs,
    steps=500,
    learning_rate=1.5e-3,
    seed=0,
    noise=NOISE,
    folder=None,
    verbose=0,
):
    """Trains a denoiser, or resumes where an earlier run was interrupted.

    Args:
        denoiser: from `build_denoiser`, with the weights to start from.
        rows: list of int arrays, see `denoising_batches`.
        epochs: int.
        steps: int, training steps of an epoch.
        learning_rate: float, the highest one.
        seed: int, of order and noise.
        noise: see `denoising_batches`.
        folder: path, the `backup_dir` of `common.resume.fit`.
        verbose: as for `fit`.

    Returns:
        The history, a dict of lists with one value per epoch.

    Raises:
        FloatingPointError: If the loss is not finite and `folder` is given.
    """
    compile_denoiser(denoiser, steps=epochs * steps, learning_rate=learning_rate)
    history = resume.fit(
        denoiser,
        denoising_batches(rows, noise=noise, seed=seed),
        epochs=epochs,
        steps_per_epoch=steps,
        backup_dir=folder,
        verbose=verbose,
    )
    return history.history


def encode_corpus(corpus, tokenizer):
    """Maps a corpus to token ids, once: a cache below `build` keeps them.

    Args:
        corpus: `Corpus`.
        tokenizer: from `make_tokenizer`.

    Returns:
        `(train, held_out)`, two lists of int32 arrays `(length,)`: the rows of
        `training_rows`, and the sentences.
    """
    sentences = [
        [text for passage in passages for text in passage] for passages in corpus[1:]
    ]
    digest = _digest([MAX_LENGTH, sentences, tokenizer.get_vocabulary()])
    path = BUILD / f"tokens-{digest}.npz"
    if not path.exists():
        rows = [tokenize(tokenizer, texts) for texts in sentences]
        arrays = {
            "train": np.concatenate(rows[0]),
            "train_lengths": [len(row) for row in rows[0]],
            "held_out": np.concatenate(rows[1]),
            "held_out_lengths": [len(row) for row in rows[1]],
        }
        results.write_atomic(path, lambda partial: np.savez(partial, **arrays))
    with np.load(path) as stored:
        train, held_out = (
            np.split(stored[name], np.cumsum(stored[f"{name}_lengths"])[:-1])
            for name in ("train", "held_out")
        )
    rows = iter(train)
    passages = [[next(rows) for _ in passage] for passage in corpus.train]
    return training_rows(passages), held_out


def main():
    """Makes the vocabulary, and weights and record piece by piece."""
    corpus = load_corpus("tfds", download=True)
    if not denoise_text.VOCABULARY.exists():
        sentences = [text for passage in corpus.train for text in passage]
        chosen = np.random.default_rng(0).permutation(len(sentences))[:SAMPLE]
        pieces = learn_vocabulary([sentences[i] for i in chosen])
        write_text(denoise_text.VOCABULARY, "".join(f"{piece}\n" for piece in pieces))
    tokenizer = make_tokenizer(str(denoise_text.VOCABULARY))
    rows, _ = encode_corpus(corpus, tokenizer)
    noise = NOISE | {"word_starts": word_starts(tokenizer)}
    print(f"{corpus.name}: {len(rows):,} rows", flush=True)
    if denoise_text.RECORD.exists():
        denoiser, _, record = denoise_text.load_published()
    else:
        keras.utils.set_random_seed(0)
        size = {"vocab_size": tokenizer.vocabulary_size()} | SIZE
        denoiser = denoise_text.build_denoiser(**size)
        record = describe(corpus, rows, noise) | {"size": size, "pieces": []}
    settings = [
        SIZE,
        NOISE,
        LEARNING_RATES,
        EPOCHS,
        STEPS,
        tokenizer.get_vocabulary(),
        len(rows),
    ]
    for piece in range(len(record["pieces"]), len(LEARNING_RATES)):
        folder = BUILD / f"piece-{piece}-{_digest(settings)}"
        history = pretrain(
            denoiser,
            rows,
            epochs=EPOCHS,
            steps=STEPS,
            learning_rate=LEARNING_RATES[piece],
            seed=piece,
            noise=noise,
            folder=folder,
            verbose=2,
        )
        record["pieces"].append(history)
        publish(denoiser, record)
        shutil.rmtree(folder, ignore_errors=True)


def describe(corpus, rows, noise):
    """Describes the training data for the record."""
    lengths = np.bincount([len(row) for row in rows]).tolist()
    batches = denoising_batches(rows).take(200)
    real = np.mean([np.sum(i["token_ids"] != 0) for i, _, _ in batches])
    return {
        "command": "python -m q4_denoise_text.pretraining",
        "data": corpus.name,
        "versions": presets.versions(),
        "noise": NOISE,
        "rows": len(rows),
        "tokens": sum(map(len, rows)),
        "lengths": lengths,
        "tokens_of_epoch": round(STEPS * real),
        "intact_ratio": intact_ratio(rows, noise=noise),
    }


def publish(denoiser, record):
    """Writes weights and record."""
    # A model without an optimizer, whose state would be saved as well.
    published = denoise_text.build_denoiser(**record["size"])
    published.set_weights(denoiser.get_weights())
    results.write_atomic(denoise_text.WEIGHTS, published.save_weights)
    digest = hashlib.sha256(denoise_text.WEIGHTS.read_bytes()).hexdigest()
    text = json.dumps(record | {"sha256": digest}, indent=1)
    write_text(denoise_text.RECORD, f"{text}\n")


def write_text(path, text):
    """Writes a text file atomically."""
    results.write_atomic(path, lambda partial: partial.write_text(text, "utf-8"))


def _digest(settings):
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
