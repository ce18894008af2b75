"""Runs a snippet of a test module on two logical CPUs, or in two processes.

Either must be set up before TensorFlow starts, hence in processes of their own.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

MIRRORED = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, devices)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""
TWO_WORKERS = """
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
"""
PROGRAM = """
import json
import {module}
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    found = eval({expression!r}, vars({module}))
print(json.dumps(found, default=lambda array: array.tolist()))
"""


def mirrored(module, expression):
    """Returns the value of an expression in a test module, taken on two devices.

    Args:
        module: name of a module in this folder.
        expression: Python source within that module, evaluated in the scope of the
            strategy; arrays in its value become lists.
    """
    return _result(_start(MIRRORED + PROGRAM, module, expression))


def two_workers(module, expression):
    """Returns the values of an expression, see `mirrored`, in each of two workers."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    workers = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    runs = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": workers}, "task": task})
        program = TWO_WORKERS + PROGRAM
        runs.append(_start(program, module, expression, TF_CONFIG=config))
    return [_result(run) for run in runs]


def _start(program, module, expression, **environment):
    here = Path(__file__).parent
    environment["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent)])
    environment["CUDA_VISIBLE_DEVICES"] = "-1"
    return subprocess.Popen(
        [sys.executable, "-c", program.format(module=module, expression=expression)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _result(run):
    found, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    return json.loads(found.splitlines()[-1])
