"""Held-out scores of a family: what its variants and the untrained predictors score on images never trained on.

Runs finish one after another. Every table says how many runs and images a row is based on, and two variants are
compared on the images, folds and seeds that both have.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product

import numpy as np
import pandas as pd

from busi import results, study
from busi.config import Parameters, RunConfig, families
from busi.results import Results
from busi.scoring import metrics, statistics
from busi.scoring.predictors import PREDICTORS
from busi.study import Group

_SCORES = ["dice", "dice_low", "dice_high", "iou", "hd95", "nsd", "precision", "recall", "auc", "accuracy", "ece"]

COLUMNS = ["family", "variant", *_SCORES, "normals_fpr", "n_images", "n_runs", "parameters", "seconds"]
COLUMNS += ["size", "settings", "n_seeds", "n_capped", "n_dead", "n_empty", "n_predictions", "nsd_tolerance"]
COLUMNS += ["dice_median", "detected", "brier", "loss", "auc_pooled", "normals_area"]
"""Columns of ``tables/heldout.csv``."""

PAIR_COLUMNS = ["family", "a", "b", "difference", "low", "high", "p", "p_holm", "wins", "n_images"]
PAIR_COLUMNS += ["n_runs", "p_t", "kind", "size"]
"""Columns of ``tables/pairwise.csv``."""

VARIANTS, SAME, ALIVE, UNTRAINED = "variants", "A/A", "alive", "untrained"
"""Kinds of pairs: two variants; two that are one function by proof; two variants without the runs of which either is
dead; at least one that is not trained."""

POWER_COLUMNS = ["family", "a", "b", "smallest", "limit", "n_runs", "runs_needed", *statistics.COMPONENTS, "size"]
"""Columns of ``tables/power.csv``."""

VARIANCE_COLUMNS = ["family", "variant", *statistics.COMPONENTS, "n_runs", "size"]
"""Columns of ``tables/variance.csv``."""

_NUMBERS = {"heldout": "%.6f", "pairwise": "%.6g", "variance": "%.6g", "power": "%.6g"}

_NSD = f"NSD at {metrics.NSD_TOLERANCE:g} px"

# Columns of a table on a page, in order, with the words that stand over them.
SCORE_COLUMNS = {
    "variant": "variant",
    "interval": "Dice",
    "dice_median": "median",
    "iou": "IoU",
    "hd95": "HD95",
    "nsd": _NSD,
    "precision": "precision",
    "recall": "recall",
}

RUN_COLUMNS = {
    "variant": "variant",
    "n_runs": "runs",
    "n_capped": "hit the cap",
    "n_dead": "dead",
    "n_images": "images",
    "parameters": "parameters",
    "minutes": "minutes a run",
    "empty": "empty",
    "detected": "found",
}

PIXEL_COLUMNS = {
    "variant": "variant",
    "accuracy": "pixel accuracy",
    "loss": "cross-entropy",
    "auc": "lesion AUC",
    "auc_pooled": "pooled AUC",
    "brier": "Brier",
    "ece": "ECE",
    "normals_fpr": "normals with a finding",
    "normals_area": "area marked on normals",
}

DIGITS = dict.fromkeys(["median", "IoU", _NSD, "precision", "recall"], 3) | {"HD95": 1}
"""Decimals of a table of `format_scores`."""


@dataclass(frozen=True)
class Scored:
    """Scores of one predictor on held-out images.

    Attributes:
        images: A table of scores as `busi.scoring.statistics` takes it: one row for each image, of a variant one for
            each image and run.
        pixels: Pixels of the lesion images by probability, as `busi.scoring.metrics.count_pixels`, for each run.
        runs: Rows of `busi.results.Results.runs` behind the scores; empty for an untrained predictor.
    """

    images: pd.DataFrame
    pixels: pd.DataFrame
    runs: pd.DataFrame

    @cached_property
    def dead(self) -> set[str]:
        """Return the labels of runs that mark nothing, or everything, on all their held-out lesion images."""
        if not len(self.runs):
            return set()
        marked = statistics.lesion_images(self.images).groupby("run").predicted_share
        return set(marked.max()[marked.max() == 0].index) | set(marked.min()[marked.min() == 1].index)


@dataclass(frozen=True)
class Answers:
    """Answers to a family's question under the held-out protocol, at one size.

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

    @property
    def size(self) -> str:
        """Return the size of the runs, as `busi.config.Size.size_name`; empty where none is planned."""
        return self.group.configs[0].size_name if self.group.configs else ""

    @property
    def size_words(self) -> str:
        """Return the size of the runs in short words; empty where none is planned."""
        configs = self.group.configs
        return f"{configs[0].image_size} pixels, {configs[0].base_filters} filters" if configs else ""

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
        scored = {}
        for label in self.results.variants:
            own = self.results.of(label)
            # A score that is missing on all normal images would be read as text.
            scores = own.images.columns.intersection([*metrics.LESION_SCORES, *metrics.PIXEL_SCORES])
            scored[label] = Scored(own.images.astype(dict.fromkeys(scores, float)), own.pixels, own.runs)
        return scored

    @cached_property
    def everyone(self) -> dict[str, Scored]:
        """Return the scores of every variant with a run, then of the untrained predictors."""
        return self.variants | self.untrained

    @cached_property
    def dead(self) -> dict[str, tuple[int, int]]:
        """Return variant -> the number of its dead runs and of all its runs, for variants that have a dead one."""
        return {label: (len(own.dead), len(own.runs)) for label, own in self.variants.items() if own.dead}

    @cached_property
    def table(self) -> pd.DataFrame:
        """Tabulate the variants, then the untrained predictors.

        Returns:
            `COLUMNS`, scores as `busi.scoring.statistics.summarize`. `size` of the runs; `settings` that differ from
            the protocol's baseline. `n_runs` (0 for an untrained predictor), `n_seeds` (runs a fold), `n_capped` (runs
            that were still improving when the planned epochs ended), `n_dead`; `parameters` of the network; `seconds`
            of training, mean over runs. A variant without a run has only counts.
        """
        rows = []
        # Planned variants come first, those without a run included, in the order of the parameter file.
        for label in dict.fromkeys([*self.group.variants, *self.everyone]):
            row = {"family": self.family, "variant": label, "size": self.size, "n_images": 0, "n_runs": 0}
            if label in self.everyone:
                row |= _summarize(label, self.everyone[label])
            rows.append(row)
        return pd.DataFrame(rows).reindex(columns=COLUMNS).astype({"parameters": "Int64"})

    @cached_property
    def compared(self) -> pd.DataFrame:
        """Compare the predictors pair by pair by Dice.

        Returns:
            As `busi.scoring.statistics.compare_pairs`, with `family`, `size` and `kind`. Holm's correction is over all
            pairs of two variants, and once more over these without dead runs. The ceiling is compared with nothing.
        """
        images = {label: scored.images for label, scored in self.everyone.items()}
        ratio = self._test_ratio()
        trained = statistics.compare_pairs(images, combinations(self.variants, 2), ratio=ratio)
        tables = [trained.assign(kind=[self._kind(row.a, row.b) for row in trained.itertuples()])]
        if self.dead:
            alive = {label: own.images[~own.images.run.isin(own.dead)] for label, own in self.variants.items()}
            again = statistics.compare_pairs(alive, combinations(alive, 2), ratio=ratio)
            tables.append(again[again.a.isin(self.dead) | again.b.isin(self.dead)].assign(kind=ALIVE))
        blind = [label for label in self.untrained if label in PREDICTORS]
        pairs = [*product(self.variants, blind), *combinations(blind, 2)]
        tables.append(statistics.compare_pairs(images, pairs).assign(kind=UNTRAINED))
        return _stack(tables, [*trained, "kind"]).assign(family=self.family, size=self.size)

    def _kind(self, a: str, b: str) -> str:
        one, other = (self.results.of(label).configs[0] for label in (a, b))
        return SAME if _is_one_function(one, other) else VARIANTS

    def _test_ratio(self) -> float:
        """Return the number of lesion images that a run is scored on, as a multiple of those it is trained on."""
        tested = statistics.lesion_images(self.results.images).groupby(["variant", "run"]).size()
        return tested.mean() / self.results.runs.images.mean() if len(tested) else np.nan

    @property
    def pairs(self) -> pd.DataFrame:
        """Return the comparisons with their intervals and tests: `PAIR_COLUMNS`."""
        return self.compared[PAIR_COLUMNS]

    @property
    def power(self) -> pd.DataFrame:
        """Return what each comparison of two variants could tell: `POWER_COLUMNS`; see `statistics.find_power`."""
        trained = self.compared[self.compared.kind.isin([VARIANTS, SAME])]
        return trained[POWER_COLUMNS]

    @property
    def variance(self) -> pd.DataFrame:
        """Return the parts of each variant's variance of Dice: `VARIANCE_COLUMNS`; see `statistics.find_components`."""
        rows = []
        for label, scored in self.variants.items():
            row = {"family": self.family, "variant": label, "n_runs": len(scored.runs), "size": self.size}
            rows.append(row | statistics.find_components(statistics.lesion_images(scored.images)))
        return pd.DataFrame(rows, columns=VARIANCE_COLUMNS)

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
            pixels = scored.pixels.groupby("probability")[["lesion", "background"]].sum().reset_index()
            curves.append(metrics.reliability_curve(pixels).assign(variant=label))
        return _stack(curves, ["variant", "predicted", "observed"])


def load_answers(parameters: Parameters, family: str) -> list[Answers]:
    """Return a family's held-out answers at the profile's size and, where it has one, at its second size.

    Raises:
        StudyError: As `busi.study.load_results` and `busi.study.measure_untrained`.
    """
    groups = study.find_groups(parameters)
    answers = []
    for protocol in ("heldout", "second"):
        name = f"{protocol}/{family}"
        if name in groups:
            untrained = study.measure_untrained(parameters, protocol)
            answers.append(Answers(groups[name], study.load_results(parameters, name), untrained))
    return answers


def write_tables(parameters: Parameters, answers: list[Answers]) -> None:
    """Write a family's tables, all sizes below each other: ``heldout_<family>.csv``, ``pairwise_<family>.csv``, ..."""
    family = answers[0].family
    for name, number in _NUMBERS.items():
        attribute = {"heldout": "table", "pairwise": "pairs"}.get(name, name)
        parts = [getattr(each, attribute) for each in answers]
        results.write_table(parameters, f"{name}_{family}", _stack(parts, list(parts[0])), number=number)


def join_tables(parameters: Parameters, name: str) -> pd.DataFrame:
    """Write ``tables/<name>.csv``, the tables of all families one below the other, and return it.

    Args:
        parameters: Of the study.
        name: "heldout", "pairwise", "variance" or "power".

    Raises:
        NotMeasured: A family's notebook has not written its table.
    """
    tables = [results.read_table(parameters, f"{name}_{family}") for family in families()]
    joined = _stack(tables, list(tables[0]))
    if name == "heldout":
        # Read from CSV, a column of whole numbers with one missing has become one of decimals.
        counts = joined.filter(regex="^n_|^parameters$").columns
        joined = joined.astype(dict.fromkeys(counts, "Int64"))
    return results.write_table(parameters, name, joined, number=_NUMBERS[name])


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


def format_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `Answers.table` for a page: how well lesions are outlined."""
    return _rename(table.assign(interval=_intervals(table)), SCORE_COLUMNS)


def format_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `Answers.table` for a page: runs, what they cost, and how often nothing is marked or found."""
    shown = table.assign(minutes=table.seconds / 60, empty=table.n_empty / table.n_predictions)
    return _rename(shown, RUN_COLUMNS)


def format_pixels(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `Answers.table` for a page: pixels and their probabilities, and normal images."""
    return _rename(table, PIXEL_COLUMNS)


def format_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of two variants in `Answers.pairs` for a page."""
    pairs = pairs[pairs.kind != UNTRAINED]
    columns = {
        "kind": "kind",
        "a": "a",
        "b": "b",
        "interval": "Dice a − b",
        "p_shown": "p after Holm",
        "t_shown": "p of resampled t",
        "wins": "a wins",
        "n_images": "images",
    }
    intervals = _join_intervals(pairs.difference, pairs.low, pairs.high, "+.3f")
    shown = pairs.assign(interval=intervals, p_shown=_format_p(pairs.p_holm), t_shown=_format_p(pairs.p_t))
    return _rename(shown, columns)


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
    # Of other images than the paper's, nothing is published.
    if published.published_accuracy.isna().all():
        del published_columns["published_accuracy"]
    heldout_columns = {"interval": "held-out Dice", "accuracy": "held-out accuracy"}
    # The held-out families have variants that the paper has not; only the published rows are matched.
    variants = [same.get(method, method) for method in published.method]
    scores = heldout.assign(interval=_intervals(heldout)).set_index("variant").reindex(variants)
    right = _rename(scores, heldout_columns).reset_index(drop=True)
    if same:
        right.insert(0, "held-out variant", variants)
    return _rename(published, published_columns).join(right)


def _is_one_function(a: RunConfig, b: RunConfig) -> bool:
    """Return whether two runs train the same function by proof: KLD and BCE have one gradient on these targets."""
    return {a.loss, b.loss} == {"kld", "bce"} and a.model_copy(update={"loss": b.loss, "seed": b.seed}) == b


def _summarize(label: str, scored: Scored) -> dict[str, float]:
    row = statistics.summarize(scored.images, scored.pixels)
    runs = scored.runs
    if not len(runs):
        return row | {"settings": label, "n_runs": 0, "parameters": 0}
    return row | {
        "settings": runs.name.iloc[0],
        "n_runs": len(runs),
        "n_seeds": runs.groupby("fold").size().max(),
        "n_capped": int((runs.epochs >= runs.planned_epochs).sum()),
        "n_dead": len(scored.dead),
        # All runs of a variant have the same network.
        "parameters": int(runs.parameters.iloc[0]),
        "seconds": runs.seconds.mean(),
    }


def _stack(tables: Iterable[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """Return tables one below the other; ``columns`` where none has a row."""
    # An empty table has columns without a type, which would take the types of the others away.
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=columns)


def _format_p(values: pd.Series) -> list[str]:
    # With four decimals, a p value that is merely small would be shown as zero.
    return ["< 0.0001" if p < 0.0001 else "" if pd.isna(p) else f"{p:.4f}" for p in values]


def _intervals(table: pd.DataFrame) -> list[str | None]:
    return _join_intervals(table.dice, table.dice_low, table.dice_high, ".3f")


def _join_intervals(means: pd.Series, lows: pd.Series, highs: pd.Series, form: str) -> list[str | None]:
    """Return each mean with its 95 % interval, e.g. "0.656 [0.627, 0.685]"; None where there is none."""
    cells = []
    for mean, low, high in zip(means, lows, highs, strict=True):
        cells.append(None if pd.isna(low) else f"{mean:{form}} [{low:{form}}, {high:{form}}]")
    return cells


def _rename(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    return table.reindex(columns=list(columns)).rename(columns=columns)
