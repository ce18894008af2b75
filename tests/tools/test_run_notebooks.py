"""tools/: the set-up of .venv, the README's table, the runner of notebooks."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from tools import environment, readme_table, run_notebooks

ROWS = {
    "q1_tbptt": [
        ("accuracy", "Accuracy", readme_table.PERCENT),
        ("gradient", "Gradient", readme_table.NUMBER),
        ("speedup", "Speed-up", readme_table.TIMES),
    ]
}
METRICS = {
    "accuracy": {"mean": 0.8193, "std": 0.0041, "n": 5},
    "gradient": 0.0,
    "speedup": 2.714,
}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a README and one question's results."""
    (tmp_path / "q1_tbptt" / "results").mkdir(parents=True)
    write_metrics(tmp_path, METRICS)
    (tmp_path / "README.md").write_text(
        "Before\n\n<!-- findings -->\n<!-- /findings -->\n\n"
        "<!-- results -->\nold\n<!-- /results -->\n\nAfter\n"
    )
    findings = tmp_path / "findings.md"
    findings.write_text("Right: {{ q1_tbptt.accuracy | percent }}.\n")
    monkeypatch.setattr(readme_table, "FINDINGS", findings)
    return tmp_path


def write_metrics(root, metrics):
    path = root / "q1_tbptt" / "results" / "results.json"
    path.write_text(json.dumps({"metrics": metrics}))


def test_table_is_written_and_then_agrees(repository):
    def run(*arguments):
        return readme_table.main(arguments, ROWS, repository)

    assert run("--check") == 1
    assert run() == 0
    assert run("--check") == 0
    text = (repository / "README.md").read_text()
    findings = "<!-- findings -->\nRight: 81.9 %.\n<!-- /findings -->"
    assert text.startswith(f"Before\n\n{findings}\n\n<!-- results -->\n| Question |")
    assert text.endswith("|\n<!-- /results -->\n\nAfter\n")
    assert "| Accuracy | 81.9 % ± 0.4 (n = 5) |" in text
    assert "| Gradient | 0 |" in text
    assert "| Speed-up | 2.71× |" in text
    write_metrics(repository, METRICS | {"speedup": 2.2})
    assert run("--check") == 1


def test_table_names_what_is_missing(repository, capsys):
    write_metrics(repository, {"accuracy": 0.5, "gradient": 0.0})
    assert readme_table.main([], ROWS, repository) == 1
    assert "no metric 'speedup'" in capsys.readouterr().err
    write_metrics(repository, METRICS)
    (repository / "README.md").write_text("no block")
    assert readme_table.main([], ROWS, repository) == 1
    assert "<!-- findings -->" in capsys.readouterr().err


@pytest.fixture
def notebook(tmp_path):
    """Returns a function that writes a notebook of the given cells."""

    def write(*sources):
        new = nbformat.v4.new_notebook()
        new.cells.append(nbformat.v4.new_markdown_cell("## A heading"))
        new.cells += [nbformat.v4.new_code_cell(source) for source in sources]
        path = tmp_path / "q0_toy" / "toy.ipynb"
        path.parent.mkdir()
        nbformat.write(new, path)
        return path

    return write


def run(path, tmp_path, timeout=60):
    return run_notebooks.run_notebook(
        path,
        preset="quick",
        output=tmp_path / "build",
        results_root=tmp_path / "build",
        timeout=timeout,
    )


def test_notebook_runs_here_and_shows_its_progress(notebook, tmp_path, capsys):
    path = notebook(
        "import os, sys\nprint(sys.executable)\nprint(os.getcwd())",
        "print(os.environ['PRESET'], os.environ['RESULTS_ROOT'])",
        "os.write(2, b'noise of a C library')",
    )
    before = path.read_text()
    cells = run(path, tmp_path).cells[1:]
    assert cells[0].outputs[0].text == f"{sys.executable}\n{path.parent}\n"
    assert cells[1].outputs[0].text == f"quick {tmp_path / 'build'}\n"
    assert all(output.get("name") != "stderr" for output in cells[2].outputs)
    assert path.read_text() == before
    assert (tmp_path / "build" / "toy.ipynb").exists()
    assert "A heading" in (tmp_path / "build" / "toy.html").read_text()
    printed = capsys.readouterr().out
    assert "q0_toy cell 2/3  A heading" in printed
    assert f"    | {path.parent}\n" in printed


def test_failing_cell_is_shown_and_the_rest_kept(notebook, tmp_path):
    path = notebook("print('first')", "x = 0\n1 / x", "print('never')")
    with pytest.raises(run_notebooks.NotebookFailure) as caught:
        run(path, tmp_path)
    message = str(caught.value)
    assert "cell 2 of 3, under 'A heading'" in message
    assert "x = 0\n1 / x" in message
    assert message.endswith("ZeroDivisionError: division by zero")
    kept = nbformat.read(tmp_path / "build" / "toy.ipynb", as_version=4)
    assert kept.cells[1].outputs[0].text == "first\n"


def test_dead_kernel_and_slow_cell_are_failures(notebook, tmp_path):
    path = notebook("import os\nos._exit(1)")
    with pytest.raises(run_notebooks.NotebookFailure, match="died"):
        run(path, tmp_path)
    slow = nbformat.read(path, as_version=4)
    slow.cells[1].source = "while True:\n    pass"
    nbformat.write(slow, path)
    with pytest.raises(run_notebooks.NotebookFailure, match="timed out"):
        run(path, tmp_path, timeout=1)


def test_progress_bars_are_echoed_as_they_end(capsys):
    client = run_notebooks.Client(nbformat.v4.new_notebook(), "toy")
    client.echo("1/2\r2")
    client.echo("/2\nnext")
    client.echo("\r\n")
    assert capsys.readouterr().out == "    | 2/2\n    | next\n"


def test_only_full_is_published(capsys):
    with pytest.raises(SystemExit):
        run_notebooks.main(["--in-place"])
    assert "full" in capsys.readouterr().err


def test_unknown_question(capsys):
    assert run_notebooks.main(["--question", "q9_none"]) == 1
    assert "no notebook in q9_none" in capsys.readouterr().err


def install_toy(venv, root):
    """Installs one package, without pip."""
    site = next(venv.glob("lib/python*/site-packages"))
    info = site / "toy-1.0.dist-info"
    info.mkdir()
    (site / "toy.py").write_text("")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "RECORD").write_text("toy.py,,\ntoy-1.0.dist-info/METADATA,,\n")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    venv = tmp_path_factory.mktemp("built") / ".venv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "install", install_toy)
        environment.build(venv, venv.parent, "digest")
    return venv


@pytest.fixture
def venv(built, tmp_path):
    """A virtual environment with one package, to damage."""
    return shutil.copytree(built, tmp_path / ".venv", symlinks=True)


def test_environment_is_ready_once_built(venv):
    assert environment.is_ready(venv, "digest")
    assert not environment.is_ready(venv, "digest of changed requirements")
    assert not environment.is_ready(venv.parent / "none", "digest")


@pytest.mark.parametrize(
    "broken",
    [
        "bin/python",
        "ready.json",
        "lib/python*/site-packages/toy.py",
        "lib/python*/site-packages/toy-1.0.dist-info/RECORD",
        "lib/python*/site-packages/toy-1.0.dist-info/METADATA",
    ],
)
def test_damaged_environment_is_not_ready(venv, broken):
    next(venv.glob(broken)).unlink()
    assert not environment.is_ready(venv, "digest")


def test_half_written_stamp_is_not_ready(venv):
    (venv / "ready.json").write_text('{"requirements": ')
    assert not environment.is_ready(venv, "digest")
    (venv / "ready.json").write_text("{}")
    assert not environment.is_ready(venv, "digest")


def test_anything_in_the_way_is_removed(tmp_path):
    folder, file, link = (tmp_path / name for name in ("folder", "file", "link"))
    (folder / "inner").mkdir(parents=True)
    file.write_text("")
    (tmp_path / "kept").mkdir()
    link.symlink_to(tmp_path / "kept")
    for path in (folder, file, link, tmp_path / "none"):
        environment.remove(path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_python_without_ensurepip_is_one_line(tmp_path, monkeypatch):
    def create(*arguments, **options):
        raise subprocess.CalledProcessError(1, "ensurepip")

    monkeypatch.setattr("venv.create", create)
    with pytest.raises(environment.SetupError, match="apt install") as caught:
        environment.build(tmp_path / ".venv", tmp_path, "digest")
    assert "\n" not in str(caught.value)


def test_failing_pip_is_one_line(tmp_path):
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'ERROR: No matching distribution'; exit 1\n")
    os.chmod(python, 0o755)
    with pytest.raises(environment.SetupError, match="No matching") as caught:
        environment.install(tmp_path / ".venv", tmp_path)
    assert "\n" not in str(caught.value)
