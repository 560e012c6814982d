"""Images and targets: as the published code made them, each of its faults a switch, and as they should be.

The switches are fields of `busi.config.RunConfig`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from skimage.transform import resize

from busi.config import RunConfig
from busi.dataset.catalog import Catalog, grey, mask, memory


@dataclass(frozen=True)
class Arrays:
    """What a network is trained on.

    Attributes:
        images: float32 (n, s, s, 1), grey in [0, 1].
        targets: float32 (n, o, o, 2); channel 0 the lesion in [0, 1], channel 1 the background, which with the mirror
            fault reaches just under 2.
    """

    images: np.ndarray
    targets: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Arrays":
        """Those of some images."""
        return Arrays(self.images[rows], self.targets[rows])

    def __len__(self) -> int:
        """How many images."""
        return len(self.images)


def published(catalog: Catalog, config: RunConfig) -> Arrays:
    """The lesion images and their targets under ``config``'s switches, in the catalog's order.

    Normals are left out, as in the paper.
    """
    return _made(catalog.lesions, catalog.fingerprint, config)


def whole(catalog: Catalog, config: RunConfig) -> Arrays:
    """All images, normals included, in the order of ``catalog.table``; a normal's lesion channel is 0."""
    return _made(catalog.table, catalog.fingerprint, config)


def _made(rows: pd.DataFrame, fingerprint: str, config: RunConfig) -> Arrays:
    switches = ("image_size", "masks", "second_channel", "target", "resize", "padding")
    # The fingerprint and the number of rows say which images these are: no need to hash the table.
    made = memory().cache(_decoded, ignore=["rows"])
    return Arrays(*made(rows, len(rows), fingerprint, {name: getattr(config, name) for name in switches}))


def _decoded(rows: pd.DataFrame, count: int, fingerprint: str, switches: dict) -> tuple[np.ndarray, np.ndarray]:
    config = RunConfig(**switches)
    images = [resized(grey(file) / np.float32(255), config.image_size, config.resize) for file in rows.image]
    lesions = [lesion(union(files if config.masks == "all" else files[:1]), config) for files in rows.masks]
    return np.stack(images)[..., None], two_channels(np.stack(lesions), config.second_channel)


def union(files: list[str]) -> np.ndarray:
    """The pixels inside any of the masks, bool (height, width)."""
    return np.logical_or.reduce([mask(file) for file in files])


def lesion(inside: np.ndarray, config: RunConfig) -> np.ndarray:
    """The lesion channel of one image, float32 (o, o) in [0, 1], o = ``config.output_size``.

    Target "squeezed": the whole mask resized onto the output (public notebook). "aligned": the mask resized like the
    image, then the part that the output covers. Under "letterbox" a pixel is lesion if at least half of it is.

    Args:
        inside: The mask, bool (height, width).
        config: Its `image_size`, `padding`, `resize` and `target` count.
    """
    if config.target == "squeezed":
        return resized(inside.astype(np.float32), config.output_size, config.resize)
    start = (config.image_size - config.output_size) // 2
    covered = slice(start, start + config.output_size)
    whole = resized(inside.astype(np.float32), config.image_size, config.resize)[covered, covered]
    return (whole >= 0.5).astype(np.float32) if config.resize == "letterbox" else whole


def two_channels(lesions: np.ndarray, second_channel: str) -> np.ndarray:
    """Lesion and background, float32 (..., 2), from lesions (...) in [0, 1].

    "complement" is 1 - m. "mirror" is (m + 1) mod 2 (public notebook): the same where m is 0 or 1, but 1 + m between.
    """
    background = 1 - lesions if second_channel == "complement" else np.mod(lesions + 1, 2)
    return np.stack([lesions, background], axis=-1).astype(np.float32)


def resized(pixels: np.ndarray, size: int, how: str) -> np.ndarray:
    """Resize (height, width) in [0, 1] to float32 (size, size).

    "squash" changes the aspect ratio, bilinearly without antialiasing (public notebook). "letterbox" keeps it: the
    longer side becomes ``size``, bilinearly with antialiasing, and the rest is 0.
    """
    if how == "squash":
        return bilinear(pixels, size)
    rows, columns = box(*pixels.shape, size)
    canvas = np.zeros((size, size), np.float32)
    inner = (rows.stop - rows.start, columns.stop - columns.start)
    canvas[rows, columns] = resize(pixels, inner, order=1, mode="edge", anti_aliasing=True, preserve_range=True)
    return np.clip(canvas, 0, 1)


def box(height: int, width: int, size: int) -> tuple[slice, slice]:
    """The rows and columns that an image of ``height`` x ``width`` fills, letterboxed into ``size`` x ``size``."""
    scale = size / max(height, width)
    inner = [max(1, round(side * scale)) for side in (height, width)]
    starts = [(size - side) // 2 for side in inner]
    return tuple(slice(start, start + side) for start, side in zip(starts, inner, strict=True))


def restored(probability: np.ndarray, height: int, width: int, config: RunConfig) -> np.ndarray:
    """A network's output at its image's original size: the inverse of what ``config`` did to the image, bilinearly.

    Args:
        probability: Of lesion, float (o, o) in [0, 1].
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        config: Its `image_size`, `padding`, `resize` and `target` count.

    Returns:
        float32 (height, width) in [0, 1]; 0 where an unpadded network's output does not reach.
    """
    if config.target == "aligned" and config.padding == "valid":
        start = (config.image_size - config.output_size) // 2
        probability = np.pad(probability, start)
    if config.resize == "letterbox":
        probability = probability[box(height, width, len(probability))]
    back = resize(probability, (height, width), order=1, mode="edge", anti_aliasing=False, preserve_range=True)
    return np.clip(back, 0, 1).astype(np.float32)


def bilinear(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize (height, width) to float32 (size, size): bilinear, half-pixel centres, clamped edges, no antialiasing.

    The same convention as ``tf.image.resize``, which the public notebook used.
    """
    resized = resize(pixels, (size, size), order=1, mode="edge", anti_aliasing=False, preserve_range=True)
    # Interpolating between equal pixels leaves 1e-16: enough for the mirror to send a lesion pixel from 0 to 2.
    return np.round(resized, 6).astype(np.float32)
