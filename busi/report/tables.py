"""Tables of the published protocol: the paper's rows next to ours and to blind predictors, our runs, and the data."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from IPython.display import HTML

from busi import display
from busi.dataset.catalog import is_released
from busi.published import METRICS, distinct_rows, published_tables
from busi.results import Results
from busi.scoring.fates import count_fates

FEWEST_RUNS = 3
"""Smallest number of runs whose range a published number is compared with; fewer reproduce a row by equal digits only.

With two runs, another run of the same distribution would be outside the widened range in 45 of 100 cases.
"""

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
NOT_RUN = "not run at this width"
FEW_RUNS = f"open: fewer than {FEWEST_RUNS} runs"
FATES_DIFFER = "open: fates differ"
"""Verdicts on a row of the paper."""

NOT_COMPARABLE = "not comparable"
"""Verdict on a row of the paper, and value of `reached_by`, if the images are not the paper's."""

NO_PUBLISHED = "The published numbers are about BUSI; these are other images, and no row is compared with the paper."

AUDIT = {4: 5, 3: 22, 2: 122}
"""Size of a group of duplicates in BUSI -> number of such groups in a published audit (by structural similarity).

Aumente-Maestro, Díez, Remeseiro, Computer Methods and Programs in Biomedicine, doi 10.1016/j.cmpb.2024.108540.
"""


def show(name: str, table: pd.DataFrame, **words: str) -> HTML:
    """Return a table for a page.

    Args:
        name: Name of the table's description in ``tables.yaml``.
        table: Table with columns that the description names; others are left out.
        **words: Caption or fold, in place of the described ones.
    """
    described = _read_descriptions()[name] | words
    del described["columns"]
    return display.table(choose_columns(name, table), **described)


def choose_columns(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that ``tables.yaml`` names, renamed for readers; published ones only if there are numbers."""
    columns = _read_descriptions()[name]["columns"]
    chosen = [column for column in columns if column in table]
    # About images other than the paper's, nothing is published.
    if "published_loss" in chosen and not is_comparable(table):
        chosen = [column for column in chosen if not column.startswith("published_")]
    return table[chosen].rename(columns=columns)


@cache
def _read_descriptions() -> dict[str, dict]:
    return yaml.safe_load(Path(__file__).with_name("tables.yaml").read_text(encoding="utf-8"))


def compare_rows(number: int, results: Results, blind: pd.DataFrame, *, comparable: bool = True) -> pd.DataFrame:
    """Return a table of the paper with our numbers.

    Args:
        number: Number of the table, 1 to 4.
        results: Results of its family's published runs.
        blind: As `busi.study.measure_blind`.
        comparable: As `busi.study.compares_with_paper`. If not, published numbers are missing, and so is the verdict.

    Returns:
        One row for each method: `method`; `published_loss`, `published_accuracy`, `published_auc`; ours, averaged over
        the last epoch while the weights change, as published: `loss`, `accuracy`, `auc` (means over the runs), and the
        lowest and highest of the runs, e.g. `loss_low` and `loss_high`; `n_runs`, `epochs` (fewest), `fates` (of all
        runs, in words) and `verdict` (as `judge_row`). Then the same metrics of predictors that never look: of a
        constant (e.g. `floor_loss`), of two biases in mixed orders (`biases_loss_low`, `biases_loss_high`) and of the
        mean mask (`mask_loss`).
    """
    rows = []
    for method, published in published_tables()[number]["rows"].items():
        runs = results.of(method).runs
        numbers = {metric: published[metric] if comparable else np.nan for metric in METRICS}
        row = {"method": method}
        row |= summarize_runs(numbers, runs)
        row |= _list_blind(published, blind)
        rows.append(row)
    return pd.DataFrame(rows).astype({"epochs": "Int64"})


def _list_blind(published: dict[str, float], blind: pd.DataFrame) -> dict[str, float]:
    """Return what predictors that never look score on a published row, as columns of `compare_rows`."""
    # A row that is in several tables is scored once: it is recognised by its numbers.
    distinct = distinct_rows().set_index([*METRICS])
    name = distinct.row[tuple(published[metric] for metric in METRICS)]
    is_own = (blind.row == name) & (blind.order != "by class")
    own = blind[is_own].set_index("predictor")
    scores = {}
    for metric in METRICS:
        low = own[f"{metric}_low"]
        high = own[f"{metric}_high"]
        scores[f"floor_{metric}"] = low["constant"]
        scores[f"biases_{metric}_low"] = low["two biases"]
        scores[f"biases_{metric}_high"] = high["two biases"]
        scores[f"mask_{metric}"] = low["mean mask"]
    return scores


def summarize_runs(published: dict[str, float], runs: pd.DataFrame) -> dict:
    """Summarize the runs of a row of the paper beside its published ``loss``, ``accuracy`` and ``auc``.

    Args:
        published: As `busi.published.published_row`; NaN where the images are not the paper's.
        runs: As `busi.results.Results.runs`.

    Returns:
        The columns of `compare_rows` that follow from these two.
    """
    row: dict = {f"published_{metric}": published[metric] for metric in METRICS}
    # Without a run, a group lacks the columns of its protocol.
    own = runs.reindex(columns=["training_loss", "training_accuracy", "training_auc", "epochs", "fate"])
    for metric in METRICS:
        # The paper reports what Keras printed: means over the last epoch, while the weights changed.
        ours = own[f"training_{metric}"].astype(float)
        row[metric] = ours.mean()
        row[f"{metric}_low"] = ours.min()
        row[f"{metric}_high"] = ours.max()
    row["n_runs"] = len(runs)
    row["epochs"] = own.epochs.min()
    row["fates"] = count_fates(own.fate)
    row["verdict"] = judge_row(row, set(own.fate))
    return row


def judge_row(row: dict, fates: set[str]) -> str:
    """Return the verdict on a row of the paper from our runs and their ``fates``: one of those above.

    A row is reproduced if its loss, accuracy and AUC all lie within the range of our runs, widened by half of its width
    on either side and rounded to the paper's four digits. Fewer than `FEWEST_RUNS` runs have no range to speak of: if
    all have the published digits, the row is reproduced; if not, it is open. Runs of several fates leave it open, too,
    because nearly any number lies between a network that has learned and one that has not. Without published numbers
    the verdict is `NOT_COMPARABLE`.
    """
    if not row["n_runs"]:
        return NOT_RUN
    if np.isnan(row["published_loss"]):
        return NOT_COMPARABLE
    if len(fates) > 1:
        return FATES_DIFFER
    has_few = row["n_runs"] < FEWEST_RUNS
    for metric in METRICS:
        low = row[f"{metric}_low"]
        high = row[f"{metric}_high"]
        half = (high - low) / 2
        published = row[f"published_{metric}"]
        if has_few and not round(low, 4) == published == round(high, 4):
            return FEW_RUNS
        if not round(low - half, 4) <= published <= round(high + half, 4):
            return NOT_REPRODUCED
    return REPRODUCED


def place_rows(tables: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """Return the nine distinct published rows, each with the simplest blind predictor that reaches it.

    Args:
        tables: Number of a table of the paper -> the table, as `compare_rows`.

    Returns:
        `row`, the columns of `compare_rows`, and `reached_by`: "a constant" if it has the row's loss, accuracy and AUC
        in four digits; else "two biases" if the three lie within the range of mixed orders; else "the mean mask" if its
        AUC is at least as high; else "none". `NOT_COMPARABLE` without published numbers. `lower_loss`: whether the
        row's loss is lower than those of all three, in four digits.
    """
    parts = []
    for number, table in tables.items():
        family = published_tables()[number]["family"]
        parts.append(table.assign(family=family))
    named = distinct_rows()[["row", "family"]]
    rows = named.merge(pd.concat(parts), left_on=["family", "row"], right_on=["family", "method"])
    records = rows.to_dict("records")
    rows["reached_by"] = [_name_reached(row) for row in records]
    rows["lower_loss"] = [_has_lower_loss(row) for row in records]
    return rows


def _name_reached(row: dict) -> str:
    if np.isnan(row["published_loss"]):
        return NOT_COMPARABLE
    if _is_within(row, "floor_{}", "floor_{}"):
        return "a constant"
    if _is_within(row, "biases_{}_low", "biases_{}_high"):
        return "two biases"
    return "the mean mask" if row["published_auc"] <= round(row["mask_auc"], 4) else "none"


def _has_lower_loss(row: dict) -> bool:
    lowest = min(row["floor_loss"], row["biases_loss_low"], row["mask_loss"])
    return row["published_loss"] < round(lowest, 4)


def _is_within(row: dict, low: str, high: str) -> bool:
    """Return whether all published metrics lie in a range, in four digits; its ends are column names with a "{}"."""
    for metric in METRICS:
        lowest = row[low.format(metric)]
        highest = row[high.format(metric)]
        # The paper prints four digits: a number that is equal in these is reached.
        if not round(lowest, 4) <= row[f"published_{metric}"] <= round(highest, 4):
            return False
    return True


def is_comparable(table: pd.DataFrame) -> bool:
    """Return whether a table of `compare_rows` or `place_rows` holds published numbers."""
    return bool(table.published_loss.notna().any())


def list_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each published run: name, seed, epochs, why it ended, fate, metrics of both kinds, seconds.

    Args:
        runs: As `busi.results.Results.runs`. A run that belongs to several tables is listed once.
    """
    distinct = runs.drop_duplicates("run").reset_index(drop=True)
    distinct["end"] = [tell_end(row) for row in distinct.to_dict("records")]
    columns = ["name", "seed", "epochs", "end", "fate"]
    # Averaged over the last epoch while the weights change, and computed with the final weights.
    for reading in ("training", "still"):
        columns += [f"{reading}_accuracy", f"{reading}_auc", f"{reading}_lesion_share", f"{reading}_loss"]
    return distinct.reindex(columns=[*columns, "seconds"]).rename(columns={"name": "run"})


def tell_end(run: dict) -> str:
    """Return why and when a published run, a row of `busi.results.Results.runs`, ended: "as planned at 75".

    Example:
        >>> tell_end({"end": "constant", "epochs": 13})
        'dead, stopped at 13'
        >>> tell_end({"end": "diverged", "epochs": 2})
        'diverged at 2'
    """
    if run["end"] == "constant":
        return f"dead, stopped at {run['epochs']}"
    reason = "as planned" if run["end"] == "planned" else run["end"]
    return f"{reason} at {run['epochs']}"


def format_blind(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `compare_rows` with `biases_loss` and `biases_auc` for pages: ranges in words."""
    shown = table.copy()
    for metric in ("loss", "auc"):
        ends = zip(table[f"biases_{metric}_low"], table[f"biases_{metric}_high"], strict=True)
        shown[f"biases_{metric}"] = [f"{low:.4f} to {high:.4f}" for low, high in ends]
    return shown


def count_places(tables: dict[int, pd.DataFrame], placed: pd.DataFrame) -> pd.DataFrame:
    """Return how many rows of each of the paper's tables are reproduced, and how many a blind predictor reaches.

    Args:
        tables: As for `place_rows`.
        placed: As `place_rows` returns them.

    Returns:
        One row for each table, then one for all distinct rows: `table`; `rows`; of these `reproduced`, `not
        reproduced`, `open` and `not run`; `AUC not above blind` (reached by a predictor that never looks), and of these
        `nor loss below`, whose loss is not lower than that of all three predictors, either.
    """
    numbers = [f"published_{metric}" for metric in METRICS]
    counts = []
    for number, table in tables.items():
        # A row that is in several tables is placed once: it is recognised by its numbers.
        own = table[numbers].dropna().merge(placed, on=numbers)
        counts.append({"table": f"{number} {published_tables()[number]['title']}"} | _count_places(own))
    return pd.DataFrame([*counts, {"table": "Distinct rows"} | _count_places(placed)])


def _count_places(rows: pd.DataFrame) -> dict[str, int]:
    verdicts = rows.verdict
    is_reached = ~rows.reached_by.isin(["none", NOT_COMPARABLE])
    return {
        "rows": len(rows),
        "reproduced": int((verdicts == REPRODUCED).sum()),
        "not reproduced": int((verdicts == NOT_REPRODUCED).sum()),
        "open": int(verdicts.isin([FEW_RUNS, FATES_DIFFER]).sum()),
        "not run": int((verdicts == NOT_RUN).sum()),
        "AUC not above blind": int(is_reached.sum()),
        "nor loss below": int((is_reached & ~rows.lower_loss).sum()),
    }


def format_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `list_runs` for a page: with `minutes`, and seeds as text, without thousands separators."""
    return runs.assign(seed=runs.seed.astype(str), minutes=runs.seconds / 60)


def summarize_classes(images: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each class: numbers of images, and medians over them.

    Returns:
        Indexed by `class`: `images`, `several_masks` (images with more than one mask), and the medians `width` and
        `height` in pixels and `lesion_area` as a share of the image.
    """
    classes = images.assign(several=images.masks > 1).groupby("image_class", sort=False)
    # Medians, because a few very large images would move the means.
    summary = classes.agg(
        images=("name", "size"),
        several_masks=("several", "sum"),
        width=("width", "median"),
        height=("height", "median"),
        lesion_area=("lesion_share", "median"),
    )
    return summary.astype({"width": int, "height": int}).rename_axis("class")


def count_folds(split: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each fold: its number, lesion images in training and validation, test images by class."""
    # Normal images have a part in every fold, but are counted only where they are scored, in the test part.
    lesions = split[split.image_class != "normal"]
    rows = []
    for fold in split.filter(regex=r"^fold\d$"):
        parts = lesions[fold].value_counts()
        tested = split.image_class[split[fold] == "test"].value_counts()
        row = {"fold": fold.removeprefix("fold")}
        for part in ("training", "validation"):
            row[part] = int(parts.get(part, 0))
        for image_class in split.image_class.unique():
            row[f"test, {image_class}"] = int(tested.get(image_class, 0))
        rows.append(row)
    return pd.DataFrame(rows)


def count_groups(split: pd.DataFrame) -> pd.DataFrame:
    """Count the groups of near-duplicates by size and classes; for BUSI, beside those of a published audit.

    Returns:
        One row for each size, the largest first: `images` in a group, `groups`, `audit` (groups of that size in
        `AUDIT`; for BUSI only), and the groups of each combination of classes, e.g. `benign + malignant`.
    """
    by_group = split.groupby("group").image_class
    groups = pd.DataFrame({"images": by_group.size(), "classes": by_group.unique().map(sorted).str.join(" + ")})
    # A group of one is an image without near-duplicates.
    groups = groups[groups.images > 1]
    counts = pd.crosstab(groups.images, groups.classes)
    # Single classes come first, then combinations.
    combinations = sorted(counts, key=lambda classes: (classes.count("+"), classes))
    audit = AUDIT if is_released(split) else {}
    sizes = sorted({*counts.index, *audit}, reverse=True)
    counts = counts.reindex(index=sizes, columns=combinations, fill_value=0)
    # Without any column, the sum would not be a whole number.
    counts.insert(0, "groups", counts.sum(axis=1).astype(int))
    if audit:
        counts.insert(1, "audit", [audit.get(size, 0) for size in counts.index])
    return counts.rename_axis(index="images", columns=None).reset_index()
