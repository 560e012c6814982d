"""Live training takes the steps of a run."""

import pytest

from busi.config import RunConfig
from busi.lab import live
from busi.runs import Store
from busi.training import train


def test_live_training_equals_a_run(laboratory, tmp_path):
    config = RunConfig(
        protocol="heldout", image_size=32, base_filters=2, epochs=3, batch_size=4, preprocessing="augment", patience=0
    )
    store = Store(tmp_path / "runs", laboratory.catalog.fingerprint)
    history = train(config, laboratory.catalog, store).history
    rows = list(live.training(config, laboratory.catalog))
    steps = len(rows) // 3
    assert steps > 1
    assert [row["step"] for row in rows] == list(range(1, 3 * steps + 1))
    ends = rows[steps - 1 :: steps]
    assert [row["epoch"] for row in ends] == [1, 2, 3]
    assert sum("validation_dice" in row for row in rows) == 3
    assert [row["validation_dice"] for row in ends] == pytest.approx(history.validation_dice, rel=1e-5)
    losses = [row["loss"] for row in rows]
    means = [sum(losses[start : start + steps]) / steps for start in range(0, len(losses), steps)]
    assert means == pytest.approx(history.loss, rel=1e-5)
