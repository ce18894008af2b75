"""Fills README.md, docs/results.md and the written answers from the results.

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

    def filled(name, **options):
        return pages.render((templates / name).read_text("utf-8"), root, **options)

    blocks = {"findings": filled("grid.md"), "results": filled("tables.md")}
    files = {
        readme: fill(readme.read_text("utf-8"), blocks),
        root / "docs" / "results.md": filled("results.md"),
    }
    for language, isolate in pages.LANGUAGES.items():
        name = f"answers.{language}.md"
        text = filled(name, isolate=isolate, video="")
        files[root / "answers" / name] = readable(text, isolate)
    return files


def readable(text, right_to_left):
    """Changes a text for Pandoc into one to read in the repository."""
    title, subtitle = re.search(r"title: (.+)\nsubtitle: (.+)\n", text).groups()
    heading = f"# {title}: {subtitle}\n"
    text = re.sub(r"\A---\n.*?\n---\n", heading, text, flags=re.DOTALL)
    text = re.sub(r"\]\((?=q\d_)", "](../", text)  # figures lie next to the notebooks
    if not right_to_left:
        return text
    code = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    text = code.sub(r'<div dir="ltr">\n\n\g<0>\n\n</div>', text)
    return f'<div dir="rtl">\n\n{text}\n</div>\n'


def main(root=ROOT):
    """Writes what follows from the results."""
    for path, text in contents(root).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
