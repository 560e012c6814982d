"""Floors: scores of a predictor that never looks at the image, by formula and exactly, for each published metric."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from busi import display, results
from busi.config import Parameters
from busi.dataset.arrays import published_arrays
from busi.dataset.catalog import Catalog
from busi.mechanisms import section
from busi.published import distinct_rows, loss_floor, on_floor
from busi.scoring.floors import constant_floors
from busi.study import published_targets_config

ENTROPY = "−s ln s − (1 − s) ln(1 − s)"

FORMULAS = {
    "accuracy": ("accuracy", "1 − s"),
    "AUC, both channels": ("auc", "1 − s"),
    "AUC, lesion channel": ("lesion_auc", "1/2"),
    "Dice loss": ("dice_loss", "s"),
    "BCE": ("bce", ENTROPY),
    "KLD": ("kld", ENTROPY),
}
"""Metric -> its name in `constant_floors`, and its formula for hard targets with a share s of lesion pixels."""


def measure(parameters: Parameters) -> pd.DataFrame:
    """Return the floors of the study's published targets, as `tabulate`."""
    config = published_targets_config(parameters)

    def make(catalog: Catalog) -> pd.DataFrame:
        return tabulate(published_arrays(catalog, config).targets)

    return results.measure(parameters, "mechanisms/floors", make, depends=[json.dumps(config.model_dump())])


def tabulate(targets: np.ndarray) -> pd.DataFrame:
    """Compute each floor twice: by formula and exactly.

    Args:
        targets: float (n, h, w, 2), as `busi.dataset.arrays.published_arrays` returns them.

    Returns:
        `metric`, `formula`, `from_share` (the formula with s, the share of pixels that are at least half lesion) and
        `exact` (including soft and mirrored pixels).
    """
    lesion = targets[..., 0]
    exact = constant_floors(targets)
    # In one channel a constant ranks nothing: its AUC is one half, whatever the targets.
    exact["lesion_auc"] = 0.5
    # A soft pixel counts as lesion from one half on, as in a hard mask.
    s = float((lesion >= 0.5).mean())
    values = {"1 − s": 1 - s, "s": s, "1/2": 0.5, ENTROPY: -s * np.log(s) - (1 - s) * np.log(1 - s)}
    rows = []
    for metric, (name, formula) in FORMULAS.items():
        rows.append({"metric": metric, "formula": formula, "from_share": values[formula], "exact": exact[name]})
    return pd.DataFrame(rows)


@display.style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw the published rows against the floors of accuracy, pooled AUC and their own loss."""
    rows = distinct_rows()
    floors = {}
    for metric, exact in zip(table.metric, table.exact, strict=True):
        name, _ = FORMULAS[metric]
        floors[name] = exact
    # The losses have different floors: only distances from them can share an axis.
    own_floors = [loss_floor(method, floors) for method in rows.method]
    panels = {
        "Accuracy": (rows.accuracy, floors["accuracy"]),
        "AUC, both channels": (rows.auc, floors["auc"]),
        "Loss minus its floor": (rows.loss - own_floors, 0.0),
    }
    # From the top down, in the order of the paper's tables.
    places = np.arange(len(rows))[::-1]
    fig, axes = plt.subplots(1, len(panels), figsize=(8.6, 3.8), sharey=True)
    for ax, (title, (values, floor)) in zip(axes, panels.items(), strict=True):
        ax.axvline(floor, **display.FLOOR_LINE)
        ax.plot(values, places, "o", color=display.PUBLISHED, markersize=7)
        ax.set(title=title, ylim=(-0.7, len(rows) - 0.3))
        ax.grid(axis="x")
        # Level, the numbers of neighbouring panels would run into each other.
        ax.tick_params(axis="x", labelrotation=30)
    axes[0].set_yticks(places, rows.row)
    above = (rows.accuracy > round(floors["accuracy"], 4)).sum()
    fig.suptitle(f"{above} of {len(rows)} published rows exceed the floor of accuracy", x=0.01, ha="left")
    return fig


def conclude(table: pd.DataFrame) -> str:
    """Return what the floors say about the published rows."""
    exact = table.set_index("metric").exact
    rows = distinct_rows()
    count = int(on_floor(rows.accuracy, exact["accuracy"]).sum())
    standing = f"{count or 'none'} of the {len(rows)} published rows {'have' if count > 1 else 'has'} that accuracy"
    both, lesion = exact["AUC, both channels"], exact["AUC, lesion channel"]
    return (
        f"A predictor that calls everything background is right on {exact['accuracy']:.4f} of the pixels, and "
        f"{standing}; its AUC is {both:.4f} only because every pixel is counted once more as background: on the lesion "
        f"channel alone it is {lesion:.1f}."
    )


@section.presents("floors")
def show(parameters: Parameters) -> section.Section:
    """Return figure, table and conclusion; write ``tables/mechanisms_floors.csv``."""
    table = results.write_table(parameters, "mechanisms_floors", measure(parameters))
    return section.compose(
        draw(table),
        table,
        conclude(table),
        caption="The nine distinct published rows (dots) and the floor: a predictor that never looks (dashed).",
        table_caption="Scores of a constant prediction: by formula from the share s of lesion pixels, and exactly, "
        "including soft and mirrored pixels of the targets.",
    )
