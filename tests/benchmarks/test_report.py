"""benchmarks/report.py: one page from one run."""

import matplotlib.pyplot as plt
import pytest

from benchmarks import report, timing
from benchmarks.timing import EAGER, INDUCTOR, OURS
from tests.benchmarks import make_rows

SIZES = {
    1: [{"batch": 64, "length": T, "t": t} for T in (32, 512) for t in (None, 16)],
    2: [{"batch": batch, "length": 256} for batch in (1, 8)],
    3: [{"kind": kind, "batch": 8} for kind in ("dense", "conv")],
    4: [{"batch": batch, "length": 32} for batch in (1, 8)] + [{"tokens": 500}],
}
HEADLINE = {"speedup_T512_t16": 4.0, "ideal_speedup_T512_t16": 2.8}
HEADLINE |= {"speed_vs_keras_gru_xla": 2.1, "conv_inversion_time": 1.4}
HEADLINE |= {"tokens_per_second_vs_naive": 2.3}
SWEEP = {"runs": 6, "steps": 4000, "one_after_the_other": 50.0, "ray": 40.0}
SWEEP |= {"ratio": {"median": 1.25, "min": 1.2, "max": 1.3}}


def record(question, inductor=0.3):
    seconds = {OURS: [0.1, 0.1], EAGER: [0.4, 0.4], INDUCTOR: [inductor] * 2}
    about = {"question": question}
    sizes = [(f"work {size}", size) for size in SIZES[question]]
    rows = [make_rows(seconds, work=w, size=s, **about) for w, s in sizes]
    rows = sum(rows, [])
    return {
        "started": "2026-01-01 10:00 UTC",
        "versions": {"python": "3.11", "tensorflow": "2", "device": "CPU, 2 cores"},
        "machine": {"processor": "X", "peak_gflops": {"NumPy": 99.0, "Other": 90.0}},
        "rounds": 2,
        "rows": rows,
        "headline": HEADLINE,
        "table": timing.table(rows),
        "sweep": SWEEP,
    }


@pytest.fixture
def records():
    return [record(question) for question in SIZES]


def test_the_page_has_the_tables_and_the_machine(records):
    page = report.page(records)
    assert all(found["table"] in page for found in records)
    assert "X, CPU, 2 cores, Python 3.11" in page
    assert "99 to 99 GFLOP/s" in page
    assert "no slower than the faster PyTorch on all 11 rows" in page
    assert "50.0 s one after the other and 40.0 s with Ray" in page
    assert "1.25 (1.20 to 1.30) times as fast" in page


def test_the_page_names_the_rows_where_ours_is_slower(records):
    records[2] = record(3, inductor=0.05)
    text = report.page(records)
    assert "slower than the faster PyTorch on 2 of 11 rows" in text
    assert "(inductor) takes 0.50 (0.50 to 0.50) of our time" in text


def test_records_of_different_runs_are_refused(records):
    records[3]["started"] = "later"
    with pytest.raises(ValueError, match="one run. Received: .*later"):
        report.page(records)


def test_costs_have_a_panel_per_question(records):
    figure = report.plot_costs(records)
    lines = [
        {line.get_label(): list(line.get_xdata()) for line in axes.get_lines()}
        for axes in figure.axes
    ]
    assert lines[0]["ours, t = 16"] == [32, 512]
    assert lines[1]["faster PyTorch"] == [1, 8]
    assert lines[2]["ours"] == [8]
    assert lines[3]["faster PyTorch"] == [1, 8]
    assert figure.axes[0].get_title() == "Truncation: 4.0 times as fast at 512 tokens"
    plt.close(figure)


def test_all_benchmarks_run_as_one(monkeypatch):
    commands = []
    monkeypatch.setattr(
        report.subprocess, "run", lambda command, **_: commands.append(command)
    )
    report.run_all(quick=True)
    modules = [command[2] for command in commands]
    assert modules == [f"benchmarks.bench_q{number}" for number in range(1, 5)]
    assert len({tuple(command[3:]) for command in commands}) == 1
    assert all(command[-1] == "--quick" for command in commands)


def test_the_page_is_that_of_the_records():
    text = (report.FOLDER / "README.md").read_text("utf-8")
    assert text == report.page(report.read_records())
