"""common/digest.py: what counts as code, and that every Python agrees."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common import digest, presets

# The same for ever and for every Python: nested quotes in f-strings, blank lines in
# strings, hashes that are no comments, and all that does not run.
SOURCE = '''# A comment.
"""A docstring.

Of three lines.
"""

import os  # what for


class Named:
    """A docstring."""

    def name(self, names):
        """Another,

        with a blank line."""
        hash = "# no comment"  # a comment
        text = """one

        # two
        """
        return f"{', '.join(names)} {hash!r:>{len(text)}} # none"


async def nothing(): """On the line of its function."""
'''
LINES = [
    "import os",
    "class Named:",
    "    def name(self, names):",
    '        hash = "# no comment"',
    '        text = """one',
    "",
    "        # two",
    '        """',
    '''        return f"{', '.join(names)} {hash!r:>{len(text)}} # none"''',
    "async def nothing():",
]


def test_lines_of_code_are_those_that_run():
    assert digest.code_lines(SOURCE) == LINES


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_computes_the_same_digests(version):
    managed = (Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")
    python = next(map(str, managed), shutil.which(f"python{version}"))
    program = (
        f"from common import digest\nprint(digest.code_lines({SOURCE!r}))\n"
        "print(*[digest.code_sha256(q) for q in ('q1_tbptt', 'q4_denoise_text')])"
    )

    def run(python):
        return subprocess.run(
            [python, "-c", program], cwd=presets.CODE, capture_output=True, text=True
        )

    if python is None:
        pytest.skip(f"there is no Python {version}")
    found, expected = run(python), run(sys.executable)
    assert (found.stderr, found.stdout) == ("", expected.stdout)


def test_only_code_that_decides_results_counts(repository):
    code = repository / "common" / "data.py"
    code.write_text('"""One."""\n\n\ndef f():\n    """Two."""\n    return 1\n')
    first = digest.code_sha256("q1_tbptt")
    code.write_text('"""Three."""\ndef f():\n    """Four."""\n    return 1  # five\n')
    (repository / "common" / "plots.py").write_text("colour = 'blue'\n")
    (repository / "common" / "another.py").write_text("nobody = 'imports it'\n")
    (repository / "q1_tbptt" / "__init__.py").touch()
    (repository / "q1_tbptt" / "notes.py").write_text('"""Nothing runs here."""\n')
    assert digest.code_sha256("q1_tbptt") == first
    code.write_text("def f():\n    return 2\n")
    assert digest.code_sha256("q1_tbptt") != first


@pytest.mark.parametrize(
    "line",
    ["from common import text", "from common.text import pad", "import common.text"],
)
def test_code_that_is_imported_counts_however_far_away(repository, line):
    (repository / "q1_tbptt" / "model.py").write_text("import q2_reset_cell.cell\n")
    (repository / "q2_reset_cell").mkdir()
    (repository / "q2_reset_cell" / "cell.py").write_text(f"{line}\n")
    text = repository / "common" / "text.py"
    text.write_text("import q1_tbptt.model\n\npad = 0\n")
    first = digest.code_sha256("q1_tbptt")
    text.write_text("import q1_tbptt.model\n\npad = 1\n")
    assert digest.code_sha256("q1_tbptt") != first
