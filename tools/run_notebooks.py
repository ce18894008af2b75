"""Executes the notebooks and says where they are.

```
python -m tools.run_notebooks --preset quick --question q1_tbptt --output build
```

The executed notebook and its HTML go to `build/q1_tbptt/`, results and figures to
`build/q1_tbptt/results/`. With `--in-place`, for the published run, the notebook takes
the place of the one in the repository, with a stamp (see `tools.freshness`), and the
results go next to it.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from nbconvert import HTMLExporter

from common.presets import ROOT
from common.results import show
from tools.freshness import find_notebooks, is_executable, stamp


class NotebookFailure(Exception):
    """A notebook that did not run to its end; says which cell failed, and why."""


class ThisPython(AsyncKernelManager):
    """Runs kernels under this interpreter, whatever kernels the user has installed."""

    @property
    def kernel_spec(self):
        return KernelSpec(**get_kernel_dict())


class Client(NotebookClient):
    """Executes a notebook and prints what happens, cell by cell and line by line."""

    def __init__(self, notebook, name, **options):
        super().__init__(
            notebook,
            on_cell_start=self.note_heading,
            on_cell_execute=self.note_cell,
            coalesce_streams=True,
            record_timing=False,
            kernel_manager_class=ThisPython,
            # What TensorFlow's C++ writes to stderr is no part of the notebook. No
            # setting silences it; the kernel's own stderr, a log file, takes it.
            extra_arguments=["--IPKernelApp.capture_fd_output=False"],
            **options,
        )
        self.name = name
        self.cells = sum(is_executable(cell) for cell in notebook.cells)
        self.count = 0
        self.heading = ""
        self.line = ""
        self.start = time.monotonic()

    def note_heading(self, cell, cell_index):
        if cell.cell_type == "markdown":
            lines = cell.source.splitlines()
            headings = [s.lstrip("# ") for s in lines if s.startswith("#")]
            self.heading = headings[-1] if headings else self.heading

    def note_cell(self, cell, cell_index):
        self.cell = cell
        self.count += 1
        where = f"{self.name} cell {self.count}/{self.cells}"
        print(f"[{self.elapsed()}] {where}  {self.heading}", flush=True)

    def output(self, outs, msg, display_id, cell_index):
        if msg["msg_type"] == "stream":
            self.echo(msg["content"]["text"])
        return super().output(outs, msg, display_id, cell_index)

    def echo(self, text):
        # A progress bar rewrites its line: only what it ends up as is worth a line.
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            print("    | " + line.rstrip("\r").rpartition("\r")[2], flush=True)

    def elapsed(self):
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        return f"{minutes:3d}:{seconds:02d}"


def run_notebook(path, *, preset, output, results_root, timeout=None):
    """Executes a copy of a notebook, as opened in Jupyter from its own folder.

    The copy and its HTML go to the folder `output`, and what the notebook writes to
    `q*_*/results` below `results_root`. No cell may take longer than `timeout` seconds.
    After a failure of a cell, what ran until then has been written.
    """
    notebook = nbformat.read(path, as_version=4)
    client = Client(
        notebook,
        path.parent.name,
        timeout=timeout,
        resources={"metadata": {"path": str(path.parent)}},
    )
    environment = os.environ | {
        "PRESET": preset,
        "RESULTS_ROOT": str(Path(results_root).resolve()),
        "KERAS_BACKEND": "tensorflow",  # for cells that import Keras first
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        with (output / "kernel.log").open("w") as log:
            client.execute(env=environment, stderr=log)
        resources = {"metadata": {"name": path.stem}}
        html, _ = HTMLExporter().from_notebook_node(notebook, resources)
        (output / path.name).with_suffix(".html").write_text(html, "utf-8")
        nbformat.write(notebook, output / path.name)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        with contextlib.suppress(OSError):  # which is not why it failed
            nbformat.write(notebook, output / path.name)
        reason = str(error).splitlines()[0]
        if isinstance(error, CellExecutionError):
            reason = f"{error.ename}: {error.evalue}"
        raise NotebookFailure(
            f"{path.name}, cell {client.count} of {client.cells}, under "
            f"{client.heading!r}:\n\n{client.cell.source}\n\n{reason}"
        ) from error
    except AssertionError as error:
        if client.km is None:  # so nbclient ends after Ctrl-C, which shut the kernel
            raise KeyboardInterrupt from error
        raise
    except OSError as error:
        raise NotebookFailure(
            f"{output} cannot be written ({error.strerror or error}): make room, or "
            "make the folder writable, then run again"
        ) from error
    return notebook


def result_table(metrics):
    """Formats metrics, as `results.json` has them, in a line each."""
    width = max(map(len, metrics), default=0)
    return "\n".join(
        f"  {name:{width}}  {show(value, '.4g', seeds=True)}"
        for name, value in metrics.items()
    )


def report(path, output, results_root):
    """Prints the results of a notebook that ran, and where they are."""
    question = path.parent.name
    executed = output / question / path.name
    results = results_root / question / "results"
    content = json.loads((results / "results.json").read_text("utf-8"))
    print(f"\n{question}")
    print(f"  preset {content['preset']}, data: {content['data']}")
    print(result_table(content["metrics"]))
    print(f"  notebook  {executed}\n  HTML      {executed.with_suffix('.html')}")
    print(f"  figures   {results}")


def parse(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        prog="run_notebooks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--preset", choices=("quick", "full"), default="quick")
    parser.add_argument("--question", help="such as q1_tbptt; all of them by default")
    parser.add_argument("--output", type=Path, default=Path("build"))
    parser.add_argument("--timeout", type=int, help="seconds that one cell may take")
    parser.add_argument("--in-place", action="store_true", help="publish the run")
    options = parser.parse_args(argv)
    if options.in_place and options.preset != "full":
        parser.error("--in-place publishes, and only the full preset is published")
    return options


def main(argv=None):
    """Runs the notebooks that the command line names; returns the exit code."""
    options = parse(argv)
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command runs again from here", file=sys.stderr)
        return 130


def run(options):
    """Runs the notebooks that the options name; returns the exit code."""
    paths = find_notebooks(options.question)
    if not paths:
        print(f"error: no notebook in {options.question or 'q*_*'}", file=sys.stderr)
        return 1
    output = options.output
    results_root = ROOT if options.in_place else output
    for path in paths:
        folder = output / path.parent.name
        try:
            notebook = run_notebook(
                path,
                preset=options.preset,
                output=folder,
                results_root=results_root,
                timeout=options.timeout,
            )
        except NotebookFailure as failure:
            print(f"\nerror: {failure}\n\nas far as it ran: {folder}", file=sys.stderr)
            return 1
        if options.in_place:
            results = path.parent / "results" / "results.json"
            content = json.loads(results.read_text("utf-8"))
            notebook.metadata["executed"] = stamp(notebook, content)
            nbformat.write(notebook, path)
            print(f"published {path.relative_to(ROOT)}")
    for path in paths:
        report(path, output, results_root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
