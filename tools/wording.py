"""Finds wording that this repository avoids in texts and notebooks.

```
python -m tools.wording
```
"""

import json
import re
import sys

from common.presets import ROOT
from tools.freshness import find_notebooks

# What not to write, and what to write instead.
AVOIDED = {
    r"is right on|are right on": "reaches … accuracy",
    r"beside\b": "compared with, next to",
    r"anew\b": "again",
    r"once more": "again",
    r"mended|spoil(s|ed)": "fixed; corrupted by the model",
    r"but for\b": "except",
    r"hands? on|handed": "returns, passes, receives",
    r"by heart": "overfitted, memorized",
    r"cures?\b": "remedy",
    r"judged?\b|contestants?": "evaluate, candidate",
    r"unplugged|undone|levelled": "gate fixed at 1; reset flag hidden",
    r"inverters?\b": "learned inverse",
    r"linear head": "linear probe",
    r"prefix swap": "prefix-replacement test",
    r"errors removed": "net error reduction",
    r"one (folder|dict|gate|value) an? ": "one … per …",
}


def findings(name, text):
    """Returns a line for every place of a text that is worded as it should not be."""
    return [
        f"{name}:{number}: {found[0]!r}, write: {instead}"
        for number, line in enumerate(text.splitlines(), start=1)
        for pattern, instead in AVOIDED.items()
        for found in re.finditer(rf"\b({pattern})", line, re.IGNORECASE)
    ]


def texts(root=ROOT):
    """Yields the name and the text of every page and of every notebook's prose."""
    folders = ("", "docs", "docs/templates", "benchmarks")
    for path in (path for f in folders for path in sorted((root / f).glob("*.md"))):
        yield path.relative_to(root).as_posix(), path.read_text("utf-8")
    for path in find_notebooks(root=root):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        prose = [c["source"] for c in cells if c["cell_type"] == "markdown"]
        text = "\n".join("".join(source) for source in prose)
        yield path.relative_to(root).as_posix(), text


def main():
    """Prints what was found; returns the exit code."""
    found = [line for name, text in texts() for line in findings(name, text)]
    print("\n".join(found), end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
