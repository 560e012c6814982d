"""Preprocessing of images: as the paper describes it ("text"), as the public notebook does it ("code"), and by steps.

All functions expect images that are already resized and scaled to [0, 1]. The paper does not give the strength of
contrast and brightness: the values here are this study's choice, mild for images of that range. They are not for those
of "code", which span 0.004: the same brightness moves them by up to 25 times as much as they hold. As in ``tf.image``,
and unlike in Keras' own layers, nothing is clipped.
"""

from typing import NamedTuple

import numpy as np

CONTRAST = 0.2
"""Largest change of contrast: differences from an image's mean are multiplied by 1 - 0.2 to 1 + 0.2."""

BRIGHTNESS = 0.1
"""Largest change of brightness: -0.1 to 0.1 is added to an image, in units of the scaled image."""

ROTATION = 15
"""Largest rotation of the strong reading, in degrees either way: a probe is held upright, but not exactly."""

ZOOM = 1.25
"""Largest enlargement of the strong reading, and the inverse of its largest reduction."""

SHIFT = 0.1
"""Largest shift of the strong reading along either axis, as a share of the image's side."""

SPECKLE = 0.1
"""Deviation of the strong reading's speckle, as a share of a pixel's grey above the image's darkest one."""

FLIPS = {"text": "both", "code": "image", "augment": "both", "augment-image": "image", "augment-strong": "both"}
"""Readings with random flips: of image and target, or of the image alone (the fault of the public notebook)."""

STANDARDIZED = ("standardize", "augment", "augment-image", "augment-strong")
"""Readings that need the mean and the deviation of the training images."""

# Images without contrast are divided by this instead of by 0.
_SMALLEST = np.float32(1e-6)

# All axes but the first: of a stack of images, each one by itself.
_EACH_IMAGE = (1, 2, 3)


class Scaling(NamedTuple):
    """Mean and deviation of the training images, subtracted from and divided out of every image.

    Readings that need neither have mean 0 and deviation 1.
    """

    mean: float = 0.0
    deviation: float = 1.0


def fit_scaling(training_images: np.ndarray, reading: str) -> Scaling:
    """Compute the constants by which `scale` standardizes images.

    Args:
        training_images: float32 (n, h, w, 1) in [0, 1]; those of the training part alone.
        reading: As in `scale`.
    """
    if reading not in STANDARDIZED:
        return Scaling()
    # In float32 like the images: float64 would change the last bits of every trained network.
    normalized = _normalize(training_images)
    deviation = np.maximum(normalized.std(), _SMALLEST)
    return Scaling(float(normalized.mean()), float(deviation))


def scale(images, reading: str, scaling: Scaling, ops=np):
    """Scale images: the part of preprocessing that is the same in every epoch.

    Args:
        images: float32 (n, h, w, 1) in [0, 1].
        reading: "none" changes nothing. "normalize" takes each image to [0, 1] by its own extremes. "standardize",
            "augment" and its variants do the same, then subtract the training images' mean and divide by their
            deviation. "text" gives each image mean 0 and deviation 1. "code" divides by 255 once more, to [0, 1/255]:
            the public notebook computes standardized images and does not use them.
        scaling: Constants of the training images, from `fit_scaling` with the same reading.
        ops: Module that computes: NumPy, or `keras.ops` inside a model.

    Returns:
        float32 (n, h, w, 1).
    """
    if reading == "none":
        return images
    if reading == "code":
        return images / np.float32(255)
    if reading == "text":
        mean = ops.mean(images, axis=_EACH_IMAGE, keepdims=True)
        deviation = ops.std(images, axis=_EACH_IMAGE, keepdims=True)
        return (images - mean) / ops.maximum(deviation, _SMALLEST)
    normalized = _normalize(images, ops)
    if reading == "normalize":
        return normalized
    return (normalized - scaling.mean) / scaling.deviation


def augment(images: np.ndarray, targets: np.ndarray, reading: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Apply one epoch's random flips, contrast and brightness, and what the strong reading adds.

    Args:
        images: float32 (n, h, w, 1), as `scale` returns them.
        targets: float32 (n, o, o, 2).
        reading: One of `FLIPS`; any other changes nothing.
        seed: Equal seeds give equal draws.

    Returns:
        Images and targets, same shapes and types.
    """
    if reading not in FLIPS:
        return images, targets
    generator = np.random.default_rng(seed)
    count = len(images)
    flipped = (generator.random(count) < 0.5)[:, None, None, None]
    # From left to right only: depth always goes downwards in ultrasound.
    images = np.where(flipped, images[:, :, ::-1], images)
    if FLIPS[reading] == "both":
        targets = np.where(flipped, targets[:, :, ::-1], targets)
    # Both readings of a flip draw the same numbers, so that they differ in the fault alone.
    contrast = generator.uniform(1 - CONTRAST, 1 + CONTRAST, (count, 1, 1, 1))
    brightness = generator.uniform(-BRIGHTNESS, BRIGHTNESS, (count, 1, 1, 1))
    mean = images.mean(axis=_EACH_IMAGE, keepdims=True)
    changed = ((images - mean) * contrast + mean + brightness).astype(np.float32)
    if reading != "augment-strong":
        return changed, targets
    moved, targets = _move(changed, targets, generator)
    above_darkest = moved - moved.min(axis=_EACH_IMAGE, keepdims=True)
    # Multiplied, as speckle is: black stays black.
    noise = generator.normal(0, SPECKLE, moved.shape)
    return (moved + above_darkest * noise).astype(np.float32), targets


def _move(images: np.ndarray, targets: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rotate, scale and shift each image and its target together, around the centre of the image."""
    from skimage.transform import AffineTransform, warp

    count = len(images)
    angles = np.deg2rad(generator.uniform(-ROTATION, ROTATION, count))
    # Drawn as logarithms: halving is as likely as doubling.
    zooms = np.exp(generator.uniform(-np.log(ZOOM), np.log(ZOOM), count))
    shifts = generator.uniform(-SHIFT, SHIFT, (count, 2))
    moved = np.empty_like(images), np.empty_like(targets)
    for row in range(count):
        # The target is interpolated to the nearest pixel: it stays a mask.
        for before, after, order in zip((images, targets), moved, (1, 0), strict=True):
            side = before.shape[1]
            to_centre = AffineTransform(translation=(-(side - 1) / 2, -(side - 1) / 2))
            turn = AffineTransform(scale=zooms[row], rotation=angles[row], translation=side * shifts[row])
            whole = to_centre + turn + to_centre.inverse
            after[row] = warp(before[row], whole.inverse, order=order, mode="edge", preserve_range=True)
    return moved


def _normalize(images, ops=np):
    lowest = ops.min(images, axis=_EACH_IMAGE, keepdims=True)
    highest = ops.max(images, axis=_EACH_IMAGE, keepdims=True)
    return (images - lowest) / ops.maximum(highest - lowest, _SMALLEST)
