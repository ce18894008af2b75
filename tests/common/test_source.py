"""common/source.py: code as a notebook shows it."""

from common import source


class Example:
    def double(self, x):
        """Doubles.

        Args:
            x: number.
        """
        # Twice.
        return 2 * x


def plain(x):
    return x


def test_a_method_is_shown_without_its_docstring():
    expected = "def double(self, x):\n    # Twice.\n    return 2 * x"
    assert source.show(Example.double).data == f"```python\n{expected}\n```"


def test_a_function_without_a_docstring_is_shown_whole():
    expected = "def plain(x):\n    return x"
    assert source.show(plain).data == f"```python\n{expected}\n```"
