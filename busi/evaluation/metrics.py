"""What one predicted image scores against its mask, and what the pixels of many images say together.

Everything is computed at the image's original resolution, and distances are in its pixels: BUSI publishes no pixel
size. Distances are those of DeepMind's `surface-distance` (PyPI, pinned in requirements.lock): a surface point is a
pixel corner with both lesion and background around it, what lies beyond the image is background, and each point weighs
as much as the length of the contour there. Other libraries define surfaces otherwise and give other numbers
(Podobnik, Vrtovec, arXiv:2410.02630).

Empty masks, the convention:

- A lesion image's mask is never empty; `busi.dataset.catalog` refuses one that is.
- An empty prediction on a lesion image scores as the worst there is: 0 in dice, iou, recall, nsd, detected and in
  precision (which is 0 / 0 there), and the image's diagonal in hd95, which no prediction exceeds. Left out of a mean
  instead, it would be rewarded.
- A normal image's mask is empty, whatever is predicted: accuracy, brier and predicted_share are numbers, the rest is
  missing (nan), an empty prediction included. A perfect dice for it would reward the network that finds nothing.
"""

import numpy as np
import pandas as pd
import surface_distance
from skimage.measure import label
from skimage.metrics import contingency_table
from sklearn.metrics import roc_auc_score

from busi.config import StudyError

NSD_TOLERANCE = 2.0
"""Pixels by which two contours may differ and still agree: under half a percent of a usual image's side.

The tolerance ought to be what annotators differ by (Nikolov et al., arXiv:1809.04430), which is not known of BUSI: its
images are annotated once. The one image that it has under two labels, `benign (433)` and `malignant (145)`, was drawn
twice, and more than 2 pixels apart: so this is strict. It is not too strict for a network of 128 pixels, a quarter of
the resolution: masks made that small and large again keep an nsd of nearly 1.
"""

HIT_IOU = 0.1
"""IoU from which on a predicted component has hit a lesion: that of the PI-CAI challenge (`picai_eval`).

Low, because it asks whether the lesion was found; above zero, because a prediction of everything touches each lesion.
"""

BINS = 1000
"""Equal bins of [0, 1] that pixels are counted in; probabilities are known to half a bin from there on."""

RELIABILITY_BINS = 10
"""Equal bins of the reliability curve and of the calibration error, each of them `BINS` / 10 of the fine ones."""

LESION_SCORES = ("dice", "iou", "precision", "recall", "hd95", "nsd", "detected")
"""The scores that only an image with a lesion has."""


def per_image(truth: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, float]:
    """The scores of one image; a pixel is predicted lesion where its probability is at least ``threshold``.

    Args:
        truth: bool (h, w), the union of the image's masks; all False for a normal image.
        probability: Of lesion, float (h, w), 0 to 1.
        threshold: Above 0 and below 1.

    Returns:
        `dice`, `iou`, `precision`, `recall`: overlap of the pixels, 0 to 1.
        `hd95`: The larger of the two directed 95th percentiles of the distance between the contours, pixels.
        `nsd`: Normalized surface distance (surface Dice) at `NSD_TOLERANCE`, 0 to 1.
        `detected`: Share of the mask's lesions (8-connected components) that a predicted component hits, 0 to 1: IoU
            of the two at least `HIT_IOU`.
        `accuracy`: Share of pixels predicted right.
        `brier`: Mean of (probability - truth) squared over the pixels, 0 to 1.
        `predicted_share`: Share of pixels predicted lesion.

        The module's text says what is what where a mask is empty.

    Raises:
        StudyError: An argument is not as above.
    """
    _check(truth, probability)
    if not 0 < threshold < 1:
        raise StudyError(f"threshold: {threshold}; expected a number above 0 and below 1")
    predicted = probability >= threshold
    scores = {
        "accuracy": float((truth == predicted).mean()),
        "brier": float(np.square(probability - truth, dtype=np.float64).mean()),
        "predicted_share": float(predicted.mean()),
    }
    if not truth.any():
        return dict.fromkeys(LESION_SCORES, np.nan) | scores
    return _overlap(truth, predicted) | _surface(truth, predicted) | {"detected": _detected(truth, predicted)} | scores


def bins(truth: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """The pixels of one image, counted by their probability; the counts of several images may be added.

    Args:
        truth: bool, of any shape.
        probability: Of lesion, float of that shape, 0 to 1.

    Returns:
        One row for each of the `BINS` equal bins of [0, 1]: `probability` (its middle), `lesion` and `background`
        (pixels). A bin holds its lower end and not its upper one, save the last, which holds 1.

    Raises:
        StudyError: An argument is not as above.
    """
    _check(truth, probability)
    exact = probability.astype(np.float64)  # NumPy would round the edges to the type of what it counts
    lesion, _ = np.histogram(exact[truth], BINS, (0, 1))
    background, _ = np.histogram(exact[~truth], BINS, (0, 1))
    middles = ((np.arange(BINS) + 0.5) / BINS).round(6)
    return pd.DataFrame({"probability": middles, "lesion": lesion, "background": background})


def pooled(bins: pd.DataFrame) -> dict[str, float]:
    """The scores of all pixels together, each probability taken as its bin's middle.

    Args:
        bins: As `bins` makes them; tables of several parts may stand one below the other.

    Returns:
        `auc`: Area under the ROC curve of lesion against background; two pixels of one bin are a tie.
        `brier`: Mean of (probability - truth) squared.
        `ece`: Expected calibration error: the mean over pixels of the absolute difference between
            `predicted` and `observed` in their bin of `reliability` (Naeini, Cooper, Hauskrecht, AAAI 2015).
    """
    truth = np.repeat([True, False], len(bins))
    probability = np.tile(bins.probability, 2)
    pixels = np.concatenate([bins.lesion, bins.background])
    curve = reliability(bins)
    return {
        "auc": float(roc_auc_score(truth, probability, sample_weight=pixels)),
        "brier": float(np.average((probability - truth) ** 2, weights=pixels)),
        "ece": float(np.average((curve.predicted - curve.observed).abs(), weights=curve.pixels)),
    }


def reliability(bins: pd.DataFrame) -> pd.DataFrame:
    """The reliability curve: how often a pixel is lesion, against how probable it was said to be.

    Args:
        bins: As `pooled` takes them.

    Returns:
        One row for each of the `RELIABILITY_BINS` equal bins of [0, 1] that holds a pixel: `predicted` (mean
        probability), `observed` (share of lesion), `pixels`.
    """
    pixels = bins.lesion + bins.background
    sums = pd.DataFrame({"predicted": bins.probability * pixels, "observed": bins.lesion, "pixels": pixels})
    sums = sums.groupby((bins.probability * RELIABILITY_BINS).astype(int).to_numpy()).sum()
    sums = sums[sums.pixels > 0].reset_index(drop=True)
    return sums.assign(predicted=sums.predicted / sums.pixels, observed=sums.observed / sums.pixels)


def _check(truth: np.ndarray, probability: np.ndarray) -> None:
    if truth.dtype != bool:
        raise StudyError(f"truth: of type {truth.dtype}; expected bool")
    if truth.shape != probability.shape or not truth.size:
        raise StudyError(f"probability: of shape {probability.shape}, truth of {truth.shape}; expected the same pixels")
    if not (probability.min() >= 0 and probability.max() <= 1):  # so that nan is refused
        raise StudyError(f"probability: from {probability.min()} to {probability.max()}; expected 0 to 1")


def _overlap(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    both, lesion, found = (int(each.sum()) for each in (truth & predicted, truth, predicted))
    return {
        "dice": 2 * both / (lesion + found),
        "iou": both / (lesion + found - both),
        "precision": both / found if found else 0.0,
        "recall": both / lesion,
    }


def _surface(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    if not predicted.any():
        return {"hd95": float(np.hypot(*truth.shape)), "nsd": 0.0}
    distances = surface_distance.compute_surface_distances(truth, predicted, spacing_mm=(1, 1))
    return {
        "hd95": float(surface_distance.compute_robust_hausdorff(distances, 95)),
        "nsd": float(surface_distance.compute_surface_dice_at_tolerance(distances, NSD_TOLERANCE)),
    }


def _detected(truth: np.ndarray, predicted: np.ndarray) -> float:
    seen = truth | predicted
    pixels = contingency_table(label(truth)[seen], label(predicted)[seen]).toarray()
    both = pixels[1:, 1:]
    either = pixels.sum(axis=1)[1:, None] + pixels.sum(axis=0)[None, 1:] - both
    return float((both >= HIT_IOU * either).any(axis=1).mean())
