"""Studies without results, and results written by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from busi import config
from busi.config import Parameters, RunConfig
from busi.mechanisms import section
from busi.results import Results, empty_results

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def laptop(monkeypatch) -> Parameters:
    """The profile laptop of this repository, without its data."""
    monkeypatch.chdir(REPOSITORY)
    return config.read_profile("laptop", train_missing=False)


@pytest.fixture
def nothing_measured(tmp_path, monkeypatch) -> Parameters:
    """Parameters of a study with the repository's notebooks and parameters, and no results."""
    for name in ("params", "notebooks"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    return config.read_profile("smoke", train_missing=False)


@pytest.fixture
def write_measured(nothing_measured) -> Callable:
    """Writes a table into the results of `nothing_measured`, as if it had been measured."""

    def write(name: str, table: pd.DataFrame) -> None:
        file = nothing_measured.results_path / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("# data 0 made by a test\n" + table.to_csv(index=False), encoding="utf-8")

    return write


@pytest.fixture
def runs_of(monkeypatch) -> Callable:
    """Makes a section's runs from: variant -> their seeds."""

    def put(seeds: dict[str, list[int]]) -> None:
        config = RunConfig(protocol="heldout", image_size=64, base_filters=2, epochs=7).model_dump_json()
        rows = []
        for variant, drawn in seeds.items():
            for seed in drawn:
                head = {"variant": variant, "run": f"{variant} {seed}", "fold": 0, "seed": seed}
                rows.append(head | {"config": config, "key": "0"})
        trained = replace(empty_results(), runs=pd.DataFrame(rows))
        monkeypatch.setattr(section, "load_results", lambda *arguments: trained)

    return put


@pytest.fixture
def make_results() -> Callable:
    """Makes results of held-out runs from: variant -> name of a tested lesion image -> (group, Dice)."""
    return _make_results


def _make_results(variants: dict[str, dict], epochs: int = 7) -> Results:
    runs, images = [], []
    for variant, scores in variants.items():
        run = RunConfig(protocol="heldout", image_size=64, base_filters=2, epochs=epochs)
        head = {"variant": variant, "run": f"{variant}/{run.label}", "fold": run.fold, "seed": run.seed}
        runs.append(head | {"config": run.model_dump_json(), "planned_epochs": epochs, "epochs": epochs})
        for name, (group, dice) in scores.items():
            images.append(head | {"image_class": "benign", "name": name, "group": group, "dice": dice})
        # Every test part has normal images, which have no Dice.
        images.append(head | {"image_class": "normal", "name": "normal (1)", "group": 99, "dice": None})
    head = ["variant", "run", "fold", "seed"]
    return Results(
        runs=pd.DataFrame(runs, columns=[*head, "config", "planned_epochs", "epochs"]),
        epochs=pd.DataFrame(columns=head),
        images=pd.DataFrame(images, columns=[*head, "image_class", "name", "group", "dice"]),
    )
