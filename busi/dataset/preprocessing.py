"""Preprocessing of images: as the paper describes it ("text"), as the public notebook does it ("code"), and in steps.

A "reading" is a value of `busi.config.RunConfig.preprocessing`. Images are expected to be resized and in [0, 1]. The
paper does not give the strength of contrast and brightness: the values here are this study's choice, and mild for
images of that range. For those of "code", which span 0.004, they are not: the same brightness shifts them by up to 25
times their range. As in ``tf.image``, and unlike in Keras' own layers, nothing is clipped.
"""

from typing import NamedTuple

import numpy as np

CONTRAST = 0.2
"""Largest change of contrast: differences from an image's mean are multiplied by 1 - 0.2 to 1 + 0.2."""

BRIGHTNESS = 0.1
"""Largest change of brightness: -0.1 to 0.1 is added to an image, in units of the scaled image."""

ROTATION = 15
"""Largest rotation of "augment-strong", in degrees either way: a probe is held upright, but not exactly."""

ZOOM = 1.25
"""Largest enlargement of "augment-strong", and the inverse of its largest reduction."""

SHIFT = 0.1
"""Largest shift of "augment-strong" along either axis, as a share of the image's side."""

SPECKLE = 0.1
"""Standard deviation of the speckle of "augment-strong", as a share of a pixel's level above the darkest pixel."""

FLIPS = {"text": "both", "code": "image", "augment": "both", "augment-image": "image", "augment-strong": "both"}
"""Readings that flip at random, either image and target, or the image alone (the fault of the public notebook)."""

STANDARDIZED = ("standardize", "augment", "augment-image", "augment-strong")
"""Readings that use the mean and the standard deviation of the training images."""

# Images without contrast are divided by this instead of by 0.
_SMALLEST = np.float32(1e-6)

# All axes but the first, so that each image of a stack is processed by itself.
_EACH_IMAGE = (1, 2, 3)


class Scaling(NamedTuple):
    """Mean and standard deviation of the training images, by which every image is standardized.

    For readings that use neither, the mean is 0 and the deviation 1.
    """

    mean: float = 0.0
    deviation: float = 1.0


def fit_scaling(training_images: np.ndarray, reading: str) -> Scaling:
    """Compute the mean and deviation with which `scale` standardizes images.

    Args:
        training_images: float32 (n, h, w, 1) in [0, 1]; those of the training part alone.
        reading: As in `scale`.
    """
    if reading not in STANDARDIZED:
        return Scaling()
    # In float32 like the images, because float64 would change the last bits of every trained network.
    normalized = _normalize(training_images)
    deviation = np.maximum(normalized.std(), _SMALLEST)
    return Scaling(float(normalized.mean()), float(deviation))


def scale(images, reading: str, scaling: Scaling, ops=np):
    """Scale images: the part of preprocessing that is the same in every epoch.

    Args:
        images: float32 (n, h, w, 1) in [0, 1].
        reading: "none" changes nothing. "normalize" scales each image to [0, 1] by its own minimum and maximum.
            "standardize", "augment" and its variants do the same, then subtract the training images' mean and divide by
            their deviation. "text" gives each image mean 0 and deviation 1. "code" divides by 255 once more, to
            [0, 1/255], because the public notebook computes standardized images but does not use them.
        scaling: Mean and deviation of the training images, from `fit_scaling` with the same reading.
        ops: Module whose functions compute: NumPy, or `keras.ops` inside a model.

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
    """Apply one epoch's random flips, contrast and brightness, and what "augment-strong" adds to them.

    Args:
        images: float32 (n, h, w, 1), as `scale` returns them.
        targets: float32 (n, o, o, 2).
        reading: One of `FLIPS`; any other changes nothing.
        seed: Equal seeds give equal draws.

    Returns:
        Images and targets, with the same shapes and types.
    """
    if reading not in FLIPS:
        return images, targets
    generator = np.random.default_rng(seed)
    count = len(images)
    flipped = (generator.random(count) < 0.5)[:, None, None, None]
    # Only from left to right, because depth always increases downwards in ultrasound.
    images = np.where(flipped, images[:, :, ::-1], images)
    if FLIPS[reading] == "both":
        targets = np.where(flipped, targets[:, :, ::-1], targets)
    # All readings draw the same numbers, so that those with and without the fault differ in nothing else.
    contrast = generator.uniform(1 - CONTRAST, 1 + CONTRAST, (count, 1, 1, 1))
    brightness = generator.uniform(-BRIGHTNESS, BRIGHTNESS, (count, 1, 1, 1))
    mean = images.mean(axis=_EACH_IMAGE, keepdims=True)
    changed = ((images - mean) * contrast + mean + brightness).astype(np.float32)
    if reading != "augment-strong":
        return changed, targets
    moved, targets = _move(changed, targets, generator)
    above_darkest = moved - moved.min(axis=_EACH_IMAGE, keepdims=True)
    # Speckle is multiplicative: the darkest pixels stay as they are.
    noise = generator.normal(0, SPECKLE, moved.shape)
    return (moved + above_darkest * noise).astype(np.float32), targets


def _move(images: np.ndarray, targets: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rotate, scale and shift each image and its target together, around the centre of the image."""
    from skimage.transform import AffineTransform, warp

    count = len(images)
    angles = np.deg2rad(generator.uniform(-ROTATION, ROTATION, count))
    # The logarithm is drawn uniformly, so that a reduction is as likely as the inverse enlargement.
    zooms = np.exp(generator.uniform(-np.log(ZOOM), np.log(ZOOM), count))
    shifts = generator.uniform(-SHIFT, SHIFT, (count, 2))
    moved = np.empty_like(images), np.empty_like(targets)
    for row in range(count):
        # The target takes the value of the nearest pixel, and so stays a mask.
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
