"""Builds the site: a front page, the notebooks with their code folded, the answers.

```
python -m tools.site  # into build/site/, which needs no server and no network
```
"""

import re
import shutil
import sys

import nbformat

from common.presets import ROOT
from tools import pages
from tools.freshness import find_notebooks, notebook_problems

DOCS = ROOT / "docs"
TEXTS = ("answers/answers.en.md", "answers/answers.he.md", "docs/checklist.md")
FIGURE = re.compile(r"!\[[^]]*\]\((?:\.\./)?([^)]*)\)")
BADGE = re.compile(r"\[!\[Open in Colab\]\(.*?\)\]\((.*?)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def write_source(folder, root=ROOT):
    """Writes what Sphinx builds the site from into a folder, emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    notebooks = find_notebooks(root=root)
    for path in notebooks:
        target = folder / path.relative_to(root)
        target.parent.mkdir()
        nbformat.write(page(nbformat.read(path, as_version=4)), target)
    templates = root / "docs" / "templates"
    grid, table = (
        pages.render((templates / name).read_text("utf-8"), root)
        for name in ("grid.md", "tables.md")
    )
    names = [path.relative_to(root).as_posix() for path in notebooks] + [*TEXTS]
    index = pages.render(
        (templates / "index.md").read_text("utf-8"),
        root,
        grid=grid,
        table=table,
        pages=[name.rpartition(".")[0] for name in names],
    )
    texts = {name: (root / name).read_text("utf-8") for name in TEXTS}
    for name, text in (texts | {"index.md": index}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")
        for figure in FIGURE.findall(text):
            (folder / figure).parent.mkdir(exist_ok=True)
            shutil.copy(root / figure, folder / figure)


def page(notebook):
    """Changes an executed notebook into a page, and returns it.

    Its code is folded, the badge, an image from elsewhere, becomes a link, and a figure
    keeps the text that it was saved with.
    """
    notebook.cells[0].source = BADGE.sub(
        r"[Open in Colab](\1)", notebook.cells[0].source
    )
    heading, cells = "", []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            headings = HEADING.findall(cell.source)
            heading = headings[-1] if headings else heading
            continue
        cell.metadata["tags"] = ["hide-input"]
        described, outputs, cell.outputs = [], cell.outputs, []
        for output in outputs:
            if "image/png" in output.get("data", {}):
                # A figure that a slider moves is not saved.
                alt = output.metadata.get("image/png", {}).get("alt")
                described.append(alt or f"figure of the section {heading}")
                if len(described) > 1:  # a cell has but one text
                    cells.append(nbformat.v4.new_code_cell())
                    cells[-1].metadata["tags"] = ["remove-input"]
                cells[-1].metadata["mystnb"] = {"image": {"alt": described[-1]}}
            cells[-1].outputs.append(output)
    notebook.cells = cells
    return notebook


def anchor(heading):
    """Returns the anchor that Jupyter gives a heading, for links inside a notebook."""
    return heading.replace(" ", "-")


def main():
    """Builds the site; returns the exit code."""
    try:
        from sphinx.cmd.build import build_main
    except ImportError:
        print("error: pip install -e .[site] first", file=sys.stderr)
        return 1
    problems = [text for path in find_notebooks() for text in notebook_problems(path)]
    if problems:
        lines = "\n".join(problems)
        print(f"error: the site was not built:\n{lines}", file=sys.stderr)
        return 1
    source, site = ROOT / "build" / "site-source", ROOT / "build" / "site"
    shutil.rmtree(site, ignore_errors=True)
    write_source(source)
    options = ["-q", "-W", "--keep-going", "-d", f"{source}-cache", "-c", str(DOCS)]
    code = build_main([*options, str(source), str(site)])
    if code == 0:
        print(f"the site is {site / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
