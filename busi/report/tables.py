"""Tables of the published protocol: the paper's rows next to ours and to blind predictors, our runs, and the data."""

import numpy as np
import pandas as pd

from busi.config import CONSTANT_EPOCHS
from busi.dataset.catalog import is_released
from busi.published import distinct_rows, published_tables
from busi.results import Results
from busi.scoring.fates import count_fates

METRICS = {"loss": "loss", "accuracy": "accuracy", "auc": "AUC"}
"""Published metrics and their names on pages."""

REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run at this width"
"""Verdicts on a row of the paper."""

NOT_COMPARABLE = "not comparable"
"""Verdict on a row of the paper, and what reaches it, where the images are others than the paper's."""

NO_PUBLISHED = "The published numbers are about BUSI; these are other images, and no row is compared with the paper."

READINGS = ("training", "still")
"""Two readings of a run's metrics: means of the last epoch while weights change, and of the final weights."""

AUDIT = {4: 5, 3: 22, 2: 122}
"""Size of a group of duplicates in BUSI -> number of such groups in a published audit, by structural similarity.

Aumente-Maestro, Díez, Remeseiro, Computer Methods and Programs in Biomedicine, doi 10.1016/j.cmpb.2024.108540.
"""


def compare_rows(number: int, results: Results, blind: pd.DataFrame, *, comparable: bool = True) -> pd.DataFrame:
    """Return a table of the paper with our numbers.

    Args:
        number: Number of the table, 1 to 4.
        results: Results of its family's published runs.
        blind: As `busi.study.measure_blind`.
        comparable: As `busi.study.compares_with_paper`. If not, published numbers are missing, and so is the verdict.

    Returns:
        One row for each method: `method`; `published_loss`, `published_accuracy`, `published_auc`; ours, of the last
        epoch, averaged while the weights change, as published: `loss`, `accuracy`, `auc` (means over the runs), and
        their lowest and highest value, e.g. `loss_low` and `loss_high`; `n_runs`, `epochs` (fewest), `fates` (of all
        runs, in words) and `verdict` (as `judge_row`). Then the same metrics of predictors that never look: of a
        constant (e.g. `floor_loss`), of two biases in mixed orders (`biases_loss_low`, `biases_loss_high`) and of the
        mean mask (`mask_loss`).
    """
    rows = []
    for method, published in published_tables()[number]["rows"].items():
        numbers = {metric: published[metric] if comparable else np.nan for metric in METRICS}
        row = {"method": method} | summarize_runs(numbers, results.of(method).runs)
        rows.append(row | _list_blind(published, blind))
    return pd.DataFrame(rows).astype({"epochs": "Int64"})


def _list_blind(published: dict[str, float], blind: pd.DataFrame) -> dict[str, float]:
    """Return what predictors that never look score on a published row, as columns of `compare_rows`."""
    # A row that stands in several tables is scored once: its numbers are its name.
    name = distinct_rows().set_index([*METRICS]).row[tuple(published[metric] for metric in METRICS)]
    own = blind[(blind.row == name) & (blind.order != "by class")].set_index("predictor")
    scores = {}
    for metric in METRICS:
        low, high = own[f"{metric}_low"], own[f"{metric}_high"]
        scores[f"floor_{metric}"] = low["constant"]
        scores[f"biases_{metric}_low"], scores[f"biases_{metric}_high"] = low["two biases"], high["two biases"]
        scores[f"mask_{metric}"] = low["mean mask"]
    return scores


def summarize_runs(published: dict[str, float], runs: pd.DataFrame) -> dict:
    """Summarize the runs of a row of the paper beside its published ``loss``, ``accuracy`` and ``auc``.

    Args:
        published: As `busi.published.published_row`; NaN where the images are not the paper's.
        runs: As `busi.results.Results.runs`.

    Returns:
        Those columns of `compare_rows` that depend on nothing else.
    """
    runs = runs.reindex(columns=[*_columns("training"), "epochs", "fate"])
    row: dict = {f"published_{metric}": published[metric] for metric in METRICS}
    for metric in METRICS:
        # The paper reports what Keras printed: means over the last epoch, while the weights changed.
        ours = runs[f"training_{metric}"].astype(float)
        row |= {metric: ours.mean(), f"{metric}_low": ours.min(), f"{metric}_high": ours.max()}
    row |= {"n_runs": len(runs), "epochs": runs.epochs.min(), "fates": count_fates(runs.fate)}
    return row | {"verdict": judge_row(row)}


def judge_row(row: dict) -> str:
    """Return the verdict on a row of the paper: `REPRODUCED`, `NOT_REPRODUCED`, `NOT_RUN` or `NOT_COMPARABLE`.

    It is reproduced if loss, accuracy and AUC all lie within the range of our runs, widened by half of its width on
    either side and seen in the paper's four digits. With one run the range is a point: only equal digits reproduce it.
    """
    if not row["n_runs"]:
        return NOT_RUN
    if np.isnan(row["published_loss"]):
        return NOT_COMPARABLE
    for metric in METRICS:
        low, high = row[f"{metric}_low"], row[f"{metric}_high"]
        half = (high - low) / 2
        if not round(low - half, 4) <= row[f"published_{metric}"] <= round(high + half, 4):
            return NOT_REPRODUCED
    return REPRODUCED


def place_rows(tables: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """Return the nine distinct published rows between the predictors that never look and our runs.

    Args:
        tables: Tables 1 to 4, as `compare_rows`.

    Returns:
        `row`, the columns of `compare_rows`, and `reached_by`: the least predictor that never looks and explains the
        published row, or `NOT_COMPARABLE`. "a constant" and "two biases" have its loss, accuracy and AUC in four digits
        or within the range of mixed orders; "the mean mask" has an AUC at least as high; "none" does.
    """
    parts = []
    for number, table in tables.items():
        parts.append(table.assign(family=published_tables()[number]["family"]))
    rows = distinct_rows()[["row", "family", "method"]].merge(pd.concat(parts), on=["family", "method"])
    return rows.assign(reached_by=[_name_reached(row) for row in rows.to_dict("records")])


def _name_reached(row: dict) -> str:
    if np.isnan(row["published_loss"]):
        return NOT_COMPARABLE
    ends = {"a constant": ("floor_{}", "floor_{}"), "two biases": ("biases_{}_low", "biases_{}_high")}
    for name, (low, high) in ends.items():
        within = [
            round(row[low.format(metric)], 4) <= row[f"published_{metric}"] <= round(row[high.format(metric)], 4)
            for metric in METRICS
        ]
        if all(within):
            return name
    return "the mean mask" if row["published_auc"] <= round(row["mask_auc"], 4) else "none"


def is_comparable(table: pd.DataFrame) -> bool:
    """Return whether a table of `compare_rows` or `place_rows` holds published numbers."""
    return bool(table.published_loss.notna().any())


def list_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each published run: name, seed, epochs, why it ended, fate, both readings of metrics, seconds.

    Args:
        runs: As `busi.results.Results.runs`. A run that belongs to several tables is listed once.
    """
    distinct = runs.drop_duplicates("run").reset_index(drop=True)
    distinct = distinct.assign(end=[tell_end(row) for row in distinct.to_dict("records")])
    columns = ["name", "seed", "epochs", "end", "fate", *_columns("training"), *_columns("still"), "seconds"]
    return distinct.reindex(columns=columns).rename(columns={"name": "run"})


def tell_end(run: dict) -> str:
    """Return when and why a published run ended, a row of `busi.results.Results.runs`: "as planned at 75".

    Example:
        >>> tell_end({"end": "constant", "epochs": 13})
        'dead since epoch 4, stopped at 13'
        >>> tell_end({"end": "diverged", "epochs": 2})
        'diverged at 2'
    """
    if run["end"] == "constant":
        # The epochs with one answer for every pixel are the last ones.
        return f"dead since epoch {run['epochs'] - CONSTANT_EPOCHS + 1}, stopped at {run['epochs']}"
    reason = "as planned" if run["end"] == "planned" else run["end"]
    return f"{reason} at {run['epochs']}"


def _columns(reading: str) -> list[str]:
    return [f"{reading}_{metric}" for metric in ("accuracy", "auc", "lesion_share", "loss")]


def format_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `compare_rows` for a page: published and our numbers next to each other, metric by metric."""
    columns = {"method": "method"}
    for metric, word in METRICS.items():
        columns |= {f"published_{metric}": f"published {word}", metric: f"our {word}"}
    columns |= {"fates": "fates", "verdict": "verdict"}
    return _drop_published(table[list(columns)]).rename(columns=columns)


def format_blind(table: pd.DataFrame) -> pd.DataFrame:
    """Return the predictors that never look in a table of `compare_rows` for a page, beside the published numbers.

    Accuracy and AUC of a constant and of the mean mask are the same in all rows: `blind_caption` tells them. The
    biases' accuracy is a constant's: they mark nothing.
    """
    shown = table.copy()
    for metric in ("loss", "auc"):
        ends = zip(table[f"biases_{metric}_low"], table[f"biases_{metric}_high"], strict=True)
        shown[f"biases_{metric}"] = [f"{low:.4f} to {high:.4f}" for low, high in ends]
    columns = {
        "method": "method",
        "published_loss": "published loss",
        "floor_loss": "a constant's loss",
        "mask_loss": "the mean mask's loss",
        "biases_loss": "two biases' loss",
        "published_auc": "published AUC",
        "biases_auc": "two biases' AUC",
    }
    return _drop_published(shown[list(columns)]).rename(columns=columns)


def _drop_published(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the published columns that are missing."""
    if "published_loss" not in table or is_comparable(table):
        return table
    return table[[column for column in table if not column.startswith("published")]]


def format_placement(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `place_rows` for a page."""
    columns = {
        "row": "row",
        "published_loss": "published loss",
        "published_auc": "published AUC",
        "reached_by": "reached by",
        "n_runs": "runs",
        "fates": "fates",
        "verdict": "verdict",
    }
    return _drop_published(rows[list(columns)]).rename(columns=columns)


def count_places(tables: dict[int, pd.DataFrame], placed: pd.DataFrame) -> pd.DataFrame:
    """Return how many rows of each of the paper's tables are reproduced, and how many need no look at the image.

    Args:
        tables: Tables 1 to 4, as `compare_rows`.
        placed: As `place_rows`.

    Returns:
        One row for each table, then one for all distinct rows: `table`, `rows`, `reproduced`, `no better than blind`
        (reached by a predictor that never looks) and `neither`. A row can be both.
    """
    numbers = [f"published_{metric}" for metric in METRICS]
    counts = []
    for number, table in tables.items():
        # A row that stands in several tables is placed once: its numbers are its name.
        own = table[numbers].dropna().merge(placed, on=numbers)
        counts.append({"table": f"{number} {published_tables()[number]['title']}"} | _count_places(own))
    return pd.DataFrame([*counts, {"table": "Distinct rows"} | _count_places(placed)])


def _count_places(rows: pd.DataFrame) -> dict[str, int]:
    reproduced, blind = rows.verdict == REPRODUCED, rows.reached_by != "none"
    blind &= rows.reached_by != NOT_COMPARABLE
    counts = {"reproduced": reproduced, "no better than blind": blind, "neither": ~(reproduced | blind)}
    return {"rows": len(rows)} | {name: int(chosen.sum()) for name, chosen in counts.items()}


def blind_caption(table: pd.DataFrame) -> str:
    """Return accuracy and AUC of a constant and of the mean mask in a table of `compare_rows`, in words."""
    row = table.iloc[0]
    text = (
        f"Without looking, a constant has accuracy {row.floor_accuracy:.4f} and AUC {row.floor_auc:.4f}, the mean mask "
        f"{row.mask_accuracy:.4f} and {row.mask_auc:.4f}"
    )
    return text if is_comparable(table) else f"{text}. {NO_PUBLISHED}"


def format_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `list_runs` for a page: both readings of a metric next to each other, minutes, not seconds."""
    columns = {"run": "run", "seed": "seed", "end": "ended", "fate": "fate"}
    for metric, word in METRICS.items():
        columns[f"training_{metric}"] = word
        columns[f"still_{metric}"] = f"{word}, still"
    columns["minutes"] = "minutes"
    # A seed is a name: as a number it would get a thousands separator.
    shown = runs.assign(seed=runs.seed.astype(str), minutes=runs.seconds / 60)
    return shown[list(columns)].rename(columns=columns)


def summarize_classes(images: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each class: `images`, `several_masks` (images with more than one), and medians.

    Args:
        images: As `busi.dataset.catalog.describe_images`.

    Returns:
        Indexed by `class`; the medians are `width` and `height` in pixels and `lesion_area` as a share of the image.
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
    """Return one row for each fold: its number, lesion images in training and validation, test images by class.

    Args:
        split: As `busi.dataset.splits.make_split`.
    """
    # Normal images have a part in every fold, but only the test part uses them.
    lesions = split[split.image_class != "normal"]
    rows = []
    for fold in split.filter(regex=r"^fold\d$"):
        tested = split[split[fold] == "test"].image_class.value_counts()
        row = {"fold": fold.removeprefix("fold")}
        for part in ("training", "validation"):
            row[part] = int((lesions[fold] == part).sum())
        for image_class in split.image_class.unique():
            row[f"test, {image_class}"] = int(tested.get(image_class, 0))
        rows.append(row)
    return pd.DataFrame(rows)


def count_groups(split: pd.DataFrame) -> pd.DataFrame:
    """Count the groups of near-duplicates by size and classes; of BUSI, beside those of the published audit.

    Args:
        split: As `busi.dataset.splits.make_split`.

    Returns:
        One row for each size, the largest first: `images` in a group, `groups`, `audit` (groups of that size in
        `AUDIT`; for BUSI only), and the groups of each combination of classes, e.g. `benign + malignant`.
    """
    groups = split.groupby("group").image_class.agg(["size", lambda classes: " + ".join(sorted(set(classes)))])
    groups.columns = ["images", "classes"]
    # A group of one is an image without near-duplicates.
    groups = groups[groups.images > 1]
    counts = pd.crosstab(groups.images, groups.classes)
    # Of one class first, then of several.
    counts = counts[sorted(counts, key=lambda classes: (classes.count("+"), classes))]
    audit = AUDIT if is_released(split) else {}
    counts = counts.reindex(sorted({*counts.index, *audit}, reverse=True), fill_value=0)
    # The sum over no column is not a whole number.
    counts.insert(0, "groups", counts.sum(axis=1).astype(int))
    if audit:
        counts.insert(1, "audit", [audit.get(size, 0) for size in counts.index])
    return counts.rename_axis(index="images", columns=None).reset_index()
