"""Reads the pixels of images and masks, whatever the format, mode, depth and size of their files.

How a mask is encoded is detected from its file alone: white is lesion; of two levels, such as 0 and 1, the upper one is
lesion; green is a benign lesion and red a malignant one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy.ndimage import minimum_filter

from busi.config import StudyError

FORMATS = ("PNG", "BMP", "TIFF", "JPEG")
"""File formats that are read, as Pillow names them."""

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
"""Suffixes of the files of these formats, in lower case."""

GREYS = 0.2
"""Share of grey pixels from which on a file is taken for an image, not a mask."""

COLOURS = {"benign": (0, 255, 0), "malignant": (255, 0, 0)}
"""Colours of a colour-coded mask, as in BUS-UCLM."""

FEW_LEVELS = 4
"""A mask with a grey region and at most so many levels has several classes; with more, the grey is its soft edge."""

_FAULTS = (OSError, EOFError, SyntaxError, StructError, ValueError, TypeError, LookupError, OverflowError)
_FAULTS += (Image.DecompressionBombError,)
"""Exceptions that Pillow raises for damaged files; each format has its own."""


class DataError(StudyError):
    """A fault of the images that the user can fix; it ends the `busi` command with exit code 2."""

    exit_code = 2


@dataclass(frozen=True)
class Mask:
    """A mask's file, and the size at which it is read.

    Attributes:
        file: Path; empty for a normal image without a mask file.
        shape: Height and width of the image in pixels.
    """

    file: str
    shape: tuple[int, int]


@dataclass(frozen=True)
class DecodedMask:
    """A mask's pixels, and what was found while they were read.

    Attributes:
        inside: bool (h, w).
        encoding: "black and white", "grey edges", "colours", "empty", or the two levels, e.g. "0/1".
        finding: "benign" or "malignant" where the mask's colour says so, else empty.
        notes: What is unusual about the file.
    """

    inside: np.ndarray
    encoding: str
    finding: str
    notes: tuple[str, ...]


def read_grey(file: Path | str, content: BinaryIO | None = None) -> np.ndarray:
    """Read an image as uint8 (h, w). Colour is converted to grey by ITU-R 601 luma, 16 bits are scaled to 8.

    Args:
        file: The image's file.
        content: What is in the file, if that has been read already; ``file`` then only names it in messages.

    Raises:
        DataError: As `read_image`.
    """
    image = read_image(file, content)
    if image.mode.startswith("I"):
        # 65535 becomes 255.
        return np.round(_deep_levels(image, file) / 257).astype(np.uint8)
    # Palette, RGB or 1 bit: Pillow converts each of them to grey.
    return np.asarray(image.convert("L"))


def read_mask(mask: Mask | Path | str) -> np.ndarray:
    """Read a mask as bool (h, w), True inside: at its image's size, or at its own size if only a file is given."""
    if not isinstance(mask, Mask):
        return decode_mask(mask).inside
    return decode_mask(mask.file, mask.shape).inside if mask.file else np.zeros(mask.shape, bool)


def read_union(masks: Iterable[Mask | Path | str]) -> np.ndarray:
    """Read the union of an image's masks, bool (h, w), True inside."""
    return np.logical_or.reduce([read_mask(mask) for mask in masks])


def decode_mask(file: Path | str, shape: tuple[int, int] | None = None, *, may_fill: bool = False) -> DecodedMask:
    """Read a mask and detect how it is encoded.

    Args:
        file: The mask's file.
        shape: Height and width to resize the mask to, by the nearest pixel; None keeps its own size.
        may_fill: Whether it may mark the whole image, as a prediction may; a data set's own masks may not.

    Raises:
        DataError: The file cannot be read as an image, its pixels are not those of a mask, or its height and width are
            those of ``shape`` swapped.
    """
    image = read_image(file)
    notes = ["JPEG masks: their edges are not exact"] if image.format == "JPEG" else []
    finding = ""
    if image.mode.startswith("I"):
        levels, white = _deep_levels(image, file), 65535
    else:
        # An image with a palette is a colour image.
        has_colour = image.mode in ("P", "RGB", "RGBA")
        colour = np.asarray(image.convert("RGB" if has_colour else "L"))
        levels, white = colour, 255
        if colour.ndim == 3:
            finding = _read_finding(colour)
            levels = colour.max(axis=-1)
    inside, encoding = _threshold(levels, white, file, may_fill)
    corners = inside[[0, 0, -1, -1], [0, -1, 0, -1]]
    # A lesion may reach one corner of the image, but not all four.
    if corners.all() and not may_fill:
        raise DataError(
            f"{file}: all four corners and {inside.mean():.0%} of the pixels are lesion; expected a dark background "
            "around it: invert the mask"
        )
    if shape and inside.shape != shape:
        if inside.shape == shape[::-1]:
            raise DataError(f"{file}: {_size(inside.shape)} pixels, its image has {_size(shape)}: rotate one of them")
        notes.append("masks of another size than their image: brought to it by the nearest pixel")
        inside = np.asarray(Image.fromarray(inside).resize(shape[::-1], Image.Resampling.NEAREST))
    return DecodedMask(inside, "colours" if finding else encoding, finding, tuple(notes))


def read_image(file: Path | str, content: BinaryIO | None = None) -> Image.Image:
    """Read the one image in a file, turned as its EXIF orientation says; arguments as in `read_grey`.

    Raises:
        DataError: The file is damaged, too large or not in one of `FORMATS`, holds several images, or has pixels that
            are neither grey nor RGB, or transparent.
    """
    try:
        with Image.open(content or file, formats=FORMATS) as image:
            pages = getattr(image, "n_frames", 1)
            image.load()
            # As viewers show it, and as masks are therefore drawn on it.
            ImageOps.exif_transpose(image, in_place=True)
            is_opaque = not image.has_transparency_data or image.convert("RGBA").getchannel("A").getextrema()[0] == 255
    except _FAULTS as error:
        # Pillow would name the file once more, or an address in memory.
        reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"{file}: not a readable image ({reason}); expected {', '.join(FORMATS)}: copy this file again"
        ) from error
    if pages > 1:
        raise DataError(f"{file}: {pages} images in one file; expected one: save the one that is meant")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "F"):
        raise DataError(f"{file}: {image.mode} pixels; expected grey or RGB: save it as a PNG of 8 bits")
    if not is_opaque:
        # Behind a transparent pixel, a file may hold any colour.
        raise DataError(f"{file}: transparent pixels; expected opaque ones: save it without transparency")
    return image


def _deep_levels(image: Image.Image, file: Path | str) -> np.ndarray:
    """Return the pixels of a 16-bit image, int (h, w) from 0 to 65535."""
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 65535:
        raise DataError(
            f"{file}: pixels from {levels.min()} to {levels.max()}; expected 8 or 16 bits, 0 to 65535: save it so"
        )
    return levels


def _read_finding(colour: np.ndarray) -> str:
    """Return the class that a mask's colours mean, "" if none; red wins: one malignant lesion decides the class."""
    for finding in ("malignant", "benign"):
        pure = np.array(COLOURS[finding], np.int16)
        # Not compared for equality, because a JPEG or a resized mask has colours that are close to the pure one.
        distance = np.abs(colour - pure).max(axis=-1)
        if (distance < 64).any():
            return finding
    return ""


def _threshold(levels: np.ndarray, white: int, file: Path | str, may_fill: bool) -> tuple[np.ndarray, str]:
    """Return the pixels inside a mask, bool (h, w), and how they are encoded, as `DecodedMask.encoding`."""
    counts = np.bincount(levels.ravel())
    used = np.flatnonzero(counts)
    top = int(used[-1])
    if top > white / 2:
        if set(used) <= {0, top}:
            return levels > 0, "black and white" if top == white else f"0/{top}"
        tenth = white // 10
        grey = counts[tenth : white - tenth].sum() / levels.size
        if grey >= GREYS:
            raise _no_mask(file, f"{grey:.0%} of the pixels are grey")
        # The lowest level is the background, black or not.
        if len(used) <= FEW_LEVELS and _has_region(levels, used[1:-1]):
            raise _no_mask(file, f"regions of {len(used)} levels, {', '.join(map(str, used))}")
        # Some grey is allowed: the edges of a mask that was resized or drawn with a soft pen.
        return levels > white / 2, "grey edges"
    # A single dark level, black or not, marks nothing; but if the mask may fill the image, it is the upper of two.
    if top == 0 or (len(used) == 1 and not may_fill):
        return np.zeros(levels.shape, bool), "empty"
    if set(used) <= {0, top}:
        return levels > 0, f"0/{top}"
    raise _no_mask(file, f"{len(used)} levels up to {top}")


def _has_region(levels: np.ndarray, middle: np.ndarray) -> bool:
    """Return whether a block of 3 x 3 pixels has one of the ``middle`` levels, which soft edges are too thin for."""
    return any(minimum_filter(levels == level, size=3, mode="constant").any() for level in middle)


def _no_mask(file: Path | str, found: str) -> DataError:
    return DataError(
        f"{file}: {found}; expected a mask of black and white, or of two levels: if it is the image, give its mask; if "
        "it is a map of probabilities, cut it at a threshold; if it has several classes, merge them"
    )


def _size(shape: tuple[int, ...]) -> str:
    height, width = shape
    return f"{width} x {height}"
