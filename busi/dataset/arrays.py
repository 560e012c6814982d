"""Images and targets as arrays, either as the published code makes them, with its faults, or as they should be.

Each fault can be switched on or off by a field of `busi.config.RunConfig`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from busi.config import RunConfig
from busi.dataset.catalog import Catalog, read_grey, read_union, remember

SWITCHES = ("image_size", "masks", "second_channel", "target", "resize", "padding")
"""Fields of `RunConfig` that decide what the arrays contain."""


@dataclass(frozen=True)
class Arrays:
    """Images with their names and targets, in the same order.

    Attributes:
        names: str (n,), as in the catalog.
        images: float32 (n, s, s, 1), grey in [0, 1] before preprocessing.
        targets: float32 (n, o, o, 2). Channel 0 is the lesion in [0, 1]. Channel 1 is the background, which reaches
            almost 2 under the mirror fault.
    """

    names: np.ndarray
    images: np.ndarray
    targets: np.ndarray

    def __getitem__(self, rows: np.ndarray | slice) -> "Arrays":
        """Select images by row."""
        return Arrays(self.names[rows], self.images[rows], self.targets[rows])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def shuffled(self, seed: int) -> "Arrays":
        """Return the images in a random order; equal seeds give equal orders."""
        # One permutation for all three: names, images and targets stay together.
        order = np.random.default_rng(seed).permutation(len(self))
        return self[order]


def published_arrays(catalog: Catalog, config: RunConfig) -> Arrays:
    """Return the lesion images with their targets, in the order of ``catalog.lesions``; normal images are left out."""
    return _load(catalog.lesions, catalog.fingerprint, config)


def all_arrays(catalog: Catalog, config: RunConfig) -> Arrays:
    """Return all images with their targets, in the order of ``catalog.table``; the lesion channel of normals is 0."""
    return _load(catalog.table, catalog.fingerprint, config)


def _load(rows: pd.DataFrame, fingerprint: str, config: RunConfig) -> Arrays:
    switches = {name: getattr(config, name) for name in SWITCHES}
    # The fingerprint and the number of rows identify the images, so the table need not be hashed.
    decode = remember(_decode, ignore=["rows"])
    images, targets = decode(rows, len(rows), fingerprint, switches)
    return Arrays(rows.name.to_numpy(dtype=str), images, targets)


def _decode(rows: pd.DataFrame, count: int, fingerprint: str, switches: dict) -> tuple[np.ndarray, np.ndarray]:
    # `count` and `fingerprint` are not needed here; they are part of the cache's key.
    config = RunConfig(**switches)
    images = []
    lesions = []
    for row in rows.itertuples():
        pixels = read_grey(row.image) / np.float32(255)
        images.append(resize_image(pixels, config.image_size, config.resize))
        files = row.masks if config.masks == "all" else row.masks[:1]
        lesions.append(lesion_channel(read_union(files), config))
    targets = two_channels(np.stack(lesions), config.second_channel)
    return np.stack(images)[..., None], targets


def lesion_channel(inside: np.ndarray, config: RunConfig) -> np.ndarray:
    """Compute the lesion channel of one image's target.

    The target "squeezed" resizes the whole mask to the output (public notebook). "aligned" resizes the mask like the
    image and takes the part that the output covers; with "letterbox", a pixel is then 1 if its value is at least 0.5,
    else 0.

    Args:
        inside: Mask, bool (h, w).
        config: Only its `image_size`, `padding`, `resize` and `target` are used.

    Returns:
        float32 (o, o) in [0, 1], o = ``config.output_size``.
    """
    mask = inside.astype(np.float32)
    if config.target == "squeezed":
        return resize_image(mask, config.output_size, config.resize)
    start = _output_start(config)
    covered = slice(start, start + config.output_size)
    channel = resize_image(mask, config.image_size, config.resize)[covered, covered]
    if config.resize == "letterbox":
        # Antialiasing blurs the border, and a threshold makes the target a mask again.
        return (channel >= 0.5).astype(np.float32)
    return channel


def two_channels(lesions: np.ndarray, second_channel: str) -> np.ndarray:
    """Compute targets of lesion and background, float32 (..., 2), from lesion channels (...) in [0, 1].

    For a lesion channel m, the background is 1 - m under "complement", and (m + 1) mod 2 under "mirror" (public
    notebook): the same where m is 0 or 1, but 1 + m in between.
    """
    background = 1 - lesions if second_channel == "complement" else np.mod(lesions + 1, 2)
    return np.stack([lesions, background], axis=-1).astype(np.float32)


def resize_image(pixels: np.ndarray, size: int, how: str) -> np.ndarray:
    """Resize an image (h, w) in [0, 1] to float32 (size, size).

    Args:
        pixels: Image or mask, float (h, w).
        size: New height and width in pixels.
        how: "squash" changes the aspect ratio, bilinearly without antialiasing (public notebook). "letterbox" keeps
            it: the longer side becomes ``size``, bilinearly with antialiasing, and the rest is filled with 0.
    """
    if how == "squash":
        return resize_bilinear(pixels, size)
    rows, columns = letterbox_area(*pixels.shape, size)
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    canvas = np.zeros((size, size), np.float32)
    # Images become several times smaller, and without antialiasing most of their pixels would be ignored.
    canvas[rows, columns] = _resample(pixels, shape, antialiasing=True)
    return np.clip(canvas, 0, 1)


def letterbox_area(height: int, width: int, size: int) -> tuple[slice, slice]:
    """Return the rows and columns that an image of ``height`` x ``width`` fills in a square of ``size`` pixels."""
    scale = size / max(height, width)
    # Even an image of 1000 x 3 pixels keeps one column.
    rows = _centre(max(1, round(height * scale)), size)
    columns = _centre(max(1, round(width * scale)), size)
    return rows, columns


def _centre(length: int, size: int) -> slice:
    start = (size - length) // 2
    return slice(start, start + length)


def restore(probability: np.ndarray, height: int, width: int, config: RunConfig) -> np.ndarray:
    """Resize a network's output to the original size of its image: the inverse of `resize_image`.

    The interpolation is bilinear; pixels are averaged if the image is smaller than the output.

    Args:
        probability: Probability of lesion, float (o, o) in [0, 1].
        height: Original height of the image in pixels.
        width: Original width of the image in pixels.
        config: Only its `image_size`, `padding`, `resize` and `target` are used.

    Returns:
        float32 (height, width) in [0, 1]; 0 outside the part that the output of an unpadded network covers, if its
        target is "aligned".
    """
    if config.target == "aligned" and config.padding == "valid":
        # Outside its output the network predicts nothing, which counts as no lesion.
        probability = np.pad(probability, _output_start(config))
    if config.resize == "letterbox":
        area = letterbox_area(height, width, len(probability))
        probability = probability[area]
    # Pillow takes a fifth of scikit-image's time.
    output = Image.fromarray(probability.astype(np.float32))
    resized = np.asarray(output.resize((width, height), Image.Resampling.BILINEAR))
    return np.clip(resized, 0, 1)


def _output_start(config: RunConfig) -> int:
    """Return the first row of the input that the output covers, which is also the first column."""
    return (config.image_size - config.output_size) // 2


def resize_bilinear(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize an array (h, w) to float32 (size, size): bilinear, half-pixel centres, clamped edges, no antialiasing.

    This is the convention of ``tf.image.resize``, which the public notebook uses.
    """
    resized = _resample(pixels, (size, size), antialiasing=False)
    # Interpolating between equal pixels leaves errors of 1e-16, which would suffice for the mirror fault to turn the
    # background of a lesion pixel from 0 into 2.
    return np.round(resized, 6).astype(np.float32)


def _resample(pixels: np.ndarray, shape: tuple[int, int], *, antialiasing: bool) -> np.ndarray:
    """Resize to ``shape``, bilinearly with clamped edges."""
    from skimage.transform import resize

    return resize(pixels, shape, order=1, mode="edge", anti_aliasing=antialiasing, preserve_range=True)
