"""Held-out scores of a family: what its variants and the untrained predictors score on images never trained on.

Runs finish one after another. Every table says how many runs and images a row is based on, and two variants are
compared on the images, folds and seeds that both have.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product

import pandas as pd

from busi import results, study
from busi.config import SECOND, Parameters, RunConfig, families
from busi.results import Results, empty_results
from busi.scoring import metrics, statistics
from busi.scoring.predictors import PREDICTORS
from busi.study import Group

_SCORES = ["dice", "dice_low", "dice_high", "iou", "hd95", "nsd", "precision", "recall", "auc", "accuracy", "ece"]

COLUMNS = ["family", "variant", *_SCORES, "normals_fpr", "n_images", "n_runs", "parameters", "seconds"]
COLUMNS += ["size", "settings", "n_seeds", "n_capped", "n_dead", "n_empty", "n_predictions", "nsd_tolerance"]
COLUMNS += ["dice_median", "detected", "brier", "loss", "auc_pooled", "normals_area", "accuracy_half"]
"""Columns of ``tables/heldout.csv``."""

PAIR_COLUMNS = ["family", "a", "b", "difference", "low", "high", "p", "p_holm", "wins", "n_images"]
PAIR_COLUMNS += ["n_runs", "n_folds", "p_t", "p_t_holm", "t_low", "t_high", "kind", "size"]
"""Columns of ``tables/pairwise.csv``."""

VARIANTS = "variants"
SAME = "A/A"
ALIVE = "alive"
UNTRAINED = "untrained"
"""Kinds of pairs: two variants; two variants that are one function by proof; two variants without their dead runs; at
least one untrained predictor."""

POWER_COLUMNS = ["family", "a", "b", "smallest", "limit", "n_runs", "runs_needed", *statistics.COMPONENTS, "size"]
"""Columns of ``tables/power.csv``."""

VARIANCE_COLUMNS = ["family", "variant", *statistics.COMPONENTS, "n_runs", "size"]
"""Columns of ``tables/variance.csv``."""

_TABLES = {
    "heldout": ("table", "%.6f"),
    "pairwise": ("pairs", "%.6g"),
    "variance": ("variance", "%.6g"),
    "power": ("power", "%.6g"),
}
"""File in ``tables`` -> the property of `Answers` that it holds, and the format of its numbers."""

FOUND_NOTHING = 0.01
"""Dice on the validation images, at the best threshold, below which a run has found nothing."""


def find_dead(variant: Results) -> set[str]:
    """Return the labels of a variant's dead runs.

    A dead run marks nothing, or everything, on all its held-out lesion images, or has found nothing on its validation
    images (`FOUND_NOTHING`): one that marks a few pixels of a few images has learned no more than one that marks none.
    """
    lesions = statistics.lesion_images(variant.images)
    marked = lesions.groupby("run").predicted_share.agg(["min", "max"])
    is_constant = (marked["max"] == 0) | (marked["min"] == 1)
    has_found_nothing = variant.runs.validation_dice < FOUND_NOTHING
    return {*marked.index[is_constant], *variant.runs.run[has_found_nothing]}


def find_capped(variant: Results) -> set[str]:
    """Return the labels of a variant's runs that reached the last planned epoch instead of being stopped early."""
    return set(variant.runs.run[variant.runs.epochs >= variant.runs.planned_epochs])


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
        return name_size(self.size)

    @cached_property
    def untrained(self) -> dict[str, Results]:
        """Return the scores of the untrained predictors by name: results without a run."""
        images, _ = self.untrained_tables
        scored = {}
        for label, own in images.groupby("predictor", sort=False):
            scored[label] = replace(empty_results(), images=own)
        return scored

    @cached_property
    def pooled(self) -> dict[str, pd.DataFrame]:
        """Return predictor -> its scores of all pixels together, as `busi.scoring.statistics.summarize` takes them."""
        pooled = {label: own.pooled for label, own in self.variants.items()}
        _, pixels = self.untrained_tables
        for label, own in pixels.groupby("predictor"):
            pooled[label] = pd.DataFrame([metrics.pool_pixels(own)])
        return pooled

    @cached_property
    def variants(self) -> dict[str, Results]:
        """Return the results of every variant with a run."""
        scored = {}
        for label in self.results.variants:
            own = self.results.of(label)
            # A score that is missing on all normal images would be read as text.
            scores = own.images.columns.intersection([*metrics.LESION_SCORES, *metrics.PIXEL_SCORES])
            images = own.images.astype(dict.fromkeys(scores, float))
            scored[label] = replace(own, images=images)
        return scored

    @cached_property
    def everyone(self) -> dict[str, Results]:
        """Return the scores of every variant with a run, then of the untrained predictors."""
        return self.variants | self.untrained

    @cached_property
    def dead(self) -> dict[str, tuple[int, int]]:
        """Return variant -> number of its dead runs and of all its runs, for variants with a dead one."""
        return _count_runs(self.variants, find_dead)

    @cached_property
    def capped(self) -> dict[str, tuple[int, int]]:
        """Return variant -> number of its capped runs (`find_capped`) and of all its runs, for variants with one."""
        return _count_runs(self.variants, find_capped)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Tabulate the variants, then the untrained predictors.

        Returns:
            `COLUMNS`, scores as `busi.scoring.statistics.summarize`. `size` of the runs; `settings` that differ from
            the protocol's baseline; `n_runs` (0 for an untrained predictor), `n_seeds` (most runs of a fold),
            `n_capped` (runs that reached the last planned epoch), `n_dead`; `parameters` of the network; `seconds` of
            training, mean over runs. Of a variant without a run, only `n_images` and `n_runs`
            are given, both 0.
        """
        rows = []
        # Planned variants come first, those without a run included, in the order of the parameter file.
        labels = dict.fromkeys([*self.group.variants, *self.everyone])
        for label in labels:
            row = {"family": self.family, "variant": label, "size": self.size, "n_images": 0, "n_runs": 0}
            if label in self.everyone:
                row |= _summarize(label, self.everyone[label], self.pooled[label])
            rows.append(row)
        table = pd.DataFrame(rows, columns=COLUMNS)
        return table.astype({"parameters": "Int64"})

    @cached_property
    def compared(self) -> pd.DataFrame:
        """Compare the predictors in Dice, pair by pair.

        Returns:
            As `busi.scoring.statistics.compare_pairs`, with `family`, `size` and `kind`. Holm's correction is over all
            pairs of two variants, separately over these without dead runs, and over pairs with an untrained predictor.
            The ceiling is compared with nothing.
        """
        # Ranked before dead runs are left out, so that the other runs keep their counterparts.
        trained_images = {label: statistics.rank_seeds(own.images) for label, own in self.variants.items()}
        ratio = statistics.find_test_ratio(self.results.images, self.results.runs)
        trained = statistics.compare_pairs(trained_images, combinations(self.variants, 2), ratio=ratio)
        trained["kind"] = [self._kind(row.a, row.b) for row in trained.itertuples()]
        tables = [trained]
        if self.dead:
            alive = {}
            for label, images in trained_images.items():
                is_dead = images.run.isin(find_dead(self.variants[label]))
                alive[label] = images[~is_dead]
            again = statistics.compare_pairs(alive, combinations(alive, 2), ratio=ratio)
            # The other pairs have no dead runs and would only be repeated.
            changed = again.a.isin(self.dead) | again.b.isin(self.dead)
            tables.append(again[changed].assign(kind=ALIVE))
        names = [label for label in self.untrained if label in PREDICTORS]
        pairs = [*product(self.variants, names), *combinations(names, 2)]
        images = trained_images | {label: self.untrained[label].images for label in names}
        untrained = statistics.compare_pairs(images, pairs)
        tables.append(untrained.assign(kind=UNTRAINED))
        return results.stack(tables).assign(family=self.family, size=self.size)

    def _kind(self, a: str, b: str) -> str:
        one = self.variants[a].configs[0]
        other = self.variants[b].configs[0]
        return SAME if _is_one_function(one, other) else VARIANTS

    @property
    def pairs(self) -> pd.DataFrame:
        """Return the comparisons with their intervals and tests: `PAIR_COLUMNS`."""
        return self.compared[PAIR_COLUMNS]

    @property
    def power(self) -> pd.DataFrame:
        """Return the power of each comparison of two variants: `POWER_COLUMNS`; see `statistics.find_power`."""
        trained = self.compared[self.compared.kind.isin([VARIANTS, SAME])]
        return trained[POWER_COLUMNS]

    @property
    def variance(self) -> pd.DataFrame:
        """Return each variant's variance components of Dice: `VARIANCE_COLUMNS`; see `statistics.find_components`."""
        rows = []
        for label, scored in self.variants.items():
            row = {"family": self.family, "variant": label, "n_runs": len(scored.runs), "size": self.size}
            components = statistics.find_components(statistics.lesion_images(scored.images))
            rows.append(row | components)
        return pd.DataFrame(rows, columns=VARIANCE_COLUMNS)


def load_answers(parameters: Parameters, family: str) -> list[Answers]:
    """Return a family's held-out answers at the profile's size and, where it has one, at its second size."""
    groups = study.find_groups(parameters)
    answers = []
    for protocol in ("heldout", SECOND):
        name = f"{protocol}/{family}"
        # Not every profile has a second size.
        if name in groups:
            untrained = study.measure_untrained(parameters, protocol)
            answers.append(Answers(groups[name], study.load_results(parameters, name), untrained))
    return answers


def write_tables(parameters: Parameters, answers: list[Answers]) -> None:
    """Write a family's tables, sizes one below the other: ``heldout_<family>.csv``, ``pairwise_<family>.csv``, ..."""
    family = answers[0].family
    for name, (attribute, number) in _TABLES.items():
        parts = [getattr(each, attribute) for each in answers]
        results.write_table(parameters, f"{name}_{family}", results.stack(parts), number=number)


def join_tables(parameters: Parameters, name: str) -> pd.DataFrame:
    """Write ``tables/<name>.csv``, the tables of all families one below the other, and return it.

    Raises:
        NotMeasured: A family's notebook has not written its table.
    """
    joined = results.stack(results.read_table(parameters, f"{name}_{family}") for family in families())
    if name == "heldout":
        # pandas reads a column of whole numbers with a missing one as floats.
        counts = joined.filter(regex="^n_|^parameters$").columns
        joined = joined.astype(dict.fromkeys(counts, "Int64"))
    _, number = _TABLES[name]
    return results.write_table(parameters, name, joined, number=number)


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


def count_by_size(families: Iterable[Answers]) -> dict[str, tuple[int, int]]:
    """Return size of the runs, in short words -> `count_runs` of the families at that size."""
    sizes: dict[str, list[Answers]] = {}
    for answers in families:
        # A family that is not trained under a protocol has no size there.
        if answers.size_words:
            sizes.setdefault(answers.size_words, []).append(answers)
    return {size: count_runs(own) for size, own in sizes.items()}


def name_size(size: str) -> str:
    """Return `busi.config.Size.size_name` in short words; empty for a size without runs.

    Example:
        >>> name_size("64px-8f-150e")
        '64 pixels, 8 filters'
    """
    numbers = re.findall(r"\d+", size)
    return f"{numbers[0]} pixels, {numbers[1]} filters" if numbers else ""


def add_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return `Answers.table`, of one or more sizes, with columns for pages.

    These are `at` (the size in words), the `interval` in words, the `minutes` a run, and the share `empty`.
    """
    intervals = _join_intervals(table.dice, table.dice_low, table.dice_high, ".3f")
    # If a row lacks them, counts would otherwise be shown with decimals.
    counts = table[["n_capped", "n_dead"]].astype("Int64")
    minutes = table.seconds / 60
    empty = table.n_empty / table.n_predictions
    sizes = table["size"].map(name_size)
    return table.assign(**counts, at=sizes, interval=intervals, minutes=minutes, empty=empty)


def format_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of two variants in `Answers.pairs`, of one or more sizes, with columns for pages.

    These are `at` (the size in words), the `interval` in words, and the p values `p_shown` and `t_shown`.
    """
    shown = pairs[pairs.kind != UNTRAINED].copy()
    shown["at"] = shown["size"].map(name_size)
    shown["interval"] = _join_intervals(shown.difference, shown.low, shown.high, "+.3f")
    shown["p_shown"] = shown.p_holm.map(statistics.format_p)
    shown["t_shown"] = shown.p_t_holm.map(statistics.format_p)
    return shown


def _is_one_function(a: RunConfig, b: RunConfig) -> bool:
    """Return whether two runs train the same function by proof: KLD and BCE have one gradient on these targets."""
    has_b_loss = a.model_copy(update={"loss": b.loss, "seed": b.seed})
    return {a.loss, b.loss} == {"kld", "bce"} and has_b_loss == b


def _count_runs(variants: dict[str, Results], find: Callable[[Results], set[str]]) -> dict[str, tuple[int, int]]:
    """Return variant -> number of its runs that ``find`` returns and of all its runs, for variants with one."""
    counts = {}
    for label, own in variants.items():
        found = find(own)
        if found:
            counts[label] = (len(found), len(own.runs))
    return counts


def _summarize(label: str, scored: Results, pooled: pd.DataFrame) -> dict[str, float]:
    row = statistics.summarize(scored.images, pooled)
    runs = scored.runs
    row["settings"] = label
    row["n_runs"] = len(runs)
    row["parameters"] = 0
    # The rest is about training, which an untrained predictor does not have.
    if len(runs):
        row["settings"] = runs.name.iloc[0]
        row["n_seeds"] = runs.groupby("fold").size().max()
        row["n_capped"] = len(find_capped(scored))
        row["n_dead"] = len(find_dead(scored))
        # All runs of a variant have the same network.
        row["parameters"] = int(runs.parameters.iloc[0])
        row["seconds"] = runs.seconds.mean()
    return row


def _join_intervals(means: pd.Series, lows: pd.Series, highs: pd.Series, form: str) -> list[str | None]:
    """Return each mean with its 95 % interval, e.g. "0.656 [0.627, 0.685]"; None where there is no interval."""
    cells: list[str | None] = []
    for numbers in zip(means, lows, highs, strict=True):
        mean, low, high = (format(number, form) for number in numbers)
        cells.append(None if pd.isna(numbers[1]) else f"{mean} [{low}, {high}]")
    return cells
