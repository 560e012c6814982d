"""Contender "package": the training of `busi`, with images in memory and its own stream of batches."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks import flops
from benchmarks.race import CHECK, Training
from busi import training
from busi.config import RunConfig
from busi.dataset import arrays, catalog
from busi.model import metrics


def prepare(config: RunConfig, data_dir: Path, weights: Path) -> Training:
    """Prepare training ``config`` on the lesion images in ``data_dir``, starting from the file ``weights``."""
    # A real run takes all steps of an epoch in one execution.
    model = compile_network(config, steps_per_execution=CHECK)
    start_from(model, weights)
    facts = {"flops": flops.count_training(model), "parameters": model.count_params()}
    return prepare_keras(model, stream_batches(config, data_dir), config.batch_size, facts)


def compile_network(config: RunConfig, steps_per_execution: int = 1) -> keras.Model:
    """Build and compile the network of ``config`` with the metrics of its protocol."""
    measured = metrics.published_metrics() if config.protocol == "published" else []
    return training.compile_network(config, measured, steps_per_execution=steps_per_execution)


def stream_batches(config: RunConfig, data_dir: Path) -> tf.data.Dataset:
    """Return batches without end of the lesion images in ``data_dir``."""
    images = catalog.read_catalog(data_dir, expected=None)
    prepared = arrays.published_arrays(images, config)
    return training.stream_batches(prepared, config, config.batch_size, first_epoch=1)


def start_from(model: keras.Model, weights: Path) -> None:
    """Load the model's weights from a file; the first contender, which finds no file, writes its own there."""
    if weights.is_file():
        with np.load(weights) as stored:
            model.set_weights(list(stored.values()))
    else:
        np.savez(weights, *model.get_weights())


def prepare_keras(model: keras.Model, stream: tf.data.Dataset, batch_size: int, facts: dict) -> Training:
    """Prepare the steps that ``model.fit`` takes within an epoch of ``stream``."""
    # Metrics come into being with the first batch that they see, which must not be a step.
    model.test_on_batch(*next(iter(stream)))
    model.reset_metrics()
    model.make_train_function()
    batches = iter(stream)

    def step() -> float:
        # Reading the loss waits until the step is really done.
        return float(model.train_function(batches)["loss"])

    return Training(step, batch_size, model.steps_per_execution, facts)
