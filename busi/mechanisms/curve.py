"""One curve, cut at different points: when long trainings leave the plateau, and when they pass each published loss.

The published rows that learned may be one falling loss, seen at different moments. If so, the differences between the
paper's tables can be expressed in epochs of one training, and compared with the spread between seeds.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.mechanisms import section
from busi.published import EPOCHS, distinct_rows, row_loss
from busi.results import Results
from busi.scoring.fates import FALLEN
from busi.scoring.floors import lowest_loss
from busi.study import load_results, measure_floors

GROUP = "mechanisms/curve"

ONE_CURVE = ("BCE", "Upsampling2D", "Conv2DTranspose")
"""Rows with the same loss and SGD at a fixed rate, which may be one training at different moments."""

# Height of a line of small letters, in units of the loss.
_LINE = 0.014


def published_losses() -> pd.Series:
    """Return the published losses below 0.3 by row, highest first; without the Dice row, which has another scale."""
    # A loss of 0.3 or more is about that of a constant, and no point on a falling curve.
    rows = distinct_rows().set_index("row").loss
    return rows[(rows < 0.3) & (rows.index != "DICE")].sort_values(ascending=False)


def tabulate(trained: Results, floors: dict[str, float]) -> pd.DataFrame:
    """Return one row for each run.

    Returns:
        `run` (its variant), `seed`, `epochs`; `left_plateau`: first epoch whose loss is below `FALLEN` times the lowest
        loss of a constant; and for each of `published_losses` the first epoch whose loss is not above it, e.g.
        `passed_KLD`. Missing where that has not happened, and where row and run have different losses, which cannot be
        compared.
    """
    rows = []
    for (variant, seed), epochs in trained.epochs.groupby(["variant", "seed"], sort=False):
        loss = epochs.set_index("epoch").loss
        row = {"run": variant, "seed": seed, "epochs": len(loss)}
        row["left_plateau"] = _first(loss < FALLEN * lowest_loss(row_loss(variant), floors))
        for name, value in published_losses().items():
            row[f"passed_{name}"] = _first(loss <= value) if row_loss(name) == row_loss(variant) else None
        rows.append(row)
    table = pd.DataFrame(rows)
    # Integers, of which some may be missing.
    return table.astype(dict.fromkeys(table.columns[3:], "Int64"))


def _first(reached: pd.Series) -> int | None:
    return int(reached.idxmax()) if reached.any() else None


@display.style()
def draw(trained: Results) -> Figure:
    """Draw the training loss of each run, the published losses, and where the published trainings ended."""
    fig, ax = plt.subplots(figsize=(display.WIDTH, 4.6))
    sns.lineplot(trained.epochs, x="epoch", y="loss", hue="variant", units="run", estimator=None, ax=ax)
    losses = published_losses()
    ax.plot([EPOCHS] * len(losses), losses, "*", color=display.PUBLISHED, markersize=11, clip_on=False)
    place = 0.0
    for name, value in losses.sort_values().items():
        # Two losses are nearly equal: their names would overlap.
        place = max(place + _LINE, value)
        ax.annotate(name, (EPOCHS, place), xytext=(8, -3), textcoords="offset points", fontsize=8)
    ax.axvline(EPOCHS, **display.FLOOR_LINE)
    ax.set(xlabel="Epoch", ylabel="Training loss", ylim=(0, 0.35))
    display.add_legend(fig)
    told = []
    for variant, own in trained.epochs.groupby("variant", sort=False):
        # Other losses say nothing about these runs.
        same = losses[[row_loss(name) == row_loss(variant) for name in losses.index]]
        passed = (same >= own.groupby("run").loss.last().max()).sum()
        told.append(f"{variant} {passed} of {len(same)}")
    display.add_title(fig, f"Published losses of the same kind (stars) that all runs reach: {', '.join(told)}")
    return fig


def conclude(table: pd.DataFrame, trained: Results) -> str:
    """Return when the runs leave the plateau, and how many epochs of one training separate the published losses."""
    left = table.left_plateau.dropna()
    if left.empty:
        return f"No run has left the plateau in {table.epochs.max()} epochs."
    # From the highest loss to the lowest: the two ends of the curve.
    names = [name for name in published_losses().index if name in ONE_CURVE]
    baseline = table[table.run == "Upsampling2D"]
    passed = baseline[[f"passed_{name}" for name in (names[0], names[-1])]].dropna()
    runs = display.count(len(table), "run")
    text = f"{len(left)} of {runs} have left the plateau, at epoch {left.min()} to {left.max()}. "
    if len(passed):
        apart = passed.iloc[:, 1] - passed.iloc[:, 0]
        text += "Of the published losses of BCE and SGD at a fixed rate, "
        text += f"those of the rows {names[0]} and {names[-1]} are the widest apart: "
        text += f"{apart.min()} to {apart.max()} epochs of one training. "
    return f"{text}Size: {section.describe_runs(trained)}."


@section.presents("curve")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/epochs.csv``."""
    trained = section.require(load_results(parameters, GROUP))
    table = results.write_table(parameters, "epochs", tabulate(trained, measure_floors(parameters)))
    return section.compose(
        draw(trained),
        table,
        conclude(table, trained),
        caption="Training loss by epoch; stars: published rows at their last epoch, 75 (dashed).",
        table_caption="Epoch in which each run leaves the plateau, and in which it passes each published loss of its "
        "own kind.",
    )
