"""Blind predictors: predictors that never look at an image, scored under the published metrics and targets.

A published row whose AUC is no higher and whose loss is no lower than theirs does not show that its network used the
images:

- a constant: one probability for every pixel (`busi.scoring.floors`);
- two biases (`train_biases`): a network reduced to its two output biases, trained with the row's own optimizer, loss
  and order of images. Like the published numbers, its scores are averaged while the biases change. They depend on the
  order, because the biases follow the class of the most recent images;
- the mean mask (`score_mean_mask`): the mean of all targets, pixel by pixel, the same for every image.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit, log_softmax, softmax

from busi.config import DECAYS, RunConfig, StudyError

THRESHOLDS = np.concatenate([[-1e-7], np.arange(1, 199) / 199, [1 + 1e-7]])
"""The 200 thresholds of Keras' `AUC()`: evenly spaced, the outermost just outside [0, 1]."""


_AS_PUBLISHED = ("bce", "clipped", "weight_decay", "shuffle", "batch_size")
"""`RunConfig` fields that `train_biases` knows with their published values only."""


def train_biases(targets: np.ndarray, orders: np.ndarray, config: RunConfig) -> pd.DataFrame:
    """Train two output biases that see no image, and return the scores of the last epoch for each order of the images.

    Args:
        targets: float (n, h, w, 2), lesion and background, as `busi.dataset.arrays.published_arrays` makes them.
        orders: int (k, n): k orders of the images, each repeated in every epoch.
        config: Only `loss` ("bce", "kld" or "dice", as published), `optimizer`, `learning_rate`, `momentum`,
            `schedule`, `epochs` and `last_steps` are used.

    Returns:
        One row for each order: `loss`, `accuracy` and `auc` (both channels pooled), averaged over the epoch as Keras
        does.

    Raises:
        StudyError: A setting that would change the training of the biases has a value that is not known here.
    """
    _refuse_unknown_settings(config)
    # All pixels get the same prediction, so the accuracy on an image follows from its share of background.
    background = (targets[..., 0] < targets[..., 1]).mean(axis=(1, 2))
    orders = np.asarray(orders)
    biases = np.zeros((len(orders), 2))
    optimizer = _Optimizer(config, planned_steps=config.epochs * len(targets))
    differentiate = _LOSSES[config.loss](targets)
    for epoch in range(config.epochs):
        if epoch == config.epochs - 1 and config.last_steps:
            orders = orders[:, : config.last_steps]
        # Only those of the last epoch are kept.
        losses, accuracies, probabilities = [], [], []
        for images in orders.T:
            loss, gradient = differentiate(biases, images)
            lesion = expit(biases[:, 0] - biases[:, 1])
            # Keras accumulates the metrics of the weights that a step starts from.
            losses.append(loss)
            accuracies.append(np.where(lesion > 0.5, 1 - background[images], background[images]))
            probabilities.append(lesion)
            biases += optimizer.step(gradient)
    positive = (targets > 0).sum(axis=(1, 2))
    areas = []
    for images, lesion in zip(orders, np.transpose(probabilities), strict=True):
        # Every pixel of an image has the same probability.
        both = np.stack([lesion, 1 - lesion], axis=-1)
        areas.append(_pool_auc(both, positive[images], targets[0, ..., 0].size))
    scores = {"loss": np.mean(losses, axis=0), "accuracy": np.mean(accuracies, axis=0), "auc": areas}
    return pd.DataFrame(scores)


def find_ranges(scores: pd.DataFrame) -> dict[str, float]:
    """Return the lowest and highest value of each column, e.g. `loss_low`, and the number of rows as `orders`."""
    ranges: dict[str, float] = {"orders": len(scores)}
    for name, column in scores.items():
        ranges |= {f"{name}_low": column.min(), f"{name}_high": column.max()}
    return ranges


def _refuse_unknown_settings(config: RunConfig) -> None:
    published = RunConfig()
    values = {name: getattr(config, name) for name in _AS_PUBLISHED}
    unknown = {name: value for name, value in values.items() if value != getattr(published, name)}
    if config.schedule == "cosine":
        unknown["schedule"] = "cosine"
    if unknown:
        settings = ", ".join(f"{name} {value!r}" for name, value in unknown.items())
        raise StudyError(
            f"{config.label}: the two biases cannot be trained with {settings}; expected the published values: leave "
            "these settings out, or teach busi/scoring/blind.py what they do"
        )


Differentiate = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Function of biases, float (k, 2), and the images they see, int (k,): losses (k,) and gradients (k, 2)."""


def _differentiate_bce(targets: np.ndarray) -> Differentiate:
    """Differentiate the published BCE: mean over both channels of softplus(b) - b y, linear in the mean target."""
    means = targets.mean(axis=(1, 2), dtype=np.float64)

    def differentiate(biases, images):
        y = means[images]
        return (np.logaddexp(0, biases) - biases * y).mean(axis=1), (expit(biases) - y) / 2

    return differentiate


def _differentiate_kld(targets: np.ndarray) -> Differentiate:
    """Differentiate the published KLD: sum over channels of y log(y / p), y clipped as in Keras; linear in mean y."""
    clipped = np.clip(targets.astype(np.float64), 1e-7, 1)
    means = clipped.mean(axis=(1, 2))
    entropies = (clipped * np.log(clipped)).sum(axis=-1).mean(axis=(1, 2))

    def differentiate(biases, images):
        y = means[images]
        loss = entropies[images] - (y * log_softmax(biases, axis=1)).sum(axis=1)
        return loss, y.sum(axis=1, keepdims=True) * softmax(biases, axis=1) - y

    return differentiate


def _differentiate_dice(targets: np.ndarray) -> Differentiate:
    """Differentiate the published Dice loss of one image: 1 - 2 sum(y p) / (sum(y) + pixels)."""
    sums = targets.sum(axis=(1, 2), dtype=np.float64)
    weights = 2 / (sums.sum(axis=1, keepdims=True) + targets[0, ..., 0].size)

    def differentiate(biases, images):
        overlaps = weights[images] * sums[images]
        p = softmax(biases, axis=1)
        dice = (overlaps * p).sum(axis=1, keepdims=True)
        return 1 - dice[:, 0], -p * (overlaps - dice)

    return differentiate


_LOSSES = {"bce": _differentiate_bce, "kld": _differentiate_kld, "dice": _differentiate_dice}


class _Optimizer:
    """Keras' SGD with momentum, or its Adam with default betas and epsilon, as `busi.model.optimizers` sets them."""

    def __init__(self, config: RunConfig, planned_steps: int):
        self.config = config
        decays = DECAYS if config.schedule == "exponential" else 0
        self.rates = config.learning_rate * 0.96 ** (decays * np.arange(planned_steps) / planned_steps)
        self.steps = 0
        self.mean = 0.0
        self.square = 0.0

    def step(self, gradient: np.ndarray) -> np.ndarray:
        """Return the change of the parameters in the next step, and update the moving averages."""
        rate = self.rates[self.steps]
        self.steps += 1
        if self.config.optimizer == "sgd":
            self.mean = self.config.momentum * self.mean - rate * gradient
            return self.mean
        self.mean = self.mean + (gradient - self.mean) * 0.1
        self.square = self.square + (gradient**2 - self.square) * 0.001
        # Corrects for moving averages that start at 0.
        corrected = rate * np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
        return -corrected * self.mean / (np.sqrt(self.square) + 1e-7)


def _pool_auc(both: np.ndarray, positive: np.ndarray, total: int) -> float:
    """Compute Keras' AUC of both channels pooled.

    Args:
        both: Probabilities of lesion and background, float (..., 2), each of ``total`` pixels.
        positive: Number of these pixels whose target is above 0, int (..., 2); a soft pixel is positive in both.
        total: Number of pixels.
    """
    negative = total - positive
    hits, false_alarms = [], []
    for threshold in THRESHOLDS:
        above = both > threshold
        hits.append(positive[above].sum() / positive.sum())
        false_alarms.append(negative[above].sum() / negative.sum())
    # Both rates fall as the threshold rises: without the sign the area would be negative.
    return float(-np.trapezoid(hits, false_alarms))


def score_mean_mask(targets: np.ndarray, loss: str = "bce") -> dict[str, float]:
    """Score the pixel-wise mean of all lesion targets as the prediction for every image.

    Args:
        targets: As for `train_biases`.
        loss: "bce" (of the probabilities: the mean mask has no logits), "kld" or "dice".

    Returns:
        `loss`, `accuracy` and `auc` (both channels pooled), as Keras computes them.
    """
    mask = targets[..., 0].mean(axis=0, dtype=np.float64)
    both = np.stack([mask, 1 - mask], axis=-1).clip(1e-7, 1 - 1e-7)
    is_background = targets[..., 0] < targets[..., 1]
    accuracy = (is_background == (mask <= 0.5)).mean()
    auc = _pool_auc(both, (targets > 0).sum(axis=0), len(targets))
    measure = _MEAN_MASK_LOSSES[loss]
    return {"loss": float(measure(targets, both)), "accuracy": float(accuracy), "auc": auc}


def _measure_bce(targets: np.ndarray, both: np.ndarray) -> float:
    # The loss is linear in the targets, so their mean over the images is enough.
    mean = targets.mean(axis=0, dtype=np.float64)
    return -(mean * np.log(both) + (1 - mean) * np.log(1 - both)).mean()


def _measure_kld(targets: np.ndarray, both: np.ndarray) -> float:
    clipped = np.clip(targets.astype(np.float64), 1e-7, 1)
    return (clipped * np.log(clipped / both)).sum(axis=-1).mean()


def _measure_dice(targets: np.ndarray, both: np.ndarray) -> float:
    overlap = (targets * both).sum(axis=(1, 2, 3), dtype=np.float64)
    total = targets.sum(axis=(1, 2, 3), dtype=np.float64) + both.sum()
    return (1 - 2 * overlap / total).mean()


_MEAN_MASK_LOSSES = {"bce": _measure_bce, "kld": _measure_kld, "dice": _measure_dice}


def draw_orders(images: int, seeds: Sequence[int]) -> np.ndarray:
    """Return one random order for each seed, int (k, n), as `busi.dataset.arrays.Arrays.shuffled` draws it."""
    return np.stack([np.random.default_rng(seed).permutation(images) for seed in seeds])
