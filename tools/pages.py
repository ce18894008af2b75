"""Fills texts from the results, so that no figure in them is typed.

A text is a Jinja template. Every question is a name with its metrics, and a filter
says how one is shown: `{{ q1_tbptt.validation_accuracy_lstm | percent }}`.
"""

import json
import re

import jinja2

from common.presets import ROOT
from common.results import show

LANGUAGES = {"en": False, "he": True}  # whether it runs from right to left
ISOLATE, POP = "\N{LEFT-TO-RIGHT ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
HEBREW = re.compile("[\N{HEBREW LETTER ALEF}-\N{HEBREW LETTER TAV}]")
# How a metric is shown: options of `common.results.show`.
PERCENT = {"spec": ".1f", "scale": 100, "unit": "%"}
FINE_PERCENT = PERCENT | {"spec": ".2f"}
ERROR = {"spec": ".4f"}
FOLD = {"spec": ".2f"}
STYLES = {
    "percent": PERCENT,
    "fine_percent": FINE_PERCENT,
    "number": {"spec": "g"},
    "short": {"spec": ".2g"},
    "error": ERROR,
    "fold": FOLD,
    "whole": {"spec": ",.0f"},
}
SPREADS = {
    "spread_percent": PERCENT,
    "spread_fine_percent": FINE_PERCENT,
    "spread_error": ERROR,
    "spread_fold": FOLD,
}


def render(text, root=ROOT, *, isolate=False, **more):
    """Returns the text of a template, filled from the metrics and from `**more`.

    With `isolate`, for a text that runs from right to left, what is filled in and is
    not Hebrew is isolated from it. An unknown metric or filter is a ValueError.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    for name, style in STYLES.items():
        environment.filters[name] = lambda value, style=style: show(
            value["mean"] if isinstance(value, dict) else value, **style
        )
    for name, style in SPREADS.items():
        environment.filters[name] = lambda value, style=style: show(
            value, **style, seeds=True
        )
    if isolate:
        environment.finalize = isolated
    try:
        return environment.from_string(text).render(metrics(root) | more)
    except jinja2.TemplateError as error:
        raise ValueError(f"a text cannot be filled: {error}") from error


def metrics(root=ROOT):
    """Reads the published metrics of every question, as a dict of dicts.

    Headlines of its benchmark are among those of a question, and the record of a
    pre-training is under `pretraining`.
    """
    found = {}
    for path in sorted(root.glob("q*_*/results/results.json")):
        found[path.parents[1].name] = json.loads(path.read_text("utf-8"))["metrics"]
        record = path.with_name("bench.json")
        if record.exists():
            headline = json.loads(record.read_text("utf-8")).get("headline", {})
            found[path.parents[1].name] |= headline
        record = path.with_name("pretraining.json")
        if record.exists():
            content = json.loads(record.read_text("utf-8"))
            found[path.parents[1].name]["pretraining"] = content
    return found


def isolated(value):
    """Returns a value as text that runs from left to right in one that does not."""
    text = str(value)
    if HEBREW.search(text):
        return text
    seeds = re.fullmatch(r"(.*) \((\d+) seeds\)", text)
    text, seeds = (seeds[1], f" ({seeds[2]} זרעים)") if seeds else (text, "")
    return f"{ISOLATE}{text}{POP}{seeds}"
