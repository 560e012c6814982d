"""The published rows at every width trained so far, whichever report holds the runs.

The published network has 64 filters in its first convolution. A report trains one width, and one of its sections a few
runs at another; only several reports together can show whether the width decides.
"""

import pandas as pd

from busi.config import Parameters, families
from busi.published import METRICS
from busi.report.tables import is_comparable, summarize_runs
from busi.results import Results, join_results, read_fingerprint, read_results
from busi.study import published_configs

READINGS = "mechanisms/readings"
"""Group that, besides the families, holds published rows at another width."""

FREE = frozenset({"base_filters", "precision", "epochs", "seed"})
"""Fields of `RunConfig` in which a run may differ from the row that it stands for."""


def read_runs(parameters: Parameters) -> pd.DataFrame:
    """Read the runs of the published rows from the results of this report and of all others on the same data.

    The others are the folders beside this report's own. Nowhere else does a report read the results of another.

    Returns:
        As `busi.results.Results.runs`, with `row` (as `busi.published.distinct_rows`), `filters` and `precision`. Each
        run of a row is listed once; of the runs of one row and width, only those planned for the most epochs are.
    """
    names = {}
    for row, first in published_configs(parameters).items():
        # Whatever its width, a run of the row has the digest of the first one without these fields.
        names[row, first.digest(without=FREE)] = row
    gathered = _gather_results(parameters)
    runs = gathered.runs
    configs = gathered.configs
    # A reading is named after its row: "Upsampling2D, 32 filters".
    methods = [variant.partition(", ")[0] for variant in runs.variant]
    digests = [config.digest(without=FREE) for config in configs]
    runs["row"] = [names.get(pair) for pair in zip(methods, digests, strict=True)]
    runs["filters"] = [config.base_filters for config in configs]
    runs["precision"] = [config.precision for config in configs]
    runs = runs.dropna(subset="row").drop_duplicates(["row", "key"])
    longest = runs.groupby(["row", "filters"]).planned_epochs.transform("max")
    return runs[runs.planned_epochs == longest].reset_index(drop=True)


def _gather_results(parameters: Parameters) -> Results:
    """Return the results of the published runs and readings of all reports on the same data."""
    data = read_fingerprint(parameters)
    parts = []
    for folder in sorted(parameters.report_path.parent.iterdir()):
        report = parameters.model_copy(update={"report": folder.name})
        # A report on phantoms, or on another data set, says nothing about the width.
        if read_fingerprint(report) != data:
            continue
        for group in (*(f"published/{family}" for family in families()), READINGS):
            parts.append(read_results(report, group))
    return join_results(parts)


def compare_widths(runs: pd.DataFrame, filters: int, placed: pd.DataFrame) -> pd.DataFrame:
    """Compare each row of the paper with our runs at each width.

    Args:
        runs: As `read_runs`.
        filters: A width to list even if it has no runs.
        placed: As `busi.report.tables.place_rows`.

    Returns:
        One row for each width, the widest first, and each distinct row of the paper: `filters`, `precision` (of its
        runs), `row`, `reached_by` and what `busi.report.tables.summarize_runs` returns.
    """
    table = []
    for width in sorted({filters, *runs.filters}, reverse=True):
        for row in placed.to_dict("records"):
            own = runs[(runs.filters == width) & (runs.row == row["row"])]
            precisions = sorted(set(own.precision))
            published = {metric: row[f"published_{metric}"] for metric in METRICS}
            described = {"filters": width, "precision": ", ".join(precisions)}
            described |= {name: row[name] for name in ("row", "reached_by")}
            table.append(described | summarize_runs(published, own))
    return pd.DataFrame(table).astype({"epochs": "Int64"})


def format_widths(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `compare_widths` for a page: a row for each published row, a column for each width.

    A cell holds loss, accuracy and AUC; ours are means over the runs, followed by epochs, fates and verdict. Without
    published numbers there is no column for them.
    """
    records = table.to_dict("records")
    published = [_join_metrics(row, "published_") for row in records]
    ours = [_tell_runs(row) for row in records]
    cells = table.rename(columns={"reached_by": "reached by"}).assign(published=published, ours=ours)
    names = ["row"]
    if is_comparable(table):
        names = ["row", "published", "reached by"]
    shown = cells.drop_duplicates("row")[names].reset_index(drop=True)
    for width, own in cells.groupby("filters", sort=False):
        shown[f"{width} filters"] = own.ours.to_numpy()
    return shown


def _tell_runs(row: dict) -> str:
    if not row["n_runs"]:
        return row["verdict"]
    return f"{_join_metrics(row, '')} ({row['epochs']} epochs, {row['fates']}): {row['verdict']}"


def _join_metrics(row: dict, prefix: str) -> str:
    return " / ".join(f"{row[f'{prefix}{metric}']:.4f}" for metric in METRICS)
