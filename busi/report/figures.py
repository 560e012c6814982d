"""Figures: those of the paper drawn again, those of the data and of the held-out scores, and those of the lab.

Tables come from `busi.report.tables` and `busi.report.heldout`; `epochs` from `busi.results.Results`.
"""

import itertools
import textwrap
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from busi import display
from busi.report.tables import is_comparable
from busi.scoring.predictors import PERFECT

EPOCHS = 75
"""Last epoch of the paper's Figures 2 to 10."""

LOSS_AXIS = (0, 0.4)
"""Vertical axis of the paper's Figures 2 to 10."""

TRUE_OUTLINE = {"color": display.TRUE, "linestyle": "-", "linewidth": 1.8}
PREDICTED_OUTLINE = {"color": display.PREDICTED, "linestyle": "--", "linewidth": 1.8}

_UNTRAINED_LOOKS = (
    display.FLOOR_LINE,
    {"color": display.GREEN, "linestyle": ":", "linewidth": 2},
    {"color": display.PINK, "linestyle": "-.", "linewidth": 1.5},
    {"color": display.GREY, "linestyle": "--", "linewidth": 2},
    {"color": display.GREEN, "linestyle": "-", "linewidth": 1},
)

_BESIDE = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # legend to the right of the axes


@display.style()
def loss_curves(panels: list[dict]) -> Figure:
    """Draw training losses on the axes of Figures 2 to 10, one panel a method, one thin line a run.

    Args:
        panels: Of each method its `title`, `epochs` (may be empty) and `row`, its row of
            `busi.report.tables.compare_rows`: the losses of predictors that never look, and the published one.
    """
    n_rows = (len(panels) + 1) // 2
    fig, axes = plt.subplots(n_rows, 2, figsize=(7, 0.7 + 2.3 * n_rows), sharex=True, sharey=True, squeeze=False)
    for ax, panel in zip(axes.flat, panels, strict=False):
        for _, run in panel["epochs"].groupby("run", sort=False):
            # A single epoch would be no line at all.
            marker = "o" if len(run) == 1 else None
            ax.plot(run.epoch, run.loss, "-", color=display.OURS, lw=1, marker=marker, label="ours, one line a run")
        row = panel["row"]
        ax.axhline(row["floor_loss"], label="best constant", **display.FLOOR_LINE)
        # The range over orders is narrower than a line, so that its border is drawn too.
        biases = {"color": display.SKY, "alpha": 0.6, "lw": 3, "zorder": 0}
        ax.axhspan(row["biases_loss_low"], row["biases_loss_high"], label="two biases, 25 orders", **biases)
        ax.axhline(row["mask_loss"], label="mean mask", color=display.RED, lw=1.5, ls=":")
        # The star lies on the border of the axes, which would cut it in half.
        look = {"color": display.PUBLISHED, "markersize": 11, "clip_on": False}
        # Nothing is published of other images than the paper's.
        if not np.isnan(row["published_loss"]):
            ax.plot(EPOCHS, row["published_loss"], "*", label="published, epoch 75", **look)
        ax.set(xlim=(0, EPOCHS), ylim=LOSS_AXIS)
        ax.set_title(panel["title"], fontsize=10)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    fig.supxlabel("Epoch", fontsize=12)
    fig.supylabel("Training loss", fontsize=12)
    _legend_on_top(fig)
    return fig


@display.style()
def rows_against_blind(rows: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Draw the published rows in AUC and loss against what predictors reach that never look, and our runs.

    Args:
        rows: As `busi.report.tables.place_rows`.
        narrow: Whether for a telephone: panels one below the other, the names of the rows above them.
    """
    places = np.arange(len(rows))
    comparable = is_comparable(rows)
    shape, size = ((2, 1), (4.2, 7)) if narrow else ((1, 2), (9, 4.6))
    fig, axes = plt.subplots(*shape, figsize=size, sharey=not narrow)
    for ax, metric, label in zip(axes, ("auc", "loss"), ("AUC, both channels", "Loss of the row"), strict=True):
        low, high = rows[f"biases_{metric}_low"], rows[f"biases_{metric}_high"]
        # As wide as a line at least: over all orders the biases hardly move.
        width = np.maximum(high - low, 0.002)
        height = 0.3 if narrow else 0.8
        ax.barh(places, width, left=low, height=height, color=display.SKY, label="two biases, 25 orders")
        look = {"color": display.RED, "markersize": 24 * height, "mew": 2}
        ax.plot(rows[f"mask_{metric}"], places, "|", label="mean mask", **look)
        # An entry of the legend would have no star.
        label_published = "published" if comparable else "_"
        ax.plot(rows[f"published_{metric}"], places, "*", color=display.PUBLISHED, markersize=11, label=label_published)
        ranges = [rows[metric] - rows[f"{metric}_low"], rows[f"{metric}_high"] - rows[metric]]
        ours = {"fmt": "D", "color": display.OURS, "mfc": "none", "mew": 2, "capsize": 3, "linestyle": "none"}
        ax.errorbar(rows[metric], places, xerr=ranges, label="ours, range of seeds", **ours)
        ax.set(xlabel=f"{label} (training images)", ylim=(len(rows) - 0.4, -0.6))
        ax.grid(axis="x")
        if narrow:
            _name_rows(ax, rows.row)
    if not narrow:
        axes[0].set_yticks(places, rows.row)
    learned = (rows.reached_by == "none").sum()
    title = f"{learned or 'None'} of {len(rows)} published rows beat every predictor that never looks"
    if not comparable:
        title = "Our runs and predictors that never look"
    fig.suptitle(textwrap.fill(title, 38 if narrow else 90), x=0.01, ha="left")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2 if narrow else 4, fontsize=9 if narrow else 11)
    return fig


@display.style()
def differences(table: pd.DataFrame, *, margin: float, title: str) -> Figure:
    """Draw differences in Dice with their intervals, the margin that matters, and the verdict as the title.

    Args:
        table: `label` of each difference, which stands above it; `size` of its runs, told apart by colour;
            `difference`, `low` and `high`.
        margin: Smallest difference that matters, shaded around zero.
        title: What the differences show.
    """
    labels = list(dict.fromkeys(table.label))
    fig, ax = plt.subplots(figsize=(4.4, 1.45 + 0.45 * max(len(labels), 1)))
    ax.axvspan(-margin, margin, color=display.GREY, alpha=0.15, lw=0, label=f"within ±{margin}")
    ax.axvline(0, color=display.GREY, linewidth=1)
    looks = zip(table.groupby("size", sort=False), "os", (display.OURS, display.RED), strict=False)
    for number, ((size, rows), marker, colour) in enumerate(looks):
        places = [labels.index(label) + 0.1 + 0.22 * number for label in rows.label]
        whiskers = [rows.difference - rows.low, rows.high - rows.difference]
        look = {"fmt": marker, "color": colour, "capsize": 3, "linestyle": "none"}
        ax.errorbar(rows.difference, places, xerr=whiskers, label=size, **look)
    ax.set(xlabel="Difference in Dice, 95 % interval", ylim=(max(len(labels), 1) - 0.4, -0.6))
    # In so narrow a figure more numbers would run into each other.
    ax.xaxis.set_major_locator(MaxNLocator(5))
    _name_rows(ax, labels)
    ax.grid(axis="x")
    fig.suptitle(textwrap.fill(title, 40), x=0.01, ha="left")
    fig.legend(loc="outside lower left", ncols=3, fontsize=9)
    return fig


@display.style()
def ranks(table: pd.DataFrame, *, telling: float, title: str) -> Figure:
    """Draw the share of pairs that each published metric ranks as Dice does, and the share asked for.

    Args:
        table: As `busi.report.claims.count_ranks`.
        telling: Share asked for.
        title: What the shares show.
    """
    fig, ax = plt.subplots(figsize=(4.4, 3.1))
    palette = [display.OURS, display.SKY][: table["size"].nunique()]
    sns.barplot(table, x="share", y="metric", hue="size", palette=palette, width=0.4, errorbar=None, ax=ax)
    ax.axvline(telling, **display.FLOOR_LINE, label=f"asked for: {telling:.0%}")
    names = list(dict.fromkeys(table.metric))
    ax.set(xlim=(0, 1), xlabel="Pairs ranked as Dice ranks them (share)", ylabel="", ylim=(len(names) - 0.6, -0.6))
    _name_rows(ax, names)
    ax.grid(axis="x")
    fig.suptitle(textwrap.fill(title, 40), x=0.01, ha="left")
    ax.get_legend().remove()  # one below the axes takes its place
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=9)
    return fig


@display.style()
def architecture(blocks: list[dict], *, title: str) -> Figure:
    """Draw Figure 1: the network as a U of feature maps, as `busi.model.unet.feature_blocks` lists them."""
    deepest = max(block["level"] for block in blocks)
    fig, ax = plt.subplots(figsize=(8, 4.6))
    centres = {}
    for block in blocks:
        level = block["level"]
        # Down on the left, up on the right, the deepest level in the middle.
        x = 2 * deepest - level if block["side"] == "up" else level
        centres[block["side"], level] = (x, -level)
        # Height grows with the side of the map, width with the logarithm of its filters.
        height = 0.12 + 0.68 * block["size"] / blocks[0]["size"]
        width = 0.08 + 0.05 * np.log2(block["filters"])
        corner = (x - width / 2, -level - height / 2)
        ax.add_patch(Rectangle(corner, width, height, fc=display.SKY, ec=display.BLUE, zorder=2))
        text = f"{block['size']}²\n{block['filters']} filters"
        ax.text(x, corner[1] - 0.06, text, ha="center", va="top", fontsize=9)
    for start, end in itertools.pairwise(centres.values()):
        ax.add_patch(_arrow(start, end, color=display.GREY))
    # Skip connections join the two sides at every level but the deepest.
    for level in range(deepest):
        skip = _arrow(centres["down", level], centres["up", level], color=display.RED, linestyle="--")
        ax.add_patch(skip)
    ax.set(xlim=(-0.8, 2 * deepest + 0.8), ylim=(-deepest - 0.75, 0.55), title=title)
    ax.axis("off")
    return fig


@display.style()
def lesion_sizes(images: pd.DataFrame) -> Figure:
    """Draw the distribution of the lesion's share of the image by class; of `busi.dataset.catalog.describe_images`."""
    lesions = images[images.image_class != "normal"]
    names = {}
    for image_class, shares in lesions.groupby("image_class").lesion_share:
        names[image_class] = f"{image_class}: median {shares.median():.1%} of {len(shares)} images"
    fig, ax = plt.subplots()
    labels = lesions.image_class.map(names)
    sns.histplot(x=lesions.lesion_share, hue=labels, bins=30, log_scale=True, alpha=0.5, ax=ax)
    ax.get_legend().set_title("")
    ax.margins(y=0.25)  # room for the legend
    ax.set(xlabel="Lesion area (share of the image)", ylabel="Images")
    return fig


@display.style()
def mean_mask(shares: pd.DataFrame) -> Figure:
    """Draw where lesions lie, as `busi.dataset.audit.mean_mask` counts them."""
    fig, ax = plt.subplots(figsize=(5.2, 3.6))
    drawn = ax.imshow(shares, cmap="viridis", vmin=0, extent=(0, 1, 1, 0))
    fig.colorbar(drawn, label="Share of lesion images")
    ax.grid(False)
    ax.set(xlabel="Across the image", ylabel="Down the image", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    return fig


@display.style()
def examples(images: list[np.ndarray], lesions: list[np.ndarray], titles: list[str]) -> Figure:
    """Draw images with the outline of their lesions, as `busi.dataset.catalog.example_images` returns them."""
    fig, axes = plt.subplots(1, len(images), figsize=(3 * len(images), 3.2), squeeze=False)
    for ax, pixels, lesion, title in zip(axes[0], images, lesions, titles, strict=True):
        height, width = pixels.shape
        ax.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        _outline(ax, lesion, **TRUE_OUTLINE)
        ax.set_title(f"{title}\n{width} × {height} pixels", fontsize=10)
        ax.axis("off")
    return fig


@display.style()
def hash_distances(counts: pd.DataFrame, bound: int) -> Figure:
    """Draw the counts of `busi.dataset.duplicates.count_distances`, with the bound of near-duplicates."""
    fig, ax = plt.subplots()
    ax.bar(counts.distance, counts.pairs, width=0.9)
    # Half a bit beyond the bound: the bound itself still counts.
    ax.axvline(bound + 0.5, label=f"near-duplicates: up to {bound} bits", **display.FLOOR_LINE)
    ax.set(xlabel="Distance of the perceptual hashes (bits of 64)", ylabel="Pairs of images", yscale="log")
    ax.legend(loc="upper left", bbox_to_anchor=(0, 1.16))
    return fig


@display.style()
def dice(table: pd.DataFrame) -> Figure:
    """Draw the mean Dice of `Answers.table`: networks as points with 95 % intervals, untrained predictors as lines."""
    trained = table[table.n_runs > 0]
    untrained = table[(table.n_runs == 0) & (table.n_images > 0)]
    fig, ax = plt.subplots(figsize=(7.2, 1.9 + 0.42 * max(len(trained), 1)))
    _draw_intervals(ax, trained, untrained)
    ax.set(xlabel="Dice on held-out images (mean, 95 % interval)")
    best = untrained[untrained.variant != PERFECT].dice.max()
    better = (trained.dice > best).sum()
    fig.suptitle(
        f"{better or 'None'} of {len(trained)} outline lesions better than without training", x=0.01, ha="left"
    )
    fig.legend(loc="outside lower left", ncols=2)
    return fig


@display.style()
def dice_by_part(parts: pd.DataFrame) -> Figure:
    """Draw the mean Dice of `Answers.parts` as `dice` does, one panel for each class and size of the lesion."""
    names = parts.part.unique()
    labels = parts.variant[parts.trained].unique()
    size = (9.6, 2 + 0.36 * max(len(labels), 1))
    fig, axes = plt.subplots(1, len(names), figsize=size, sharex=True, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        part = parts[parts.part == name]
        # A network that has scored no image of this part keeps its row.
        trained = part[part.trained].set_index("variant").reindex(labels).reset_index()
        _draw_intervals(ax, trained, part[~part.trained])
        ax.set(title=name, xlim=(0, 1), xticks=[0, 0.5, 1])
    fig.supxlabel("Dice on held-out images (mean, 95 % interval)", fontsize=12)
    handles, texts = axes[0].get_legend_handles_labels()
    fig.legend(handles, texts, loc="outside upper left", ncols=2)
    return fig


@display.style()
def dice_by_lesion(lesions: pd.DataFrame) -> Figure:
    """Draw the Dice of each lesion image against the size of its lesion, on a logarithmic axis, by class.

    Args:
        lesions: `image_class`, `lesion_share` (of the image, 0 to 1) and `dice`.
    """
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    percent = 100 * lesions.lesion_share
    sns.scatterplot(x=percent, y=lesions.dice, hue=lesions.image_class, style=lesions.image_class, s=20, ax=ax)
    ax.set(xscale="log", ylim=(0, 1), xlabel="Lesion (% of the image's pixels)", ylabel="Dice, mean over variants")
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return fig


@display.style()
def reliability(curves: pd.DataFrame) -> Figure:
    """Draw the curves of `Answers.reliability`; the diagonal is perfect calibration."""
    fig, ax = plt.subplots(figsize=(7.2, 4.2))
    ax.plot([0, 1], [0, 1], "-", color=display.GREY, linewidth=1, label="perfect calibration")
    _draw_lines(ax, curves, x="predicted", y="observed", by="variant", marker="o", markersize=4)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set(xlabel="Predicted probability of lesion (mean of the bin)", ylabel="Pixels that are lesion (share)")
    ax.legend(**_BESIDE)
    return fig


@display.style()
def cases(shown: Mapping, *, width: float = 3.2) -> Figure:
    """Draw networks' answers, one column each: true and predicted outline, and the map below (of one alone, beside).

    Args:
        shown: Title -> `busi.lab.networks.Case`.
        width: Width of a column in inches.
    """
    tallest = max(case.pixels.shape[0] / case.pixels.shape[1] for case in shown.values())
    # All columns get the height of the tallest image, and the colour bar some width.
    size = (width * len(shown) + 0.9, 2 * width * tallest + 1)
    if len(shown) == 1:
        # A case alone leaves room for its map beside it.
        fig, axes = plt.subplots(1, 2, figsize=(2 * width + 0.9, width * tallest + 1), squeeze=False)
        axes = axes.T
    else:
        fig, axes = plt.subplots(2, len(shown), figsize=size, squeeze=False)
    for column, (title, case) in enumerate(shown.items()):
        upper, lower = axes[:, column]
        upper.imshow(case.pixels, cmap="gray", vmin=0, vmax=255)
        probability = lower.imshow(case.probability, vmin=0, vmax=1)
        for ax in (upper, lower):
            _outline(ax, case.truth, **TRUE_OUTLINE)
            ax.axis("off")
            ax.set_anchor("N")
        _outline(upper, case.predicted, **PREDICTED_OUTLINE)
        upper.set_title(title, fontsize=9)
    bar = fig.colorbar(probability, ax=axes[1], ticks=[0, 0.5, 1], shrink=0.8)
    bar.set_label("Probability of lesion", fontsize=9)
    handles = [
        Line2D([], [], label="as marked", **TRUE_OUTLINE),
        Line2D([], [], label="as predicted", **PREDICTED_OUTLINE),
    ]
    fig.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=9)
    return fig


@display.style()
def training(attempts: dict[str, pd.DataFrame]) -> Figure:
    """Draw small networks during training: loss of each step, and Dice on the validation part after each epoch.

    Args:
        attempts: Label -> rows of `busi.lab.live.training`; `validation_dice` is missing inside an epoch.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    steps = pd.concat([rows.assign(attempt=label) for label, rows in attempts.items()], ignore_index=True)
    _draw_lines(left, steps, y="loss", by="attempt")
    ends = steps.dropna(subset="validation_dice")
    _draw_lines(right, ends, y="validation_dice", by="attempt", marker="o", legend=False)
    left.set(xlabel="Epoch", ylabel="Loss of a step", ylim=(0, None))
    right.set(xlabel="Epoch", ylabel="Dice, validation part", ylim=(0, 1))
    handles, labels = left.get_legend_handles_labels()
    left.get_legend().remove()  # one below both panels takes its place
    fig.legend(handles, labels, loc="outside lower left", ncols=2)
    return fig


def _draw_lines(ax: Axes, table: pd.DataFrame, *, y: str, by: str, x: str = "epoch", **look) -> None:
    """Draw a line for each run or variant, in colours and dashes by the column ``by``."""
    if "marker" not in look and table[x].nunique() < 5:
        look["marker"] = "o"  # a single epoch would be no line at all
    # Without units, seaborn would join the runs of one variant to a single line.
    units = "run" if "run" in table else None
    sns.lineplot(table, x=x, y=y, hue=by, style=by, units=units, estimator=None, errorbar=None, ax=ax, **look)


def _draw_intervals(ax: Axes, trained: pd.DataFrame, untrained: pd.DataFrame) -> None:
    """Draw a point with whiskers for each network, the first on top, and a line for each untrained predictor."""
    places = np.arange(len(trained))
    # Lengths, not ends: matplotlib adds them to the points.
    whiskers = [trained.dice - trained.dice_low, trained.dice_high - trained.dice]
    ax.errorbar(trained.dice, places, xerr=whiskers, fmt="o", color=display.OURS, capsize=3, linestyle="none")
    for look, row in zip(_UNTRAINED_LOOKS, untrained.itertuples(), strict=False):
        ax.axvline(row.dice, label=row.variant, **look)
    ax.set_yticks(places, trained.variant)
    ax.set(ylim=(max(len(trained), 1) - 0.4, -0.6))
    ax.grid(axis="x")


def _name_rows(ax: Axes, names: Iterable[str]) -> None:
    """Write the name of each row above it, inside the axes: on a telephone there is no room beside them."""
    ax.set_yticks([])
    for place, name in enumerate(names):
        at = {"transform": ax.get_yaxis_transform(), "ha": "left", "va": "bottom", "fontsize": 10}
        ax.text(0.01, place - 0.18, name, **at)


def _legend_on_top(fig: Figure) -> None:
    """Draw one legend above all panels, each label once."""
    entries = {}
    for ax in fig.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    fig.legend(entries.values(), entries.keys(), loc="outside upper left", ncols=3, fontsize=10)


def _outline(ax: Axes, inside: np.ndarray | None, *, color: str, linestyle: str, linewidth: float) -> None:
    # matplotlib warns about a contour that is nowhere.
    if inside is not None and inside.any() and not inside.all():
        ax.contour(inside, [0.5], colors=color, linestyles=linestyle, linewidths=linewidth)


def _arrow(start, end, **style) -> FancyArrowPatch:
    return FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, shrinkA=16, shrinkB=16, zorder=1, **style)
