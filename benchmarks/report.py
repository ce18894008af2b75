"""Writes README.md, results.json and costs.png beside it, from the last benchmarks.

```
python -m benchmarks.report
```
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib import ticker

from benchmarks import (
    bench_q1,
    bench_q2,
    bench_q3,
    bench_q4,
    bench_steps,
    bench_sweep,
    bench_workers,
    timing,
)
from common import experiment, plots
from q4_denoise_text.published import RECORD

FOLDER = Path(__file__).parent
MACHINES, SENTENCES = 100, 1_000_000_000
COLUMNS = {
    "ratio": "its time / ours",
    "limit": "limit",
    "memory": "MiB, ours",
    "memory_of_peer": "MiB, its",
}
TITLES = {"question": "question", "work": "work", "beside": "peer"}
TEXT = """# Speed, memory and scale

`make bench` runs what stands here, one benchmark after the other on one machine (a bit over an hour on two idle cores), and writes this page: {machine}. All of it is on the CPU, with as many threads as there are cores. In a round every contestant has its turn; ratios are taken within a round, and given as median (min to max).

{table}

Ours is compiled with XLA. Times are of a training step (question 4: of a pass over the same sentences). Memory is what a step adds at the peak, the compiler's included, each in a process of its own. The limit is 3T/(T + 2t), if a step back costs two steps forward.

![Cost against size: time of a training step by sentence length, units, images of a batch, and tokens of a batch](costs.png)

**Once they are large, cost grows in proportion to tokens, units and images; cutting the gradient takes more than three quarters off a long sentence.** The numbers are in `results/bench.json` of each question, and in `steps.json`, `workers.json` and `results.json` here. `make bench Q=q1_tbptt` measures one question again, and `python -m benchmarks.report` writes this page.

## Around the mathematics

`python -m benchmarks.bench_steps`. {steps}

**What surrounds a step is small: no training waits for its input, and none is compiled again after its first pass.** Each row is the training of a notebook beside the same one as it would first be written.

## Several workers, many runs

`python -m benchmarks.bench_workers`. {workers}

**Two workers end with the weights of one (1e-6, tested), and what they add in speed is in the last column.** A core for each, one thread, no XLA, which Keras switches off under `tf.distribute`. One worker shows what the adapter itself costs. `make pretrain WORKERS=2` starts them with Ray Train, here or on the cluster that `RAY_ADDRESS` names; a worker that dies costs at most the epoch it was in (tested).

`python -m benchmarks.bench_sweep`. {sweep}

**On one machine a sweep gains little for runs as small as these, {sweep_efficiency:.0%} of what its cores could give; it is made for more machines.** `make sweep` does so with the runs of a notebook, seeds by settings, over cores or machines; one whose worker dies is repeated, and counted once (tested).

## Faults

| what happens | what is tested | command |
| --- | --- | --- |
| SIGKILL, ten times in a training of each question | weights and history are those of a run without, to the bit | `pytest -m kills` |
| the same seed again | the same weights, to the bit, for each question | `pytest tests/test_kills.py` |
| SIGKILL of a worker that shares batches, or has a run of a sweep | the same weights; the run is repeated and counted once | `pytest tests/test_distributed.py tests/test_sweep.py` |
| 1,000 archives truncated, corrupted, oversized or with paths that escape | read or refused with a clear error, nothing outside the cache | `pytest tests/test_archives.py` |
| any sentences, images, labels and rates (hypothesis) | a result or a `ValueError` that names the argument | `pytest tests/test_inputs.py` |
| disk full, cache that cannot be written, two processes at once, registry gone, NaN | a clear message, files whole | `pytest tests/test_resume.py tests/test_archives.py tests/test_experiment.py` |

## On paper

From the figures above and the recorded times of the full runs:

- **A sweep on {machines} machines** like this one. The published runs take {hours:.1f} hours one after the other. They are independent of one another: {machines} machines repeat all of them from {machines} times as many seeds in the same {hours:.1f} hours.
- **Pre-training on a billion sentences.** At {length:.1f} tokens a sentence and {speed:,.0f} tokens a second one pass takes this machine {days:,.0f} days. At the efficiency that two workers have here ({efficiency:.0%} each), {machines} machines take {spread:,.1f} days. That is optimistic: they exchange {megabytes:.0f} MB of gradients at every step, over a network instead of within one machine, and one batch of {batch:,} tokens leaves each but {share:.1f} sentences. Batches that grow with the machines and GPUs come first.
"""  # noqa: E501


def comparisons(q1, q2, q3, q4):
    """Lists the rows of the table, from what each benchmark has written."""
    full, cut = (find(q1["rows"], T=512, t=t) for t in (None, 16))
    of_full, of_cut = (find(q1["memory"], T=512, t=t)["mebibytes"] for t in (None, 16))
    both = {"full": of_full["ours_xla"], "cut": of_cut["ours_xla"]}
    rows = [
        row(1, "512 tokens, full", "stock Keras", full["stock_over_ours"], of_full,
            "ours_xla", "stock_xla"),
        row(1, "512 tokens, full", "PyTorch", full["torch_over_ours"], of_full,
            "ours_xla", "torch"),
        row(1, "512 tokens, t = 16", "PyTorch", cut["torch_over_ours"], of_cut,
            "ours_xla", "torch"),
        row(1, "512 tokens, t = 16", "ours, full", cut["speedup"], both, "cut", "full",
            cut["ideal_speedup"]),
    ]  # fmt: skip
    found, memory = find(q2["rows"], T=256, xla=True), find(q2["memory"], T=256)
    for peer, key in {
        "GRU": "gru_over_reset",
        "RNN(ResetCell)": "cell_over_reset",
        "PyTorch reset cell": "torch_cell_over_reset",
        "PyTorch GRU": "torch_gru_over_reset",
    }.items():
        used = memory["mebibytes"]
        rows.append(row(2, "256 tokens", peer, found[key], used, "ResetRNN", peer))
    for kind in bench_q3.KINDS:
        ratio = find(q3["rows"], kind=kind, xla=True)["torch_over_inverse"]
        used = find(q3["memory"], kind=kind)["mebibytes"]
        work = f"128 images, {kind}"
        rows.append(row(3, work, "PyTorch", ratio, used, "inverse", "PyTorch inverse"))
    for peer, key in {"naive": "vs_naive", "PyTorch": "vs_torch"}.items():
        work = f"{q4['tokens']:,} tokens"
        rows.append(row(4, work, peer, q4[key], q4["mebibytes"], "ours", peer))
    return rows


def find(rows, **values):
    """Returns the row that has these values."""
    (found,) = [
        r for r in rows if all(r[key] == value for key, value in values.items())
    ]
    return found


def row(question, work, peer, ratio, memory, ours, theirs, limit=None):
    """Makes a row of the table; `memory` is a dict that holds ours and theirs."""
    return {
        "question": question,
        "work": work,
        "peer": peer,
        "ratio": ratio,
        "limit": limit,
        "memory": memory[ours],
        "memory_of_peer": memory[theirs],
    }


def plot_costs(q1, q2, q3, q4):
    """Draws the milliseconds of a training step against size, a panel a question."""
    panels = {
        "tokens of a sentence (question 1)": {
            f"{who}, {'full' if t is None else f't = {t}'}": [
                (found["T"], found["milliseconds"][name])
                for found in q1["rows"]
                if found["t"] == t
            ]
            for who, name in (("ours", "ours_xla"), ("PyTorch", "torch"))
            for t in (None, 16)
        },
        "units (question 2)": {
            name: [
                (found["units"], found["milliseconds"][name]) for found in q2["units"]
            ]
            for name in ("ResetRNN", "SimpleRNN", "GRU", "PyTorch reset cell")
        },
        "images of a batch (question 3, convolutional)": {
            title: [
                (found["images"], found["milliseconds"][name])
                for found in q3["images"]
                if found["kind"] == "conv"
            ]
            for name, title in bench_q3.COLUMNS.items()
        },
        "tokens of a batch (question 4)": {
            "ours": [
                (found["tokens"], 1e3 * found["tokens"] / found["tokens_per_second"])
                for found in q4["scaling"]["tokens of a batch"]
            ]
        },
    }
    figure, all_axes = plt.subplots(2, 2, figsize=(9, 7))
    for axes, (label, lines) in zip(all_axes.flat, panels.items(), strict=True):
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set(xlabel=label, ylabel="a step (ms)", xscale="log", yscale="log")
        axes.set_xticks([size for size, _ in points], [size for size, _ in points])
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend()
    return figure


def on_paper(q4, workers, sweep):
    """Returns the numbers of the last section."""
    record = json.loads(RECORD.read_text("utf-8"))
    questions = [
        path.parent.parent for path in experiment.ROOT.glob("q*/results/results.json")
    ]
    hours = (
        sum(
            json.loads((folder / "results" / "results.json").read_text())[
                "wall_seconds"
            ]
            for folder in questions
        )
        / 3600
    )
    length = record["tokens"] / record["sentences"]
    speed = q4["tokens_per_second"]["ours"]
    two = find(workers["rows"], workers=2, tokens=bench_workers.TOKENS)
    efficiency = two["over_fit"]["median"] / 2
    faster = find(sweep["rows"], how=bench_sweep.ON_RAY)["over_plain"]["median"]
    days = SENTENCES * length / speed / 86_400
    return {
        "machines": MACHINES,
        "hours": hours,
        "sweep_efficiency": faster / sweep["cores"],
        "length": length,
        "speed": speed,
        "days": days,
        "efficiency": efficiency,
        "spread": days / MACHINES / efficiency,
        "megabytes": 4e-6 * workers["weights"],
        "batch": bench_workers.TOKENS,
        "share": bench_workers.TOKENS / MACHINES / length,
    }


def page(found, steps, workers, sweep):
    """Formats the page from what each benchmark has written."""
    versions = found[-1]["versions"]
    names = ("device", "python", "tensorflow", "keras", "torch")
    return TEXT.format(
        machine=", ".join(f"{name} {versions[name]}" for name in names),
        table=timing.table(COLUMNS, comparisons(*found), TITLES),
        steps=bench_steps.report(steps),
        workers=bench_workers.report(workers),
        sweep=bench_sweep.report(sweep),
        **on_paper(found[-1], workers, sweep),
    )


def load_results():
    """Returns the results of the questions' benchmarks, and of the three others."""
    found = [bench.load_results() for bench in (bench_q1, bench_q2, bench_q3, bench_q4)]
    others = (bench_steps, bench_workers, bench_sweep)
    return found, *(timing.load_results(bench.RESULTS) for bench in others)


def main():
    """Writes the three files."""
    found, *others = load_results()
    plots.use_style()
    plot_costs(*found).savefig(FOLDER / "costs.png", metadata={"Software": None})
    (FOLDER / "README.md").write_text(page(found, *others), "utf-8")
    results = {"versions": found[-1]["versions"], "rows": comparisons(*found)}
    (FOLDER / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(f"Written: {FOLDER / 'README.md'}")


if __name__ == "__main__":
    main()
