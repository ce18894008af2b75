"""Sets the address of the repository on GitHub wherever it stands.

```
python -m tools.repository owner/name
```

Colab needs it: in the badges of README.md and the notebooks, and in the notebooks'
set-up cells. What it is now stands in pyproject.toml.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def address(root=ROOT):
    """Returns the address, such as `"owner/name"`."""
    pyproject = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    return pyproject["tool"]["assignment14"]["repository"]


def files_with_address(root=ROOT):
    """Returns the paths of all files in which the address stands."""
    return [root / "pyproject.toml", root / "README.md", *root.glob("q*_*/*.ipynb")]


def main(argv=None, root=ROOT):
    """Writes the new address into every file; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 1 or not re.fullmatch(r"[\w.-]+/[\w.-]+", argv[0]):
        print("usage: python -m tools.repository owner/name", file=sys.stderr)
        return 2
    old = address(root)
    for path in files_with_address(root):
        text = path.read_text("utf-8")
        path.write_text(text.replace(old, argv[0]), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
