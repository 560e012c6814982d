"""Splits of the images into training, validation and test parts, one for each fold of the cross-validation.

There are five folds. Every image, normals included, is in the test part of exactly one fold. The other images are
divided into a training part and a validation part; the validation part alone decides epoch and threshold.

The grouped split, stratified by class and lesion size, never separates near-duplicates. Two other splits measure how
much leaks without that, or in spite of it. The random split is stratified the same way, but separates near-duplicates.
The blocked split cuts the images of a class into blocks of neighbouring numbers, which often show one patient; blocks
cannot be stratified by lesion size. All near-duplicates of a group are in the block of the group's first image, so that
no block separates them: a copy with a distant number is in that block, not in the one of its own number.
"""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from busi.config import FOLDS, StudyError, find_study_folder
from busi.dataset.catalog import Catalog, read_named
from busi.dataset.duplicates import group_images

KINDS = ("random", "grouped", "blocked")
PARTS = ("training", "validation", "test")

VALIDATION = 7
"""Number of parts into which the images outside the test part are divided; one of them is the validation part."""

SEED = 0
"""Seed of the shuffle before the images are divided; another seed gives other splits."""

_HEAD = "# data "


def load_split(catalog: Catalog, kind: str) -> pd.DataFrame:
    """Return the split of a data set, as `make_split`: read from ``params/splits-<kind>.csv`` if that is of these data.

    Raises:
        StudyError: The file names these data, but does not hold a split of them; or as `make_split`.
    """
    if not split_version(kind, catalog.fingerprint):
        return make_split(catalog, kind)
    path = split_file(kind)
    split = read_named(path, skiprows=1)
    folds = split.filter(regex=r"^fold\d$")
    # A file edited by hand may lack a fold, or name a part that does not exist.
    is_complete = folds.shape[1] == FOLDS and folds.isin(PARTS).all(axis=None)
    # Rows are used by position; in another order, test images would be trained on.
    if not is_complete or list(split.name) != list(catalog.table.name):
        raise StudyError(
            f"{path}: not the split of these data; expected a row for each image, in the data's order, with {FOLDS} "
            f"columns fold0, fold1, ... that hold {', '.join(PARTS)}: restore the file (git checkout)"
        )
    return split


def split_file(kind: str) -> Path:
    """Return the path of the file that holds a split; the committed one is BUSI's."""
    return find_study_folder() / "params" / f"splits-{kind}.csv"


def read_split_file(kind: str) -> str:
    """Return the text of the file that holds a split, of whatever data; "" if there is none."""
    path = split_file(kind)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def split_version(kind: str, fingerprint: str) -> str:
    """Return the SHA-256 of the file that the split of a data set is read from; "" if the split is made instead.

    It is part of a run's key, because under another split its test images may be ones that it was trained on.
    """
    path = split_file(kind)
    content = path.read_bytes() if path.is_file() else b""
    is_of_these_data = content.startswith(f"{_HEAD}{fingerprint}\n".encode())
    return hashlib.sha256(content).hexdigest() if is_of_these_data else ""


def make_split(catalog: Catalog, kind: str) -> pd.DataFrame:
    """Divide the images into parts.

    Returns:
        One row for each image in the order of ``catalog.table``: `image_class`, `name`, `group` (shared by
        near-duplicates or images of one patient), `stratum`, and `fold0` to `fold4`, each one of `PARTS`.

    Raises:
        StudyError: No stratum has an image for every fold, there are fewer groups than folds, or a part of a fold has
            no image with a lesion.
    """
    strata = find_strata(catalog.table)
    groups = group_images(catalog)
    split = catalog.table[["image_class", "name"]].assign(group=groups, stratum=strata)
    divide = _cut_into_runs if kind == "blocked" else _stratify
    # Images of one group stay in the same part, except in the random split.
    together = split if kind != "random" else split.assign(group=np.arange(len(split)))
    found = together.group.nunique()
    if found < FOLDS:
        raise StudyError(
            f"{len(split)} images in {found} groups (patients, else near-duplicates), which stay together; expected "
            f"{FOLDS} or more, one for the test part of each fold: give images of more patients"
        )
    tested_in = divide(together, FOLDS)
    for fold in range(FOLDS):
        rest = tested_in != fold
        part = np.full(len(split), "test", dtype=object)
        # In the blocked split, each fold has another block for validation, as it has another one for the test.
        chosen = fold if kind == "blocked" else 0
        part[rest] = np.where(divide(together[rest], VALIDATION) == chosen, "validation", "training")
        split[f"fold{fold}"] = part
        _refuse_empty_part(split, kind, fold)
    return split


def _refuse_empty_part(split: pd.DataFrame, kind: str, fold: int) -> None:
    # With normal images alone, no network could be trained, no epoch chosen and no Dice computed.
    found = set(split[f"fold{fold}"][split.image_class != "normal"])
    for part in PARTS:
        if part not in found:
            raise StudyError(
                f"{kind} split, fold {fold}: no image with a lesion in the {part} part of {len(split)} images; images "
                "of one patient, else near-duplicates, stay together: give images of more patients"
            )


def _cut_into_runs(images: pd.DataFrame, parts: int) -> np.ndarray:
    """Cut each class into blocks of neighbouring numbers, about equally long; return the block of each image, from 0.

    A group is in the block of its first image, whose class and number count for all its images.
    """
    # Names without a number come last, in the order of the data.
    number = images.name.str.extract(r"(\d+)\D*$", expand=False).astype(float)
    in_order = images.assign(number=number).sort_values(["image_class", "number"], kind="stable")
    first = in_order.drop_duplicates("group")
    length = first.group.map(images.group.value_counts())
    by_class = length.groupby(first.image_class)
    # The middle of a group decides on which side of a cut it is.
    middle = by_class.cumsum() - length / 2
    run = middle * parts // by_class.transform("sum")
    return images.group.map(dict(zip(first.group, run.astype(int), strict=True))).to_numpy()


def write_splits(catalog: Catalog) -> list[Path]:
    """Write the splits of all `KINDS`, each file headed by the fingerprint of the data, and return the files.

    Raises:
        StudyError: A file holds the split of other data; or as `make_split`. Then nothing is written.
    """
    files = [split_file(kind) for kind in KINDS]
    head = f"{_HEAD}{catalog.fingerprint}"
    for file in filter(Path.is_file, files):
        found = file.read_text(encoding="utf-8").partition("\n")[0]
        if found != head:
            raise StudyError(
                f"{file}: holds the split of other data: it begins with {found!r}, not with {head!r}; move this file "
                "or delete it, or write the folds elsewhere with --format and --out"
            )
    tables = [make_split(catalog, kind).to_csv(index=False) for kind in KINDS]
    for file, table in zip(files, tables, strict=True):
        file.write_text(f"{head}\n{table}", encoding="utf-8")
    return files


def find_strata(table: pd.DataFrame) -> np.ndarray:
    """Return each image's class and, where there is a lesion, the tercile of its area, e.g. "benign 0".

    Raises:
        StudyError: No stratum has an image for every fold: there are too few images to be split.
    """
    has_lesion = table.image_class != "normal"
    # Equal areas get distinct ranks, so that the terciles have equal counts.
    rank = table.lesion_share.where(has_lesion).rank(method="first")
    # A single lesion has no terciles.
    terciles = pd.qcut(rank, 3, labels=False) if has_lesion.sum() > 1 else rank
    strata = []
    for image_class, tercile in zip(table.image_class, terciles, strict=True):
        strata.append(image_class if pd.isna(tercile) else f"{image_class} {tercile:.0f}")
    largest = _largest_count(strata)
    if largest < FOLDS:
        raise StudyError(
            f"{len(strata)} images: at most {largest} have the same class and lesion size; expected {FOLDS} or more, "
            "one for the test part of each fold: give more images"
        )
    return np.array(strata, dtype=object)


def _largest_count(strata: np.ndarray) -> int:
    _, counts = np.unique(strata, return_counts=True)
    return int(counts.max())


def _stratify(images: pd.DataFrame, parts: int) -> np.ndarray:
    """Divide the images into parts of similar strata that separate no group, and return each image's part, from 0."""
    from sklearn.model_selection import StratifiedGroupKFold

    # Scikit-learn refuses to make more parts than there are groups, or images in the largest stratum.
    parts = min(parts, _largest_count(images.stratum), images.group.nunique())
    found = np.empty(len(images), int)
    with warnings.catch_warnings():
        # A small data set has strata with fewer images than parts.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        # Scikit-learn uses only the length of the first argument.
        folds = StratifiedGroupKFold(parts, shuffle=True, random_state=SEED).split(images, images.stratum, images.group)
        for part, (_, rows) in enumerate(folds):
            found[rows] = part
    return found
