"""common/interactive.py: a slider for a person, and one picture for everybody else."""

import sys
import types

import pytest

from common import interactive


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn, and `ipywidgets` in a form that chooses every value in turn."""
    drawn = []

    def interact(draw, value):
        for choice in value["options"]:
            draw(value=choice)

    module = types.ModuleType("ipywidgets")
    module.__spec__ = types.SimpleNamespace(name="ipywidgets")
    module.SelectionSlider = dict
    module.interact = interact
    monkeypatch.setitem(sys.modules, "ipywidgets", module)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return drawn


def test_the_first_value_is_drawn_where_nobody_reads_along(drawn):
    interactive.show(lambda value: drawn.append(value), "rate", [2, 1, 3])
    assert drawn == [2]


def test_a_reader_chooses_among_the_values(drawn, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    interactive.show(lambda value: drawn.append(value), "rate", [2, 1, 3])
    assert drawn == [1, 2, 3]


def test_missing_widgets_do_no_harm(drawn, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    monkeypatch.setattr(interactive.importlib.util, "find_spec", lambda name: None)
    interactive.show(lambda value: drawn.append(value), "rate", [2, 1, 3])
    assert drawn == [2]
