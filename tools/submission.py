"""Packs the submission: one notebook, the written answers, what to say in the video.

```
VIDEO_URL=https://... python -m tools.submission  # into build/submission.zip
```

The notebook runs by itself from the unpacked ZIP, which holds the modules it needs.
Nothing in it depends on when it is packed; the PDF depends on the Chromium that prints.
"""

import importlib
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import nbformat

from common.presets import ROOT
from tools import pages
from tools.freshness import find_notebooks, find_problems, is_executable

LARGEST = 50_000_000  # bytes of the ZIP
SIDES = ("top", "right", "bottom", "left")
MODULES = (
    "LICENSE",
    "requirements.txt",
    "constraints.txt",
    "common/*.py",
    "q*_*/*.py",
    "q*_*/results/*",
)
NO_VIDEO = {
    "en": "**VIDEO LINK MISSING** (set VIDEO_URL and pack again)",
    "he": "**חסר קישור לסרטון** (יש להגדיר `VIDEO_URL` ולארוז שוב)",
}
SETUP = """\
# @title Set-up
import sys
from pathlib import Path

# This notebook lies next to the modules, in the unpacked ZIP. What Colab has
# preinstalled stays as it is.
if "google.colab" in sys.modules and Path("submission.zip").exists():
    !unzip -qo submission.zip
    !pip freeze | grep == | pip install -q -r requirements.txt -c /dev/stdin
import common  # noqa: F401, Keras runs on TensorFlow"""
RESET = """\
%reset -f
from common import results

results.restart()"""
INTRODUCTION = """\
# Deep learning, assignment 14

{contents}

Video: {video}

The outputs are those of the full runs; executed as it is, this notebook repeats them \
in the quick preset, in minutes and on data that comes inside packages. Needed are \
Python 3.11, 3.12 or 3.13 and `pip install -r requirements.txt -c constraints.txt`; on \
Colab, upload `submission.zip` first.

{checklist}"""


class SubmissionError(Exception):
    """Why nothing was packed, one line a reason."""


def merge(notebooks, video, checklist=""):
    """Makes one notebook of several, a dict from a question's name to its notebook.

    It has contents, the link to the video or what stands in its place, a checklist
    with links that lead to the questions, and an anchor for every question. Names and
    clock are cleared between them.
    """
    cells, titles = [], {}
    for question, notebook in notebooks.items():
        anchor = question.partition("_")[0]
        first, *rest = notebook.cells
        text = first.source[first.source.index("# ") :]  # without a badge
        text = text.replace("](results/", f"]({question}/results/")
        titles[anchor] = text.splitlines()[0].lstrip("# ")
        cells.append(nbformat.v4.new_markdown_cell(f'<a id="{anchor}"></a>\n\n{text}'))
        cells.append(nbformat.v4.new_code_cell(RESET))
        cells += [cell for cell in rest if not belongs_to_setup(cell)]
    contents = "\n".join(f"- [{title}](#{a})" for a, title in titles.items())
    checklist = re.sub(r"\.\./(q\d)_\w+/\w+\.ipynb", r"#\1", checklist)
    checklist = re.sub(r"\.\./(answers/answers\.\w\w)\.md", r"\1.html", checklist)
    introduction = INTRODUCTION.format(
        contents=contents, video=video, checklist=checklist.replace("# ", "## ", 1)
    )
    cells = [
        nbformat.v4.new_markdown_cell(introduction),
        nbformat.v4.new_code_cell(SETUP),
        *cells,
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number:03d}"
    for count, cell in enumerate(filter(is_executable, cells), 1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    metadata = next(iter(notebooks.values())).metadata
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def belongs_to_setup(cell):
    """Tells whether a cell finds or installs the repository."""
    return cell.source.startswith(("## Set-up", "# @title Set-up"))


def write_answers(folder, video, root=ROOT):
    """Writes the answers as HTML, one file a language, with all that they show.

    A missing metric is a ValueError, and a missing figure a RuntimeError.
    """
    import pypandoc

    package = importlib.import_module("sphinx-mathjax-offline")
    mathjax = Path(package.__file__).parent / "static" / "mathjax"
    options = [
        "--standalone",
        "--embed-resources",
        "--fail-if-warnings",  # such as a figure that is not there
        f"--mathjax={mathjax / 'tex-svg-full.js'}",
        f"--resource-path={root}",
        f"--css={root / 'docs' / 'answers.css'}",
    ]
    for language in pages.LANGUAGES:
        text = fill(f"answers.{language}.md", language, video, root)
        html = pypandoc.convert_text(text, "html5", "markdown", extra_args=options)
        (folder / f"answers.{language}.html").write_text(html, "utf-8")


def fill(name, language, video, root):
    """Returns a text of `docs/`, filled from the results and with the video's link."""
    text = (root / "docs" / "templates" / name).read_text("utf-8")
    return pages.render(
        text, root, isolate=pages.LANGUAGES[language], video=video[language]
    )


def print_pdf(folder):
    """Prints every HTML file of a folder as PDF, where there is a Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        print("no Chromium was found, so the answers are HTML only")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for path in sorted(folder.glob("*.html")):
            page = browser.new_page()
            page.goto(path.as_uri())
            page.wait_for_function("MathJax.startup?.promise?.then(() => true)")
            pdf = page.pdf(format="A4", margin=dict.fromkeys(SIDES, "2cm"))
            # The time of printing is all that differs from one run to the next.
            dates = rb"(?<=Date \(D:)[^)]*"
            pdf = re.sub(dates, lambda m: b"0" * len(m[0]), pdf)
            path.with_suffix(".pdf").write_bytes(pdf)
        browser.close()


def collect(folder, root=ROOT):
    """Writes everything that is handed in into a folder, emptied first."""
    problems = find_problems(root)
    if problems:
        raise SubmissionError("\n".join(problems))
    shutil.rmtree(folder, ignore_errors=True)
    for path in sorted(p for pattern in MODULES for p in root.glob(pattern)):
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    url = os.environ.get("VIDEO_URL")
    video = dict.fromkeys(pages.LANGUAGES, f"<{url}>") if url else NO_VIDEO
    notebooks = {
        path.parent.name: nbformat.read(path, as_version=4)
        for path in find_notebooks(root=root)
    }
    checklist = (root / "docs" / "checklist.md").read_text("utf-8")
    merged = merge(notebooks, video["en"], checklist)
    nbformat.validate(merged)
    nbformat.write(merged, folder / "assignment14.ipynb")
    (folder / "answers").mkdir()
    write_answers(folder / "answers", video, root)
    print_pdf(folder / "answers")
    (folder / "video").mkdir()
    scripts = [fill(f"video.{name}.md", name, video, root) for name in pages.LANGUAGES]
    (folder / "video" / "script.md").write_text("\n".join(scripts), "utf-8")


def pack(folder, path):
    """Packs a folder into a ZIP that is the same whenever its files are."""
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix())  # dated 1980
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    size = partial.stat().st_size
    if size > LARGEST:
        partial.unlink()
        raise SubmissionError(
            f"the ZIP would have {size / 1e6:.0f} MB, {LARGEST / 1e6:.0f} are allowed"
        )
    os.replace(partial, path)


def main():
    """Packs the submission; returns the exit code."""
    folder = ROOT / "build" / "submission"
    path = ROOT / "build" / "submission.zip"
    path.unlink(missing_ok=True)  # what is refused must not look as if it were packed
    try:
        collect(folder)
        pack(folder, path)
    except (SubmissionError, ValueError, RuntimeError) as error:
        print(f"error: nothing was packed:\n{error}", file=sys.stderr)
        return 1
    if not os.environ.get("VIDEO_URL"):
        print("the link to the video is missing: set VIDEO_URL and pack again")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
