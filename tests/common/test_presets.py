"""common/presets.py: presets, versions and folders."""

import os
import subprocess
import sys

import pytest

from common import presets


def test_the_preset_is_quick_or_full(monkeypatch):
    for name, chosen in (("quick", 1), ("full", 4), ("", 1)):
        monkeypatch.setenv("PRESET", name)
        assert presets.preset().choose(quick=1, full=4) == chosen
    monkeypatch.delenv("PRESET")
    assert str(presets.preset()) == "quick"
    monkeypatch.setenv("PRESET", "fast")
    with pytest.raises(ValueError, match="quick or full, got 'fast'"):
        presets.preset()


def test_environment_is_printed(capsys):
    presets.print_environment()
    printed = capsys.readouterr().out
    assert printed.startswith("preset: quick (smaller data")
    assert "keras 3." in printed


@pytest.mark.parametrize("preset, below", [("full", "."), ("quick", "build")])
def test_a_trial_does_not_write_where_the_published_results_are(
    tmp_path, monkeypatch, preset, below
):
    monkeypatch.setattr(presets, "ROOT", tmp_path)
    monkeypatch.setenv("PRESET", preset)
    expected = tmp_path / below / "q1_tbptt" / "results"
    assert presets.results_dir("q1_tbptt") == expected and expected.is_dir()
    monkeypatch.setenv("RESULTS_ROOT", str(tmp_path / "elsewhere"))
    assert presets.results_dir("q1_tbptt").parents[1] == tmp_path / "elsewhere"


def test_keras_runs_on_tensorflow_whatever_the_user_has_configured(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    program = "import q1_tbptt.tbptt, keras; print(keras.backend.backend())"
    command = [sys.executable, "-c", program]
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    for variables in ({"KERAS_BACKEND": "jax"}, {"KERAS_HOME": str(tmp_path)}):
        options = {"cwd": presets.ROOT, "env": environment | variables}
        assert subprocess.check_output(command, text=True, **options) == "tensorflow\n"
