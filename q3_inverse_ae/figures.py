"""Draws the figures and formats the tables of question 3, from numbers."""

import matplotlib.pyplot as plt
import numpy as np

from common import results
from common.plots import COLORS, LINES

MARKERS = "osD^vX"
TITLES = {"dense": "fully connected", "conv": "fully convolutional"}


def draw_network(model):
    """Draws the layers of an autoencoder, with the inverse asked of each pair.

    Args:
        model: from `build_autoencoder`.
    """
    shapes = [encode.input.shape[1:] for encode, _ in model.pairs]
    shapes.append(model.encoder.output_shape[1:])
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
    axes.set_title(TITLES[model.kind])
    axes.axis("off")
    return figure


def _state(axes, x, y, label):
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "0.4"}
    axes.text(x, y, label, ha="center", va="center", fontsize=9.5, bbox=box)


def _arrow(axes, start, end, color):
    style = {"arrowstyle": "->", "color": color, "lw": 1.8}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def plot_training(history):
    """Draws the FVU of the reconstruction and of every layer over the epochs.

    Args:
        history: what `train` returns.
    """
    figure, axes = plt.subplots()
    names = sorted(name for name in history if name.startswith("inversion"))
    for index, name in enumerate(["reconstruction", *names]):
        epochs = np.arange(1, len(history[name]) + 1)
        axes.plot(epochs, history[name], label=name.replace("inversion_", "layer "),
                  color=COLORS[index % 6], linestyle=LINES[index % 6])  # fmt: skip
    axes.set(xlabel="epoch", ylabel="FVU on training batches", yscale="log")
    axes.set_title("Reconstruction and inversion improve together")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def show_images(rows, title="", *, gap=None):
    """Draws rows of digits.

    Args:
        rows: dict from a label to an array `(n, 28, 28, 1)`, the same n in all.
        title: str.
        gap: int, the image before which there is a gap. None leaves none.
    """
    count = len(next(iter(rows.values()))) + (gap is not None)
    size, margin, top = 0.62, 0.075 * max(map(len, rows)), 0.4  # inches
    width, height = size * count + margin, size * len(rows) + top
    figure, all_axes = plt.subplots(
        len(rows), 1, figsize=(width, height), squeeze=False, layout="none"
    )
    figure.subplots_adjust(margin / width, 0.01, 0.995, 1 - top / height)
    for axes, (label, images) in zip(all_axes[:, 0], rows.items(), strict=True):
        if gap is not None:
            images = np.insert(images, gap, 0, axis=0)
        axes.imshow(np.hstack(images[..., 0]), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=10)
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)
    figure.suptitle(title, fontsize=12)
    return figure


def plot_layers(panels, ylabel, title=""):
    """Draws numbers by layer on a logarithmic axis, a panel for each network.

    Args:
        panels: dict from a kind to dict from a label to an array `(seeds, layers)` or
            `(layers,)`.
        ylabel: str.
        title: str, the message of the figure.
    """
    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(9, 4.6), sharey=True, squeeze=False
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
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.suptitle(title, fontsize=12)
    return figure


def plot_price(curves, chosen):
    """Draws reconstruction against inversion, one point per weight λ.

    Args:
        curves: dict from a kind to dict from λ to a list of `(mse, largest FVU)`, one
            per seed.
        chosen: dict from a kind to the λ to mark.
    """
    figure, all_axes = plt.subplots(1, len(curves), figsize=(9, 3.8), squeeze=False)
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
        axes.set(xlabel="largest local FVU", xscale="log", title=TITLES[kind])
        axes.margins(x=0.2)
        low, high = axes.get_xlim()
        ticks = [x for x in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1) if low < x < high]
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
    all_axes[0, 0].set_ylabel("pixel error (MSE)")
    figure.suptitle("A larger λ inverts better and costs pixels", fontsize=12)
    return figure


COLUMNS = {
    "local_fvu": "local FVU",
    "chain_fvu": "chain FVU",
    "whitened_fvu": "whitened FVU",
    "cosine": "cosine",
    "right_inverse_error": "right inverse",
    "participation_ratio": "participation ratio",
    "effective_rank": "effective rank",
    "pca_fvu": "PCA",
    "learned_inverse_fvu": "learned inverse",
    "oracle_ratio": "ratio",
}


def layer_series(runs, kind):
    """Collects the series of `plot_layers` for a kind.

    Args:
        runs: dict from `(kind, variant)`, "ours" and "baseline", to a list of what
            `measured` returns, one per seed, with a learned inverse.
        kind: "dense" or "conv".

    Returns:
        Dict from a label to a list of lists of floats, `(seeds, layers)`.
    """
    return {
        label: [[row[column] for row in run["rows"]] for run in runs[kind, variant]]
        for label, variant, column in [
            ("baseline, its own decoder layer", "baseline", "local_fvu"),
            ("baseline, learned inverse", "baseline", "learned_inverse_fvu"),
            ("ours, along the chain", "ours", "chain_fvu"),
            ("ours, local", "ours", "local_fvu"),
        ]
    }


def comparison_table(runs, columns):
    """Formats measures of both networks, layer by layer, as a Markdown table.

    Args:
        runs: see `layer_series`, of both kinds.
        columns: dict from a title to `(variant, key of a row)`.

    Returns:
        The table as text: means over seeds.
    """
    kinds = list(dict.fromkeys(kind for kind, _ in runs))
    titles = ["layer"]
    titles += [f"{TITLES[kind]}: {title}" for kind in kinds for title in columns]
    rows = []
    for i in range(len(runs[kinds[0], "ours"][0]["rows"])):
        cells = [i + 1]
        for kind in kinds:
            for variant, key in columns.values():
                values = [run["rows"][i][key] for run in runs[kind, variant]]
                cells.append(_number(np.mean(values)))
        rows.append(cells)
    return results.markdown_table(titles, rows)


def report_table(runs):
    """Formats all measures of a network as a Markdown table.

    Args:
        runs: list of what `measured` returns, one per seed.

    Returns:
        The table as text: means over seeds.
    """
    there = [column for column in COLUMNS if column in runs[0]["rows"][0]]
    titles, rows = ["layer", "width", *(COLUMNS[column] for column in there)], []
    for i, row in enumerate(runs[0]["rows"]):
        means = [np.mean([run["rows"][i][column] for run in runs]) for column in there]
        rows.append([row["layer"], row["width"], *map(_number, means)])
    return results.markdown_table(titles, rows)


def summary_table(runs):
    """Formats trainings, one per row, as a Markdown table.

    Args:
        runs: dict from `(kind, name)` to a list of what `measured` returns.

    Returns:
        The table as text: means over seeds, of the largest also standard deviations.
    """
    titles = ["network", "cost", "pixel error", "largest local FVU"]
    titles += ["largest chain FVU", "local FVU, layers 1 to 4"]
    titles += ["participation ratio, h₁ to h₄"]
    lines = []
    for (kind, name), of_seeds in runs.items():
        local, chain, rank = (
            np.array([[row[key] for row in run["rows"]] for run in of_seeds])
            for key in ("local_fvu", "chain_fvu", "participation_ratio")
        )
        cells = [TITLES[kind], name, results.show([r["mse"] for r in of_seeds], ".4f")]
        for errors in (local, chain):
            cells.append(results.show(errors.max(axis=1).tolist(), ".2g"))
        cells += [" ".join(map(_number, v.mean(axis=0))) for v in (local, rank)]
        lines.append(cells)
    return results.markdown_table(titles, lines)


def _number(value):
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"
