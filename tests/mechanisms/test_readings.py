"""Other readings of the published rows: which runs they are, and the row that each stands beside."""

from dataclasses import replace

import numpy as np
import pandas as pd

from busi import results
from busi.config import RunConfig
from busi.mechanisms import readings
from busi.results import empty_results
from busi.study import find_group


def train(*runs: tuple[str, dict, str]):
    """Make results from variant, settings and fate of each run."""
    rows = []
    for variant, settings, fate in runs:
        config = RunConfig(**{"base_filters": 16} | settings)
        row = {"variant": variant, "run": config.label, "fold": 0, "seed": config.seed, "epochs": 75, "fate": fate}
        scores = {"training_loss": 0.3, "training_accuracy": 0.9, "training_auc": 0.91}
        rows.append(row | scores | {"config": config.model_dump_json()})
    return replace(empty_results(), runs=pd.DataFrame(rows))


TRAINED = train(
    ("KLD, Adam", {"loss": "kld", "optimizer": "adam", "momentum": 0.0}, "dead"),
    ("Upsampling2D, 32 filters", {"base_filters": 32}, "learned"),
    ("Upsampling2D, 32 filters", {"base_filters": 32, "seed": 1}, "falling"),
    ("something else", {}, "plateau"),
)


def test_a_reading_stands_beside_the_row_that_it_is_of():
    table = readings.tabulate(TRAINED)
    assert table.filters.tolist() == [16, 32, 32, 16]
    np.testing.assert_array_equal(table.published_loss, [0.1489, 0.1877, 0.1877, np.nan])
    np.testing.assert_array_equal(table.published_auc, [0.9850, 0.9728, 0.9728, np.nan])
    assert table.loss.tolist() == [0.3] * 4


def test_the_conclusion_tells_the_fates_of_each_reading():
    text = readings.conclude(readings.tabulate(TRAINED), TRAINED)
    assert text.startswith("KLD, Adam: 1 dead; Upsampling2D, 32 filters: 1 learned, 1 falling; something else")
    assert text.endswith("(300 pixels, 75 epochs planned).")


def test_each_reading_changes_one_thing_of_its_row(laptop):
    variants = find_group(laptop, "mechanisms/readings").variants
    baseline = RunConfig(base_filters=16)
    adam = {"optimizer": "adam", "momentum": 0.0}
    expected = {
        "Conv2DTranspose, Adam": {"upsampling": "Conv2DTranspose", **adam},
        "KLD, Adam": {"loss": "kld", **adam},
        "DICE, Adam": {"loss": "dice", **adam},
        "BCE, Adam": {"seed": 1000, **adam},
        "Resize+Norm+Std+Aug., SGD": {"preprocessing": "code"},
        "Upsampling2D, by class": {"order": "by-class"},
        "Upsampling2D, 32 filters": {"base_filters": 32},
        "Upsampling2D, 32 filters, once more": {"base_filters": 32, "seed": 1},
    }
    assert {name: run for name, (run,) in variants.items()} == {
        name: baseline.model_copy(update=change) for name, change in expected.items()
    }


def test_the_section_writes_its_table(nothing_measured, monkeypatch):
    monkeypatch.setattr(readings, "load_results", lambda *arguments: TRAINED)
    readings.show(nothing_measured)
    assert results.read_table(nothing_measured, "readings").fate.tolist() == ["dead", "learned", "falling", "plateau"]
