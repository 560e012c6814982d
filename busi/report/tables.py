"""Tables of the published protocol: the paper's rows next to ours and to the floor, our runs, and the data."""

import pandas as pd

from busi.published import distinct_rows, loss_floor, published_tables
from busi.results import Results

METRICS = {"loss": "loss", "accuracy": "accuracy", "auc": "AUC"}
"""Published metrics and their names on pages."""

READINGS = ("training", "still")
"""Two readings of a run's metrics: means of the last epoch while weights change, and of the final weights."""

AUDIT = {4: 5, 3: 22, 2: 122}
"""Size of a group of duplicates in BUSI -> number of such groups in a published audit, by structural similarity.

Aumente-Maestro, Díez, Remeseiro, Computer Methods and Programs in Biomedicine, doi 10.1016/j.cmpb.2024.108540.
"""


def compare_rows(number: int, results: Results, floors: dict[str, float]) -> pd.DataFrame:
    """Return a table of the paper with our numbers.

    Args:
        number: Number of the table, 1 to 4.
        results: Results of its family's published runs. The mean over a variant's runs counts.
        floors: As `busi.scoring.floors.constant_floors`.

    Returns:
        One row for each method: `method`; `published_loss`, `published_accuracy`, `published_auc`; ours as `loss`,
        `accuracy`, `auc` (of the last epoch, averaged while the weights change, as published); `floor_loss`,
        `floor_accuracy`, `floor_auc`; and `predicts_lesion`, whether the final weights predict lesion for any pixel of
        the training images. Ours and `predicts_lesion` are missing without a run.
    """
    rows = []
    for method, published in published_tables()[number]["rows"].items():
        runs = results.of(method).runs.reindex(columns=[*_columns("training"), "still_lesion_share"])
        # Seeds of one variant are repetitions of the same row.
        ours = runs.mean()
        row: dict = {"method": method}
        for metric in METRICS:
            row[f"published_{metric}"] = published[metric]
        for metric in METRICS:
            # The paper reports what Keras printed: means over the last epoch, while the weights changed.
            row[metric] = ours[f"training_{metric}"]
        row["floor_loss"] = loss_floor(method, floors)
        row["floor_accuracy"] = floors["accuracy"]
        row["floor_auc"] = floors["auc"]
        # One run that predicts a lesion is enough to say that the variant can.
        row["predicts_lesion"] = (runs.still_lesion_share > 0).any() if len(runs) else None
        rows.append(row)
    return pd.DataFrame(rows).astype({"predicts_lesion": "boolean"})


def collect_accuracy(tables: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """Return the nine distinct published rows with our accuracy.

    Args:
        tables: Tables 1 to 4, as `compare_rows`.

    Returns:
        The columns of `busi.published.distinct_rows` and `ours`, which is missing without a run.
    """
    ours = []
    for number, table in tables.items():
        family = published_tables()[number]["family"]
        ours.append(table[["method", "accuracy"]].rename(columns={"accuracy": "ours"}).assign(family=family))
    # A row without a run stays, because the published number is shown all the same.
    return distinct_rows().merge(pd.concat(ours), on=["family", "method"], how="left")


def list_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each published run: name, seed, epochs, both readings of its metrics, seconds.

    Args:
        runs: As `busi.results.Results.runs`. A run that belongs to several tables is listed once.
    """
    distinct = runs.drop_duplicates("run").reset_index(drop=True)
    columns = ["name", "seed", "epochs", *_columns("training"), *_columns("still"), "seconds"]
    return distinct.reindex(columns=columns).rename(columns={"name": "run"})


def _columns(reading: str) -> list[str]:
    return [f"{reading}_{metric}" for metric in ("accuracy", "auc", "lesion_share", "loss")]


def format_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `compare_rows` for a page: published and ours next to each other, metric by metric.

    The floors of accuracy and AUC are the same in all rows: `floor_caption` tells them.
    """
    columns = {"method": "method"}
    for metric, word in METRICS.items():
        columns[f"published_{metric}"] = f"published {word}"
        columns[metric] = f"our {word}"
        if metric == "loss":
            columns["floor_loss"] = "floor of loss"
    columns["predicts_lesion"] = "predicts a lesion"
    return table[list(columns)].rename(columns=columns)


def floor_caption(table: pd.DataFrame) -> str:
    """Return the floors of accuracy and AUC of a table of `compare_rows`, in words."""
    return f"Floor of accuracy {table.floor_accuracy[0]:.4f}, of AUC {table.floor_auc[0]:.4f}"


def format_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `list_runs` for a page: both readings of a metric next to each other, minutes, not seconds."""
    columns = {"run": "run", "seed": "seed", "epochs": "epochs"}
    for metric, word in METRICS.items():
        columns[f"training_{metric}"] = word
        columns[f"still_{metric}"] = f"{word}, still"
    columns["still_lesion_share"] = "predicted lesion, still"
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
    """Count the groups of near-duplicates by size and by the classes of their images, beside the published audit's.

    Args:
        split: As `busi.dataset.splits.make_split`.

    Returns:
        One row for each size, the largest first: `images` in a group, `groups`, `audit` (groups of that size in
        `AUDIT`), and the groups of each combination of classes, e.g. `benign + malignant`.
    """
    groups = split.groupby("group").image_class.agg(["size", lambda classes: " + ".join(sorted(set(classes)))])
    groups.columns = ["images", "classes"]
    # A group of one is an image without near-duplicates.
    groups = groups[groups.images > 1]
    counts = pd.crosstab(groups.images, groups.classes)
    # Of one class first, then of several.
    counts = counts[sorted(counts, key=lambda classes: (classes.count("+"), classes))]
    counts = counts.reindex(sorted({*counts.index, *AUDIT}, reverse=True), fill_value=0)
    # The sum over no column is not a whole number.
    counts.insert(0, "groups", counts.sum(axis=1).astype(int))
    counts.insert(1, "audit", [AUDIT.get(size, 0) for size in counts.index])
    return counts.rename_axis(index="images", columns=None).reset_index()
