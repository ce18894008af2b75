"""Makefile and the lists of packages: set-up recovers, and every pin installs."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib

import pytest
from packaging.specifiers import SpecifierSet

from common.presets import ROOT

# A Python that makes a .venv in no time; pip is replaced as well.
PYTHON = """#!/bin/sh
case "$1" in
    -c) exit 0 ;;
    -V) echo "Python $VERSION" ;;
    -m) rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
esac
"""
PIP = """#!/bin/sh
echo "$@" >> pip.log
[ ! -e no-network ] || { echo 'ERROR: no network' >&2; exit 1; }
"""


@pytest.fixture
def clone(tmp_path):
    """A clone in a folder with a blank and Hebrew letters, with fake programs."""
    folder = tmp_path / "מטלה 14"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name, text in {"python": PYTHON, "pip": PIP}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def make(folder, target=".venv/.ready", version="3.11.7", **variables):
    """Runs make; returns what pip was asked for, and what was printed."""
    log = folder / "pip.log"
    log.write_text("")
    options = {"PIP": "./pip", "PYTHONS": "./python", **variables}
    done = subprocess.run(
        ["make", target, *(f"{name}={value}" for name, value in options.items())],
        cwd=folder,
        env=os.environ | {"VERSION": version, "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    return log.read_text(), done.stdout + done.stderr


def test_an_interrupted_set_up_recovers_and_extras_come_when_needed(clone):
    (clone / "no-network").touch()
    assert "ERROR: no network" in make(clone)[1]
    assert not (clone / ".venv" / ".ready").exists()
    (clone / "no-network").unlink()
    (clone / ".venv" / "half-installed").touch()
    asked, said = make(clone)
    assert asked == "-e . -c constraints.txt\n" and "Setting up .venv" in said
    assert not (clone / ".venv" / "half-installed").exists()
    assert make(clone)[0] == ""  # what is ready is left alone
    assert make(clone, ".venv/.site")[0] == "-e .[site] -c constraints.txt\n"
    assert make(clone, ".venv/.site")[0] == ""


def test_what_is_out_of_date_is_set_up_again(clone):
    make(clone)
    for name in ("requirements.txt", "constraints.txt", "pyproject.toml"):
        stamp = (clone / ".venv" / ".ready").stat().st_mtime
        os.utime(clone / name, (stamp + 1, stamp + 1))
        assert make(clone)[0] != "", name
        os.utime(clone / name, (0, 0))
    moved = clone.rename(clone.with_name("moved"))
    assert make(moved)[0] != ""
    assert make(moved)[0] == ""
    assert make(moved, version="3.12.1")[0] != ""


def test_a_missing_python_is_named(clone):
    said = make(clone, PYTHONS="./none")[1]
    assert "error: Python 3.11, 3.12 or 3.13 is needed" in said and "./none" in said


def pins():
    """Returns the pinned version of every package, from all files that pin."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    lines += sum(extras["optional-dependencies"].values(), [])
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", "\n".join(lines), re.MULTILINE))


def test_every_pin_installs_on_every_python_that_is_promised():
    promised = ("3.11.0", "3.11.2", "3.12.0", "3.13.0")
    checked, refused = 0, []
    for name, version in pins().items():
        try:
            metadata = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra that is not installed
        if metadata["Version"] == version:
            checked += 1
            required = SpecifierSet(metadata["Requires-Python"] or "")
            refused += [f"{name} {p}" for p in promised if p not in required]
    assert refused == []
    assert checked > 100


def test_every_package_of_a_user_is_pinned():
    def normal(names):
        return {re.sub(r"[-_.]+", "-", name).lower() for name in names}

    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    wanted = {re.split(r"[<>=]", line)[0] for line in lines if line[:1].isalpha()}
    assert normal(wanted) <= normal(pins())
