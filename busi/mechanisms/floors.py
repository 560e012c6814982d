"""Floors: scores of a constant, which never looks at the image, by formula and exactly, for each published metric."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.mechanisms import section
from busi.published import NEAR, distinct_rows, on_floor, row_loss
from busi.scoring.floors import lowest_loss
from busi.study import measure_floors

ENTROPY = "−s ln s − (1 − s) ln(1 − s)"

METRICS = [
    ("accuracy", "accuracy", "1 − s"),
    ("AUC, both channels", "auc", "1 − s"),
    ("AUC, lesion channel", "lesion_auc", "1/2"),
    ("Dice loss", "dice_loss", "s"),
    ("BCE", "bce", ENTROPY),
    ("KLD", "kld", ENTROPY),
]
"""Metrics, their names in `busi.scoring.floors.constant_floors`, and formulas for a share s of wholly lesion pixels."""


def tabulate(floors: dict[str, float]) -> pd.DataFrame:
    """Return each floor twice: by formula, and exactly.

    Returns:
        `metric`, `formula`, `from_share` (the formula with s, the share of wholly lesion pixels) and `exact` (including
        soft and mirrored pixels).
    """
    # Under the published targets, every pixel that is not wholly lesion counts as background.
    s = 1 - floors["accuracy"]
    entropy = -s * np.log(s) - (1 - s) * np.log(1 - s)
    values = {"1 − s": 1 - s, "s": s, "1/2": 0.5, ENTROPY: entropy}
    # In one channel alone, a constant ranks nothing, whatever the targets are.
    exact = floors | {"lesion_auc": 0.5}
    table = pd.DataFrame(METRICS, columns=["metric", "floor", "formula"])
    table["from_share"] = table.formula.map(values)
    table["exact"] = table.floor.map(exact)
    return table.drop(columns="floor")


@display.style()
def draw(floors: dict[str, float]) -> Figure:
    """Draw the published rows against the floors of accuracy, pooled AUC and their own loss."""
    rows = distinct_rows()
    # The losses have different floors: only the distances from these can share an axis.
    own_floors = [lowest_loss(row_loss(row), floors) for row in rows.row]
    panels = {
        "Accuracy": (rows.accuracy, floors["accuracy"]),
        "AUC, both channels": (rows.auc, floors["auc"]),
        "Loss minus its floor": (rows.loss - own_floors, 0.0),
    }
    # In the order of the paper's tables.
    places = np.arange(len(rows))
    fig, axes = plt.subplots(len(panels), 1, figsize=(display.WIDTH, 8.4))
    for ax, (title, (values, floor)) in zip(axes, panels.items(), strict=True):
        ax.axvline(floor, **display.FLOOR_LINE)
        ax.plot(values, places, "o", color=display.PUBLISHED, markersize=7)
        ax.set_title(title)
        ax.set_yticks(places, rows.row)
        ax.invert_yaxis()
        ax.grid(axis="x")
        ax.locator_params(axis="x", nbins=5)
    above = (rows.accuracy > round(floors["accuracy"], 4)).sum()
    display.add_title(fig, f"{above} of {len(rows)} published rows exceed the floor of accuracy")
    return fig


def conclude(floors: dict[str, float]) -> str:
    """Return what the floors say about the published rows."""
    rows = distinct_rows()
    count = int(on_floor(rows.accuracy, floors["accuracy"]).sum())
    verb = display.agree(count, "has", "have")
    text = f"A predictor that calls everything background is right on {floors['accuracy']:.4f} of the pixels. "
    text += f"{count or 'None'} of the {len(rows)} published rows {verb} that accuracy within {NEAR:.4f}. Its AUC is "
    text += f"{floors['auc']:.4f} only because every pixel is counted once more as background. "
    text += "On the lesion channel alone it is 0.5. "
    above = rows.row[rows.accuracy > floors["accuracy"] + NEAR]
    return f"{text}Above the floor of accuracy by more than that: {', '.join(above) or 'none'}."


@section.presents("floors")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_floors.csv``."""
    floors = measure_floors(parameters)
    table = results.write_table(parameters, "mechanisms_floors", tabulate(floors))
    return section.compose(
        draw(floors),
        table,
        conclude(floors),
        caption="The nine distinct published rows (dots) and the floor: a constant prediction (dashed). "
        "Loss minus its floor: less than 0 is better than every constant.",
        table_caption="Scores of a constant prediction: by formula from the share s of wholly lesion pixels, and "
        "exactly, including soft and mirrored pixels of the targets. For accuracy the two are equal by definition: s "
        "is one minus its exact floor.",
    )
