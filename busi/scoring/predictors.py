"""Predictors that need no training. A network has to beat them before its score means anything.

Nothing in them was fitted to BUSI's masks: their constants come from the usual look of breast ultrasound and were tried
out on phantom images only.
"""

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from skimage.filters import gaussian, threshold_multiotsu
from skimage.measure import label, regionprops
from skimage.morphology import isotropic_opening
from skimage.segmentation import clear_border
from skimage.transform import resize

from busi.dataset import duplicates
from busi.dataset.catalog import Catalog, read_grey, read_union
from busi.scoring import metrics
from busi.scoring.scores import Scores, identify_images

SIDE = 128
"""Pixels of the shorter side at which blobs are searched: detail finer than that is speckle."""

BLUR = 2.5
"""Standard deviation of the blur in pixels at that size, less than a tenth of a usual lesion's width."""

GAP = 2.5
"""Radius of the opening in pixels at that size."""


def background(pixels: np.ndarray) -> np.ndarray:
    """Predict no lesion anywhere, whatever the image: float32 zeros of the shape of ``pixels``."""
    return np.zeros(pixels.shape, np.float32)


def lesion(pixels: np.ndarray) -> np.ndarray:
    """Predict lesion everywhere, whatever the image: float32 ones of the shape of ``pixels``.

    A network that gives every pixel the same probability ends here, once its threshold is chosen by Dice.
    """
    return np.ones(pixels.shape, np.float32)


def darkest_blob(pixels: np.ndarray) -> np.ndarray:
    """Predict the dark patch that is most like a lesion: large, compact and near the middle of the image.

    The image is blurred, and each row's median is subtracted, because sound fades with depth. The darkest of three
    classes (Otsu's method) is opened. Patches that touch a border (shadows, the dark area beyond the scan) are dropped,
    unless all of them do. Of the rest, the patch with the largest product of area, solidity and nearness to the middle
    is taken, because a sonographer places the lesion there.

    Args:
        pixels: Grey image, uint8 (h, w).

    Returns:
        bool (h, w). All False if no patch survives the opening, or if no pixel is darker than its row.
    """
    # At a fixed size, so that the constants fit images of every resolution.
    shape = np.array(pixels.shape) * SIDE // min(pixels.shape)
    smooth = gaussian(resize(pixels, shape, anti_aliasing=True), BLUR)
    relative = smooth - np.median(smooth, axis=1, keepdims=True)
    # Differences below one grey level are rounding errors, and Otsu's method needs some contrast.
    if np.ptp(relative) < 1 / 255:
        return np.zeros(pixels.shape, bool)
    darkest_class = relative <= threshold_multiotsu(relative)[0]
    dark = isotropic_opening(darkest_class, GAP)
    inner = clear_border(dark)
    patches = label(inner if inner.any() else dark)
    best = max(regionprops(patches), key=lambda patch: _rate_patch(patch, shape), default=None)
    if best is None:
        return np.zeros(pixels.shape, bool)
    # Nearest neighbour, so that the mask stays a mask.
    return resize(patches == best.label, pixels.shape, order=0)


CONSTANT = "Background everywhere"
EVERYTHING = "Lesion everywhere"
BLOB = "Darkest blob"

PREDICTORS = {CONSTANT: background, EVERYTHING: lesion, BLOB: darkest_blob}
"""Untrained predictors by their names in tables."""


def score_untrained(catalog: Catalog) -> Scores:
    """Score each of `PREDICTORS` on every image at its original size, as a held-out network is scored.

    Returns:
        Images and pixels as `busi.scoring.scores.Scores`, both with a leading column `predictor`.
    """
    groups = duplicates.find_groups(catalog)
    described = identify_images(catalog, groups)
    files = zip(catalog.table.image, catalog.table.masks, strict=True)
    # Threads are enough: most of the time is spent in compiled code that lets other threads run.
    scored = Parallel(n_jobs=2, prefer="threads")(delayed(_score_image)(image, masks) for image, masks in files)
    is_lesion = described.image_class != "normal"
    images, pixels = [], []
    for predictor in PREDICTORS:
        scores = pd.DataFrame([results[predictor][0] for results in scored])
        counts = [results[predictor][1] for results, kept in zip(scored, is_lesion, strict=True) if kept]
        total = metrics.add_counts(counts)
        images.append(described.join(scores).assign(predictor=predictor))
        pixels.append(total.assign(predictor=predictor))
    return Scores(_concatenate(images), _concatenate(pixels))


def _rate_patch(patch, shape: np.ndarray) -> float:
    # Nearness is 1 in the middle and 0 at a border.
    nearness_y, nearness_x = 1 - np.abs(2 * np.array(patch.centroid) / shape - 1)
    return patch.area * patch.solidity * nearness_y * nearness_x


def _score_image(image: str, masks: list[str]) -> dict[str, tuple[dict, pd.DataFrame]]:
    pixels, truth = read_grey(image), read_union(masks)
    results = {}
    for predictor, predict in PREDICTORS.items():
        probability = predict(pixels).astype(np.float32)
        scores = metrics.score_image(truth, probability, 0.5)
        results[predictor] = (scores, metrics.count_pixels(truth, probability))
    return results


def _concatenate(tables: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "predictor", table.pop("predictor"))
    return table
