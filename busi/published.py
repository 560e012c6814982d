"""Numbers of the published study (Duffy, Hassan, Kim, 2024), read from ``published.yaml``."""

from functools import cache
from pathlib import Path

import pandas as pd
import yaml

METRICS = ("loss", "accuracy", "auc")
"""Columns of the paper's tables."""

EPOCHS = 75
"""Number of epochs that the published rows were trained for."""

_LOSSES = {"KLD": "kld", "DICE": "dice"}
"""Published row -> its loss, where that is not BCE."""

NEAR = 0.0001
"""Largest distance of a published accuracy from the floor at which it counts as equal: one unit of its last digit."""


@cache
def _read() -> dict:
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))


def published_tables() -> dict[int, dict]:
    """Return Tables 1 to 4 by number: `title`, `family`, and `rows` (method -> `loss`, `accuracy` and `auc`)."""
    return _read()["tables"]


def published_figures() -> dict[int, tuple[str, str]]:
    """Return, by number of Figures 2 to 10, the family and method of the row whose training loss the figure shows."""
    return {number: (family, method) for number, (family, method) in _read()["figures"].items()}


def published_log() -> pd.DataFrame:
    """Return the printed training log: `epoch`, `loss`, `accuracy` and `auc`; its last epoch was interrupted."""
    return pd.DataFrame(_read()["log"])


def published_network() -> dict:
    """Return the network of Figure 1: `parameters` (their number), and `blocks` of feature maps, in order."""
    return _read()["network"]


def table_number(family: str) -> int:
    """Return the number of the table about a family, which is also that of the claim."""
    # Each table is about one family, and each claim about one table.
    numbers = {content["family"]: number for number, content in published_tables().items()}
    return numbers[family]


def published_row(family: str, method: str) -> dict[str, float]:
    """Return the published `loss`, `accuracy` and `auc` of a family's row."""
    return published_tables()[table_number(family)]["rows"][method]


def distinct_rows() -> pd.DataFrame:
    """Return the nine distinct published rows: `row` (its method), `family`, `loss`, `accuracy`, `auc`."""
    rows = []
    for content in published_tables().values():
        for method, values in content["rows"].items():
            rows.append({"row": method, "family": content["family"]} | values)
    # The baseline is a row in three of the tables.
    return pd.DataFrame(rows).drop_duplicates(["loss", "accuracy", "auc"]).reset_index(drop=True)


def row_loss(row: str) -> str:
    """Return the loss that a published row is trained with, one of `busi.config.PUBLISHED_LOSSES`."""
    return _LOSSES.get(row, "bce")


def on_floor(accuracy: pd.Series, floor: float) -> pd.Series:
    """Return, as bool, which accuracies are on the floor: at most `NEAR` away from it, both rounded to four digits."""
    # Rounded, because the paper gives four digits.
    distance = (accuracy.round(4) - round(floor, 4)).abs()
    # A difference of one digit is not exactly 0.0001 in binary.
    return distance <= NEAR + 1e-9
