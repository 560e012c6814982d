"""Uncertainty of the scores: intervals, paired comparisons, and the rows of the held-out tables.

Near-duplicate images are not independent: a bootstrap resamples them together, and a test counts them as one. A table
of scores has one row for each image, as `busi.scoring.scores.Scores.images`; tables of several folds are concatenated.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import bootstrap, wilcoxon
from statsmodels.stats.multitest import multipletests

from busi.config import StudyError
from busi.scoring.metrics import LESION_SCORES, pool_pixels

RESAMPLES = 9999
"""Number of bootstrap resamples: SciPy's default, enough for the third digit of a Dice score."""

SIZES = ("small", "medium", "large")
"""Names of the terciles of the lesion's share of the image, over the lesion images of a table."""


class Interval(NamedTuple):
    """A mean over images, or a difference of means, with the ends of its 95 % bootstrap interval.

    The ends are missing (nan) where there is only one group to resample.
    """

    mean: float
    low: float
    high: float


def mean_interval(values: ArrayLike, groups: ArrayLike, *, seed: int = 0) -> Interval:
    """Compute the mean of ``values`` and its 95 % percentile bootstrap interval, resampling whole groups.

    The percentile interval is used instead of BCa: over hundreds of groups the two agree, and BCa is undefined if all
    values are equal.

    Args:
        values: float (n,), a score of each image.
        groups: (n,), the near-duplicate group of each image.
        seed: Seed of the resampling.

    Raises:
        StudyError: There are no values, a value is missing, or the numbers of values and groups differ.
    """
    values = np.asarray(values, dtype=float)
    totals = _total_by_group(values, groups)

    def resampled_mean(drawn, axis):
        return _mean_of_groups(totals, drawn, axis)

    low, high = _bootstrap_ends([totals], resampled_mean, seed)
    return Interval(float(values.mean()), low, high)


def difference_interval(a: pd.DataFrame, b: pd.DataFrame, score: str, *, seed: int = 0) -> Interval:
    """Compute the mean of b - a and its 95 % percentile bootstrap interval, resampling whole near-duplicate groups.

    If both tables hold the same images, the scores are subtracted image by image. Otherwise the difference of the two
    means is taken, and the groups of each table are resampled independently.

    Args:
        a: One row for each image: `name`, `group` and ``score``.
        b: A table with the same columns.
        score: The column that is compared. Images without a value in it are left out.
        seed: Seed of the resampling.

    Raises:
        StudyError: No image has a value.
    """
    # On the same images, the difference of an image varies less than its scores: the interval is narrower.
    if set(a.name) == set(b.name):
        both = a.merge(b, on="name", suffixes=("_a", "_b"))
        both = both.dropna(subset=[f"{score}_a", f"{score}_b"])
        return mean_interval(both[f"{score}_b"] - both[f"{score}_a"], both.group_a, seed=seed)
    a = a[a[score].notna()]
    b = b[b[score].notna()]
    totals_a = _total_by_group(a[score], a.group)
    totals_b = _total_by_group(b[score], b.group)

    def resampled_difference(drawn_a, drawn_b, axis):
        return _mean_of_groups(totals_b, drawn_b, axis) - _mean_of_groups(totals_a, drawn_a, axis)

    low, high = _bootstrap_ends([totals_a, totals_b], resampled_difference, seed)
    return Interval(float(b[score].mean() - a[score].mean()), low, high)


def format_interval(interval: Interval, digits: int = 3) -> str:
    """Format a difference and its interval for a sentence.

    Example:
        >>> format_interval(Interval(0.0121, -0.003, 0.0274))
        '+0.012 (-0.003 to +0.027)'
    """
    mean, low, high = (f"{value:+.{digits}f}" for value in interval)
    return f"{mean} ({low} to {high})"


def compare_pairs(per_image: dict[str, pd.DataFrame], score: str = "dice") -> pd.DataFrame:
    """Compare all pairs of a family's variants, each on the lesion images that both have been scored on.

    Args:
        per_image: Variant -> its table of scores.
        score: The column that is compared.

    Returns:
        One row for each pair with an image in common, in the order of the variants.

        `a`, `b`: The variants.
        `n_images`: Number of images.
        `difference`: Mean of a - b over the images, with `low` and `high` from `mean_interval`.
        `p`: P value of the two-sided Wilcoxon signed-rank test of the groups' mean differences; 1 if none differs.
        `p_holm`: `p`, corrected by Holm for all rows.
        `effect`: Matched-pairs rank-biserial correlation of the same differences, from -1 (b is higher in all that
            differ) to 1 (a is higher); 0 if none differs (Kerby, Comprehensive Psychology 3, 2014).
        `wins`: Share of images on which a is higher; equal images count half.

    Raises:
        StudyError: A table holds an image twice.
    """
    scores = {}
    for variant, table in per_image.items():
        scores[variant] = lesion_images(table).set_index("name")
        repeated = scores[variant].index.duplicated()
        if repeated.any():
            name = scores[variant].index[repeated][0]
            raise StudyError(f"{variant}: {name} scored twice; expected once")
    rows = []
    for a, b in combinations(scores, 2):
        # The inner join keeps the images that both variants have.
        both = scores[a].join(scores[b][score].rename("b"), how="inner")
        if len(both):
            compared = _compare(both[score] - both.b, both.group)
            rows.append({"a": a, "b": b} | compared)
    table = pd.DataFrame(rows, columns=["a", "b", "n_images", "difference", "low", "high", "p", "effect", "wins"])
    # Every pair of the family is one of the comparisons that the correction is for.
    corrected = multipletests(table.p, method="holm")[1] if rows else []
    table.insert(7, "p_holm", corrected)
    return table


def summarize(per_image: pd.DataFrame, bins: pd.DataFrame) -> dict[str, float]:
    """Summarize the scores of one variant in a row of numbers.

    Args:
        per_image: Its table of scores.
        bins: Its pixels by probability, as `busi.scoring.metrics.pool_pixels` takes them.

    Returns:
        Over the lesion images: `n_images`; `dice` (mean) with `dice_low` and `dice_high` from `mean_interval`;
        `dice_median`; means of `iou`, `precision`, `recall`, `hd95`, `nsd`, `detected` and `accuracy`. Over the pixels
        of these images: `auc`, `brier` and `ece`. Over the normal images, nan if there are none: `normals_fpr`, share
        of images with any pixel predicted lesion, and `normals_area`, mean share of pixels predicted lesion.
    """
    lesions = lesion_images(per_image)
    normals = per_image[per_image.image_class == "normal"]
    averaged = [score for score in LESION_SCORES if score != "dice"] + ["accuracy"]
    # Dice is the main score and the only one with an interval.
    row = _summarize_dice(lesions)
    row |= lesions[averaged].mean().to_dict()
    row |= pool_pixels(bins)
    row["normals_fpr"] = float((normals.predicted_share > 0).mean()) if len(normals) else np.nan
    row["normals_area"] = float(normals.predicted_share.mean())
    row["n_images"] = len(lesions)
    return row


def dice_by(per_image: pd.DataFrame, column: str) -> pd.DataFrame:
    """Summarize the Dice score of one variant by class or by lesion size.

    Args:
        per_image: Its table of scores.
        column: "image_class", or "lesion_size" for terciles of `lesion_share`, named as `SIZES`.

    Returns:
        One row for each value: ``column``, `n_images`, `dice` (mean), `dice_low`, `dice_high`, `dice_median`.
    """
    lesions = lesion_images(per_image)
    # Terciles of the rank, because equal shares could leave a tercile of the share empty.
    rank = lesions.lesion_share.rank(method="first")
    lesions = lesions.assign(lesion_size=pd.qcut(rank, len(SIZES), labels=SIZES))
    rows = []
    for value, part in lesions.groupby(column, observed=True):
        rows.append({column: value, "n_images": len(part)} | _summarize_dice(part))
    return pd.DataFrame(rows)


def lesion_images(images: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of benign and malignant images."""
    return images[images.image_class != "normal"]


def _total_by_group(values: ArrayLike, groups: ArrayLike) -> pd.DataFrame:
    """Return `sum` and `count` of the values of each group."""
    values = np.asarray(values, dtype=float)
    groups = np.asarray(groups)
    missing = np.isnan(values).sum()
    if not len(values) or len(values) != len(groups) or missing:
        raise StudyError(
            f"values: {len(values)}, {missing} of them missing, with {len(groups)} groups; expected a number and a "
            "group for each image, and at least one image. Normal images have no lesion scores: leave them out"
        )
    return pd.Series(values).groupby(groups).agg(["sum", "count"])


def _mean_of_groups(totals: pd.DataFrame, drawn: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean over the images of the groups whose rows are ``drawn`` along ``axis``."""
    sums = totals["sum"].to_numpy()[drawn]
    counts = totals["count"].to_numpy()[drawn]
    return sums.sum(axis=axis) / counts.sum(axis=axis)


def _bootstrap_ends(samples: list[pd.DataFrame], statistic, seed: int) -> tuple[float, float]:
    if min(len(totals) for totals in samples) == 1:
        return np.nan, np.nan
    # SciPy draws row numbers of groups, so that the sum and the count of a group are drawn together.
    rows = [np.arange(len(totals)) for totals in samples]
    interval = bootstrap(
        rows,
        statistic,
        vectorized=True,
        n_resamples=RESAMPLES,
        # All resamples at once would take 100 MB.
        batch=1000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _summarize_dice(lesions: pd.DataFrame) -> dict[str, float]:
    mean, low, high = mean_interval(lesions.dice, lesions.group)
    median = float(lesions.dice.median())
    return {"dice": mean, "dice_low": low, "dice_high": high, "dice_median": median}


def _compare(differences: pd.Series, groups: pd.Series) -> dict[str, float]:
    mean, low, high = mean_interval(differences, groups)
    # An equal score counts as half a win for either side.
    wins = (differences > 0) + (differences == 0) / 2
    row = {"n_images": len(differences), "difference": mean, "low": low, "high": high, "wins": float(wins.mean())}
    by_group = differences.groupby(groups.to_numpy()).mean()
    return row | _signed_rank(by_group)


def _signed_rank(differences: pd.Series) -> dict[str, float]:
    # A difference of 0 has no sign, so the test leaves it out.
    differences = differences[differences != 0]
    if differences.empty:
        return {"p": 1.0, "effect": 0.0}
    ranks = len(differences) * (len(differences) + 1) / 2
    # SciPy's one-sided statistic is the sum of the ranks of the differences above zero.
    ranks_above_zero = wilcoxon(differences, alternative="greater").statistic
    return {"p": float(wilcoxon(differences).pvalue), "effect": float(2 * ranks_above_zero / ranks - 1)}
