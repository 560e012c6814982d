"""Held-out runs written by hand, for what is computed of them."""

import json

import pandas as pd
import pytest

from busi.config import RunConfig
from busi.runs import Run


@pytest.fixture
def make_heldout(tmp_path):
    """Writes a held-out run whose test part is ``scores``: image name -> (group, Dice)."""

    def make(scores: dict, **settings) -> Run:
        config = RunConfig(protocol="heldout", image_size=64, base_filters=2, **settings)
        folder = tmp_path / config.label
        folder.mkdir(parents=True)
        rows = [
            {"image_class": "benign", "name": name, "group": group, "dice": dice}
            for name, (group, dice) in scores.items()
        ]
        normal = {"image_class": "normal", "name": "normal (1)", "group": 99, "dice": None}
        pd.DataFrame([*rows, normal]).to_csv(folder / "per_image.csv", index=False)
        (folder / "metrics.json").write_text(json.dumps({"epochs": 7, "threshold": 0.5}), encoding="utf-8")
        return Run(folder, config)

    return make
