"""Preprocessing of images: as the paper describes it ("text"), as the public notebook does it ("code"), and by steps.

All functions expect images that are already resized and scaled to [0, 1]. The paper does not give the strength of
contrast and brightness: the values here are mild ones, chosen for this study. As in ``tf.image``, and unlike in Keras'
own layers, nothing is clipped.
"""

from typing import NamedTuple

import numpy as np

CONTRAST = 0.2
"""Largest change of contrast: differences from an image's mean are multiplied by 1 - 0.2 to 1 + 0.2."""

BRIGHTNESS = 0.1
"""Largest change of brightness: -0.1 to 0.1 is added to an image, in units of the scaled image."""

FLIPS = {"text": "both", "code": "image", "augment": "both", "augment-image": "image"}
"""Readings with random flips: of image and target, or of the image alone (the fault of the public notebook)."""

STANDARDIZED = ("standardize", "augment", "augment-image")
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


def scale(images: np.ndarray, reading: str, scaling: Scaling) -> np.ndarray:
    """Scale images: the part of preprocessing that is the same in every epoch.

    Args:
        images: float32 (n, h, w, 1) in [0, 1].
        reading: "none" changes nothing. "normalize" takes each image to [0, 1] by its own extremes. "standardize",
            "augment" and "augment-image" do the same, then subtract the training images' mean and divide by their
            deviation. "text" gives each image mean 0 and deviation 1. "code" divides by 255 once more, to [0, 1/255]:
            the public notebook computes standardized images and does not use them.
        scaling: Constants of the training images, from `fit_scaling` with the same reading.

    Returns:
        float32 (n, h, w, 1).
    """
    if reading == "none":
        return images
    if reading == "code":
        return images / np.float32(255)
    if reading == "text":
        mean = images.mean(axis=_EACH_IMAGE, keepdims=True)
        deviation = images.std(axis=_EACH_IMAGE, keepdims=True)
        return (images - mean) / np.maximum(deviation, _SMALLEST)
    normalized = _normalize(images)
    if reading == "normalize":
        return normalized
    return (normalized - scaling.mean) / scaling.deviation


def augment(images: np.ndarray, targets: np.ndarray, reading: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Apply one epoch's random flips, contrast and brightness.

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
    changed = (images - mean) * contrast + mean + brightness
    return changed.astype(np.float32), targets


def _normalize(images: np.ndarray) -> np.ndarray:
    lowest = images.min(axis=_EACH_IMAGE, keepdims=True)
    highest = images.max(axis=_EACH_IMAGE, keepdims=True)
    return (images - lowest) / np.maximum(highest - lowest, _SMALLEST)
