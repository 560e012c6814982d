"""Catalog of the images of a folder, read and verified.

Layout and names are those of the public BUSI release (Al-Dhabyani et al., Data in Brief 28, 2020, 104863):
``benign/benign (1).png``, ``benign (1)_mask.png``, further masks ``benign (100)_mask_1.png``, likewise ``malignant``
and ``normal``, whose masks are empty.
"""

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image, UnidentifiedImageError

from busi.config import Parameters, StudyError, find_study_folder
from busi.dataset.phantom import CLASSES, draw_phantoms

RELEASED = {"benign": 437, "malignant": 210, "normal": 133}
"""Number of images of each class in the public release."""

SHOWN_PROBLEMS = 20
"""Number of problems that an error message lists."""

# Most images have one mask; further ones are numbered from 1.
_MASK = re.compile(r"(?P<image>.+)_mask(_\d+)?\.png")


class CountWarning(UserWarning):
    """A folder without faults that does not hold as many images as the public release."""


@dataclass(frozen=True)
class Catalog:
    """Images of a folder.

    Attributes:
        table: One row for each image, classes in the order of `CLASSES` and file names sorted within: `image_class`,
            `name` (without suffix), `image` (path), `masks` (paths, `_mask.png` first), `height`, `width` (pixels),
            `lesion_share` (share of the image's pixels inside the union of its masks, 0 to 1).
        fingerprint: Hash of names and decoded pixels: the same for the release and a losslessly re-encoded copy.
    """

    table: pd.DataFrame
    fingerprint: str

    @cached_property
    def lesions(self) -> pd.DataFrame:
        """Return the rows of images with a lesion: benign and malignant."""
        return self.table[self.table.image_class != "normal"].reset_index(drop=True)


def load_catalog(parameters: Parameters) -> Catalog:
    """Read the images of a study; draw phantom images first if the study uses them and they are not there.

    Raises:
        StudyError: No folder is given, or as `read_catalog`.
    """
    if not parameters.data_dir:
        raise StudyError(
            f"data_dir: not given, and profile {parameters.profile!r} needs real images: give the folder "
            "Dataset_BUSI_with_GT (make study PROFILE=... DATA=...), or set train_missing to false to read the "
            "results in its report"
        )
    folder = parameters.data_path
    if parameters.data_dir != "phantom":
        return read_catalog(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several processes of a study may start at once: one of them draws.
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            draw_phantoms(folder)
    return read_catalog(folder, expected=None)


def read_catalog(folder: Path, *, expected: dict[str, int] | None = RELEASED) -> Catalog:
    """Read and verify a folder of images.

    The result is cached, and read again when a file's size or modification time has changed.

    Args:
        folder: Holds the three class folders.
        expected: Number of images of each class; another number is a `CountWarning`. None for data other than BUSI.

    Raises:
        StudyError: The folder has faults; names every file at fault and what is wrong with it.
    """
    missing = [name for name in CLASSES if not (folder / name).is_dir()]
    if missing:
        raise StudyError(
            f"{folder}: no folder {', '.join(missing)}; expected {', '.join(CLASSES)} as in Dataset_BUSI_with_GT. "
            "Give the folder that holds all three"
        )
    state = _describe_state(folder)
    # A second process waits here, and then finds in the cache what the first one has read.
    with FileLock(_cache_folder().with_suffix(".lock")):
        catalog = remember(_read)(str(folder), state)
    _warn_of_counts(catalog, folder, expected or {})
    return catalog


def _describe_state(folder: Path) -> str:
    """Return a hash of names, sizes and modification times: the pixels of 780 images take too long to hash."""
    files = []
    for image_class in CLASSES:
        for file in sorted((folder / image_class).glob("*.png")):
            status = file.stat()
            files.append((str(file), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(files).encode()).hexdigest()


def _warn_of_counts(catalog: Catalog, folder: Path, expected: dict[str, int]) -> None:
    for image_class, released in expected.items():
        count = int((catalog.table.image_class == image_class).sum())
        if count != released:
            message = f"{folder / image_class}: {count} images, the release has {released}"
            # The warning points at the line that calls `read_catalog`.
            warnings.warn(message, CountWarning, stacklevel=3)


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
    table = catalog.table.drop(columns="image")
    table["masks"] = table.masks.map(len)
    return table.round({"lesion_share": 6})


def example_images(catalog: Catalog) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Read the first image of each class.

    Returns:
        Grey pixels, uint8 (h, w), the union of the masks, bool (h, w), and the name of each.
    """
    first = catalog.table.drop_duplicates("image_class")
    pixels = [read_grey(file) for file in first.image]
    inside = [read_union(files) for files in first.masks]
    return pixels, inside, list(first.name)


def read_grey(file: Path | str) -> np.ndarray:
    """Read an image as uint8 (h, w); colour becomes grey by ITU-R 601 luma.

    Raises:
        StudyError: The file cannot be read as an image.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("L"))
    # Pillow reports a damaged PNG as a SyntaxError.
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise StudyError(f"{file}: not a readable image ({error}); expected a PNG: copy this file again") from error


def read_mask(file: Path | str) -> np.ndarray:
    """Read a mask as bool (h, w), from any mode that the release uses (1-bit, grey, RGB, RGBA).

    Raises:
        StudyError: The file cannot be read as an image.
    """
    # Half of white: masks in 1-bit mode are read as 0 and 255, like all others.
    return read_grey(file) > 127


def read_union(files: Iterable[Path | str]) -> np.ndarray:
    """Read the pixels inside any of an image's masks, bool (h, w).

    Raises:
        StudyError: A file cannot be read as an image.
    """
    return np.logical_or.reduce([read_mask(file) for file in files])


def _read(folder: str, state: str) -> Catalog:
    # `state` is part of the cache's key: a changed file must be read again.
    rows = []
    problems = []
    digest = hashlib.sha256()
    for image_class in CLASSES:
        images, masks = _pair_files(Path(folder) / image_class)
        names = {image.stem for image in images}
        for name in sorted(masks.keys() - names):
            problems.append(f"{masks[name][0]}: mask without its image {name}.png")
        if not images:
            problems.append(f"{Path(folder) / image_class}: no images")
        for image in images:
            try:
                rows.append(_read_row(image_class, image, masks.get(image.stem, []), digest))
            except StudyError as error:
                problems.append(str(error))
    problems += _find_repeated_names(rows)
    # All problems in one message: otherwise it would take a run to find each of them.
    if problems:
        shown = "\n  ".join(problems[:SHOWN_PROBLEMS])
        more = "\n  ..." if len(problems) > SHOWN_PROBLEMS else ""
        raise StudyError(f"{folder}: {len(problems)} problem(s), fix these files:\n  {shown}{more}")
    return Catalog(pd.DataFrame(rows), digest.hexdigest()[:16])


def _pair_files(folder: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """Return the images of a class folder, and the masks of each by the image's name."""
    images = []
    masks: dict[str, list[Path]] = {}
    # In sorted order "x_mask.png" comes before "x_mask_1.png".
    for file in sorted(folder.glob("*.png")):
        match = _MASK.fullmatch(file.name)
        if match:
            masks.setdefault(match["image"], []).append(file)
        else:
            images.append(file)
    return images, masks


def _read_row(image_class: str, image: Path, masks: list[Path], digest) -> dict:
    """Read and verify one image with its masks, and add their pixels to ``digest``."""
    pixels = read_grey(image)
    if image.with_name(f"{image.stem}_mask.png") not in masks:
        raise StudyError(f"{image}: no mask; expected {image.stem}_mask.png in the same folder")
    # The class too: a relabelled image makes other data.
    digest.update(f"{image_class}/{image.stem} {pixels.shape}".encode())
    digest.update(pixels.tobytes())
    union = np.zeros(pixels.shape, bool)
    for file in masks:
        inside = read_mask(file)
        if inside.shape != pixels.shape:
            raise StudyError(f"{file}: {_size(inside)} pixels, its image has {_size(pixels)}: sizes must be equal")
        if image_class != "normal" and not inside.any():
            raise StudyError(f"{file}: empty, but a {image_class} image shows a lesion: expected mask pixels")
        union |= inside
        # Packed to one bit a pixel, so that the fingerprint does not depend on how masks are stored.
        digest.update(np.packbits(inside).tobytes())
    if image_class == "normal" and union.any():
        raise StudyError(f"{masks[0]}: {union.sum()} mask pixels; a normal image shows no lesion: expected none")
    height, width = pixels.shape
    return {
        "image_class": image_class,
        "name": image.stem,
        "image": str(image),
        "masks": [str(file) for file in masks],
        "height": height,
        "width": width,
        "lesion_share": float(union.mean()),
    }


def _find_repeated_names(rows: list[dict]) -> list[str]:
    """Return a problem for each image that is named like one of another class: predictions are kept by name."""
    problems = []
    seen = set()
    for row in rows:
        if row["name"] in seen:
            problems.append(f"{row['image']}: another class has an image of this name: rename one of them")
        seen.add(row["name"])
    return problems


def _size(pixels: np.ndarray) -> str:
    height, width = pixels.shape
    return f"{width} x {height}"
