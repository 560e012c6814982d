"""One ruler for everyone: the study's scores of masks made by any software, beside predictors that need no training.

All rows of a table are scored on the same images: those that every predictor in it has answered.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
import pandas as pd

from busi.config import RunConfig, StudyError
from busi.dataset import arrays, duplicates
from busi.dataset.catalog import Catalog, DataWarning, read_grey, read_union
from busi.dataset.decode import SUFFIXES, decode_mask
from busi.dataset.splits import load_split
from busi.scoring import metrics, predictors
from busi.scoring.statistics import score_interval

SCORES = (*metrics.LESION_SCORES, "accuracy")
"""Scores that a table holds, each with its interval."""

BLIND = {predictors.EVERYTHING: predictors.lesion, predictors.BLOB: predictors.darkest_blob}
"""Predictors that need nothing but the image, which every table holds."""

SIZE = RunConfig(protocol="heldout", image_size=128)
"""Configuration with the size at which masks are averaged."""


class Answer(NamedTuple):
    """A predictor's answer about one image of a data set.

    Attributes:
        name: Name of the image.
        probability: Probability of lesion, float (h, w), 0 to 1; 0 and 1 alone for a mask.
        threshold: A pixel is predicted lesion if its probability is at least this.
    """

    name: str
    probability: np.ndarray
    threshold: float = 0.5


def read_masks(catalog: Catalog, folder: Path) -> Iterator[Answer]:
    """Read the masks in a folder and its subfolders, at most one for each image, matched by name without the ending.

    They are read by the rules for a data set's own masks, `busi.dataset.decode.decode_mask`, but may mark everything.
    Anything unusual about them, such as a size other than the image's, gives a `DataWarning`.

    Raises:
        StudyError: At once, if there is no such folder, no mask has the name of an image, or two have the name of the
            same image; later, when its turn comes, if a mask cannot be read.
    """
    return _decode_masks(catalog, _find_masks(catalog, folder))


def _find_masks(catalog: Catalog, folder: Path) -> dict[str, Path]:
    """Return the file of each image that has a mask in a folder, by the image's name."""
    if not folder.is_dir():
        raise StudyError(f"{folder}: no such folder; expected one of masks, like {catalog.table.name[0]}.png")
    # By exact name, in the Unicode form of a catalog's names: pairing by order, or by a part of the name, gives an
    # image the mask of another one.
    files: dict[str, Path] = {}
    names = set(catalog.table.name)
    # In any folder below, because nnU-Net and others write one for each fold.
    for file in sorted(folder.rglob("*")):
        name = normalize("NFC", file.stem)
        if file.suffix.lower() not in SUFFIXES or name not in names:
            continue
        if name in files:
            raise StudyError(f"{file}: a second mask of {name} beside {files[name]}; expected one: remove one")
        files[name] = file
    if not files:
        raise StudyError(f"{folder}: no mask has the name of an image; expected files like {catalog.table.name[0]}.png")
    return files


def _decode_masks(catalog: Catalog, files: dict[str, Path]) -> Iterator[Answer]:
    noted: dict[str, list[Path]] = {}
    for row in catalog.table.itertuples():
        if row.name in files:
            file = files[row.name]
            mask = decode_mask(file, (row.height, row.width), may_fill=True)
            for note in mask.notes:
                noted.setdefault(note, []).append(file)
            yield Answer(row.name, mask.inside.astype(np.float32))
    for note, unusual in noted.items():
        warnings.warn(f"{note}: {len(unusual)}, e.g. {unusual[0]}", DataWarning, stacklevel=2)


def ask_blindly(catalog: Catalog, predict: Callable[[np.ndarray], np.ndarray]) -> Iterator[Answer]:
    """Ask a predictor of `busi.scoring.predictors` about every image."""
    for row in catalog.table.itertuples():
        yield Answer(row.name, predict(read_grey(row.image)).astype(np.float32))


def ask_mean_mask(catalog: Catalog) -> Iterator[Answer]:
    """Answer every image with the mean of other images' masks: the training masks of the fold that tests it.

    Raises:
        StudyError: The images are too few to be split into folds.
    """
    split = load_split(catalog, "grouped")
    targets = arrays.all_arrays(catalog, SIZE).targets[..., 0]
    masks, thresholds = predictors.average_masks(catalog, split, targets, SIZE)
    for row, mask, threshold in zip(catalog.table.itertuples(), masks, thresholds, strict=True):
        yield Answer(row.name, arrays.restore(mask, row.height, row.width, SIZE), threshold)


def score_answers(catalog: Catalog, answers: Iterable[Answer]) -> pd.DataFrame:
    """Score each answer at its image's own size against all of its masks: `name`, and `metrics.score_image`.

    There is no `peak`: if a network leaves out all but the largest region, its highest probability is not known here.
    """
    masks = dict(zip(catalog.table.name, catalog.table.masks, strict=True))
    rows = []
    for name, probability, threshold in answers:
        truth = read_union(masks[name])
        scores = metrics.score_image(truth, probability, threshold)
        del scores["peak"]
        rows.append({"name": name} | scores)
    return pd.DataFrame(rows)


def compare(catalog: Catalog, scored: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare predictors on the images that all of them have answered.

    Returns:
        One row for each predictor: `predictor`; `answered`, its number of images; `n_images`, those with a lesion that
        all have answered, and over these the mean of each of `SCORES` with the ends of its 95 % interval, e.g. `dice`,
        `dice_low`, `dice_high`; `n_normals`, those without a lesion that all have answered, and `normals_fpr`, the
        share of these with any pixel predicted lesion.

        And one row for each predictor and image: `predictor`, `name`, `group` (of near-duplicates) and the scores.

    Raises:
        StudyError: No image with a lesion has been answered by all.
    """
    # Means over different images cannot be compared.
    shared = set.intersection(*[set(images.name) for images in scored.values()])
    groups = pd.DataFrame({"name": catalog.table.name, "group": duplicates.group_images(catalog)})
    rows, tables = [], []
    for predictor, images in scored.items():
        kept = groups.merge(images[images.name.isin(shared)], on="name")
        tables.append(kept.assign(predictor=predictor))
        # Told by the mask, because not every data set names classes.
        has_lesion = kept.dice.notna()
        lesions, normals = kept[has_lesion], kept[~has_lesion]
        if lesions.empty:
            raise StudyError(
                f"{predictor}: no image with a lesion has been answered by it and all others; expected one"
            )
        row = {"predictor": predictor, "answered": len(images), "n_images": len(lesions)}
        for score in SCORES:
            mean, low, high = score_interval(lesions, score)
            row |= {score: mean, f"{score}_low": low, f"{score}_high": high}
        row |= {"n_normals": len(normals), "normals_fpr": (normals.predicted_share > 0).mean()}
        rows.append(row)
    per_image = pd.concat(tables, ignore_index=True)
    per_image.insert(0, "predictor", per_image.pop("predictor"))
    return pd.DataFrame(rows), per_image
