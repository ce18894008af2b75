"""The figures and tables of question 3, each from what it is given."""

import matplotlib.pyplot as plt
import numpy as np

from common import results
from common.plots import COLORS, LINES

MARKERS = "osD^vX"
TITLES = {"dense": "fully connected", "conv": "fully convolutional"}


def draw_network(model):
    """Draws the pairs of an autoencoder and what each is asked for.

    Args:
        model: from `build_autoencoder`.

    Returns:
        The figure.
    """
    shapes = [encode.input.shape[1:] for encode, _ in model.pairs]
    shapes.append(model.pairs[-1][0].output.shape[1:])
    labels = ["×".join(str(size) for size in shape) for shape in shapes]
    figure, axes = plt.subplots(figsize=(9, 2.9))
    for i, label in enumerate(labels):
        last = i == len(labels) - 1
        for height, name in ((2.0, f"$h_{i}$"), (0.6, rf"$\hat h_{i}$")):
            if not last:
                _state(axes, 2 * i, height, f"{name}  {label}")
            elif height > 1:
                _state(axes, 2 * i, 1.3, f"$h_{i}$  {label}")
        if last:
            continue
        ends = (1.3, 1.3) if i == len(labels) - 2 else (2.0, 0.6)
        _arrow(axes, (2 * i + 0.65, 2.0), (2 * i + 1.35, ends[0]), COLORS[0])
        _arrow(axes, (2 * i + 1.35, ends[1]), (2 * i + 0.65, 0.6), COLORS[1])
        axes.text(2 * i + 1, 2.22, f"$f_{i + 1}$", ha="center", color=COLORS[0])
        axes.text(2 * i + 1, 0.2, f"$g_{i + 1}$", ha="center", color=COLORS[1])
        axes.text(2 * i + (1 if ends[0] == 2.0 else 0.6), 1.3,
                  rf"$g_{i + 1}\approx f_{i + 1}^{{-1}}$",
                  ha="center", va="center")  # fmt: skip
    axes.set(xlim=(-0.8, 2 * len(labels) - 1.1), ylim=(0, 2.6))
    axes.set_title(TITLES[model.arguments["kind"]])
    axes.axis("off")
    return figure


def _state(axes, x, y, label):
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "0.4"}
    axes.text(x, y, label, ha="center", va="center", fontsize=9.5, bbox=box)


def _arrow(axes, start, end, color):
    style = {"arrowstyle": "->", "color": color, "lw": 1.8}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def plot_training(history):
    """Draws the reconstruction's and every layer's FVU over the epochs.

    Args:
        history: what `train` returns.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots()
    names = [name for name in history if name != "loss"]
    for index, name in enumerate(sorted(names, reverse=True)):
        epochs = np.arange(1, len(history[name]) + 1)
        axes.plot(epochs, history[name], label=name.replace("_", " "),
                  color=COLORS[index % 6], linestyle=LINES[index % 6])  # fmt: skip
    axes.set(xlabel="epoch", ylabel="FVU on training batches", yscale="log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def show_images(rows):
    """Draws rows of digits.

    Args:
        rows: dict from a label to an array `(n, 28, 28, 1)`, the same n in all.

    Returns:
        The figure.
    """
    count = len(next(iter(rows.values())))
    figure, all_axes = plt.subplots(
        len(rows), 1, figsize=(9, 9 * len(rows) / (count + 2.5)), squeeze=False
    )
    for axes, (label, images) in zip(all_axes[:, 0], rows.items(), strict=True):
        axes.imshow(np.hstack(images[..., 0]), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=10)
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)
    return figure


def plot_layers(panels, ylabel, *, share=True):
    """Draws numbers by layer on a logarithmic axis, a panel for each network.

    Args:
        panels: dict from a kind to dict from a label to an array `(seeds, layers)` or
            `(layers,)`.
        ylabel: str.
        share: bool, whether the panels have one y axis.

    Returns:
        The figure.
    """
    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(9, 3.8), sharey=share, squeeze=False
    )
    for axes, (kind, series) in zip(all_axes[0], panels.items(), strict=True):
        for index, (label, values) in enumerate(series.items()):
            values = np.atleast_2d(values)
            layers = np.arange(1, values.shape[1] + 1)
            mean = values.mean(axis=0)
            spread = [mean - values.min(axis=0), values.max(axis=0) - mean]
            axes.errorbar(layers, np.where(mean > 0, mean, np.nan), spread,
                          label=label, color=COLORS[index % 6],
                          linestyle=LINES[index % 6], marker=MARKERS[index % 6],
                          markersize=6, capsize=3)  # fmt: skip
        axes.set(xlabel="layer i", yscale="log", title=TITLES[kind])
        axes.set_xticks(layers)
    all_axes[0, 0].set_ylabel(ylabel)
    handles, labels = all_axes[0, -1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def plot_price(curves, chosen):
    """Draws reconstruction against inversion, one point a weight λ.

    Args:
        curves: dict from a kind to dict from λ to a list of `(mse, largest FVU)`, one
            a seed.
        chosen: dict from a kind to the λ to mark.

    Returns:
        The figure.
    """
    figure, all_axes = plt.subplots(1, len(curves), figsize=(9, 3.6), squeeze=False)
    for axes, (kind, points) in zip(all_axes[0], curves.items(), strict=True):
        means = {weight: np.mean(runs, axis=0) for weight, runs in points.items()}
        path = np.array(list(means.values()))
        axes.plot(path[:, 1], path[:, 0], marker="o", color=COLORS[0])
        for runs in points.values():
            for mse, worst in runs:
                axes.plot(worst, mse, ".", color=COLORS[5], zorder=0)
        for weight, (mse, worst) in means.items():
            axes.annotate(f"λ = {weight:g}", (worst, mse), (5, 5),
                          textcoords="offset points", fontsize=9)  # fmt: skip
        if chosen[kind] in means:
            mse, worst = means[chosen[kind]]
            axes.plot(worst, mse, "o", markersize=15, fillstyle="none",
                      color=COLORS[1], markeredgewidth=2)  # fmt: skip
        axes.axvline(0.05, color="0.5", linewidth=1, linestyle=":")
        axes.set(xlabel="largest local FVU", xscale="log", title=TITLES[kind])
        axes.margins(x=0.2)
        low, high = axes.get_xlim()
        ticks = [x for x in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if low < x < high]
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
    all_axes[0, 0].set_ylabel("pixel error (MSE)")
    return figure


def plot_spectra(panels):
    """Draws singular values of the round trip's Jacobian beside a projector's.

    Args:
        panels: dict from a kind to `(widths, spectra)`, the widths of the states and
            dict from a label to what `jacobian_spectra` returns.

    Returns:
        The figure.
    """
    layers = len(next(iter(panels.values()))[0])
    figure, all_axes = plt.subplots(
        len(panels), layers, figsize=(9, 2.2 * len(panels)), sharey=True, squeeze=False
    )
    for row, (kind, (widths, spectra)) in zip(all_axes, panels.items(), strict=True):
        for i, axes in enumerate(row):
            for index, (label, of_layers) in enumerate(spectra.items()):
                values = of_layers[i]
                axes.plot(np.arange(1, len(values) + 1), values, label=label,
                          color=COLORS[index], linestyle=LINES[index])  # fmt: skip
            size = len(values)
            ones = min(widths[i], size)
            axes.plot([1, ones, ones], [1, 1, 1e-3], color="0.6", linewidth=1,
                      linestyle="-", label="projector", zorder=0)  # fmt: skip
            axes.set(xscale="log", yscale="log", ylim=(0.02, 30),
                     title=f"{kind}, layer {i + 1}")  # fmt: skip
        row[0].set_ylabel("singular value")
    for axes in all_axes[-1]:
        axes.set_xlabel("index")
    handles, labels = all_axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


COLUMNS = {
    "local_fvu": "local FVU",
    "chain_fvu": "chain FVU",
    "whitened_fvu": "whitened FVU",
    "cosine": "cosine",
    "right_inverse_error": "right inverse",
    "participation_ratio": "participation ratio",
    "effective_rank": "effective rank",
    "pca_floor": "PCA limit",
    "inverter_fvu": "inverter",
    "oracle_ratio": "ratio",
}


def layer_series(runs, kind):
    """Collects what `plot_layers` draws of a kind.

    Args:
        runs: dict from `(kind, variant)`, "ours" and "plain", to a list of what
            `measured` returns, one a seed, with a strong inverter.
        kind: "dense" or "conv".

    Returns:
        Dict from a label to a list of lists of floats, `(seeds, layers)`.
    """

    def series(variant, column):
        return [[row[column] for row in run["rows"]] for run in runs[kind, variant]]

    return {
        "plain autoencoder": series("plain", "local_fvu"),
        "ours": series("ours", "local_fvu"),
        "ours, along the chain": series("ours", "chain_fvu"),
        "strong inverter of ours": series("ours", "inverter_fvu"),
        "PCA limit of ours": series("ours", "pca_floor"),
        "strong inverter of plain": series("plain", "inverter_fvu"),
    }


def report_table(runs):
    """Formats the layer report, means over seeds, as a Markdown table.

    Args:
        runs: list of what `measured` returns, one a seed.

    Returns:
        The table as text.
    """
    there = [column for column in COLUMNS if column in runs[0]["rows"][0]]
    titles, rows = ["layer", "width", *(COLUMNS[column] for column in there)], []
    for i, row in enumerate(runs[0]["rows"]):
        means = [np.mean([run["rows"][i][column] for run in runs]) for column in there]
        rows.append([row["layer"], row["width"], *map(_number, means)])
    return results.markdown_table(titles, rows)


def control_table(controls):
    """Formats the comparison of losses as a Markdown table.

    Args:
        controls: dict from `(kind, variant)` to a list of what `measured` returns.

    Returns:
        The table as text.
    """
    titles = ["network", "loss", "pixel error", "local FVU, layers 1 to 4"]
    titles += ["largest", "participation ratio of the code"]
    lines = []
    for (kind, variant), runs in controls.items():
        rows = [[row["local_fvu"] for row in run["rows"]] for run in runs]
        code = [run["rows"][-1]["participation_ratio"] for run in runs]
        cells = [TITLES[kind], variant, f"{np.mean([r['mse'] for r in runs]):.4f}"]
        cells.append(" ".join(map(_number, np.mean(rows, axis=0))))
        cells += [_number(np.mean(np.max(rows, axis=1))), f"{np.mean(code):.1f}"]
        lines.append(cells)
    return results.markdown_table(titles, lines)


def describe(runs):
    """Formats pixel error, largest local FVU and rank of the code as one line.

    Args:
        runs: list of what `measured` returns, one a seed.

    Returns:
        The line as text: of each the mean and the standard deviation over seeds.
    """
    values = {
        "MSE": [run["mse"] for run in runs],
        "largest local FVU": [max(r["local_fvu"] for r in run["rows"]) for run in runs],
        "code PR": [run["rows"][-1]["participation_ratio"] for run in runs],
    }
    return "   ".join(
        f"{name} {results.show(of_seeds, '.3g')}" for name, of_seeds in values.items()
    )


def _number(value):
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"
