"""Catalog of a data set: its images found, read, verified and fingerprinted."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from filelock import FileLock

from busi.config import Parameters, StudyError, find_study_folder
from busi.dataset.decode import DataError, DecodedMask, Mask, decode_mask, read_grey, read_union
from busi.dataset.layouts import Manifest, find_images
from busi.dataset.phantom import CLASSES, draw_phantoms

RELEASED = {"benign": 437, "malignant": 210, "normal": 133}
"""Number of images of each class in the public release."""

SHOWN_PROBLEMS = 20
"""Number of problems that an error message lists."""


class CountWarning(UserWarning):
    """A folder without faults that does not hold as many images as the public release."""


class DataWarning(UserWarning):
    """Something unusual about a folder's files that does not stop them from being read."""


@dataclass(frozen=True)
class Catalog:
    """Images of a folder.

    Attributes:
        table: One row for each image, classes in the order of `CLASSES` and names sorted within: `image_class`
            ("lesion" or "normal" where the data set names no classes), `name`, `image` (path), `masks` (each a `Mask`),
            `height`, `width` (pixels), `lesion_share` (share of the image's pixels inside the union of its masks, 0 to
            1), `group` (patient; None where the data set names none).
        fingerprint: Hash of names, classes and decoded pixels, those of each mask by itself: the same for the release,
            for a losslessly re-encoded copy, and for one in another layout that tells the same names and classes.
        layout: As `busi.dataset.layouts.Manifest`.
        encodings: Number of masks by their encoding, as `DecodedMask`.
        notes: `note` and the `file` it is about, one row for each unusual file.
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
    """Read the images of a study; draw phantom images first if the study uses them and they are not there.

    Raises:
        StudyError: No folder is given, no image has a lesion, or as `read_catalog`.
    """
    if not parameters.data_dir:
        raise StudyError(
            f"data_dir: not given, and profile {parameters.profile!r} needs real images: give the folder "
            "Dataset_BUSI_with_GT (make study PROFILE=... DATA=...), or set train_missing to false to read the "
            "results in its report"
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
    # Several processes of a study may start at once: one of them draws.
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            # Fewer teach a network too little to show anything.
            draw_phantoms(folder, benign=60, malignant=30, normal=10)
    return read_catalog(folder, expected=None)


def read_catalog(folder: Path, layout: str = "", *, expected: dict[str, int] | None = RELEASED) -> Catalog:
    """Read and verify a folder of images.

    The result is cached, and read again when a file's size or modification time has changed. What is unusual, but
    no fault, is a `DataWarning`.

    Args:
        folder: Holds the images in a layout of `busi.dataset.layouts`.
        layout: As `find_images`; empty where it is to be found from the files.
        expected: Number of images of each class in BUSI's layout; another number is a `CountWarning`. None for
            data other than BUSI.

    Raises:
        DataError: The folder has faults; names every file at fault and what is wrong with it.
    """
    folder = Path(folder)
    manifest = find_images(folder, layout)
    state = _describe_state(manifest)
    # A second process waits here, and then finds in the cache what the first one has read.
    with FileLock(_cache_folder().with_suffix(".lock")):
        catalog = remember(_read, ignore=["manifest"])(str(folder), manifest, state)
    for note, files in catalog.notes.groupby("note", sort=False).file:
        _warn_once(f"{note}: {len(files)}, e.g. {files.iloc[0]}", DataWarning, folder)
    if catalog.layout.startswith("busi"):
        _warn_of_counts(catalog, folder, expected or {})
    return catalog


def _describe_state(manifest: Manifest) -> str:
    """Return a hash of names, sizes and modification times: the pixels of 780 images take too long to hash."""
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


# Cached, because a notebook reads its data in many cells, and Python forgets which warnings it has shown.
@cache
def _warn_once(message: str, category: type[UserWarning], folder: Path) -> None:
    # It is about the folder: Python would show a line of the code that reads it.
    warnings.warn_explicit(message, category, folder.name, 1)


def remember(function: Callable, ignore: list[str] | None = None) -> Callable:
    """Return ``function`` with a cache on disk, in the study's folder.

    Args:
        function: Function of `busi.dataset`; a change of that package's code starts another cache.
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
    """Return the catalog's table without paths, for readers who do not have the data.

    Returns:
        One row for each image: `image_class`, `name`, `masks` (their number), `height`, `width` (pixels),
        `lesion_share` (rounded to six digits).
    """
    table = catalog.table.drop(columns=["image", "group"])
    table["masks"] = table.masks.map(len)
    return table.round({"lesion_share": 6})


def is_released(images: pd.DataFrame) -> bool:
    """Return whether images are those of the public release, by the number of each class.

    Args:
        images: One row for each image with its `image_class`: a catalog's table, `describe_images`, or a split.
    """
    return images.image_class.value_counts().to_dict() == RELEASED


def example_images(catalog: Catalog) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Read the first image of each class.

    Returns:
        Grey pixels, uint8 (h, w), the union of the masks, bool (h, w), and the name of each.
    """
    first = catalog.table.drop_duplicates("image_class")
    pixels = [read_grey(file) for file in first.image]
    inside = [read_union(files) for files in first.masks]
    return pixels, inside, list(first.name)


def _read(folder: str, manifest: Manifest, state: str) -> Catalog:
    # `state` is part of the cache's key: a changed file must be read again.
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
    # All problems in one message: otherwise it would take a run to find each of them.
    if problems:
        shown = "\n  ".join(problems[:SHOWN_PROBLEMS])
        more = "\n  ..." if len(problems) > SHOWN_PROBLEMS else ""
        raise DataError(f"{folder}: {len(problems)} problem(s), fix these files:\n  {shown}{more}")
    table = pd.DataFrame(rows)
    # Colours of masks may have told classes that names do not.
    rank = {name: k for k, name in enumerate(CLASSES)}
    position = table.image_class.map(rank).fillna(len(CLASSES))
    order = np.argsort(position, kind="stable")
    table = table.iloc[order].reset_index(drop=True)
    noted = pd.DataFrame(notes, columns=["note", "file"])
    return Catalog(table, digest.hexdigest()[:16], manifest.layout, dict(encodings.most_common()), noted)


def _verify_row(row: dict, pixels: np.ndarray, masks: list[tuple[str, DecodedMask]], digest) -> dict:
    """Verify one image with its masks, and add their pixels to ``digest``."""
    union = np.zeros(pixels.shape, bool)
    for _, mask in masks:
        union |= mask.inside
    image_class = row["image_class"] or _find_class(union, masks)
    for file, mask in masks:
        if image_class != "normal" and not mask.inside.any():
            raise DataError(f"{file}: empty, but a {image_class} image shows a lesion: expected mask pixels")
    if image_class == "normal" and union.any():
        raise DataError(f"{masks[0][0]}: {union.sum()} mask pixels; a normal image shows no lesion: expected none")
    # The class too: a relabelled image makes other data.
    digest.update(f"{image_class}/{row['name']} {pixels.shape}".encode())
    digest.update(pixels.tobytes())
    # A normal image without a file is one whose mask is empty.
    insides = [mask.inside for _, mask in masks]
    for inside in insides or [union]:
        # Packed to one bit a pixel, so that the fingerprint does not depend on how masks are stored.
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
    """Return the class of an image whose name does not tell it: by its masks' colours, else whether it has a lesion."""
    findings = {mask.finding for _, mask in masks if mask.finding}
    # One cancer makes an image malignant.
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
    if pixels.max() < 16:
        notes.append("images that are nearly black: perhaps of fewer bits than their file has room for")
    if pixels.min() == pixels.max():
        notes.append("images of one grey level")
    return notes
