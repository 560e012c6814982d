"""Section 1: what a predictor that never looks scores, by formula and exactly, for each published metric."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from busi.config import RunConfig, Study, validated
from busi.dataset.arrays import published
from busi.dataset.catalog import Catalog
from busi.evaluation import floors
from busi.mechanisms import experiments

FORMULAS = {
    "accuracy": ("accuracy", "1 − s"),
    "AUC, both channels": ("auc", "1 − s"),
    "AUC, lesion channel": ("lesion_auc", "1/2"),
    "Dice loss": ("dice_loss", "s"),
    "BCE": ("bce", "−s ln s − (1 − s) ln(1 − s)"),
    "KLD": ("kld", "−s ln s − (1 − s) ln(1 − s)"),
}
"""Metric -> its name in `floors.of` and what it comes to where a share s of the pixels is lesion, hard targets."""


def of(targets: np.ndarray) -> pd.DataFrame:
    """The floors, twice.

    Args:
        targets: float (n, h, w, 2), as `busi.dataset.arrays.published` makes them.

    Returns:
        `metric`, `formula`, `from_share` (the formula with s, the share of pixels at or above one half) and `exact`
        (soft and mirrored pixels included, as `busi.evaluation.floors.of`).
    """
    lesion = targets[..., 0]
    exact = floors.of(targets) | {"lesion_auc": channel_auc(lesion > 0, 0.5)}
    s = float((lesion >= 0.5).mean())
    entropy = -s * np.log(s) - (1 - s) * np.log(1 - s)
    values = {"1 − s": 1 - s, "s": s, "1/2": 0.5}
    rows = [
        {"metric": metric, "formula": formula, "from_share": values.get(formula, entropy), "exact": exact[name]}
        for metric, (name, formula) in FORMULAS.items()
    ]
    return pd.DataFrame(rows)


def channel_auc(positive: np.ndarray, probability: float) -> float:
    """ROC AUC of one channel under a constant probability: one half, whatever is shown, because nothing is ranked."""
    counts = [positive.sum(), (~positive).sum()]
    return float(roc_auc_score([1, 0], [probability, probability], sample_weight=counts))


def measured(study: Study) -> pd.DataFrame | None:
    """As `of`, for the study's published targets."""
    config = validated(RunConfig, "settings", {"image_size": study.image_size} | study.settings)

    def make(data: Catalog) -> pd.DataFrame:
        return of(published(data, config).targets)

    return experiments.gathered(study, "floors", make)


def conclusion(table: pd.DataFrame | None, on_floor: list[str], rows: int) -> str:
    """What the floors say about the published rows.

    Args:
        table: As `of`.
        on_floor: The published rows with the accuracy of "background everywhere".
        rows: Distinct published rows.
    """
    if table is None:
        return experiments.NOT_RUN
    exact = table.set_index("metric").exact
    standing = f"{len(on_floor) or 'none'} of the {rows} published rows {'has' if len(on_floor) < 2 else 'have'}"
    return (
        f"A predictor that calls everything background is right on {exact['accuracy']:.4f} of the pixels, and "
        f"{standing} that accuracy; its AUC is {exact['AUC, both channels']:.4f} only because every pixel is counted "
        f"once more as background: on the lesion channel alone it is {exact['AUC, lesion channel']:.1f}."
    )
