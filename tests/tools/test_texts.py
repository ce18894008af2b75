"""README.md, docs/ and answers/: short enough, and every link leads somewhere."""

import re

import pytest

from tools.pages import ROOT

TEXTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "answers").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_link_inside_the_repository_is_dead(path):
    for link in LINK.findall(path.read_text("utf-8")):
        if not link.startswith(("http", "#")):
            assert (path.parent / link.partition("#")[0]).exists(), link


def test_the_front_page_is_short_and_leads_to_everything():
    text = (ROOT / "README.md").read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) <= 120
    for name in ("answers.en.md", "answers.he.md"):
        assert f"(answers/{name})" in "\n".join(lines[:10])
    for folder in sorted(ROOT.glob("q*_*")):
        assert f"]({folder.name}/results/" in text  # a figure
        assert re.search(rf"\]\({folder.name}/\w+\.ipynb\)", text)


def test_the_checklist_names_modules_that_are_there():
    text = (ROOT / "docs" / "checklist.md").read_text("utf-8")
    folder, found = None, []
    for line in text.splitlines():
        question = re.search(r"\]\(\.\./(q\d_\w+)/", line)
        folder = ROOT / question[1] if question else folder
        for name, symbol in re.findall(r"`(\w+\.py)`(?:: `(\w+))?", line):
            module = (folder / name).read_text("utf-8")
            assert re.search(rf"^(class|def) {symbol}", module, re.MULTILINE), line
            found.append(name)
    assert len(found) >= 20
