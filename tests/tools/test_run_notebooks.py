"""tools/run_notebooks.py: executes notebooks and says what happens."""

import os
import signal
import subprocess
import sys

import nbformat
import pytest

from tools import run_notebooks


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


def test_a_folder_that_cannot_be_written_is_named(notebook, tmp_path):
    path = notebook("pass")
    (tmp_path / "build").touch()
    with pytest.raises(run_notebooks.NotebookFailure, match="build cannot be written"):
        run(path, tmp_path)


def test_keras_runs_on_tensorflow_whatever_the_cells_import_first(
    notebook, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    path = notebook("import os\nprint(os.environ['KERAS_BACKEND'])")
    assert run(path, tmp_path).cells[1].outputs[0].text == "tensorflow\n"


def test_ctrl_c_ends_with_one_line(notebook, tmp_path):
    path = notebook("print('started')\nimport time\ntime.sleep(60)")
    program = (
        "import sys, pathlib; from tools import run_notebooks\n"
        "run_notebooks.find_notebooks = "
        f"lambda question: [pathlib.Path({str(path)!r})]\n"
        f"sys.exit(run_notebooks.main(['--output', {str(tmp_path / 'build')!r}]))"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=run_notebooks.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while "started" not in runner.stdout.readline():
        assert runner.poll() is None
    os.killpg(runner.pid, signal.SIGINT)  # as a terminal does
    _, errors = runner.communicate(timeout=60)
    assert (runner.returncode, errors.strip().count("\n")) == (130, 0), errors
    assert errors.startswith("\ninterrupted")


def test_results_are_listed_with_their_spread():
    metrics = {"accuracy": {"mean": 0.8193, "std": 0.0041, "n": 5}, "gradient": 0.0}
    assert run_notebooks.result_table(metrics) == (
        "  accuracy  0.8193 ± 0.0041 (5 seeds)\n  gradient  0"
    )


def test_only_full_is_published(capsys):
    with pytest.raises(SystemExit):
        run_notebooks.main(["--in-place"])
    assert "full" in capsys.readouterr().err


def test_unknown_question(capsys):
    assert run_notebooks.main(["--question", "q9_none"]) == 1
    assert "no notebook in q9_none" in capsys.readouterr().err
