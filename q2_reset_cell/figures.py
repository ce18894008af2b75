"""Draws the figures and formats the tables of question 2, from numbers."""

import keras
import matplotlib.pyplot as plt
import numpy as np

from common import results
from common.plots import COLORS, LINES, log_scale_with_zero
from q2_reset_cell.networks import count_weights

NAMES = {
    "reset": "reset cell",
    "fixed gate": "reset cell, fixed gate",
    "elman": "Elman",
    "gru": "GRU",
}
SENTIMENT_NAMES = {
    "reset, relu": "reset cell, ReLU, identity start",
    "elman, relu": "IRNN (Elman, ReLU, identity start)",
    "reset, tanh": "reset cell, tanh",
    "elman, tanh": "Elman, tanh",
    "gru": "GRU",
}


def network_name(kind, units):
    """Returns the name of a network in figures and tables."""
    return f"{NAMES[kind]}, {units} units"


def draw_cell():
    """Draws one step of the cell."""
    figure, axes = plt.subplots(figsize=(8.5, 3.0))
    candidate = r"$\hat h_t = \mathrm{activation}(x_t W + h_{t-1} U + b)$"
    gate = r"$R_t = \mathrm{hard\ sigmoid}(x_t W_R + b_R)$"
    nodes = {
        "h": (0.0, 2.0, "$h_{t-1}$", "none"),
        "x": (0.0, 0.7, "$x_t$", "none"),
        "candidate": (3.2, 2.0, candidate, COLORS[0]),
        "gate": (3.2, 0.7, gate, COLORS[1]),
        "product": (6.2, 2.0, r"$\times$", "0.4"),
        "new": (7.5, 2.0, "$h_t$", "none"),
    }
    patches = {}
    for name, (x, y, label, color) in nodes.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": color}
        text = axes.text(x, y, label, ha="center", va="center", fontsize=13,
                         bbox=box | {"linewidth": 1.5}, zorder=3)  # fmt: skip
        patches[name] = text.get_bbox_patch()
    for start, end, color in [
        ("h", "candidate", COLORS[0]),
        ("x", "candidate", COLORS[0]),
        ("x", "gate", COLORS[1]),
        ("candidate", "product", COLORS[0]),
        ("gate", "product", COLORS[1]),
        ("product", "new", COLORS[0]),
    ]:
        ends = {"patchA": patches[start], "patchB": patches[end], "shrinkA": 0}
        arrow = {"arrowstyle": "-|>", "color": color, "lw": 1.8, "shrinkB": 0, **ends}
        axes.annotate("", xy=nodes[end][:2], xytext=nodes[start][:2], arrowprops=arrow)
    axes.text(3.2, 2.55, "candidate: an Elman cell", ha="center", color=COLORS[0])
    axes.text(3.2, 0.1, "reset gate: from the input only", ha="center", color=COLORS[1])
    axes.set(xlim=(-0.5, 8), ylim=(-0.1, 2.8))
    axes.axis("off")
    return figure


def plot_overfitting(runs):
    """Draws the loss on the few sentences, one line per seed.

    Args:
        runs: dict from a title to a list of what `language.overfit` returns.
    """
    figure, axes = plt.subplots(figsize=(7.2, 3.2))
    for index, (title, of_seeds) in enumerate(runs.items()):
        for seed, run in enumerate(of_seeds):
            epochs = np.arange(1, len(run["losses"]) + 1)
            axes.plot(epochs, run["losses"], color=COLORS[index],
                      linestyle=LINES[index], linewidth=1.3,
                      label=None if seed else title)  # fmt: skip
    latest = max(len(run["losses"]) for of_seeds in runs.values() for run in of_seeds)
    axes.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
    axes.set_title(f"32 sentences are memorized within {latest} epochs")
    axes.legend()
    return figure


def plot_task(resets, value, target):
    """Draws one stream of sums: its inputs and its target.

    Args:
        resets: bool array of shape `(time,)`.
        value: array of shape `(time,)`.
        target: array of shape `(time,)`.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 3.4), sharex=True)
    top.stem(value, linefmt=COLORS[0], markerfmt=" ", basefmt="0.8")
    top.set(ylabel="input", title="The target is the sum since the last reset")
    bottom.step(np.arange(len(target)), target, where="mid", color=COLORS[0])
    bottom.set(xlabel="step", ylabel="target")
    _mark_resets((top, bottom), resets)
    return figure


def plot_stream(resets, value, target, output, gate):
    """Draws the gate of every unit over time, the target and the output.

    Args:
        resets: bool array of shape `(time,)`.
        value: array of shape `(time,)`.
        target: array of shape `(time,)`.
        output: array of shape `(time,)`.
        gate: array of shape `(time, units)`.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 4), sharex=True)
    drawn = top.imshow(gate.T, cmap="gray", vmin=0, vmax=gate.max(), aspect="auto",
                       interpolation="nearest")  # fmt: skip
    figure.colorbar(drawn, ax=(top, bottom), label="R (0 is black)", shrink=0.6)
    top.set(ylabel="unit", yticks=range(gate.shape[1]))
    top.set_title("At every reset (dotted) the gates of all units close")
    top.grid(False)
    bottom.plot(target, label="sum since the reset", color=COLORS[0])
    bottom.plot(output, label="network", color=COLORS[1], linestyle="--")
    _mark_resets((top, bottom), resets)
    bottom.set(xlabel="step", ylabel="first sum")
    bottom.legend(loc="upper left", ncols=2, bbox_to_anchor=(0, 1.25))
    return figure


def _mark_resets(panels, resets):
    for axes in panels:
        for step in np.flatnonzero(resets):
            axes.axvline(step, color=COLORS[1], linestyle=":", linewidth=1.2)


def plot_forgetting(runs):
    """Draws error and effect of the past of every network, a dot per seed.

    Args:
        runs: dict from `(kind, units)` to runs of `experiments.stream_training`.
    """
    order = sorted(runs, key=lambda kind: _mean(runs[kind], "score_400"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    changes = [run["prefix_change"] for of_seeds in runs.values() for run in of_seeds]
    zero = min((change for change in changes if change > 0), default=1.0) / 30
    for row, kind in enumerate(order):
        look = {"color": COLORS[1 if kind[0] == "reset" else 0], "alpha": 0.7}
        rows = [row] * len(runs[kind])
        left.scatter([100 * run["score_400"] for run in runs[kind]], rows, **look)
        right.scatter(
            [run["prefix_change"] or zero for run in runs[kind]], rows, **look
        )
    left.set(xlabel="normalized error at 400 steps (%)", xlim=(0, 100))
    left.set_ylim(len(order) - 0.5, -0.5)
    right.set(xscale="log", xlabel="largest change after a reset when\n"
              "everything before it is replaced")  # fmt: skip
    right.minorticks_off()
    for row, kind in enumerate(order):
        if all(run["prefix_change"] == 0 for run in runs[kind]):
            right.text(1.6 * zero, row, "exactly 0", va="center", fontsize=10)
    left.set_yticks(range(len(order)), [network_name(*kind) for kind in order])
    figure.suptitle("Only with a closed gate does nothing remain of the past")
    return figure


def plot_words(words, gate, show=12):
    """Draws the words at both ends of the gate's range, on the scale of R.

    Args:
        words: list of words, from the lowest gate to the highest.
        gate: array, R of each, mean over units.
        show: int, words at each end.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2), sharex=True)
    ends = {"lowest gate": slice(None, show), "highest gate": slice(-show, None)}
    for axes, (title, end) in zip(panels, ends.items(), strict=True):
        axes.plot(gate[end], words[end], "o", color=COLORS[0])
        axes.axvline(np.median(gate), color=COLORS[1], linestyle="--", label="median")
        axes.invert_yaxis()
        axes.set(title=title, xlabel="R, mean over units", xlim=(0, 1))
    panels[0].legend(loc="lower left")
    figure.suptitle("On SST-2 no word closes the gate")
    return figure


def plot_sentence(words, gate):
    """Draws the gate of every word of a sentence, on the scale of R.

    Args:
        words: list of words.
        gate: array, R of each word, mean over units.
    """
    figure, axes = plt.subplots(figsize=(9, 2.8))
    axes.bar(range(len(words)), gate, color=COLORS[0])
    axes.set_xticks(range(len(words)), words, rotation=50, ha="right",
                    rotation_mode="anchor")  # fmt: skip
    axes.set(ylim=(0, 1), ylabel="R, mean over units")
    axes.set_title(f"R is between {gate.min():.2f} and {gate.max():.2f}")
    return figure


def plot_cliff(tokens, resets, magnitudes):
    """Draws the gradient at every hidden state of a stream with resets.

    Args:
        tokens: list of the `T` tokens' names.
        resets: bool array of shape `(T,)`.
        magnitudes: dict from a network's name to an array of shape `(T + 1,)`,
            `‖∂L/∂h_k‖`.
    """
    figure, axes = plt.subplots(figsize=(9, 3.8))
    height = log_scale_with_zero(axes, np.concatenate(list(magnitudes.values())))
    positions = np.arange(len(tokens) + 1)
    for index, (name, norms) in enumerate(magnitudes.items()):
        axes.plot(positions, height(norms), marker="o", markersize=7 - 2 * index,
                  color=COLORS[index], linestyle=LINES[index], label=name)  # fmt: skip
    _mark_resets([axes], np.r_[False, resets])
    axes.set_xticks(positions, ["$h_0$", *tokens], rotation=90, fontsize=9)
    axes.set(xlabel="hidden state after input")
    axes.set_ylabel(r"gradient size, $\|\partial L / \partial h_k\|$")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title("In the reset cell the gradient ends at the last reset (dotted)")
    return figure


def plot_closing(conditions):
    """Draws how far the gate closes, and the effect of a replaced past.

    Args:
        conditions: dict from a condition's name to a list of what
            `experiments.stream_training` returns, one per seed.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    changes = [run["prefix_change"] for runs in conditions.values() for run in runs]
    zero = min((change for change in changes if change > 0), default=1.0) / 30
    for row, runs in enumerate(conditions.values()):
        for run in runs:
            gate = run["gate_at_reset"]
            left.scatter(gate, [row] * len(gate), s=14, color=COLORS[0], alpha=0.35)
            change = run["prefix_change"]
            right.scatter(change or zero, row, color=COLORS[0], alpha=0.7)
            if change == 0:
                right.text(1.6 * zero, row, "exactly 0", va="center", fontsize=10)
    left.set_yticks(range(len(conditions)), conditions)
    left.set_ylim(len(conditions) - 0.5, -0.5)
    left.set(xlabel="R at the reset, every unit", xlim=(-0.03, 1.03))
    right.set(
        xlabel="largest change after a reset when\neverything before it is replaced"
    )
    right.set(xscale="log")
    right.minorticks_off()
    figure.suptitle("The gate closes where no other way to forget is left")
    return figure


def stream_table(task, runs):
    """Formats what `experiments.stream_training` returned as a Markdown table.

    Args:
        task: `Task`.
        runs: dict from `(kind, units)` to runs, one per seed.

    Returns:
        The table as text: means and standard deviations over seeds, and the largest
        change in the prefix-replacement test.
    """
    score, spec = ("accuracy", ".1f") if task.binary else ("error", ".2g")
    titles = ["model", "weights", f"{score} at 40 steps", "at 400 steps"]
    titles += ["change under prefix replacement", "mean R at reset"]
    rows = []
    for (kind, units), of_seeds in runs.items():
        gates = [np.mean(run["gate_at_reset"]) for run in of_seeds if kind == "reset"]
        gate = f"{np.mean(gates):.2g}" if gates else ""
        rows.append(
            [
                network_name(kind, units),
                count_weights(kind, units, len(task.reset_input)),
                *(
                    results.show([run[key] for run in of_seeds], spec, scale=100) + "%"
                    for key in ("score_40", "score_400")
                ),
                f"{max(run['prefix_change'] for run in of_seeds):.2g}",
                "0" if kind == "fixed gate" else gate,
            ]
        )
    return results.markdown_table(titles, rows)


def activation_table(runs):
    """Formats the comparison of activations and biases as a Markdown table.

    Args:
        runs: dict from `(activation, bias)` to a list of what
            `experiments.stream_training` returns.

    Returns:
        The table as text: R at the start, means over seeds, and the largest change in
        the prefix-replacement test.
    """
    titles = ["activation of the gate", "bias at the start", "R at the start"]
    titles += ["error at 400 steps", "mean R at reset", "mean R elsewhere"]
    titles += ["change under prefix replacement"]
    rows = []
    for (activation, bias), of_seeds in runs.items():
        units = len(of_seeds[0]["gate_at_reset"])
        start = keras.activations.get(activation)(keras.ops.full((1, units), bias))
        errors = [run["score_400"] for run in of_seeds]
        rows.append(
            [
                activation.replace("_", " "),
                f"{bias:g}",
                f"{float(start[0, 0]):.2g}",
                results.show(errors, ".0f", scale=100, unit="%"),
                f"{np.mean([run['gate_at_reset'] for run in of_seeds]):.2g}",
                f"{np.mean([run['gate_elsewhere'] for run in of_seeds]):.2g}",
                f"{max(run['prefix_change'] for run in of_seeds):.1g}",
            ]
        )
    return results.markdown_table(titles, rows)


def sentiment_table(runs):
    """Formats what `language.sentiment_trainings` returned as a Markdown table."""
    rows = [
        [
            SENTIMENT_NAMES[name],
            f"{of_seeds[0]['weights']:,}",
            results.percent([run["tuning"] for run in of_seeds]),
            results.percent([run["validation"] for run in of_seeds]),
        ]
        for name, of_seeds in runs.items()
    ]
    titles = ["recurrent layer", "weights", "tuning accuracy", "validation accuracy"]
    return results.markdown_table(titles, rows)


def _mean(runs, key):
    return np.mean([run[key] for run in runs])
