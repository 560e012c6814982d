"""Scores of held-out runs and differences between them, with intervals, whether or not both score the same images."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from busi.evaluation import statistics
from busi.evaluation.statistics import Interval
from busi.runs import Run
from busi.study import Runs

RESAMPLES = 4000


def lesions(runs: list[Run]) -> pd.DataFrame:
    """The lesion images that a variant's held-out runs, at least one, scored: their ``per_image`` tables in one."""
    return pd.concat([run.per_image for run in runs]).query("image_class != 'normal'")


def scored(found: Runs) -> pd.DataFrame:
    """Dice of the lesion images, variants with a run: `variant`, `dice`, `low`, `high`, `n_images`, `epochs`."""
    rows = []
    for variant, runs in found.items():
        if runs:
            images = lesions(runs)
            mean, low, high = statistics.interval(images.dice, images.group)
            size = {"n_images": len(images), "epochs": max(run.metrics["epochs"] for run in runs)}
            rows.append({"variant": variant, "dice": mean, "low": low, "high": high} | size)
    return pd.DataFrame(rows, columns=["variant", "dice", "low", "high", "n_images", "epochs"])


def difference(a: pd.DataFrame, b: pd.DataFrame, score: str, *, seed: int = 0) -> Interval:
    """The mean of b - a with its 95 % percentile bootstrap interval, near-duplicates resampled together.

    Paired where both hold the same images; otherwise each is resampled by itself.

    Args:
        a: One row an image: `name`, `group` and ``score``.
        b: The same.
        score: The column that is compared; images without it are left out.
        seed: Of the resampling.
    """
    if set(a.name) == set(b.name):
        both = a.merge(b, on="name", suffixes=("_a", "_b")).dropna(subset=[f"{score}_a", f"{score}_b"])
        return statistics.interval(both[f"{score}_b"] - both[f"{score}_a"], both.group_a, seed=seed)
    a, b, rng = a[a[score].notna()], b[b[score].notna()], np.random.default_rng(seed)
    apart = _means(b[score], b.group, rng) - _means(a[score], a.group, rng)
    low, high = np.percentile(apart, [2.5, 97.5])
    return Interval(float(b[score].mean() - a[score].mean()), float(low), float(high))


def _means(values: ArrayLike, groups: ArrayLike, rng: np.random.Generator) -> np.ndarray:
    totals = pd.Series(np.asarray(values, float)).groupby(np.asarray(groups)).agg(["sum", "count"]).to_numpy()
    drawn = totals[rng.integers(len(totals), size=(RESAMPLES, len(totals)))].sum(axis=1)
    return drawn[:, 0] / drawn[:, 1]


def text(found: Interval, digits: int = 3) -> str:
    """A mean and its interval for a sentence: "+0.012 (-0.003 to 0.027)"."""
    return f"{found.mean:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"
