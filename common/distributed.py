"""One training on several devices or machines, with the weights that one would give.

```python
strategy = tf.distribute.MirroredStrategy()
with strategy.scope():
    model = ...  # built and compiled
distributed.fit(model, batches, strategy=strategy, epochs=3, steps_per_epoch=100)
```

Keras 3's own `fit` works under `MirroredStrategy` and fails under
`MultiWorkerMirroredStrategy` (keras-team/keras#20585). It also clips the gradient of
every replica before it adds them up, and takes the mean of the replicas' means for the
mean of a batch. Here a batch is one batch, however many replicas share it.
"""

import functools
from pathlib import Path

import keras
import tensorflow as tf

from common import resume, sweep

# What begins with an underscore below is Keras's own; this is what it is tested with.
KERAS_VERSIONS = ("3.15",)


def fit(
    model,
    batches,
    *,
    strategy,
    epochs,
    steps_per_epoch,
    backup_dir=None,
    callbacks=(),
):
    """Trains a model with every batch shared among the replicas of a strategy.

    Goes on where a training with the same `backup_dir` was interrupted.

    Args:
        model: built and compiled in the scope of `strategy`, without XLA; its
            `train_step` is what every replica runs.
        batches: `tf.data.Dataset` of whole batches without end, the same in every
            process; those of fewer rows than there are replicas are left out.
        strategy: `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy`.
        epochs: int.
        steps_per_epoch: int.
        backup_dir: path of a folder that all workers see, or None.
        callbacks: Keras callbacks, called in every process as `fit` does, but where a
            batch begins.

    Returns:
        The `keras.callbacks.History`; its logs are means over the replicas.

    Raises:
        ImportError: If this version of Keras is none of `KERAS_VERSIONS`.
    """
    if not keras.__version__.startswith(KERAS_VERSIONS):
        raise ImportError(
            f"`distributed.fit` relies on the inside of Keras and was tested with "
            f"{', '.join(KERAS_VERSIONS)}. Found: {keras.__version__}"
        )
    with strategy.scope():
        model._symbolic_build(data_batch=batches.element_spec)
    share_loss(model)
    add_up_gradients(model.optimizer)
    backup = Backup(backup_dir, strategy)
    done = backup.restore(model) if backup_dir else 0
    rows = strategy.distribute_datasets_from_function(
        functools.partial(rows_of_replicas, batches.skip(done * steps_per_epoch))
    )

    @tf.function(reduce_retracing=True)
    def step(batch):
        logs = strategy.run(model.train_step, args=(batch,))
        return {
            name: strategy.reduce("MEAN", value, axis=None)
            for name, value in logs.items()
        }

    history = keras.callbacks.History()
    backups = [backup] if backup_dir else []
    calls = keras.callbacks.CallbackList([history, *callbacks, *backups], model=model)
    calls.on_train_begin()
    rows = iter(rows)
    for epoch in range(done, epochs):
        model.reset_metrics()
        calls.on_epoch_begin(epoch)
        for batch in range(steps_per_epoch):
            logs = {name: float(value) for name, value in step(next(rows)).items()}
            calls.on_train_batch_end(batch, logs)
        calls.on_epoch_end(epoch, logs)
    calls.on_train_end()
    return history


def rows_of_replicas(batches, context):
    """Yields of each batch the rows of this process's replicas, one after the other.

    Args:
        batches: `tf.data.Dataset` of structures of tensors `(batch, ...)`.
        context: `tf.distribute.InputContext`.

    Returns:
        `tf.data.Dataset` of the same structures, of tensors `(rows, ...)`, without the
        batches of fewer rows than there are replicas.
    """
    replicas = context.num_replicas_in_sync
    here = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * here

    def enough(*batch):
        return tf.shape(tf.nest.flatten(batch)[0])[0] >= replicas

    def split(*batch):
        def rows(replica):
            return tf.nest.map_structure(
                lambda tensor: tensor[replica::replicas], batch
            )

        return tf.data.Dataset.range(first, first + here).map(rows)

    return batches.filter(enough).flat_map(split).prefetch(tf.data.AUTOTUNE)


def share_loss(model):
    """Has a model weigh a replica's loss by its part in the batch.

    That part is of the sample weights, or of the rows if there are none: the mean of
    what the replicas return is then the loss of the batch.

    Args:
        model: `keras.Model`, whose `compute_loss` is replaced.
    """
    compute_loss = model.compute_loss

    def shared(x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = compute_loss(x, y, y_pred, sample_weight, training)
        rows = tf.shape(tf.nest.flatten(y)[0])[0]
        part = tf.cast(rows, loss.dtype)
        if sample_weight is not None:
            part = tf.reduce_sum(tf.cast(sample_weight, loss.dtype))
        context = tf.distribute.get_replica_context()
        return loss * part / context.all_reduce("mean", part)

    model.compute_loss = shared


def add_up_gradients(optimizer):
    """Has an optimizer add up the replicas' gradients before it clips, not after.

    Args:
        optimizer: `keras.optimizers.Optimizer`, whose `apply` is replaced.
    """
    apply = optimizer.apply

    def apply_sum(grads, trainable_variables=None):
        context = tf.distribute.get_replica_context()
        return apply(context.all_reduce("sum", list(grads)), trainable_variables)

    optimizer.apply = apply_sum
    optimizer._all_reduce_sum_gradients = lambda pairs: pairs


class Backup(resume.Backup):
    """Keeps the state of a training that several processes share: the first writes.

    Args:
        folder: path of a folder that all workers see, or None where nothing is kept.
        strategy: see `fit`.
    """

    def __init__(self, folder, strategy):
        super().__init__(folder or "")
        self.cluster = strategy.cluster_resolver

    def on_epoch_end(self, epoch, logs=None):
        if self.cluster is None or not self.cluster.task_id:
            super().on_epoch_end(epoch, logs)


def launch(train, settings, *, workers, folder, cpus=1):
    """Runs a function on several workers of a Ray cluster, and again if one dies.

    Ray Train sets `TF_CONFIG` for `tf.distribute.MultiWorkerMirroredStrategy`, which
    the function makes before it does anything else with TensorFlow. `RAY_ADDRESS`
    names the cluster, as for `common.sweep`; without it workers are local.

    Args:
        train: function of `settings`, defined in a module; it calls `fit` with a
            `backup_dir`, which is where a new attempt goes on.
        settings: dict.
        workers: int.
        folder: path, where Ray keeps its records; on a cluster all workers see it.
        cpus: int, of each worker.

    Raises:
        ImportError: If Ray is not installed.
    """
    sweep.connected()
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    TensorflowTrainer(
        train,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=workers, resources_per_worker={"CPU": cpus}
        ),
        run_config=RunConfig(
            storage_path=str(Path(folder).resolve()),
            failure_config=FailureConfig(max_failures=sweep.RETRIES),
        ),
    ).fit()
