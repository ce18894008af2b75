"""Draws the figures and formats the tables of question 4, from numbers."""

import html

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import binomtest

from common import results
from common.plots import COLORS, LINES

HEADS = {"linear": "linear probe", "attention": "attention head"}
BOX = {"boxstyle": "round,pad=0.45", "linewidth": 1.5, "facecolor": "white"}


def draw_network():
    """Draws denoiser and classifier on the encoder that they share."""
    figure, axes = plt.subplots(figsize=(9, 4.2))
    boxes = [
        (1.3, 2.1, "tokens + positions\n(128 numbers each)", COLORS[0]),
        (4.1, 2.1, "encoder\n4 Transformer blocks", COLORS[0]),
        (7.1, 3.2, "decoder\n1 block, softmax", COLORS[2]),
        (7.1, 1.0, "classifier\nattention over words", COLORS[1]),
    ]
    for x, y, text, color in boxes:
        axes.text(x, y, text, ha="center", va="center", fontsize=12,
                  bbox=BOX | {"edgecolor": color})  # fmt: skip
    texts = [
        (1.3, 0.6, "a [MASK] film fun and", COLORS[0]),
        (9.4, 3.2, "a good film\nand fun", COLORS[2]),
        (9.4, 1.0, "positive", COLORS[1]),
        (4.1, 0.75, "trained by denoising,\nthen frozen or tuned", COLORS[0]),
    ]
    for x, y, text, color in texts:
        axes.text(x, y, text, ha="center", va="center", color=color, fontsize=12,
                  style="italic")  # fmt: skip
    for start, end, color in [
        ((1.3, 0.8), (1.3, 1.6), COLORS[0]),
        ((2.45, 2.1), (2.95, 2.1), COLORS[0]),
        ((5.25, 2.3), (6.1, 3.0), COLORS[2]),
        ((5.25, 1.9), (6.0, 1.2), COLORS[1]),
        ((8.1, 3.2), (8.75, 3.2), COLORS[2]),
        ((8.25, 1.0), (8.85, 1.0), COLORS[1]),
    ]:
        style = {"arrowstyle": "->", "color": color, "lw": 1.8}
        axes.annotate("", xy=end, xytext=start, arrowprops=style)
    axes.set(xlim=(0, 10.2), ylim=(0.2, 3.9))
    axes.axis("off")
    return figure


def plot_pretraining(pieces, tokens_per_epoch):
    """Draws loss and accuracy of pre-training against the tokens read.

    Args:
        pieces: list of dicts with `loss` and `accuracy`, lists with one value per
            epoch. The learning rate falls to 0 at the end of each.
        tokens_per_epoch: float, the real tokens of an epoch.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    start = 0
    for piece in pieces:
        epochs = np.arange(1, len(piece["loss"]) + 1)
        tokens = (start + epochs) * tokens_per_epoch / 1e6
        left.plot(tokens, piece["loss"], color=COLORS[0])
        right.plot(tokens, np.multiply(piece["accuracy"], 100), color=COLORS[1])
        start += len(epochs)
    left.set_ylabel("cross-entropy (nats)")
    right.set_ylabel("accuracy of the predicted tokens (%)")
    for axes in (left, right):
        axes.set_xlabel("tokens read (millions)")
    first, last = pieces[0]["loss"][0], pieces[-1]["loss"][-1]
    figure.suptitle(f"The cross-entropy falls from {first:.1f} to {last:.1f} nats")
    return figure


def plot_rates(curves):
    """Draws how much is restored against how much is corrupted.

    Args:
        curves: dict from a kind of noise to `(shares, scores)`, see
            `restoration.scores_by_rate`.
    """
    figure, all_axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True)
    names = {
        "corrupted": "corrupted tokens restored (%)",
        "error_reduction": "net error reduction (%)",
    }
    for axes, (score, label) in zip(all_axes, names.items(), strict=True):
        for index, (kind, (shares, scores)) in enumerate(curves.items()):
            values = [100 * found[score] for found in scores]
            axes.plot(np.multiply(shares, 100), values, marker="o", label=kind,
                      color=COLORS[index], linestyle=LINES[index])  # fmt: skip
        axes.axhline(0, color="0.6", linewidth=1)
        axes.set(xlabel="tokens corrupted (%)", ylabel=label)
    all_axes[0].legend()
    figure.suptitle(
        "What is masked or moved is found again more often than what is replaced"
    )
    return figure


def plot_transfer(runs, baselines):
    """Draws the accuracy of every use of the encoder and every head, with the seeds.

    Args:
        runs: dict from `(use, head)` to a list of what `transferred` returns.
        baselines: dict from a label to an accuracy, each drawn as a line.
    """
    figure, axes = plt.subplots(figsize=(9, 3.8))
    uses = list(dict.fromkeys(use for use, _ in runs))
    for index, head in enumerate(dict.fromkeys(head for _, head in runs)):
        found = {use: runs[use, head] for use in uses if (use, head) in runs}
        places = np.array([uses.index(use) for use in found]) + 0.3 * (index - 0.5)
        values = [[100 * run["validation"] for run in of] for of in found.values()]
        means = [np.mean(of_seeds) for of_seeds in values]
        spread = [np.std(of_seeds, ddof=len(of_seeds) > 1) for of_seeds in values]
        axes.errorbar(places, means, spread,
                      label=HEADS[head], color=COLORS[index], marker="os"[index],
                      linestyle="none", capsize=4)  # fmt: skip
        for place, mean in zip(places, means, strict=True):
            axes.annotate(f"{mean:.1f}", (place, mean), (7, -3),
                          textcoords="offset points", fontsize=9)  # fmt: skip
    for index, (label, accuracy) in enumerate(baselines.items()):
        axes.axhline(100 * accuracy, color=COLORS[index + 2], linewidth=1.2,
                     linestyle=LINES[index + 1], label=label)  # fmt: skip
    axes.set_xticks(range(len(uses)), uses)
    axes.set(ylabel="validation accuracy (%)", xlim=(-0.5, len(uses) - 0.4))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title(
        "The denoiser's encoder knows more about sentiment than a random one"
    )
    return figure


def transfer_table(runs, baselines):
    """Formats accuracies as a Markdown table.

    Args:
        runs: see `plot_transfer`.
        baselines: see `plot_transfer`.
    """
    heads = list(dict.fromkeys(head for _, head in runs))
    rows = []
    for use in dict.fromkeys(use for use, _ in runs):
        cells = [
            results.percent([run["validation"] for run in runs[use, head]])
            if (use, head) in runs
            else ""
            for head in heads
        ]
        rows.append([use, *cells])
    rows += [
        [name, "", results.percent(accuracy)] for name, accuracy in baselines.items()
    ]
    return results.markdown_table(["", *(HEADS[head] for head in heads)], rows)


def few_labels_table(few, runs, baselines, counts):
    """Formats accuracies with few and with all labels as a Markdown table.

    Args:
        few: dict from a use of the encoder, or a baseline, to a list of accuracies.
        runs: see `plot_transfer`; the attention head's are shown.
        baselines: see `plot_transfer`.
        counts: pair of ints, the labelled phrases.
    """
    rows = []
    for name, accuracies in few.items():
        if name in baselines:
            everything = baselines[name]
        else:
            everything = [run["validation"] for run in runs[name, "attention"]]
        rows.append([name, results.percent(accuracies), results.percent(everything)])
    titles = ["", *(f"{count:,} labelled phrases" for count in counts)]
    return results.markdown_table(titles, rows)


def sign_test_table(runs, labels, names, seeds):
    """Formats how often one network is right where the other is wrong.

    Args:
        runs: see `plot_transfer`, with `logits` of the validation sentences.
        labels: int array `(n,)`, 0 or 1.
        names: pair of uses of the encoder, compared with the attention head.
        seeds: list of ints, those of the runs.

    Returns:
        The table as text, with the p-values of two-sided sign tests: one row per seed,
        and one for what most seeds answer, which counts every sentence once.
    """
    right = np.array(
        [
            [(np.array(run["logits"]) > 0) == (labels == 1) for run in runs[name, head]]
            for name in names
            for head in ["attention"]
        ]
    )  # (2, seeds, sentences)
    majority = right.mean(axis=1, keepdims=True) > 0.5
    titles = [*(f"seed {seed}" for seed in seeds), "majority of the seeds"]
    rows = []
    for title, (one, other) in zip(
        titles, np.concatenate([right, majority], axis=1).swapaxes(0, 1), strict=True
    ):
        counts = [int(np.sum(one & ~other)), int(np.sum(other & ~one))]
        p_value = binomtest(counts[0], max(1, sum(counts))).pvalue
        rows.append([title, *counts, f"{p_value:.2g}"])
    titles = ["", *(f"only right: {name}" for name in names), "p"]
    return results.markdown_table(titles, rows)


def restoration_table(found):
    """Formats restoration scores as a Markdown table.

    Args:
        found: dict from a label to what `restoration_scores` returns.
    """
    columns = {
        "token_accuracy": "token accuracy",
        "corrupted": "at corrupted positions",
        "intact": "at intact positions",
        "error_reduction": "net error reduction",
        "sentences": "sentences restored",
    }
    rows = [
        [label, *(results.percent(scores[key]) for key in columns)]
        for label, scores in found.items()
    ]
    return results.markdown_table(["", *columns.values()], rows)


def samples_table(tokenizer, original, corrupted, denoised):
    """Formats sentences as a Markdown table, with what differs from the original bold.

    Args:
        tokenizer: from `make_tokenizer`.
        original: int array `(n, time)`.
        corrupted: int array of the same shape.
        denoised: int array of the same shape.
    """
    rows = [
        [mark_changes(tokenizer, right, each) for each in (right, before, after)]
        for right, before, after in zip(original, corrupted, denoised, strict=True)
    ]
    return results.markdown_table(["original", "corrupted", "denoised"], rows)


def mark_changes(tokenizer, original, other):
    """Returns a sentence as text, every token that differs from the original bold.

    Args:
        tokenizer: from `make_tokenizer`.
        original: int array `(time,)`.
        other: int array `(time,)`.
    """
    text = ""
    for right, token in zip(original, other, strict=True):
        if right == 0 and token == 0:
            break
        piece = tokenizer.id_to_token(int(token))
        text += "" if piece.startswith("##") else " "
        piece = html.escape(piece.removeprefix("##"), quote=False).replace("[", "\\[")
        # Asterisks would be none to Markdown inside a word.
        text += f"<b>{piece}</b>" if token != right else piece
    return text.strip().replace("|", "\\|")
