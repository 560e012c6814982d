"""Held-out scores of a family: what its variants and the untrained predictors score on images never trained on.

Folds finish one after another. Every table says how many runs and images a row is based on, and two variants are
compared on the images that both have scored.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from busi.results import Results
from busi.scoring import metrics, statistics
from busi.study import Group

_SCORES = ["dice", "dice_low", "dice_high", "iou", "hd95", "nsd", "precision", "recall", "auc", "accuracy", "ece"]

COLUMNS = ["family", "variant", *_SCORES, "normals_fpr", "n_images", "n_runs", "parameters", "seconds"]
"""Columns of ``tables/heldout.csv``."""

PAIR_COLUMNS = ["family", "a", "b", "difference", "low", "high", "p", "p_holm", "wins", "effect", "n_images"]
"""Columns of ``tables/pairwise.csv``."""

# Columns of a table on a page, in order, with the words that stand over them.
SCORE_COLUMNS = {
    "variant": "variant",
    "n_runs": "runs",
    "n_images": "images",
    "dice": "Dice",
    "interval": "95 % interval",
    "dice_median": "median",
    "iou": "IoU",
    "hd95": "HD95",
    "nsd": "NSD",
    "precision": "precision",
    "recall": "recall",
    "detected": "found",
}

PIXEL_COLUMNS = {
    "variant": "variant",
    "accuracy": "pixel accuracy",
    "auc": "lesion AUC",
    "brier": "Brier",
    "ece": "ECE",
    "normals_fpr": "normals with a finding",
    "normals_area": "area marked on normals",
    "parameters": "parameters",
    "minutes": "minutes a run",
}

DIGITS = dict.fromkeys(["Dice", "median", "IoU", "NSD", "precision", "recall", "found"], 3) | {"HD95": 1}
"""Decimals of a table of `format_scores`."""

PIXEL_DIGITS = dict.fromkeys(["pixel accuracy", "lesion AUC", "Brier", "ECE"], 3) | {"minutes a run": 1}
"""Decimals of a table of `format_pixels`."""


@dataclass(frozen=True)
class Scored:
    """Scores of one predictor on held-out images.

    Attributes:
        images: One row for each image: `image_class`, `name`, `group`, `lesion_share` and the scores of
            `busi.scoring.metrics.score_image`, averaged over runs that scored the same image.
        pixels: Pixels of the lesion images by probability, as `busi.scoring.metrics.count_pixels`.
        runs: Rows of `busi.results.Results.runs` behind the scores; empty for an untrained predictor.
    """

    images: pd.DataFrame
    pixels: pd.DataFrame
    runs: pd.DataFrame


@dataclass(frozen=True)
class Answers:
    """Answers to a family's question under the held-out protocol.

    Attributes:
        group: The family's held-out runs as the profile plans them.
        results: Results of those that have been trained.
        untrained_tables: Scores and pixels of the untrained predictors, as `busi.scoring.predictors.score_untrained`.
    """

    group: Group
    results: Results
    untrained_tables: tuple[pd.DataFrame, pd.DataFrame]

    @property
    def family(self) -> str:
        """Return the name of the family."""
        return self.group.name.partition("/")[2]

    @cached_property
    def untrained(self) -> dict[str, Scored]:
        """Return the scores of the untrained predictors by name."""
        images, pixels = self.untrained_tables
        scored = {}
        for label, own_images in images.groupby("predictor", sort=False):
            scored[label] = Scored(own_images, pixels[pixels.predictor == label], pd.DataFrame())
        return scored

    @cached_property
    def variants(self) -> dict[str, Scored]:
        """Return the scores of every variant with a run."""
        return {label: average_runs(self.results.of(label)) for label in self.results.variants}

    @cached_property
    def everyone(self) -> dict[str, Scored]:
        """Return the scores of every variant with a run, then of the untrained predictors."""
        return self.variants | self.untrained

    @cached_property
    def blind(self) -> dict[str, tuple[int, int]]:
        """Count the runs that mark no pixel of any held-out lesion image.

        Returns:
            Variant -> the number of such runs and of all its runs. Variants without such a run are left out.
        """
        counts = {}
        for label in self.variants:
            # Run by run: a mean over runs would hide one that finds nothing behind the others.
            images = statistics.lesion_images(self.results.images)
            largest = images[images.variant == label].groupby("run").predicted_share.max()
            blind = int((largest == 0).sum())
            if blind:
                counts[label] = blind, len(largest)
        return counts

    @cached_property
    def table(self) -> pd.DataFrame:
        """Tabulate the variants, then the untrained predictors.

        Returns:
            `COLUMNS`, then the other columns of `busi.scoring.statistics.summarize`: scores of the lesion images
            (distances in pixels) and, as `normals_*`, of the normal images. `n_runs` (0 for an untrained predictor);
            `parameters` of the network; `seconds` of training, mean over runs. A variant without a run has only
            counts.
        """
        rows = []
        # Planned variants come first, those without a run included, in the order of the parameter file.
        for label in dict.fromkeys([*self.group.variants, *self.everyone]):
            row = {"family": self.family, "variant": label, "n_images": 0, "n_runs": 0}
            if label in self.everyone:
                row |= _summarize(self.everyone[label])
            rows.append(row)
        table = pd.DataFrame(rows)
        # The first columns are the ones that readers of the CSV rely on.
        others = table.columns.difference(COLUMNS, sort=False)
        return table.reindex(columns=[*COLUMNS, *others]).astype({"parameters": "Int64"})

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Compare the variants pair by pair by Dice: `PAIR_COLUMNS`, as `busi.scoring.statistics.compare_pairs`."""
        images = {label: scored.images for label, scored in self.variants.items()}
        return statistics.compare_pairs(images).assign(family=self.family)[PAIR_COLUMNS]

    @cached_property
    def parts(self) -> pd.DataFrame:
        """Compute Dice by class and by size of the lesion, in terciles of the images that a predictor has scored.

        Returns:
            `variant`, `trained` (whether a network), `part` ("benign", "small", ...), and the columns of
            `busi.scoring.statistics.dice_by`.
        """
        tables = []
        for label, scored in self.everyone.items():
            for column in ("image_class", "lesion_size"):
                table = statistics.dice_by(scored.images, column).rename(columns={column: "part"})
                tables.append(table.assign(variant=label, trained=len(scored.runs) > 0))
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def reliability(self) -> pd.DataFrame:
        """Compute the reliability curve of every variant: `variant` and `busi.scoring.metrics.reliability_curve`."""
        curves = []
        for label, scored in self.variants.items():
            curves.append(metrics.reliability_curve(scored.pixels).assign(variant=label))
        if not curves:
            return pd.DataFrame(columns=["variant", "predicted", "observed"])
        return pd.concat(curves, ignore_index=True)


def average_runs(results: Results) -> Scored:
    """Return the scores of all runs of one variant together: mean over the runs that scored the same image.

    Args:
        results: Results of the variant, at least one run.
    """
    keys = ["image_class", "name", "group"]
    images = results.images.drop(columns=["variant", "run", "fold", "seed"])
    scores = images.columns.difference(keys, sort=False)
    # A score that is missing on all normal images would be read as text.
    images = images.astype(dict.fromkeys(scores, float))
    # Runs of other folds have scored other images; only seeds share them.
    averaged = images.groupby(keys, sort=False)[list(scores)].mean().reset_index()
    pixels = results.pixels.groupby("probability")[["lesion", "background"]].sum().reset_index()
    return Scored(averaged, pixels, results.runs)


def find_baseline(families: Iterable[Answers]) -> Scored | None:
    """Return the scores of the network that every held-out variant is a change of; None if it has no run."""
    for answers in families:
        runs = answers.results.runs
        baseline = runs.variant[runs.name == "baseline"]
        if len(baseline):
            return answers.variants[baseline.iloc[0]]
    return None


def count_runs(families: Iterable[Answers]) -> tuple[int, int]:
    """Return the number of held-out runs that have been trained and of those that are planned.

    A run that belongs to several families counts once.
    """
    # Labels, because families share their baseline.
    finished = set()
    planned = set()
    for answers in families:
        finished |= set(answers.results.runs.run)
        planned |= {config.label for config in answers.group.configs}
    return len(finished), len(planned)


def join_tables(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the tables of all families, as `Answers.table`, one below the other: `COLUMNS`."""
    # Read from CSV, a column of whole numbers with one missing has become one of decimals.
    joined = pd.concat([table[COLUMNS] for table in tables], ignore_index=True)
    return joined.astype({"parameters": "Int64"})


def join_pairs(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the pairs of all families, as `Answers.pairs`, one below the other: `PAIR_COLUMNS`."""
    # An empty table has columns without a type, which would take the types of the others away.
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=PAIR_COLUMNS)


def format_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `Answers.table` for a page: how well lesions are outlined."""
    return _rename(table.assign(interval=_intervals(table)), SCORE_COLUMNS)


def format_pixels(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `Answers.table` for a page: pixels and their probabilities, normal images, cost."""
    return _rename(table.assign(minutes=table.seconds / 60), PIXEL_COLUMNS)


def format_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `Answers.pairs` for a page."""
    columns = {
        "a": "a",
        "b": "b",
        "difference": "Dice a − b",
        "interval": "95 % interval",
        "p_shown": "p after Holm",
        "effect": "effect",
        "wins": "a wins",
        "n_images": "images",
    }
    intervals = [f"{low:+.3f} to {high:+.3f}" for low, high in zip(pairs.low, pairs.high, strict=True)]
    # With four decimals, a p-value that is merely small would be shown as zero.
    corrected = ["< 0.0001" if p < 0.0001 else f"{p:.4f}" for p in pairs.p_holm]
    return _rename(pairs.assign(interval=intervals, p_shown=corrected), columns)


def combine_answers(published: pd.DataFrame, heldout: pd.DataFrame, same: dict[str, str]) -> pd.DataFrame:
    """Return both answers to one question row by row: on the training images and on images never trained on.

    Args:
        published: As `busi.report.tables.compare_rows`.
        heldout: As `Answers.table`.
        same: Published method -> held-out variant with its settings, where that has another name.

    Returns:
        One row for each published method: its accuracy as published, rebuilt, and of the floor; then Dice with its 95 %
        interval and the accuracy on held-out images, and the name of the held-out variant where any differs.
    """
    published_columns = {
        "method": "method",
        "published_accuracy": "published accuracy",
        "accuracy": "rebuilt accuracy",
        "floor_accuracy": "floor of accuracy",
    }
    heldout_columns = {"dice": "held-out Dice", "interval": "95 % interval", "accuracy": "held-out accuracy"}
    # The held-out families have variants that the paper has not; only the published rows are matched.
    variants = [same.get(method, method) for method in published.method]
    scores = heldout.assign(interval=_intervals(heldout)).set_index("variant").reindex(variants)
    right = _rename(scores, heldout_columns).reset_index(drop=True)
    if same:
        right.insert(0, "held-out variant", variants)
    return _rename(published, published_columns).join(right)


def _summarize(scored: Scored) -> dict[str, float]:
    row = statistics.summarize(scored.images, scored.pixels)
    row |= {"n_runs": len(scored.runs), "parameters": 0, "seconds": np.nan}
    if len(scored.runs):
        # All runs of a variant have the same network.
        row["parameters"] = int(scored.runs.parameters.iloc[0])
        row["seconds"] = scored.runs.seconds.mean()
    return row


def _intervals(table: pd.DataFrame) -> list[str | None]:
    # A dash between the ends: no end is negative.
    ends = zip(table.dice_low, table.dice_high, strict=True)
    return [None if pd.isna(low) else f"{low:.3f}–{high:.3f}" for low, high in ends]


def _rename(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    return table.reindex(columns=list(columns)).rename(columns=columns)
