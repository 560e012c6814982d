"""Leakage: the effect of a split that puts near-duplicates, or images with neighbouring numbers, on both sides."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.dataset import duplicates, splits
from busi.dataset.catalog import Catalog
from busi.mechanisms import section
from busi.results import Results
from busi.scoring.statistics import Interval, difference_interval, format_interval, score_interval
from busi.study import load_results

GROUP = "mechanisms/leakage"

REFERENCE = "grouped"
"""Split that the others are compared with."""

SHOWN = {"all": (True, False), "twin in training": (True,), "no twin in training": (False,)}
"""Images of a row of the table -> their values of `twin`. A near-duplicate in the validation part is not a twin."""

COLUMNS = ["split", "images", "n_images", "share", "dice", "low", "high", "n_scored"]
COLUMNS += ["difference", "difference_low", "difference_high"]
"""Columns of `tabulate`."""


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return the lesion images tested in each fold under each split: `split`, `fold`, `name`, `twin`."""

    def make(catalog: Catalog) -> pd.DataFrame:
        parts = []
        for kind in splits.KINDS:
            split = splits.load_split(catalog, kind)
            for fold in parameters.folds:
                parts.append(find_twins(split, fold).assign(split=kind, fold=fold))
        return pd.concat(parts)[["split", "fold", "name", "twin"]]

    depends = [*map(str, parameters.folds), *map(splits.read_split_file, splits.KINDS)]
    return results.measure(parameters, GROUP, make, depends=depends, code=(splits, duplicates))


def find_twins(split: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Find the test images of one fold that have a near-duplicate, a twin, among the images trained on.

    Returns:
        `name` and `twin` (bool) of each test image with a lesion.
    """
    # A normal image is never trained on here, and so gives nothing away.
    lesions = split[split.image_class != "normal"]
    part = lesions[f"fold{fold}"]
    test = lesions[part == "test"]
    trained_groups = set(lesions.group[part == "training"])
    return pd.DataFrame({"name": test.name, "twin": test.group.isin(trained_groups)}).reset_index(drop=True)


def join_scores(twins: pd.DataFrame, trained: Results) -> pd.DataFrame:
    """Return the scores of the test images by run: `split`, `fold`, `seed`, `name`, `group`, `twin`, `dice`.

    Args:
        twins: As `measure` returns them.
        trained: Results of the runs under all splits; variants are named after their split.

    Raises:
        NotMeasured: There is no run under the grouped or the random split yet. The blocked one may be missing.
    """
    kinds = [split for split in splits.KINDS if split != "blocked" or split in trained.variants]
    scores = pd.concat([section.tested_lesions(trained, split) for split in kinds])
    scores = scores.rename(columns={"variant": "split"})
    # Matched by fold too: whether an image has a twin depends on the training part of its network.
    joined = scores.merge(twins, on=["split", "fold", "name"])
    return joined[["split", "fold", "seed", "name", "group", "twin", "dice"]]


def compare_with_grouped(scores: pd.DataFrame, split: str, images: str = "all") -> Interval | None:
    """Compute how much higher the same images score under a split than under the grouped one, image by image.

    Args:
        scores: As `join_scores` returns them.
        split: One of `busi.dataset.splits.KINDS`.
        images: One of `SHOWN`: which images, by whether they have a twin under ``split``.

    Returns:
        Mean difference and its interval over images and over the runs of both; None if no image has both scores.
    """
    reference = scores[scores.split == REFERENCE]
    chosen = scores[(scores.split == split) & scores.twin.isin(SHOWN[images])]
    # A fold may have been trained under only one of the splits.
    chosen = chosen[chosen.name.isin(reference.name)]
    if chosen.empty:
        return None
    # The two splits may test an image in different folds: its mean scores are subtracted, and the runs of both vary.
    return difference_interval(reference[reference.name.isin(chosen.name)], chosen)


def tabulate(twins: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return Dice by split and by whether a near-duplicate was trained on.

    Returns:
        `split`, `images` (one of `SHOWN`); `n_images`, and their `share` of the lesion images in all folds; `n_scored`
        of them, with their `dice`, `low` and `high`; `difference` from the Dice of the same images under the grouped
        split, with `difference_low` and `difference_high`.
    """
    rows = []
    for split, part in twins.groupby("split", sort=False):
        for images, wanted in SHOWN.items():
            # Twins are counted in all folds, of which only some may have been trained.
            count = int(part.twin.isin(wanted).sum())
            row = {"split": split, "images": images, "n_images": count, "share": count / len(part)}
            scored = scores[(scores.split == split) & scores.twin.isin(wanted)]
            row["n_scored"] = scored.name.nunique()
            if len(scored):
                row["dice"], row["low"], row["high"] = score_interval(scored)
            change = compare_with_grouped(scores, split, images) if split != REFERENCE else None
            if change:
                row["difference"], row["difference_low"], row["difference_high"] = change
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw Dice with intervals by split and twin, without rows that have no score or repeat those of a whole split."""
    rows = table[table.dice.notna() & ((table.images == "all") | (table.share < 1))]
    labels = [f"{row.split}: {row.images} ({row.n_scored})" for row in rows.itertuples()]
    fig, ax = plt.subplots(figsize=(display.WIDTH, 1.1 + 0.6 * len(rows)))
    display.draw_intervals(ax, range(len(rows)), rows.dice, rows.low, rows.high)
    ax.set(xlabel="Dice")
    display.name_rows(ax, labels)
    dice = rows.set_index(["split", "images"]).dice
    told = [f"{dice['random', images]:.3f} ({images})" for images in SHOWN if ("random", images) in dice.index]
    display.add_title(fig, f"Random split: Dice {', '.join(told)}")
    return fig


def conclude(twins: pd.DataFrame, scores: pd.DataFrame, size: str) -> str:
    """Return how many test images leak under each split, and how much that changes the score of the same images."""
    share = twins.groupby("split").twin.mean()
    text = f"Under the random split {share['random']:.0%} of the test images have a near-duplicate in training, under "
    text += f"the grouped one {share['grouped']:.0%}, under the blocked one {share['blocked']:.0%}. "
    told = [f"under the random one {_describe_change(compare_with_grouped(scores, 'random'))}"]
    without = compare_with_grouped(scores, "random", "no twin in training")
    # In a small data set, all images or none may have a twin.
    if 0 < share["random"] < 1:
        twin = compare_with_grouped(scores, "random", "twin in training")
        told.append(f"those with a near-duplicate in training {_describe_change(twin)}")
        told.append(f"those without {_describe_change(without)}")
    told.append(f"under the blocked one {_describe_change(compare_with_grouped(scores, 'blocked'))}")
    text += f"Compared with the grouped split, the Dice of the same images changes by: {'; '.join(told)}. "
    # Neighbouring numbers are often of one patient, and the random split puts these on both sides, too.
    if without and without.low > 0:
        text += "Images without a near-duplicate gain as well, so near-duplicates do not explain all of the gain. "
    return f"{text}Size: {size}."


def _describe_change(change: Interval | None) -> str:
    if change is None:
        return "not known yet"
    # The interval of a single group has no ends (nan), and so shows no difference.
    is_told = change.low > 0 or change.high < 0
    return format_interval(change) + ("" if is_told else ", which does not exclude 0")


@section.presents("leakage")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_leakage.csv``."""
    trained = load_results(parameters, GROUP)
    twins = measure(parameters)
    scores = join_scores(twins, trained)
    table = results.write_table(parameters, "mechanisms_leakage", tabulate(twins, scores))
    size = section.describe_runs(trained)
    return section.compose(
        draw(table),
        table,
        conclude(twins, scores, size),
        caption="Held-out Dice with 95 % intervals, by split and by whether a near-duplicate was trained on; in "
        f"parentheses the number of images. {size}.",
        table_caption="Test images of all folds by split, and the Dice of those that have been scored (mean over "
        "seeds). An image whose near-duplicate is in the validation part counts as one without a twin in training. "
        "Change: from the same images' Dice under the grouped split. Intervals cover images, near-duplicates together, "
        "and the runs of both.",
    )
