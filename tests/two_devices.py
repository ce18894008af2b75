"""Runs an expression of a test module on two logical CPUs.

They must be set up before TensorFlow starts, hence in a process of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

MIRRORED = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, devices)
# It takes longer than the few steps of a test.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""
PROGRAM = """
import importlib, json
module = importlib.import_module({module!r})
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    found = eval({expression!r}, vars(module))
print(json.dumps(found, default=lambda array: array.tolist()))
"""


def mirrored(module, expression):
    """Returns the value of an expression in a test module, taken on two devices.

    Args:
        module: name of a test module.
        expression: Python source within that module, evaluated in the scope of a
            `tf.distribute.MirroredStrategy`; arrays in its value become lists.
    """
    program = MIRRORED + PROGRAM.format(module=module, expression=expression)
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])
