"""What is trained and measured for question 4.

Long runs are `results.cached`, so that a run that was interrupted resumes.
"""

import keras
import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from common import results
from q4_denoise_text import pretraining, restoration, transfer
from q4_denoise_text.corpus import clean, tokenize
from q4_denoise_text.denoise_text import build_classifier, build_denoiser

QUESTION = "q4_denoise_text"
# Each kind of noise alone, and all of them: arguments of `corrupt`.
NOISES = {
    "masks": {"mask_rate": 0.25, "replace_rate": 0.0, "shuffle_distance": 0},
    "other words": {"mask_rate": 0.0, "replace_rate": 0.25, "shuffle_distance": 0},
    "word order": {"mask_rate": 0.0, "replace_rate": 0.0, "shuffle_distance": 3},
    "all three": pretraining.NOISE,
}
# What is compared in short pre-trainings: noise and decoder.
OBJECTIVES = {kind: (noise, "parallel") for kind, noise in NOISES.items()} | {
    "all three, twice as much": (
        {"mask_rate": 0.4, "replace_rate": 0.1, "shuffle_distance": 3},
        "parallel",
    ),
    "deletion, word by word": (
        {
            "mask_rate": 0.0,
            "replace_rate": 0.0,
            "shuffle_distance": 0,
            "delete_rate": 0.6,
        },
        "autoregressive",
    ),
}
# How an encoder is used: whether it is pre-trained, and whether it stays frozen.
ENCODERS = {
    "random, frozen": (False, True),
    "denoiser, frozen": (True, True),
    "denoiser, fine-tuned": (True, False),
    "from scratch": (False, False),
}
# The published results of transfer: how the encoder is used, and the head.
METRICS = {
    "sentiment_random_frozen_linear": ("random, frozen", "linear"),
    "sentiment_random_frozen_attention": ("random, frozen", "attention"),
    "sentiment_frozen_linear": ("denoiser, frozen", "linear"),
    "sentiment_frozen_attention": ("denoiser, frozen", "attention"),
    "sentiment_finetuned": ("denoiser, fine-tuned", "attention"),
    "sentiment_scratch": ("from scratch", "attention"),
}
# How an encoder and the head on it are trained. A fresh head takes larger steps than
# what is pre-trained, and a whole network is regularised: words go missing.
WORD_NOISE = {"mask_rate": 0.1, "replace_rate": 0.0, "shuffle_distance": 0}
TRAINING = {
    "random, frozen": {"learning_rate": 5e-3},
    "denoiser, frozen": {"learning_rate": 5e-3},
    "denoiser, fine-tuned": {
        "learning_rate": 5e-3,
        "slow_rate": 0.1,
        "noise": WORD_NOISE,
    },
    "from scratch": {"learning_rate": 1e-3, "slow_rate": 1.0, "noise": WORD_NOISE},
}
# The denoiser of short pre-trainings; its blocks are an eighth of the published one's.
SMALL = {"width": 64, "depth": 2}


class Sentences(dict):
    """Dict from the name of a split to `(rows, labels)`; see `encode_sentences`."""

    @property
    def cache_key(self):
        return [len(labels) for _, labels in self.values()]


def encode_sentences(texts, tokenizer):
    """Maps the sentences of every split to token ids.

    Args:
        texts: `common.data.TextData`.
        tokenizer: see `corpus.make_tokenizer`.

    Returns:
        `Sentences`, from the name of a split to `(rows, labels)`: a list of int32
        arrays `(length,)`, see `tokenize`, and an int32 array `(len(rows),)`, 0 or 1.
    """
    return Sentences(
        (split, (tokenize(tokenizer, part.texts), part.labels))
        for split, part in zip(texts._fields[1:], texts[1:], strict=True)
    )


def overfit(rows, vocab_size, *, steps, seed=0, learning_rate=1e-3, **size):
    """Trains a denoiser on a few sentences until it knows them by heart.

    The noise is drawn afresh at every step, and anew for the measurement.

    Args:
        rows: list of int arrays, the sentences.
        vocab_size: int.
        steps: int.
        seed: int.
        learning_rate: float.
        **size: further arguments of `build_denoiser`.

    Returns:
        `(denoiser, loss, scores)`: the model, its loss after every tenth of the
        steps, and `restoration.restoration_scores` on the sentences.
    """
    keras.utils.set_random_seed(seed)
    denoiser = build_denoiser(vocab_size, **size)
    pretraining.compile_denoiser(denoiser, steps=steps, learning_rate=learning_rate)
    token_ids = restoration.pad_rows(rows)
    buckets = pretraining.Buckets(
        rows, lengths=(token_ids.shape[1],), tokens=token_ids.size
    )
    data = pretraining.denoising_batches(buckets, seed=seed)
    history = denoiser.fit(
        data, epochs=10, steps_per_epoch=steps // 10, shuffle=False, verbose=0
    )
    corrupted = restoration.corrupted_copy(token_ids, seed=seed + 1)
    intact = pretraining.share_of_intact(buckets)
    restored = restoration.restore(denoiser, corrupted, intact)
    scores = restoration.restoration_scores(token_ids, corrupted, restored)
    return denoiser, history.history["loss"], scores


@results.cached(QUESTION, ignore=["denoiser"])
def transferred(
    use, head, sentences, denoiser, weights, *, epochs, seed, share=1.0, layer=None
):
    """Trains a classifier on an encoder and measures it.

    Args:
        use: key of `ENCODERS`.
        head: "linear" or "attention".
        sentences: from `encode_sentences`; "tuning" chooses the epoch.
        denoiser: the pre-trained one; where `use` says so a fresh one of its size.
        weights: str, what stands for the denoiser in the cache, such as the digest of
            its weights.
        epochs: int, at `share` 1; a tenth of the labels is gone through three times
            as often. A linear head on a frozen encoder needs none: it has one optimum
            (`transfer.fit_linear_head`).
        seed: int, of everything.
        share: float, the share of the labels that is used.
        layer: int, see `build_classifier`.

    Returns:
        Dict: accuracy on "tuning" and "validation", and `logits`, a list, of the
        latter.
    """
    pretrained, frozen = ENCODERS[use]
    keras.utils.set_random_seed(seed)
    fresh = build_denoiser(**denoiser.get_config())
    encoder = (denoiser if pretrained else fresh).get_layer("encoder")
    classifier = build_classifier(encoder, frozen=frozen, head=head, layer=layer)
    rows, labels = sentences["train"]
    chosen = np.random.default_rng(seed).permutation(len(rows))
    chosen = chosen[: round(share * len(rows))]
    train = [rows[i] for i in chosen], labels[chosen]
    if frozen and head == "linear":
        transfer.fit_linear_head(classifier, train, sentences["tuning"])
    else:
        transfer.train_classifier(
            classifier,
            train,
            sentences["tuning"],
            epochs=round(epochs / share**0.5),
            seed=seed,
            **TRAINING[use],
        )
    return _measured(classifier, sentences)


def _measured(classifier, sentences):
    logits = {
        split: transfer.predict(classifier, sentences[split][0])
        for split in ("tuning", "validation")
    }
    return {
        split: transfer.accuracy(of_split, sentences[split][1])
        for split, of_split in logits.items()
    } | {"logits": logits["validation"].tolist()}


@results.cached(QUESTION, ignore=["rows"])
def objective_matters(
    objective,
    sentences,
    rows,
    vocab_size,
    *,
    seed,
    steps=2_500,
    longest=24,
    learning_rate=6e-3,
):
    """Pre-trains a small denoiser shortly, then reads sentiment from its encoder.

    Args:
        objective: key of `OBJECTIVES`.
        sentences: from `encode_sentences`.
        rows: list of int arrays, the text to pre-train on.
        vocab_size: int.
        seed: int, of everything.
        steps: int, of pre-training, with half as many tokens in a batch as usual.
        longest: int, the longest rows used, in tokens.
        learning_rate: float, the highest one: a small network takes larger steps.

    Returns:
        Dict: as of `transferred`, for a linear head on the frozen encoder; `tokens`
        that were read and the `loss` at the end of pre-training.
    """
    noise, decoder = OBJECTIVES[objective]
    tokens = pretraining.TOKENS // 2
    short = [row for row in rows if len(row) <= longest]
    denoiser, history = pretraining.pretrain(
        lambda: build_denoiser(vocab_size, decoder=decoder, **SMALL),
        short,
        folder=None,
        epochs=5,
        steps=steps // 5,
        seed=seed,
        noise=noise,
        decoder=decoder,
        tokens=tokens,
        learning_rate=learning_rate,
    )
    encoder = denoiser.get_layer("encoder")
    classifier = build_classifier(encoder, head="linear")
    transfer.fit_linear_head(classifier, sentences["train"], sentences["tuning"])
    batches = len(pretraining.Buckets(short, tokens=tokens))
    return _measured(classifier, sentences) | {
        "tokens": steps * sum(map(len, short)) / batches,
        "loss": history["loss"][-1],
    }


def bag_of_words(texts, share=1.0, seed=0):
    """Returns validation accuracies of what knows no word order to speak of.

    TF-IDF with logistic regression and counts of one or two words with naive Bayes;
    the tuning split chooses how much each is smoothed.

    Args:
        texts: `common.data.TextData`.
        share: float, the share of the labels that is used.
        seed: int, of the choice, the same as in `transferred`.
    """
    chosen = np.random.default_rng(seed).permutation(len(texts.train.texts))
    chosen = chosen[: round(share * len(chosen))]
    train = [clean(texts.train.texts[i]) for i in chosen], texts.train.labels[chosen]
    words = {"lowercase": True, "token_pattern": r"(?u)\b\w+\b|[^\w\s]"}
    candidates = {
        "logistic regression": [
            make_pipeline(
                TfidfVectorizer(**words), LogisticRegression(C=c, max_iter=2000)
            )
            for c in (0.3, 1, 3, 10)
        ],
        "naive Bayes, bigrams": [
            make_pipeline(
                CountVectorizer(**words, ngram_range=(1, 2)), MultinomialNB(alpha=a)
            )
            for a in (0.1, 0.3, 1, 3)
        ],
    }
    found = {}
    for name, models in candidates.items():
        scored = [
            (model.fit(*train).score(*_cleaned(texts.tuning)), i)
            for i, model in enumerate(models)
        ]
        best = models[max(scored)[1]]
        found[name] = float(best.score(*_cleaned(texts.validation)))
    return found


def _cleaned(split):
    return [clean(text) for text in split.texts], split.labels
