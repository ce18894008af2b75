"""Trains and measures what question 4 reports.

Long runs are `results.cached`, so that an interrupted run resumes.
"""

import hashlib

import keras
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from common import results
from q4_denoise_text import transfer
from q4_denoise_text.data import NOISE, OFF, clean, tokenize
from q4_denoise_text.denoise_text import build_classifier

QUESTION = "q4_denoise_text"
# Each kind of noise by itself, and all of them: arguments of `corrupt`.
NOISES = {
    "masks": OFF | {"mask_rate": 0.25},
    "other words": OFF | {"replace_rate": 0.25},
    "word order": OFF | {"shuffle_distance": 3},
    "all three": NOISE,
}
# How an encoder is used: which layers are pre-trained, and whether it stays frozen.
ENCODERS = {
    "random, frozen": ((), True),
    "embeddings, frozen": (("embedding",), True),
    "denoiser, frozen": (None, True),
    "denoiser, fine-tuned": (None, False),
    "from scratch": ((), False),
}
# The names in `results.json`, from how the encoder is used, and the head.
METRICS = {
    ("random, frozen", "linear"): "sst2_random_frozen_linear",
    ("random, frozen", "attention"): "sst2_random_frozen_attention",
    ("embeddings, frozen", "attention"): "sst2_frozen_embeddings_attention",
    ("denoiser, frozen", "linear"): "sst2_frozen_linear",
    ("denoiser, frozen", "attention"): "sst2_frozen_attention",
    ("denoiser, fine-tuned", "attention"): "sst2_finetuned",
    ("from scratch", "attention"): "sst2_scratch",
}
BAG_OF_WORDS = "bag of words"
FEW_LABELS = {
    "denoiser, frozen": "frozen",
    "denoiser, fine-tuned": "finetuned",
    "from scratch": "scratch",
    BAG_OF_WORDS: "bag_of_words",
}
# How an encoder and the head on it are trained. A new head takes larger steps than a
# pre-trained encoder, and a network that is trained as a whole does not see all words.
WORD_NOISE = OFF | {"mask_rate": 0.1}
TRAINING = {
    "random, frozen": {"learning_rate": 5e-3},
    "embeddings, frozen": {"learning_rate": 5e-3},
    "denoiser, frozen": {"learning_rate": 5e-3},
    "denoiser, fine-tuned": {
        "learning_rate": 5e-3,
        "slow_rate": 0.1,
        "noise": WORD_NOISE,
    },
    "from scratch": {"learning_rate": 1e-3, "slow_rate": 1.0, "noise": WORD_NOISE},
}


class Sentences(dict):
    """Dict from the name of a split to `(rows, labels)`; see `encode_sentences`."""

    @property
    def cache_key(self):
        digest = hashlib.sha256()
        for rows, labels in self.values():
            for array in (np.concatenate(rows), [len(row) for row in rows], labels):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def encode_sentences(texts, tokenizer):
    """Maps the sentences of every split to token ids.

    Args:
        texts: `common.data.TextData`.
        tokenizer: from `make_tokenizer`.

    Returns:
        `Sentences`, from the name of a split to `(rows, labels)`: a list of int32
        arrays `(length,)`, see `tokenize`, and an int32 array `(len(rows),)`, 0 or 1.
    """
    return Sentences(
        (split, (tokenize(tokenizer, part.texts), part.labels))
        for split, part in zip(texts._fields[1:], texts[1:], strict=True)
    )


@results.cached(QUESTION, ignore=["denoiser"])
def transferred(use, head, sentences, denoiser, weights, *, epochs, seed, share=1.0):
    """Trains a classifier on an encoder and measures it.

    Args:
        use: key of `ENCODERS`.
        head: "linear" or "attention".
        sentences: from `encode_sentences`; "tuning" chooses the epoch.
        denoiser: the pre-trained one; where `use` says so, a new one of its size.
        weights: str, what stands for the denoiser in the cache, such as the digest of
            its weights.
        epochs: int, at `share` 1; fewer labels get `epochs / sqrt(share)` epochs. The
            linear probe needs none, see `transfer.fit_linear_head`.
        seed: int, of everything.
        share: float, the share of the training labels that is used. The tuning split
            stays whole.

    Returns:
        Dict: accuracy on "tuning" and "validation", and `logits`, a list, of the
        latter.
    """
    pretrained, frozen = ENCODERS[use]
    keras.utils.set_random_seed(seed)
    encoder = denoiser.encoder
    if pretrained is not None:
        encoder = type(denoiser).from_config(denoiser.get_config()).encoder
        for name in pretrained:
            learned = denoiser.encoder.get_layer(name).get_weights()
            encoder.get_layer(name).set_weights(learned)
    dropout = 0.2 if frozen else 0.3
    classifier = build_classifier(encoder, frozen=frozen, head=head, dropout=dropout)
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
            # Else long phrases, which are few, would not fill a batch.
            batch_size=transfer.BATCH if share == 1 else 16,
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


def bag_of_words(texts, share=1.0, seed=0):
    """Returns the validation accuracy of TF-IDF with logistic regression.

    The tuning split chooses the regularization.

    Args:
        texts: `common.data.TextData`.
        share: float, the share of the training labels that is used.
        seed: int, of the choice, the same as in `transferred`.
    """
    chosen = np.random.default_rng(seed).permutation(len(texts.train.texts))
    chosen = chosen[: round(share * len(chosen))]
    train = [clean(texts.train.texts[i]) for i in chosen], texts.train.labels[chosen]
    tuning, validation = (
        ([clean(text) for text in split.texts], split.labels)
        for split in (texts.tuning, texts.validation)
    )
    models = [
        make_pipeline(
            TfidfVectorizer(token_pattern=r"(?u)\b\w+\b|[^\w\s]"),
            LogisticRegression(C=strength, max_iter=2_000),
        ).fit(*train)
        for strength in (0.3, 1, 3, 10)
    ]
    return float(max(models, key=lambda m: m.score(*tuning)).score(*validation))


def baselines(texts):
    """Returns validation accuracies to compare with, a dict from a name to a float.

    They are a bag of words and, for SST-2, the published result of question 1's best
    recurrent network, without pre-training.

    Args:
        texts: `common.data.TextData`.
    """
    found = {BAG_OF_WORDS: bag_of_words(texts)}
    if texts.name.startswith("SST-2"):
        published = results.published("q1_tbptt")["validation_accuracy_lstm_full"]
        found["LSTM of question 1"] = published["mean"]
    return found


def denoising_metrics(scores):
    """Reduces the restoration of unseen text to the entries of `results.json`.

    Args:
        scores: from `restoration_scores`, those of the denoiser.

    Returns:
        Dict from names to floats.
    """
    return {
        "denoising_corrupted_accuracy": scores["corrupted"],
        "denoising_intact_accuracy": scores["intact"],
        "denoising_error_reduction": scores["error_reduction"],
        "denoising_sentences": scores["sentences"],
    }


def headline_metrics(runs, few, share, baselines):
    """Reduces the classifiers to the entries of `results.json`.

    Args:
        runs: dict from `(use, head)` to a list of what `transferred` returns.
        few: dict from a label, see `FEW_LABELS`, to a list of accuracies with few
            labels, one per seed.
        share: float, the share of the labels in `few`.
        baselines: from `baselines`.

    Returns:
        Dict from names to floats or what `results.summarise` returns.
    """
    metrics = {
        METRICS[key]: results.summarise([run["validation"] for run in of_seeds])
        for key, of_seeds in runs.items()
    }
    metrics["sst2_bag_of_words"] = baselines[BAG_OF_WORDS]
    return metrics | {
        f"sst2_{100 * share:g}percent_{FEW_LABELS[label]}": results.summarise(of_seeds)
        for label, of_seeds in few.items()
    }
