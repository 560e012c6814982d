"""What a predictor scores that never looks at the image, under the published metrics and targets.

Such a predictor gives every pixel the same probability p of lesion and 1 - p of background. A trained network that
scores no better has learned nothing from the images. Derived from the targets alone, in closed form or by minimising
over p; nothing is trained.
"""

import json

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from busi.config import RunConfig, Study, StudyError, validated
from busi.dataset import catalog
from busi.dataset.arrays import published

EPSILON = 1e-7
"""Keras clips probabilities, and the targets of KLD, to [1e-7, 1 - 1e-7] and [1e-7, 1]."""


def of(targets: np.ndarray) -> dict[str, float]:
    """The floors under ``targets``.

    Args:
        targets: float (n, h, w, 2), lesion and background, as `busi.dataset.arrays.published` makes them.

    Returns:
        `accuracy`, `auc` (both channels pooled) and `dice_loss` (mean over images) of "background everywhere"; `bce`
        and `kld`, the lowest that any constant reaches, and `bce_probability`, the p that reaches it.
    """
    lesion, background = targets[..., 0].astype(np.float64), targets[..., 1].astype(np.float64)
    bce = _lowest(lambda p: _bce(lesion.mean(), background.mean(), p))
    # Keras clips KLD's targets to at most 1, so the mirror's 1 + m counts as 1.
    clipped = np.clip(targets.astype(np.float64), EPSILON, 1)
    entropy = (clipped * np.log(clipped)).sum(axis=-1).mean()
    mean = clipped.mean(axis=(0, 1, 2))
    kld = _lowest(lambda p: entropy - mean[0] * np.log(p) - mean[1] * np.log(1 - p))
    return {
        "accuracy": float((lesion < background).mean()),
        "auc": _pooled_auc(lesion, background),
        "dice_loss": float(_dice_of_background(lesion, background).mean()),
        "bce": float(bce.fun),
        "bce_probability": float(bce.x),
        "kld": float(kld.fun),
    }


def gathered(study: Study) -> dict[str, float]:
    """The floors of a study's published targets: computed where the data are, else read from its report.

    Raises:
        StudyError: Nothing is to be trained (so the data are not read), and no floors have been gathered.
    """
    file = study.report_path / "results" / "floors.json"
    if study.train_missing:
        config = validated(RunConfig, "settings", {"image_size": study.image_size} | study.settings)
        floors = of(published(catalog.of(study), config).targets)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(floors, indent=2) + "\n", encoding="utf-8")
    elif not file.is_file():
        raise StudyError(f"{file}: not gathered yet; run the study once with its data and train_missing: true")
    return json.loads(file.read_text(encoding="utf-8"))


def table(floors: dict[str, float]) -> pd.DataFrame:
    """The floors as a tidy table: `floor`, `value`."""
    return pd.DataFrame(floors.items(), columns=["floor", "value"])


def _lowest(loss):
    return minimize_scalar(loss, bounds=(EPSILON, 0.5), method="bounded", options={"xatol": 1e-9})


def _bce(lesion: float, background: float, p: float) -> float:
    # Linear in the targets, so their means are enough, soft and mirrored ones included.
    on_lesion = lesion * np.log(p) + (1 - lesion) * np.log(1 - p)
    on_background = background * np.log(1 - p) + (1 - background) * np.log(p)
    return -(on_lesion + on_background) / 2


def _dice_of_background(lesion: np.ndarray, background: np.ndarray) -> np.ndarray:
    pixels = lesion[0].size
    overlap, total = background.sum(axis=(1, 2)), (lesion + background).sum(axis=(1, 2))
    return 1 - 2 * overlap / (total + pixels)


def _pooled_auc(lesion: np.ndarray, background: np.ndarray) -> float:
    # Keras' AUC takes every target above 0 as positive, so a soft pixel is positive in both channels. A constant has
    # two scores only, 1 - p for background and p < 1 - p for lesion: the ROC curve has one corner, between them.
    positive = np.array([(lesion > 0).sum(), (background > 0).sum()])
    negative = lesion.size - positive
    corner = negative[1] / negative.sum(), positive[1] / positive.sum()
    return float(np.trapezoid([0, corner[1], 1], [0, corner[0], 1]))
