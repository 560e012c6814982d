"""Preprocessing: Table 4's in the paper's reading ("text") and the public notebook's ("code"), and asked step by step.

All start from images already resized and scaled to [0, 1]. The strengths of contrast and brightness are this study's
choice, mild ones: the paper gives none. As in ``tf.image``, nothing is clipped (Keras' own layers would).
"""

import numpy as np

CONTRAST = 0.2
"""Contrast about an image's mean is multiplied by 1 - 0.2 to 1 + 0.2."""
BRIGHTNESS = 0.1
"""Added to an image: -0.1 to 0.1, in units of the scaled image."""

FLIPS = {"text": "both", "code": "image", "augment": "both", "augment-image": "image"}
"""What a random flip turns around: image and target, or the image alone (the fault of the public notebook)."""


def scale(images: np.ndarray, reading: str, training: np.ndarray | None = None) -> np.ndarray:
    """The part that is the same in every epoch, float32 (n, h, w, 1) to the same shape.

    Args:
        images: In [0, 1].
        reading: "none" leaves them alone; "normalize" takes each image to [0, 1] by its own extremes; "standardize",
            "augment" and "augment-image" do that, then subtract the mean and divide by the deviation of the training
            images; "text" standardizes each image to mean 0 and deviation 1; "code" divides by 255 once more, to
            [0, 1/255] (the notebook's standardized image is computed and dropped).
        training: The training images in [0, 1], where the mean and the deviation come from; None: ``images`` are they.
    """
    if reading == "none":
        return images
    if reading == "code":
        return images / np.float32(255)
    if reading == "text":
        return _standardized(images, images, axis=(1, 2, 3))
    normalized = _normalized(images)
    if reading == "normalize":
        return normalized
    return _standardized(normalized, normalized if training is None else _normalized(training), axis=None)


def augment(images: np.ndarray, targets: np.ndarray, reading: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One epoch's random flips, contrast and brightness.

    Args:
        images: float32 (n, h, w, 1), as `scale` leaves them.
        targets: float32 (n, o, o, 2).
        reading: One of `FLIPS`; any other changes nothing.
        seed: Equal seeds give equal draws.

    Returns:
        Images and targets, same shapes.
    """
    if reading not in FLIPS:
        return images, targets
    draw = np.random.default_rng(seed)
    flipped = (draw.random(len(images)) < 0.5)[:, None, None, None]
    images = np.where(flipped, images[:, :, ::-1], images)
    if FLIPS[reading] == "both":
        targets = np.where(flipped, targets[:, :, ::-1], targets)
    factor = draw.uniform(1 - CONTRAST, 1 + CONTRAST, (len(images), 1, 1, 1))
    shift = draw.uniform(-BRIGHTNESS, BRIGHTNESS, (len(images), 1, 1, 1))
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return ((images - mean) * factor + mean + shift).astype(np.float32), targets


def _normalized(images: np.ndarray) -> np.ndarray:
    least, most = (extreme(images, axis=(1, 2, 3), keepdims=True) for extreme in (np.min, np.max))
    return (images - least) / np.maximum(most - least, np.float32(1e-6))


def _standardized(images: np.ndarray, reference: np.ndarray, axis) -> np.ndarray:
    mean, deviation = (moment(reference, axis=axis, keepdims=True) for moment in (np.mean, np.std))
    return (images - mean) / np.maximum(deviation, np.float32(1e-6))
