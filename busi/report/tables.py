"""The paper's tables, each row beside ours and the floor."""

from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from busi.study import Runs

LOSS_FLOORS = {"KLD": "kld", "DICE": "dice_loss"}
"""Method -> its loss' floor in `busi.evaluation.floors.of`; every other method is trained on BCE."""

NEAR = 0.0001
"""A published accuracy this close to the floor stands on it: the paper gives four digits, and one row reads 0.9082."""


@cache
def published() -> dict:
    """The published numbers, from ``published.yaml``: `tables` and `figures`."""
    return yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))


def table(number: int, runs: Runs, floors: dict[str, float]) -> pd.DataFrame:
    """Table ``number`` (1 to 4) of the paper with our numbers.

    Args:
        number: Of the paper's table.
        runs: Variant -> its runs; the mean over a variant's runs is shown, nothing where it has none.
        floors: As `busi.evaluation.floors.of`.

    Returns:
        One row a method: `method`, `published_*`, ours (`loss`, `accuracy`, `auc` of the last epoch, averaged while
        the weights move, as published), `floor_*`, and `predicts_lesion`: whether any pixel of any training image is
        predicted lesion once the weights are held still (missing where there is no run).
    """
    rows = []
    for method, row in published()["tables"][number]["rows"].items():
        found = runs.get(method, [])
        ours = pd.DataFrame([run.metrics["training"] for run in found]).mean()
        rows.append(
            {
                "method": method,
                **{f"published_{name}": row[name] for name in ("loss", "accuracy", "auc")},
                **{name: ours.get(name) for name in ("loss", "accuracy", "auc")},
                "floor_loss": loss_floor(method, floors),
                "floor_accuracy": floors["accuracy"],
                "floor_auc": floors["auc"],
                "predicts_lesion": any(run.metrics["still"]["lesion_share"] > 0 for run in found) if found else None,
            }
        )
    return pd.DataFrame(rows).convert_dtypes()


def loss_floor(method: str, floors: dict[str, float]) -> float:
    """The lowest value of ``method``'s loss that a constant predictor reaches."""
    return floors[LOSS_FLOORS.get(method, "bce")]


def published_row(family: str, method: str) -> dict[str, float]:
    """The published `loss`, `accuracy` and `auc` of one row."""
    return next(table["rows"][method] for table in published()["tables"].values() if table["family"] == family)


def distinct_rows() -> pd.DataFrame:
    """The nine distinct published rows: `row` (name), `family`, `method`, `loss`, `accuracy`, `auc`."""
    rows = [
        {"row": method, "family": content["family"], "method": method, **values}
        for content in published()["tables"].values()
        for method, values in content["rows"].items()
    ]
    return pd.DataFrame(rows).drop_duplicates(["loss", "accuracy", "auc"]).reset_index(drop=True)


def on_floor(accuracy: pd.Series, floor: float) -> pd.Series:
    """Which accuracies, rounded to the paper's four digits, are the floor's or within `NEAR` of it."""
    return (accuracy.round(4) - round(floor, 4)).abs() <= NEAR + 1e-9


def every_run(runs: dict[str, Runs]) -> pd.DataFrame:
    """One row a run, each once: settings that name it, epochs, both readings of its metrics, seconds."""
    rows = {
        run.folder: {
            "run": run.config.name,
            "seed": run.config.seed,
            "epochs": run.config.epochs,
            **{f"training_{name}": value for name, value in run.metrics["training"].items()},
            **{f"still_{name}": run.metrics["still"][name] for name in run.metrics["training"]},
            "seconds": run.metrics["seconds"],
        }
        for variants in runs.values()
        for found in variants.values()
        for run in found
    }
    return pd.DataFrame(list(rows.values()))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `table` as a page shows it: published beside ours, measure by measure.

    The floors of accuracy and AUC, the same in every row, are left to the caption.
    """
    columns = {"method": "method"}
    for name, word in (("loss", "loss"), ("accuracy", "accuracy"), ("auc", "AUC")):
        columns |= {f"published_{name}": f"published {word}", name: f"our {word}"}
        if name == "loss":
            columns["floor_loss"] = "floor of loss"
    return table[[*columns, "predicts_lesion"]].rename(columns=columns | {"predicts_lesion": "predicts a lesion"})


def floor_caption(table: pd.DataFrame) -> str:
    """The floors that `shown` leaves out, in words."""
    return f"Floor of accuracy {table.floor_accuracy[0]:.4f}, of AUC {table.floor_auc[0]:.4f}"


def shown_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """A table of `every_run` as a page shows it, with minutes in place of seconds."""
    columns = {"run": "run", "seed": "seed", "epochs": "epochs"}
    for name, word in (("loss", "loss"), ("accuracy", "accuracy"), ("auc", "AUC")):
        columns |= {f"training_{name}": word, f"still_{name}": f"{word}, still"}
    columns |= {"still_lesion_share": "predicted lesion, still"}
    return runs.rename(columns=columns)[list(columns.values())].assign(
        seed=runs.seed.astype(str), minutes=runs.seconds / 60
    )


def write(frame: pd.DataFrame, file: Path, *, number: str = "%.6f") -> pd.DataFrame:
    """Write ``frame`` as CSV, numbers with six decimals or as ``number`` formats them; returns it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(file, index=False, float_format=number)
    return frame
