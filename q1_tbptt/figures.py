"""Draws the figures of question 1. Every function returns a `matplotlib` figure."""

import matplotlib.pyplot as plt
import numpy as np

from common.plots import COLORS, LINES, log_scale_with_zero


def truncation_label(t):
    """Returns the name of a truncation in a legend."""
    return "full BPTT" if t is None else f"$t = {t}$"


def draw_unrolled(steps=6, t=3):
    """Draws the unrolled network and where the gradient stops.

    Args:
        steps: int, number of tokens drawn.
        t: int, how many cells carry gradient.
    """
    figure, axes = plt.subplots(figsize=(8.5, 3.0))
    box = {"boxstyle": "round,pad=0.4", "linewidth": 1.5}
    names = [f"T−{steps - k}" if k < steps else "T" for k in range(1, steps + 1)]
    for k in range(1, steps + 1):
        carries = k > steps - t
        color = COLORS[0] if carries else "0.6"
        axes.text(k, 1, "cell", ha="center", va="center", color=color, fontsize=11,
                  bbox={**box, "facecolor": "white", "edgecolor": color})  # fmt: skip
        axes.text(k, 0.05, f"$x_{{{names[k - 1]}}}$", ha="center", color=color)
        _arrow(axes, (k, 0.3), (k, 0.72), color)
        _arrow(axes, (k - 0.72, 1), (k - 0.28, 1), color)
        axes.text(k + 0.44, 1.13, f"$h_{{{names[k - 1]}}}$", ha="center", fontsize=10)
        if carries:
            _arrow(axes, (k + 0.6, 1.62), (k - 0.35, 1.62), COLORS[1], "--")
    axes.text(steps + 1, 1, "loss", ha="center", va="center", bbox={**box, "fc": "w"})
    _arrow(axes, (steps + 0.28, 1), (steps + 0.72, 1), COLORS[0])
    cut = steps - t + 0.64
    axes.plot([cut, cut], [0.0, 1.95], color=COLORS[1], linestyle="-", linewidth=2.5)
    axes.text(cut - 0.1, 2.0, "stop_gradient", color=COLORS[1], ha="center")
    axes.text(steps - t / 2 + 1, 1.75, f"gradient: t = {t} cells", color=COLORS[1],
              ha="center")  # fmt: skip
    axes.text((steps - t) / 2 + 0.5, 1.62, "forward only", color="0.4", ha="center")
    axes.set(xlim=(0.2, steps + 1.5), ylim=(-0.1, 2.25))
    axes.axis("off")
    return figure


def _arrow(axes, start, end, color, linestyle="-"):
    style = {"arrowstyle": "->", "color": color, "lw": 1.6, "linestyle": linestyle}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def plot_history(history):
    """Draws loss and accuracy by epoch, on the training and the tuning sentences.

    Args:
        history: dict of lists, as in `keras.callbacks.History.history`.
    """
    figure, panels = plt.subplots(1, 2)
    epochs = np.arange(1, len(history["loss"]) + 1)
    for axes, name, scale in zip(panels, ("loss", "accuracy"), (1, 100), strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "tuning")):
            axes.plot(epochs, scale * np.array(history[key]), marker="o", label=label)
        unit = "cross-entropy (nats)" if name == "loss" else "accuracy (%)"
        axes.set(xlabel="epoch", ylabel=unit, xticks=epochs)
    panels[0].legend()
    last = history["accuracy"][-1], history["val_accuracy"][-1]
    figure.suptitle(
        "Accuracy: {:.1%} in training, {:.1%} on the tuning split".format(*last)
    )
    return figure


def plot_sentence(tokens, magnitudes):
    """Draws the gradient at every hidden state of one sentence, with `T - t` marked.

    Args:
        tokens: list of the `T` words.
        magnitudes: dict from `t` to an array of shape `(T + 1,)`, `‖∂L/∂h_k‖`.
    """
    figure, axes = plt.subplots(figsize=(9, 4.4))
    height = log_scale_with_zero(axes, np.concatenate(list(magnitudes.values())))
    positions = np.arange(len(tokens) + 1)
    for index, (t, norms) in enumerate(magnitudes.items()):
        # Equal gradients lie on one another: markers of falling size keep all in view.
        look = {"color": COLORS[index], "linestyle": LINES[index]}
        axes.plot(positions, height(norms), marker="o", markersize=11 - 2 * index,
                  label=truncation_label(t), **look)  # fmt: skip
        if t is not None and t < len(tokens):
            axes.axvline(len(tokens) - t, linewidth=1, **look)
            axes.text(len(tokens) - t, 1.01, f"$T-{t}$", color=COLORS[index],
                      ha="center", transform=axes.get_xaxis_transform())  # fmt: skip
    words = ["$h_0$", *tokens]
    axes.set_xticks(positions, words, rotation=60, ha="right", rotation_mode="anchor")
    axes.set(xlabel="hidden state after token")
    axes.set_ylabel(r"gradient size, $\|\partial L / \partial h_k\|$")
    ticks, (_, *labels) = axes.get_yticks(), axes.get_yticklabels()
    axes.set_yticks(ticks, ["exactly 0", *[label.get_text() for label in labels]])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title("Before $T-t$ the gradient is exactly zero", pad=24)
    return figure


def plot_by_distance(panels, longest=30):
    """Draws gradient size against distance from the end, median and middle 90%.

    Args:
        panels: dict from title to dict from `t` to an array of shape `(sentences,
            time + 1)` as in `GradientMagnitudes.hidden_state`.
        longest: int, the largest distance drawn.
    """
    figure, all_axes = plt.subplots(1, len(panels), figsize=(9, 4), squeeze=False)
    for axes, (title, by_t) in zip(all_axes[0], panels.items(), strict=True):
        bands = {}
        for t, norms in by_t.items():
            # Column -1 - d is d steps before the end.
            norms = norms[:, ::-1][:, : longest + 1]
            bands[t] = np.nanquantile(norms, (0.05, 0.5, 0.95), axis=0)
        height = log_scale_with_zero(axes, np.concatenate(list(bands.values())))
        for index, (t, (low, median, high)) in enumerate(bands.items()):
            distance = np.arange(len(median))
            axes.plot(distance, height(median), marker="o", label=truncation_label(t),
                      color=COLORS[index], linestyle=LINES[index],
                      markersize=7 - 1.5 * index)  # fmt: skip
            if t is None:
                axes.fill_between(distance, low, high, color=COLORS[index], alpha=0.2)
        axes.set(title=title, xlabel="steps before the end, $T-k$")
    all_axes[0, 0].set_ylabel(r"gradient size, $\|\partial L / \partial h_k\|$")
    all_axes[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle("In every sentence the gradient is zero beyond $t$ steps")
    return figure


def plot_gradient_norms(norms):
    """Draws the largest gradient norm up to every training step, a line per seed.

    Args:
        norms: dict from the name of the remedy to a list of `(steps,)` lists.
    """
    figure, axes = plt.subplots()
    for index, (name, runs) in enumerate(norms.items()):
        for seed, run in enumerate(runs):
            axes.plot(np.maximum.accumulate(run), color=COLORS[index],
                      linestyle=LINES[index], linewidth=1.5,
                      label=name if seed == 0 else None)  # fmt: skip
    largest = {name: np.max(runs) for name, runs in norms.items()}
    axes.set(yscale="log", xlabel="training step")
    axes.set(ylabel="largest gradient norm so far")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title(
        f"Largest norm: {largest['truncation']:.3g} with truncation, "
        f"{largest['clipping']:,.0f} with clipping"
    )
    return figure


def plot_bias(panels):
    """Draws how far the truncated gradient is from the full one, against `t`.

    Args:
        panels: dict from the name of a model to `(ts, relative_bias, cosine)`, three
            arrays of shape `(truncations,)`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for index, (name, (ts, bias, cosine)) in enumerate(panels.items()):
        look = {"color": COLORS[index], "linestyle": LINES[index], "marker": "o"}
        left.plot(ts, bias, label=name, **look)
        right.plot(ts, cosine, **look)
    left.set(ylabel=r"$\|g_t - g_\infty\|\,/\,\|g_\infty\|$", ylim=(0, 1.05))
    right.set(ylabel=r"cosine of $g_t$ and $g_\infty$")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ts, [str(t) for t in ts])
        axes.minorticks_off()
        axes.set_xlabel("truncation $t$ (steps)")
    left.legend()
    figure.suptitle("The truncated gradient is biased, the more the smaller $t$ is")
    return figure


def plot_accuracy(by_cell, baseline):
    """Draws accuracy against `t`, a point per seed, and the bag-of-words baseline.

    Args:
        by_cell: dict from the cell's name to dict from `t` to a list of accuracies.
        baseline: float, the accuracy of the bag of words.
    """
    figure, axes = plt.subplots(figsize=(7.2, 4))
    ts = list(dict.fromkeys(t for by_t in by_cell.values() for t in by_t))
    for index, (name, by_t) in enumerate(by_cell.items()):
        positions = [ts.index(t) + 0.12 * index for t in by_t]
        means = [100 * np.mean(values) for values in by_t.values()]
        axes.plot(positions, means, label=name, color=COLORS[index],
                  linestyle=LINES[index] if len(means) > 2 else "none", marker="_",
                  markersize=14)  # fmt: skip
        for position, values in zip(positions, by_t.values(), strict=True):
            axes.scatter([position] * len(values), 100 * np.array(values), s=22,
                         color=COLORS[index], alpha=0.7)  # fmt: skip
    axes.axhline(100 * baseline, color="0.4", linestyle=":", label="bag of words")
    axes.set_xticks(range(len(ts)), ["full" if t is None else str(t) for t in ts])
    axes.set(xlabel="truncation $t$ (steps)", ylabel="validation accuracy (%)")
    axes.legend(loc="lower right")
    name, by_t = next(iter(by_cell.items()))
    *_, longest, full = (f"{np.mean(values):.1%}" for values in by_t.values())
    axes.set_title(f"{name}: {longest} with $t = {ts[-2]}$, {full} with full BPTT")
    return figure


def plot_reviews(runs, baseline):
    """Draws training time and accuracy on long reviews.

    Args:
        runs: dict from the name of a training to a list of what
            `accuracy_of_training` returns.
        baseline: float, the accuracy of the bag of words.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    # Of all epochs the fastest: the first one compiles, and other load only adds.
    seconds = [[min(run["epoch_seconds"]) for run in of_t] for of_t in runs.values()]
    scores = [[100 * run["validation"] for run in of_t] for of_t in runs.values()]
    for axes, values in ((left, seconds), (right, scores)):
        for position, of_t in enumerate(values):
            axes.scatter([position] * len(of_t), of_t, color=COLORS[0], alpha=0.7)
        axes.plot([np.mean(of_t) for of_t in values], color=COLORS[1], marker="_",
                  markersize=24, linestyle="none", label="mean")  # fmt: skip
        axes.set_xticks(range(len(runs)), list(runs))
        axes.set_xlim(-0.5, len(runs) - 0.5)
    right.axhline(100 * baseline, color="0.4", linestyle=":", label="bag of words")
    right.legend()
    left.set(ylabel="training time (s per epoch)", ylim=(0, None))
    right.set(ylabel="validation accuracy (%)")
    figure.suptitle("On long reviews truncation saves time")
    return figure
