"""common/distributed.py: several devices or processes train as one does."""

import importlib.util
import json
import os
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from two_devices import mirrored, two_workers

from common import distributed
from q1_tbptt.tbptt import TBPTTClassifier
from q4_denoise_text.denoise_text import build_denoiser
from q4_denoise_text.pretraining import Buckets, compile_denoiser, denoising_batches

EPOCHS, STEPS, VOCAB = 2, 6, 40
HAS_RAY = importlib.util.find_spec("ray") and importlib.util.find_spec("pandas")

# A worker is killed in the second epoch, once; the training must not show it.
KILLED_ONCE = """
import json, os, pathlib, sys
from common import distributed

def train(settings):
    import keras
    import tensorflow as tf
    sys.path.append(settings["tests"])
    import test_distributed

    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    folder, worker = pathlib.Path(settings["folder"]), strategy.cluster_resolver.task_id
    steps = []

    def kill(batch, logs):
        steps.append(batch)
        here = worker == 1 and len(steps) == test_distributed.STEPS + 3
        if settings["kill"] and here and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), 9)

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=kill)
    with strategy.scope():
        found = test_distributed.train_truncated(folder / "backup", [callback])
    found["steps"] = len(steps)
    text = json.dumps(found, default=lambda array: array.tolist())
    (folder / f"found-{worker}").write_text(text)

found = []
for kill in (False, True):
    folder = pathlib.Path(sys.argv[1], str(kill))
    folder.mkdir()
    settings = {"folder": str(folder), "kill": kill, "tests": sys.argv[2]}
    distributed.launch(train, settings, workers=2, folder=folder / "ray")
    found.append([json.loads((folder / f"found-{i}").read_text()) for i in range(2)])
print(json.dumps(found))
"""


def train(model, batches, backup_dir=None, callbacks=()):
    """Train on the devices that the strategy in scope has, or with Keras on one."""
    length = {"epochs": EPOCHS, "steps_per_epoch": STEPS}
    if tf.distribute.has_strategy():
        strategy = tf.distribute.get_strategy()
        options = {"backup_dir": backup_dir, "callbacks": callbacks}
        distributed.fit(model, batches, strategy=strategy, **length, **options)
    else:
        model.fit(batches, **length, shuffle=False, verbose=0)
    return {
        "weights": model.get_weights(),
        "steps": int(model.optimizer.iterations.numpy()),
    }


def train_truncated(backup_dir=None, callbacks=()):
    """A gradient that is cut, and that clipping changes."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    token_ids = rng.integers(2, VOCAB, (60, 9)).astype("int32")
    labels = (token_ids[:, -1] % 2).astype("float32")
    model = TBPTTClassifier(keras.layers.LSTMCell(4), VOCAB, 3, t=2)
    model(token_ids)
    model.compile(
        keras.optimizers.Adam(0.01, global_clipnorm=0.01),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    # 15 rows: one replica has 8 of them and the other 7.
    batches = tf.data.Dataset.from_tensor_slices((token_ids, labels)).batch(15)
    return train(model, batches.repeat(), backup_dir, callbacks)


def train_denoiser():
    """Batches of different sizes, a loss that is a mean by weight."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, VOCAB, length) for length in rng.integers(3, 24, 300)]
    size = {"width": 16, "depth": 2, "heads": 2, "max_length": 24}
    denoiser = build_denoiser(VOCAB, dropout=0.0, **size)
    compile_denoiser(denoiser, steps=EPOCHS * STEPS, jit_compile=False)
    buckets = Buckets(rows, lengths=(8, 16, 24), tokens=200)
    return train(denoiser, denoising_batches(buckets))


def assert_same(found, expected):
    assert found["steps"] == expected["steps"] == EPOCHS * STEPS
    for weight, other in zip(found["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(weight, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["train_truncated", "train_denoiser"])
def test_two_devices_and_two_processes_end_with_the_weights_of_one(name):
    expected = globals()[name]()
    assert_same(mirrored(__name__, f"{name}()"), expected)
    for found in two_workers(__name__, f"{name}()"):
        assert_same(found, expected)


@pytest.mark.parametrize("processes, devices", [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_replicas_share_every_row_of_a_batch(processes, devices):
    replicas = processes * devices
    batches = tf.data.Dataset.from_tensor_slices(np.arange(50)).batch(20)
    batches = batches.concatenate(tf.data.Dataset.from_tensors(np.arange(replicas - 1)))
    shares = []
    for process in range(processes):
        context = types.SimpleNamespace(
            num_replicas_in_sync=replicas,
            num_input_pipelines=processes,
            input_pipeline_id=process,
        )
        rows = distributed.rows_of_replicas(batches, context)
        shares.append([share.numpy().tolist() for (share,) in rows])
    for i, batch in enumerate((range(20), range(20, 40), range(40, 50))):
        of_batch = [share[i * devices : (i + 1) * devices] for share in shares]
        sizes = [len(part) for parts in of_batch for part in parts]
        assert len(sizes) == replicas and max(sizes) - min(sizes) <= 1
        assert sorted(sum(sum(of_batch, []), [])) == list(batch)
    # The last batch has fewer rows than there are replicas.
    assert {len(share) for share in shares} == {3 * devices}


@pytest.mark.skipif(not HAS_RAY, reason="needs Ray")
def test_a_killed_worker_costs_no_more_than_an_epoch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_ONCE, str(tmp_path), os.path.dirname(__file__)],
        cwd=distributed.sweep.ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole, killed = json.loads(done.stdout.splitlines()[-1])
    assert (tmp_path / "True" / "killed").exists()
    for found, expected in zip(killed, whole, strict=True):
        assert found["steps"] == STEPS  # of the second epoch alone
        assert expected["steps"] == EPOCHS * STEPS
        for weight, other in zip(found["weights"], expected["weights"], strict=True):
            np.testing.assert_array_equal(weight, other)


def test_a_keras_that_was_not_tested_is_refused(monkeypatch):
    monkeypatch.setattr(distributed.keras, "__version__", "3.99.0")
    with pytest.raises(ImportError, match=r"tested with 3\.15\. Found: 3\.99\.0"):
        distributed.fit(None, None, strategy=None, epochs=1, steps_per_epoch=1)
