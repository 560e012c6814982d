"""The printed log beside trainings made by hand."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_study import numbers

from busi import results
from busi.config import RunConfig
from busi.dataset.arrays import two_channels
from busi.mechanisms import log
from busi.results import empty_results
from busi.study import find_group


def train(*seeds: dict[int, tuple[float, float, float]]):
    """Make results from: epoch -> loss, accuracy and AUC, one mapping for each seed."""
    rows, runs = [], []
    config = RunConfig(optimizer="adam", momentum=0.0, epochs=4, last_steps=426)
    for seed, epochs in enumerate(seeds):
        head = {"variant": "Adam, 0.01", "run": f"run {seed}", "fold": 0, "seed": seed}
        runs.append(head | {"key": "k", "config": config.model_dump_json()})
        for epoch, (loss, accuracy, auc) in epochs.items():
            rows.append(head | {"epoch": epoch, "loss": loss, "accuracy": accuracy, "auc": auc})
    return replace(empty_results(), runs=pd.DataFrame(runs), epochs=pd.DataFrame(rows))


EXPLODES = {1: (900.0, 0.89, 0.88), 2: (0.3066, 0.9082, 0.9050), 3: (0.3068, 0.9083, 0.9058), 4: (0.31, 0.90, 0.90)}
SETTLES = {1: (0.5, 0.90, 0.90), 2: (0.3069, 0.9084, 0.9070), 3: (0.3070, 0.9083, 0.9056), 4: (0.312, 0.91, 0.90)}


def cover(wide: str) -> pd.DataFrame:
    """Return ranges of two biases that hold every number of one order, and none of the other's."""
    rows = []
    for order in ("mixed", "by class"):
        low, high = (0.0, 2000.0) if order == wide else (0.2, 0.2)
        for epoch in (1, 2, 3, 4):
            row = {"epoch": epoch, "order": order, "orders": 1}
            for metric in log.METRICS:
                row |= {f"{metric}_low": low, f"{metric}_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def test_published_and_ours_stand_epoch_by_epoch_with_the_range_over_seeds():
    table = log.tabulate(train(EXPLODES, SETTLES), cover("mixed"))
    assert table.epoch.tolist() == [1, 2, 3, 4]
    assert table.published_loss.tolist() == [1601.7706, 0.3068, 0.3069, 0.3131]
    assert (table.loss_low[1], table.loss_high[1], table.auc_high[1]) == (0.3066, 0.3069, 0.9070)
    assert table.seeds.tolist() == [2] * 4
    assert table[["biases_loss_low", "biases_auc_high"]].to_numpy().tolist() == [[0.0, 2000.0]] * 4


def conclude(trained, biases):
    return log.conclude(log.tabulate(trained, biases), trained, biases)


def test_the_conclusion_counts_explosions_and_printed_numbers_within_the_range():
    text = conclude(train(EXPLODES, SETTLES), cover("mixed"))
    assert "(2 seeds), not always above 32" in text
    # All of epochs 2 (0.3068, 0.9083, 0.9064) and 3 (0.3069, 0.9083, 0.9057); of epoch 4 the accuracy alone, 0.9056.
    assert "7 of their 9 printed numbers lie within" in text
    assert numbers(text.split("Size: ")[1])[:3] == ["300", "64", "4"] and "float32" in text
    # One seed is a point: only the accuracy of epoch 3 is equal.
    alone = conclude(train(EXPLODES), cover("mixed"))
    assert "1 of their 9 printed numbers are the same" in alone
    assert "900 (1 seed), above 32" in alone
    assert "0.5 (1 seed), below 32" in conclude(train(SETTLES), cover("mixed"))


def test_two_biases_tell_the_order_where_mixed_ones_alone_cover_what_was_printed():
    trained = train(EXPLODES)
    for covered, reached, verdict in (
        ("mixed", ["9", "9", "25", "0"], ": the images most likely came mixed"),
        ("by class", ["0", "9", "25", "9"], "."),
    ):
        told = re.search(
            r"have (\d.*mixed orders.*) sorted by class(.*?)(?:,| Size)", conclude(trained, cover(covered))
        )
        assert (numbers(told[1]), told[2]) == (reached, verdict)


def test_by_class_is_the_order_of_the_images_and_mixed_ones_are_drawn(nothing_measured, monkeypatch):
    """One image is all lesion, and the two after it have none.

    After the first step the biases call every pixel what the first image was, and with Adam they do so to the end of
    the epoch: in the order given all three images are wrong, and one of them where another one comes first.
    """
    lesions = np.zeros((3, 2, 2))
    lesions[0] = 1
    monkeypatch.setattr(results, "load_catalog", lambda parameters: SimpleNamespace(fingerprint="of three images"))
    targets = SimpleNamespace(targets=two_channels(lesions, "complement"))
    monkeypatch.setattr(log.arrays, "published_arrays", lambda catalog, config: targets)
    table = log.measure_biases(nothing_measured.model_copy(update={"train_missing": True}))
    assert sorted(set(zip(table.order, table.orders, strict=True))) == [("by class", 1), ("mixed", 25)]
    first = table[table.epoch == 1].set_index("order")[["accuracy_low", "accuracy_high"]]
    assert first.loc["by class"].tolist() == [0, 0]
    assert first.loc["mixed"].tolist() == pytest.approx([0, 2 / 3], abs=1e-6)


def test_a_clipped_cross_entropy_cannot_reach_what_counts_as_an_explosion():
    p, target = 1e-7, 2
    assert int(-(target * np.log(p) + (1 - target) * np.log(1 - p))) == log.CLIPPED


def test_the_runs_are_the_printed_training(laptop):
    runs = find_group(laptop, "mechanisms/log").configs
    assert [run.seed for run in runs] == [0, 1, 2]
    expected = RunConfig(optimizer="adam", momentum=0.0, epochs=4, last_steps=426)
    assert [run.model_copy(update={"seed": 0}) for run in runs] == [expected] * 3


def test_the_section_writes_the_table(nothing_measured, write_measured, monkeypatch):
    monkeypatch.setattr(log, "load_results", lambda *arguments: train(EXPLODES, SETTLES))
    write_measured("mechanisms/log_biases", cover("mixed"))
    shown = log.show(nothing_measured)
    assert "printed log" in shown.conclusion
    assert results.read_table(nothing_measured, "printed_log").published_auc.tolist()[0] == 0.8847
