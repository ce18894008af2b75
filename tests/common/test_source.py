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


def test_functions_are_shown_without_their_docstrings():
    double = "def double(self, x):\n    # Twice.\n    return 2 * x"
    expected = f"```python\n{double}\n\n\ndef plain(x):\n    return x\n```"
    assert source.show(Example.double, plain).data == expected
