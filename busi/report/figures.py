"""The paper's figures drawn again, and the one that says what its tables mean."""

import itertools
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from busi.report.display import STYLE
from busi.runs import Run

EPOCHS = 75
LOSS_AXIS = (0, 0.4)
"""Axes of the paper's Figures 2 to 10."""

TRUE_OUTLINE = {"color": "#E69F00", "linestyle": "-", "linewidth": 1.8}
PREDICTED_OUTLINE = {"color": "#56B4E9", "linestyle": "--", "linewidth": 1.8}

FLOOR_LINE = {"color": "#D55E00", "linestyle": "--", "linewidth": 1.5}


def loss_curve(runs: list[Run], *, floor: float, published: float) -> Figure:
    """Training loss against the epoch on the axes of Figures 2 to 10, with the floor and the published end.

    Args:
        runs: Of one variant, a line each; may be empty.
        floor: Loss of the best constant predictor.
        published: The paper's loss after the last epoch.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(6.4, 3.2))
        for run in runs:
            ax.plot(run.history.epoch, run.history.loss, label=f"ours, seed {run.config.seed}", marker=_marker(run))
        ax.axhline(floor, label="floor: best constant", **FLOOR_LINE)
        ax.plot(EPOCHS, published, "k*", markersize=11, label="published, epoch 75", clip_on=False)
        ax.set(xlim=(0, EPOCHS), ylim=LOSS_AXIS, xlabel="Epoch", ylabel="Training loss")
        ax.legend(loc="lower left", ncols=2)
    return fig


def curves(runs: dict[str, list[Run]], *, metric: str, label: str, floor: float | None = None) -> Figure:
    """One metric against the epoch, from zero up, a line a run, colours by variant.

    Args:
        runs: Variant -> runs.
        metric: A column of `Run.history`.
        label: Of the y axis.
        floor: Drawn as a line if given.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(6.4, 3.4))
        # Taken here: "C0" would be looked up when the figure is saved, outside this style.
        looks = itertools.cycle(plt.rcParams["axes.prop_cycle"])
        for look, (variant, found) in zip(looks, runs.items(), strict=False):
            for run in found:
                ax.plot(
                    run.history.epoch,
                    run.history[metric],
                    **look,
                    marker=_marker(run),
                    label=variant if run is found[0] else None,
                    clip_on=False,  # a line at zero lies on the axis
                )
        if floor is not None:
            ax.axhline(floor, label="floor", **FLOOR_LINE)
        ax.set(xlabel="Epoch", ylabel=label)
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def rows_against_floor(rows: pd.DataFrame, floor: float) -> Figure:
    """Accuracy of the nine distinct rows, published and ours, against "background everywhere".

    Args:
        rows: `row`, `accuracy` (published) and `ours` (missing where there is no run), each 0 to 1.
        floor: Accuracy of "background everywhere".
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.2, 4.2))
        places = np.arange(len(rows))[::-1]
        ax.axvline(floor, label=f"background everywhere: {floor:.4f}", **FLOOR_LINE)
        ax.plot(rows.accuracy, places, "ko", markersize=8, label="published")
        ax.plot(rows.ours, places, "D", color="#0072B2", markersize=9, mfc="none", mew=2, label="rebuilt")
        ax.set_yticks(places, rows.row)
        ax.set(xlabel="Accuracy on the training images (share of pixels)", ylim=(-0.7, len(rows) - 0.3))
        ax.grid(axis="x")
        ax.legend(loc="lower right")
    return fig


def architecture(blocks: list[dict], *, title: str) -> Figure:
    """Figure 1: the network as a U, from the feature maps of the model itself.

    Args:
        blocks: In the order of computation, each `name`, `level` (0 at full resolution), `side` ("down", "bottom" or
            "up"), `size` (pixels) and `filters` of its last feature map.
        title: Stands over the figure.
    """
    deepest = max(block["level"] for block in blocks)
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(8, 4.6))
        centres = {}
        for block in blocks:
            x = {"down": block["level"], "bottom": deepest, "up": 2 * deepest - block["level"]}[block["side"]]
            y, half = -block["level"], 0.06 + 0.34 * block["size"] / blocks[0]["size"]
            width = 0.08 + 0.05 * np.log2(block["filters"])
            ax.add_patch(Rectangle((x - width / 2, y - half), width, 2 * half, fc="#56B4E9", ec="#0072B2", zorder=2))
            ax.text(
                x,
                y - half - 0.06,
                f"{block['size']}²\n{block['filters']} filters",
                ha="center",
                va="top",
                fontsize=9,
            )
            centres[block["side"], block["level"]] = (x, y)
        order = list(centres.values())
        for start, end in itertools.pairwise(order):
            ax.add_patch(_arrow(start, end, color="#444444"))
        for level in range(deepest):
            ax.add_patch(_arrow(centres["down", level], centres["up", level], color="#D55E00", linestyle="--"))
        ax.set(xlim=(-0.8, 2 * deepest + 0.8), ylim=(-deepest - 0.75, 0.55), title=title)
        ax.axis("off")
    return fig


def lesion_sizes(table: pd.DataFrame) -> Figure:
    """Share of the image's area inside its masks, by class; logarithmic axis.

    Args:
        table: `image_class` and `lesion_share` (0 to 1), as `busi.dataset.catalog.gathered`.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots()
        lesions = table[table.image_class != "normal"]
        medians = lesions.groupby("image_class").lesion_share.agg(["median", "size"])
        named = lesions.image_class.map(
            lambda name: f"{name}: median {medians['median'][name]:.1%} of {medians['size'][name]} images"
        )
        sns.histplot(x=lesions.lesion_share, hue=named, bins=30, log_scale=True, alpha=0.5, ax=ax)
        ax.get_legend().set_title("")
        ax.margins(y=0.25)
        ax.set(xlabel="Lesion area (share of the image)", ylabel="Images")
    return fig


def examples(images: list[np.ndarray], outlines: list[np.ndarray], titles: list[str]) -> Figure:
    """Images with the outline of their masks.

    Args:
        images: uint8 (height, width).
        outlines: Union of the masks, bool (height, width).
        titles: One an image.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, len(images), figsize=(3 * len(images), 3.2))
        for ax, pixels, inside, title in zip(axes, images, outlines, titles, strict=True):
            ax.imshow(pixels, cmap="gray", vmin=0, vmax=255)
            if inside.any():
                ax.contour(inside, [0.5], colors="#E69F00", linewidths=1.5, linestyles="-")
            ax.set_title(f"{title}\n{pixels.shape[1]} × {pixels.shape[0]} pixels", fontsize=10)
            ax.axis("off")
    return fig


def cases(shown: Mapping, *, width: float = 3.2) -> Figure:
    """What networks made of images, a column each: true and predicted outline, and the probability map below.

    Args:
        shown: Title -> `busi.lab.networks.Case`.
        width: Of a column, in inches.
    """
    tallest = width * max(case.pixels.shape[0] / case.pixels.shape[1] for case in shown.values())
    size = (width * len(shown) + 0.9, 2 * tallest + 1)
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(2, len(shown), figsize=size, squeeze=False)
        for upper, lower, (title, case) in zip(*axes, shown.items(), strict=True):
            upper.imshow(case.pixels, cmap="gray", vmin=0, vmax=255)
            map_ = lower.imshow(case.probability, vmin=0, vmax=1)
            for ax in (upper, lower):
                _outline(ax, case.truth, **TRUE_OUTLINE)
                ax.axis("off")
                ax.set_anchor("N")
            _outline(upper, case.predicted, **PREDICTED_OUTLINE)
            upper.set_title(title, fontsize=9)
        fig.colorbar(map_, ax=axes[1], ticks=[0, 0.5, 1], shrink=0.8).set_label("Probability of lesion", fontsize=9)
        looks = {"as marked": TRUE_OUTLINE, "as predicted": PREDICTED_OUTLINE}
        handles = [Line2D([], [], label=label, **look) for label, look in looks.items()]
        fig.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=9)
    return fig


def training(attempts: dict[str, pd.DataFrame]) -> Figure:
    """Small networks while they train: loss of every step, and Dice on the validation part after every epoch.

    Args:
        attempts: Label -> rows of `busi.lab.live.training`; `validation_dice` is missing inside an epoch.
    """
    with plt.style.context(STYLE):
        fig, (loss, dice) = plt.subplots(1, 2, figsize=(7.2, 3.2))
        looks = itertools.cycle(plt.rcParams["axes.prop_cycle"])
        for look, (label, rows) in zip(looks, attempts.items(), strict=False):
            loss.plot(rows.epoch, rows.loss, label=label, **look)
            ends = rows.dropna(subset=["validation_dice"])
            dice.plot(ends.epoch, ends.validation_dice, marker="o", markersize=4, **look)
        loss.set(xlabel="Epoch", ylabel="Loss of a step", ylim=(0, None))
        dice.set(xlabel="Epoch", ylabel="Dice, validation part", ylim=(0, 1))
        fig.legend(loc="outside lower left", ncols=2)
    return fig


def dice(table: pd.DataFrame) -> Figure:
    """Mean Dice of held-out images with its 95 % interval, a point a variant; untrained predictors as lines.

    Args:
        table: `variant`, `dice`, `dice_low`, `dice_high` (missing where there is no run) and `n_runs` (0 for an
            untrained predictor), as `busi.report.heldout.Answers.table`.
    """
    trained, lines = _trained(table)
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.2, 1.5 + 0.42 * max(len(trained), 1)))
        _intervals(ax, trained, lines)
        ax.set(xlabel="Dice on held-out images (mean, 95 % interval)")
        if len(lines):
            fig.legend(loc="outside upper left", ncols=2)
    return fig


def dice_by_part(parts: pd.DataFrame) -> Figure:
    """Mean Dice by class and by size of the lesion, a panel each; untrained predictors as lines.

    Args:
        parts: `variant`, `part`, `dice`, `dice_low`, `dice_high` and `trained` (whether a network's), as
            `busi.report.heldout.Answers.parts`.
    """
    names = list(dict.fromkeys(parts.part))
    labels = list(dict.fromkeys(parts.variant[parts.trained]))
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(
            1, len(names), figsize=(9.6, 2 + 0.36 * max(len(labels), 1)), sharex=True, sharey=True, squeeze=False
        )
        for ax, name in zip(axes[0], names, strict=True):
            found = parts[parts.part == name]
            trained = found[found.trained].set_index("variant").reindex(labels).reset_index()
            _intervals(ax, trained, found[~found.trained])
            ax.set(title=name, xlim=(0, 1), xticks=[0, 0.5, 1])
        fig.supxlabel("Dice on held-out images (mean, 95 % interval)", fontsize=12)
        handles, texts = axes[0, 0].get_legend_handles_labels()
        if handles:
            fig.legend(handles, texts, loc="outside upper left", ncols=2)
    return fig


def dice_by_lesion(lesions: pd.DataFrame) -> Figure:
    """Dice of every lesion image against the size of its lesion (logarithmic), by class.

    Args:
        lesions: `image_class`, `lesion_share` (of the image, 0 to 1) and `dice`.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.2, 4.2))
        looks = zip(plt.rcParams["axes.prop_cycle"], ("o", "^"), strict=False)
        for (look, marker), (label, found) in zip(looks, lesions.groupby("image_class"), strict=False):
            ax.scatter(100 * found.lesion_share, found.dice, s=16, color=look["color"], marker=marker, label=label)
        ax.set(xscale="log", ylim=(0, 1), xlabel="Lesion (% of the image's pixels)", ylabel="Dice, mean over variants")
        ax.xaxis.set_major_formatter(ScalarFormatter())
        fig.legend(loc="outside upper left", ncols=2)
    return fig


def reliability(curves: dict[str, pd.DataFrame]) -> Figure:
    """How often a pixel is lesion against how probable a network says it is; the diagonal is perfect calibration.

    Args:
        curves: Variant -> `predicted` and `observed` (both 0 to 1), as `busi.evaluation.metrics.reliability`.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.2, 4.2))
        ax.plot([0, 1], [0, 1], color="#767676", linewidth=1, linestyle="-", label="perfect calibration")
        looks = itertools.cycle(plt.rcParams["axes.prop_cycle"])
        for look, (variant, curve) in zip(looks, curves.items(), strict=False):
            ax.plot(curve.predicted, curve.observed, marker="o", markersize=4, label=variant, **look)
        ax.set(
            xlim=(0, 1),
            ylim=(0, 1),
            xlabel="Predicted probability of lesion (mean of the bin)",
            ylabel="Pixels that are lesion (share)",
        )
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def hash_distances(counts: pd.DataFrame, bound: int) -> Figure:
    """How many pairs of images are how far apart; logarithmic axis, the bound of near-duplicates as a line.

    Args:
        counts: `distance` (bits of 64) and `pairs`, as `busi.report.heldout.near_duplicates`.
        bound: The largest distance of near-duplicates.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots()
        ax.bar(counts.distance, counts.pairs, width=0.9, color="#0072B2")
        ax.axvline(bound + 0.5, label=f"near-duplicates: up to {bound} bits", **FLOOR_LINE)
        ax.set(xlabel="Distance of the perceptual hashes (bits of 64)", ylabel="Pairs of images", yscale="log")
        ax.legend(loc="upper left", bbox_to_anchor=(0, 1.16))
    return fig


def _trained(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of networks that have a run, and those of untrained predictors, which have none but are scored."""
    return table[table.n_runs > 0], table[(table.n_runs == 0) & (table.n_images > 0)]


def _intervals(ax, trained: pd.DataFrame, lines: pd.DataFrame) -> None:
    """Points with whiskers, the first row on top, and a vertical line for each untrained predictor."""
    places = np.arange(len(trained))[::-1]
    whiskers = [trained.dice - trained.dice_low, trained.dice_high - trained.dice]
    ax.errorbar(trained.dice, places, xerr=whiskers, fmt="o", color="#0072B2", capsize=3, linestyle="none")
    looks = itertools.cycle([FLOOR_LINE, {"color": "#009E73", "linestyle": ":", "linewidth": 2}])
    for look, row in zip(looks, lines.itertuples(), strict=False):
        ax.axvline(row.dice, label=row.variant, **look)
    ax.set_yticks(places, trained.variant)
    ax.set(ylim=(-0.6, max(len(trained), 1) - 0.4))
    ax.grid(axis="x")


def _outline(ax, inside: np.ndarray | None, *, color: str, linestyle: str, linewidth: float) -> None:
    if inside is not None and inside.any() and not inside.all():
        ax.contour(inside, [0.5], colors=color, linestyles=linestyle, linewidths=linewidth)


def _marker(run: Run) -> str:
    return "o" if run.config.epochs < 5 else ""


def _arrow(start, end, **style) -> FancyArrowPatch:
    return FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, shrinkA=16, shrinkB=16, zorder=1, **style)
