"""The contender that is this package: arrays in memory, its own stream of batches."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from busi import training
from busi.benchmark import flops
from busi.benchmark.race import CHECK, Referee
from busi.config import RunConfig
from busi.dataset import arrays, catalog
from busi.model import metrics

STEPS = 10**9
"""An epoch without end: what happens between epochs is left out of every contender's time."""


class Steps(keras.callbacks.Callback):
    """Tells a referee about the steps of `fit`, and stops when it has seen enough."""

    def __init__(self, referee: Referee, images: int, **facts: float):
        super().__init__()
        self.referee, self.images, self.facts = referee, images, facts

    def on_train_batch_end(self, batch, logs=None):
        """After a step, or all of an execution; reading the loss waits until they are really done."""
        self.model.stop_training = not self.referee.wants_more(
            self.images, float(logs["loss"]), steps=self.model.steps_per_execution, **self.facts
        )


def run(referee: Referee, config: RunConfig, data_dir: Path, weights: Path) -> None:
    """Train ``config`` on the lesion images in ``data_dir``, a few steps an execution; a run takes an epoch's.

    All start from the same ``weights``, a file that the first contender writes.
    """
    model = compiled(config, steps_per_execution=CHECK)
    start_from(model, weights)
    steps = Steps(referee, config.batch_size, flops=flops.training(model), parameters=model.count_params())
    model.fit(batches(config, data_dir), steps_per_epoch=STEPS, callbacks=[steps], shuffle=False, verbose=0)


def compiled(config: RunConfig, steps_per_execution: int = 1) -> keras.Model:
    """The network of ``config`` with the metrics of its protocol."""
    return training.compiled(config, metrics.published() if config.protocol == "published" else [], steps_per_execution)


def batches(config: RunConfig, data_dir: Path) -> tf.data.Dataset:
    """Batches without end of the lesion images in ``data_dir``."""
    made = arrays.published(catalog.read(data_dir, expected=None), config)
    return training.batches(made, config, config.batch_size, first_epoch=1)


def start_from(model: keras.Model, weights: Path) -> None:
    """Give ``model`` the weights in a file, or the file its weights if there is none."""
    if weights.is_file():
        with np.load(weights) as stored:
            model.set_weights(list(stored.values()))
    else:
        np.savez(weights, *model.get_weights())
