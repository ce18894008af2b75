"""common/interactive.py: a slider for a person, and one picture for everybody else."""

import sys
import types

import pytest

from common import interactive


@pytest.mark.parametrize(
    "live, widgets, expected",
    [(True, True, [1, 2, 3]), (False, True, [2]), (True, False, [2])],
)
def test_only_a_reader_with_widgets_chooses(live, widgets, expected, monkeypatch):
    drawn = []

    def interact(draw, value):
        for choice in value["options"]:
            draw(value=choice)

    module = types.SimpleNamespace(
        __spec__=types.SimpleNamespace(), SelectionSlider=dict, interact=interact
    )
    monkeypatch.setitem(sys.modules, "ipywidgets", module)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if live:
        monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    if not widgets:
        monkeypatch.setattr(interactive.importlib.util, "find_spec", lambda name: None)
    interactive.show(lambda value: drawn.append(value), "rate", [2, 1, 3])
    assert drawn == expected
