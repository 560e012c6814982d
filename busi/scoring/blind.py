"""Blind predictors: predictors that never look at an image, scored under the published metrics and targets.

A published row that scores no better than one of them has learned nothing from the images:

- a constant: one probability for every pixel (`busi.scoring.floors`);
- two biases (`train_biases`): a network of which only the two output biases are left, trained with the row's own
  optimizer, loss and order of images. Like the published numbers, its scores are averaged while the biases move, so
  that they follow the class of the last images;
- the mean mask (`score_mean_mask`): the mean of all targets, pixel by pixel, the same for every image.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from busi.config import DECAYS, RunConfig

THRESHOLDS = np.concatenate([[-1e-7], np.arange(1, 199) / 199, [1 + 1e-7]])
"""Thresholds of Keras' `AUC()`: 200, evenly spread, the outermost just outside of [0, 1]."""


def train_biases(targets: np.ndarray, orders: np.ndarray, config: RunConfig) -> pd.DataFrame:
    """Train two output biases that see no image, and return the scores of the last epoch for each order of the images.

    The loss is the published cross-entropy of the logits: the mean over both channels of softplus(b) - b y, whose
    gradient by a bias is (sigmoid(b) - y) / 2. It is linear in y, so that the mean target of each image is enough.

    Args:
        targets: float (n, h, w, 2), lesion and background, as `busi.dataset.arrays.published_arrays` makes them.
        orders: int (k, n): k orders in which the images are seen, each the same in every epoch.
        config: Its `optimizer`, `learning_rate`, `momentum`, `schedule` and `epochs` count.

    Returns:
        One row for each order: `loss`, `accuracy` and `auc` (both channels pooled), averaged over the epoch as Keras
        does.
    """
    means = targets.mean(axis=(1, 2), dtype=np.float64)
    background = (targets[..., 0] < targets[..., 1]).mean(axis=(1, 2))
    orders = np.asarray(orders)
    biases = np.zeros((len(orders), 2))
    optimizer = _Adam(biases) if config.optimizer == "adam" else _Momentum(biases, config.momentum)
    rates = iter(_rates(config, planned_steps=config.epochs * len(means)))
    for _ in range(config.epochs):
        losses, accuracies, probabilities = [], [], []
        for images in orders.T:
            y = means[images]
            # What Keras accumulates before a step is what the step starts from.
            losses.append((np.logaddexp(0, biases) - biases * y).mean(axis=1))
            lesion = _sigmoid(biases[:, 0] - biases[:, 1])
            accuracies.append(np.where(lesion > 0.5, 1 - background[images], background[images]))
            probabilities.append(lesion)
            gradient = (_sigmoid(biases) - y) / 2
            biases += optimizer.step(gradient, next(rates))
    scores = {"loss": np.mean(losses, axis=0), "accuracy": np.mean(accuracies, axis=0)}
    return pd.DataFrame(scores).assign(auc=_pooled_auc(targets, orders, np.array(probabilities).T))


class _Momentum:
    """Keras' SGD with momentum."""

    def __init__(self, parameters: np.ndarray, momentum: float):
        self.momentum = momentum
        self.velocity = np.zeros_like(parameters)

    def step(self, gradient: np.ndarray, rate: float) -> np.ndarray:
        """Return the change of the parameters."""
        self.velocity = self.momentum * self.velocity - rate * gradient
        return self.velocity


class _Adam:
    """Keras' Adam with its default betas and epsilon."""

    def __init__(self, parameters: np.ndarray):
        self.mean = np.zeros_like(parameters)
        self.square = np.zeros_like(parameters)
        self.steps = 0

    def step(self, gradient: np.ndarray, rate: float) -> np.ndarray:
        """Return the change of the parameters."""
        self.steps += 1
        self.mean += (gradient - self.mean) * 0.1
        self.square += (gradient**2 - self.square) * 0.001
        corrected = rate * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        return -corrected * self.mean / (np.sqrt(self.square) + 1e-7)


def _rates(config: RunConfig, planned_steps: int) -> np.ndarray:
    """Return the learning rate of every step, as `busi.model.optimizers.make_optimizer` sets it."""
    decays = DECAYS if config.schedule == "exponential" else 0
    return config.learning_rate * 0.96 ** (decays * np.arange(planned_steps) / planned_steps)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _pooled_auc(targets: np.ndarray, orders: np.ndarray, lesion: np.ndarray) -> list[float]:
    """Compute Keras' AUC of both channels pooled, where every pixel of an image has the same probability.

    Args:
        targets: float (n, h, w, 2); a pixel is positive where its target is above 0.
        orders: int (k, n).
        lesion: Probability of lesion when an image was seen, float (k, n), in the order of ``orders``.
    """
    positive = (targets > 0).sum(axis=(1, 2))
    negative = targets[0, ..., 0].size - positive
    areas = []
    for images, probability in zip(orders, lesion, strict=True):
        both = np.stack([probability, 1 - probability], axis=-1)
        above = both[None] > THRESHOLDS[:, None, None]
        hits = (above * positive[images]).sum(axis=(1, 2)) / positive.sum()
        false_alarms = (above * negative[images]).sum(axis=(1, 2)) / negative.sum()
        # The thresholds rise, so that both rates fall.
        areas.append(float(-np.trapezoid(hits, false_alarms)))
    return areas


def score_mean_mask(targets: np.ndarray) -> dict[str, float]:
    """Score the mean of all lesion targets, pixel by pixel, as the prediction for every image.

    Args:
        targets: float (n, h, w, 2), lesion and background.

    Returns:
        `loss`: binary cross-entropy of the probabilities, mean over both channels. `accuracy`, and `auc` with both
        channels pooled, as Keras computes them.
    """
    mask = targets[..., 0].mean(axis=0, dtype=np.float64)
    both = np.stack([mask, 1 - mask], axis=-1).clip(1e-7, 1 - 1e-7)
    # Linear in the targets, so that their mean over the images is enough.
    mean = targets.mean(axis=0, dtype=np.float64)
    loss = -(mean * np.log(both) + (1 - mean) * np.log(1 - both)).mean()
    is_background = targets[..., 0] < targets[..., 1]
    accuracy = (is_background == (mask <= 0.5)).mean()
    positive = (targets > 0).sum(axis=0)
    negative = len(targets) - positive
    above = both[None] > THRESHOLDS[:, None, None, None]
    hits = (above * positive).sum(axis=(1, 2, 3)) / positive.sum()
    false_alarms = (above * negative).sum(axis=(1, 2, 3)) / negative.sum()
    return {"loss": float(loss), "accuracy": float(accuracy), "auc": float(-np.trapezoid(hits, false_alarms))}


def draw_orders(images: int, seeds: Sequence[int]) -> np.ndarray:
    """Return one mixed order for each seed, int (k, n): those of `busi.dataset.arrays.Arrays.shuffled`."""
    return np.stack([np.random.default_rng(seed).permutation(images) for seed in seeds])
