"""Floors of the published metrics: scores of a constant, a predictor that never looks at the image.

A constant gives every pixel the same probability p of lesion and 1 - p of background. A score on its floor does not
show that a network has learned anything from the images. The floors follow from the targets alone, in closed form;
nothing is trained.
"""

import numpy as np

EPSILON = 1e-7
"""Smallest probability: Keras clips probabilities to [1e-7, 1 - 1e-7], and the targets of KLD to [1e-7, 1]."""


def constant_floors(targets: np.ndarray) -> dict[str, float]:
    """Compute the floors of the published metrics and losses under ``targets``.

    Args:
        targets: float (n, h, w, 2), lesion and background, as `busi.dataset.arrays.published_arrays` makes them.

    Returns:
        `accuracy`, `auc` (both channels pooled) and `dice_loss` (mean over images): scores of background everywhere.
        `bce`, `kld`: The lowest loss that any constant reaches.
        `bce_probability`: The probability p that reaches `bce`.

    Example:
        >>> floors = constant_floors(np.array([[[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]]]))
        >>> floors["accuracy"], round(floors["bce_probability"], 4)
        (0.75, 0.25)
    """
    lesion = targets[..., 0].astype(np.float64)
    background = targets[..., 1].astype(np.float64)
    dice_losses = _background_dice_loss(lesion, background)
    # The loss is linear in the targets, so their means are enough, soft and mirrored targets included.
    positive = 1 + lesion.mean() - background.mean()
    probability = _clip(positive / 2)
    bce = -(positive * np.log(probability) + (2 - positive) * np.log(1 - probability)) / 2
    return {
        "accuracy": float((lesion < background).mean()),
        "auc": _background_auc(lesion, background),
        "dice_loss": float(dice_losses.mean()),
        "bce": float(bce),
        "bce_probability": float(probability),
        "kld": _lowest_kld(targets),
    }


def lowest_loss(loss: str, floors: dict[str, float]) -> float:
    """Return the lowest value of one of `busi.config.PUBLISHED_LOSSES` that a constant reaches."""
    return floors["dice_loss" if loss == "dice" else loss]


def _clip(probability: float) -> float:
    return np.clip(probability, EPSILON, 1 - EPSILON)


def _lowest_kld(targets: np.ndarray) -> float:
    # Keras clips KLD's targets to at most 1, so 1 + m, which the mirror makes of a soft pixel m, counts as 1.
    clipped = np.clip(targets.astype(np.float64), EPSILON, 1)
    entropy = (clipped * np.log(clipped)).sum(axis=-1).mean()
    lesion, background = clipped.mean(axis=(0, 1, 2))
    # Where the derivative of the mean loss is zero.
    probability = _clip(lesion / (lesion + background))
    return float(entropy - lesion * np.log(probability) - background * np.log(1 - probability))


def _background_dice_loss(lesion: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Compute each image's Dice loss, over both channels, for background everywhere: float (n,)."""
    predicted = lesion[0].size
    overlap = background.sum(axis=(1, 2))
    total = (lesion + background).sum(axis=(1, 2))
    return 1 - 2 * overlap / (total + predicted)


def _background_auc(lesion: np.ndarray, background: np.ndarray) -> float:
    # Keras' AUC takes every target above 0 as positive, so a soft pixel is positive in both channels.
    positive = (lesion > 0).sum()
    positive_background = (background > 0).sum()
    negative = lesion.size - positive
    negative_background = lesion.size - positive_background
    # A constant has only two scores, p for lesion and the higher 1 - p for background, so its ROC curve has one corner.
    false_alarms = negative_background / (negative + negative_background)
    hits = positive_background / (positive + positive_background)
    return float(np.trapezoid([0, hits, 1], [0, false_alarms, 1]))
