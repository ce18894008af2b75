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
from common import plots, presets
from q4_denoise_text.published import RECORD

FOLDER = Path(__file__).parent
MACHINES, SENTENCES = 100, 1_000_000_000
COLUMNS = {
    "time": "ms, ours",
    "time_of_peer": "ms, its",
    "ratio": "its time / ours",
    "counted": "by counting",
    "memory": "MiB, ours",
    "memory_of_peer": "MiB, its",
}
TITLES = {"question": "question", "work": "work", "beside": "peer"}
TEXT = """# Speed, memory and scale

`make bench` runs what stands here, one benchmark after the other on one machine (about an hour and a half on two idle cores, by the sum of its parts), and writes this page: {machine}. All of it is on the CPU, with as many threads as there are cores unless it says otherwise. In a round every contestant has its turn; ratios are taken within a round, and given as median (min to max).

{table}

Ours is compiled with XLA. Times are of a training step (question 4: of a pass over the same sentences). Memory is what a step adds at the peak, the compiler's included, each in a process of its own. "By counting" is what the ratio would be if nothing took time but products of matrices, and a step back as much as two forward: 3T/(T + 2t) for the cut, which passes it, as a step back also keeps and reads a state again; 2 for a GRU, which has six of them where the reset cell has three, and 0.67 for an Elman cell, which has two.

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

- **A sweep on {machines} machines** like this one. The {runs} runs behind the published figures, and what is drawn from them, take {hours:.1f} hours one after the other, the longest run {longest:.0f} minutes. They are independent of one another: a question's take {machines} machines little longer than its longest run, and in the same {hours:.1f} hours they repeat all of them from {machines} times as many seeds.
- **Pre-training on a billion sentences.** At {length:.1f} tokens a sentence and {speed:,.0f} tokens a second one pass takes this machine {days:,.0f} days. At the efficiency that two workers have here ({efficiency:.0%} each), {machines} machines take {spread:,.1f} days. That is optimistic: they exchange {megabytes:.0f} MB of gradients at every step, over a network instead of within one machine, and one batch of {batch:,} tokens leaves each but {share:.1f} sentences. Batches that grow with the machines and GPUs come first.
"""  # noqa: E501


def comparisons(q1, q2, q3, q4):
    """Lists the rows of the table, from what each benchmark has written."""
    return [*of_q1(q1), *of_q2(q2), *of_q3(q3), *of_q4(q4)]


def of_q1(found):
    """Lists the rows of question 1: short sentences, long ones, long ones cut."""

    def measured(T, t):
        memory = [used for used in found["memory"] if (used["T"], used["t"]) == (T, t)]
        times = find(found["rows"], T=T, t=t)
        return times, memory[0]["mebibytes"] if memory else {}

    rows = []
    for work, peer, name, of in (
        ("32 tokens, full", "PyTorch", "torch", measured(32, None)),
        ("512 tokens, full", "stock Keras", "stock", measured(512, None)),
        ("512 tokens, full", "PyTorch", "torch", measured(512, None)),
        ("512 tokens, t = 16", "PyTorch", "torch", measured(512, 16)),
    ):
        times, memory = of
        names = "ours_xla", "stock_xla" if name == "stock" else name
        ratio = times[f"{name}_over_ours"]
        rows.append(row(1, work, peer, ratio, times["milliseconds"], memory, *names, 1))
    (full, memory_full), (cut, memory_cut) = measured(512, None), measured(512, 16)
    times = {
        "full": full["milliseconds"]["ours_xla"],
        "cut": cut["milliseconds"]["ours_xla"],
    }
    memory = {"full": memory_full["ours_xla"], "cut": memory_cut["ours_xla"]}
    beside = "512 tokens, t = 16", "ours, full", cut["speedup"], times, memory
    rows.append(row(1, *beside, "cut", "full", cut["ideal_speedup"]))
    return rows


def of_q2(found):
    """Lists the rows of question 2, by how many products of matrices a step takes."""
    measured, memory = (
        find(found["rows"], T=256, xla=True),
        find(found["memory"], T=256),
    )
    times, used = measured["milliseconds"], memory["mebibytes"]
    peers = {
        "SimpleRNN": (inverse(measured["reset_over_simple"]), 2 / 3),
        "GRU": (measured["gru_over_reset"], 6 / 3),
        "RNN(ResetCell)": (measured["cell_over_reset"], 1),
        "PyTorch reset cell": (measured["torch_cell_over_reset"], 1),
        "PyTorch GRU": (measured["torch_gru_over_reset"], 6 / 3),
    }
    return [
        row(2, "256 tokens", peer, ratio, times, used, "ResetRNN", peer, counted)
        for peer, (ratio, counted) in peers.items()
    ]


def of_q3(found):
    """Lists the rows of question 3, with the inversion terms."""
    rows = []
    for kind in bench_q3.KINDS:
        measured = find(found["rows"], kind=kind, xla=True)
        ratio, steps = measured["torch_over_inverse"], bench_q3.STEPS_IN_EPOCH
        times = {n: 1e3 * s / steps for n, s in measured["epoch_seconds"].items()}
        used = find(found["memory"], kind=kind)["mebibytes"]
        names = "inverse", "PyTorch inverse"
        work = f"128 images, {kind}"
        rows.append(row(3, work, "PyTorch", ratio, times, used, *names, 1))
    return rows


def of_q4(found):
    """Lists the rows of question 4."""
    times = {
        name: 1e3 * found["tokens"] / speed
        for name, speed in found["tokens_per_second"].items()
    }
    work, used = f"{found['tokens']:,} tokens", found["mebibytes"]
    return [
        row(4, work, "naive", found["vs_naive"], times, used, "ours", "naive"),
        row(4, work, "PyTorch", found["vs_torch"], times, used, "ours", "PyTorch", 1),
    ]


def find(rows, **values):
    """Returns the row that has these values."""
    (found,) = [
        r for r in rows if all(r[key] == value for key, value in values.items())
    ]
    return found


def inverse(ratio):
    """Returns the ratio the other way round."""
    return {
        "median": 1 / ratio["median"],
        "min": 1 / ratio["max"],
        "max": 1 / ratio["min"],
    }


def row(question, work, peer, ratio, times, memory, ours, theirs, counted=None):
    """Makes a row of the table; `times` and `memory` are dicts by contestant."""
    return {
        "question": question,
        "work": work,
        "peer": peer,
        "time": times[ours],
        "time_of_peer": times[theirs],
        "ratio": ratio,
        "counted": counted,
        "memory": memory.get(ours),
        "memory_of_peer": memory.get(theirs),
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
            name: [
                (found["tokens"], 1e3 * found["tokens"] / speeds[name])
                for found in q4["scaling"]["tokens of a batch"]
                if (speeds := found["tokens_per_second"])
            ]
            for name in ("ours", "PyTorch")
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
        path.parent.parent for path in presets.ROOT.glob("q*/results/results.json")
    ]
    results = [
        json.loads((folder / "results" / "results.json").read_text("utf-8"))
        for folder in questions
    ]
    length = record["tokens"] / record["sentences"]
    speed = q4["tokens_per_second"]["ours"]
    two = find(workers["rows"], workers=2, tokens=bench_workers.TOKENS)
    efficiency = two["over_fit"]["median"] / 2
    faster = find(sweep["rows"], how=bench_sweep.ON_RAY)["over_plain"]["median"]
    days = SENTENCES * length / speed / 86_400
    return {
        "machines": MACHINES,
        "runs": sum(result["runs"] for result in results),
        "hours": sum(result["wall_seconds"] for result in results) / 3600,
        "longest": max(result["longest_run_seconds"] for result in results) / 60,
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
    versions, machine = found[-1]["versions"], found[-1]["machine"]
    names = ("python", "tensorflow", "keras", "torch")
    return TEXT.format(
        machine=f"{machine['processor']}, {versions['device']}, "
        f"{machine['GiB']:.0f} GiB, {machine['system']}, "
        + ", ".join(f"{name} {versions[name]}" for name in names),
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
    about = {key: found[-1][key] for key in ("versions", "machine")}
    results = about | {"rows": comparisons(*found)}
    (FOLDER / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(f"Written: {FOLDER / 'README.md'}")


if __name__ == "__main__":
    main()
