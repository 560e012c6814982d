"""Predictors that need no network. A network has to beat them before its score means anything.

Only the mean mask is made from masks: those of each fold's training part, and of its validation part for the threshold.
The constants of the darkest blob follow from what breast ultrasound usually looks like and were tried out on phantom
images only. The perfect mask is not a predictor but a ceiling: the target that a network is trained on, scored as if it
were the network's output.
"""

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from skimage.filters import gaussian, threshold_multiotsu
from skimage.measure import label, regionprops
from skimage.morphology import isotropic_opening
from skimage.segmentation import clear_border
from skimage.transform import resize

from busi.config import FOLDS, RunConfig
from busi.dataset import arrays
from busi.dataset.catalog import Catalog, read_grey, read_union
from busi.dataset.splits import load_split
from busi.scoring import metrics
from busi.scoring.scores import Scores, identify_images
from busi.selection import choose_threshold

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

    A network that gives every pixel the same probability predicts this once its threshold is chosen by Dice.
    """
    return np.ones(pixels.shape, np.float32)


def darkest_blob(pixels: np.ndarray) -> np.ndarray:
    """Predict the dark patch that is most like a lesion: large, compact and near the middle of the image.

    The image is blurred, and each row's median is subtracted, because sound fades with depth. The darkest of three
    classes (Otsu's method) is opened. Patches that touch a border (shadows, the dark area beyond the scan) are dropped,
    unless all of them do. Of the rest, the patch with the largest product of area, solidity and nearness to the middle
    is taken; the middle, because that is where a sonographer places the lesion.

    Args:
        pixels: Grey image, uint8 (h, w).

    Returns:
        bool (h, w); all False if no patch survives the opening, or if there is no contrast within any row.
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
MEAN_MASK = "Mean mask"
PERFECT = "Perfect mask"

LOOKING = {CONSTANT: background, EVERYTHING: lesion, BLOB: darkest_blob}
"""Predictors that need nothing but the image, by their names in tables."""

PREDICTORS = (*LOOKING, MEAN_MASK)
"""Names of all predictors, in the order of tables; `PERFECT` follows them."""


def score_untrained(catalog: Catalog, config: RunConfig) -> Scores:
    """Score each of `PREDICTORS`, and the ceiling `PERFECT`, on every image at its original size, like a network.

    Args:
        catalog: The images.
        config: Configuration of the networks in the same table; only its split, size and targets are used.

    Returns:
        Images and pixels as `busi.scoring.scores.Scores`, both with a leading column `predictor`.
    """
    split = load_split(catalog, config.split)
    described = identify_images(catalog, split.group.to_numpy())
    targets = arrays.all_arrays(catalog, config).targets[..., 0]
    mean_masks, thresholds = average_masks(catalog, split, targets, config)

    def score_image(position: int) -> dict[str, tuple[dict, pd.DataFrame]]:
        image = catalog.table.iloc[position]
        truth = read_union(image.masks)
        pixels = read_grey(image.image)
        predicted = {name: (predict(pixels).astype(np.float32), 0.5) for name, predict in LOOKING.items()}
        # These are at network size, and are resized to the image as a network's output is.
        small = {MEAN_MASK: (mean_masks[position], thresholds[position]), PERFECT: (targets[position], 0.5)}
        for name, (output, threshold) in small.items():
            predicted[name] = arrays.restore(output, image.height, image.width, config), threshold
        results = {}
        for name, (probability, threshold) in predicted.items():
            scores = metrics.score_image(truth, probability, threshold)
            results[name] = scores, metrics.count_pixels(truth, probability)
        return results

    # Threads are enough: most of the time is spent in compiled code that lets other threads run.
    scored = Parallel(n_jobs=2, prefer="threads")(delayed(score_image)(row) for row in range(len(described)))
    is_lesion = described.image_class != "normal"
    images, pixels = {}, {}
    for predictor in (*PREDICTORS, PERFECT):
        scores, counts = zip(*[results[predictor] for results in scored], strict=True)
        images[predictor] = described.join(pd.DataFrame(scores))
        pixels[predictor] = metrics.add_counts([counts[row] for row in np.flatnonzero(is_lesion)])
    return Scores(_name_rows(images), _name_rows(pixels))


def average_masks(
    catalog: Catalog, split: pd.DataFrame, targets: np.ndarray, config: RunConfig
) -> tuple[list[np.ndarray], list[float]]:
    """Return for each image the mean mask of the fold that tests it, at network size, and that fold's threshold.

    The threshold is chosen as for a network: by Dice over the validation part, at the images' original sizes.

    Args:
        catalog: The images.
        split: As `busi.dataset.splits.make_split`.
        targets: Lesion channel of every image, float32 (n, o, o), 0 to 1.
        config: Configuration that the targets were made with.
    """
    has_lesion = split.image_class != "normal"
    masks: list = [None] * len(split)
    thresholds: list = [None] * len(split)
    for fold in range(FOLDS):
        part = split[f"fold{fold}"]
        mean = targets[(part == "training") & has_lesion].mean(axis=0)
        validation = catalog.table[((part == "validation") & has_lesion).to_numpy()]
        truths = [read_union(files) for files in validation.masks]
        probabilities = [arrays.restore(mean, row.height, row.width, config) for row in validation.itertuples()]
        threshold = choose_threshold(truths, probabilities)
        for position in np.flatnonzero(part == "test"):
            masks[position], thresholds[position] = mean, threshold
    return masks, thresholds


def _rate_patch(patch, shape: np.ndarray) -> float:
    # Nearness is 1 in the middle and 0 at a border.
    nearness_y, nearness_x = 1 - np.abs(2 * np.array(patch.centroid) / shape - 1)
    return patch.area * patch.solidity * nearness_y * nearness_x


def _name_rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return tables one below the other, with the predictor in the first column."""
    return pd.concat(tables, names=["predictor"]).reset_index("predictor").reset_index(drop=True)
