"""The figures of question 2: each function draws one, from numbers it is given."""

import matplotlib.pyplot as plt
import numpy as np

from common.plots import COLORS, LINES, log_scale_with_zero

BOX = {"boxstyle": "round,pad=0.4", "linewidth": 1.5, "facecolor": "white"}


def draw_cell():
    """Draws one step of the cell.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(8.5, 3.4))
    boxes = {
        (3.2, 2.2): r"$\hat h_t = \tanh(x_t W + h_{t-1} U + b)$",
        (3.2, 0.9): r"$R_t = \mathrm{hard\ sigmoid}(x_t W_R + b_R)$",
    }
    for (x, y), name in boxes.items():
        color = COLORS[1] if "R_t" in name else COLORS[0]
        axes.text(x, y, name, ha="center", va="center", fontsize=13,
                  bbox=BOX | {"edgecolor": color})  # fmt: skip
    for x, y, name in [
        (0.1, 2.2, "$h_{t-1}$"),
        (0.1, 0.9, "$x_t$"),
        (7.6, 2.2, "$h_t$"),
    ]:
        axes.text(x, y, name, ha="center", va="center", fontsize=14)
    axes.text(6.3, 2.2, r"$\odot$", ha="center", va="center", fontsize=24)
    for start, end, color in [
        ((0.5, 2.2), (1.75, 2.2), COLORS[0]),
        ((0.4, 1.0), (1.75, 2.0), COLORS[0]),
        ((0.4, 0.9), (1.5, 0.9), COLORS[1]),
        ((4.65, 2.2), (6.05, 2.2), COLORS[0]),
        ((4.9, 0.95), (6.15, 2.0), COLORS[1]),
        ((6.55, 2.2), (7.3, 2.2), COLORS[0]),
    ]:
        style = {"arrowstyle": "->", "color": color, "lw": 1.8}
        axes.annotate("", xy=end, xytext=start, arrowprops=style)
    axes.text(3.2, 2.85, "candidate: an Elman cell", ha="center", color=COLORS[0])
    axes.text(3.2, 0.25, "reset button: sees the input alone", ha="center",
              color=COLORS[1])  # fmt: skip
    axes.set(xlim=(-0.3, 8), ylim=(0, 3.1))
    axes.axis("off")
    return figure


def plot_gain(gates, steps=40):
    """Draws R^n against n: what a gate that stays at R leaves after n steps.

    Args:
        gates: dict from a label to R.
        steps: int, the largest n.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots()
    n = np.arange(1, steps + 1)
    for index, (label, gate) in enumerate(gates.items()):
        axes.plot(n, gate**n, label=label, color=COLORS[index % 6],
                  linestyle=LINES[index % 6])  # fmt: skip
    axes.set(xlabel="steps n", ylabel="$R^n$", yscale="log", ylim=(1e-12, 3))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def plot_by_heart(runs):
    """Draws the loss on the sentences learned by heart, one line a seed.

    Args:
        runs: dict from a title to a list of what `learn_by_heart` returns.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(7.2, 3.2))
    for index, (title, of_seeds) in enumerate(runs.items()):
        for seed, run in enumerate(of_seeds):
            axes.plot(run["losses"], color=COLORS[index], linestyle=LINES[index],
                      linewidth=1.3, label=None if seed else title)  # fmt: skip
    axes.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
    axes.legend()
    return figure


def plot_by_kind(panels):
    """Draws one number a network, every seed as a point, a logarithmic panel each.

    Args:
        panels: dict from the label of the y axis to dict from a network's name to
            the values of its seeds.

    Returns:
        The figure.
    """
    figure, all_axes = plt.subplots(1, len(panels), figsize=(9, 3.4), squeeze=False)
    for axes, (label, by_kind) in zip(all_axes[0], panels.items(), strict=True):
        height = log_scale_with_zero(axes, np.concatenate(list(by_kind.values())))
        for position, values in enumerate(by_kind.values()):
            heights = height(np.array(values))
            axes.scatter([position] * len(values), heights, color=COLORS[0], alpha=0.7)
            axes.plot(position, np.median(heights), marker="_", markersize=24,
                      color=COLORS[1])  # fmt: skip
        axes.set_xticks(range(len(by_kind)), by_kind, rotation=35, ha="right")
        axes.set(ylabel=label, xlim=(-0.5, len(by_kind) - 0.5))
    return figure


def plot_closing(conditions):
    """Draws how far the gate closes and how much a swapped prefix then moves outputs.

    Args:
        conditions: dict from a condition's name to a list of what `forgetting`
            returns, one a seed.

    Returns:
        The figure.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9, 1.2 + 0.36 * len(conditions)), sharey=True
    )
    swaps = {name: [run["swap"] for run in runs] for name, runs in conditions.items()}
    positive = [swap for values in swaps.values() for swap in values if swap > 0]
    zero = min(positive, default=1.0) / 10
    for row, (name, runs) in enumerate(conditions.items()):
        for run in runs:
            gate = run["gate_at_reset"]
            left.scatter(gate, [row] * len(gate), s=14, color=COLORS[0], alpha=0.35)
        right.scatter([swap or zero for swap in swaps[name]], [row] * len(runs), s=36,
                      color=COLORS[1], marker="D", alpha=0.7)  # fmt: skip
    left.set_yticks(range(len(conditions)), conditions)
    left.set_ylim(len(conditions) - 0.5, -0.5)
    left.set(xlabel="R at the reset, every unit", xlim=(-0.03, 1.03))
    right.set(xlabel="largest change by a prefix swap", xscale="log")
    ticks = 10.0 ** np.arange(np.ceil(np.log10(2 * zero)), 1, 2)
    right.set_xticks(
        [zero, *ticks], ["0", *[f"$10^{{{np.log10(t):.0f}}}$" for t in ticks]]
    )
    right.minorticks_off()
    return figure


def plot_stream(gate, resets, target, output):
    """Draws a stream: the gate of every unit over time, the target and the output.

    Args:
        gate: array of shape `(time, units)`.
        resets: bool array of shape `(time,)`.
        target: array of shape `(time,)`.
        output: array of shape `(time,)`.

    Returns:
        The figure.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 4), sharex=True)
    steps = np.arange(len(gate))
    drawn = top.imshow(gate.T, cmap="gray", vmin=0, vmax=1, aspect="auto",
                       interpolation="nearest")  # fmt: skip
    figure.colorbar(drawn, ax=(top, bottom), label="R", shrink=0.5)
    top.set(ylabel="unit", yticks=range(gate.shape[1]))
    top.grid(False)
    bottom.plot(steps, target, label="sum since the reset", color=COLORS[0])
    bottom.plot(steps, output, label="network", color=COLORS[1], linestyle="--")
    for step in np.flatnonzero(resets):
        top.plot(step, -0.8, marker="v", color=COLORS[1], clip_on=False)
        bottom.axvline(step, color="0.5", linestyle=":")
    bottom.set(xlabel="step", ylabel="first sum")
    bottom.legend(loc="upper left", ncols=2, bbox_to_anchor=(0, 1.2))
    return figure


def plot_words(words, gate, show=12):
    """Draws the words at both ends of the gate's range.

    Args:
        words: list of words, from the lowest gate to the highest.
        gate: array, R of each, mean over units.
        show: int, words at each end.

    Returns:
        The figure.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2), sharex=True)
    ends = {"forget most": slice(None, show), "forget least": slice(-show, None)}
    for axes, (title, end) in zip(panels, ends.items(), strict=True):
        axes.plot(gate[end], words[end], "o", color=COLORS[0])
        axes.axvline(np.median(gate), color=COLORS[1], linestyle="--", label="median")
        axes.invert_yaxis()
        axes.set(title=title, xlabel="R, mean over units")
    panels[0].legend(loc="lower right")
    return figure


def plot_sentences(sentences):
    """Draws the gate of every word of some sentences as grey, 0 is dark.

    Args:
        sentences: list of `(words, gate, title)`, R of each word, mean over units.

    Returns:
        The figure.
    """
    figure, all_axes = plt.subplots(
        len(sentences), 1, figsize=(9, 1.75 * len(sentences)), squeeze=False
    )
    lows, highs = zip(*[(min(g), max(g)) for _, g, _ in sentences], strict=True)
    for axes, (words, gate, title) in zip(all_axes[:, 0], sentences, strict=True):
        drawn = axes.imshow(gate[np.newaxis], cmap="gray", vmin=min(lows),
                            vmax=max(highs), aspect="auto")  # fmt: skip
        axes.set_xticks(range(len(words)), words, rotation=50, ha="right",
                        rotation_mode="anchor", fontsize=9)  # fmt: skip
        axes.set(yticks=[])
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(False)
    figure.colorbar(drawn, ax=all_axes, label="R, mean over units", shrink=0.8)
    return figure


def plot_cliff(tokens, resets, magnitudes):
    """Draws the gradient at every hidden state of a stream with resets.

    Args:
        tokens: list of the `T` tokens' names.
        resets: bool array of shape `(T,)`.
        magnitudes: dict from a network's name to an array of shape `(T + 1,)`,
            `‖∂L/∂h_k‖`.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(9, 3.8))
    height = log_scale_with_zero(axes, np.concatenate(list(magnitudes.values())))
    positions = np.arange(len(tokens) + 1)
    for index, (name, norms) in enumerate(magnitudes.items()):
        axes.plot(positions, height(norms), marker="o", markersize=7 - 2 * index,
                  color=COLORS[index], linestyle=LINES[index], label=name)  # fmt: skip
    for step in np.flatnonzero(resets) + 1:
        axes.axvline(step, color="0.5", linestyle=":")
    axes.set_xticks(positions, ["$h_0$", *tokens], rotation=90, fontsize=9)
    axes.set(
        xlabel="hidden state after input", ylabel=r"$\|\partial L / \partial h_k\|$"
    )
    axes.legend(loc="upper left", ncols=len(magnitudes), bbox_to_anchor=(0, 1.15))
    return figure
