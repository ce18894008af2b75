"""Looks the pinned packages up among known vulnerabilities, and lists their licences.

```
python -m tools.audit
```
"""

import collections
import json
import re
import subprocess
import sys

from tools.repository import ROOT

PINNED = sorted([ROOT / "constraints.txt", *ROOT.glob("requirements-*.txt")])


def main():
    """Prints both; returns 1 if a package is vulnerable, else 0."""
    pins = "".join(path.read_text("utf-8") for path in PINNED)
    names = re.findall(r"^([\w.-]+)(?:\[.*\])?==", pins, re.MULTILINE)
    vulnerable, unknown, reason = vulnerabilities(names)
    files = ", ".join(path.name for path in PINNED)
    print(f"Vulnerabilities of {len(names)} packages of {files}:")
    looked_up = len(names) - len(unknown)
    for line in vulnerable or [f"none among the {looked_up} looked up"]:
        print(f"  {line}")
    if unknown:
        print(f"  not looked up: {len(unknown)} ({reason})")
    print("Licences:")
    for licence, packages in sorted(licences(names).items()):
        print(f"  {licence}: {', '.join(sorted(packages))}")
    return 1 if vulnerable else 0


def vulnerabilities(names):
    """Asks pip-audit about the packages of these names.

    Returns:
        `(vulnerable, unknown, reason)`: a line for each vulnerability, the packages
        that could not be looked up, and why the first of them could not.
    """
    command = [sys.executable, "-m", "pip_audit"]
    command += [f"--requirement={path}" for path in PINNED]
    command += ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
    run = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(run.stdout)["dependencies"]
    except ValueError:  # it gave up without a word to stdout
        return [], names, (run.stderr.strip() or "no reason given").splitlines()[-1]
    vulnerable = [
        f"{package['name']} {package['version']}: {found['id']}, mended in "
        f"{', '.join(found['fix_versions']) or 'no version yet'}"
        for package in packages
        for found in package.get("vulns", [])
    ]
    skipped = {p["name"]: p["skip_reason"] for p in packages if "skip_reason" in p}
    return vulnerable, list(skipped), next(iter(skipped.values()), None)


def licences(names):
    """Returns a dict from a licence to the installed packages that are under it."""
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json"]
    run = subprocess.run(
        [*command, "--with-system", "--packages", *names],
        capture_output=True,
        text=True,
        check=True,
    )
    found = collections.defaultdict(list)
    for package in json.loads(run.stdout):
        # Some give the whole text for a name.
        found[package["License"].splitlines()[0]].append(package["Name"])
    return found


if __name__ == "__main__":
    sys.exit(main())
