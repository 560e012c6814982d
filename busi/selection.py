"""Choices made on the validation part: the epoch whose weights are kept, and the threshold of the probability.

The test part decides nothing: with another test part, weights, epoch and threshold would be the same.
"""

from collections.abc import Iterable

import numpy as np

THRESHOLDS = np.arange(1, 100) / 100
"""Thresholds among which one is chosen on the validation part: 0.01 to 0.99."""


def dice_by_threshold(truths: Iterable[np.ndarray], probabilities: Iterable[np.ndarray]) -> np.ndarray:
    """Compute the mean Dice over images at each of `THRESHOLDS`, float (99,).

    Dice is 2 sum(y inside) / (sum(y) + sum(inside)), also for soft truths y. It is 0 if both are empty.

    Args:
        truths: One (h, w) array per image, bool or 0 to 1.
        probabilities: Probability of lesion, one float (h, w) array per image.
    """
    rows = []
    for truth, probability in zip(truths, probabilities, strict=True):
        # Number of thresholds that each pixel reaches. A network that has diverged gives NaN, which reaches none.
        reached = np.digitize(np.nan_to_num(probability), THRESHOLDS).ravel()
        overlap = _sums_above(reached, truth.ravel())
        inside = _sums_above(reached, None)
        # The output of an unpadded network may contain no lesion: such an image counts as a lesion that was not found.
        rows.append(2 * overlap / np.maximum(truth.sum() + inside, 1e-7))
    return np.mean(rows, axis=0)


def _sums_above(reached: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Sum the weights (or count the pixels) that reach each threshold."""
    counts = np.bincount(reached, weights, minlength=len(THRESHOLDS) + 1)
    from_the_top = counts[::-1].cumsum()
    return from_the_top[::-1][1:]


def choose_threshold(truths: Iterable[np.ndarray], probabilities: Iterable[np.ndarray]) -> float:
    """Return the threshold with the best mean Dice, the smallest of equals; arguments as in `dice_by_threshold`."""
    return float(THRESHOLDS[np.argmax(dice_by_threshold(truths, probabilities))])


def best_epoch(history: list[dict]) -> int:
    """Return the epoch, from 1, with the highest `validation_dice`: the earliest of equals; NaN counts as lowest."""
    scores = [np.nan_to_num(row["validation_dice"], nan=-1) for row in history]
    return 1 + int(np.argmax(scores))
