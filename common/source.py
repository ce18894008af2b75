"""Shows code of the modules in a notebook."""

import ast
import inspect
import textwrap

from IPython.display import Markdown


def show(*functions):
    """Returns the source of functions as Markdown, without their docstrings.

    Args:
        *functions: functions or methods of this repository.

    Returns:
        `IPython.display.Markdown`, a block of Python code.
    """
    sources = []
    for function in functions:
        text = textwrap.dedent(inspect.getsource(function))
        lines, (definition,) = text.rstrip().split("\n"), ast.parse(text).body
        if ast.get_docstring(definition):
            docstring = definition.body[0]
            del lines[docstring.lineno - 1 : docstring.end_lineno]
        sources.append("\n".join(lines))
    return Markdown("```python\n" + "\n\n\n".join(sources) + "\n```")
