"""Outlines of lesions as marked and as predicted, to show what predictions look like without a pixel of the data."""

import numpy as np
import pandas as pd
from skimage import measure

from busi.dataset import arrays
from busi.dataset.catalog import Catalog, read_union
from busi.runs import Run

COLUMNS = ["line", "piece", "x", "y"]
"""Columns of `trace_case`."""

CASE_COLUMNS = ["case", "dice", *COLUMNS, "n_runs"]
"""Columns of a table of cases: the rows of `choose_cases`, their outlines, and the number of runs behind the choice."""

REACH = 0.6
"""Half of the larger side of a marked lesion, in the units of `trace_case`."""


def choose_cases(images: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the rows of the "best", "median" (the lower of two middle ones) and "worst" lesion image by `dice`."""
    lesions = images.dropna(subset="dice")
    # By name too, so that equal scores always give the same cases.
    ordered = lesions.sort_values(["dice", "name"], kind="stable")
    middle = (len(ordered) - 1) // 2
    return {"best": ordered.iloc[-1], "median": ordered.iloc[middle], "worst": ordered.iloc[0]}


def trace_case(run: Run, catalog: Catalog, name: str) -> pd.DataFrame:
    """Trace the outlines of an image that a run held out, from the run's predictions.

    The marked lesion is moved to (0, 0) and scaled to `REACH`, and the prediction with it: neither the place nor the
    size of the lesion is revealed.

    Returns:
        One row for each corner: `line` ("truth" or "prediction"), `piece` (number of the outline), `x` to the right and
        `y` downwards, with two decimals. A prediction that marks nothing has no row; nor has an image whose lesion is
        too small to be seen at network size.
    """
    test = run.predictions["test"]
    probability = test.probability[test.names.tolist().index(name)]
    masks = catalog.table.set_index("name").masks[name]
    truth = arrays.lesion_channel(read_union(masks), run.config)
    traced = pd.concat([_trace(truth, 0.5, "truth"), _trace(probability, run.threshold, "prediction")])
    marked = traced.loc[traced.line == "truth", ["x", "y"]]
    if marked.empty:
        return traced.iloc[:0][COLUMNS]
    middle = (marked.max() + marked.min()) / 2
    half = (marked.max() - marked.min()).max() / 2
    traced[["x", "y"]] = (REACH * (traced[["x", "y"]] - middle) / half).round(2)
    return traced[COLUMNS]


def _trace(levels: np.ndarray, level: float, line: str) -> pd.DataFrame:
    """Return the outlines of what is at ``level`` or above, in pixels."""
    # A border of background closes the outlines that reach the edge of the image.
    contours = measure.find_contours(np.pad(levels, 1), level)
    corners = [pd.DataFrame(columns=["y", "x", "piece"], dtype=float)]
    for number, contour in enumerate(contours):
        # Corners that differ from a straight line by less than half a pixel would only make the file larger.
        simplified = measure.approximate_polygon(contour, tolerance=0.5)
        corners.append(pd.DataFrame(simplified, columns=["y", "x"]).assign(piece=number))
    return pd.concat(corners, ignore_index=True).assign(line=line)
