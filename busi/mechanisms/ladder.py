"""The ladder: from the published number to the held-out one, one change at a time.

Each rung is scored as its author would report it: against its own targets, at network size, on its own part of the
images. Only the definition of the scores is the same on all rungs.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.dataset.catalog import Catalog
from busi.dataset.parts import load_parts
from busi.dataset.splits import load_split
from busi.mechanisms import section
from busi.published import published_row
from busi.runs import Run
from busi.scoring.metrics import dice
from busi.scoring.statistics import difference_interval
from busi.study import find_group, find_trained, load_results, open_store

GROUP = "mechanisms/ladder"

SCORES = {"accuracy": "Accuracy", "auc": "AUC, both channels", "dice": "Dice"}
"""Scores of a rung, with their titles in the figure."""

RUNGS = {
    "rebuilt": ("rebuilt", "training"),
    "settings that learn": ("settings that learn", "training"),
    "complement, not mirror": ("complement", "training"),
    "all masks, not the first": ("all masks", "training"),
    "aligned, not squeezed": ("aligned", "training"),
    "validation, not training": ("random split", "validation"),
    "held-out": ("random split", "test"),
    "grouped": ("grouped split", "test"),
}
"""Rung -> its variant in ``params/mechanisms.yaml`` and the part of the images that it is scored on."""


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return one row for each rung and scored image: `rung`, `group`, and as `score_part`."""
    trained = load_results(parameters, GROUP)

    def make(catalog: Catalog) -> pd.DataFrame:
        store = open_store(parameters, catalog)
        variants = find_group(parameters, GROUP).variants
        groups = load_split(catalog, "grouped").set_index("name").group
        tables = []
        for rung, (variant, part) in RUNGS.items():
            # A quick profile trains the first rungs only.
            if variant not in variants:
                continue
            (config,) = variants[variant]
            table = score_part(find_trained(config, store), part, catalog)
            tables.append(table.assign(rung=rung, group=groups[table.name].to_numpy()))
        return pd.concat(tables)

    return results.measure(parameters, GROUP, make, depends=trained.runs.key)


def score_part(run: Run, part: str, catalog: Catalog) -> pd.DataFrame:
    """Score a run's predictions for the lesion images of one part, "training", "validation" or "test".

    Returns:
        One row for each image: `name`, scores as `score_against_target`, and those of "background everywhere" as
        `floor_*`.
    """
    arrays = getattr(load_parts(run.config, catalog), part)
    targets = dict(zip(arrays.names, arrays.targets, strict=True))
    lesions = set(catalog.lesions.name)
    predictions = run.predictions[part]
    rows = []
    for name, probability in zip(predictions.names, predictions.probability, strict=True):
        # The published protocol leaves normals out, so that the held-out rungs have to as well.
        if name not in lesions:
            continue
        # Paired by name: targets and predictions need not come in the same order.
        floors = score_against_target(targets[name], np.zeros_like(probability), 0.5)
        row = {"name": name} | {f"floor_{score}": value for score, value in floors.items()}
        rows.append(row | score_against_target(targets[name], probability, run.threshold))
    return pd.DataFrame(rows)


def score_against_target(target: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, float]:
    """Compute the published metrics, and Dice, of one image.

    Args:
        target: float (o, o, 2), lesion and background. A pixel is lesion if its first channel is not below its second.
        probability: Probability of lesion, float (o, o).
        threshold: Probability from which on a pixel is predicted lesion.

    Returns:
        `accuracy`: share of pixels predicted right, as Keras counts it over both channels. `auc`: pixels of both
        channels pooled, as published. `lesion_auc`: of the lesion channel; missing if all its pixels are equal. `dice`:
        missing if the target is empty.
    """
    # Importing scikit-learn takes a second, which readers of a finished report should not have to wait.
    from sklearn.metrics import roc_auc_score

    # The class is the larger channel: a soft pixel that the mirror made 1 + m in the second channel is background.
    truth = target[..., 0] >= target[..., 1]
    predicted = probability >= threshold
    # Keras' AUC counts every target above 0 as positive: a soft pixel in both channels.
    positive = target > 0
    both = np.stack([probability, 1 - probability], axis=-1)
    lesion = positive[..., 0]
    # Where all pixels are equal there is nothing to rank.
    lesion_auc = np.nan
    if lesion.any() and not lesion.all():
        lesion_auc = float(roc_auc_score(lesion.ravel(), probability.ravel()))
    auc = float(roc_auc_score(positive.ravel(), both.ravel()))
    accuracy = float((truth == predicted).mean())
    return {"accuracy": accuracy, "auc": auc, "lesion_auc": lesion_auc, "dice": dice(truth, predicted)}


def tabulate(per_image: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each rung, from the images of `measure`.

    Returns:
        `rung`, `n_images`; for each of `SCORES` its mean; `lesion_auc`; the floors' means as `floor_*`; for each of
        `SCORES` the change from the rung before as `*_change` with `*_low` and `*_high`, missing for the first rung.
    """
    rungs = dict(list(per_image.groupby("rung", sort=False)))
    means = [*SCORES, "lesion_auc", *(f"floor_{score}" for score in SCORES)]
    rows = []
    for rung, part in rungs.items():
        rows.append({"rung": rung, "n_images": len(part)} | part[means].mean().to_dict())
    changes = [{}]
    for before, after in pairwise(rungs.values()):
        changes.append(_compare_rungs(before, after))
    columns = []
    for score in SCORES:
        columns += [f"{score}_change", f"{score}_low", f"{score}_high"]
    return pd.DataFrame(rows).join(pd.DataFrame(changes, columns=columns))


def _compare_rungs(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    row = {}
    for score in SCORES:
        # Where all targets of a rung are empty it has no Dice.
        if before[score].notna().any() and after[score].notna().any():
            change = difference_interval(before, after, score)
            row |= {f"{score}_change": change.mean, f"{score}_low": change.low, f"{score}_high": change.high}
    return row


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw each rung's scores and the change that leads to it, one panel for each score."""
    published = published_row("upsampling", "Upsampling2D")
    places = np.arange(1, len(table) + 1)
    fig, axes = plt.subplots(len(SCORES), 1, figsize=(8.2, 7.6), sharex=True)
    for ax, (score, title) in zip(axes, SCORES.items(), strict=True):
        # The paper gives no Dice.
        if score in published:
            ax.plot(0, published[score], "*", color=display.PUBLISHED, markersize=12)
        ax.step(places, table[f"floor_{score}"], where="mid", **display.FLOOR_LINE)
        change = table[f"{score}_change"].fillna(0)
        colours = np.where(change >= 0, display.OURS, display.PINK)
        ax.bar(places, change, 0.5, bottom=table[score] - change, color=colours, alpha=0.7)
        low, high = table[f"{score}_low"], table[f"{score}_high"]
        lengths = np.array([change - low, high - change])
        # Rounding may put an end of the interval on the wrong side of the change, which matplotlib refuses.
        lengths = np.nan_to_num(lengths).clip(min=0)
        ax.errorbar(places, table[score], yerr=lengths, fmt="o", color=display.BLACK, ecolor=display.BLACK, capsize=3)
        ax.set(title=title)
    axes[-1].set_xticks([0, *places], ["published", *table.rung], rotation=30, ha="right")
    return fig


def conclude(table: pd.DataFrame) -> str:
    """Return where the published number comes from, step by step."""
    published = published_row("upsampling", "Upsampling2D")
    first, last = table.iloc[0], table.iloc[-1]
    text = f"From accuracy {published['accuracy']:.4f} and AUC {published['auc']:.4f} as published"
    text += f", and {first.accuracy:.4f}, {first.auc:.4f} and Dice {first.dice:.3f} rebuilt at this size"
    text += f", the ladder ends at {last.accuracy:.4f}, {last.auc:.4f} and {last.dice:.3f} ({last.rung})"
    floor = f"{last.floor_accuracy:.4f}, {last.floor_auc:.4f} and {last.floor_dice:.3f}"
    text += f", where background everywhere has {floor}"
    beyond_chance = table[(table.dice_low > 0) | (table.dice_high < 0)]
    steps = [f"{step.rung} {step.dice_change:+.3f}" for step in beyond_chance.itertuples()]
    if steps:
        text += f"; the steps that change Dice beyond chance: {', '.join(steps)}"
    elif len(table) > 1:
        text += "; no step changes Dice beyond chance"
    waiting = [rung for rung in RUNGS if rung not in set(table.rung)]
    if waiting:
        text += f"; not run yet: {'; '.join(waiting)}"
    return f"{text}."


@section.presents("ladder")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_ladder.csv``."""
    table = results.write_table(parameters, "mechanisms_ladder", tabulate(measure(parameters)))
    columns = ["rung", "n_images", *SCORES, *(f"floor_{score}" for score in SCORES), "lesion_auc"]
    size = section.describe_size(find_group(parameters, GROUP).configs[0])
    return section.compose(
        draw(table),
        table[columns],
        conclude(table),
        caption="From the published number (star) to the held-out one: scores of the rungs, and bars for the change "
        f"from the rung before with its 95 % interval; dashed: background everywhere on the same images. {size}.",
        table_caption="Each rung against its own targets, on the images that it scores.",
    )
