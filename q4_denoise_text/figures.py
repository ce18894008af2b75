"""The figures and tables of question 4, from numbers they are given."""

import html

import matplotlib.pyplot as plt
import numpy as np

from common import results
from common.plots import COLORS, LINES

BOX = {"boxstyle": "round,pad=0.45", "linewidth": 1.5, "facecolor": "white"}


def draw_network():
    """Draws denoiser and classifier on the encoder that they share.

    Returns:
        The figure.
    """
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


def plot_pretraining(history, tokens_per_epoch):
    """Draws loss and accuracy of pre-training against the tokens read.

    Args:
        history: dict with `loss` and `accuracy`, lists with one value an epoch.
        tokens_per_epoch: float, the real tokens of an epoch.

    Returns:
        The figure.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    tokens = np.arange(1, len(history["loss"]) + 1) * tokens_per_epoch / 1e6
    left.plot(tokens, history["loss"])
    left.set_ylabel("cross-entropy (nats)")
    right.plot(tokens, np.multiply(history["accuracy"], 100), color=COLORS[1])
    right.set_ylabel("right tokens (%)")
    for axes in (left, right):
        axes.set_xlabel("tokens read (millions)")
    return figure


def plot_amounts(runs):
    """Draws what a linear head reads from encoders that have read more and more.

    Args:
        runs: dict from a number of tokens to a list of dicts with an accuracy as
            `validation`.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots()
    found = [
        [100 * run["validation"] for run in of_seeds] for of_seeds in runs.values()
    ]
    tokens = np.divide(list(runs), 1e6)
    axes.plot(tokens, np.mean(found, axis=1), marker="_", markersize=18, label="mean")
    axes.plot(tokens, found, "o", color=COLORS[2])
    axes.legend()
    axes.set(xlabel="tokens read (millions)", ylabel="accuracy of a linear head (%)")
    return figure


def plot_overfit(losses, steps):
    """Draws the loss on a few sentences that are learned by heart.

    Args:
        losses: list of floats, one for each of equal parts of the training.
        steps: int, of the whole training.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots()
    axes.plot(np.arange(1, len(losses) + 1) * steps / len(losses), losses, marker="o")
    axes.set(xlabel="training steps", ylabel="cross-entropy (nats)", yscale="log")
    return figure


def plot_rates(curves, trained):
    """Draws how much is mended against how much is corrupted.

    Args:
        curves: dict from a kind of noise to `(rates, scores)`, the latter with one
            dict of `restoration_scores` a rate.
        trained: dict from a kind to the rate that training used, or nothing.

    Returns:
        The figure.
    """
    figure, all_axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True)
    names = {"corrupted": "wrong tokens restored (%)", "error_reduction":
             "errors removed (%)"}  # fmt: skip
    for axes, (score, label) in zip(all_axes, names.items(), strict=True):
        for index, (kind, (rates, scores)) in enumerate(curves.items()):
            values = [100 * found[score] for found in scores]
            axes.plot(np.multiply(rates, 100), values, marker="o", label=kind,
                      color=COLORS[index], linestyle=LINES[index])  # fmt: skip
            if kind in trained:
                axes.axvline(100 * trained[kind], color=COLORS[index], linewidth=1,
                             linestyle=":")  # fmt: skip
        axes.set(xlabel="tokens corrupted (%)", ylabel=label)
    all_axes[0].legend()
    return figure


def plot_grid(accuracies, floor):
    """Draws accuracy for every encoder and head as bars with their spread.

    Args:
        accuracies: dict from a head to dict from an encoder to a list of accuracies.
        floor: dict from a label to an accuracy of a bag of words, drawn as one band.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(9, 3.8))
    encoders = list(next(iter(accuracies.values())))
    width = 0.8 / len(accuracies)
    for index, (head, found) in enumerate(accuracies.items()):
        places = np.arange(len(encoders)) + (index - (len(accuracies) - 1) / 2) * width
        means = [100 * np.mean(found[encoder]) for encoder in encoders]
        axes.bar(places, means, width * 0.95, label=f"{head} head", color=COLORS[index],
                 hatch=[None, "//"][index], edgecolor="white")  # fmt: skip
        for place, encoder in zip(places, encoders, strict=True):
            values = np.multiply(found[encoder], 100)
            axes.plot(np.full(len(values), place), values, ".", color=COLORS[5])
    low, high = 100 * min(floor.values()), 100 * max(floor.values())
    label = f"bag of words, {low:.1f} to {high:.1f} %"
    axes.axhspan(low - 0.1, high + 0.1, color=COLORS[3], label=label)
    axes.set_xticks(range(len(encoders)), encoders)
    axes.set(ylabel="accuracy (%)", ylim=(50, 95))  # from chance on
    axes.legend(loc="upper left", ncols=2)
    return figure


def plot_labels(curves, counts):
    """Draws accuracy against the number of labels.

    Args:
        curves: dict from a label to a list of lists of accuracies, one list a count.
        counts: list of ints, the labels used.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots()
    for index, (label, found) in enumerate(curves.items()):
        means = [100 * np.mean(values) for values in found]
        spread = [
            100 * np.std(values, ddof=min(1, len(values) - 1)) for values in found
        ]
        axes.errorbar(counts, means, spread, label=label, marker="o", capsize=3,
                      color=COLORS[index], linestyle=LINES[index])  # fmt: skip
    axes.set(xlabel="labelled phrases", ylabel="accuracy (%)", xscale="log")
    axes.legend()
    return figure


def plot_points(values, label):
    """Draws a row for each list of values: every one as a point, a bar at their mean.

    Args:
        values: dict from a name to a list of numbers.
        label: str, of the axis.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(7.2, 0.8 + 0.4 * len(values)))
    for place, found in enumerate(values.values()):
        axes.plot(found, np.full(len(found), place), "o", color=COLORS[2])
        axes.plot(np.mean(found), place, "|", color=COLORS[0], ms=18, mew=2.5)
    axes.set_yticks(range(len(values)), list(values))
    axes.set(xlabel=label, ylim=(len(values) - 0.5, -0.5))
    return figure


def restoration_table(found):
    """Formats restoration scores as a Markdown table.

    Args:
        found: dict from a label to what `restoration_scores` returns, with or without
            `word_error_rate`.

    Returns:
        The table as text.
    """
    columns = {
        "token_accuracy": "tokens right",
        "corrupted": "at corrupted positions",
        "intact": "at intact positions",
        "error_reduction": "errors removed",
        "sentences": "sentences restored",
        "word_error_rate": "word error rate",
    }
    columns = {k: v for k, v in columns.items() if k in next(iter(found.values()))}
    rows = [
        [label, *(results.percent(scores[key]) for key in columns)]
        for label, scores in found.items()
    ]
    return results.markdown_table(["", *columns.values()], rows)


def accuracy_table(found):
    """Formats accuracies as a Markdown table.

    Args:
        found: dict from a head to dict from an encoder to a list of accuracies.

    Returns:
        The table as text.
    """
    encoders = list(next(iter(found.values())))
    rows = [[head, *map(results.percent, row.values())] for head, row in found.items()]
    return results.markdown_table(["head", *encoders], rows)


def list_samples(tokenizer, original, corrupted, restored):
    """Lists sentences as Markdown: corrupted, restored, and the original in brackets.

    Args:
        tokenizer: see `corpus.make_tokenizer`.
        original: int array `(n, time)`.
        corrupted: int array of the same shape.
        restored: int array of the same shape.

    Returns:
        The list as text.
    """
    lines = []
    for right, before, after in zip(original, corrupted, restored, strict=True):
        lines.append(
            f"- {mark_changes(tokenizer, right, before)}<br>→ "
            f"{mark_changes(tokenizer, right, after)}<br>"
            f"({mark_changes(tokenizer, right, right)})"
        )
    return "\n".join(lines)


def mark_changes(tokenizer, original, other):
    """Returns a sentence as text, every token that differs from the original bold.

    Args:
        tokenizer: see `corpus.make_tokenizer`.
        original: int array `(time,)`.
        other: int array `(time,)`.
    """
    words = []
    for right, token in zip(original, other, strict=True):
        if right == 0 and token == 0:
            break
        piece = html.escape(tokenizer.id_to_token(int(token)), quote=False)
        piece = piece.replace("[", "\\[")
        # Not asterisks, which are none to Markdown inside a word.
        words.append(f"<b>{piece}</b>" if token != right else piece)
    return " ".join(words).replace(" ##", "")
