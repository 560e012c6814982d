"""Scores of one predicted image against its mask, and scores of the pixels of many images together.

Everything is computed at the image's original resolution. Distances are in pixels, because BUSI publishes no pixel
size. They are computed by DeepMind's `surface-distance` (PyPI, pinned in requirements.lock): a surface point is a pixel
corner with both lesion and background around it, everything outside the image is background, and each point is weighted
by the length of the contour through it. Other libraries define surfaces differently and give other numbers (Podobnik,
Vrtovec, arXiv:2410.02630).

Convention for empty masks:

- The mask of a lesion image is never empty; `busi.dataset.catalog` refuses an empty one.
- An empty prediction on a lesion image gets the worst possible score: 0 in dice, iou, recall, nsd, detected and
  precision (where the formula is 0 / 0), and the image's diagonal in hd95, which no prediction exceeds. Leaving the
  image out of a mean would reward the network that finds nothing.
- The mask of a normal image is empty. Whatever is predicted, its accuracy, brier and predicted_share are numbers, and
  all other scores are missing (nan), even if the prediction is empty too. A perfect Dice would reward the network that
  finds nothing.
"""

import numpy as np
import pandas as pd
import surface_distance
from skimage.measure import label
from skimage.metrics import contingency_table

from busi.config import StudyError

NSD_TOLERANCE = 2.0
"""Distance in pixels up to which two contours agree.

It should be the distance by which annotators differ (Nikolov et al., arXiv:1809.04430). BUSI's images are annotated
once, except for one that is in the release twice, as `benign (433)` and `malignant (145)`: its two outlines are more
than 2 pixels apart, so 2 is strict. The row "Perfect mask" of every held-out table says what a network of that size can
reach.
"""

HIT_IOU = 0.1
"""Smallest IoU with which a predicted component hits a lesion, as in the PI-CAI challenge (`picai_eval`): low, because
the question is whether it was found at all, but above zero, because lesion everywhere touches every lesion."""

BINS = 1000
"""Number of equal bins of [0, 1] in which pixels are counted. Once counted, a probability is known to half a bin."""

RELIABILITY_BINS = 10
"""Number of equal bins of the reliability curve and of the calibration error; `BINS` is a multiple of it."""

LESION_SCORES = ("dice", "iou", "precision", "recall", "hd95", "nsd", "detected")
"""Scores that exist only for images with a lesion."""

PIXEL_SCORES = ("accuracy", "brier", "predicted_share", "peak")
"""Scores that exist for every image."""


def dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the Dice score 2 |truth and predicted| / (|truth| + |predicted|) of two masks, bool (h, w).

    Returns:
        A number from 0 to 1: 0 if the prediction is empty. Missing (nan) if the truth is empty, whatever is predicted.

    Example:
        >>> round(dice(np.array([True, True, False]), np.array([True, False, False])), 4)
        0.6667
    """
    # Neither 0 nor 1 would be right here: see the convention for empty masks above.
    if not truth.any():
        return np.nan
    both = int((truth & predicted).sum())
    total = int(truth.sum() + predicted.sum())
    return 2 * both / total


def keep_largest_component(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Return a map of probabilities (h, w) with 0 in every region predicted lesion (8-connected) except the largest.

    Example:
        >>> keep_largest_component(np.array([[0.9, 0.2, 0.6, 0.7]]), 0.5)
        array([[0. , 0.2, 0.6, 0.7]])
    """
    regions = label(probability >= threshold, connectivity=2)
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0  # not a region: the pixels below the threshold, which keep their probability
    is_kept = (regions == 0) | (regions == sizes.argmax())
    return np.where(is_kept, probability, 0)


def score_image(truth: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, float]:
    """Compute all scores of one image. To add a metric, add it here.

    A pixel is predicted lesion if its probability is at least ``threshold``.

    Args:
        truth: bool (h, w), the union of the image's masks; all False for a normal image.
        probability: float (h, w), probability of lesion, 0 to 1.
        threshold: A number above 0 and below 1.

    Returns:
        `dice`, `iou`, `precision`, `recall`: Overlap of the pixels, 0 to 1.
        `hd95`: 95th percentile of the distance from one contour to the other in pixels, the larger of both directions.
        `nsd`: Normalized surface distance (surface Dice) at `NSD_TOLERANCE`, 0 to 1.
        `detected`: Share of the mask's lesions (8-connected components) that are hit by a predicted component, 0 to 1.
            A hit has an IoU of at least `HIT_IOU`.
        `accuracy`: Share of pixels classified correctly.
        `brier`: Mean of (probability - truth) squared over the pixels, 0 to 1.
        `predicted_share`: Share of pixels predicted lesion.
        `peak`: Highest probability inside the mask, or in the whole image if the mask is empty. At any threshold up to
            it, the prediction touches the lesion, or marks something in an image without one.

        The convention for empty masks is in the module's docstring.

    Raises:
        StudyError: An argument does not have the type, shape or range described here.

    Example:
        >>> scores = score_image(np.array([[True, False]]), np.array([[0.8, 0.6]]), 0.5)
        >>> scores["precision"], scores["recall"], round(scores["brier"], 4)
        (0.5, 1.0, 0.2)
    """
    _check_arguments(truth, probability)
    if not 0 < threshold < 1:
        raise StudyError(f"threshold: {threshold}; expected a number above 0 and below 1")
    # In double precision, as on the validation part where thresholds are chosen: in single precision, a probability
    # just below 0.7 would equal 0.7.
    predicted = probability >= np.float64(threshold)
    squares = np.square(probability - truth, dtype=np.float64)
    pixel_scores = {
        "accuracy": float((truth == predicted).mean()),
        "brier": float(squares.mean()),
        "predicted_share": float(predicted.mean()),
        "peak": find_peak(truth, probability),
    }
    if not truth.any():
        return dict.fromkeys(LESION_SCORES, np.nan) | pixel_scores
    overlap = _score_overlap(truth, predicted)
    surface = _score_surface(truth, predicted)
    return overlap | surface | {"detected": _score_detection(truth, predicted)} | pixel_scores


def find_peak(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the highest probability inside a mask, or in the whole image if the mask is empty; both (h, w)."""
    return float(probability[truth].max() if truth.any() else probability.max())


def count_pixels(truth: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Count the pixels of one image by their probability.

    Args:
        truth: bool, of any shape.
        probability: float of the same shape, probability of lesion, 0 to 1.

    Returns:
        One row for each of the `BINS` equal bins of [0, 1]: `probability` (the middle of the bin), `lesion` and
        `background` (numbers of pixels). A bin includes its lower end but not its upper end; the last one includes 1.

    Example:
        >>> counts = count_pixels(np.array([True, False, False]), np.array([0.9, 0.9, 0.1]))
        >>> counts[counts.lesion + counts.background > 0].values.tolist()
        [[0.1005, 0.0, 1.0], [0.9005, 1.0, 1.0]]
    """
    _check_arguments(truth, probability)
    # NumPy would round the edges of the bins to the precision of the probabilities.
    exact = probability.astype(np.float64)
    lesion, _ = np.histogram(exact[truth], BINS, (0, 1))
    background, _ = np.histogram(exact[~truth], BINS, (0, 1))
    # Rounded, so that tables of several images have the same keys.
    middles = (np.arange(BINS) + 0.5) / BINS
    return pd.DataFrame({"probability": middles.round(6), "lesion": lesion, "background": background})


def add_counts(counts: list[pd.DataFrame]) -> pd.DataFrame:
    """Add the tables of `count_pixels` of several images, at least one, bin by bin into one such table."""
    return pd.concat(counts).groupby("probability", as_index=False).sum()


def pool_pixels(bins: pd.DataFrame) -> dict[str, float]:
    """Compute the scores of all pixels together, taking the middle of its bin as the probability of each pixel.

    Args:
        bins: Table made by `count_pixels`, or several of them concatenated.

    Returns:
        `auc`: Area under the ROC curve of lesion against background; two pixels in one bin are a tie.
        `auc_pooled`: The published AUC, with both channels pooled, so that every pixel counts twice.
        `accuracy_half`: The published accuracy: share of pixels classified correctly at one half, whatever the
            threshold of the masks is.
        `loss`: Mean cross-entropy of the pixels. No probability is nearer to 0 or 1 than half a bin.
        `brier`: Mean of (probability - truth) squared.
        `ece`: Expected calibration error: mean over pixels of the absolute difference between `predicted` and
            `observed` in the pixel's bin of `reliability_curve` (Naeini, Cooper, Hauskrecht, AAAI 2015).

    Example:
        >>> scores = pool_pixels(count_pixels(np.array([True, False, False]), np.array([0.9, 0.9, 0.1])))
        >>> scores["auc"], round(scores["accuracy_half"], 4), round(scores["brier"], 4)
        (0.75, 0.6667, 0.277)
    """
    from sklearn.metrics import roc_auc_score

    # Every bin appears twice, once with its lesion pixels and once with its background pixels. They are weights: a row
    # for each pixel would take gigabytes.
    truth = np.repeat([True, False], len(bins))
    probability = np.tile(bins.probability, 2)
    pixels = np.concatenate([bins.lesion, bins.background])
    # The second channel's target and probability are the complements of the first's.
    both_truths = np.concatenate([truth, ~truth])
    both_probabilities = np.concatenate([probability, 1 - probability]).round(6)
    is_right = (probability > 0.5) == truth
    squares = (probability - truth) ** 2
    losses = -np.log(np.where(truth, probability, 1 - probability))
    curve = reliability_curve(bins)
    # Weighted by pixels, because most of them are in the first bin.
    gaps = (curve.predicted - curve.observed).abs()
    auc = roc_auc_score(truth, probability, sample_weight=pixels)
    pooled = roc_auc_score(both_truths, both_probabilities, sample_weight=np.tile(pixels, 2))
    return {
        "auc": float(auc),
        "auc_pooled": float(pooled),
        "accuracy_half": float(np.average(is_right, weights=pixels)),
        "loss": float(np.average(losses, weights=pixels)),
        "brier": float(np.average(squares, weights=pixels)),
        "ece": float(np.average(gaps, weights=curve.pixels)),
    }


def reliability_curve(bins: pd.DataFrame) -> pd.DataFrame:
    """Compute the reliability curve, observed share of lesion against predicted probability; ``bins`` as `pool_pixels`.

    Returns:
        One row for each of the `RELIABILITY_BINS` equal bins of [0, 1] that holds a pixel: `predicted` (mean
        probability), `observed` (share of lesion) and `pixels` (their number).

    Example:
        >>> reliability_curve(count_pixels(np.array([True, False]), np.array([0.9, 0.9]))).values.tolist()
        [[0.9005, 0.5, 2.0]]
    """
    pixels = bins.lesion + bins.background
    expected = bins.probability * pixels
    sums = pd.DataFrame({"predicted": expected, "observed": bins.lesion, "pixels": pixels})
    coarse_bin = (bins.probability * RELIABILITY_BINS).astype(int)
    sums = sums.groupby(coarse_bin).sum()
    sums = sums[sums.pixels > 0].reset_index(drop=True)
    return sums.assign(predicted=sums.predicted / sums.pixels, observed=sums.observed / sums.pixels)


def _check_arguments(truth: np.ndarray, probability: np.ndarray) -> None:
    # A mask of 0 and 255 would be added up as numbers and give scores above 1.
    if truth.dtype != bool:
        raise StudyError(f"truth: of type {truth.dtype}; expected bool")
    if truth.shape != probability.shape or not truth.size:
        raise StudyError(f"probability: of shape {probability.shape}, truth of {truth.shape}; expected the same pixels")
    low, high = probability.min(), probability.max()
    # Negated, so that nan is refused as well: every comparison with it is false.
    if not (low >= 0 and high <= 1):
        raise StudyError(f"probability: from {low} to {high}; expected 0 to 1")


def _score_overlap(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    # The truth is not empty here, so only the precision can be 0 / 0.
    both = int((truth & predicted).sum())
    in_truth = int(truth.sum())
    in_prediction = int(predicted.sum())
    return {
        "dice": dice(truth, predicted),
        "iou": both / (in_truth + in_prediction - both),
        "precision": both / in_prediction if in_prediction else 0.0,
        "recall": both / in_truth,
    }


def _score_surface(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    # Without a contour there is no distance; the convention gives the worst score.
    if not predicted.any():
        diagonal = float(np.hypot(*truth.shape))
        return {"hd95": diagonal, "nsd": 0.0}
    distances = surface_distance.compute_surface_distances(truth, predicted, spacing_mm=(1, 1))
    hd95 = surface_distance.compute_robust_hausdorff(distances, 95)
    nsd = surface_distance.compute_surface_dice_at_tolerance(distances, NSD_TOLERANCE)
    return {"hd95": float(hd95), "nsd": float(nsd)}


def _score_detection(truth: np.ndarray, predicted: np.ndarray) -> float:
    marked = truth | predicted
    lesions = label(truth)[marked]
    components = label(predicted)[marked]
    # Entry (i, j): number of pixels that lesion i and component j share. Label 0 is the rest of the image.
    pixels = contingency_table(lesions, components).toarray()
    both = pixels[1:, 1:]
    lesion_sizes = pixels.sum(axis=1)[1:, None]
    component_sizes = pixels.sum(axis=0)[None, 1:]
    either = lesion_sizes + component_sizes - both
    hits = both >= HIT_IOU * either
    return float(hits.any(axis=1).mean())
