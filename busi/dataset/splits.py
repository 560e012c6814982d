"""Which image is trained on, decides when to stop, or is scored, in each fold of the cross-validation.

Five folds, stratified by class and lesion size. Every image, normals included, is in the test part of exactly one fold.
What is left is divided into a training part and an inner validation part, which alone decides the epoch and the
threshold. Under the grouped split no near-duplicates stand on two sides; the random split exists to measure what that
leak is worth.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from busi.config import FOLDS, ROOT, StudyError
from busi.dataset import duplicates
from busi.dataset.catalog import Catalog

KINDS = ("grouped", "random")
PARTS = ("training", "validation", "test")
VALIDATION = 7
"""One seventh of what the test part leaves is the inner validation part."""

SEED = 0
"""Of the shuffle before the images are dealt out; another one makes other splits."""


def of(catalog: Catalog, kind: str) -> pd.DataFrame:
    """The split of a data set: BUSI's from ``params/splits-<kind>.csv``, any other's made here.

    Args:
        catalog: The images.
        kind: One of `KINDS`.

    Returns:
        As `make`.

    Raises:
        StudyError: The file is not what `write` wrote.
    """
    found = read(file(kind))
    if found is not None and found.attrs["fingerprint"] == catalog.fingerprint:
        if list(found.name) != list(catalog.table.name):
            raise StudyError(f"{file(kind)}: not the data's images in their order; restore it (git checkout)")
        return found
    return make(catalog, kind)


def file(kind: str) -> Path:
    """Where BUSI's split is kept, for anyone to use."""
    return ROOT / "params" / f"splits-{kind}.csv"


def make(catalog: Catalog, kind: str) -> pd.DataFrame:
    """Split ``catalog``.

    Returns:
        One row an image in the order of ``catalog.table``: `image_class`, `name`, `group` (near-duplicates share one),
        `stratum`, and `fold0` to `fold4`, each one of `PARTS`.

    Raises:
        StudyError: No stratum has an image for every fold.
    """
    groups, strata = duplicates.groups(catalog), _strata(catalog.table)
    if _largest(strata) < FOLDS:
        raise StudyError(
            f"{len(strata)} images: at most {_largest(strata)} of a class and lesion size; expected {FOLDS} or more of "
            "one, so that each fold can test one: give more images"
        )
    split = catalog.table[["image_class", "name"]].assign(group=groups, stratum=strata)
    apart = groups if kind == "grouped" else np.arange(len(groups))
    with warnings.catch_warnings():
        # A few images, as drawn for a trial, leave some stratum without an image for every part.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for fold, (rest, _) in enumerate(_folds(FOLDS).split(strata, strata, apart)):
            part = np.full(len(split), "test", dtype=object)
            # For the same reason there may be fewer parts than seven.
            parts = min(VALIDATION, _largest(strata[rest]))
            _, validation = next(_folds(parts).split(rest, strata[rest], apart[rest]))
            part[rest] = "training"
            part[rest[validation]] = "validation"
            split[f"fold{fold}"] = part
    return split


def write(catalog: Catalog, kind: str) -> Path:
    """Write the split of ``catalog`` into its file, headed by the fingerprint of the data it belongs to."""
    table = make(catalog, kind).to_csv(index=False)
    file(kind).write_text(f"# data {catalog.fingerprint}\n{table}", encoding="utf-8")
    return file(kind)


def read(path: Path) -> pd.DataFrame | None:
    """The split in a file, as `make`, with the data's fingerprint in ``attrs``; None if there is no file.

    Raises:
        StudyError: The first line does not name the data, or a part has another name than `PARTS`.
    """
    if not path.is_file():
        return None
    head, _, table = path.read_text(encoding="utf-8").partition("\n")
    split = pd.read_csv(io.StringIO(table))
    parts = split.filter(regex=r"^fold\d$")
    if not head.startswith("# data ") or parts.shape[1] != FOLDS or not parts.isin(PARTS).all(axis=None):
        raise StudyError(
            f"{path}: not a split; expected '# data FINGERPRINT' and {FOLDS} columns of {', '.join(PARTS)}"
        )
    split.attrs["fingerprint"] = head.removeprefix("# data ").strip()
    return split


def _strata(table: pd.DataFrame) -> np.ndarray:
    """Class and, of lesions, the tercile of the area, e.g. "benign 0"."""
    lesions = table.image_class != "normal"
    tercile = pd.qcut(table.lesion_share.where(lesions).rank(method="first"), 3, labels=False)
    return (table.image_class + tercile.map(lambda t: "" if pd.isna(t) else f" {t:.0f}")).to_numpy()


def _largest(strata: np.ndarray) -> int:
    return int(np.unique(strata, return_counts=True)[1].max())


def _folds(number: int) -> StratifiedGroupKFold:
    return StratifiedGroupKFold(number, shuffle=True, random_state=SEED)
