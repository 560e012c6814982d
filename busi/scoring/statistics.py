"""Uncertainty of the scores: intervals, paired comparisons, variance components, and the rows of the held-out tables.

Two things vary when a score is measured again: the images and the training. Near-duplicate images are not independent,
so they are resampled together. Training varies between folds, which have other training images, and between the seeds
of a fold. An interval includes all of these, unless there is only one run, which says nothing about training. None of
the libraries considered (SciPy, statsmodels, arch, rliable) resamples images and varies runs within folds together.

A table of scores has one row for each image and run: `name`, `group` (near-duplicates), `image_class`, the scores of
`busi.scoring.metrics.score_image`, and the run's `fold` and `seed`. A predictor that is not trained has neither of
these two columns, and one row for each image.
"""

import gc
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests

from busi.config import StudyError
from busi.scoring.metrics import LESION_SCORES, NSD_TOLERANCE

RESAMPLES = 9999
"""Number of bootstrap resamples: SciPy's default, enough for the third digit of a Dice score."""

SIGNIFICANCE = 0.05
"""p value after Holm's correction below which a difference is told from chance."""

TARGET = 0.01
"""Difference in Dice for which `find_power` computes the number of runs needed."""

POWER = 0.8
"""Chance of telling a difference from zero at 95 % confidence: the power that `find_power` asks for."""

COMPONENTS = ("image", "fold", "seed", "residual")
"""Variance components of a score, as `find_components` returns them."""

_RUN = ["fold", "seed"]

_PAIR = ["a", "b", "n_images", "n_runs", "n_folds", "difference", "low", "high", "p", "p_t", "t_low", "t_high"]
_PAIR += ["wins", *COMPONENTS, "smallest", "limit", "runs_needed"]


class Interval(NamedTuple):
    """A mean over images, or a difference of means, with the ends of its 95 % bootstrap interval.

    The ends are missing (nan) where there is only one group to resample.
    """

    mean: float
    low: float
    high: float


class _Fold(NamedTuple):
    """Scores of the runs of one fold, float (images, runs), and each image's group, a number from 0."""

    values: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class _Deviations:
    """Random deviations that sources of variation add to a mean, float (`RESAMPLES`,).

    `doubt` is the denominator of Satterthwaite's degrees of freedom: (w s)^2 / f, where s is the mean square of a
    source with f degrees of freedom, and w its weight in the variance of the mean. Independent sources add up. It is 0
    for images, of which there are hundreds.
    """

    values: np.ndarray
    doubt: float = 0.0

    def __add__(self, other: "_Deviations") -> "_Deviations":
        return _Deviations(self.values + other.values, self.doubt + other.doubt)

    def __sub__(self, other: "_Deviations") -> "_Deviations":
        return _Deviations(self.values - other.values, self.doubt + other.doubt)

    @property
    def freedom(self) -> float:
        """Return the degrees of freedom of the deviations' variance (Satterthwaite, Biometrics Bulletin 2, 1946)."""
        return self.values.var() ** 2 / self.doubt if self.doubt > 0 else np.inf

    def around(self, mean: float) -> Interval:
        """Return the 95 % interval of a ``mean`` with these deviations."""
        # With few runs Student's t is wider than the normal distribution; with hundreds of images this is 1.
        widening = student.ppf(0.975, self.freedom) / norm.ppf(0.975)
        low, high = widening * np.quantile(self.values, [0.025, 0.975])
        return Interval(float(mean), float(mean + low), float(mean + high))


def score_interval(scores: pd.DataFrame, score: str = "dice") -> Interval:
    """Compute the mean of a score over images, averaged over seeds, and its 95 % interval over images and training.

    Each resample adds two deviations to the mean. For the images, groups of near-duplicates are drawn with replacement.
    For the runs, which are too few to be resampled, a deviation is drawn from a normal distribution. Its variance is
    that between folds and between the seeds of a fold, less what their few images explain (`find_components`), which
    the first deviation contains already. Where there is only one fold, it is that between its seeds; with one run in
    all, only the images vary. The interval is widened like Student's t, with Satterthwaite's degrees of freedom.

    The percentile interval is used instead of BCa: over hundreds of groups the two agree, and BCa is undefined if all
    values are equal.

    Args:
        scores: A table of scores, without normal images.
        score: The column.

    Raises:
        StudyError: There is no row, or a value is missing.
    """
    split = _split_folds(scores, score)
    return _vary_both(split).around(_mean(split))


def difference_interval(a: pd.DataFrame, b: pd.DataFrame, score: str = "dice") -> Interval:
    """Compute the mean of b - a and its 95 % interval over images and training.

    Scores are paired as far as possible, because paired differences vary less. If both tables have the same images,
    folds and seeds, they are paired run by run. If they have only the images in common, the means over runs of each
    image are paired, and the runs of the two are drawn independently. If the images differ, everything is drawn
    independently.

    Args:
        a: A table of scores. Images without a value are left out.
        b: Such a table of other runs, or of other images.
        score: The column that is compared.

    Raises:
        StudyError: No image has a value.
    """
    # Under two splits an image may be in different folds, and then has no match here.
    both = _match(b, a, score)
    if len(both) == len(a) == len(b):
        return score_interval(both.dropna(subset="difference"), "difference")
    a, b = a.dropna(subset=score), b.dropna(subset=score)
    before = _split_folds(a, score)
    after = _split_folds(b, score)
    mean = _mean(after) - _mean(before)
    means_a, means_b = (table.groupby(["name", "group"], as_index=False)[score].mean() for table in (a, b))
    both = _match(means_b, means_a, score)
    # Different random seeds: what is not paired is drawn independently.
    if len(both) == len(means_a) == len(means_b):
        images = _vary_images(_split_folds(both, "difference"))
        # Less what the other one scores on each image: folds would otherwise seem to vary by how hard their images are.
        before = _split_folds(_subtract_images(a, means_b, score), score)
        after = _split_folds(_subtract_images(b, means_a, score), score)
    else:
        images = _vary_images(after, seed=1) - _vary_images(before)
    runs = _vary_runs(after, seed=100) - _vary_runs(before, seed=0)
    return (images + runs).around(mean)


def format_interval(interval: Interval) -> str:
    """Format a difference and its interval for a sentence.

    Example:
        >>> format_interval(Interval(0.0121, -0.003, 0.0274))
        '+0.012 (-0.003 to +0.027)'
    """
    mean, low, high = (f"{value:+.3f}" for value in interval)
    return f"{mean} ({low} to {high})"


def format_p(p: float) -> str:
    """Format a p value for a table; a missing one is empty.

    Example:
        >>> format_p(0.0171), format_p(1e-6), format_p(float("nan"))
        ('0.0171', '< 0.001', '')
    """
    if np.isnan(p):
        return ""
    # With so few folds, p values below this are too small (docs/heldout-protocol.md, "Two levels").
    return "< 0.001" if p < 0.001 else f"{p:.4f}"


def find_components(scores: pd.DataFrame) -> dict[str, float]:
    """Estimate the variance components of Dice, by analysis of variance within folds and between them.

    Near-duplicates count once, with their mean. Negative estimates are set to zero.

    Args:
        scores: A table of scores of trained runs, without normal images.

    Returns:
        `image`: Variance between images that are not near-duplicates.
        `fold`: Between folds (training sets), beyond what their images and seeds explain; missing with one fold.
        `seed`: Between seeds of a fold, beyond what the few images explain.
        `residual`: What images and seeds do not explain. Where every fold has one run, `seed` and `residual` are
            missing: they cannot be separated from `fold` and `image`, which include them.
        `groups`, `images`, `runs`, `folds`: Number of groups, mean number of groups in a fold, number of runs and of
            folds.
    """
    return _find_components(_split_folds(scores, "dice"))


def find_power(
    components: dict[str, float], freedom: float = np.inf, variance: float | None = None
) -> dict[str, float]:
    """Compute the power of a comparison, before any correction, from the variance components of its differences.

    Args:
        components: As `find_components` of the differences between two variants.
        freedom: Degrees of freedom of the comparison.
        variance: Variance of the comparison's mean over images. The components, which are of means over groups, are
            scaled to it. If not given, every image is a group alone.

    Returns:
        `smallest`: Smallest difference that is told from zero with a chance of `POWER` at 95 % confidence.
        `limit`: The same with an unlimited number of seeds on these images and folds. More seeds are no further folds,
            so that its degrees of freedom are those of the folds.
        `runs`: Number of runs of each variant that `smallest` is about.
        `runs_needed`: Number of runs of each variant for a difference of `TARGET`; infinite if `limit` is above it.

        Where every fold has one run, `limit` and `runs_needed` are missing: `image` then includes the residual, and
        `fold` the seed, which more runs would reduce.
    """
    # Variance that remains whatever the number of seeds, and that of one run.
    fixed = components["image"] / components["groups"]
    if components["folds"] > 1:
        fixed += components["fold"] / components["folds"]
    one_seed = np.isnan(components["seed"])
    run = 0.0 if one_seed else components["seed"] + components["residual"] / components["images"]
    total = fixed + run / components["runs"]
    # Scores that do not vary at all cannot be scaled.
    if variance is not None and total > 0:
        fixed *= variance / total
        run *= variance / total
    few = _standard_errors(freedom)
    power = {"smallest": few * np.sqrt(fixed + run / components["runs"]), "runs": components["runs"]}
    if one_seed:
        return power | {"limit": np.nan, "runs_needed": np.nan}
    many = _standard_errors(components["folds"] - 1 if components["folds"] > 1 else np.inf)
    # Of the variance that a difference of `TARGET` allows, what images and folds leave for the runs.
    room = (TARGET / many) ** 2 - fixed
    needed = np.ceil(run / room) if room > 0 else np.inf
    return power | {"limit": many * np.sqrt(fixed), "runs_needed": needed}


def _standard_errors(freedom: float) -> float:
    """Return how many standard errors a difference must have to be told from zero with a chance of `POWER`."""
    return student.ppf(0.975, freedom) + student.ppf(POWER, freedom)


def compare_pairs(
    scores: dict[str, pd.DataFrame], pairs: Iterable[tuple[str, str]], *, score: str = "dice", ratio: float = np.nan
) -> pd.DataFrame:
    """Compare pairs of predictors, matched by image and, if both are trained, by fold and seed.

    Args:
        scores: Predictor -> its table of scores. Seeds that are to be compared have one number (`rank_seeds`).
        pairs: Pairs of names of predictors, a and b.
        score: The column that is compared.
        ratio: Number of images that a run is tested on, divided by the number that it is trained on.

    Returns:
        One row for each pair with a row in common.

        `a`, `b`: The predictors.
        `n_images`, `n_runs`, `n_folds`: Number of images, of pairs of runs, and of the folds that these are in. With
            one pair of runs, the interval is over images alone.
        `difference`: Mean of a - b over the images, with `low` and `high` as `score_interval`.
        `p`: Two-sided p value of `difference` divided by the standard deviation of the resamples.
        `p_holm`: `p` after Holm's correction for all rows.
        `p_t`: Two-sided p value of the folds' mean differences by the corrected resampled t test, which accounts for
            training images that folds share (Nadeau, Bengio, Machine Learning 52, 2003). Seeds of a fold share all of
            them and are averaged. Missing with one fold.
        `t_low`, `t_high`: The 95 % interval of that test, around the mean of the folds' mean differences.
        `p_t_holm`: `p_t` after Holm's correction for all rows that have it.
        `wins`: Share of images on which a is higher; equal images count half.
        `image`, `fold`, `seed`, `residual`: As `find_components` of the differences; missing without a run.
        `smallest`, `limit`, `runs_needed`: As `find_power`.

    Raises:
        StudyError: A table holds an image of a run twice.
    """
    tables = {label: _lesion_scores(label, table, score) for label, table in scores.items()}
    rows = []
    for a, b in pairs:
        both = _match(tables[a], tables[b], score)
        if len(both):
            rows.append({"a": a, "b": b} | _compare(both, ratio))
    table = pd.DataFrame(rows, columns=_PAIR)
    # Every row is one of the comparisons that the correction is for.
    return table.assign(p_holm=_correct(table.p), p_t_holm=_correct(table.p_t))


def find_test_ratio(images: pd.DataFrame, runs: pd.DataFrame) -> float:
    """Return the ``ratio`` of `compare_pairs`: lesion images that a run is tested on, per image that it is trained on.

    Args:
        images: Table of scores of trained networks.
        runs: One row for each run, with the number of `images` it was trained on. Where variants differ in it, the
            ratio is of the sums over all of them.
    """
    tested = lesion_images(images).groupby(["variant", "run"]).size()
    return tested.mean() / runs.images.mean() if len(tested) else np.nan


def summarize(scores: pd.DataFrame, pooled: pd.DataFrame) -> dict[str, float]:
    """Summarize the scores of one predictor in a row of numbers.

    Args:
        scores: Its table of scores, normal images included.
        pooled: One row for each of its runs, or a single one if it is not trained: scores of all pixels of the lesion
            images together, as `busi.scoring.metrics.pool_pixels`.

    Returns:
        Over the lesion images, each averaged over its runs: `n_images`; `dice` with `dice_low` and
        `dice_high` from `score_interval`, within 0 and 1; `dice_median`; `iou`, `precision`, `recall`, `hd95`, `nsd`
        (and its `nsd_tolerance` in pixels), `detected` and `accuracy`. `n_empty` of `n_predictions`: predictions of
        these images that mark nothing. Means over runs: the columns of ``pooled``.
        Over the normal images, nan if there are none: `normals_fpr`, share of predictions with any pixel marked, and
        `normals_area`, mean share of pixels marked.
    """
    lesions = lesion_images(scores)
    normals = scores[scores.image_class == "normal"]
    # Dice is the main score and the only one with an interval.
    row = _summarize_dice(lesions)
    # Runs that were gathered on another machine lack a score that was added since.
    averaged = [score for score in LESION_SCORES if score != "dice" and score in lesions]
    row |= _average(lesions, [*averaged, "accuracy"]).mean().to_dict()
    # Probabilities of different networks are not comparable, so that the pixels of each run were pooled on their own.
    row |= pooled.mean().to_dict()
    row |= {"n_empty": int((lesions.predicted_share == 0).sum()), "n_predictions": len(lesions)}
    marked = normals.assign(marked=normals.predicted_share > 0)
    row["normals_fpr"], row["normals_area"] = _average(marked, ["marked", "predicted_share"]).mean()
    return row | {"n_images": lesions.name.nunique(), "nsd_tolerance": NSD_TOLERANCE}


def normals_with_finding(scores: pd.DataFrame) -> np.ndarray:
    """Compute the share of normal images with any pixel marked, at each run's own threshold.

    Args:
        scores: Table of scores of trained networks, normal images included.

    Returns:
        The share of each run, 0 to 1, float (runs,); nan where there are no normal images.
    """
    shares = []
    for _, run in scores.groupby(_RUN):
        marked = run.predicted_share[run.image_class == "normal"] > 0
        shares.append(marked.mean())
    return np.array(shares)


def normals_at_sensitivity(scores: pd.DataFrame, sensitivity: float) -> np.ndarray:
    """Compute the share of normal images with a finding at the threshold that touches a given share of the lesions.

    Networks differ in how readily they mark anything. Here each run has the highest threshold at which it touches that
    share of its lesion images, so that all are equally sensitive. This is one point on the curve of sensitivity against
    false positives on these images: it describes a network, and nothing is chosen by it.

    Args:
        scores: Table of scores of trained networks, normal images included.
        sensitivity: Share of the lesion images, above 0 and up to 1.

    Returns:
        The share of each run, 0 to 1, float (runs,); nan where there are no normal images.

    Example:
        >>> scores = pd.DataFrame({"fold": 0, "seed": 0, "image_class": ["benign"] * 2 + ["normal"] * 2})
        >>> normals_at_sensitivity(scores.assign(peak=[0.9, 0.4, 0.6, 0.2]), 0.5).tolist()
        [0.0]
        >>> normals_at_sensitivity(scores.assign(peak=[0.9, 0.4, 0.6, 0.2]), 1.0).tolist()
        [0.5]
    """
    shares = []
    for _, run in scores.groupby(_RUN):
        peaks = np.sort(lesion_images(run).peak)
        # Rounded first: (1 - 0.9) * 10 is a little less than 1.
        missed = int(round((1 - sensitivity) * len(peaks), 9))
        threshold = peaks[missed]
        shares.append((run.peak[run.image_class == "normal"] >= threshold).mean())
    return np.array(shares)


def rank_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Return ``scores`` with the rank of each seed in its fold, from 1, in place of the seed.

    A variant that repeats another one has seeds of its own; its runs are compared with the other's in this order.
    """
    return scores.assign(seed=scores.groupby("fold").seed.rank("dense").astype(int))


def lesion_images(images: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of benign and malignant images."""
    return images[images.image_class != "normal"]


def _split_folds(scores: pd.DataFrame, score: str) -> list[_Fold]:
    """Return the scores fold by fold; a table without runs is one fold with one run."""
    missing = scores[score].isna().sum()
    if not len(scores) or missing:
        raise StudyError(
            f"{score}: {len(scores)} values, {missing} of them missing; expected a number for each image, and at "
            "least one image. Normal images have no lesion scores: leave them out"
        )
    # Numbered in order, so that the order of the rows does not matter.
    groups, _ = pd.factorize(scores.group, sort=True)
    names, _ = pd.factorize(scores.name, sort=True)
    folds = scores.fold if "fold" in scores else pd.Series(0, scores.index)
    seeds = scores.seed if "seed" in scores else pd.Series(0, scores.index)
    values = scores[score].to_numpy(dtype=float)
    split = []
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        # Image by image, the runs of each in the same order.
        rows = rows[np.lexsort((seeds.iloc[rows], names[rows]))]
        runs = seeds.iloc[rows].nunique()
        expected = np.repeat(np.unique(names[rows]), runs)
        if not np.array_equal(names[rows], expected):
            raise StudyError(f"fold {fold}: its runs have scored different images; expected the same, once by each")
        split.append(_Fold(values[rows].reshape(-1, runs), groups[rows[::runs]]))
    return split


def _average_runs(split: list[_Fold]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over runs of each image, and its group."""
    values = [fold.values.mean(axis=1) for fold in split]
    return np.concatenate(values), np.concatenate([fold.groups for fold in split])


def _mean(split: list[_Fold]) -> float:
    values, _ = _average_runs(split)
    return values.mean()


def _vary_both(split: list[_Fold]) -> _Deviations:
    return _vary_images(split) + _vary_runs(split)


def _vary_images(split: list[_Fold], seed: int = 0) -> _Deviations:
    """Return the deviations of the mean from resampling groups of images; nan where there is only one group."""
    values, groups = _average_runs(split)
    names, groups = np.unique(groups, return_inverse=True)
    if len(names) == 1:
        return _Deviations(np.full(RESAMPLES, np.nan))
    counts = _draw_counts(len(names), seed)
    # One product of the large matrix of counts, not two.
    sums, sizes = (counts @ np.column_stack([np.bincount(groups, values), np.bincount(groups)])).T
    return _Deviations(sums / sizes - values.mean())


def _vary_runs(split: list[_Fold], seed: int = 0) -> _Deviations:
    """Return the deviations of the mean that other runs would cause; zeros if there is one run in all."""
    folds = pd.DataFrame([_compare_means(fold) for fold in split])
    weights = folds.images / folds.images.sum()
    variance = 0.0
    doubts = [0.0]
    # The doubts are about the whole mean squares: what images explain of them is subtracted from the variance, but
    # remains uncertain.
    of_seeds = 0.0
    if folds.runs.max() > 1:
        of_seeds = np.maximum(0, (folds.seed_square - folds.seed_known).mean())
        share = (weights**2 / folds.runs).sum()
        variance += share * of_seeds
        doubts.append((share * folds.seed_square.mean()) ** 2 / (folds.runs - 1).sum())
    # Where no fold is trained twice, what varies between folds contains what varies between seeds.
    if len(split) > 1:
        fold_square = folds["mean"].var()
        known = (folds.known + of_seeds / folds.runs).mean()
        share = (weights**2).sum()
        variance += share * np.maximum(0, fold_square - known)
        doubts.append((share * fold_square) ** 2 / (len(split) - 1))
    draws = np.random.default_rng([seed, 1]).normal(0, np.sqrt(variance), RESAMPLES)
    # Not their sum, because the spread of the folds contains that of the seeds.
    return _Deviations(draws, max(doubts))


def _compare_means(fold: _Fold) -> dict[str, float]:
    """Return the mean of a fold over its images and runs, how its runs vary, and how much of both its images explain.

    `known` is the variance of the fold's mean that comes from its few images, `seed_square` the variance of the runs'
    means, and `seed_known` that part of it which comes from the images; both are missing with one run.
    """
    images, runs = fold.values.shape
    of_images = fold.values.mean(axis=1)
    of_runs = fold.values.mean(axis=0)
    mean = of_images.mean()
    row = {"mean": mean, "images": images, "runs": runs, "known": _mean_variance(of_images - mean, fold.groups)}
    if runs == 1:
        return row | {"seed_square": np.nan, "seed_known": np.nan}
    # What neither the image nor the run explains. Each image's mean over its runs has used up one of their degrees of
    # freedom.
    rest = fold.values - of_images[:, None] - (of_runs - mean)
    explained = np.mean([_mean_variance(column, fold.groups) for column in rest.T])
    return row | {"seed_square": of_runs.var(ddof=1), "seed_known": explained * runs / (runs - 1)}


def _mean_variance(deviations: np.ndarray, groups: np.ndarray) -> float:
    """Return the variance of a mean over images that vary by group; nan for a single group.

    This is what the bootstrap of groups estimates: the variance of the ratio of the groups' sums to their sizes
    (Cochran, "Sampling Techniques", 1977, chapter 9A).

    Args:
        deviations: Of each image from the mean, float (images,).
        groups: Group of each image.
    """
    _, groups = np.unique(groups, return_inverse=True)
    sums = np.bincount(groups, deviations)
    if len(sums) == 1:
        return np.nan
    return len(sums) / (len(sums) - 1) * (sums**2).sum() / len(deviations) ** 2


@lru_cache(maxsize=2)
def _draw_counts(number: int, seed: int) -> np.ndarray:
    """Return how often each of ``number`` things is drawn in as many draws, float (`RESAMPLES`, number)."""
    # The same draws serve every predictor on the same images.
    draws = np.random.default_rng(seed).integers(number, size=(RESAMPLES, number))
    draws += number * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(draws.ravel(), minlength=RESAMPLES * number)
    return counts.reshape(RESAMPLES, number).astype(float)


def _find_components(split: list[_Fold]) -> dict[str, float]:
    folds = pd.DataFrame([_analyse_fold(fold) for fold in split])
    within = folds[["image", "seed", "residual"]].mean().clip(lower=0)
    # Variance that the mean of a fold has even if folds do not differ.
    known = within.image / folds.groups
    known += (within.seed / folds.runs).fillna(0)
    known += (within.residual / folds.groups / folds.runs).fillna(0)
    components = within.to_dict()
    components["fold"] = np.maximum(0, folds["mean"].var() - known.mean())
    components["groups"] = folds.groups.sum()
    components["images"] = folds.groups.mean()
    components["runs"] = folds.runs.sum()
    components["folds"] = len(folds)
    return components


def _analyse_fold(fold: _Fold) -> dict[str, float]:
    # Near-duplicates count once: a cell is the mean of a group's images under one run.
    cells = pd.DataFrame(fold.values).groupby(fold.groups).mean().to_numpy()
    groups, runs = cells.shape
    by_group = cells.mean(axis=1)
    by_run = cells.mean(axis=0)
    row = {"mean": by_group.mean(), "groups": groups, "runs": runs}
    if groups == 1 or runs == 1:
        image = by_group.var(ddof=1) if groups > 1 else np.nan
        return row | {"image": image, "seed": np.nan, "residual": np.nan}
    # Two-way analysis of variance without replication: what neither the group nor the run explains.
    rest = cells - by_group[:, None] - (by_run - by_run.mean())
    residual = (rest**2).sum() / ((groups - 1) * (runs - 1))
    row["image"] = by_group.var(ddof=1) - residual / runs
    row["seed"] = by_run.var(ddof=1) - residual / groups
    return row | {"residual": residual}


def _lesion_scores(label: str, table: pd.DataFrame, score: str) -> pd.DataFrame:
    keys = table.columns.intersection(["name", *_RUN], sort=False).to_list()
    lesions = lesion_images(table)[[*keys, "group", score]]
    repeated = lesions.duplicated(keys)
    if repeated.any():
        raise StudyError(f"{label}: {lesions.name[repeated].iloc[0]} scored twice; expected once by each run")
    return lesions


def _match(a: pd.DataFrame, b: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return the rows of both tables with the same image and, where both have runs, the same fold and seed."""
    keys = ["name", "group", *(column for column in _RUN if column in a and column in b)]
    both = a.merge(b, on=keys, suffixes=("_a", "_b"))
    return both.assign(difference=both[f"{score}_a"] - both[f"{score}_b"])


def _subtract_images(scores: pd.DataFrame, means: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return ``scores`` less the mean of each image in ``means``."""
    of_image = means.set_index("name")[score]
    return scores.assign(**{score: scores[score] - scores.name.map(of_image)})


def _compare(both: pd.DataFrame, ratio: float) -> dict[str, float]:
    split = _split_folds(both, "difference")
    images, _ = _average_runs(split)
    deviations = _vary_both(split)
    mean, low, high = deviations.around(images.mean())
    # An equal score counts as half a win for either side.
    wins = (images > 0) + (images == 0) / 2
    row = {"n_images": len(images), "n_runs": 0, "n_folds": 0, "difference": mean, "low": low, "high": high}
    row |= {"p": _find_p(mean, deviations.values.std(), deviations.freedom), "wins": wins.mean()}
    if "fold" not in both:
        return row
    components = _find_components(split)
    row |= {"n_runs": components["runs"], "n_folds": len(split)}
    row |= _corrected_t(np.array([fold.values.mean() for fold in split]), ratio)
    return row | components | find_power(components, deviations.freedom, deviations.values.var())


def _corrected_t(differences: np.ndarray, ratio: float) -> dict[str, float]:
    """Return p value and interval of the corrected resampled t test of folds; nan for one fold, or no ratio."""
    folds = len(differences)
    if folds < 2 or np.isnan(ratio):
        return dict.fromkeys(["p_t", "t_low", "t_high"], np.nan)
    mean = differences.mean()
    error = np.sqrt((1 / folds + ratio) * differences.var(ddof=1))
    half = student.ppf(0.975, folds - 1) * error
    return {"p_t": _find_p(mean, error, folds - 1), "t_low": mean - half, "t_high": mean + half}


def _correct(p: pd.Series) -> pd.Series:
    """Return p values after Holm's correction for all of them; a missing one stays missing and does not count."""
    known = p.dropna().astype(float)
    if known.empty:
        return p
    # statsmodels collects garbage first, which takes longer than all the rest while large libraries are loaded. Frozen
    # objects are passed over.
    gc.freeze()
    corrected = multipletests(known, method="holm")[1]
    gc.unfreeze()
    return pd.Series(corrected, known.index).reindex(p.index)


def _find_p(mean: float, error: float, freedom: float) -> float:
    """Return the two-sided p value of a mean; 1 where its error is unknown."""
    if mean == 0 or np.isnan(error):
        return 1.0
    if error == 0:
        return 0.0
    return float(2 * student.sf(abs(mean) / error, freedom))


def _average(scores: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return one row for each image: the means over its runs."""
    return scores.groupby("name", sort=False)[list(columns)].mean()


def _summarize_dice(lesions: pd.DataFrame) -> dict[str, float]:
    mean, low, high = score_interval(lesions)
    # With five folds that vary widely, an interval can end outside the range of Dice.
    low, high = np.clip([low, high], 0, 1)
    median = float(_average(lesions, ["dice"]).dice.median())
    return {"dice": mean, "dice_low": float(low), "dice_high": float(high), "dice_median": median}
