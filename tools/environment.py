"""Builds `.venv`, or leaves it alone when it is exactly as it should be.

It runs before anything is installed, under the interpreter that `.venv` is to have,
hence the standard library only. A virtual environment in any other state (half
installed, out of date, damaged, of another Python) is built again from nothing: that
takes a minute or two and cannot go half wrong.
"""

import csv
import fcntl
import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class SetupError(Exception):
    """One line for the user: what failed, and what to do about it."""


def requirements_digest(root):
    """Returns a digest of the two files that decide what is installed."""
    files = [root / "requirements.txt", root / "constraints.txt"]
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()


def intact_packages(venv):
    """Lists the packages of which no file is missing.

    Args:
        venv: Folder of a virtual environment of the running Python version.

    Returns:
        A dict from name to version.
    """
    site = sysconfig.get_path("purelib", "venv", {"base": str(venv)})
    packages = {}
    for package in importlib.metadata.distributions(path=[site]):
        # A package without a list of its files was left behind by an installation
        # that did not finish. (`package.files` would leave out the missing ones.)
        record = csv.reader((package.read_text("RECORD") or "").splitlines())
        files = [row[0] for row in record if row]
        # Bytecode is written anew when it is missing.
        sources = [name for name in files if not name.endswith(".pyc")]
        if sources and all(Path(site, name).exists() for name in sources):
            packages[package.name] = package.version
    return packages


def is_ready(venv, digest):
    """Tells whether `venv` still is what `build` left.

    Args:
        venv: Folder of the virtual environment; it need not exist.
        digest: What `requirements_digest` returns now.

    Returns:
        True if its Python runs and is the running version, and every package that was
        installed for these requirements is complete.
    """
    script = "import sys; print(sys.version)"
    try:
        stamp = json.loads((venv / "ready.json").read_text())
        wanted, packages = stamp["requirements"], stamp["packages"].items()
        python = subprocess.run(
            [venv / "bin" / "python", "-c", script], capture_output=True, text=True
        )
    except (OSError, ValueError, KeyError):
        return False
    return (
        wanted == digest
        and python.stdout.strip() == sys.version.strip()
        and packages <= intact_packages(venv).items()
    )


def remove(path):
    """Removes a folder, a file or a link, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def build(venv, root, digest):
    """Creates a virtual environment and installs the requirements into it.

    Args:
        venv: Folder of the virtual environment; what is there is removed.
        root: Folder of `requirements.txt` and `constraints.txt`.
        digest: What `requirements_digest` returns for them.

    Raises:
        SetupError: If the environment cannot be created or pip fails.
    """
    try:
        remove(venv)
        import venv as venv_module

        venv_module.create(venv, symlinks=True, with_pip=True)
    except OSError as error:
        raise SetupError(f"cannot create {venv}: {error}") from error
    except (ImportError, subprocess.CalledProcessError) as error:
        raise SetupError(
            f"{sys.executable} cannot create {venv}: its venv or ensurepip module is "
            f"missing (on Debian and Ubuntu: apt install python3-venv)"
        ) from error
    install(venv, root)
    packages = intact_packages(venv)
    packages.pop("pip", None)  # whoever upgrades pip breaks nothing
    stamp = {"requirements": digest, "packages": packages}
    (venv / "ready.json").write_text(json.dumps(stamp, indent=1))


def install(venv, root):
    """Runs pip, which writes to `pip.log`, and says every so often that it does.

    Args:
        venv: Folder of the virtual environment.
        root: Folder of `requirements.txt` and `constraints.txt`.

    Raises:
        SetupError: If pip fails, with its last error.
    """
    command = [venv / "bin" / "python", "-m", "pip", "install", "--no-input"]
    command += ["--progress-bar=off", "--disable-pip-version-check"]
    command += ["-r", root / "requirements.txt", "-c", root / "constraints.txt"]
    log = venv / "pip.log"
    start = time.monotonic()
    with log.open("w") as output:
        pip = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while pip.poll() is None:
            try:
                pip.wait(timeout=20)
            except subprocess.TimeoutExpired:
                print(f"  pip, {time.monotonic() - start:.0f} s", flush=True)
    if pip.returncode:
        errors = [s for s in log.read_text().splitlines() if s.startswith("ERROR: ")]
        reason = errors[0].removeprefix("ERROR: ") if errors else "no reason given"
        raise SetupError(
            f"pip could not install requirements.txt: {reason} (all of it in {log}; "
            f"check the network and pip's configuration, then try again)"
        )


def main():
    """Makes `.venv` ready; returns the exit code."""
    venv = ROOT / ".venv"
    digest = requirements_digest(ROOT)
    # The lock is for two `make` in one checkout at the same time.
    with (ROOT / "requirements.txt").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_ready(venv, digest):
            return 0
        version = ".".join(map(str, sys.version_info[:3]))
        print(
            f"Setting up .venv with Python {version}: about 130 packages, 2 GB, a "
            f"minute or two",
            flush=True,
        )
        start = time.monotonic()
        try:
            build(venv, ROOT, digest)
        except SetupError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"Set up in {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
