"""Each rung's scores by hand, the changes between rungs, and what is said of them."""

import numpy as np
import pandas as pd
import pytest

from busi.dataset.arrays import two_channels
from busi.mechanisms import ladder

TARGET = np.array([[1.0, 1.0], [0.0, 0.0]])


def test_the_scores_of_one_image_by_hand():
    probability = np.array([[0.9, 0.3], [0.6, 0.1]])
    found = ladder.per_image(two_channels(TARGET, "complement"), probability, 0.5)
    # Right: 0.9 and 0.1. Lesion ranks: 0.9 above both, 0.3 above one of 0.6 and 0.1. Both channels: positives 0.9, 0.3,
    # 0.4, 0.9 against 0.6, 0.1, 0.1, 0.7: 4 + 2 + 2 + 4 of 16 pairs.
    assert found == pytest.approx({"accuracy": 0.5, "auc": 12 / 16, "lesion_auc": 3 / 4, "dice": 0.5})


def test_nothing_predicted_is_the_floor():
    found = ladder.per_image(two_channels(TARGET, "complement"), np.zeros((2, 2)), 0.5)
    assert found == {"accuracy": 0.5, "auc": 0.5, "lesion_auc": 0.5, "dice": 0.0}
    quarter = ladder.per_image(two_channels(TARGET * [1, 0], "complement"), np.zeros((2, 2)), 0.5)
    assert quarter == {"accuracy": 0.75, "auc": 0.75, "lesion_auc": 0.5, "dice": 0.0}


def test_the_threshold_decides_and_an_empty_target_has_no_dice():
    probability = np.array([[0.9, 0.3], [0.2, 0.1]])
    targets = two_channels(TARGET, "complement")
    assert ladder.per_image(targets, probability, 0.3)["dice"] == 1
    empty = ladder.per_image(two_channels(np.zeros((2, 2)), "complement"), probability, 0.5)
    assert np.isnan(empty["dice"])
    assert np.isnan(empty["lesion_auc"])
    assert empty["accuracy"] == 0.75


def test_a_mirrored_soft_pixel_is_never_lesion_and_always_positive():
    # 0.8 mirrored is 1.8 in the second channel: categorical accuracy counts it as background, the AUC in both.
    soft = np.array([[1.0, 0.8], [0.0, 0.0]])
    mirror = ladder.per_image(two_channels(soft, "mirror"), np.array([[0.9, 0.9], [0.1, 0.1]]), 0.5)
    complement = ladder.per_image(two_channels(soft, "complement"), np.array([[0.9, 0.9], [0.1, 0.1]]), 0.5)
    assert (mirror["accuracy"], complement["accuracy"]) == (0.75, 1.0)


def rows() -> pd.DataFrame:
    """Twenty images a rung: Dice rises by 0.2 on the same ones, others score 0.1 less; the last has not been run."""
    names, floor = [f"i{n}" for n in range(20)], {"floor_accuracy": 0.9, "floor_auc": 0.9, "floor_dice": 0.0}
    base = pd.DataFrame({"name": names, "group": range(20), "accuracy": 0.9, "auc": 0.8, "lesion_auc": 0.7})
    base = base.assign(dice=np.tile([0.3, 0.5], 10), **floor)
    other = base.assign(name=[f"o{n}" for n in range(20)], group=range(100, 120))
    return pd.concat(
        [
            base.assign(rung="rebuilt"),
            base.assign(rung="settings that learn", dice=base.dice + 0.2, accuracy=0.92),
            other.assign(rung="complement, not mirror", dice=other.dice + 0.1),
            base.drop(columns=["accuracy", "auc", "dice"]).assign(rung="all masks, not the first"),
        ]
    )


def test_the_table_has_each_steps_change():
    found = ladder.table(rows()).set_index("rung")
    assert found.dice.tolist()[:3] == pytest.approx([0.4, 0.6, 0.5])
    learn = found.loc["settings that learn"]
    assert [learn.dice_change, learn.dice_low, learn.dice_high] == pytest.approx([0.2, 0.2, 0.2])
    assert learn.accuracy_change == pytest.approx(0.02)
    other = found.loc["complement, not mirror"]
    assert other.dice_change == pytest.approx(-0.1)
    assert other.dice_low < other.dice_change < other.dice_high  # other images: no longer pair by pair
    assert found.loc["all masks, not the first", ["dice", "dice_change"]].isna().all()
    assert found.floor_accuracy.tolist() == pytest.approx([0.9] * 4)
    assert pd.isna(found.dice_change["rebuilt"])


def test_the_conclusion_names_the_steps_beyond_chance_and_those_not_run():
    text = ladder.conclusion(ladder.table(rows()), {"accuracy": 0.9251, "auc": 0.9728})
    assert text.startswith(
        "From accuracy 0.9251 and AUC 0.9728 as published, and 0.9000, 0.8000 and Dice 0.400 rebuilt"
    )
    assert "the ladder ends at 0.9000, 0.8000 and 0.500 (complement, not mirror)" in text
    assert "the steps that change Dice beyond chance: settings that learn +0.200" in text
    assert text.endswith(
        "not run yet: all masks, not the first; aligned, not squeezed; validation, not training; held-out; grouped."
    )
    empty = rows().drop(columns=["accuracy", "auc", "dice"])
    assert ladder.conclusion(ladder.table(empty), {}) == "No rung of the ladder has been run yet."
