"""What `common.archives` promises, against hand-made archives and registries.

No test needs a network: the real pip asks a folder for its packages.
"""

import hashlib
import importlib.util
import io
import multiprocessing
import random
import tarfile
import time
import types
import zipfile

import pytest

from common import archives, data
from common.archives import Archive, DataError


def tar_of(files, mode="w:gz"):
    """Return a tar archive; a value that is no `bytes` is a symlink's target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
            else:
                member.type, member.linkname = tarfile.SYMTYPE, content
            tar.addfile(member, io.BytesIO(content if member.isreg() else b""))
    return buffer.getvalue()


def pinned(filename, content):
    package, version = filename.split("-")[:2]
    digest = hashlib.sha256(content).hexdigest()
    return Archive(package, version.removesuffix(".tar.gz"), filename, digest)


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
    with zipfile.ZipFile(registry / filename, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")
    return pinned(filename, (registry / filename).read_bytes())


# -- Fetching ------------------------------------------------------------------------


def test_fetch_keeps_what_pip_verified_and_asks_once(tiny, cache, monkeypatch):
    path = archives.fetch(tiny)
    assert path == cache / tiny.filename
    assert hashlib.sha256(path.read_bytes()).hexdigest() == tiny.sha256
    assert list(cache.iterdir()) == [path]  # nothing temporary stays
    monkeypatch.setattr(
        archives.subprocess, "run", lambda *_, **__: pytest.fail("asked")
    )
    assert archives.fetch(tiny) == path


def test_two_processes_may_fetch_at_once(tiny, cache):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        paths = pool.map(archives.fetch, [tiny] * 2, chunksize=1)
    assert paths == [cache / tiny.filename] * 2
    assert list(cache.iterdir()) == paths[:1]
    assert hashlib.sha256(paths[0].read_bytes()).hexdigest() == tiny.sha256


def test_a_damaged_copy_in_the_cache_is_fetched_again(tiny, cache):
    cache.mkdir()
    (cache / tiny.filename).write_bytes(b"PK, and then no more")
    path = archives.fetch(tiny)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == tiny.sha256


def test_pip_runs_nothing_of_an_archive_with_another_digest(registry, cache, tmp_path):
    ran = tmp_path / "ran"
    setup = f"open({str(ran)!r}, 'w')".encode()
    served = tar_of({"tiny-1.0/setup.py": setup})
    (registry / "tiny-1.0.tar.gz").write_bytes(served)
    archive = pinned("tiny-1.0.tar.gz", b"what was expected")
    with pytest.raises(DataError, match="DO NOT MATCH THE HASHES") as caught:
        archives.fetch(archive)
    assert archive.sha256 in str(caught.value)
    assert hashlib.sha256(served).hexdigest() in str(caught.value)
    assert not ran.exists()
    assert not list(cache.iterdir())


def test_a_mismatch_that_pip_lets_pass_names_both_digests(cache, monkeypatch):
    def careless_pip(command, **options):
        assert "--require-hashes" in command
        folder = command[-1].removeprefix("--dest=")
        with open(f"{folder}/tiny-1.0.tar.gz", "wb") as file:
            file.write(b"served")
        return types.SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(archives.subprocess, "run", careless_pip)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    archive = pinned("tiny-1.0.tar.gz", b"expected")
    with pytest.raises(DataError) as caught:
        archives.fetch(archive)
    served = hashlib.sha256(b"served").hexdigest()
    for part in (archive.filename, archive.sha256, served):
        assert part in str(caught.value)
    assert not list(cache.iterdir())


def test_a_refusing_registry_is_reported_in_pips_words(registry, cache):
    start = time.perf_counter()
    with pytest.raises(DataError) as caught:
        data.load_sentences("embedded")
    assert time.perf_counter() - start < 10
    message = str(caught.value)
    assert "(ERROR: No matching distribution found for vaderSentiment==" in message
    assert "check the network" in message
    assert str(cache) in message
    assert "\n" not in message


def test_a_silent_registry_is_given_up(cache, monkeypatch):
    def hang(command, timeout, **options):
        raise archives.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(archives.subprocess, "run", hang)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(DataError, match=r"no answer within .* then run again"):
        archives.fetch(archives.VADER)


def test_without_pip_the_error_says_how_to_get_it(cache, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="python -m ensurepip"):
        archives.fetch(archives.VADER)


def test_an_unwritable_cache_says_how_to_move_it(tmp_path, monkeypatch):
    # Below a regular file not even root can make a folder.
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ASSIGNMENT14_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="set ASSIGNMENT14_CACHE to a folder that can"):
        archives.fetch(archives.VADER)


def test_the_cache_follows_the_users_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("ASSIGNMENT14_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert archives.cache_dir() == tmp_path / "assignment14"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert archives.cache_dir() == tmp_path / ".cache" / "assignment14"


# -- Reading a member ----------------------------------------------------------------


def test_a_member_is_read_in_memory():
    archive = tar_of({"a/first": b"1", "a/second": b"2"})
    assert archives.read_member(archive, "a/second") == b"2"


@pytest.mark.parametrize("name", ["link", "../up", "/root", "a/../../up", "gone"])
def test_a_member_that_is_no_file_inside_the_archive_is_refused(name):
    files = {"real": b"", "link": "real", "../up": b"", "/root": b"", "a/../../up": b""}
    with pytest.raises(DataError, match="cannot be read from its archive"):
        archives.read_member(tar_of(files), name)


def test_a_member_of_excessive_size_is_refused(monkeypatch):
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 1_000)
    with pytest.raises(DataError, match="too large, 1,001 bytes"):
        archives.read_member(tar_of({"zeros": bytes(1_001)}), "zeros")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_archive_is_refused_wherever_it_ends(mode, cache):
    content = random.Random(0).randbytes(5_000)
    archive = tar_of({"first": content, "second": content}, mode)
    for length in (0, 5, 400, 3_000, len(archive) * 4 // 10):
        with pytest.raises(DataError, match=f"delete the archive in {cache}"):
            archives.read_member(archive[:length], "second")


def test_a_damaged_archive_is_refused_wherever_the_damage_is():
    content = " ".join(map(str, range(3_000))).encode()
    archive = tar_of({"first": content, "second": content})
    rng = random.Random(0)
    for start in range(0, len(archive) * 9 // 10, 100):
        damaged = archive[:start] + rng.randbytes(20) + archive[start + 20 :]
        with pytest.raises(DataError, match="cannot be read from its archive"):
            archives.read_member(damaged, "second")


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return buffer.getvalue()


def test_a_member_of_a_wheel_is_read_in_memory():
    wheel = zip_of({"a/first": b"1", "a/second": b"2"})
    assert archives.read_member(wheel, "a/second") == b"2"


@pytest.mark.parametrize("name", ["folder/", "../up", "/root", "a/../../up", "gone"])
def test_a_member_that_is_no_file_inside_the_wheel_is_refused(name):
    wheel = zip_of({"folder/": b"", "../up": b"", "/root": b"", "a/../../up": b""})
    with pytest.raises(DataError, match="cannot be read from its archive"):
        archives.read_member(wheel, name)


def test_a_member_of_excessive_size_in_a_wheel_is_refused(monkeypatch):
    monkeypatch.setattr(archives, "MEMBER_LIMIT", 1_000)
    with pytest.raises(DataError, match="too large, 1,001 bytes"):
        archives.read_member(zip_of({"zeros": bytes(1_001)}), "zeros")


def test_a_damaged_wheel_is_refused_or_read_right():
    content = " ".join(map(str, range(3_000))).encode()
    wheel = zip_of({"first": content, "second": content})
    rng = random.Random(0)
    refused = 0
    for start in range(0, len(wheel), 50):
        damaged = wheel[:start] + rng.randbytes(20) + wheel[start + 20 :]
        try:
            assert archives.read_member(damaged, "second") == content
        except DataError:
            refused += 1
    assert refused > len(wheel) / 50 / 3
    for length in range(2, len(wheel) - 1, 997):
        with pytest.raises(DataError, match="cannot be read from its archive"):
            archives.read_member(wheel[:length], "second")


def damaged(archive, rng):
    """Return a copy of an archive with one to six mistakes at random places."""
    archive = bytearray(archive)
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(archive) + 1)
        match rng.randrange(4):
            case 0:
                archive[start : start + 1] = rng.randbytes(1)
            case 1:
                del archive[start : start + rng.randrange(1, 200)]
            case 2:
                archive[start:start] = rng.randbytes(rng.randrange(1, 50))
            case 3 if rng.random() < 0.3:
                del archive[start:]
    return bytes(archive)


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_an_archive_with_random_damage_is_read_or_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = " ".join(map(str, range(800))).encode()
    files = {"a/first": content, "second": content}
    archive = zip_of(files) if kind == "zip" else tar_of(files, kind)
    rng, refused = random.Random(0), 0
    start = time.monotonic()
    for _ in range(200):
        try:
            archives.read_member(damaged(archive, rng), "second")
        except DataError:
            refused += 1
    assert refused > 20
    assert time.monotonic() - start < 20  # nothing hangs
    assert not list(tmp_path.iterdir())  # nothing is written
