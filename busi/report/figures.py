"""Figures: those of the paper drawn again, and those of the data, the held-out scores and the lab.

Tables come from `busi.report.tables` and `busi.report.heldout`; `epochs` from `busi.results.Results`.
"""

import itertools
import textwrap
from collections.abc import Mapping

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
from busi.display import agree
from busi.published import EPOCHS
from busi.report.tables import is_comparable
from busi.scoring.predictors import PERFECT
from busi.study import BLIND_ORDERS

LOSS_AXIS = (0, 0.4)
"""Vertical axis of the paper's Figures 2 to 10."""

THINNEST = 0.002
"""Width at which narrower ranges of two biases are drawn, which would hardly be visible beside the rows."""

TRUE_OUTLINE = {"color": display.TRUE, "linestyle": "-", "linewidth": 1.8}
PREDICTED_OUTLINE = {"color": display.PREDICTED, "linestyle": "--", "linewidth": 1.8}

_UNTRAINED_LOOKS = (
    display.FLOOR_LINE,
    {"color": display.GREEN, "linestyle": ":", "linewidth": 2},
    {"color": display.PINK, "linestyle": "-.", "linewidth": 1.5},
    {"color": display.GREY, "linestyle": "--", "linewidth": 2},
    {"color": display.GREEN, "linestyle": "-", "linewidth": 1},
)


@display.style()
def loss_curves(panels: list[dict]) -> Figure:
    """Draw training losses on the axes of Figures 2 to 10, with a panel for each method and a thin line for each run.

    Args:
        panels: For each method: `title`; `epochs`, which may be empty; and `row`, its row of
            `busi.report.tables.compare_rows` with the losses of predictors that never look, the published one, and the
            number and fates of the runs.
    """
    n_rows = (len(panels) + 1) // 2
    height = 1 + 2.3 * n_rows
    size = (display.WIDTH, height)
    fig, axes = plt.subplots(n_rows, 2, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax, panel in zip(axes.flat, panels, strict=False):
        _draw_losses(ax, panel["epochs"], panel["row"])
        ax.set_title(textwrap.fill(panel["title"], 32), fontsize=10)
        ax.set(xlim=(0, EPOCHS), ylim=LOSS_AXIS, xlabel="Epoch", ylabel="Training loss")
        ax.label_outer()
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    rows = pd.DataFrame([panel["row"] for panel in panels])
    trained = rows[rows.n_runs > 0]
    # By the fates, not by the losses: slightly below the best constant a run is still on the plateau.
    fell = trained.fates.astype(str).str.contains("falling|learned").sum()
    title = f"Runs of {fell or 'none'} of the {len(trained)} rows trained here are falling or have learned"
    display.add_title(fig, title if len(trained) else "No row has been trained here yet")
    display.add_legend(fig)
    return fig


def _draw_losses(ax: Axes, epochs: pd.DataFrame, row: dict) -> None:
    """Draw one panel of `loss_curves`: the runs, the predictors that never look, and the published loss."""
    for _, run in epochs.groupby("run", sort=False):
        # A single epoch makes no line.
        marker = "o" if len(run) == 1 else None
        ax.plot(run.epoch, run.loss, color=display.OURS, lw=1, marker=marker, label="ours, one line a run")
    ax.axhline(row["floor_loss"], label="best constant", **display.FLOOR_LINE)
    # The range over orders is narrower than a line, so its border is drawn as well.
    low = row["biases_loss_low"]
    high = row["biases_loss_high"]
    ax.axhspan(low, high, label=f"two biases, {BLIND_ORDERS} orders", color=display.SKY, alpha=0.6, lw=3, zorder=0)
    ax.axhline(row["mask_loss"], label="mean mask", color=display.RED, lw=1.5, ls=":")
    # Nothing is published about images other than the paper's.
    if not np.isnan(row["published_loss"]):
        # The star lies on the border of the axes, which would cut it in half.
        ax.plot(
            EPOCHS,
            row["published_loss"],
            "*",
            label=f"published, epoch {EPOCHS}",
            color=display.PUBLISHED,
            markersize=11,
            clip_on=False,
        )


@display.style()
def rows_against_blind(rows: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Draw AUC and loss of the published rows beside those of our runs and of predictors that never look.

    Args:
        rows: As `busi.report.tables.place_rows`.
        narrow: Whether it is for a telephone: panels one below the other, names of rows above their marks.
    """
    shape = (2, 1) if narrow else (1, 2)
    size = (4.2, 7.8) if narrow else (9, 4.6)
    fig, axes = plt.subplots(*shape, figsize=size, sharey=not narrow)
    comparable = is_comparable(rows)
    labels = {"auc": "AUC, both channels", "loss": "Loss of the row"}
    for ax, metric in zip(axes, labels, strict=True):
        _draw_rows(ax, rows, metric, height=0.3 if narrow else 0.8)
        ax.set_xlabel(f"{labels[metric]} (training images)")
        if narrow:
            display.name_rows(ax, rows.row)
    if not narrow:
        axes[0].set_yticks(range(len(rows)), rows.row)
    beyond = (rows.reached_by == "none").sum()
    title = "Our runs and predictors that never look"
    if comparable:
        have = agree(beyond, "has", "have")
        title = f"{beyond or 'None'} of {len(rows)} published rows {have} a higher AUC than every blind predictor tried"
    display.add_title(fig, title)
    display.add_legend(fig, 2 if narrow else 4)
    return fig


def _draw_rows(ax: Axes, rows: pd.DataFrame, metric: str, height: float) -> None:
    """Draw one panel of `rows_against_blind`."""
    places = np.arange(len(rows))
    low = rows[f"biases_{metric}_low"]
    high = rows[f"biases_{metric}_high"]
    # Around the middle: the biases hardly differ between orders.
    width = np.maximum(high - low, THINNEST)
    ax.barh(
        places,
        width,
        left=(low + high - width) / 2,
        height=height,
        color=display.SKY,
        label=f"two biases, {BLIND_ORDERS} orders",
    )
    mask = rows[f"mask_{metric}"]
    ax.plot(mask, places, "|", label="mean mask", color=display.RED, markersize=24 * height, mew=2)
    # Without published numbers, an entry in the legend would have no star to explain.
    label = "published" if is_comparable(rows) else "_"
    ax.plot(rows[f"published_{metric}"], places, "*", label=label, color=display.PUBLISHED, markersize=11)
    ours = rows[metric]
    low = rows[f"{metric}_low"]
    high = rows[f"{metric}_high"]
    look = {"fmt": "D", "color": display.OURS, "mfc": "none", "mew": 2}
    several = (rows.n_runs > 1).any()
    label = "ours, range of runs" if several else "ours, one run"
    display.draw_intervals(ax, places, ours, low, high, label=label, **look)
    # Otherwise the axis would end at a bar and cut through a star beside it.
    ax.use_sticky_edges = False
    # The first row comes at the top.
    ax.set_ylim(len(rows) - 0.4, -0.9)
    ax.grid(axis="x")


@display.style()
def differences(table: pd.DataFrame, *, margin: float, title: str) -> Figure:
    """Draw differences in Dice with their intervals, and the margin within which they do not matter.

    Args:
        table: `label` of each difference, drawn above it; `size` of its runs, shown by colour, two at most;
            `difference`, `low` and `high`. At least one row.
        margin: Smallest difference that matters, shaded around zero.
        title: What the differences show.
    """
    labels = list(dict.fromkeys(table.label))
    sizes = table.groupby("size", sort=False)
    # A second interval must not touch the name of the next row.
    row_height = 0.45 if len(sizes) == 1 else 0.6
    fig, ax = plt.subplots(figsize=(4.4, 1.45 + row_height * len(labels)))
    ax.axvspan(-margin, margin, color=display.GREY, alpha=0.15, lw=0, label=f"within ±{margin}")
    ax.axvline(0, color=display.GREY, linewidth=1)
    looks = [{"fmt": "o", "color": display.OURS}, {"fmt": "s", "color": display.RED}]
    for number, (size, rows) in enumerate(sizes):
        # The second size stands below the first one.
        places = [labels.index(label) + 0.05 + 0.22 * number for label in rows.label]
        display.draw_intervals(ax, places, rows.difference, rows.low, rows.high, label=size, **looks[number])
    ax.set(xlabel="Difference in Dice, 95 % interval")
    # In so narrow a figure, more numbers would overlap.
    ax.xaxis.set_major_locator(MaxNLocator(5))
    display.name_rows(ax, labels)
    display.add_title(fig, title)
    # Three entries are wider than the figure.
    display.add_legend(fig, 2)
    return fig


@display.style()
def ranks(ranked: pd.DataFrame, metrics: Mapping[str, str], *, telling: float, title: str) -> Figure:
    """Draw for each metric the share of pairs of `busi.report.claims.rank_pairs` that it ranks as Dice does.

    ``telling`` is the share required.
    """
    fig, ax = plt.subplots(figsize=(4.4, 3.1))
    shares = ranked.melt("size", list(metrics), "metric", "alike")
    shares["alike"] = shares.alike.astype(float)
    palette = [display.OURS, display.SKY][: ranked["size"].nunique()]
    sns.barplot(shares, x="alike", y="metric", hue="size", palette=palette, width=0.4, errorbar=None, ax=ax)
    ax.axvline(telling, **display.FLOOR_LINE, label=f"asked for: {telling:.0%}")
    ax.set(xlim=(0, 1), xlabel="Pairs ranked as Dice ranks them (share)", ylabel="")
    display.name_rows(ax, metrics.values())
    display.add_title(fig, title)
    display.add_legend(fig, 2)
    return fig


@display.style()
def outlines(table: pd.DataFrame) -> Figure:
    """Draw the cases of `busi.study.measure_outlines`, at least one variant: true and predicted outlines."""
    variants = list(table.variant.unique())
    cases = ["best", "median", "worst"]
    size = (display.WIDTH, 1 + 1.9 * len(variants))
    fig, axes = plt.subplots(len(variants), 3, figsize=size, squeeze=False)
    for variant, row in zip(variants, axes, strict=True):
        for case, ax in zip(cases, row, strict=True):
            own = table[(table.variant == variant) & (table.case == case)]
            _draw_outlines(ax, own)
            # A lesion may be too small to be seen.
            ax.set_title(f"{case}: Dice {own.dice.max():.2f}" if len(own) else f"{case}: not drawn", fontsize=9)
        row[0].set_ylabel(textwrap.fill(variant, 22), fontsize=9)
    sns.despine(fig, left=True, bottom=True)
    # Each corner of an outline carries the Dice of its case.
    dice = table.groupby(["variant", "case"]).dice.first()
    dice = dice.unstack().reindex(columns=cases)
    median = dice["median"]
    missed = (dice["worst"] == 0).sum()
    title = f"Median cases have Dice {median.min():.2f} to {median.max():.2f}"
    display.add_title(fig, f"{title}; {missed} of {len(variants)} miss their worst lesion")
    _outline_legend(fig)
    return fig


def _draw_outlines(ax: Axes, corners: pd.DataFrame) -> None:
    """Draw one case of `outlines`: the true outline, and the predicted one if anything is marked."""
    for line, look in (("truth", TRUE_OUTLINE), ("prediction", PREDICTED_OUTLINE)):
        for _, piece in corners[corners.line == line].groupby("piece"):
            ax.plot(piece.x, piece.y, **look)
    ax.set(xticks=[], yticks=[], aspect="equal", xlim=(-1, 1), ylim=(1, -1))


@display.style()
def architecture(blocks: list[dict], *, title: str) -> Figure:
    """Draw Figure 1: the network as a U of the feature maps in `busi.published.published_network`."""
    deepest = max(block["level"] for block in blocks)
    fig, ax = plt.subplots(figsize=(display.WIDTH, 4.6))
    centres = {}
    for block in blocks:
        level = block["level"]
        # Down on the left, up on the right, the deepest level in the middle.
        x = 2 * deepest - level if block["side"] == "up" else level
        centres[block["side"], level] = (x, -level)
        _draw_block(ax, block, x, largest=blocks[0]["size"])
    for start, end in itertools.pairwise(centres.values()):
        ax.add_patch(_arrow(start, end, color=display.GREY))
    # Skip connections join the two sides at every level but the deepest.
    for level in range(deepest):
        skip = _arrow(centres["down", level], centres["up", level], color=display.RED, linestyle="--")
        ax.add_patch(skip)
    ax.set(xlim=(-0.8, 2 * deepest + 0.8), ylim=(-deepest - 0.75, 0.55))
    display.add_title(fig, title)
    ax.axis("off")
    return fig


def _draw_block(ax: Axes, block: dict, x: float, largest: int) -> None:
    """Draw a feature map as a box with its size below; height grows with its side, width with log2 of its filters."""
    height = 0.12 + 0.68 * block["size"] / largest
    width = 0.08 + 0.05 * np.log2(block["filters"])
    bottom = -block["level"] - height / 2
    box = Rectangle((x - width / 2, bottom), width, height, fc=display.SKY, ec=display.BLUE, zorder=2)
    ax.add_patch(box)
    text = f"{block['size']}²\n{block['filters']} filters"
    ax.text(x, bottom - 0.06, text, ha="center", va="top", fontsize=9, bbox=display.ON_WHITE)


@display.style()
def lesion_sizes(images: pd.DataFrame) -> Figure:
    """Draw the distribution of the lesion's share of the image by class, of `busi.dataset.catalog.describe_images`."""
    lesions = images[images.image_class != "normal"]
    names = {}
    for image_class, shares in lesions.groupby("image_class").lesion_share:
        names[image_class] = f"{image_class}: median {shares.median():.1%} of {len(shares)} images"
    fig, ax = plt.subplots()
    labels = lesions.image_class.map(names)
    sns.histplot(x=lesions.lesion_share, hue=labels, bins=30, log_scale=True, alpha=0.5, ax=ax)
    ax.get_legend().set_title("")
    ax.margins(y=0.4)  # room for the legend
    ax.set(xlabel="Lesion area (share of the image)", ylabel="Images")
    half = lesions.lesion_share.median()
    display.add_title(fig, f"Half of the lesions cover less than {half:.1%} of their image")
    return fig


@display.style()
def mean_mask(shares: pd.DataFrame) -> Figure:
    """Draw where lesions lie, as `busi.dataset.audit.mean_mask` counts them."""
    fig, ax = plt.subplots()
    drawn = ax.imshow(shares, cmap="viridis", vmin=0, extent=(0, 1, 1, 0))
    fig.colorbar(drawn, label="Share of lesion images")
    ax.grid(False)
    ax.set(xlabel="Across the image", ylabel="Down the image", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    display.add_title(fig, f"One place is lesion in {shares.to_numpy().max():.0%} of the lesion images")
    return fig


@display.style()
def examples(images: list[np.ndarray], lesions: list[np.ndarray], titles: list[str]) -> Figure:
    """Draw images with the outline of their lesions, as `busi.dataset.catalog.example_images` returns them."""
    fig, axes = plt.subplots(1, len(images), figsize=(display.WIDTH, 2.4), squeeze=False)
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
    ax.axvline(bound + 0.5, label=f"bound: {bound} bits", **display.FLOOR_LINE)
    ax.set(xlabel="Distance of the perceptual hashes (bits of 64)", ylabel="Pairs of images", yscale="log")
    near = counts.pairs[counts.distance <= bound].sum()
    display.add_title(fig, f"{near} of {counts.pairs.sum():,} pairs of images have nearly equal hashes")
    display.add_legend(fig)
    return fig


@display.style()
def dice(table: pd.DataFrame) -> Figure:
    """Draw the mean Dice of `Answers.table`: networks as points with 95 % intervals, untrained predictors as lines."""
    trained = table[table.n_runs > 0]
    untrained = table[(table.n_runs == 0) & (table.n_images > 0)]
    fig, ax = plt.subplots(figsize=(display.WIDTH, 2.2 + 0.5 * len(trained)))
    display.draw_intervals(ax, range(len(trained)), trained.dice, trained.dice_low, trained.dice_high)
    for look, row in zip(_UNTRAINED_LOOKS, untrained.itertuples(), strict=False):
        ax.axvline(row.dice, label=row.variant, **look)
    display.name_rows(ax, trained.variant)
    ax.set(xlabel="Dice on held-out images (mean, 95 % interval)")
    best = untrained[untrained.variant != PERFECT].dice.max()
    better = (trained.dice_low > best).sum()
    title = f"Better than every untrained predictor (perfect mask aside): {better or 'none'} of {len(trained)} variants"
    display.add_title(fig, title if len(trained) else "No variant has been trained yet")
    display.add_legend(fig, 2)
    return fig


@display.style()
def dice_by_lesion(lesions: pd.DataFrame) -> Figure:
    """Draw the Dice of each lesion image against the size of its lesion, on a logarithmic axis, by class.

    Args:
        lesions: `image_class`, `lesion_share` (of the image, 0 to 1) and `dice`.
    """
    fig, ax = plt.subplots(figsize=(display.WIDTH, 4.2))
    percent = 100 * lesions.lesion_share
    is_small = lesions.lesion_share < lesions.lesion_share.median()
    small = lesions.dice[is_small].mean()
    large = lesions.dice[~is_small].mean()
    sns.scatterplot(x=percent, y=lesions.dice, hue=lesions.image_class, style=lesions.image_class, s=20, ax=ax)
    ax.set(xscale="log", ylim=(0, 1), xlabel="Lesion (% of the image's pixels)", ylabel="Dice, mean over variants")
    ax.xaxis.set_major_formatter(ScalarFormatter())
    display.add_title(fig, f"The smaller half of the lesions has Dice {small:.2f}, the larger half {large:.2f}")
    display.add_legend(fig)
    return fig


@display.style()
def cases(shown: Mapping, *, width: float = 3.2) -> Figure:
    """Draw answers of networks: image with true and predicted outlines, and the map of probabilities below it.

    A single case has its map beside the image.

    Args:
        shown: Title of a column -> `busi.lab.networks.Case`.
        width: Width of a column in inches.
    """
    shapes = [case.pixels.shape for case in shown.values()]
    tallest = max(rows / columns for rows, columns in shapes)
    # All columns get the height of the tallest image, and the colour bar some width.
    alone = len(shown) == 1
    if alone:
        # A case alone leaves room for its map beside it.
        size = (2 * width + 0.9, width * tallest + 1)
        fig, axes = plt.subplots(1, 2, figsize=size, squeeze=False)
        axes = axes.T
    else:
        size = (width * len(shown) + 0.9, 2 * width * tallest + 1)
        fig, axes = plt.subplots(2, len(shown), figsize=size, squeeze=False)
    # The longest titles, those of variants, would not fit side by side in letters that are legible on a telephone.
    font_size = 11 if max(map(len, shown)) <= 10 * width else 9
    for (upper, lower), (title, case) in zip(axes.T, shown.items(), strict=True):
        upper.imshow(case.pixels, cmap="gray", vmin=0, vmax=255)
        probability = lower.imshow(case.probability, vmin=0, vmax=1)
        for ax in (upper, lower):
            _outline(ax, case.truth, **TRUE_OUTLINE)
            ax.axis("off")
            ax.set_anchor("N")
        _outline(upper, case.predicted, **PREDICTED_OUTLINE)
        upper.set_title(title, fontsize=font_size)
        # Titles on both keep an image and its map at the same height when they are side by side.
        lower.set_title("probability of lesion", fontsize=font_size)
    # panchor: otherwise the colour bar would move the maps to the middle of their places.
    fig.colorbar(probability, ax=axes[1], ticks=[0, 0.5, 1], shrink=0.8, panchor=False)
    _outline_legend(fig)
    return fig


@display.style()
def training(attempts: dict[str, pd.DataFrame]) -> Figure:
    """Draw small networks during training: loss of each step, and Dice on the validation part after each epoch.

    Args:
        attempts: Label -> rows of `busi.lab.live.training`; `validation_dice` is missing inside an epoch.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2))
    steps = pd.concat([rows.assign(attempt=label) for label, rows in attempts.items()], ignore_index=True)
    look = {"x": "epoch", "hue": "attempt", "style": "attempt", "errorbar": None}
    sns.lineplot(steps, y="loss", estimator=None, ax=left, **look)
    # A marker, because a single epoch makes no line.
    ends = steps.dropna(subset="validation_dice")
    sns.lineplot(ends, y="validation_dice", marker="o", legend=False, ax=right, **look)
    left.set(xlabel="Epoch", ylabel="Loss of a step", ylim=(0, None))
    right.set(xlabel="Epoch", ylabel="Dice, validation part", ylim=(0, 1))
    display.add_legend(fig, 2)
    return fig


def _outline_legend(fig: Figure) -> None:
    marked = Line2D([], [], label="as marked", **TRUE_OUTLINE)
    predicted = Line2D([], [], label="as predicted", **PREDICTED_OUTLINE)
    fig.legend(handles=[marked, predicted], loc="outside lower left", ncols=2, fontsize=11)


def _outline(ax: Axes, inside: np.ndarray | None, *, color: str, linestyle: str, linewidth: float) -> None:
    # matplotlib warns about a contour that does not exist.
    if inside is not None and inside.any() and not inside.all():
        ax.contour(inside, [0.5], colors=color, linestyles=linestyle, linewidths=linewidth)


def _arrow(start, end, **style) -> FancyArrowPatch:
    return FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, shrinkA=16, shrinkB=16, zorder=1, **style)
