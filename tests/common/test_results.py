"""common/results.py: summaries, tables, results files, cached runs."""

import errno
import json
import math
import multiprocessing
import types

import numpy as np
import pytest

from common import digest, presets, results


def write(**changes):
    arguments = {"data": "toy", "seeds": [0, 1], "metrics": {"accuracy": 0.5}}
    return results.write_results("q1_tbptt", **(arguments | changes))


def test_summarise():
    expected = {"mean": 7 / 3, "std": math.sqrt(7 / 3), "n": 3}
    assert results.summarise(np.array([1.0, 2.0, 4.0])) == pytest.approx(expected)
    assert results.summarise([5]) == {"mean": 5.0, "std": 0.0, "n": 1}
    with pytest.raises(ValueError, match="at least one"):
        results.summarise([])


def test_a_percentage_has_its_spread():
    several, one = [0.83, 0.84, 0.832], {"mean": 0.5, "std": 0.0, "n": 1}
    assert results.percent(0.8316) == "83.2%"
    assert results.percent(several) == "83.4 ± 0.5%"
    assert results.percent(several, seeds=True) == "83.4 ± 0.5% (3 seeds)"
    assert results.percent(one, seeds=True) == "50.0%"


def test_a_table_sets_numbers_to_the_right():
    rows = [["LSTM", 3, "", "83.2 ± 0.4%"], ["", 12, "", "-0.5"]]
    table = results.markdown_table(["cell", "t", "none", "accuracy"], rows)
    assert table.splitlines() == [
        "| cell | t | none | accuracy |",
        "| --- | ---: | ---: | ---: |",
        "| LSTM | 3 |  | 83.2 ± 0.4% |",
        "|  | 12 |  | -0.5 |",
    ]


def test_results_round_trip(repository):
    metrics = {"whole": np.int64(3), "exact": np.float32(0.0)}
    metrics["accuracy"] = results.summarise([0.5, 0.75])
    path = write(metrics=metrics)
    assert path == repository / "build" / "q1_tbptt" / "results" / "results.json"
    found = json.loads(path.read_text())
    assert found["metrics"] == metrics
    assert found["preset"] == "quick"
    assert found["seeds"] == [0, 1]
    assert "tensorflow" in found["versions"]
    assert found["module_sha256"] == digest.code_sha256("q1_tbptt")
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


BAD = [math.nan, math.inf, np.float32("nan"), "0.5", None, True, [0.5], {"mean": 0.5}]


@pytest.mark.parametrize("value", [*BAD, {"mean": math.nan, "std": 0.0, "n": 1}])
def test_bad_metric_is_named_and_nothing_written(repository, value):
    with pytest.raises(ValueError, match="dev_accuracy"):
        write(metrics={"dev_accuracy": value})
    assert not list(repository.rglob("results.json"))


TOY = types.SimpleNamespace(cache_key=["toy", 2])
COUNTER = []


@results.cached("q1_tbptt", ignore=["model"])
def run(data, *, seed=0, model=None, **options):
    COUNTER.append(1)
    return {"runs": len(COUNTER), "pair": (1, 2)}


@pytest.fixture
def full(repository, monkeypatch):
    monkeypatch.setenv("PRESET", "full")
    COUNTER.clear()
    return repository


def test_full_preset_caches_by_arguments_versions_and_code(full, monkeypatch):
    first = run(TOY)
    assert first["runs"] == 1 and first["pair"] == [1, 2] and first["seconds"] >= 0
    assert run(TOY) == run(data=TOY, seed=0, model=object()) == first
    assert run(TOY, seed=1)["runs"] == 2
    assert run(TOY, rate=0.1)["runs"] == 3
    assert run(types.SimpleNamespace(cache_key=["toy", 1]))["runs"] == 4
    (full / "q1_tbptt" / "code.py").write_text("a = 2\n")
    assert run(TOY)["runs"] == 5
    monkeypatch.setattr(presets, "versions", lambda: {"python": "4"})
    assert run(TOY)["runs"] == 6


def test_an_argument_that_no_key_can_hold_is_named(repository):
    for value in (math.nan, np.zeros(2), object()):
        with pytest.raises(TypeError, match="`seed` of run must be a JSON value"):
            run(TOY, seed=value)


def test_quick_preset_does_not_cache(repository):
    COUNTER.clear()
    assert [run(TOY)["runs"] for _ in range(2)] == [1, 2]
    assert not (repository / "build").exists()


def test_what_was_interrupted_is_computed_again(full, monkeypatch):
    def interrupt(function):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(results.sweep, "compute", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(TOY)
    assert run(TOY)["runs"] == 1


def test_the_time_of_a_replayed_run_counts_until_another_question_begins(full):
    run(TOY)
    (path,) = (full / "build" / "runs" / "q1_tbptt").iterdir()
    content = json.loads(path.read_text())
    content["result"]["seconds"] = 1000.0
    path.write_text(json.dumps(content))
    results.restart()
    run(TOY)
    assert 1000 <= json.loads(write().read_text())["wall_seconds"] < 1060
    results.restart()
    assert json.loads(write().read_text())["wall_seconds"] < 60


def write_slowly(path, letter):
    def write(partial):
        with partial.open("w") as file:
            for _ in range(50):
                file.write(letter * 1_000)
                file.flush()

    for _ in range(10):
        results.write_atomic(path, write)


def test_a_file_that_two_processes_write_is_that_of_one(tmp_path):
    path = tmp_path / "folder" / "file"
    process = multiprocessing.get_context("spawn").Process
    writers = [process(target=write_slowly, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(path.read_text())
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen <= {"a" * 50_000, "b" * 50_000}
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_write_that_fails_is_named_and_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def write(partial):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "h5py says it in ten lines")

    message = r"file cannot be written \(No space left"
    with pytest.raises(OSError, match=message) as info:
        results.write_atomic(path, write)
    assert info.value.errno == errno.ENOSPC
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="file/below cannot be written .*writable"):
        results.write_atomic(path / "below", write)
