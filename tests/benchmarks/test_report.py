"""benchmarks/report.py: one page from all records."""

import json

import pytest

from benchmarks import report, timing
from benchmarks.timing import EAGER, INDUCTOR, OURS
from tests.benchmarks import make_row
from tests.tools.test_freshness import root, write_results  # noqa: F401
from tools import freshness

SWEEP = {"runs": 6, "steps": 4000, "one_after_the_other": 50.0, "ray": 40.0}
SWEEP |= {"ratio": {"median": 1.25, "min": 1.2, "max": 1.3}}
VERSIONS = {"python": "3.11", "device": "CPU, 2 cores"}
VERSIONS |= {"tensorflow": "2", "keras": "3", "torch": "2"}


def record(inductor=0.3):
    seconds = {OURS: [0.1, 0.1], EAGER: [0.4, 0.4], INDUCTOR: [inductor] * 2}
    rows = [make_row(seconds), make_row(seconds, work="batch 9")]
    return {
        "started": "2026-01-01 10:00 UTC",
        "versions": VERSIONS,
        "machine": {"processor": "X", "peak_gflops": {"NumPy": 99.0, "Other": 90.0}},
        "rounds": 2,
        "tables": [rows, [make_row({OURS: [0.1]})]],
        "table": timing.table(rows),
        "sweep": SWEEP,
    }


@pytest.fixture
def records():
    return [record() for _ in range(4)]


def test_the_page_has_the_tables_and_the_machine(records):
    page = report.page(records)
    assert all(found["table"] in page for found in records)
    assert "X, CPU, 2 cores, Python 3.11" in page
    assert "99 to 99 GFLOP/s" in page
    assert "no slower than the faster PyTorch on all 8 rows" in page
    assert "50 s one after the other and 40 s with Ray" in page
    assert "1.25 (1.20 to 1.30) times as fast" in page


def test_the_page_names_the_rows_where_ours_is_slower(records):
    records[2] = record(inductor=0.05)
    page = report.page(records)
    assert "slower than the faster PyTorch on 2 of 8 rows" in page
    share = "PyTorch, inductor takes 0.50 (0.50 to 0.50) of our time"
    assert f"question 3, batch 9: {share}" in page


def test_the_page_names_every_run(records):
    first = "run of 2026-01-01 10:00 UTC (question 1, question 2, "
    assert f"{first}question 3, question 4): X" in report.page(records)
    records[2]["started"] = "later"
    assert f"{first}question 4) and later (question 3)" in report.page(records)


def test_records_of_different_versions_or_processors_are_refused(records):
    kinds = {"versions": VERSIONS | {"keras": "4"}}, {"machine": {"processor": "Y"}}
    for kind in kinds:
        with pytest.raises(ValueError, match="one processor and versions"):
            report.page([*records[:3], records[3] | kind])


def test_the_page_is_that_of_the_records():
    assert report.PAGE.read_text("utf-8") == report.page(report.read_records())


def test_a_headline_joins_what_one_full_run_published(root):  # noqa: F811
    report.publish("q1_one", {"speedup": 2.0}, root)
    published = json.loads((root / "q1_one/results/results.json").read_text())
    assert published["metrics"] == {"accuracy": 0.5, "speedup": 2.0}
    assert freshness.find_problems(root) == []
    write_results(root, metrics={"accuracy": 0.6})
    with pytest.raises(ValueError, match="not of the same run"):
        report.publish("q1_one", {"speedup": 2.0}, root)
