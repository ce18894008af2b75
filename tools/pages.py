"""Fills texts from the results, so that no figure in them is typed.

A text is a Jinja template. Every question is a name with its metrics, and a filter
says how one is shown: `{{ q1_tbptt.dev_accuracy_lstm | percent }}`.
"""

import functools
import json
import re
from pathlib import Path

import jinja2

ROOT = Path(__file__).resolve().parents[1]
ISOLATE, POP = "\N{LEFT-TO-RIGHT ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
HEBREW = re.compile("[\N{HEBREW LETTER ALEF}-\N{HEBREW LETTER TAV}]")
# How a metric is shown: the factor it is multiplied with, the format, the unit.
PERCENT = (100, ".1f", " %")
TIMES = (1, ".2f", "×")
NUMBER = (1, "g", "")
SHORT = (1, ".2g", "")
ERROR = (1, ".4f", "")
# As in the result table, but the mean alone; what names a spread shows that as well.
FILTERS = {
    "percent": PERCENT,
    "number": NUMBER,
    "error": ERROR,
    "fold": (1, ".2f", ""),
    "whole": (1, ",.0f", ""),
}
SPREADS = {"spread_percent": PERCENT, "spread_error": ERROR}


def render(text, root=ROOT, *, isolate=False, **more):
    """Fills a template.

    Args:
        text: str, the template.
        root: Folder of the questions.
        isolate: bool, for a text that runs from right to left: whether what is filled
            in is isolated from it, unless it is Hebrew.
        **more: further names that the template may use.

    Returns:
        The filled text.

    Raises:
        ValueError: If it names a metric, or a filter, that there is not.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    for name, style in FILTERS.items():
        environment.filters[name] = functools.partial(show_mean, style=style)
    for name, style in SPREADS.items():
        environment.filters[name] = functools.partial(show, style=style)
    if isolate:
        environment.finalize = isolated
    results = {
        path.parents[1].name: json.loads(path.read_text("utf-8"))["metrics"]
        for path in root.glob("q*_*/results/results.json")
    }
    try:
        return environment.from_string(text).render(results | more)
    except jinja2.TemplateError as error:
        raise ValueError(f"a text cannot be filled: {error}") from error


def isolated(value):
    """Returns a value as text that runs from left to right in one that does not."""
    text = str(value)
    return text if HEBREW.search(text) else f"{ISOLATE}{text}{POP}"


def show(value, style):
    """Formats one metric.

    Args:
        value: A number, or a dict of mean, std and n.
        style: Factor, format and unit.

    Returns:
        Text such as `"81.9 % ± 0.4 (n = 5)"`.
    """
    factor, spec, unit = style
    if not isinstance(value, dict):
        return f"{factor * value:{spec}}{unit}"
    mean, std = factor * value["mean"], factor * value["std"]
    return f"{mean:{spec}}{unit} ± {std:{spec}} (n = {value['n']})"


def show_mean(value, style):
    """Formats a metric without its spread."""
    return show(value["mean"] if isinstance(value, dict) else value, style)
