"""A slider in a live notebook, its first value elsewhere."""

import importlib.util
import os
import sys


def show(draw, name, values):
    """Draws for the value that is chosen with a slider, or for the first of them.

    The slider needs Jupyter or Colab, and ipywidgets. Elsewhere, such as in a notebook
    that is executed from the command line, nothing of it is left behind.

    Args:
        draw: function of one argument, `value`, that displays something.
        name: str, what is chosen.
        values: list, what there is to choose from; the first is where it starts.
    """
    if not (is_live() and importlib.util.find_spec("ipywidgets")):
        draw(values[0])
        return
    import ipywidgets

    slider = ipywidgets.SelectionSlider(
        options=sorted(values),
        value=values[0],
        description=name,
        continuous_update=False,
    )
    ipywidgets.interact(draw, value=slider)


def is_live():
    """Returns whether this runs in a notebook that a person has open."""
    return "google.colab" in sys.modules or "JPY_SESSION_NAME" in os.environ
