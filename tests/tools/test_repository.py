"""tools/repository.py: one address, or none, in every place that needs it."""

import nbformat
import pytest
from nbformat import v4

from tools import repository
from tools.freshness import find_notebooks


@pytest.fixture
def root(tmp_path):
    (tmp_path / "q0_toy").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.assignment14]\nrepository = ""\n')
    (tmp_path / "README.md").write_text("<!-- badge -->\n<!-- /badge -->\n")
    cells = [v4.new_markdown_cell("# Toy"), v4.new_code_cell(repository.setup(""))]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "q0_toy" / "toy.ipynb")
    return tmp_path


def contents(root):
    return {path: path.read_text() for path in root.rglob("*.*") if path.is_file()}


def test_an_address_is_written_everywhere_and_removed_again(root):
    before = contents(root)
    for address in ("owner/name", "new-owner/new.name"):
        assert repository.main([address], root) == 0
        assert repository.address(root) == address
        for path, text in contents(root).items():
            assert address in text, path
    first, setup = nbformat.read(root / "q0_toy" / "toy.ipynb", as_version=4).cells
    link = "github/new-owner/new.name/blob/main/q0_toy/toy.ipynb)\n\n# Toy"
    assert first.source.endswith(link)
    assert len(setup.source.splitlines()) <= 6
    assert repository.main([""], root) == 0
    assert contents(root) == before


def test_a_malformed_address_changes_nothing(root, capsys):
    before = contents(root)
    assert repository.main(["https://github.com/owner/name"], root) == 2
    assert "owner/name" in capsys.readouterr().err
    assert contents(root) == before


def test_nothing_links_to_an_address_that_is_not_set():
    address = repository.address()
    for path in [*find_notebooks(), repository.ROOT / "README.md"]:
        text = path.read_text("utf-8")
        assert ("colab.research" in text) == bool(address), path
        assert "owner/" not in text.replace(address or "-", ""), path
