"""Prediction for image files: a mask, a probability map, an overlay and a row of a table for each."""

import csv
import glob
import re
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from busi.config import StudyError
from busi.dataset.catalog import DARK_NOTE, NEARLY_BLACK, DataWarning, read_grey
from busi.dataset.decode import SUFFIXES
from busi.lab.networks import THREADS, Network

CHUNK = 16
"""Number of images in memory at a time."""

FOLDERS = ("masks", "probability", "overlay")

COLUMNS = (
    *("image", "height", "width", "lesion_share", "left", "top", "right", "bottom"),
    *("mean_probability", "seconds"),
)

OUTLINE = (86, 180, 233)
"""Colour of the outline, as of predictions in the study's figures."""

_PASSED_OVER = re.compile(r"\..*|.*_mask(_\d+)?|mask_\d+")


def find_images(where: str) -> list[Path]:
    """Return the image files that ``where`` names: a file, a folder or a pattern such as "scans/*.png".

    Of a folder or a pattern, masks named as in BUSI (``*_mask.png``) or STU-Hospital (``mask_1.png``), hidden files and
    files of other formats are left out.

    Raises:
        StudyError: There is no such image, or two images have the same name, and so would their masks.
    """
    path = Path(where)
    if path.is_file():
        files = [path]
    else:
        found = path.iterdir() if path.is_dir() else map(Path, glob.glob(where, recursive=True))
        images = (file for file in sorted(found) if file.suffix.lower() in SUFFIXES)
        files = [file for file in images if not _PASSED_OVER.fullmatch(file.stem)]
    if not files:
        inner = sorted(folder.name for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []
        hint = f"; its folders are not searched: name one of them ({', '.join(inner)})" if inner else ""
        raise StudyError(f"{where}: no image; expected an image file, a folder of them, or a pattern in quotes{hint}")
    names: dict[str, Path] = {}
    for file in files:
        # Upper or lower case does not count: on some systems, names that differ in nothing else are one file.
        name = file.stem.casefold()
        if name in names:
            raise StudyError(f"{file}: named like {names[name]}, and so would be their masks: rename one of them")
        names[name] = file
    return files


def predict_files(network: Network, files: list[Path], out: Path) -> Iterator[dict]:
    """Predict images and write their masks, maps and overlays; memory does not grow with their number.

    ``out`` gets ``predictions.csv``, a row for each image as below, and for each image a file in each of `FOLDERS`, all
    of the image's size: ``masks/<name>.png``, 255 inside; ``probability/<name>.png``, 255 times the probability;
    ``overlay/<name>.jpg``, the image with the outline. A `DataWarning` at the end counts nearly black images.

    Yields:
        `COLUMNS` for each image: `lesion_share` (of the pixels); the bounding box in pixels, with `right` and `bottom`
        just outside; `mean_probability` inside the mask; `seconds`, those of up to `CHUNK` images predicted together
        divided by their number. Without a lesion, box and `mean_probability` are empty. For a file that cannot be read,
        only `error`; nothing is written for it.

    Raises:
        StudyError: ``out`` exists and is not empty.
    """
    if out.is_dir() and any(out.iterdir()):
        raise StudyError(f"{out}: not empty; nothing is overwritten: give another folder")
    for folder in FOLDERS:
        (out / folder).mkdir(parents=True)
    dark: list[Path] = []
    with (out / "predictions.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(files), CHUNK):
                for row in _predict_chunk(network, files[start : start + CHUNK], out, pool, dark):
                    if "error" not in row:
                        writer.writerow(row)
                    yield row
    if dark:
        warnings.warn(f"{DARK_NOTE}: {len(dark)}, e.g. {dark[0]}", DataWarning, stacklevel=2)


def _predict_chunk(
    network: Network, files: list[Path], out: Path, pool: ThreadPoolExecutor, dark: list[Path]
) -> list[dict]:
    """Predict a chunk of images and return their rows; files of nearly black images are added to ``dark``."""
    start = time.perf_counter()
    rows = []
    images = {}
    for file, answer in zip(files, pool.map(_try_to_read, files), strict=True):
        if isinstance(answer, StudyError):
            rows.append({"error": str(answer)})
        else:
            images[file] = answer
            if answer.max() < NEARLY_BLACK:
                dark.append(file)
    if not images:
        return rows
    outputs = network.predict(list(images.values()))

    def write(file: Path, output: np.ndarray) -> dict:
        return _write_answer(network, file, images[file], output, out)

    # Two at a time: Pillow compresses outside Python's lock.
    written = list(pool.map(write, images, outputs))
    seconds = (time.perf_counter() - start) / len(images)
    return rows + [row | {"seconds": round(seconds, 4)} for row in written]


def _try_to_read(file: Path) -> np.ndarray | StudyError:
    try:
        return read_grey(file)
    except StudyError as error:  # returned, so that the other images are still predicted
        return error


def _write_answer(network: Network, file: Path, pixels: np.ndarray, output: np.ndarray, out: Path) -> dict:
    """Write the three files of one image and return its row, without the seconds."""
    probability = network.restore(output, pixels.shape)
    # In double precision, as in the scores.
    inside = probability >= np.float64(network.threshold)
    mask = Image.fromarray(inside.astype(np.uint8) * np.uint8(255))
    # None where nothing is predicted.
    box = mask.getbbox()
    # The default level of compression would take four times as long.
    mask.save(out / "masks" / f"{file.stem}.png", compress_level=1)
    grey = Image.fromarray(np.round(probability * 255).astype(np.uint8))
    grey.save(out / "probability" / f"{file.stem}.png", compress_level=1)
    overlay = np.array(Image.fromarray(pixels).convert("RGB"))
    if box:
        _draw_outline(overlay, inside, box)
    Image.fromarray(overlay).save(out / "overlay" / f"{file.stem}.jpg", quality=90)
    share = round(float(inside.mean()), 6)
    mean_probability = round(float(probability[inside].mean()), 4) if box else ""
    values = (str(file), *pixels.shape, share, *(box or [""] * 4), mean_probability)
    return dict(zip(COLUMNS[:-1], values, strict=True))


def _draw_outline(overlay: np.ndarray, inside: np.ndarray, box: tuple[int, int, int, int]) -> None:
    """Draw a line of two pixels around the mask into ``overlay``, uint8 (h, w, 3)."""
    left, top, right, bottom = box
    # Lesions are small: dilating the mask of the whole image would take several times as long.
    near = slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2)
    line = binary_dilation(inside[near], iterations=2) & ~inside[near]
    overlay[near][line] = OUTLINE
