"""common/experiment.py: presets, summaries, results files, remembered runs."""

import errno
import json
import math
import multiprocessing

import numpy as np
import pytest

from common import experiment


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """An empty repository with one question, in place of this one."""
    monkeypatch.setattr(experiment, "ROOT", tmp_path)
    for module in ("common/data.py", "q1_tbptt/code.py"):
        path = tmp_path / module
        path.parent.mkdir()
        path.write_text("a = 1\n")
    return tmp_path


def write(**changes):
    arguments = {
        "preset": experiment.preset(),
        "data": "toy",
        "seeds": [0, 1],
        "wall_seconds": 1.25,
        "metrics": {"accuracy": 0.5},
    }
    return experiment.write_results("q1_tbptt", **(arguments | changes))


@pytest.mark.parametrize("name, chosen", [("quick", 1), ("full", 4), ("", 1)])
def test_preset_chooses(monkeypatch, name, chosen):
    monkeypatch.setenv("PRESET", name)
    assert experiment.preset().choose(quick=1, full=4) == chosen


def test_preset_is_quick_without_the_variable(monkeypatch):
    monkeypatch.delenv("PRESET")
    assert str(experiment.preset()) == "quick"


def test_unknown_preset(monkeypatch):
    monkeypatch.setenv("PRESET", "fast")
    with pytest.raises(ValueError, match="quick or full, got 'fast'"):
        experiment.preset()


def test_same_seed_same_weights():
    import keras

    def weights(seed):
        experiment.seed_everything(seed)
        layer = keras.layers.Dense(3)
        layer.build((None, 2))
        return layer.get_weights()[0]

    np.testing.assert_array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_environment_is_printed(capsys):
    experiment.print_environment()
    printed = capsys.readouterr().out
    assert printed.startswith("preset: quick\npython 3.")
    assert "keras 3." in printed


def test_summarise():
    summary = experiment.summarise(np.array([1.0, 2.0, 4.0]))
    assert summary == {
        "mean": pytest.approx(7 / 3),
        "std": pytest.approx(math.sqrt(7 / 3)),
        "n": 3,
    }
    assert experiment.summarise([5]) == {"mean": 5.0, "std": 0.0, "n": 1}
    with pytest.raises(ValueError, match="at least one"):
        experiment.summarise([])


def test_results_round_trip(repository):
    metrics = {
        "whole": np.int64(3),
        "exact": np.float32(0.0),
        "accuracy": experiment.summarise([0.5, 0.75]),
    }
    path = write(metrics=metrics)
    assert path == repository / "build" / "q1_tbptt" / "results" / "results.json"
    results = experiment.read_results("q1_tbptt")
    assert results["metrics"]["whole"] == 3
    assert results["metrics"]["exact"] == 0.0
    assert results["metrics"]["accuracy"]["mean"] == 0.625
    assert results["preset"] == "quick"
    assert results["seeds"] == [0, 1]
    assert "tensorflow" in results["versions"]
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_full_results_lie_beside_the_notebook(repository, monkeypatch):
    monkeypatch.setenv("PRESET", "full")
    assert write() == repository / "q1_tbptt" / "results" / "results.json"


def test_results_root_moves_the_results(repository, monkeypatch):
    monkeypatch.setenv("RESULTS_ROOT", str(repository / "elsewhere"))
    assert write().parent == repository / "elsewhere" / "q1_tbptt" / "results"


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        np.float32("nan"),
        "0.5",
        None,
        True,
        [0.5],
        {"mean": 0.5},
        {"mean": math.nan, "std": 0.0, "n": 1},
    ],
)
def test_bad_metric_is_named_and_nothing_written(repository, value):
    with pytest.raises(ValueError, match="dev_accuracy"):
        write(metrics={"dev_accuracy": value})
    assert not list(repository.rglob("results.json"))


def test_results_name_the_code(repository):
    first = json.loads(write().read_text())["module_sha256"]
    (repository / "common" / "data.py").write_text("a = 2\n")
    assert json.loads(write().read_text())["module_sha256"] != first


def test_only_code_that_decides_results_counts(repository):
    code = repository / "common" / "data.py"
    code.write_text('"""One."""\n\n\ndef f():\n    """Two."""\n    return 1\n')
    first = experiment.code_sha256("q1_tbptt")
    code.write_text('"""Three."""\ndef f():\n    """Four."""\n    return 1  # five\n')
    (repository / "common" / "plots.py").write_text("colour = 'blue'\n")
    (repository / "common" / "another.py").write_text("nobody = 'imports it'\n")
    assert experiment.code_sha256("q1_tbptt") == first
    code.write_text("def f():\n    return 2\n")
    assert experiment.code_sha256("q1_tbptt") != first


@pytest.mark.parametrize(
    "line",
    ["from common import text", "from common.text import pad", "import common.text"],
)
def test_code_that_is_imported_counts_however_far_away(repository, line):
    (repository / "q1_tbptt" / "model.py").write_text("import q2_reset_cell.cell\n")
    (repository / "q2_reset_cell").mkdir()
    (repository / "q2_reset_cell" / "cell.py").write_text(f"{line}\n")
    text = repository / "common" / "text.py"
    text.write_text("import q1_tbptt.model\n\npad = 0\n")
    first = experiment.code_sha256("q1_tbptt")
    text.write_text("import q1_tbptt.model\n\npad = 1\n")
    assert experiment.code_sha256("q1_tbptt") != first


def remember(counter, settings):
    def compute():
        counter.append(1)
        return {"runs": len(counter), "pair": (1, 2)}

    return experiment.remember("q1_tbptt", settings, compute)


def test_full_preset_remembers(repository, monkeypatch):
    monkeypatch.setenv("PRESET", "full")
    counter = []
    first = remember(counter, {"seed": 0})
    assert first["runs"] == 1 and first["pair"] == [1, 2] and first["seconds"] >= 0
    assert remember(counter, {"seed": 0}) == first
    assert remember(counter, {"seed": 1})["runs"] == 2
    (repository / "q1_tbptt" / "code.py").write_text("a = 2\n")
    assert remember(counter, {"seed": 0})["runs"] == 3


def test_runs_are_counted_until_another_question_begins(repository, monkeypatch):
    monkeypatch.setenv("PRESET", "full")
    monkeypatch.setenv("RESULTS_ROOT", str(repository))
    experiment.restart()
    for seed in (0, 0, 1):
        found = remember([], {"seed": seed})
    monkeypatch.setattr(experiment, "_run_seconds", [2.0, 2.0, found["seconds"]])
    written = json.loads(write().read_text())
    assert (written["runs"], written["longest_run_seconds"]) == (3, 2.0)
    experiment.restart()
    written = json.loads(write().read_text())
    assert (written["runs"], written["longest_run_seconds"]) == (0, 0.0)
    assert experiment.wall_seconds() < 60


def test_quick_preset_does_not_remember(repository):
    counter = []
    assert remember(counter, {"seed": 0})["runs"] == 1
    assert remember(counter, {"seed": 0})["runs"] == 2
    assert not (repository / "build").exists()


def test_interrupted_run_is_computed_again(repository, monkeypatch):
    monkeypatch.setenv("PRESET", "full")

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.remember("q1_tbptt", {"seed": 0}, interrupted)
    assert remember([], {"seed": 0})["runs"] == 1


def write_slowly(path, letter):
    def write(partial):
        with partial.open("w") as file:
            for _ in range(200):
                file.write(letter * 1_000)
                file.flush()

    for _ in range(20):
        results.write_atomic(path, write)


def test_a_file_that_two_processes_write_is_that_of_one(tmp_path):
    path = tmp_path / "folder" / "file"
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=write_slowly, args=(path, letter)) for letter in "ab"
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(path.read_text())
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen <= {"a" * 200_000, "b" * 200_000}
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def write(partial):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "h5py says it in ten lines")

    with pytest.raises(
        OSError, match=r"file cannot be written \(No space left"
    ) as info:
        results.write_atomic(path, write)
    assert info.value.errno == errno.ENOSPC
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/below cannot be written .*writable"):
        results.write_atomic(tmp_path / "file" / "below", lambda path: None)
