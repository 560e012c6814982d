"""Misalignment: the cost of squeezing the whole mask onto an output that sees only the middle of the image."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters, RunConfig
from busi.dataset.arrays import lesion_channel, resize_image
from busi.dataset.catalog import Catalog, read_union
from busi.dataset.splits import load_split
from busi.mechanisms import section
from busi.results import Results
from busi.scoring.metrics import dice
from busi.scoring.statistics import difference_interval, format_interval
from busi.study import load_results, published_targets_config


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return one row for each lesion image, at the published size.

    Returns:
        `image_class`, `name`, `group`; `dice`, `accuracy` and `background` as `compare_targets`; `outside`: the share
        of the lesion's pixels that the output does not cover, missing for a lesion smaller than a pixel.
    """
    config = published_targets_config(parameters)

    def make(catalog: Catalog) -> pd.DataFrame:
        groups = load_split(catalog, "grouped").set_index("name").group
        rows = []
        for image in catalog.lesions.itertuples():
            # The first mask only, as the published targets.
            squeezed, aligned, whole = make_targets(read_union(image.masks[:1]), config)
            outside = 1 - aligned.sum() / whole.sum() if whole.any() else np.nan
            row = {"image_class": image.image_class, "name": image.name, "group": groups[image.name]}
            rows.append(row | compare_targets(squeezed, aligned) | {"outside": outside})
        return pd.DataFrame(rows)

    return results.measure(parameters, "mechanisms/misalignment", make, depends=[json.dumps(config.model_dump())])


def make_targets(inside: np.ndarray, config: RunConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the squeezed and the aligned target of one image, bool (o, o), and its mask at input size, bool (s, s).

    Args:
        inside: Mask at the image's original size, bool (h, w).
        config: Its `image_size`, `padding` and `resize` count.
    """
    # Only the target differs: whatever else the study's settings ask for is the same in both.
    squeezed = lesion_channel(inside, config.model_copy(update={"target": "squeezed"}))
    aligned = lesion_channel(inside, config.model_copy(update={"target": "aligned"}))
    whole = resize_image(inside.astype(np.float32), config.image_size, config.resize)
    return squeezed >= 0.5, aligned >= 0.5, whole >= 0.5


def compare_targets(squeezed: np.ndarray, aligned: np.ndarray) -> dict[str, float]:
    """Score a perfect segmenter, which finds exactly the lesion in what it sees, against the squeezed target.

    Args:
        squeezed: The published target, bool (o, o).
        aligned: The perfect segmenter's answer, bool (o, o).

    Returns:
        `dice` (missing if ``squeezed`` is empty) and `accuracy` of the answer; `background`: the accuracy of
        "background everywhere".
    """
    # The perfect segmenter is right everywhere; the target is what is wrong.
    accuracy = float((squeezed == aligned).mean())
    return {"dice": dice(squeezed, aligned), "accuracy": accuracy, "background": float((~squeezed).mean())}


def tabulate(per_image: pd.DataFrame) -> pd.DataFrame:
    """Return means over all images, and over each class, of what `measure` returns.

    Returns:
        `images`, `n_images`, `dice` with `low` and `high`, `accuracy`, `background`, `outside`, and `unseen`: the share
        of images whose lesion lies completely outside the output.
    """
    parts = {"all": per_image} | dict(list(per_image.groupby("image_class")))
    rows = []
    for name, part in parts.items():
        row = {"images": name, "n_images": len(part)} | section.average_dice(part)
        row |= part[["accuracy", "background", "outside"]].mean().to_dict()
        rows.append(row | {"unseen": float((part.outside == 1).mean())})
    return pd.DataFrame(rows)


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw the accuracy under the squeezed target of a perfect segmenter and of the background, by class."""
    names = {"accuracy": "perfect segmenter", "background": "background everywhere"}
    # One row for each bar, as seaborn takes them.
    bars = table.rename(columns=names).melt("images", list(names.values()), "predictor", "accuracy")
    colours = [display.OURS, display.FLOOR]
    fig, ax = plt.subplots(figsize=(6.4, 3.2))
    sns.barplot(bars, x="images", y="accuracy", hue="predictor", palette=colours, saturation=1, gap=0.1, ax=ax)
    for container in ax.containers:
        ax.bar_label(container, fmt="%.3f", fontsize=10)
    ax.set(xlabel="", ylabel="Accuracy, squeezed target", ylim=(0, 1.1))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def conclude(table: pd.DataFrame, trained: Results) -> str:
    """Return what the misalignment costs, from the table and from networks trained on either target."""
    # The first row is that of all images.
    row = table.iloc[0]
    verdict = "worse" if row.accuracy < row.background else "better"
    change = difference_interval(
        section.tested_lesions(trained, "squeezed"), section.tested_lesions(trained, "aligned"), "dice"
    )
    size = section.describe_size(trained.of("aligned").configs[0])
    return (
        f"The published target and the one that matches what the output sees have a Dice of {row.dice:.3f} "
        f"({row.low:.3f} to {row.high:.3f}): a segmenter without fault would reach accuracy {row.accuracy:.4f} under "
        f"the published target, {verdict} than {row.background:.4f} for background everywhere; {row.outside:.0%} of an "
        f"average lesion lies where the output does not reach; trained on the aligned target in place of the squeezed "
        f"one ({size}), the held-out Dice changes by {format_interval(change)}."
    )


@section.presents("misalignment")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_misalignment.csv`` and that of the networks."""
    trained = load_results(parameters, "mechanisms/misalignment")
    table = tabulate(measure(parameters))
    # Before anything is written: it raises `NotMeasured` if a network is missing.
    conclusion = conclude(table, trained)
    results.write_table(parameters, "mechanisms_misalignment", table)
    results.write_table(parameters, "mechanisms_misalignment_trained", section.score_variants(trained))
    return section.compose(
        draw(table),
        table,
        conclusion,
        caption="Accuracy under the published target of a perfect segmenter, which marks exactly the lesion that it "
        "sees, and of calling everything background.",
        table_caption="A perfect segmenter scored against the published, squeezed target, and the share of the lesion "
        f"outside the output. Input: {parameters.image_size} pixels.",
    )
