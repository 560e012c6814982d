"""The ladder: from the published number to the held-out one, one change at a time.

A rung changes one setting: how a network is trained, what its answers are compared with, or the threshold. The one
rung from training to validation images changes three: the scored images are no longer trained on, fewer images are
trained on, and the last epoch gives way to the best one on the validation images.

Scores are defined in the same way on all rungs: each image at network size.
"""

from itertools import pairwise
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.dataset.catalog import Catalog
from busi.mechanisms import section
from busi.published import published_row
from busi.results import Results
from busi.runs import Run
from busi.scoring.metrics import dice
from busi.scoring.statistics import Interval, difference_interval, format_interval
from busi.study import find_group

GROUP = "mechanisms/ladder"

SCORES = {"accuracy": "Accuracy", "auc": "AUC of both channels, mean of images", "dice": "Dice"}
"""Scores of a rung, with their titles in the figure. The published AUC differs: it pools the pixels of all images."""

FLOORS = [f"floor_{score}" for score in SCORES]
"""Columns with the same scores of "background everywhere"."""


class Rung(NamedTuple):
    """A network, and how it is scored.

    Attributes:
        variant: Label of the variant in ``params/mechanisms.yaml``.
        part: Part of the images that is scored: "training", "validation" or "test".
        target: Target that the answers are compared with: "squeezed" or "aligned".
        chosen: Whether the threshold is chosen on the validation part; one half if not.
    """

    variant: str
    part: str = "training"
    target: str = "squeezed"
    chosen: bool = False


RUNGS = {
    "rebuilt": Rung("rebuilt"),
    "Adam at 0.001": Rung("Adam"),
    "standardized": Rung("standardized"),
    "batches of 8": Rung("batches"),
    "shuffled": Rung("shuffled"),
    "complement, not mirror": Rung("complement"),
    "all masks, not the first": Rung("all masks"),
    "scored on what it covers": Rung("all masks", target="aligned"),
    "trained on what it covers": Rung("aligned", target="aligned"),
    "validation, not training": Rung("random split", "validation", "aligned"),
    "threshold chosen": Rung("random split", "validation", "aligned", chosen=True),
    "held-out": Rung("random split", "test", "aligned", chosen=True),
    "grouped": Rung("grouped split", "test", "aligned", chosen=True),
}


def measure(parameters: Parameters) -> tuple[Results, pd.DataFrame]:
    """Return the results of the runs, and the rows of `score_rung` for each run and `rung` that it belongs to."""
    variants = find_group(parameters, GROUP).variants

    def score_run(run: Run, catalog: Catalog) -> pd.DataFrame:
        tables = []
        for name, rung in RUNGS.items():
            # A quick profile trains the first variants only.
            if run.config in variants.get(rung.variant, []):
                tables.append(score_rung(rung, run, catalog).assign(rung=name))
        return pd.concat(tables)

    return section.measure_runs(parameters, GROUP, GROUP, score_run)


def score_rung(rung: Rung, run: Run, catalog: Catalog) -> pd.DataFrame:
    """Score a run's answers in the way of a rung.

    Returns:
        One row for each lesion image: `name`, scores as `score_image`, and those of "background everywhere" as
        `floor_*`.
    """
    # One half is the published rule: the class is the larger channel.
    threshold = section.choose_threshold(run, catalog, rung.target) if rung.chosen else 0.5
    rows = []
    for name, target, probability in section.pair_answers(run, rung.part, catalog, rung.target):
        scores = score_image(target, probability, threshold)
        floors = score_image(target, np.zeros_like(probability), threshold)
        named = dict(zip(FLOORS, [floors[score] for score in SCORES], strict=True))
        rows.append({"name": name} | scores | named)
    return pd.DataFrame(rows)


def score_image(target: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, float]:
    """Compute the published metrics, and Dice, of one image.

    Args:
        target: float (o, o, 2), lesion and background. A pixel is lesion if its first channel is not below its second.
        probability: Probability of lesion, float (o, o).
        threshold: A pixel is predicted lesion if its probability is at least this.

    Returns:
        `accuracy`: share of pixels classified correctly, as Keras counts it over both channels. `auc`: of both channels
        pooled, as published, but of one image alone. `dice`: missing (nan) if the target is empty.
    """
    from sklearn.metrics import roc_auc_score

    # The class is the larger channel: a soft pixel m, which the mirror makes 1 + m in the second one, is background.
    truth = target[..., 0] >= target[..., 1]
    predicted = probability >= np.float64(threshold)
    # Keras' AUC counts every target above 0 as positive, a soft pixel therefore in both channels.
    positive = target > 0
    both = np.stack([probability, 1 - probability], axis=-1)
    auc = roc_auc_score(positive.ravel(), both.ravel())
    return {"accuracy": float((truth == predicted).mean()), "auc": float(auc), "dice": dice(truth, predicted)}


def tabulate(per_image: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each rung, from the images of `measure`.

    Returns:
        `rung`, `n_runs`, `n_images`, `n_dice` (images with a Dice); for each of `SCORES` its mean, and that of
        "background everywhere" as `floor_*`; `dice_everywhere`: mean Dice of "lesion everywhere"; for each score the
        change from the rung before as `*_change` with the ends of its 95 % interval over images and runs as `*_low` and
        `*_high`, missing for the first rung.
    """
    # Background everywhere is wrong where the target has lesion: in the share s of the pixels, of which the Dice of
    # lesion everywhere is 2 s / (1 + s).
    share = 1 - per_image.floor_accuracy
    everywhere = (2 * share / (1 + share)).where(per_image.dice.notna())
    per_image = per_image.assign(dice_everywhere=everywhere)
    rungs = per_image.groupby("rung", sort=False)
    table = rungs[["seed", "name"]].nunique().set_axis(["n_runs", "n_images"], axis=1)
    with_dice = per_image.dropna(subset="dice").groupby("rung").name.nunique()
    table["n_dice"] = with_dice.reindex(table.index, fill_value=0)
    table = table.join(rungs[[*SCORES, *FLOORS, "dice_everywhere"]].mean())
    for score in SCORES:
        columns = [f"{score}_change", f"{score}_low", f"{score}_high"]
        table[columns] = np.nan
        for before, after in pairwise(table.index):
            # If all targets of a rung are empty, it has no Dice.
            if table.loc[[before, after], score].notna().all():
                earlier = rungs.get_group(before)
                later = rungs.get_group(after)
                # A rung with fewer images is compared on these alone: other images would add variation of their own.
                if set(later.name) < set(earlier.name):
                    earlier = earlier[earlier.name.isin(later.name)]
                table.loc[after, columns] = list(difference_interval(earlier, later, score))
    return table.reset_index()


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw each rung's scores and the change that leads to it, one panel for each score."""
    published = published_row("upsampling", "Upsampling2D")
    places = np.arange(1, len(table) + 1)
    fig, axes = plt.subplots(len(SCORES), 1, figsize=(display.WIDTH, 5.2), sharex=True)
    for ax, (score, title) in zip(axes, SCORES.items(), strict=True):
        # The paper gives no Dice, and its AUC is another one.
        if score == "accuracy":
            ax.plot(0, published[score], "*", color=display.PUBLISHED, markersize=12)
        value = table[score]
        change = table[f"{score}_change"].fillna(0)
        before = value - change
        ax.step(places, table[f"floor_{score}"], where="mid", **display.FLOOR_LINE)
        colours = np.where(change >= 0, display.OURS, display.PINK)
        ax.bar(places, change, 0.5, bottom=before, color=colours, alpha=0.7)
        ax.plot(places, value, "o", color=display.BLACK)
        low = table[f"{score}_low"]
        high = table[f"{score}_high"]
        ax.vlines(places, before + low, before + high, color=display.BLACK)
        ax.set(title=title)
        # Bars would end the axis at their lowest point, where it cuts dots in half.
        ax.use_sticky_edges = False
        ax.margins(y=0.1)
    axes[-1].set_xticks([0, *places], ["published", *table.rung], rotation=50, ha="right")
    title = f"{len(table)} rungs lead to Dice {table.dice.dropna().iloc[-1]:.3f}"
    # Rungs are trained in order, and only the last ones are scored on images held out.
    display.add_title(fig, f"{title} on images never seen" if len(table) == len(RUNGS) else title)
    return fig


def conclude(table: pd.DataFrame, size: str) -> str:
    """Return where the published number comes from, step by step."""
    published = published_row("upsampling", "Upsampling2D")
    first = table.iloc[0]
    last = table.iloc[-1]
    # Accuracy and AUC depend on the share of lesion pixels; Dice says whether lesions are found.
    beyond_chance = table[(table.dice_low > 0) | (table.dice_high < 0)]
    steps = []
    for step in beyond_chance.itertuples():
        change = Interval(step.dice_change, step.dice_low, step.dice_high)
        steps.append(f"{step.rung} {format_interval(change)}")
    # Rungs are trained in order.
    waiting = len(RUNGS) - len(table)
    # Without a lesion marked, two rungs differ in nothing that Dice could show.
    marks_none = (table.dice == 0).sum()
    unmarked = ""
    if marks_none > 1:
        unmarked = (
            f"In {marks_none} of {len(table)} rungs no network marks a lesion at one half, so that the ladder does not "
            "show what the changes between these rungs do. "
        )
    not_run = f"Of {len(RUNGS)} rungs {waiting} are not run yet. " if waiting else ""
    return (
        f"The published row has accuracy {published['accuracy']:.4f}. "
        f"Rebuilt at a small size, it has {first.accuracy:.4f}, and Dice {first.dice:.3f}. "
        f"The ladder ends at accuracy {last.accuracy:.4f} ({last.rung}, {last.n_images} images; background everywhere: "
        f"{last.floor_accuracy:.4f}) and Dice {last.dice:.3f} (the {last.n_dice} of them with lesion in the scored "
        f"part; lesion everywhere: {last.dice_everywhere:.3f}). {unmarked}"
        f"Steps of Dice whose interval, which is not corrected for their number, excludes 0: "
        f"{', '.join(steps) or 'none'}. "
        f"{not_run}Size: {size}."
    )


@section.presents("ladder")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_ladder.csv``."""
    trained, per_image = measure(parameters)
    table = results.write_table(parameters, "mechanisms_ladder", tabulate(per_image))
    size = section.describe_runs(trained)
    return section.compose(
        draw(table),
        table[["rung", "n_images", "n_dice", *SCORES, *FLOORS, "dice_everywhere"]],
        conclude(table, size),
        caption="Scores of the rungs, from the published number (star) to the held-out one. Bars: change from the rung "
        "before, on the images of this one where it had them, with its 95 % interval over images and seeds. Dashed: "
        f"background everywhere on the same images. {size}.",
        table_caption="Each rung on the images that it scores: means over images and seeds. n dice: images with lesion "
        "in the scored part, over which Dice is averaged. Floor: background everywhere; dice everywhere: Dice of "
        "calling every pixel lesion. From the eighth rung on only the middle of an image is scored, so that Dice here "
        "is another score than that of whole images.",
    )
