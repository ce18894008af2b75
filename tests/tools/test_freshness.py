"""tools/freshness.py: what is published comes from one full run of this code."""

import json

import nbformat
import pytest
from nbformat import v4

from tools import freshness, submission

RESULTS = {"preset": "full", "data": "toy", "seeds": [0], "module_sha256": "new"}
RESULTS["metrics"] = {"accuracy": 0.5}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with one question that has been published."""
    answer = v4.new_output("execute_result", {"text/plain": "1"})
    cells = [v4.new_markdown_cell("# One"), v4.new_code_cell("x = 1")]
    cells.append(v4.new_code_cell("x", outputs=[answer]))
    notebook = v4.new_notebook(cells=cells)
    notebook.metadata["executed"] = freshness.stamp(notebook, RESULTS)
    (tmp_path / "q1_one" / "results").mkdir(parents=True)
    nbformat.write(notebook, tmp_path / "q1_one" / "one.ipynb")
    write_results(tmp_path)
    monkeypatch.setattr(freshness.digest, "code_sha256", lambda question: "new")
    return tmp_path


def write_results(root, **changes):
    path = root / "q1_one" / "results" / "results.json"
    path.write_text(json.dumps(RESULTS | changes))


def edit(root, change):
    path = root / "q1_one" / "one.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def test_what_has_been_published_is_fresh(root):
    assert freshness.find_problems(root) == []
    # Prose may change, and what does not tell what was computed.
    edit(root, lambda notebook: notebook.cells[0].update(source="# Once"))
    edit(root, lambda notebook: notebook.cells[2].metadata.update(tags=["hidden"]))
    write_results(root, wall_seconds=1.0)
    assert freshness.find_problems(root) == []


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"preset": "quick"}, "q1_one has results of the quick preset"),
        ({"module_sha256": "old"}, "q1_one has changed since"),
        ({"metrics": {"accuracy": 0.6}}, "one.ipynb and results.json are not of the"),
    ],
)
def test_results_of_another_run_are_named(root, changes, problem):
    write_results(root, **changes)
    (found,) = freshness.find_problems(root)
    assert found.startswith(problem)
    with pytest.raises(submission.SubmissionError, match=problem):
        submission.collect(root / "build", root)
    assert not (root / "build").exists()


def test_results_that_are_missing_or_damaged_are_named(root):
    path = root / "q1_one" / "results" / "results.json"
    path.write_text('{"preset": "fu')
    (found,) = freshness.find_problems(root)
    assert found == "q1_one has a results.json that is damaged"
    path.unlink()
    assert "has no results" in freshness.find_problems(root)[0]


def run_again(notebook):
    notebook.cells[2].outputs[0].data["text/plain"] = "2"


@pytest.mark.parametrize(
    "change, problem",
    [
        (run_again, "code cell 2 ('x'): its outputs are not"),
        (lambda nb: nb.cells[2].outputs.clear(), "code cell 2 ('x'): its outputs"),
        (lambda nb: nb.cells[2].update(source="x + 0"), "2 ('x + 0'): its code is not"),
        (lambda nb: nb.cells.append(v4.new_code_cell("y")), "3 ('y'): its code is not"),
        (lambda nb: nb.cells.pop(1), "lacks 1 cells of the full run"),
        (lambda nb: nb.metadata.pop("executed"), "has not been published by a full"),
    ],
)
def test_a_notebook_that_was_changed_is_refused_by_its_cell(root, change, problem):
    edit(root, change)
    (found,) = freshness.find_problems(root)
    assert found.startswith("one.ipynb") and problem in found
