"""Sets the repository's address on GitHub, or removes it, wherever it stands.

```
python -m tools.repository owner/name
python -m tools.repository ""
```

Colab needs it: with an address, README.md and the notebooks have badges that open
them there, and the set-up cells install the project; without one they do not.
"""

import re
import sys
import tomllib

import nbformat

from common.presets import ROOT
from tools.freshness import find_notebooks
from tools.results_page import fill

BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{address}/blob/main/{path})\n\n"
)
TITLE = "# @title Set-up\n"
IMPORT = "import common  # noqa: F401, Keras runs on TensorFlow"
# What Colab has preinstalled stays as it is.
COLAB = """\
import sys

if "google.colab" in sys.modules:
    !pip freeze | grep == | pip install -q -c /dev/stdin git+https://github.com/{address}
"""


def address(root=ROOT):
    """Returns the address, such as `"owner/name"`, or an empty str."""
    pyproject = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    return pyproject["tool"]["assignment14"]["repository"]


def badge(address, path):
    """Returns the badge that opens a notebook on Colab, empty without an address."""
    return BADGE.format(address=address, path=path) if address else ""


def setup(address):
    """Returns the code of a notebook's set-up cell."""
    return TITLE + (COLAB.format(address=address) if address else "") + IMPORT


def main(argv=None, root=ROOT):
    """Writes the new address into every file; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 1 or not re.fullmatch(r"([\w.-]+/[\w.-]+)?", argv[0]):
        print('usage: python -m tools.repository owner/name (or "")', file=sys.stderr)
        return 2
    (new,) = argv
    paths = find_notebooks(root=root)
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        first = notebook.cells[0]
        text = first.source[first.source.index("# ") :]
        first.source = badge(new, path.relative_to(root).as_posix()) + text
        for cell in notebook.cells:
            if cell.source.startswith(TITLE):
                cell.source = setup(new)
        nbformat.write(notebook, path)
    badges = [badge(new, path.relative_to(root).as_posix()).strip() for path in paths]
    text = f"\nQuestions 1 to 4: {' '.join(badges)}\n" if new else ""
    readme, pyproject = root / "README.md", root / "pyproject.toml"
    readme.write_text(fill(readme.read_text("utf-8"), {"badge": text}), "utf-8")
    text = re.sub(
        r'^repository = ".*"$',
        f'repository = "{new}"',
        pyproject.read_text("utf-8"),
        flags=re.MULTILINE,
    )
    pyproject.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
