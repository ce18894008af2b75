"""Writes README.md in this folder from the records of the four benchmarks.

Their headlines go among the published results; `python -m tools.results_page` then
renews what quotes them. `make bench` runs the benchmarks first, `python -m
benchmarks.report` does not. The text is docs/templates/benchmarks.md.
"""

import json
from pathlib import Path

import nbformat

from benchmarks import bench_q1, bench_q2, bench_q3, bench_q4, timing
from common import presets
from tools import freshness, pages

PAGE = Path(__file__).with_name("README.md")
BENCHMARKS = (bench_q1, bench_q2, bench_q3, bench_q4)


def page(records):
    """Formats the page.

    Args:
        records: list of the four dicts that the benchmarks wrote.

    Returns:
        The page as Markdown.

    Raises:
        ValueError: If the records come from different processors or versions.
    """
    kinds = [(record["machine"]["processor"], record["versions"]) for record in records]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(
            f"`records` must have one processor and versions. Received: {kinds}"
        )
    runs = {}
    for question, record in enumerate(records, 1):
        runs.setdefault(record["started"], []).append(f"question {question}")
    started = [f"{start} ({', '.join(of)})" for start, of in runs.items()]
    versions, machine = records[0]["versions"], records[0]["machine"]
    packages = [f"{name} {versions[name]}" for name in ("tensorflow", "keras", "torch")]
    parts = [machine["processor"], versions["device"], f"Python {versions['python']}"]
    peaks = [max(record["machine"]["peak_gflops"].values()) for record in records]
    return pages.render(
        (presets.ROOT / "docs" / "templates" / "benchmarks.md").read_text("utf-8"),
        started=" and ".join(started),
        machine=", ".join([*parts, *packages]),
        together=timing.TOGETHER,
        short=timing.SHORT,
        short_4=bench_q4.SHORT,
        block=timing.TORCH_BLOCK,
        rounds=records[0]["rounds"],
        peak=f"{min(peaks):.0f} to {max(peaks):.0f}",
        verdict=verdict(records),
        tables=[record["table"] for record in records],
        sweep=records[1]["sweep"],
        sweep_ratio=timing.show(records[1]["sweep"]["ratio"]),
    )


def verdict(records):
    """Says on which rows ours is slower than the faster PyTorch."""
    rows, slower = 0, []
    for question, record in enumerate(records, 1):
        for row in filter(timing.faster_torch, sum(record["tables"], [])):
            rows += 1
            if timing.torch_ratio(row)["median"] < 1:
                slower.append(
                    f"- question {question}, {row['work']}: "
                    f"{timing.faster_torch(row)} takes "
                    f"{timing.show(timing.torch_ratio(row))} of our time"
                )
    if not slower:
        return f"**Ours is no slower than the faster PyTorch on all {rows} rows.**"
    first = f"**Ours is slower than the faster PyTorch on {len(slower)} of {rows} rows:"
    return "\n".join([f"{first}**\n", *slower])


def read_records():
    """Returns what the four benchmarks wrote last."""
    paths = [presets.ROOT / b.QUESTION / "results/bench.json" for b in BENCHMARKS]
    return [json.loads(path.read_text("utf-8")) for path in paths]


def publish(question, headline, root=presets.ROOT):
    """Puts a headline among the published results of a question.

    Raises:
        ValueError: If results and notebook were not of one full run before.
    """
    (path,) = freshness.find_notebooks(question, root)
    problems = freshness.notebook_problems(path)
    if problems:
        raise ValueError("\n".join(problems))
    results = path.parent / "results" / "results.json"
    content = json.loads(results.read_text("utf-8"))
    content["metrics"] |= headline
    results.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["executed"] = freshness.stamp(notebook, content)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    records = read_records()
    PAGE.write_text(page(records), "utf-8")  # refuses records that do not fit together
    for benchmark, found in zip(BENCHMARKS, records, strict=True):
        publish(benchmark.QUESTION, found["headline"])
