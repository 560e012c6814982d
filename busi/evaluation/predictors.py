"""Predictors that need no training: what a network has to beat before its score means anything.

Nothing in them was fitted to BUSI's masks: their constants come from how breast ultrasound looks, and were tried out on
phantom images only.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from skimage.filters import gaussian, threshold_multiotsu
from skimage.measure import label, regionprops
from skimage.morphology import isotropic_opening
from skimage.segmentation import clear_border
from skimage.transform import resize

from busi.config import StudyError
from busi.dataset.arrays import union
from busi.dataset.catalog import Catalog, grey
from busi.evaluation import metrics

SIDE = 128
"""Pixels of the shorter side at which blobs are looked for: finer grain is speckle."""

BLUR, GAP = 2.5, 2.5
"""At that size, the blur's standard deviation and the opening's radius: under a tenth of a usual lesion's width."""


class Scored(NamedTuple):
    """What a predictor scored on all images, as a held-out run holds it.

    Attributes:
        per_image: One row an image: `image_class`, `name`, `group`, `lesion_share` and the scores of
            `busi.evaluation.metrics.per_image`.
        bins: Pixels of the lesion images by probability, as `busi.evaluation.metrics.bins`.
    """

    per_image: pd.DataFrame
    bins: pd.DataFrame


def background(pixels: np.ndarray) -> np.ndarray:
    """No lesion anywhere, whatever is shown: float32 zeros of the shape of ``pixels``."""
    return np.zeros(pixels.shape, np.float32)


def lesion(pixels: np.ndarray) -> np.ndarray:
    """Lesion everywhere, whatever is shown: float32 ones of the shape of ``pixels``.

    What a network comes to that answers every pixel alike, once a threshold is chosen by Dice.
    """
    return np.ones(pixels.shape, np.float32)


def darkest_blob(pixels: np.ndarray) -> np.ndarray:
    """The patch darker than the tissue at its depth, large, compact and near the middle, by threshold and morphology.

    The image is blurred and each row's median taken off, because sound fades with depth; the darkest of three classes
    (Otsu's method) is opened. Patches that touch a border are dropped (shadows, the dark beyond the scan), unless all
    do. Of the rest that with the largest product of area, solidity and nearness to the middle is taken, where a
    sonographer puts a lesion.

    Args:
        pixels: uint8 (h, w), grey.

    Returns:
        bool (h, w); all False where no patch survives the opening, or nothing is a grey level off its row.
    """
    shape = np.array(pixels.shape) * SIDE // min(pixels.shape)
    smooth = gaussian(resize(pixels, shape, anti_aliasing=True), BLUR)
    relative = smooth - np.median(smooth, axis=1, keepdims=True)
    if np.ptp(relative) < 1 / 255:  # a grey level
        return np.zeros(pixels.shape, bool)
    dark = isotropic_opening(relative <= threshold_multiotsu(relative)[0], GAP)
    inner = clear_border(dark)
    patches = label(inner if inner.any() else dark)
    best = max(regionprops(patches), key=lambda patch: _likeness(patch, shape), default=None)
    return np.zeros(pixels.shape, bool) if best is None else resize(patches == best.label, pixels.shape, order=0)


def scored(catalog: Catalog, groups: pd.Series) -> dict[str, Scored]:
    """Each of `PREDICTORS` on every image, at its own resolution.

    Args:
        catalog: The images.
        groups: The near-duplicate group of each image, by its name.

    Raises:
        StudyError: An image has no group.
    """
    missing = catalog.table.name[~catalog.table.name.isin(groups.index)]
    if len(missing):
        raise StudyError(f"groups: none for {len(missing)} of the images, among them {missing.iloc[0]}; expected all")
    images = catalog.table[["image_class", "name"]].assign(
        group=groups.loc[catalog.table.name].to_numpy(), lesion_share=catalog.table.lesion_share
    )
    files = zip(catalog.table.image, catalog.table.masks, strict=True)
    done = Parallel(n_jobs=2, prefer="threads")(delayed(_scored)(image, masks) for image, masks in files)
    return {name: _gathered(images, [each[name] for each in done]) for name in PREDICTORS}


PREDICTORS = {"constant": background, "everything": lesion, "darkest blob": darkest_blob}
"""By the names that files of their scores go by."""


def _likeness(patch, shape: np.ndarray) -> float:
    y, x = 1 - np.abs(2 * np.array(patch.centroid) / shape - 1)  # 1 in the middle, 0 at a border
    return patch.area * patch.solidity * y * x


def _scored(image: str, masks: list[str]) -> dict[str, tuple[dict, pd.DataFrame]]:
    pixels, truth = grey(image), union(masks)
    predictions = {name: predict(pixels).astype(np.float32) for name, predict in PREDICTORS.items()}
    return {name: (metrics.per_image(truth, p, 0.5), metrics.bins(truth, p)) for name, p in predictions.items()}


def _gathered(images: pd.DataFrame, done: list[tuple[dict, pd.DataFrame]]) -> Scored:
    per_image = images.join(pd.DataFrame([scores for scores, _ in done]))
    lesions = images.image_class != "normal"
    bins = sum(table.set_index("probability") for (_, table), kept in zip(done, lesions, strict=True) if kept)
    return Scored(per_image, bins.reset_index())
