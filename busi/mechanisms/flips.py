"""Flips: wrong labels made by the published code, which flips an image and leaves its mask as it was."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.dataset.catalog import Catalog, read_union
from busi.mechanisms import section
from busi.results import Results
from busi.scoring.statistics import difference_interval, format_interval
from busi.study import load_results

GROUP = "heldout/data"
"""The networks are those of a family: the section needs no runs of its own."""

ALONG = "Resize+Norm+Std+Aug."
ALONE = "Resize+Norm+Std+Aug. of the image alone"
"""Variants of that family, which flip an image with its mask or without it."""

BANDS = ("middle", "near the middle", "between", "near the side", "side")
"""Names of the fifths of the images, by horizontal distance of the lesion's centre from the middle."""


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return one row for each lesion image: `image_class`, `name`, `lesion_share`, and as `measure_noise`."""

    def make(catalog: Catalog) -> pd.DataFrame:
        noise = pd.DataFrame([measure_noise(read_union(masks)) for masks in catalog.lesions.masks])
        return catalog.lesions[["image_class", "name", "lesion_share"]].join(noise)

    return results.measure(parameters, "mechanisms/flips", make)


def measure_noise(inside: np.ndarray) -> dict[str, float]:
    """Measure how wrong a mask, bool (h, w) and not empty, is for its image flipped left to right.

    Returns:
        `wrong`: share of pixels with a wrong label in a flipped image. `missed`: share of the flipped lesion's pixels
        that are labelled background. `offset`: distance of the lesion's centre from the middle of the width, 0 in the
        middle, 1 at a side.
    """
    # The image is flipped and its mask is not: each label belongs to the pixel on the other side.
    flipped = inside[:, ::-1]
    columns = np.nonzero(inside)[1]
    # A pixel's centre is half a pixel from its left edge.
    centre = (columns.mean() + 0.5) / inside.shape[1]
    wrong = (inside != flipped).mean()
    missed = (flipped & ~inside).sum() / inside.sum()
    return {"wrong": float(wrong), "missed": float(missed), "offset": float(abs(2 * centre - 1))}


def tabulate(per_image: pd.DataFrame) -> pd.DataFrame:
    """Return means of what `measure` returns, by position of the lesion (`BANDS`) and over all images.

    Returns:
        `position`, `n_images`, `offset`, `wrong`, `expected` (share of wrong pixels to expect in training), `missed`.
    """
    # By rank, so that equal offsets cannot leave a fifth empty.
    bands = pd.qcut(per_image.offset.rank(method="first"), len(BANDS), labels=BANDS)
    both = pd.concat([per_image.assign(position=bands.astype(str)), per_image.assign(position="all")])
    groups = both.groupby("position")
    table = groups[["offset", "wrong", "missed"]].mean()
    table.insert(0, "n_images", groups.size())
    # Half of the images are flipped.
    table.insert(3, "expected", table.wrong / 2)
    return table.loc[[*BANDS, "all"]].reset_index()


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw the share of the lesion missed and of pixels wrong in a flipped image, by position of the lesion."""
    names = {"missed": "of the lesion, labelled background", "wrong": "of all pixels, labelled wrong"}
    bands = table[table.position != "all"].rename(columns=names)
    # One row for each point, as seaborn takes them.
    lines = bands.melt("offset", list(names.values()), "pixels", "share")
    fig, ax = plt.subplots()
    look = {"markers": ["o", "s"], "errorbar": None}
    sns.lineplot(lines, x="offset", y="share", hue="pixels", style="pixels", ax=ax, **look)
    ax.set(xlabel="Lesion's distance from the middle (1: at a side)", ylabel="Share", ylim=(0, 1.05))
    display.add_legend(fig, 1)
    display.add_title(fig, f"A flip labels up to {table.missed.max():.0%} of a lesion as background")
    return fig


def conclude(table: pd.DataFrame, trained: Results) -> str:
    """Return what flipping the image without its mask does to labels (table) and to networks trained either way."""
    rows = table.set_index("position")
    every = rows.loc["all"]
    middle = rows.loc[BANDS[0]]
    side = rows.loc[BANDS[-1]]
    # Both were trained on the same folds from the same seeds, so they are compared run by run.
    change = difference_interval(section.tested_lesions(trained, ALONG), section.tested_lesions(trained, ALONE))
    text = f"Where an image is flipped without its mask, {every.wrong:.1%} of its pixels and {every.missed:.0%} of its "
    text += f"lesion carry the wrong label ({every.n_images:.0f} images). In the fifth of the images whose lesions are "
    text += f"nearest to the middle it is {middle.missed:.0%} of the lesion, in the fifth with the outermost lesions "
    text += (
        f"{side.missed:.0%}. Half of the images are flipped in training, so that {every.expected:.1%} of all pixels "
    )
    text += "are labelled wrong there. "
    text += "Against the same steps with the mask flipped too, leaving the mask behind changes the held-out Dice by "
    text += f"{format_interval(change)}. "
    return f"{text}Size: {section.describe_runs(trained.of(ALONE))}."


@section.presents("flips")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``mechanisms_flips.csv`` and ``mechanisms_flips_trained.csv``."""
    trained = load_results(parameters, GROUP)
    table = tabulate(measure(parameters))
    # Before anything is written, because it raises `NotMeasured` if a network is missing.
    conclusion = conclude(table, trained)
    results.write_table(parameters, "mechanisms_flips", table)
    networks = pd.concat([section.tested_lesions(trained, variant) for variant in (ALONG, ALONE)])
    results.write_table(parameters, "mechanisms_flips_trained", section.score_variants(networks))
    return section.compose(
        draw(table),
        table,
        conclusion,
        caption="Share of a flipped image's lesion that its mask calls background, and of its pixels with a wrong "
        "label. Groups: fifths of the images, by the lesion's distance from the middle.",
        table_caption="Wrong labels by position of the lesion (offset: 0 in the middle, 1 at a side). Missed: share of "
        "a flipped image's lesion that is labelled background; wrong: share of its pixels with a wrong label; "
        "expected: the same share in training, where half of the images are flipped.",
    )
