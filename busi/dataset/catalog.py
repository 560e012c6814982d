"""Catalog of a data set: finds, reads, verifies and fingerprints its images."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TextIO

import joblib
import numpy as np
import pandas as pd
from filelock import FileLock

from busi.config import Parameters, StudyError, find_study_folder
from busi.dataset.decode import DataError, DecodedMask, Mask, decode_mask, read_grey, read_union
from busi.dataset.layouts import Manifest, pair_files
from busi.dataset.phantom import CLASSES, draw_phantoms

RELEASED = {"benign": 437, "malignant": 210, "normal": 133}
"""Number of images of each class in the public release."""

NEARLY_BLACK = 16
"""Grey level below which all pixels of a nearly black image lie."""

DARK_NOTE = "images that are nearly black: perhaps of fewer bits than their file has room for"

SHOWN_PROBLEMS = 20
"""Number of problems that an error message lists."""

SMALLEST = 8
"""Smallest height and width of an image in pixels: of fewer, nothing is left where near-duplicates are searched."""


class CountWarning(UserWarning):
    """Warns that a folder without faults does not hold as many images as the public release."""


class DataWarning(UserWarning):
    """Warns of something unusual about a folder's files that does not keep them from being read."""


@dataclass(frozen=True)
class Catalog:
    """Images of a folder.

    Attributes:
        table: One row for each image, with classes in the order of `CLASSES` and names sorted within a class:
            `image_class` ("lesion" or "normal" if the data set names no classes), `name`, `image` (path), `masks` (each
            a `Mask`), `height`, `width` (pixels), `lesion_share` (share of the image's pixels inside the union of its
            masks, 0 to 1), `group` (patient; None if the data set names none).
        fingerprint: Hash of the names, classes, patients and decoded pixels of images and of each mask. It is the same
            for the release, for a losslessly re-encoded copy, and for a copy in another layout with the same names,
            classes and patients.
        layout: As in `busi.dataset.layouts.Manifest`.
        encodings: Number of masks of each encoding, as in `DecodedMask`.
        notes: `note` and the `file` that it is about, one row for each oddity of a file.
    """

    table: pd.DataFrame
    fingerprint: str
    layout: str = ""
    encodings: dict[str, int] = field(default_factory=dict)
    notes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["note", "file"]))

    @cached_property
    def lesions(self) -> pd.DataFrame:
        """Return the rows of images with a lesion: all but the normal ones."""
        return self.table[self.table.image_class != "normal"].reset_index(drop=True)


def load_catalog(parameters: Parameters) -> Catalog:
    """Read the images of a study; if it uses phantom images and these do not exist yet, draw them first.

    Raises:
        StudyError: No folder is given, no image has a lesion; or as `read_catalog`.
    """
    if not parameters.data_dir:
        raise StudyError(
            "data_dir: not given; expected a folder of images, such as Dataset_BUSI_with_GT (make study PROFILE=... "
            "DATA=...), or a profile that names one (-f params/smoke.yaml); or set train_missing to false to read the "
            "results in a report"
        )
    folder = parameters.data_path
    if parameters.data_dir != "phantom":
        catalog = read_catalog(folder, parameters.layout)
        if catalog.lesions.empty:
            raise DataError(
                f"{folder}: none of its {len(catalog.table)} images has a lesion; expected some, which networks are "
                "trained on: give a folder whose masks mark lesions"
            )
        return catalog
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several processes of a study may start at once, but only one draws.
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            # From fewer images, a network would learn too little to show anything.
            draw_phantoms(folder, benign=60, malignant=30, normal=10)
    return read_catalog(folder, expected=None)


def read_catalog(folder: Path, layout: str = "", *, expected: dict[str, int] | None = RELEASED) -> Catalog:
    """Read and verify a folder of images.

    The result is cached, and the folder is read again when a file's size or modification time has changed. Anything
    unusual that is not a fault gives a `DataWarning`.

    Args:
        folder: Holds the images in a layout of `busi.dataset.layouts`.
        layout: As in `pair_files`; empty to detect it from the files.
        expected: Number of images of each class; another number gives a `CountWarning` for a folder in BUSI's layout.
            None for data other than BUSI.

    Raises:
        DataError: The folder has faults; names the files at fault (at most `SHOWN_PROBLEMS`) and what is wrong.
    """
    folder = Path(folder)
    manifest = pair_files(folder, layout)
    state = _describe_state(manifest)
    # A second process waits here, then finds in the cache what the first one has read.
    with FileLock(_cache_folder().with_suffix(".lock")):
        catalog = remember(_read, ignore=["manifest"])(str(folder), manifest, state)
    for note, files in catalog.notes.groupby("note", sort=False).file:
        _warn_once(f"{note}: {len(files)}, e.g. {files.iloc[0]}", DataWarning, folder)
    if catalog.layout.startswith("busi"):
        _warn_of_counts(catalog, folder, expected or {})
    return catalog


def _describe_state(manifest: Manifest) -> str:
    """Hash the files' names, sizes and modification times; to hash the pixels of 780 images would take too long."""
    files = [repr(manifest)]
    for row in manifest.rows:
        for file in map(Path, (row["image"], *row["masks"])):
            status = file.stat()
            files.append(repr((status.st_size, status.st_mtime_ns)))
    return hashlib.sha256("".join(files).encode()).hexdigest()


def _warn_of_counts(catalog: Catalog, folder: Path, expected: dict[str, int]) -> None:
    for image_class, released in expected.items():
        count = int((catalog.table.image_class == image_class).sum())
        if count != released:
            _warn_once(f"{folder / image_class}: {count} images, the release has {released}", CountWarning, folder)


# Cached, because a notebook reads its data in many cells, and Python does not remember which warnings it has shown.
@cache
def _warn_once(message: str, category: type[UserWarning], folder: Path) -> None:
    # The warning is about the folder, but Python would show the line of code that reads it.
    warnings.warn_explicit(message, category, folder.name, 1)


def remember(function: Callable, ignore: list[str] | None = None) -> Callable:
    """Return ``function`` with a cache on disk, in the study's folder.

    Args:
        function: Function of `busi.dataset`; any change of that package's files starts another cache.
        ignore: Names of arguments that do not change the result.
    """
    memory = joblib.Memory(_cache_folder(), verbose=0)
    return memory.cache(function, ignore=ignore)


def _cache_folder() -> Path:
    # Any change of the code in this folder may change what its functions return.
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    folder = find_study_folder() / "build" / "cache" / digest.hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def describe_images(catalog: Catalog) -> pd.DataFrame:
    """Return the catalog's table without paths and groups, for readers who do not have the data.

    Returns:
        One row for each image: `image_class`, `name`, `masks` (their number), `height`, `width` (pixels),
        `lesion_share` (rounded to six decimals).
    """
    table = catalog.table.drop(columns=["image", "group"])
    table["masks"] = table.masks.map(len)
    return table.round({"lesion_share": 6})


def read_named(source: Path | TextIO, *, texts: tuple[str, ...] = ("name",), skiprows: int = 0) -> pd.DataFrame:
    """Read a CSV table in which images or runs are named.

    Args:
        source: The file, or its text.
        texts: Columns that are text, whatever they look like: 000001 and 12e45678 are names, and NA is one, too.
        skiprows: Lines above the header.
    """
    # Without this, pandas would take NA, null and a dozen other words for missing values.
    missing = {"keep_default_na": False, "na_values": [""]}
    return pd.read_csv(source, dtype=dict.fromkeys(texts, str), skiprows=skiprows, **missing)


def is_released(images: pd.DataFrame) -> bool:
    """Return whether images are those of the public release, judged by the number of images of each class.

    Args:
        images: One row for each image with its `image_class`: a catalog's table, `describe_images`, or a split.
    """
    return images.image_class.value_counts().to_dict() == RELEASED


def example_images(catalog: Catalog) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Read the first image of each class.

    Returns:
        For each of them the grey pixels, uint8 (h, w), the union of its masks, bool (h, w), and its name.
    """
    first = catalog.table.drop_duplicates("image_class")
    pixels = [read_grey(file) for file in first.image]
    inside = [read_union(files) for files in first.masks]
    return pixels, inside, list(first.name)


def _read(folder: str, manifest: Manifest, state: str) -> Catalog:
    # `state` is part of the cache's key, so that a changed file is read again.
    rows = []
    problems = list(manifest.problems)
    notes = [("files that are neither image nor mask in this layout", file.name) for file in manifest.ignored]
    encodings: Counter[str] = Counter()
    digest = hashlib.sha256()
    for row in manifest.rows:
        try:
            pixels = read_grey(row["image"])
            masks = [(file, decode_mask(file, pixels.shape)) for file in row["masks"]]
            rows.append(_verify_row(row, pixels, masks, digest))
        except DataError as error:
            problems.append(str(error))
            continue
        for file, mask in masks:
            encodings[mask.encoding] += 1
            notes += [(note, Path(file).name) for note in mask.notes]
        notes += [(note, Path(row["image"]).name) for note in _find_oddities(row, pixels, masks)]
    if not manifest.rows and not problems:
        problems.append(f"{folder}: no images")
    # All problems are in one message, so that the user need not start again for each of them.
    if problems:
        shown = "\n  ".join(problems[:SHOWN_PROBLEMS])
        more = "\n  ..." if len(problems) > SHOWN_PROBLEMS else ""
        raise DataError(f"{folder}: {len(problems)} problem(s), fix these files:\n  {shown}{more}")
    # Sorted again, because some classes may only be known from the colours of masks.
    rank = {name: k for k, name in enumerate(CLASSES)}
    table = pd.DataFrame(rows).sort_values(
        "image_class", key=lambda classes: classes.map(rank).fillna(len(CLASSES)), kind="stable", ignore_index=True
    )
    noted = pd.DataFrame(notes, columns=["note", "file"])
    return Catalog(table, digest.hexdigest()[:16], manifest.layout, dict(encodings.most_common()), noted)


def _verify_row(row: dict, pixels: np.ndarray, masks: list[tuple[str, DecodedMask]], digest) -> dict:
    """Verify one image with its masks, add their pixels to ``digest``, and return the image's row of the catalog."""
    if min(pixels.shape) < SMALLEST:
        height, width = pixels.shape
        raise DataError(f"{row['image']}: {width} x {height} pixels; expected at least {SMALLEST} each: leave it out")
    union = np.zeros(pixels.shape, bool)
    for _, mask in masks:
        union |= mask.inside
    image_class = row["image_class"] or _find_class(union, masks)
    for file, mask in masks:
        if image_class != "normal" and not mask.inside.any():
            raise DataError(f"{file}: empty, but a {image_class} image shows a lesion: expected mask pixels")
    if image_class == "normal" and union.any():
        raise DataError(f"{masks[0][0]}: {union.sum()} mask pixels; a normal image shows no lesion: expected none")
    # Including the class, because data with a relabelled image are other data.
    digest.update(f"{image_class}/{row['name']} {pixels.shape}".encode())
    # Data with another patient are other data, too: images of one patient stay on one side of every split.
    if row["group"] is not None:
        digest.update(f"patient {row['group']}".encode())
    digest.update(pixels.tobytes())
    # A normal image without a mask file has the same hash as one whose mask is empty.
    insides = [mask.inside for _, mask in masks]
    for inside in insides or [union]:
        # Packed to one bit per pixel, so that the fingerprint does not depend on how masks are stored.
        digest.update(np.packbits(inside).tobytes())
    height, width = pixels.shape
    return {
        "image_class": image_class,
        "name": row["name"],
        "image": row["image"],
        "masks": [Mask(file, pixels.shape) for file in row["masks"] or [""]],
        "height": height,
        "width": width,
        "lesion_share": float(union.mean()),
        "group": row["group"],
    }


def _find_class(union: np.ndarray, masks: list[tuple[str, DecodedMask]]) -> str:
    """Return the class of an image whose path does not name it: from its masks' colours, else "lesion" or "normal"."""
    findings = {mask.finding for _, mask in masks if mask.finding}
    # A single malignant lesion makes the image malignant.
    for finding in ("malignant", "benign"):
        if finding in findings:
            return finding
    return "lesion" if union.any() else "normal"


def _find_oddities(row: dict, pixels: np.ndarray, masks: list[tuple[str, DecodedMask]]) -> list[str]:
    """Return what is unusual about an image."""
    notes = []
    marked = [mask.inside.any() for _, mask in masks]
    if not masks:
        notes.append("normal images without a mask: read as empty")
    elif not row["image_class"] and not any(marked):
        notes.append("empty masks in a data set without classes: read as normal images")
    if pixels.max() < NEARLY_BLACK:
        notes.append(DARK_NOTE)
    if pixels.min() == pixels.max():
        notes.append("images of one grey level")
    return notes
