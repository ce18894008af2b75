"""Writes what follows from the results into README.md and docs/results.md.

```
python -m tools.results_page
```
"""

import re

from common.presets import ROOT
from tools import pages


def fill(readme, blocks):
    """Replaces what stands between `<!-- name -->` and `<!-- /name -->`."""
    for name, text in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        block = re.compile(f"(?<={begin}).*?(?={end})", re.DOTALL)
        readme, found = block.subn(lambda _, text=text: text, readme)
        if not found:
            raise ValueError(f"README.md has no <!-- {name} --> block")
    return readme


def contents(root=ROOT):
    """Makes the files that follow from the results: a dict from path to text."""
    readme, templates = root / "README.md", root / "docs" / "templates"

    def filled(name):
        return pages.render((templates / name).read_text("utf-8"), root)

    blocks = {"findings": filled("leads.md"), "results": filled("tables.md")}
    return {
        readme: fill(readme.read_text("utf-8"), blocks),
        root / "docs" / "results.md": filled("results.md"),
    }


def main(root=ROOT):
    """Writes what follows from the results."""
    for path, text in contents(root).items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
