"""A BUSI folder as a table, verified.

Layout and names are the public release's (Al-Dhabyani et al., Data in Brief 28, 2020, 104863):
``benign/benign (1).png``, ``benign (1)_mask.png``, further masks ``benign (100)_mask_1.png``, likewise ``malignant``
and ``normal``, whose masks are empty.
"""

import hashlib
import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image, UnidentifiedImageError

from busi.config import ROOT, Study, StudyError
from busi.dataset import phantom

CLASSES = ("benign", "malignant", "normal")
RELEASED = {"benign": 437, "malignant": 210, "normal": 133}
"""Images a class in the public release."""

_MASK = re.compile(r"(?P<image>.+)_mask(_\d+)?\.png")


class CountWarning(UserWarning):
    """The folder is whole but does not hold as many images as the public release."""


@dataclass(frozen=True)
class Catalog:
    """The images of a folder.

    Attributes:
        table: One row an image, classes in the order of `CLASSES` and file names sorted within: `image_class`, `name`
            (without suffix), `image` (path), `masks` (paths, `_mask.png` first), `height`, `width` (pixels),
            `lesion_share` (share of the image's pixels inside the union of its masks, 0 to 1).
        fingerprint: Hash of names and decoded pixels: the same for the release and a losslessly re-encoded copy.
    """

    table: pd.DataFrame
    fingerprint: str

    @cached_property
    def lesions(self) -> pd.DataFrame:
        """The rows with a lesion: benign and malignant."""
        return self.table[self.table.image_class != "normal"].reset_index(drop=True)


def read(folder: Path, *, expected: dict[str, int] | None = RELEASED) -> Catalog:
    """Read and verify a folder; decoded once, then remembered until a file's size or time of change differs.

    Args:
        folder: Holds the three class folders.
        expected: Images a class; another count is a `CountWarning`. None for data that is not the release.

    Raises:
        StudyError: The folder is not whole; names every file at fault and what is wrong with it.
    """
    files = {name: sorted((folder / name).glob("*.png")) for name in CLASSES}
    missing = [name for name in CLASSES if not (folder / name).is_dir()]
    if missing:
        raise StudyError(
            f"{folder}: no folder {', '.join(missing)}; expected {', '.join(CLASSES)} as in Dataset_BUSI_with_GT. "
            "Give the folder that holds all three"
        )
    state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for name in CLASSES for file in files[name]]
    remembered = memory()
    with FileLock(Path(remembered.location).with_suffix(".lock")):  # who comes second finds what the first has read
        catalog = remembered.cache(_read)(str(folder), hashlib.sha256(repr(state).encode()).hexdigest())
    for name, count in (expected or {}).items():
        found = int((catalog.table.image_class == name).sum())
        if found != count:
            warnings.warn(f"{folder / name}: {found} images, the release has {count}", CountWarning, stacklevel=2)
    return catalog


def memory() -> joblib.Memory:
    """Where decoded data are remembered: one place for each state of this package's code."""
    code = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    return joblib.Memory(ROOT / "build" / "cache" / hashlib.sha256(code).hexdigest()[:8], verbose=0)


def of(study: Study) -> Catalog:
    """The images that ``study`` is trained on; phantom data are drawn first if they are not there.

    Raises:
        StudyError: As `read`, or no folder is given.
    """
    if not study.data_dir:
        raise StudyError(
            f"data_dir: not given, and profile {study.profile!r} is for real images: give the folder "
            "Dataset_BUSI_with_GT (make study PROFILE=... DATA=...), or set train_missing to false to read what "
            "its report holds"
        )
    if study.data_dir == "phantom":
        study.data_path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(study.data_path.with_suffix(".lock")):
            if not study.data_path.is_dir():
                phantom.draw(study.data_path)
        return read(study.data_path, expected=None)
    return read(study.data_path)


def gathered(study: Study) -> pd.DataFrame:
    """The images of a study without paths, for its readers: from the data, else from what its report has gathered.

    Returns:
        One row an image: `image_class`, `name`, `masks` (how many), `height`, `width` (pixels), `lesion_share`.

    Raises:
        StudyError: Nothing is to be trained (so the data are not read), and no table has been gathered.
    """
    file = study.report_path / "results" / "dataset.csv"
    if study.train_missing:
        table = of(study).table.assign(masks=lambda table: table.masks.map(len)).drop(columns="image")
        file.parent.mkdir(parents=True, exist_ok=True)
        table.round(6).to_csv(file, index=False)
    elif not file.is_file():
        raise StudyError(f"{file}: not gathered yet; run the study once with its data and train_missing: true")
    return pd.read_csv(file)


def examples(study: Study) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """The first image of each class: its grey pixels, the union of its masks (both (height, width)) and its name."""
    rows = of(study).table.groupby("image_class", sort=False).head(1).itertuples()
    shown = [(grey(row.image), np.logical_or.reduce([mask(file) for file in row.masks]), row.name) for row in rows]
    return tuple(map(list, zip(*shown, strict=True)))


def grey(file: Path) -> np.ndarray:
    """An image as uint8 (height, width), colour by ITU-R 601 luma.

    Raises:
        StudyError: The file cannot be read as an image.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise StudyError(f"{file}: not a readable image ({error}); expected a PNG: fetch this file again") from error


def mask(file: Path) -> np.ndarray:
    """A mask as bool (height, width), whichever mode the release stored it in (1-bit, grey, RGB, RGBA).

    Raises:
        StudyError: The file cannot be read as an image.
    """
    return grey(file) > 127


def _read(folder: str, state: str) -> Catalog:
    rows, problems, digest = [], [], hashlib.sha256()
    for image_class in CLASSES:
        files = sorted((Path(folder) / image_class).glob("*.png"))
        masks: dict[str, list[Path]] = {}
        for file in files:
            if match := _MASK.fullmatch(file.name):
                masks.setdefault(match["image"], []).append(file)
        images = [file for file in files if not _MASK.fullmatch(file.name)]
        stray = masks.keys() - {file.stem for file in images}
        problems += [f"{masks[name][0]}: mask without its image {name}.png" for name in sorted(stray)]
        if not images:
            problems.append(f"{Path(folder) / image_class}: no images")
        for image in images:
            try:
                rows.append(_row(image_class, image, masks.get(image.stem, []), digest))
            except StudyError as error:
                problems.append(str(error))
    if problems:
        shown = "\n  ".join(problems[:20]) + ("\n  ..." if len(problems) > 20 else "")
        raise StudyError(f"{folder} is not whole, {len(problems)} problem(s):\n  {shown}")
    return Catalog(pd.DataFrame(rows), digest.hexdigest()[:16])


def _row(image_class: str, image: Path, masks: list[Path], digest) -> dict:
    pixels = grey(image)
    if image.with_name(f"{image.stem}_mask.png") not in masks:
        raise StudyError(f"{image}: no mask; expected {image.stem}_mask.png beside it")
    union = np.zeros(pixels.shape, bool)
    digest.update(f"{image_class}/{image.stem} {pixels.shape}".encode() + pixels.tobytes())
    for file in masks:
        inside = mask(file)
        if inside.shape != pixels.shape:
            raise StudyError(f"{file}: {_size(inside)} pixels, its image has {_size(pixels)}: sizes must be equal")
        if image_class != "normal" and not inside.any():
            raise StudyError(f"{file}: empty, but a {image_class} image shows a lesion: expected mask pixels")
        union |= inside
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


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
