"""How sure the scores are: intervals, paired comparisons, and the rows of the held-out tables.

Near-duplicate images are not independent: they are resampled together, and stand as one in a test. A table of scores
has one row an image, as a held-out run's ``per_image.csv``; those of several folds stand one below the other.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import bootstrap, wilcoxon
from statsmodels.stats.multitest import multipletests

from busi.config import StudyError
from busi.evaluation.metrics import LESION_SCORES, pooled

RESAMPLES = 9999
"""Of the bootstrap: SciPy's default, enough for the third digit of a Dice score."""

SIZES = ("small", "medium", "large")
"""Terciles of the lesion's share of the image, over the lesion images at hand."""


class Interval(NamedTuple):
    """A mean over images and its 95 % bootstrap interval; missing (nan) ends where there is one group only."""

    mean: float
    low: float
    high: float


def interval(values: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> Interval:
    """The mean of ``values`` with its 95 % percentile bootstrap interval, groups resampled whole.

    Percentile and not BCa: over hundreds of groups the two agree, and BCa has no answer where all values are equal.

    Args:
        values: float (n,), a score of each image.
        groups: (n,), the near-duplicate group of each image.
        seed: Of the resampling.

    Raises:
        StudyError: No values, a missing one, or not one group for each.
    """
    values, groups = np.asarray(values, dtype=float), np.asarray(groups)
    if not len(values) or len(values) != len(groups) or np.isnan(values).any():
        raise StudyError(
            f"values: {len(values)}, {np.isnan(values).sum()} of them missing, with {len(groups)} groups; expected a "
            "number and a group for each image, and one image at least. Normal images have no lesion scores"
        )
    totals = pd.Series(values).groupby(groups).agg(["sum", "count"])
    if len(totals) == 1:
        return Interval(float(values.mean()), np.nan, np.nan)
    found = bootstrap(
        (totals["sum"], totals["count"]),
        _ratio,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=1000,  # all at once they would take 100 MB
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(values.mean()), float(found.low), float(found.high))


def pairwise(per_image: dict[str, pd.DataFrame], score: str = "dice") -> pd.DataFrame:
    """All pairs of a family's variants, each on the lesion images that both have been scored on.

    Args:
        per_image: A table of scores for each variant.
        score: The column that is compared.

    Returns:
        One row a pair, in the order of the variants; none for a pair without an image in common. `a`, `b`; `n_images`;
        `difference` (mean of a - b over the images) with `low` and `high` (`interval`); `p`: two-sided Wilcoxon
        signed-rank test of the groups' mean differences, 1 where none differs; `p_holm`: corrected by Holm for all
        rows; `effect`: matched-pairs rank-biserial correlation of the same differences, -1 (b higher in all that
        differ) to 1 (a higher), 0 where none differs (Kerby, Comprehensive Psychology 3, 2014); `wins`: share of
        images on which a is higher, equal ones counting half.

    Raises:
        StudyError: A table holds an image twice.
    """
    scores = {variant: _lesions(table).set_index("name") for variant, table in per_image.items()}
    for variant, table in scores.items():
        if not table.index.is_unique:
            raise StudyError(f"{variant}: {table.index[table.index.duplicated()][0]} scored twice; expected once")
    pairs = [(a, b, scores[a].join(scores[b][score].rename("b"), how="inner")) for a, b in combinations(scores, 2)]
    rows = [{"a": a, "b": b, **_compared(both[score] - both.b, both.group)} for a, b, both in pairs if len(both)]
    table = pd.DataFrame(rows, columns=["a", "b", "n_images", "difference", "low", "high", "p", "effect", "wins"])
    table.insert(7, "p_holm", multipletests(table.p, method="holm")[1] if rows else [])
    return table


def summary(per_image: pd.DataFrame, bins: pd.DataFrame) -> dict[str, float]:
    """One variant in a row of numbers.

    Args:
        per_image: Its scores.
        bins: Its pixels by probability, as `busi.evaluation.metrics.pooled` takes them.

    Returns:
        Over the lesion images: `dice`, the mean, with `dice_low` and `dice_high` (`interval`); `dice_median`; the means
        of `iou`, `precision`, `recall`, `hd95`, `nsd`, `detected` and `accuracy`; of their pooled pixels `auc`, `brier`
        and `ece`. Over the normal images, missing if there are none: `normals_fpr`, share of images with any pixel
        predicted lesion, and `normals_area`, mean share of pixels predicted lesion. `n_images`: lesion images.
    """
    lesions, normals = _lesions(per_image), per_image[per_image.image_class == "normal"]
    means = lesions[[score for score in LESION_SCORES if score != "dice"] + ["accuracy"]].mean()
    return {
        **_dice(lesions),
        **means.to_dict(),
        **pooled(bins),
        "normals_fpr": float((normals.predicted_share > 0).mean()) if len(normals) else np.nan,
        "normals_area": float(normals.predicted_share.mean()),
        "n_images": len(lesions),
    }


def by(per_image: pd.DataFrame, column: str) -> pd.DataFrame:
    """The Dice score of one variant by what an image shows.

    Args:
        per_image: Its scores.
        column: "image_class", or "lesion_size" for terciles of `lesion_share`, named as `SIZES`.

    Returns:
        One row for each value: ``column``, `n_images`, `dice` (mean), `dice_low`, `dice_high`, `dice_median`.
    """
    lesions = _lesions(per_image)
    # By rank, so that equal shares cannot make an empty tercile.
    lesions = lesions.assign(lesion_size=pd.qcut(lesions.lesion_share.rank(method="first"), len(SIZES), labels=SIZES))
    parts = lesions.groupby(column, observed=True)
    return pd.DataFrame([{column: value, "n_images": len(part), **_dice(part)} for value, part in parts])


def _lesions(per_image: pd.DataFrame) -> pd.DataFrame:
    return per_image[per_image.image_class != "normal"]


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int) -> np.ndarray:
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def _dice(lesions: pd.DataFrame) -> dict[str, float]:
    mean, low, high = interval(lesions.dice, lesions.group)
    return {"dice": mean, "dice_low": low, "dice_high": high, "dice_median": float(lesions.dice.median())}


def _compared(differences: pd.Series, groups: pd.Series) -> dict[str, float]:
    mean, low, high = interval(differences, groups)
    wins = ((differences > 0) + (differences == 0) / 2).mean()
    images = {"n_images": len(differences), "difference": mean, "low": low, "high": high, "wins": float(wins)}
    return images | _signed_rank(differences.groupby(groups.to_numpy()).mean())


def _signed_rank(differences: pd.Series) -> dict[str, float]:
    differences = differences[differences != 0]
    if differences.empty:
        return {"p": 1.0, "effect": 0.0}
    ranks = len(differences) * (len(differences) + 1) / 2
    above = wilcoxon(differences, alternative="greater").statistic
    return {"p": float(wilcoxon(differences).pvalue), "effect": float(2 * above / ranks - 1)}
