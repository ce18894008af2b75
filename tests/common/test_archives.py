"""What `common.archives` promises, against hand-made archives and registries."""

import hashlib
import importlib.util
import io
import multiprocessing
import tarfile
import time
import types
import zipfile
from pathlib import Path

import pytest

from common import archives, data
from common.archives import VADER, Archive, DataError


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("ASSIGNMENT14_CACHE", str(folder))
    return folder


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder that the real pip takes for its only source of packages."""
    pytest.importorskip("pip")
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    return folder


@pytest.fixture
def tiny(registry):
    """The pin of the least wheel that pip accepts, which the registry serves."""
    filename, info = "tiny-1.0-py3-none-any.whl", "tiny-1.0.dist-info"
    metadata = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
    tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"METADATA": metadata, "WHEEL": tags, "RECORD": ""}
    content = zip_of({f"{info}/{name}": text for name, text in files.items()})
    (registry / filename).write_bytes(content)
    return Archive("tiny", "1.0", filename, sha256(content))


@pytest.mark.parametrize("damaged", [None, b"PK, and then no more"])
def test_fetch_keeps_what_pip_verified_and_asks_once(damaged, tiny, cache, monkeypatch):
    path = cache / tiny.filename
    if damaged:
        cache.mkdir()
        path.write_bytes(damaged)
    content = archives.fetch(tiny)
    assert sha256(content) == tiny.sha256
    assert list(cache.iterdir()) == [path]  # nothing temporary stays
    assert path.read_bytes() == content
    monkeypatch.setattr(archives.subprocess, "run", None)  # only the cache is left
    assert archives.fetch(tiny) == content


def test_two_processes_may_fetch_at_once(tiny, cache):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(archives.fetch, [tiny] * 2, chunksize=1)
    path = cache / tiny.filename
    assert list(cache.iterdir()) == [path]
    assert {sha256(content) for content in (path.read_bytes(), *found)} == {tiny.sha256}


def test_pip_runs_nothing_of_an_archive_with_another_digest(registry, cache, tmp_path):
    ran = tmp_path / "ran"
    served = tar_of({"tiny-1.0/setup.py": f"open({str(ran)!r}, 'w')".encode()})
    (registry / "tiny-1.0.tar.gz").write_bytes(served)
    archive = Archive("tiny", "1.0", "tiny-1.0.tar.gz", sha256(b"what was expected"))
    with pytest.raises(DataError, match="DO NOT MATCH THE HASHES") as caught:
        archives.fetch(archive)
    assert archive.sha256 in str(caught.value)
    assert sha256(served) in str(caught.value)
    assert not ran.exists()
    assert not list(cache.iterdir())


def test_a_refusing_registry_is_reported_in_pips_words(registry, cache, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a notebook's kernel does
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        data.load_sentences("embedded")
    assert time.perf_counter() - start < 10
    message = str(caught.value)
    assert "(ERROR: No matching distribution found for vaderSentiment==" in message
    assert "check the network" in message
    assert str(cache) in message
    assert message.isprintable()


def careless_pip(command, **options):
    assert "--require-hashes" in command
    Path(command[-1].removeprefix("--dest="), VADER.filename).write_bytes(b"served")
    return types.SimpleNamespace(returncode=0, stderr="")


def colourful_pip(command, **options):
    link = "\x1b]8;;https://example.org\x1b\\here\x1b]8;;\x07"
    said = f"\x1b[1;31mERROR\x1b[0m: \x1b[38;2;1;2;3mno file\x1b[0m\x1b[K,\n see {link}"
    return types.SimpleNamespace(returncode=1, stderr=said)


def silent_pip(command, timeout, **options):
    raise archives.subprocess.TimeoutExpired(command, timeout)


MISMATCH = f"{VADER.filename} has sha256 {sha256(b'served')}, not {VADER.sha256}"


@pytest.mark.parametrize(
    "pip, message",
    [
        (careless_pip, MISMATCH),
        (colourful_pip, r"\(ERROR: no file, see here\)"),
        (silent_pip, "no answer within .* then run again"),
        (None, "python -m ensurepip"),
    ],
)
def test_what_is_wrong_with_pip_is_said_plainly(pip, message, cache, monkeypatch):
    monkeypatch.setattr(archives.subprocess, "run", pip)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pip)
    with pytest.raises(DataError, match=message):
        archives.fetch(VADER)
    assert not list(cache.iterdir())


def test_an_unwritable_cache_says_how_to_move_it(tmp_path, monkeypatch):
    # Below a regular file not even root can make a folder.
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ASSIGNMENT14_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="set ASSIGNMENT14_CACHE to a folder that can"):
        archives.fetch(VADER)


def test_the_cache_follows_the_users_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("ASSIGNMENT14_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert archives.cache_dir() == tmp_path / "assignment14"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert archives.cache_dir() == tmp_path / ".cache" / "assignment14"


@pytest.mark.parametrize("archive_of", [tar_of, zip_of])
def test_a_member_is_read_in_memory(archive_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    archive = archive_of({"a/first": b"1", "a/second": b"2", "b/second": b"3"})
    assert archives.read_member(archive, "a/second") == b"2"
    assert not list(tmp_path.iterdir())
