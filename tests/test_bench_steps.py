"""benchmarks/bench_steps.py: what is counted around a training step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import bench_steps


@pytest.fixture
def training():
    """Three batches a pass, of two shapes: ten examples."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=True)
    inputs = np.ones((10, 2), "float32")
    dataset = tf.data.Dataset.from_tensor_slices((inputs, inputs[:, :1]))
    return bench_steps.Training(model, dataset.batch(4).repeat(), 3)


def test_a_pass_is_counted_in_examples_and_shapes(training):
    assert training.examples == 10
    assert training.shapes == {(4, 2), (2, 2)}
    assert training.input_seconds() > 0


def test_only_tracing_after_the_first_pass_is_counted(training):
    assert len(training("a pass", 2)) == 2
    assert training.traced_again == 0
    training.model.train_function = None
    training("a pass", 1)
    assert training.traced_again > 0


def test_every_question_becomes_a_row(monkeypatch, training):
    built = []

    def build(mended, plan):
        built.append(mended)
        copy = keras.models.clone_model(training.model)
        copy.compile("sgd", "mse")
        return copy, training.dataset, plan["steps"]

    monkeypatch.setattr(
        bench_steps, "TRAININGS", dict.fromkeys(bench_steps.MENDED, build)
    )
    monkeypatch.setattr(bench_steps.timing, "MIN_SECONDS", 0.0)
    results = bench_steps.measure({"rounds": 1, "steps": 3}) | {"rounds": 1}
    assert built == [False, True] * 4
    table = bench_steps.report(results)
    for question, before in bench_steps.MENDED.items():
        assert f"| {question} | {before} |" in table
    for row in results["rows"]:
        ratio = row["milliseconds_before"] / row["milliseconds"]
        assert row["before_over_after"]["median"] == pytest.approx(ratio)
        assert row["shapes"] == 2
