"""tools/submission.py: one notebook of several, a ZIP that is always the same."""

import json
import os
import subprocess
import venv
import zipfile

import nbformat
import pytest
from nbformat import v4

from tools import submission
from tools.freshness import find_notebooks

BADGE = "[![Open in Colab](badge.svg)](https://colab.research.google.com/x)\n\n"


def notebook(number):
    """A small executed notebook that is built as the four are."""
    title = f"{BADGE}# Question {number}: why\n\n![a](results/a.png)"
    answer = v4.new_output("execute_result", {"text/plain": "1"}, execution_count=3)
    return v4.new_notebook(
        cells=[
            v4.new_markdown_cell(title, id="a"),
            v4.new_markdown_cell("## Set-up\n\nFinds the repository.", id="b"),
            v4.new_code_cell("# @title Set-up\nimport x", execution_count=1, id="c"),
            v4.new_markdown_cell("## 1. The idea", id="d"),
            v4.new_code_cell("x = 1", execution_count=2, id="e"),
            v4.new_code_cell("x", execution_count=3, outputs=[answer], id="f"),
        ],
    )


@pytest.fixture
def merged():
    questions = {"q1_one": notebook(1), "q2_two": notebook(2)}
    checklist = "# Where\n\n[1](../q1_one/one.ipynb), [all](../answers/answers.en.md)"
    return submission.merge(questions, "<https://video.example>", checklist)


def test_contents_lead_to_every_question(merged):
    sources = [cell.source for cell in merged.cells]
    for anchor, title in {"q1": "Question 1: why", "q2": "Question 2: why"}.items():
        assert f"[{title}](#{anchor})" in sources[0]
        begin = f'<a id="{anchor}"></a>\n\n# {title}'
        assert any(text.startswith(begin) for text in sources)
    assert "<https://video.example>" in sources[0]
    assert "## Where\n\n[1](#q1), [all](answers/answers.en.html)" in sources[0]
    assert not any("badge.svg" in text for text in sources)
    assert any("![a](q2_two/results/a.png)" in text for text in sources)


def test_there_is_one_set_up_and_cells_are_counted_from_top_to_bottom(merged):
    nbformat.validate(merged)
    assert len({cell.id for cell in merged.cells}) == len(merged.cells)
    code = [cell for cell in merged.cells if cell.cell_type == "code"]
    first, *others = [cell.source for cell in code]
    assert "# @title Set-up" in first
    assert others == [submission.RESET, "x = 1", "x"] * 2
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = [output for cell in code for output in cell.outputs]
    assert [output.execution_count for output in shown] == [4, 7]
    assert shown[0].data["text/plain"] == "1"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "b.txt").write_text("b")
    (folder / "inner" / "a.bin").write_bytes(os.urandom(1000))
    return folder


def test_a_zip_has_every_file_and_depends_on_nothing_else(folder, tmp_path):
    submission.pack(folder, tmp_path / "first.zip")
    os.utime(folder / "b.txt", (0, 0))
    (folder / "b.txt").chmod(0o600)
    submission.pack(folder, tmp_path / "second.zip")
    first, second = ((tmp_path / f"{n}.zip").read_bytes() for n in ("first", "second"))
    assert first == second
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    names = ("b.txt", "inner/a.bin")
    assert found == {name: (folder / name).read_bytes() for name in names}


def test_a_zip_that_is_too_large_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "LARGEST", 500)
    with pytest.raises(submission.SubmissionError, match="the ZIP would have"):
        submission.pack(folder, tmp_path / "all.zip")
    assert list(tmp_path.glob("*.zip")) == []


def test_what_is_refused_leaves_no_older_zip(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(submission, "ROOT", tmp_path)
    monkeypatch.setattr(submission, "find_problems", lambda root: ["q1 is stale"])
    zipped = tmp_path / "build" / "submission.zip"
    zipped.parent.mkdir()
    zipped.write_bytes(b"older")
    assert submission.main() == 1
    assert "q1 is stale" in capsys.readouterr().err
    assert not zipped.exists()


@pytest.mark.publish
@pytest.mark.unpacked
def test_the_unpacked_zip_runs_by_itself(tmp_path, monkeypatch):
    # Whether the published results are those of this code does not matter here.
    monkeypatch.setattr(submission, "find_problems", lambda root: [])
    zips = []
    for name in ("first", "again"):
        submission.collect(tmp_path / name)
        submission.pack(tmp_path / name, tmp_path / f"{name}.zip")
        zips.append((tmp_path / f"{name}.zip").read_bytes())
    assert zips[0] == zips[1]
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        archive.extractall(unpacked)
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    variables = {"PRESET", "TFDS_DATA_DIR", "RESULTS_ROOT", "PYTHONPATH"}
    environment = {k: v for k, v in os.environ.items() if k not in variables}

    def run(program, *arguments):
        command = [programs / program, *arguments]
        done = subprocess.run(
            command, cwd=unpacked, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]

    install = ["-m", "pip", "install", "--quiet", "-r", "requirements.txt"]
    run("python", *install, "-c", "constraints.txt")
    run("jupyter", "execute", "--inplace", "assignment14.ipynb")
    for path in find_notebooks():
        results = unpacked / "build" / path.parent.name / "results" / "results.json"
        assert json.loads(results.read_text())["preset"] == "quick"
