"""Runs for tests of what is made of them: folders written by hand, numbers as given."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from busi.config import RunConfig
from busi.report.heldout import Scored
from busi.runs import Run

METRICS = {"loss": 0.3, "accuracy": 0.9, "auc": 0.95, "lesion_share": 0.05}


@pytest.fixture
def make_run(tmp_path):
    """Writes a run of ``settings`` with the last epoch's ``training`` metrics, ``still`` ones and loss by epoch."""

    def make(training=None, still=None, losses=(0.5, 0.4, 0.3), **settings) -> Run:
        config = RunConfig(**{"epochs": len(losses)} | settings)
        folder = tmp_path / "made" / config.name / f"seed{config.seed}"
        folder.mkdir(parents=True)
        metrics = {"training": METRICS | (training or {}), "still": METRICS | (still or {}), "images": 2, "seconds": 90}
        (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        rows = [f"{epoch},{loss},0.9,0.95,0.0{epoch},1.5" for epoch, loss in enumerate(losses, start=1)]
        text = "\n".join(["epoch,loss,accuracy,auc,lesion_share,seconds", *rows])
        (folder / "history.csv").write_text(text + "\n", encoding="utf-8")
        return Run(folder, config)

    return make


@pytest.fixture
def make_heldout(tmp_path):
    """Writes a held-out run that scored ``dice``, one a lesion image, and marked a share of these and of normal images.

    Images are named by fold and number, the same for every run of a fold; each is a group alone.
    """

    numbers = itertools.count()

    def make(dice, *, fold=0, accuracy=0.9, marked=0.1, normals=(), seconds=60, **settings) -> Run:
        config = RunConfig(protocol="heldout", image_size=32, **{"fold": fold, "seed": fold} | settings)
        folder = tmp_path / "made" / str(next(numbers)) / config.label
        folder.mkdir(parents=True)
        metrics = {"threshold": 0.5, "best_epoch": 1, "epochs": 2, "parameters": 1000, "images": 8, "seconds": seconds}
        (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        table = _images(dice, fold=fold, accuracy=accuracy, marked=marked, normals=normals)
        table.to_csv(folder / "per_image.csv", index=False)
        _pixels().to_csv(folder / "bins.csv", index=False)
        return Run(folder, config)

    return make


@pytest.fixture
def make_scored():
    """Scores like those of `make_heldout` that no run stands behind."""

    def make(dice, **settings) -> Scored:
        return Scored(_images(dice, **settings), _pixels())

    return make


def _images(dice, *, fold=0, accuracy=0.9, marked=0.1, normals=()) -> pd.DataFrame:
    """A table of scores as `make_heldout` writes it: benign and malignant in turn, ever larger, then the normals."""
    lesions = pd.DataFrame({"dice": np.asarray(dice, dtype=float), "accuracy": accuracy})
    lesions["image_class"] = np.resize(["benign", "malignant"], len(lesions))
    lesions["lesion_share"] = np.arange(1, len(lesions) + 1) / 100
    lesions = lesions.assign(iou=0.4, precision=0.5, recall=0.6, hd95=7.0, nsd=0.3, detected=1.0)
    empty = pd.DataFrame({"image_class": "normal", "predicted_share": np.asarray(normals, dtype=float)})
    table = pd.concat([lesions.assign(predicted_share=marked), empty.assign(accuracy=1.0)], ignore_index=True)
    numbers = range(len(table))
    names = [f"{kind} ({fold}.{number})" for kind, number in zip(table.image_class, numbers, strict=True)]
    return table.assign(name=names, group=[1000 * fold + number for number in numbers], brier=0.05)


def _pixels() -> pd.DataFrame:
    """Pixels by probability: of 40 at 0.2 a quarter is lesion, of 10 at 0.8 all are."""
    return pd.DataFrame({"probability": [0.2, 0.8], "lesion": [10, 10], "background": [30, 0]})
