"""Fates of published runs: what became of a training, decided on its training images with the final weights.

Accuracy cannot decide it: a network that marks nothing scores as high as most published rows. A fate is decided by the
spread of the predictions, and by the run's own loss and the Dice of the lesion, each compared with a predictor that
never looks at an image.
"""

import numpy as np
import pandas as pd

from busi.config import CONSTANT_SPREAD
from busi.selection import THRESHOLDS, dice_by_threshold

FATES = ("diverged", "dead", "plateau", "falling", "learned")
"""Fates from worst to best: the loss is NaN or infinite; the output is constant; none of the others; the loss is below
`FALLEN` of a constant's, but the masks are no better than the mean mask; the masks are better than that."""

FALLEN = 0.95
"""A loss below this share of the lowest loss of a constant has left the plateau.

For the published cross-entropy on BUSI, whose lowest loss of a constant is 0.3066, this means below 0.291. At 16
filters, the run that never leaves the plateau stays above 0.296 in all 75 epochs. Those that leave it, of one or two
seeds a row, take 1 to 7 epochs from 0.296 to 0.29 (``epochs.csv.xz`` of the report laptop).
"""


def measure_fate(
    lesions: np.ndarray, probability: np.ndarray, mask_dice: float, relative_loss: float, end: str
) -> dict:
    """Decide the fate of a run from what it predicts for its training images.

    Args:
        lesions: Lesion channel of the targets, float (n, o, o), 0 to 1.
        probability: Probability of lesion, float (n, o, o), 0 to 1.
        mask_dice: Mean Dice of the mean mask, as `score_mean_mask_dice`.
        relative_loss: The run's own loss with the final weights, divided by the lowest loss that a constant reaches
            (`busi.scoring.floors.lowest_loss`).
        end: Why training ended, as `busi.training.find_end`.

    Returns:
        `fate` (one of `FATES`); `relative_loss`; `crossentropy` of the probabilities, mean over pixels; `dice`: mean
        Dice of the lesion at a threshold of one half; `mask_dice`.
    """
    # A pixel that is wrong with certainty would make the cross-entropy infinite.
    p = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    crossentropy = float(-(lesions * np.log(p) + (1 - lesions) * np.log(1 - p)).mean())
    half = np.flatnonzero(np.isclose(THRESHOLDS, 0.5))[0]
    dice = float(dice_by_threshold(lesions, probability)[half])
    measured = {"relative_loss": relative_loss, "crossentropy": crossentropy, "dice": dice, "mask_dice": mask_dice}
    if end == "diverged":
        return {"fate": "diverged"} | measured
    if np.ptp(probability) <= CONSTANT_SPREAD:
        return {"fate": "dead"} | measured
    # Better than one mask for all images: the network has used something in the images.
    if dice > mask_dice:
        return {"fate": "learned"} | measured
    # By the run's own loss, not the cross-entropy of the probabilities: published BCE trains each logit by itself, so
    # that the softmax of both is overconfident. At a loss of 0.25 that cross-entropy was still above a constant's.
    fate = "falling" if relative_loss < FALLEN else "plateau"
    return {"fate": fate} | measured


def score_mean_mask_dice(lesions: np.ndarray) -> float:
    """Compute the mean Dice of the mean mask at its best threshold, from the lesion channel of the targets, (n, o, o).

    Example:
        Two images of two pixels: the first pixel is lesion in both, the second in one. A threshold that keeps one pixel
        and one that keeps both score 1 on one image and 2/3 on the other.

        >>> round(score_mean_mask_dice(np.array([[[1.0, 0.0]], [[1.0, 1.0]]])), 4)
        0.8333
    """
    mask = lesions.mean(axis=0, dtype=np.float64)
    return float(dice_by_threshold(lesions, [mask] * len(lesions)).max())


def count_fates(fates: pd.Series) -> str:
    """Return the fates of a row's runs in words, best first: "2 learned, 1 plateau"; "" without a run."""
    counts = fates.value_counts()
    return ", ".join(f"{counts[fate]} {fate}" for fate in reversed(FATES) if fate in counts)
