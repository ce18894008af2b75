"""Checks that what is published comes from one full run of the code as it is.

```
python -m tools.freshness
```

A notebook that is published carries a stamp: a digest of the code and of the outputs
of every cell, and of the results file that its run wrote.
"""

import hashlib
import json
import sys

import nbformat

from common import digest
from common.presets import ROOT


def find_notebooks(question=None, root=ROOT):
    """Returns the paths of the notebooks, of one question or of all, in order."""
    return sorted(root.glob(f"{question or 'q*_*'}/*.ipynb"))


def is_executable(cell):
    """Tells whether a cell is one that gets an execution count."""
    return cell.cell_type == "code" and bool(cell.source.strip())


def stamp(notebook, results):
    """Makes the stamp of a notebook that was executed in the full preset.

    It has the digests of `results`, the content of the results file that the notebook
    wrote, and of the code and the outputs of each cell, by the cell's id.
    """
    cells = {
        cell.id: [_digest(cell.source), _digest(_outputs(cell))]
        for cell in filter(is_executable, notebook.cells)
    }
    return {"cells": cells, "results": _digest(_published(results))}


def notebook_problems(path):
    """Lists what in a notebook or its results is not from one full run."""
    question = path.parent.name
    try:
        text = (path.parent / "results" / "results.json").read_text("utf-8")
        results = json.loads(text)
    except FileNotFoundError:
        return [f"{question} has no results: run its notebook in full"]
    except ValueError:
        return [f"{question} has a results.json that is damaged"]
    if results.get("preset") != "full":
        return [f"{question} has results of the {results.get('preset')} preset"]
    notebook = nbformat.read(path, as_version=4)
    published = notebook.metadata.get("executed", {})
    if "cells" not in published:
        return [f"{path.name} has not been published by a full run"]
    found = stamp(notebook, results)
    problems = []
    for number, cell in enumerate(filter(is_executable, notebook.cells), 1):
        code, outputs = published["cells"].get(cell.id, (None, None))
        same_code = found["cells"][cell.id][0] == code
        wrong = "its outputs are not those" if same_code else "its code is not that"
        if [code, outputs] != found["cells"][cell.id]:
            first = cell.source.splitlines()[0]
            problems.append(
                f"{path.name}, code cell {number} ({first!r}): {wrong} of the full run"
            )
    missing = len(set(published["cells"]) - set(found["cells"]))
    if missing:
        problems.append(f"{path.name} lacks {missing} cells of the full run")
    if published["results"] != found["results"]:
        problems.append(f"{path.name} and results.json are not of the same run")
    return problems


def find_problems(root=ROOT):
    """Lists, over all questions, what is not from one full run of the code as it is."""
    problems = []
    for path in find_notebooks(root=root):
        found = notebook_problems(path)
        if not found:
            text = (path.parent / "results" / "results.json").read_text("utf-8")
            code = json.loads(text).get("module_sha256")
            if code != digest.code_sha256(path.parent.name):
                name = path.parent.name
                found = [f"{name} has changed since its notebook was run in full"]
        problems += found
    return problems


def _published(results):
    return [results.get(key) for key in ("preset", "data", "seeds", "metrics")]


def _outputs(cell):
    """Returns the outputs of a cell without what an editor may add to them."""
    return [
        [output.output_type, output.get("text"), output.get("data")]
        for output in cell.outputs
    ]


def _digest(content):
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main():
    """Prints the problems; returns the exit code."""
    problems = find_problems()
    print("\n".join(problems) or "everything published is from full runs of this code")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
