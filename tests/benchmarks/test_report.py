"""benchmarks/report.py and bench_workers.py: one page from what was measured."""

import json

import matplotlib.pyplot as plt
import pytest

from benchmarks import bench_sweep, bench_workers, report, timing

RATIO = {"median": 2.0, "min": 1.5, "max": 2.5}
Q1_NAMES = ("ours_xla", "ours", "stock_xla", "stock", "torch")
Q2_NAMES = ("ResetRNN", "RNN(ResetCell)", "SimpleRNN", "GRU", "LSTM", "PyTorch GRU",
            "PyTorch reset cell")  # fmt: skip
Q3_NAMES = ("inverse", "plain", "PyTorch inverse", "PyTorch plain")


@pytest.fixture
def found():
    """What the benchmarks of the four questions write, with made-up numbers."""
    ratios = dict.fromkeys(
        ("stock_over_ours", "torch_over_ours", "speedup", "gru_over_reset",
         "reset_over_simple",
         "cell_over_reset", "torch_cell_over_reset", "torch_gru_over_reset",
         "torch_over_inverse"), RATIO,
    )  # fmt: skip
    q1 = [
        {
            "T": T,
            "t": t,
            "ideal_speedup": 2.8,
            "milliseconds": dict.fromkeys(Q1_NAMES, T),
        }
        for T in (32, 512)
        for t in (None, 16)
    ]
    q2 = [
        {"T": 256, "xla": xla, "milliseconds": dict.fromkeys(Q2_NAMES, 5)}
        for xla in (False, True)
    ]
    q3 = [
        {"kind": kind, "xla": xla, "epoch_seconds": dict.fromkeys(Q3_NAMES, 4.68)}
        for kind in ("dense", "conv")
        for xla in (0, 1)
    ]
    return [
        {
            "rows": [row | ratios for row in q1],
            "memory": [
                {"T": 512, "t": t, "mebibytes": dict.fromkeys(Q1_NAMES, 9.0)}
                for t in (None, 16)
            ],
        },
        {
            "rows": [row | ratios for row in q2],
            "units": [
                {"units": units, "milliseconds": dict.fromkeys(Q2_NAMES, units)}
                for units in (32, 64)
            ],
            "memory": [{"T": 256, "mebibytes": dict.fromkeys(Q2_NAMES, 8.0)}],
        },
        {
            "rows": [row | ratios for row in q3],
            "images": [
                {"kind": kind, "images": n, "milliseconds": dict.fromkeys(Q3_NAMES, n)}
                for kind in ("dense", "conv")
                for n in (8, 32)
            ],
            "memory": [
                {"kind": kind, "mebibytes": dict.fromkeys(Q3_NAMES, 7.0)}
                for kind in ("dense", "conv")
            ],
        },
        {
            "tokens": 92_000,
            "tokens_per_second": {
                "ours": 20_000.0,
                "naive": 10_000.0,
                "PyTorch": 8_000.0,
            },
            "vs_naive": RATIO,
            "vs_torch": RATIO,
            "mebibytes": {"ours": 700.0, "naive": 900.0, "PyTorch": None},
            "scaling": {
                "tokens of a batch": [
                    {
                        "tokens": tokens,
                        "tokens_per_second": {"ours": 20_000.0, "PyTorch": 10_000.0},
                    }
                    for tokens in (1_024, 4_096)
                ]
            },
        },
    ]


@pytest.fixture
def workers(monkeypatch):
    """Two workers take half as long again as one, and share a batch."""
    monkeypatch.setattr(timing, "CORES", 2)

    def run_workers(how, workers, tokens, steps):
        assert steps == 5
        return tokens / (1_500.0 if workers == 2 else 1_000.0), 250_000

    monkeypatch.setattr(bench_workers, "run_workers", run_workers)
    return bench_workers.measure({"rounds": 3, "steps": 5}) | {"rounds": 3}


@pytest.fixture
def runs(monkeypatch):
    """On Ray, two cores take .6 of the time of one run after the other."""
    called = []

    def time_runs(steps, address):
        called.append((steps, address))
        return 6.0 if address else 10.0

    monkeypatch.setattr(bench_sweep, "time_runs", time_runs)
    measured = bench_sweep.measure({"rounds": 2, "steps": 7})
    assert called[1:] == [(7, None), (7, "local")] * 2
    return measured | {"rounds": 2, "cores": 2}


def test_every_question_is_beside_its_peers(found):
    rows = report.comparisons(*found)
    assert {row["question"] for row in rows} == {1, 2, 3, 4}
    (simple,) = [row for row in rows if row["peer"] == "SimpleRNN"]
    assert simple["ratio"] == {"median": 0.5, "min": 0.4, "max": pytest.approx(2 / 3)}
    assert all(row["ratio"] == RATIO for row in rows if row is not simple)
    (cut,) = [row for row in rows if row["peer"] == "ours, full"]
    assert (cut["counted"], cut["work"]) == (2.8, "512 tokens, t = 16")
    (dense, conv) = [row for row in rows if row["question"] == 3]
    assert dense["time"] == conv["time_of_peer"] == pytest.approx(10)
    (naive,) = [row for row in rows if row["peer"] == "naive"]
    assert (naive["memory"], naive["memory_of_peer"]) == (700.0, 900.0)
    table = timing.table(report.COLUMNS, rows, report.TITLES)
    times = "4600.0 | 11500.0 | 2.00 (1.50 to 2.50)"
    assert f"| 4 | 92,000 tokens | PyTorch | {times} | 1 | 700.0 |  |" in table


def test_costs_have_a_panel_for_each_question(found):
    figure = report.plot_costs(*found)
    sizes = [axes.get_xlabel() for axes in figure.axes]
    assert [text.split()[0] for text in sizes] == [
        "tokens",
        "units",
        "images",
        "tokens",
    ]
    ours, peer = figure.axes[3].get_lines()
    assert ours.get_ydata() == pytest.approx([51.2, 204.8])
    assert peer.get_ydata() == pytest.approx([102.4, 409.6])
    plt.close(figure)


def test_workers_are_compared_with_fit_in_the_same_round(workers):
    rows = {(r["how"], r["workers"], r["tokens"]): r for r in workers["rows"]}
    tokens = bench_workers.TOKENS
    assert rows["fit", 1, tokens]["tokens_per_second"] == pytest.approx(1_000)
    assert rows["workers", 2, tokens]["over_fit"]["median"] == pytest.approx(1.5)
    assert rows["workers", 2, 2 * tokens]["over_fit"]["max"] == pytest.approx(1.5)
    assert "| workers | 2 | 4096 |" in bench_workers.report(workers)


def test_runs_on_ray_are_compared_with_runs_in_turn(runs):
    plain, on_ray = runs["rows"]
    assert plain["over_plain"]["median"] == 1.0
    assert on_ray["over_plain"]["median"] == pytest.approx(10 / 6)
    assert f"| {bench_sweep.RUNS} | 6.00 | 1.67 (1.67" in bench_sweep.report(runs)


def test_estimates_follow_from_what_was_measured(
    found, workers, runs, tmp_path, monkeypatch
):
    record = {"tokens": 2_000, "sentences": 100}
    (tmp_path / "record.json").write_text(json.dumps(record))
    for number in (1, 2):
        results = tmp_path / f"q{number}" / "results" / "results.json"
        results.parent.mkdir(parents=True)
        about = {"wall_seconds": 1_800, "runs": 6, "longest_run_seconds": 60.0 * number}
        results.write_text(json.dumps(about))
    monkeypatch.setattr(report, "RECORD", tmp_path / "record.json")
    monkeypatch.setattr(report.experiment, "ROOT", tmp_path)
    paper = report.on_paper(found[-1], workers, runs)
    assert paper["hours"] == pytest.approx(1.0)
    assert (paper["runs"], paper["longest"]) == (12, pytest.approx(2.0))
    assert paper["days"] == pytest.approx(1e9 * 20 / 20_000 / 86_400)
    assert paper["sweep_efficiency"] == pytest.approx(10 / 12)
    assert paper["efficiency"] == pytest.approx(0.75)
    assert paper["spread"] == pytest.approx(paper["days"] / 75)
    assert paper["megabytes"] == pytest.approx(1.0)


def test_the_page_is_that_of_the_results():
    text = (report.FOLDER / "README.md").read_text("utf-8")
    assert text == report.page(*report.load_results())
