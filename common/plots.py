"""One style for all figures, and how they are saved."""

import re

import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from IPython.display import display

from common import presets

# Dark to light, so that the order survives printing in grey; line styles tell apart
# what the grey does not.
COLORS = ("#1b2a49", "#a8322d", "#2a7f9e", "#d98b2b", "#6b9e5b", "#9a9a9a")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


def use_style():
    """Sets matplotlib up; every notebook calls it once."""
    plt.rcParams.update(
        {
            "figure.figsize": (7.2, 3.6),
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "savefig.dpi": 160,
            "font.size": 12,
            "axes.titlesize": 12,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.prop_cycle": plt.cycler(color=COLORS, linestyle=LINES),
            "lines.linewidth": 2,
            "legend.frameon": False,
            "legend.fontsize": 10,
        }
    )


def save(figure, question, name):
    """Saves a figure as `<name>.png` with the results of its question, and shows it.

    In a notebook it comes with a text for those who cannot see it.
    """
    # Without the version that matplotlib writes by default, so that the same figure
    # is the same file.
    path = presets.results_dir(question) / f"{name}.png"
    figure.savefig(path, metadata={"Software": None})
    if get_ipython():
        display(figure, metadata={"image/png": {"alt": alt_text(figure, name)}})
        plt.close(figure)
    else:
        plt.show()


def alt_text(figure, name):
    """Describes a figure in words, without mathematics.

    They are the name of its file, its title and those of the panels, what is drawn
    against what, and the entries of the legends.
    """
    parts = [figure.get_suptitle()]
    for axes in figure.axes:
        labels = axes.get_ylabel(), axes.get_xlabel()
        parts += [axes.get_title(), " against ".join(filter(None, labels))]
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    for legend in filter(None, legends):
        parts.append(", ".join(text.get_text() for text in legend.get_texts()))
    parts = [re.sub(r"[\s$\\{}]+", " ", part).strip() for part in parts]
    return "; ".join([name.replace("_", " "), *filter(None, dict.fromkeys(parts))])


def log_scale_with_zero(axes, values):
    """Gives a logarithmic y axis a place for exact zeros, labelled 0.

    Args:
        axes: `matplotlib.axes.Axes`.
        values: array of all values ≥ 0 that will be drawn.

    Returns:
        A function that maps values to the heights to draw them at: themselves where
        they are positive, the bottom line where they are exactly 0.
    """
    positive = values[values > 0]
    lowest = np.floor(np.log10(positive.min()))
    highest = np.ceil(np.log10(positive.max()))
    step = max(1, int(np.ceil((highest - lowest) / 5)))
    zero = 10.0 ** (lowest - 0.6 * step)
    decades = np.arange(highest, lowest - 0.5, -step)[::-1]
    axes.set_yscale("log")
    axes.set_ylim(zero / 10 ** (0.25 * step), 10.0 ** (highest + 0.1 * step))
    axes.set_yticks(
        [zero, *10.0**decades],
        ["0", *[f"$10^{{{int(decade)}}}$" for decade in decades]],
    )
    axes.minorticks_off()
    axes.axhline(10.0 ** (lowest - 0.3 * step), color="0.6", linewidth=0.8)
    return lambda heights: np.where(heights == 0, zero, heights)
