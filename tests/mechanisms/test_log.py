"""The printed log beside trainings made by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd

from busi import results
from busi.config import RunConfig
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
    assert "(2 seeds), not always above 32, the bound for clipped probabilities" in text
    # All of epochs 2 (0.3068, 0.9083, 0.9064) and 3 (0.3069, 0.9083, 0.9057); of epoch 4 the accuracy alone, 0.9056.
    assert "7 of their 9 printed numbers lie within" in text
    assert "300 pixels, 64 filters, 4 epochs, float32" in text
    one = train(EXPLODES)
    # One seed is a point: only the accuracy of epoch 3 is equal.
    alone = conclude(one, cover("mixed"))
    assert "1 of their 9 printed numbers are the same here, to their last digit" in alone
    first = f"the first epoch has a mean loss of {one.epochs.loss.iloc[0]:.4g} (1 seed), above 32, the bound"
    assert first in alone
    assert "(1 seed), below 32, the bound" in conclude(train(SETTLES), cover("mixed"))


def test_two_biases_tell_the_order_where_mixed_ones_alone_cover_what_was_printed():
    trained = train(EXPLODES)
    text = conclude(trained, cover("mixed"))
    same = "in at least one of 25 mixed orders, not necessarily all in the same one, and"
    assert f"reach 9 of these 9 {same} 0 class by class: the images came mixed, and the " in text
    assert f"reach 0 of these 9 {same} 9 class by class. " in conclude(trained, cover("by class"))


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
