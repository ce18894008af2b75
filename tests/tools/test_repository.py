"""tools/repository.py: one address, in every place that needs it."""

from tools import repository


def test_repository_address_is_changed_everywhere(tmp_path):
    (tmp_path / "q0_toy").mkdir()
    files = ["pyproject.toml", "README.md", "q0_toy/toy.ipynb"]
    contents = [
        '[tool.assignment14]\nrepository = "owner/name"\n',
        "[badge](https://colab.research.google.com/github/owner/name/blob/main/)",
        '{"source": "https://github.com/owner/name"}',
    ]
    for file, content in zip(files, contents, strict=True):
        (tmp_path / file).write_text(content)
    assert repository.main(["new-owner/new.name"], tmp_path) == 0
    assert repository.address(tmp_path) == "new-owner/new.name"
    for file, content in zip(files, contents, strict=True):
        expected = content.replace("owner/name", "new-owner/new.name")
        assert (tmp_path / file).read_text() == expected


def test_malformed_repository_address_changes_nothing(tmp_path, capsys):
    assert repository.main(["https://github.com/owner/name"], tmp_path) == 2
    assert "owner/name" in capsys.readouterr().err


def test_readme_and_notebooks_hold_the_address():
    address = repository.address()
    for path in repository.files_with_address():
        assert address in path.read_text("utf-8"), path
