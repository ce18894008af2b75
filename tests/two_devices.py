"""Runs a snippet of a test module under `MirroredStrategy` on two logical CPUs.

They must be set up before TensorFlow starts, hence in a process of their own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, devices)
import {module}
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    found = eval({expression!r}, vars({module}))
print(json.dumps(found, default=lambda array: array.tolist()))
"""


def mirrored(module, expression):
    """Returns the value of an expression in a test module, taken on two devices.

    Args:
        module: name of a module in this folder.
        expression: Python source within that module; arrays in its value become lists.
    """
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    program = PROGRAM.format(module=module, expression=expression)
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
