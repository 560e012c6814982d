"""Each rung's scores by hand, the changes between rungs, and what is said of them."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from busi import results
from busi.config import RunConfig
from busi.dataset.arrays import Arrays, two_channels
from busi.dataset.parts import Parts
from busi.dataset.preprocessing import Scaling
from busi.mechanisms import ladder
from busi.runs import Predictions
from busi.study import find_group

TARGET = np.array([[1.0, 1.0], [0.0, 0.0]])


def test_the_scores_of_one_image_by_hand():
    probability = np.array([[0.9, 0.3], [0.6, 0.1]])
    scores = ladder.score_against_target(two_channels(TARGET, "complement"), probability, 0.5)
    # Right: 0.9 and 0.1. Lesion ranks: 0.9 above both, 0.3 above one of 0.6 and 0.1. Both channels: positives 0.9, 0.3,
    # 0.4, 0.9 against 0.6, 0.1, 0.1, 0.7: 4 + 2 + 2 + 4 of 16 pairs.
    assert scores == pytest.approx({"accuracy": 0.5, "auc": 12 / 16, "lesion_auc": 3 / 4, "dice": 0.5})


def test_nothing_predicted_is_the_floor():
    scores = ladder.score_against_target(two_channels(TARGET, "complement"), np.zeros((2, 2)), 0.5)
    assert scores == {"accuracy": 0.5, "auc": 0.5, "lesion_auc": 0.5, "dice": 0.0}
    quarter = ladder.score_against_target(two_channels(TARGET * [1, 0], "complement"), np.zeros((2, 2)), 0.5)
    assert quarter == {"accuracy": 0.75, "auc": 0.75, "lesion_auc": 0.5, "dice": 0.0}


def test_the_threshold_decides_and_an_empty_target_has_no_dice():
    probability = np.array([[0.9, 0.3], [0.2, 0.1]])
    targets = two_channels(TARGET, "complement")
    assert ladder.score_against_target(targets, probability, 0.3)["dice"] == 1
    empty = ladder.score_against_target(two_channels(np.zeros((2, 2)), "complement"), probability, 0.5)
    assert np.isnan(empty["dice"])
    assert np.isnan(empty["lesion_auc"])
    assert empty["accuracy"] == 0.75


def test_a_mirrored_soft_pixel_is_never_lesion_and_always_positive():
    # 0.8 mirrored is 1.8 in the second channel: categorical accuracy counts it as background, the AUC in both.
    soft = np.array([[1.0, 0.8], [0.0, 0.0]])
    mirror = ladder.score_against_target(two_channels(soft, "mirror"), np.array([[0.9, 0.9], [0.1, 0.1]]), 0.5)
    complement = ladder.score_against_target(two_channels(soft, "complement"), np.array([[0.9, 0.9], [0.1, 0.1]]), 0.5)
    assert (mirror["accuracy"], complement["accuracy"]) == (0.75, 1.0)


@pytest.fixture
def three_images(monkeypatch) -> Arrays:
    """Makes two lesion images and a normal one the images of every part."""
    lesions = np.zeros((3, 2, 2))
    lesions[0, 0] = 1
    lesions[1, :, 1] = 1
    arrays = Arrays(np.array(["a", "b", "n"]), np.zeros((3, 2, 2, 1)), two_channels(lesions, "complement"))
    parts = Parts(arrays[:2], arrays[:2], arrays, Scaling())
    monkeypatch.setattr(ladder, "load_parts", lambda config, catalog: parts)
    return arrays


def test_predictions_are_scored_against_the_target_of_the_same_name(three_images):
    catalog = SimpleNamespace(lesions=pd.DataFrame({"name": ["a", "b"]}))
    answers = Predictions(three_images.names, three_images.targets[..., 0] * np.float32(0.8))
    run = SimpleNamespace(config=RunConfig(), threshold=0.7, predictions={"test": answers})
    in_order = ladder.score_part(run, "test", catalog)
    assert in_order.name.tolist() == ["a", "b"]  # the normal image is left out
    assert in_order.dice.tolist() == [1, 1]
    assert in_order.floor_dice.tolist() == [0, 0]
    assert in_order.floor_accuracy.tolist() == [0.5, 0.5]
    reverse = Predictions(answers.names[::-1], answers.probability[::-1])
    shuffled = ladder.score_part(SimpleNamespace(**vars(run) | {"predictions": {"test": reverse}}), "test", catalog)
    pd.testing.assert_frame_equal(shuffled[::-1].reset_index(drop=True), in_order)
    unsure = SimpleNamespace(**vars(run) | {"threshold": 0.9})
    assert ladder.score_part(unsure, "test", catalog).dice.tolist() == [0, 0]


def rows() -> pd.DataFrame:
    """Return twenty images for each of three rungs: Dice rises by 0.2 on the same images, others score 0.1 less."""
    names, floor = [f"i{n}" for n in range(20)], {"floor_accuracy": 0.9, "floor_auc": 0.9, "floor_dice": 0.0}
    base = pd.DataFrame({"name": names, "group": range(20), "accuracy": 0.9, "auc": 0.8, "lesion_auc": 0.7})
    base = base.assign(dice=np.tile([0.3, 0.5], 10), **floor)
    other = base.assign(name=[f"o{n}" for n in range(20)], group=range(100, 120))
    return pd.concat(
        [
            base.assign(rung="rebuilt"),
            base.assign(rung="settings that learn", dice=base.dice + 0.2, accuracy=0.92),
            other.assign(rung="complement, not mirror", dice=other.dice + 0.1),
        ]
    )


def test_the_table_has_the_change_of_each_step():
    table = ladder.tabulate(rows()).set_index("rung")
    assert table.dice.tolist() == pytest.approx([0.4, 0.6, 0.5])
    learn = table.loc["settings that learn"]
    assert [learn.dice_change, learn.dice_low, learn.dice_high] == pytest.approx([0.2, 0.2, 0.2])
    assert learn.accuracy_change == pytest.approx(0.02)
    other = table.loc["complement, not mirror"]
    assert other.dice_change == pytest.approx(-0.1)
    assert other.dice_low < other.dice_change < other.dice_high  # other images: no longer image by image
    assert table.floor_accuracy.tolist() == pytest.approx([0.9] * 3)
    assert pd.isna(table.dice_change["rebuilt"])


def test_a_rung_of_empty_targets_has_no_dice_and_no_change_of_it():
    images = rows()
    images.loc[images.rung == "settings that learn", "dice"] = np.nan
    table = ladder.tabulate(images).set_index("rung")
    assert table.loc["settings that learn", ["dice", "dice_change"]].isna().all()
    assert table.accuracy_change["settings that learn"] == pytest.approx(0.02)


def test_the_conclusion_names_the_steps_beyond_chance_and_those_not_run():
    text = ladder.conclude(ladder.tabulate(rows()))
    assert text.startswith(
        "From accuracy 0.9251 and AUC 0.9728 as published, and 0.9000, 0.8000 and Dice 0.400 rebuilt"
    )
    assert "the ladder ends at 0.9000, 0.8000 and 0.500 (complement, not mirror)" in text
    assert "where background everywhere has 0.9000, 0.9000 and 0.000;" in text
    assert "the steps that change Dice beyond chance: settings that learn +0.200" in text
    assert text.endswith(
        "not run yet: all masks, not the first; aligned, not squeezed; validation, not training; held-out; grouped."
    )
    flat = ladder.conclude(ladder.tabulate(rows().assign(dice=0.5)))
    assert "no step changes Dice beyond chance" in flat


def test_the_section_reads_what_was_measured_and_writes_its_table(nothing_measured, write_measured):
    write_measured("mechanisms/ladder", rows())
    shown = ladder.show(nothing_measured)
    assert "settings that learn +0.200" in shown.conclusion
    assert "188 pixels, 2 filters, 1 epoch." in shown.figure.data
    written = results.read_table(nothing_measured, "mechanisms_ladder")
    assert written.dice_change[1:].tolist() == pytest.approx([0.2, -0.1])


def test_each_bar_of_the_waterfall_begins_at_the_rung_before():
    table = pd.DataFrame({"rung": ["rebuilt", "learns", "aligned"]})
    scores = {"accuracy": [0.9, 0.95, np.nan], "auc": [0.9, 0.97, np.nan], "dice": [0.0, 0.5, np.nan]}
    for score, values in scores.items():
        change = np.array([np.nan, values[1] - values[0], np.nan])
        table[score], table[f"floor_{score}"] = values, 0.9
        table[f"{score}_change"], table[f"{score}_low"], table[f"{score}_high"] = change, change - 0.01, change + 0.02
    accuracy, _, dice = ladder.draw(table).axes
    bars = [(bar.get_y(), bar.get_height()) for bar in dice.patches]
    assert bars[1] == (0.0, 0.5)
    assert accuracy.lines[0].get_xydata().tolist() == [[0, 0.9251]]
    assert all(line.get_marker() != "*" for line in dice.lines)  # the paper gives no Dice
    assert [label.get_text() for label in dice.get_xticklabels()] == ["published", "rebuilt", "learns", "aligned"]


def test_each_rung_changes_one_thing(laptop):
    variants = find_group(laptop, "mechanisms/ladder").variants
    runs = [run for (run,) in variants.values()]
    protocol = {"protocol", "patience"}  # patience of the held-out runs is set to the published 0
    changed = []
    for before, after in pairwise(runs):
        different = {name for name in after.model_dump() if getattr(after, name) != getattr(before, name)}
        changed.append(different - protocol)
    assert changed[0] == {"optimizer", "momentum", "learning_rate", "preprocessing", "batch_size", "shuffle"}
    assert changed[1:] == [{"second_channel"}, {"masks"}, {"target"}, {"split"}, {"split"}]
    assert {variant for variant, _ in ladder.RUNGS.values()} == set(variants)
