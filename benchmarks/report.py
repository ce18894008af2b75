"""Runs the benchmarks of all four questions and writes their page.

```
python -m benchmarks.report          # about 40 minutes on two idle cores
python -m benchmarks.report --quick  # few rows, into build/
python -m benchmarks.report --page   # only the page, from the last run
```

The page is README.md in this folder, with the picture costs.png.
"""

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib import ticker

from benchmarks import bench_q1, bench_q2, bench_q3, bench_q4, timing
from common import plots, presets

FOLDER = Path(__file__).parent
BENCHMARKS = (bench_q1, bench_q2, bench_q3, bench_q4)
TITLES = {
    1: "Question 1: recurrent classifier, full and truncated BPTT",
    2: "Question 2: reset cell",
    3: "Question 3: autoencoders with inversion losses",
    4: "Question 4: Transformer denoiser",
}
NOTES = {
    1: "Sentences are full-length, so that padding plays no role. `t` is the number of "
    "steps with gradient. Stock Keras cannot truncate. "
    "At 512 tokens a truncated step is {speedup_T512_t16:.1f} times as fast as a full "
    "one, where the FLOP estimate allows {ideal_speedup_T512_t16:.1f}; the backward "
    "pass also writes and reads every state, which the estimate leaves out.",
    2: '"Ours" is `ResetRNN`, "Keras" is `keras.layers.RNN(ResetCell(...))`. Other '
    "layers do other work: by the FLOP estimate a GRU takes 2 times a reset step, and "
    "an Elman layer (`SimpleRNN`) 0.67 times.",
    3: "The model is a Keras model, so stock Keras is ours without XLA. Other / ours "
    'for "reconstruction only" is what remains without the inversion and rank terms.',
    4: "The model is a Keras model, so stock Keras is ours without XLA. In a pass ours "
    "corrupts the sentences while it trains; PyTorch gets ready-made batches. "
    "The ablation is our own model with all sentences padded to one length and the "
    "softmax at every position.",
}
TEXT = """# Speed and memory

This page is from one run of the benchmarks ({started}{shorter}) on one machine: {machine}. Everything runs on the CPU, with one thread per core.

- **Ours** runs under `fit`, compiled with XLA, with `steps_per_execution={together}` where a step is short (up to {short:,} tokens in questions 1 and 2, 128 images in question 3 and {short_4:,} tokens in question 4). Stock Keras gets the same.
- **PyTorch** is measured eagerly and compiled by `torch.compile` (inductor, static shapes). Recurrences are compiled in blocks of {block} steps. The faster of the two is compared with ours. All take the same steps from the same weights (tested).
- **Times** are milliseconds of a training step, medians of {rounds} rounds. In each round every candidate has its turn. Ratios are taken within a round: median (minimum to maximum).
- **Memory** is how far training steps raise the resident memory of a process above what it was before the model was built, under the same compiler as the times in the row. The first steps, which compile, do not count, but what they leave behind does.
- **GFLOP** is an estimate for a training step: products of matrices and convolutions only, the backward pass twice the forward pass.
- **Share of peak** is GFLOP divided by our time and by the machine's peak, the faster of NumPy and TensorFlow on a float32 product of 2,048 × 2,048 matrices: {peak} GFLOP/s. It is the limit: no step can be faster than its products.

{verdict}

![Time of a training step against its size, one panel per question]({picture})

{tables}

## Many runs at once

{sweep}

## Faults

- A training that is killed resumes and ends with the same bits: `pytest tests/common/test_resume.py`, and ten SIGKILLs for each question in `pytest -m kills`.
- The same seed gives the same weights, bit for bit: `pytest -m kills`.
- A killed worker of a sweep is replaced and its run counts once: `pytest tests/common/test_sweep.py`.
- Bad sentences, images, labels and rates raise a `ValueError` that names the argument: `pytest tests/common/test_inputs.py`.
- A full disk, an unwritable cache, two processes at once or a missing registry give a clear message, and files stay complete: `pytest tests/common`.
"""  # noqa: E501


def page(records):
    """Formats the page.

    Args:
        records: list of the four dicts that the benchmarks wrote.

    Returns:
        The page as Markdown.

    Raises:
        ValueError: If the records come from different runs.
    """
    if len({record["started"] for record in records}) > 1:
        starts = [record["started"] for record in records]
        raise ValueError(f"`records` must come from one run. Received: {starts}")
    versions, machine = records[0]["versions"], records[0]["machine"]
    names = [name for name in ("tensorflow", "keras", "torch") if name in versions]
    peaks = [max(record["machine"]["peak_gflops"].values()) for record in records]
    return TEXT.format(
        started=records[0]["started"],
        shorter=", with fewer rounds and sizes than `make bench` has"
        if records[0]["rounds"] < bench_q1.FULL["rounds"]
        else "",
        machine=f"{machine['processor']}, {versions['device']}, Python "
        f"{versions['python']}, "
        + ", ".join(f"{name} {versions[name]}" for name in names),
        together=timing.TOGETHER,
        short=timing.SHORT,
        short_4=bench_q4.SHORT,
        block=timing.TORCH_BLOCK,
        rounds=records[0]["rounds"],
        peak=f"{min(peaks):.0f} to {max(peaks):.0f}",
        verdict=verdict([row for record in records for row in record["rows"]]),
        picture="costs.png",
        tables="\n\n".join(map(section, TITLES, records)),
        sweep=sweep_text(records[1]["sweep"]),
    )


def verdict(rows):
    """Says on which rows ours is slower than the faster PyTorch."""
    found = [
        row
        for question in TITLES
        for row in timing.faster_torch([r for r in rows if r["question"] == question])
    ]
    slower = [row for row in found if row["ratio"]["median"] < 1]
    if not found:
        return "PyTorch was not installed for this run."
    if not slower:
        return (
            f"**Ours is no slower than the faster PyTorch on all {len(found)} rows.**"
        )
    lines = [
        f"- question {row['question']}, {row['work']}: PyTorch "
        f"({row['peer_compiler']}) takes {timing.show(row['ratio'])} of our time"
        for row in slower
    ]
    share = f"{len(slower)} of {len(found)} rows"
    return "\n".join(
        [f"**Ours is slower than the faster PyTorch on {share}:**\n", *lines]
    )


def section(question, record):
    """Formats the heading, the note and the tables of a question."""
    note = NOTES[question].format(**record["headline"])
    return f"## {TITLES[question]}\n\n{note}\n\n{record['table']}"


def sweep_text(found):
    """Says what `bench_q2.measure_sweep` found."""
    if found is None:
        return "Ray was not installed for this run, so there is no row for it."
    ratio = timing.show(found["ratio"])
    return (
        f"{found['runs']} trainings of question 2 ({found['steps']:,} steps each) take "
        f"{found['one_after_the_other']:.1f} s one after the other and "
        f"{found['ray']:.1f} s with Ray on every core: {ratio} times as fast. One run "
        "alone already uses all cores. `make sweep` does the same with all runs of a "
        "notebook, on this machine or on a cluster."
    )


def plot_costs(records):
    """Draws the milliseconds of a training step against its size, by question."""
    figure, all_axes = plt.subplots(2, 2, figsize=(10, 8))
    for axes, record, (label, select, title) in zip(
        all_axes.flat, records, PANELS, strict=True
    ):
        same = [row for row in record["rows"] if row["comparison"] == "same work"]
        times = [("ours", row["size"], row["milliseconds"]) for row in same]
        times += [
            ("faster PyTorch", row["size"], row["peer_milliseconds"])
            for row in timing.faster_torch(same)
        ]
        lines = {}
        for name, size, milliseconds in times:
            if point := select(size):
                lines.setdefault(name + point[1], {})[point[0]] = milliseconds
        for name, points in lines.items():
            style = "-" if name.startswith("ours") else "--"
            axes.plot(points.keys(), points.values(), style, marker="o", label=name)
        sizes = sorted({size for points in lines.values() for size in points})
        axes.set(xlabel=label, ylabel="a training step (ms)")
        axes.set(xscale="log", yscale="log", title=title.format(**record["headline"]))
        axes.set_xticks(sizes, sizes)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.legend(fontsize="small")
    return figure


def tokens(size):
    """Returns the point of a row on question 1's panel: its place and its line."""
    if size["batch"] == 64:
        return size["length"], "" if size["t"] is None else f", t = {size['t']}"


# Of each panel its label, a function from the size of a row to a point as `tokens`
# does, or None, and the title.
PANELS = [
    (
        "tokens in a sentence (64 sentences)",
        tokens,
        "Truncation: {speedup_T512_t16:.1f} times as fast at 512 tokens",
    ),
    (
        "sentences in a batch (256 tokens)",
        lambda size: (size["batch"], "") if size["length"] == 256 else None,
        "Reset cell: {speed_vs_keras_gru_xla:.1f} times as fast as a GRU",
    ),
    (
        "images in a batch (convolutional)",
        lambda size: (size["batch"], "") if size["kind"] == "conv" else None,
        "Inversion terms: {conv_inversion_time:.1f} times the plain step",
    ),
    (
        "sentences in a batch (32 tokens)",
        lambda size: (size["batch"], "") if size.get("length") == 32 else None,
        "Length buckets: {tokens_per_second_vs_naive:.1f} times as fast",
    ),
]


def run_all(quick):
    """Runs the four benchmarks, each in a process of its own, as one run."""
    started = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    for benchmark in BENCHMARKS:
        command = [sys.executable, "-m", benchmark.__name__, "--started", started]
        command += ["--quick"] if quick else []
        subprocess.run(command, check=True, cwd=presets.ROOT)


def read_records(quick=False):
    """Returns what the four benchmarks wrote last."""
    paths = [timing.record_path(bench.QUESTION, quick) for bench in BENCHMARKS]
    return [json.loads(path.read_text("utf-8")) for path in paths]


def main(argv=None):
    """Runs the benchmarks and writes the page and its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, into build/")
    parser.add_argument("--page", action="store_true", help="do not measure again")
    args = parser.parse_args(argv)
    if not args.page:
        run_all(args.quick)
    records = read_records(args.quick)
    folder = presets.ROOT / "build" / "benchmarks" if args.quick else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    plots.use_style()
    plot_costs(records).savefig(folder / "costs.png", metadata={"Software": None})
    (folder / "README.md").write_text(page(records), "utf-8")
    print(f"Written: {folder / 'README.md'}")


if __name__ == "__main__":
    main()
