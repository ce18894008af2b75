"""Every notebook: the committed copy, and what it does in the quick preset."""

import json

import nbformat
import pytest
from nbformat import v4

from tools import repository, results_page, run_notebooks
from tools.freshness import find_notebooks, is_executable, notebook_problems

NOTEBOOKS = find_notebooks()
ADDRESS = repository.address()

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.parent.name)


def problems(notebook, name, preset):
    """Lists what keeps a notebook, executed in a preset, from being published."""
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


@each_notebook
def test_committed_notebook_is_a_full_run(path):
    notebook = nbformat.read(path, as_version=4)
    assert problems(notebook, name_of(path), "full") == []
    assert notebook_problems(path) == []
    assert list((path.parent / "results").glob("*.png"))


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


ERROR, STDERR = v4.new_output("error"), v4.new_output("stream", name="stderr")


@pytest.mark.parametrize(
    "spoil, problem",
    [
        (lambda nb: nb.cells[2].update(execution_count=3), "top to bottom"),
        (lambda nb: nb.cells[2].update(execution_count=None), "top to bottom"),
        (lambda nb: nb.cells[2].update(outputs=[ERROR]), "error"),
        (lambda nb: nb.cells[2].update(outputs=[STDERR]), "stderr"),
        (
            lambda nb: nb.cells[1].outputs[0].update(text="preset: quick"),
            "preset: full",
        ),
        (lambda nb: nb.metadata.pop("accelerator"), "GPU"),
        (lambda nb: nb.metadata.update(colab={}), "GPU"),
        (lambda nb: nb.cells[0].update(source="Toy"), "title"),
        (lambda nb: nb.cells[2].update(source="import sys"), "set-up"),
    ],
)
def test_a_published_notebook_is_all_right_until_it_is_spoiled(spoil, problem):
    notebook = published()
    assert problems(notebook, "q0_toy/t.ipynb", "full") == []
    spoil(notebook)
    (found,) = problems(notebook, "q0_toy/t.ipynb", "full")
    assert problem in found
