"""What several modules of this folder set up."""

import pytest

from common import presets


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """An empty repository with one question, in place of this one."""
    monkeypatch.setattr(presets, "ROOT", tmp_path)
    monkeypatch.setattr(presets, "CODE", tmp_path)
    for module in ("common/data.py", "q1_tbptt/code.py"):
        path = tmp_path / module
        path.parent.mkdir()
        path.write_text("a = 1\n")
    return tmp_path
