"""Results for tests of what is made of them: tables by hand, numbers as given."""

import json

import numpy as np
import pandas as pd
import pytest

from busi.config import RunConfig
from busi.report.heldout import Answers
from busi.results import COLUMNS, Results, join_results
from busi.scoring.metrics import pool_pixels
from busi.scoring.predictors import PERFECT, PREDICTORS
from busi.study import Group

METRICS = {"loss": 0.3, "accuracy": 0.9, "auc": 0.95, "lesion_share": 0.05}
ENVIRONMENT = {
    "finished": "2026-03-04",
    "python": "3.11.7",
    "keras": "3.15.1",
    "backend": "jax",
    "backend_version": "0.8.0",
    "numpy": "2.4.6",
    "processor": "AMD EPYC",
    "gpus": 0,
    "cores": 2,
    "threads": 1,
}


@pytest.fixture
def make_run():
    """Makes results of one published run: the last epoch's ``training`` metrics, ``still`` ones, loss by epoch."""

    def make(
        variant,
        training=None,
        still=None,
        losses=(0.5, 0.4, 0.3),
        environment=None,
        fate="plateau",
        end="planned",
        **settings,
    ) -> Results:
        config = RunConfig(**{"epochs": len(losses)} | settings)
        row = {"images": 2, "seconds": 90.0, "epochs": len(losses), "fate": fate, "end": end}
        row |= ENVIRONMENT | (environment or {})
        for reading, values in (("training", training), ("still", still)):
            for metric, value in (METRICS | (values or {})).items():
                row[f"{reading}_{metric}"] = value
        numbers = range(1, len(losses) + 1)
        epochs = pd.DataFrame({"epoch": numbers, "loss": losses, "lesion_share": [number / 100 for number in numbers]})
        return _results(variant, config, row, epochs.assign(accuracy=0.9, auc=0.95, seconds=1.5))

    return make


@pytest.fixture
def make_heldout():
    """Makes results of a held-out run that scored ``dice``, one a lesion image, and marked a share of all images.

    Images are named by fold and number, the same for every run of a fold; each is a group alone.
    """

    def make(variant, dice, *, fold=0, seconds=60.0, validation_dice=0.5, settings=None, **scores) -> Results:
        fields = {"protocol": "heldout", "image_size": 32, "fold": fold, "seed": fold} | (settings or {})
        fields["seed"] += fields.pop("seed_offset", 0)
        config = RunConfig(**fields)
        row = {"threshold": 0.5, "best_epoch": 1, "epochs": 2, "parameters": 1000, "images": 8, "seconds": seconds}
        row |= {"validation_dice": validation_dice, "end": "patience"}
        row |= {f"pixels_{name}": score for name, score in pool_pixels(_pixels()).items()}
        # The best epoch is the second one; in the first, no lesion is found.
        history = {"epoch": [1, 2], "loss": [0.5, 0.4], "validation_dice": [0.0, validation_dice], "seconds": 1.0}
        epochs = pd.DataFrame(history)
        images = _images(dice, fold=fold, **scores)
        return _results(variant, config, row | ENVIRONMENT, epochs, images)

    return make


@pytest.fixture
def make_answers():
    """Makes a family's answers of held-out results; ``planned`` names the variants and their runs, if not just these.

    ``untrained``: Dice, one a lesion image, and scores of each untrained predictor; others find nothing on four images.
    """

    def make(*parts, family="loss", planned=None, untrained=None) -> Answers:
        results = join_results(parts)
        if planned is None:
            planned = {variant: results.of(variant).configs for variant in results.variants}
        images, pixels = [], []
        for predictor in (*PREDICTORS, PERFECT):
            dice, scores = (untrained or {}).get(predictor, ([0.0] * 4, {}))
            images.append(_images(dice, **scores).assign(predictor=predictor))
            pixels.append(_pixels().assign(predictor=predictor))
        group = Group(f"heldout/{family}", "3_loss", planned)
        return Answers(group, results, (pd.concat(images), pd.concat(pixels)))

    return make


def _results(variant, config, row, epochs, images=None) -> Results:
    head = {"variant": variant, "run": config.label, "fold": config.fold, "seed": config.seed}
    run = head | {
        "name": config.name,
        "key": "k",
        "fingerprint": "f",
        "training_version": 1,
        "scoring_version": "s",
        "config": json.dumps(config.model_dump()),
        "planned_epochs": config.epochs,
    }
    tables = [epochs, images]
    for position, name in enumerate(("epochs", "images")):
        table = tables[position]
        empty = pd.DataFrame(columns=COLUMNS[name])
        tables[position] = empty if table is None else pd.concat([pd.DataFrame(head, index=table.index), table], axis=1)
    return Results(pd.DataFrame([run | row]), *tables)


def _images(dice, *, fold=0, accuracy=0.9, marked=0.1, normals=()) -> pd.DataFrame:
    """Scores of images: benign and malignant in turn, ever larger, then the normal images."""
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
