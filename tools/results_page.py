"""Writes what follows from the results into README.md and docs/results.md.

```
python -m tools.results_page          # writes them
python -m tools.results_page --check  # exits with 1 if a file says otherwise
```
"""

import re
import sys

from common.presets import ROOT
from tools import pages


def fill(readme, blocks):
    """Replaces what stands between `<!-- name -->` and `<!-- /name -->`.

    Args:
        readme: str.
        blocks: Dict from a name to the new text.

    Returns:
        The new text.

    Raises:
        ValueError: If there is no such block.
    """
    for name, text in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        block = re.compile(f"(?<={begin}).*?(?={end})", re.DOTALL)
        readme, found = block.subn(lambda _, text=text: text, readme)
        if not found:
            raise ValueError(f"README.md has no <!-- {name} --> block")
    return readme


def contents(root=ROOT):
    """Makes the files that follow from the results.

    Args:
        root: Folder of the questions.

    Returns:
        Dict from a path to its text.
    """
    readme, templates = root / "README.md", root / "docs" / "templates"

    def filled(name):
        return pages.render((templates / name).read_text("utf-8"), root)

    blocks = {"findings": filled("leads.md"), "results": filled("tables.md")}
    return {
        readme: fill(readme.read_text("utf-8"), blocks),
        root / "docs" / "results.md": filled("results.md"),
    }


def main(argv=None, root=ROOT):
    """Writes what follows from the results, or checks it; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        new = contents(root)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    code = 0
    for path, text in new.items():
        if "--check" not in argv:
            path.write_text(text, "utf-8")
        elif not path.exists() or path.read_text("utf-8") != text:
            print(
                f"error: {path.name} disagrees with the results; "
                "python -m tools.results_page writes what follows from them",
                file=sys.stderr,
            )
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
