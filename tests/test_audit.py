"""tools/audit.py: what pip-audit and pip-licenses say, on one page."""

import json
import types

import pytest

from tools import audit

FOUND = {
    "dependencies": [
        {"name": "good", "version": "1.0", "vulns": []},
        {
            "name": "bad",
            "version": "2.0",
            "vulns": [
                {"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"]},
                {"id": "PYSEC-2", "fix_versions": []},
            ],
        },
        {"name": "lost", "skip_reason": "not found on PyPI"},
    ]
}
LICENCES = [
    {"Name": "good", "License": "MIT License\n\nCopyright (c) 2019"},
    {"Name": "bad", "License": "MIT License"},
    {"Name": "lost", "License": "BSD-3-Clause"},
]


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """What the two programs print, which a test may change."""
    pinned = tmp_path / "constraints.txt"
    pinned.write_text("# a comment\ngood==1.0\nbad==2.0\n")
    extra = tmp_path / "requirements-extra.txt"
    extra.write_text("-r requirements.txt\nlost[more]==3.0\n")
    monkeypatch.setattr(audit, "PINNED", [pinned, extra])
    answers = {
        "pip_audit": types.SimpleNamespace(stdout=json.dumps(FOUND), stderr=""),
        "piplicenses": types.SimpleNamespace(stdout=json.dumps(LICENCES)),
    }

    def run(command, **options):
        if command[2] == "piplicenses":
            assert command[-3:] == ["good", "bad", "lost"]
        return answers[command[2]]

    monkeypatch.setattr(audit.subprocess, "run", run)
    return answers


def test_a_vulnerable_package_fails_the_audit(answers, capsys):
    assert audit.main() == 1
    report = capsys.readouterr().out
    assert "bad 2.0: PYSEC-1, mended in 2.1, 3.0" in report
    assert "bad 2.0: PYSEC-2, mended in no version yet" in report
    assert "not looked up: 1 (not found on PyPI)" in report
    assert "MIT License: bad, good" in report


def test_a_database_out_of_reach_is_said_and_no_failure(answers, capsys):
    answers["pip_audit"].stdout = ""
    answers["pip_audit"].stderr = "Traceback:\n ...\nConnectionError: api.osv.dev\n"
    assert audit.main() == 0
    report = capsys.readouterr().out
    assert "not looked up: 3 (ConnectionError: api.osv.dev)" in report
