"""Shows code of the modules in a notebook."""

import ast
import inspect
import textwrap

from IPython.display import Markdown


def show(function):
    """Returns the source of a function as Markdown, without its docstring.

    Args:
        function: function or method of this repository.

    Returns:
        `IPython.display.Markdown`, a block of Python code.
    """
    text = textwrap.dedent(inspect.getsource(function))
    lines, (definition,) = text.rstrip().split("\n"), ast.parse(text).body
    if ast.get_docstring(definition):
        docstring = definition.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return Markdown("```python\n" + "\n".join(lines) + "\n```")
