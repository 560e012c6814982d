"""Each rung's scores by hand, the changes between rungs, and what is said of them."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from busi import results
from busi.dataset.arrays import two_channels
from busi.mechanisms import ladder, section
from busi.mechanisms.ladder import Rung
from busi.study import find_group

TARGET = np.array([[1.0, 1.0], [0.0, 0.0]])


def test_the_scores_of_one_image_by_hand():
    probability = np.array([[0.9, 0.3], [0.6, 0.1]])
    scores = ladder.score_image(two_channels(TARGET, "complement"), probability, 0.5)
    # Right: 0.9 and 0.1. Both channels: positives 0.9, 0.3, 0.4, 0.9 against 0.6, 0.1, 0.1, 0.7: 4 + 2 + 2 + 4 of 16.
    assert scores == pytest.approx({"accuracy": 0.5, "auc": 12 / 16, "dice": 0.5})


def test_nothing_predicted_is_the_floor():
    scores = ladder.score_image(two_channels(TARGET, "complement"), np.zeros((2, 2)), 0.5)
    assert scores == {"accuracy": 0.5, "auc": 0.5, "dice": 0.0}
    quarter = ladder.score_image(two_channels(TARGET * [1, 0], "complement"), np.zeros((2, 2)), 0.5)
    assert quarter == {"accuracy": 0.75, "auc": 0.75, "dice": 0.0}


def test_dice_of_lesion_everywhere_is_that_of_the_images_that_have_a_dice():
    rows = []
    # Lesion in a half, a quarter and none of the pixels.
    for name, target in {"half": TARGET, "quarter": TARGET * [1, 0], "none": TARGET * 0}.items():
        channels = two_channels(target, "complement")
        floors = {f"floor_{score}": value for score, value in ladder.score_image(channels, TARGET * 0, 0.5).items()}
        rows.append({"rung": "rebuilt", "seed": 0, "name": name} | ladder.score_image(channels, TARGET, 0.5) | floors)
    row = ladder.tabulate(pd.DataFrame(rows)).iloc[0]
    everywhere = [
        ladder.score_image(two_channels(target, "complement"), np.ones((2, 2)), 0.5)["dice"]
        for target in (TARGET, TARGET * [1, 0])
    ]
    assert row.dice_everywhere == pytest.approx(np.mean(everywhere))
    assert (row.n_images, row.n_dice) == (3, 2)


def test_the_threshold_decides_and_an_empty_target_has_no_dice():
    probability = np.array([[0.9, 0.3], [0.2, 0.1]])
    targets = two_channels(TARGET, "complement")
    assert ladder.score_image(targets, probability, 0.3)["dice"] == 1
    empty = ladder.score_image(two_channels(np.zeros((2, 2)), "complement"), probability, 0.5)
    assert np.isnan(empty["dice"])
    assert empty["accuracy"] == 0.75


def test_a_mirrored_soft_pixel_is_never_lesion_and_always_positive():
    # 0.8 mirrored is 1.8 in the second channel: categorical accuracy counts it as background, the AUC in both.
    soft = np.array([[1.0, 0.8], [0.0, 0.0]])
    mirror = ladder.score_image(two_channels(soft, "mirror"), np.array([[0.9, 0.9], [0.1, 0.1]]), 0.5)
    complement = ladder.score_image(two_channels(soft, "complement"), np.array([[0.9, 0.9], [0.1, 0.1]]), 0.5)
    assert (mirror["accuracy"], complement["accuracy"]) == (0.75, 1.0)


def test_a_rung_decides_about_part_target_and_threshold(monkeypatch):
    answer = np.array([[0.6, 0.3], [0.1, 0.1]])
    targets = {"squeezed": TARGET, "aligned": TARGET * [1, 0]}

    def pair(run, part, catalog, target):
        assert part == "validation"
        yield "a", two_channels(targets[target], "complement"), answer

    monkeypatch.setattr(section, "pair_answers", pair)
    # Chosen on whole images: what counts is what the output covers, where 0.3 separates lesion and background.
    run = SimpleNamespace(threshold=0.05)
    squeezed = Rung("any", "validation", "squeezed")
    scores = {
        "at one half": ladder.score_rung(squeezed, run, None),
        "chosen": ladder.score_rung(squeezed._replace(chosen=True), run, None),
        "aligned": ladder.score_rung(squeezed._replace(target="aligned"), run, None),
    }
    assert {name: table.dice[0] for name, table in scores.items()} == pytest.approx(
        {"at one half": 2 / 3, "chosen": 1, "aligned": 1}
    )
    assert [table.floor_accuracy[0] for table in scores.values()] == [0.5, 0.5, 0.75]
    assert [table.floor_dice[0] for table in scores.values()] == [0, 0, 0]


FIRST, SECOND, THIRD = list(ladder.RUNGS)[:3]


def rows() -> pd.DataFrame:
    """Return 20 images, two seeds, three rungs: Dice rises by 0.2 on the same images, others score 0.1 less."""
    names, floor = [f"i{n}" for n in range(20)], {"floor_accuracy": 0.9, "floor_auc": 0.9, "floor_dice": 0.0}
    base = pd.DataFrame({"name": names, "group": range(20), "accuracy": 0.9, "auc": 0.8})
    base = base.assign(dice=np.tile([0.3, 0.5], 10), **floor)
    other = base.assign(name=[f"o{n}" for n in range(20)], group=range(100, 120))
    rungs = [
        base.assign(rung=FIRST),
        base.assign(rung=SECOND, dice=base.dice + 0.2, accuracy=0.92),
        other.assign(rung=THIRD, dice=other.dice + 0.1),
    ]
    return pd.concat([rung.assign(fold=0, seed=seed) for rung in rungs for seed in (0, 1)])


def test_the_table_has_the_change_of_each_step():
    table = ladder.tabulate(rows()).set_index("rung")
    assert table.dice.tolist() == pytest.approx([0.4, 0.6, 0.5])
    assert table[["n_runs", "n_images"]].values.tolist() == [[2, 20]] * 3
    learn = table.loc[SECOND]
    assert [learn.dice_change, learn.dice_low, learn.dice_high] == pytest.approx([0.2, 0.2, 0.2])
    assert learn.accuracy_change == pytest.approx(0.02)
    other = table.loc[THIRD]
    assert other.dice_change == pytest.approx(-0.1)
    assert other.dice_low < other.dice_change < other.dice_high  # other images: no longer image by image
    assert table.floor_accuracy.tolist() == pytest.approx([0.9] * 3)
    assert pd.isna(table.dice_change[FIRST])


def test_a_rung_on_fewer_images_is_compared_with_the_rung_before_on_these():
    """All images together would differ by 0.1, because those that are left have the lower scores."""
    images = rows()
    is_low = (images.dice == images.dice.groupby(images.rung).transform("min")) & (images.rung == FIRST)
    low = images[is_low]
    table = ladder.tabulate(pd.concat([images[images.rung == FIRST], low.assign(rung=SECOND)])).set_index("rung")
    assert table.dice.tolist() == pytest.approx([0.4, 0.3])
    assert table.n_images.tolist() == [20, 10]
    change = table.loc[SECOND, ["dice_change", "dice_low", "dice_high"]].tolist()
    assert change == pytest.approx([0, 0, 0], abs=1e-12)


def test_a_step_whose_seeds_disagree_is_not_beyond_chance():
    images = rows()
    # The step of the first seed is 0.5, that of the second -0.1: 0.2 in the mean, on every image.
    images.loc[images.rung == SECOND, "dice"] += np.where(images.seed[images.rung == SECOND] == 0, 0.3, -0.3)
    table = ladder.tabulate(images)
    step = table.loc[1]
    assert step.dice_change == pytest.approx(0.2)
    # Two seeds are one degree of freedom: their mean is hardly known.
    assert step.dice_low <= -0.1 and step.dice_high >= 0.5
    assert f"{SECOND} +0.2" not in ladder.conclude(table, "2 seeds")


def test_a_rung_of_empty_targets_has_no_dice_and_no_change_of_it():
    images = rows()
    images.loc[images.rung == SECOND, "dice"] = np.nan
    table = ladder.tabulate(images).set_index("rung")
    assert table.loc[SECOND, ["dice", "dice_change", "dice_everywhere"]].isna().all()
    assert table.n_dice[SECOND] == 0
    assert table.accuracy_change[SECOND] == pytest.approx(0.02)


def test_the_conclusion_names_the_steps_beyond_chance_and_those_not_run():
    text = ladder.conclude(ladder.tabulate(rows()), "64 pixels, 2 seeds")
    assert text.startswith(
        "The published row has accuracy 0.9251. Rebuilt at a small size, it has 0.9000, and Dice 0.400. The ladder "
        f"ends at accuracy 0.9000 ({THIRD}, 20 images; background everywhere: 0.9000) and Dice 0.500 (the 20 of them "
        "with lesion in the scored part; lesion everywhere: 0.182). "
    )
    # Both seeds of all images change by the same, so that the interval has no width.
    assert f"excludes 0: {SECOND} +0.200 (+0.200 to +0.200)" in text
    assert text.endswith(
        f"Of {len(ladder.RUNGS)} rungs {len(ladder.RUNGS) - 3} are not run yet. Size: 64 pixels, 2 seeds."
    )
    flat = ladder.conclude(ladder.tabulate(rows().assign(dice=0.5)), "")
    assert "excludes 0: none." in flat


def test_the_section_reads_what_was_measured_and_writes_its_table(nothing_measured, write_measured, runs_of):
    write_measured("mechanisms/ladder", rows())
    runs_of({"rebuilt": [0, 1], "Adam": [0, 1]})
    shown = ladder.show(nothing_measured)
    assert f"{SECOND} +0.200" in shown.conclusion
    assert "64 pixels, 2 filters, at most 7 epochs, 2 seeds in one fold." in shown.figure.data
    written = results.read_table(nothing_measured, "mechanisms_ladder")
    assert written.dice_change[1:].tolist() == pytest.approx([0.2, -0.1])


def test_each_bar_of_the_waterfall_begins_at_the_rung_before():
    table = pd.DataFrame({"rung": ["rebuilt", "learns", "aligned"]})
    scores = {"accuracy": [0.9, 0.95, np.nan], "auc": [0.9, 0.97, np.nan], "dice": [0.0, 0.5, np.nan]}
    for score, values in scores.items():
        change = np.array([np.nan, values[1] - values[0], np.nan])
        table[score], table[f"floor_{score}"] = values, 0.9
        table[f"{score}_change"], table[f"{score}_low"], table[f"{score}_high"] = change, change - 0.01, change + 0.02
    fig = ladder.draw(table)
    accuracy, _, dice = fig.axes
    # The third rung has no Dice, and those that hold images out have not been trained.
    assert fig.get_suptitle() == "3 rungs lead to Dice 0.500"
    bars = [(bar.get_y(), bar.get_height()) for bar in dice.patches]
    assert bars[1] == (0.0, 0.5)
    assert accuracy.lines[0].get_xydata().tolist() == [[0, 0.9251]]
    assert all(line.get_marker() != "*" for line in dice.lines)  # the paper gives no Dice
    assert [label.get_text() for label in dice.get_xticklabels()] == ["published", "rebuilt", "learns", "aligned"]


def test_each_rung_changes_one_thing(laptop):
    variants = find_group(laptop, "mechanisms/ladder").variants
    assert all([run.seed for run in runs] == [0, 1, 2] for runs in variants.values())
    # Adam has no momentum; the published protocol has no split, the held-out one no order of its own.
    together = {"momentum": "optimizer", "learning_rate": "optimizer", "protocol": "split", "order": "split"}
    changed = []
    for before, after in pairwise(ladder.RUNGS.values()):
        different = {name for name in Rung._fields if getattr(before, name) != getattr(after, name)} - {"variant"}
        trained = variants[before.variant][0].model_dump(), variants[after.variant][0].model_dump()
        for name in trained[0]:
            if trained[0][name] != trained[1][name]:
                different.add(together.get(name, name))
        changed.append(different)
    assert changed == [
        {"optimizer"},
        {"preprocessing"},
        {"batch_size"},
        {"shuffle"},
        {"second_channel"},
        {"masks"},
        {"target"},
        {"target"},
        {"split", "part"},
        {"chosen"},
        {"part"},
        {"split"},
    ]
    assert {rung.variant for rung in ladder.RUNGS.values()} == set(variants)
    # The network and what its answers are compared with do not change in the same step.
    own = [variants[rung.variant][0].target for rung in ladder.RUNGS.values()]
    asked = [rung.target for rung in ladder.RUNGS.values()]
    assert own == ["squeezed"] * 8 + ["aligned"] * 5
    assert asked == ["squeezed"] * 7 + ["aligned"] * 6
