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
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        cells.insert(0, nbformat.v4.new_markdown_cell("## A heading"))
        path = tmp_path / "q0_toy" / "toy.ipynb"
        path.parent.mkdir()
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return write


def run(path, tmp_path, timeout=60):
    build = tmp_path / "build"
    return run_notebooks.run_notebook(
        path, preset="quick", output=build, results_root=build, timeout=timeout
    )


def test_a_notebook_runs_and_shows_progress(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # whatever the cells import first
    path = notebook(
        "import os, sys\nprint(sys.executable)\nprint(os.getcwd())",
        "for name in ('PRESET', 'RESULTS_ROOT', 'KERAS_BACKEND'):\n"
        "    print(os.environ[name])",
        "os.write(2, b'noise of a C library')",
    )
    before = path.read_text()
    cells = run(path, tmp_path).cells[1:]
    assert cells[0].outputs[0].text == f"{sys.executable}\n{path.parent}\n"
    assert cells[1].outputs[0].text == f"quick\n{tmp_path / 'build'}\ntensorflow\n"
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


@pytest.mark.parametrize(
    "source, timeout, reason",
    [("import os\nos._exit(1)", 60, "died"), ("while True:\n    pass", 1, "timed out")],
)
def test_a_dead_kernel_or_slow_cell_fails(notebook, tmp_path, source, timeout, reason):
    with pytest.raises(run_notebooks.NotebookFailure, match=reason):
        run(notebook(source), tmp_path, timeout)


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


def test_ctrl_c_ends_with_one_line(notebook, tmp_path):
    path = notebook("print('started')\nimport time\ntime.sleep(60)")
    program = (
        "import sys, pathlib; from tools import run_notebooks\n"
        f"paths = [pathlib.Path({str(path)!r})]\n"
        "run_notebooks.find_notebooks = lambda question: paths\n"
        f"sys.exit(run_notebooks.main(['--output', {str(tmp_path / 'build')!r}]))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command, cwd = [sys.executable, "-c", program], run_notebooks.ROOT
    runner = subprocess.Popen(command, cwd=cwd, start_new_session=True, **pipes)
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


def test_only_full_and_what_there_is_can_be_run(capsys):
    with pytest.raises(SystemExit):
        run_notebooks.main(["--in-place"])
    assert "full" in capsys.readouterr().err
    assert run_notebooks.main(["--question", "q9_none"]) == 1
    assert "no notebook in q9_none" in capsys.readouterr().err
