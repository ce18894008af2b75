"""Every notebook: the committed copy, and what it does in the quick preset."""

import json

import nbformat
import pytest

from tools import repository, results_page, run_notebooks
from tools.freshness import find_notebooks, is_executable, notebook_problems

NOTEBOOKS = find_notebooks()
ADDRESS = repository.address()

each_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=[path.parent.name for path in NOTEBOOKS]
)


def problems(notebook, name, preset):
    """Lists what keeps an executed notebook from being published.

    Args:
        notebook: The `nbformat` notebook.
        name: Its path in the repository, such as `"q1_tbptt/tbptt.ipynb"`.
        preset: The preset that it must have been executed in.

    Returns:
        A list of texts, empty if all is well.
    """
    cells = [cell for cell in notebook.cells if is_executable(cell)]
    counts = [cell.execution_count for cell in cells]
    outputs = [output for cell in cells for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs).splitlines()
    first, sources = notebook.cells[0], [cell.source for cell in cells]
    checks = {
        "is not executed from top to bottom": counts == list(range(1, len(cells) + 1)),
        "shows an error": all(o.output_type != "error" for o in outputs),
        "shows stderr": all(o.get("name") != "stderr" for o in outputs),
        f"does not print 'preset: {preset}'": any(
            line.split(" (")[0] == f"preset: {preset}" for line in printed
        ),
        "does not ask for a GPU": notebook.metadata.get("accelerator") == "GPU"
        and "gpuType" in notebook.metadata.get("colab", {}),
        "does not begin with its title or badge": first.cell_type == "markdown"
        and first.source.startswith(repository.badge(ADDRESS, name) + "# "),
        "has another set-up": repository.setup(ADDRESS) in sources,
    }
    return [problem for problem, passed in checks.items() if not passed]


def name_of(path):
    return path.relative_to(run_notebooks.ROOT).as_posix()


def test_there_is_a_notebook():
    assert NOTEBOOKS


@each_notebook
def test_committed_notebook_is_a_full_run(path):
    notebook = nbformat.read(path, as_version=4)
    assert problems(notebook, name_of(path), "full") == []
    assert notebook_problems(path) == []


@each_notebook
def test_committed_results_are_of_a_full_run(path):
    folder = path.parent / "results"
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["preset"] == "full"
    assert list(folder.glob("*.png"))


def test_readme_agrees_with_the_results():
    for path, text in results_page.contents().items():
        assert path.read_text("utf-8") == text, "python -m tools.results_page writes it"


@pytest.mark.notebook
@each_notebook
def test_notebook_runs_in_the_quick_preset(path, tmp_path):
    notebook = run_notebooks.run_notebook(
        path, preset="quick", output=tmp_path, results_root=tmp_path, timeout=900
    )
    assert problems(notebook, name_of(path), "quick") == []
    results = tmp_path / path.parent.name / "results" / "results.json"
    assert json.loads(results.read_text("utf-8"))["preset"] == "quick"


def published():
    """A notebook with which all is well."""
    v4 = nbformat.v4
    title = repository.badge(ADDRESS, "q0_toy/t.ipynb") + "# Toy"
    hello = v4.new_output("stream", name="stdout", text="Hello\npreset: full\n")
    return v4.new_notebook(
        metadata={"accelerator": "GPU", "colab": {"gpuType": "T4"}},
        cells=[
            v4.new_markdown_cell(title),
            v4.new_code_cell("print('Hello')", execution_count=1, outputs=[hello]),
            v4.new_code_cell(repository.setup(ADDRESS), execution_count=2),
        ],
    )


def skip_a_cell(notebook):
    notebook.cells[2].execution_count = 3


def do_not_execute(notebook):
    notebook.cells[2].execution_count = None


def fail(notebook):
    error = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
    notebook.cells[2].outputs = [error]


def warn(notebook):
    noise = nbformat.v4.new_output("stream", name="stderr", text="noise")
    notebook.cells[2].outputs = [noise]


def run_quick(notebook):
    notebook.cells[1].outputs[0].text = "preset: quick\n"


def forget_the_gpu(notebook):
    del notebook.metadata["accelerator"]


def forget_the_gpu_type(notebook):
    notebook.metadata["colab"] = {}


def forget_the_title(notebook):
    notebook.cells[0].source = "Toy"


def set_up_otherwise(notebook):
    notebook.cells[2].source = "import sys"


def test_nothing_is_wrong_with_a_published_notebook():
    assert problems(published(), "q0_toy/t.ipynb", "full") == []


@pytest.mark.parametrize(
    "spoil, problem",
    [
        (skip_a_cell, "top to bottom"),
        (do_not_execute, "top to bottom"),
        (fail, "error"),
        (warn, "stderr"),
        (run_quick, "preset: full"),
        (forget_the_gpu, "GPU"),
        (forget_the_gpu_type, "GPU"),
        (forget_the_title, "title"),
        (set_up_otherwise, "set-up"),
    ],
)
def test_spoiled_notebook_is_found_out(spoil, problem):
    notebook = published()
    spoil(notebook)
    found = problems(notebook, "q0_toy/t.ipynb", "full")
    assert len(found) == 1 and problem in found[0]
