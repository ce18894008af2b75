"""How large a run is, where it writes, and which versions it runs on.

A notebook runs in one of two presets, named by the environment variable `PRESET`:
`quick` (minutes on two cores, embedded data) or `full` (the published figures).

```python
preset = presets.preset()
epochs = preset.choose(quick=1, full=4)
```
"""

import importlib.metadata
import os
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path

# Importing keras_nlp asks for widgets, which a notebook may do without.
warnings.filterwarnings("ignore", message="IProgress not found")

PRESETS = ("quick", "full")
_PACKAGES = ("tensorflow", "keras", "keras-nlp", "tensorflow-datasets", "numpy")
# Where the modules are, and the repository: the current folder if they were installed
# without it.
CODE = Path(__file__).resolve().parents[1]
ROOT = CODE if (CODE / "requirements.txt").exists() else Path.cwd()


@dataclass(frozen=True)
class Preset:
    """Size of the experiments; `name` is `"quick"` or `"full"`."""

    name: str

    def __post_init__(self):
        if self.name not in PRESETS:
            raise ValueError(f"PRESET must be quick or full, got {self.name!r}")

    def __str__(self):
        return self.name

    def choose(self, *, quick, full):
        """Returns `quick` or `full`, whichever this preset is."""
        return quick if self.name == "quick" else full


def preset():
    """Returns the `Preset` that the environment variable `PRESET` names, or quick."""
    return Preset(os.environ.get("PRESET") or "quick")


def versions():
    """Returns the versions and the device that a result depends on, as strings."""
    import tensorflow as tf

    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    device = ", ".join(gpus) or f"CPU, {os.cpu_count()} cores"
    return {"python": platform.python_version()} | found | {"device": device}


def print_environment():
    """Prints the preset and the versions, as every notebook does at its beginning."""
    note = " (smaller data and runs: the text of a notebook describes the full preset)"
    print(f"preset: {preset()}{preset().choose(quick=note, full='')}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()))


def results_dir(question):
    """Returns the folder for the results and figures of a question, and creates it.

    The full preset writes next to the notebook and the quick one below `build`, so
    that a trial never overwrites published results. The environment variable
    `RESULTS_ROOT` moves both.
    """
    root = os.environ.get("RESULTS_ROOT")
    root = root or preset().choose(quick=ROOT / "build", full=ROOT)
    folder = Path(root) / question / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
