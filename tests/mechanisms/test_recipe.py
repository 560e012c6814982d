"""The recipe's table, title and sentence, from predictions of a few pixels whose scores are worked out by hand."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_study import numbers

from busi import display
from busi.config import RunConfig
from busi.mechanisms import recipe
from busi.results import empty_results
from busi.scoring import metrics

TRUTH = np.zeros((10, 10), dtype=bool)
TRUTH[:2] = True


def mark(pixels):
    """Return probabilities that mark the first pixels, of which the first 20 are the lesion."""
    return np.where(np.arange(100) < pixels, 0.9, 0.1).reshape(10, 10)


def predict(rungs):
    """Make results of two folds, each with two lesion images and two normal ones; the last rung has 128 pixels.

    Args:
        rungs: Name -> pixels marked in each lesion image, and in the second of the normal ones.
    """
    runs = []
    images = []
    for rung, (lesion, normal) in rungs.items():
        for fold in (0, 1):
            head = {"variant": rung, "run": f"{rung} {fold}", "fold": fold, "seed": fold}
            runs.append(head | {"validation_dice": 0.5 + fold / 10, "parameters": 1234})
            runs[-1] |= {"epochs": 10, "images": 4, "seconds": 2.0 + fold}
            size = 128 if rung == list(rungs)[-1] else 64
            runs[-1]["config"] = RunConfig(protocol="heldout", image_size=size).model_dump_json()
            for number in (1, 2):
                for image_class, truth, marked in (("benign", TRUTH, lesion), ("normal", TRUTH & False, normal)):
                    probability = mark(marked if image_class == "benign" or number == 2 else 0)
                    name = f"{image_class} ({2 * fold + number})"
                    row = {"image_class": image_class, "name": name, "group": hash(name), "lesion_share": truth.mean()}
                    images.append(head | row | metrics.score_image(truth, probability, 0.5))
    return replace(empty_results(), runs=pd.DataFrame(runs), images=pd.DataFrame(images))


RUNGS = {"baseline": (10, 3), "loss": (15, 3), "normals": (15, 0)}


@pytest.fixture
def table():
    return recipe.tabulate(predict(RUNGS))


def test_each_rung_is_compared_with_the_one_before_on_the_same_images(table):
    """Of 20 lesion pixels 10 are marked, then 15: Dice 20 / 30, then 30 / 35."""
    assert table.dice.tolist() == pytest.approx([20 / 30, 30 / 35, 30 / 35])
    assert table.change.tolist() == pytest.approx([np.nan, 30 / 35 - 20 / 30, 0], nan_ok=True)
    assert table.total.tolist() == pytest.approx([np.nan, 30 / 35 - 20 / 30, 30 / 35 - 20 / 30], nan_ok=True)
    # All images change by the same, so that the intervals have no width.
    assert table.change_low.tolist() == pytest.approx(table.change.tolist(), nan_ok=True)
    assert table.change_high.tolist() == pytest.approx(table.change.tolist(), nan_ok=True)
    assert (table.n_runs.tolist(), table.n_images.tolist()) == ([2, 2, 2], [4, 4, 4])


def test_a_rung_counts_once_it_is_trained_in_all_its_folds():
    """Fewer folds would be other images, and what follows a gap would be the change of two rungs."""
    planned = {rung: [RunConfig(protocol="heldout", image_size=64, fold=fold) for fold in (0, 1)] for rung in RUNGS}
    trained = predict(RUNGS)
    assert recipe.take_whole_rungs(trained, planned).variants == ["baseline", "loss", "normals"]
    for rung, whole in (("normals", ["baseline", "loss"]), ("loss", ["baseline"]), ("baseline", [])):
        lacking = trained.runs.index[trained.runs.run != f"{rung} 1"]
        kept = recipe.take_whole_rungs(trained.in_order(lacking), planned)
        assert kept.variants == whole
        assert kept.images.variant.unique().tolist() == whole


def test_the_sizes_told_are_those_of_the_first_and_the_last_rung():
    rest = "64 filters, at most 75 epochs, 1 seed in each of 2 folds"
    assert recipe.describe_ends(predict(RUNGS)) == (
        f"first rung, baseline: 64 pixels, {rest}; last rung, normals: 128 pixels, {rest}"
    )


def test_a_change_is_told_from_chance_by_its_corrected_p_not_by_its_interval(table):
    """Of two intervals that exclude zero, Holm's correction leaves one."""
    table = table.assign(change_low=[np.nan, 0.1, 0.001], change_p=[np.nan, 0.01, 0.06])
    assert recipe.find_effects(table).rung.tolist() == ["loss"]
    # The two changes' own p values are 0, of a change without error, and 1, of no change: corrected they stay so.
    assert recipe.tabulate(predict(RUNGS)).change_p.tolist() == pytest.approx([np.nan, 0, 1], nan_ok=True)


def test_normals_validation_and_training_time_are_told_beside_dice(table):
    assert (
        table.normals_fpr.tolist() == table.normals_fpr_min.tolist() == table.normals_fpr_max.tolist() == [0.5, 0.5, 0]
    )
    # Two of four normal images reach the 0.9 that every lesion has; in the last rung none does.
    assert table.normals_at_95.tolist() == [0.5, 0.5, 0]
    assert table.normals_at_95_min.tolist() == table.normals_at_95_max.tolist() == [0.5, 0.5, 0]
    assert table.validation_dice.tolist() == pytest.approx([0.55] * 3)
    # Five seconds for two runs of ten epochs with four images each.
    assert table.milliseconds.tolist() == pytest.approx([62.5] * 3)


def test_title_and_sentence_follow_the_numbers(table):
    table = table.replace({"rung": {"normals": recipe.GOAL_RUNG}})
    assert display.title(recipe.draw(table)) == "1 of 2 changes moves Dice beyond chance"
    text = recipe.conclude(table, "64 pixels", planned=3)
    changes, normals = text.split("Normal images")
    gain = ["+0.190"] * 3
    none = ["+0.000"] * 3
    assert numbers(changes) == ["2", "1", *gain, "16", *none, "1.000", "0.667", "0.857", *gain, "0.857"]
    assert "1 is told from chance: loss, +0.190" in changes
    assert f"The largest of the others: {recipe.GOAL_RUNG}, " in changes
    # Normal images with a finding at each network's own threshold, and where 95% of the lesions are touched.
    shares = ["50"] * 3 + ["0"] * 3
    assert numbers(normals) == [*shares, "95", *shares, "0.75", "0.72", "35", "0.05", "64"]
    assert re.findall("reached|missed", normals) == ["reached", "reached"]
    lower = recipe.conclude(table.assign(dice=[0.667, 0.857, 0.8]), "", 3)
    assert "to 0.800" in lower and "the rung loss has 0.857, the highest before the last" in lower
    # The stricter test may tell all, some or none of them.
    told = table.assign(change_p=[np.nan, 0.01, 0.02])
    for p_t, expected in (([np.nan, 0, 0], ["", ""]), ([np.nan, 0, 0.2], ["", "not "])):
        text = recipe.conclude(told.assign(change_p_t=p_t), "", 3)
        assert re.findall(r"\((not )?confirmed by the corrected resampled t test\)", text) == expected
        assert "2 are told from chance" in text and "The largest" not in text
    flat = recipe.tabulate(predict({"baseline": (10, 3), "loss": (10, 3)}))
    assert display.title(recipe.draw(flat)) == "None of 1 change move Dice beyond chance"
    assert recipe.conclude(flat, "", 2).startswith("Of 1 change, none can be told from chance.")
    # The goals were set for one rung; another one does not inherit them, even if it is the last.
    assert "Goals" not in recipe.conclude(flat, "", 2)
    assert "first 1 of 12 planned changes" in recipe.conclude(flat, "", 13)


@pytest.mark.parametrize(
    ("dice", "low", "normals_fpr", "expected"),
    [
        (0.75, 0.7201, 0.349, ["reached", "reached"]),
        (0.76, 0.72, 0.35, ["missed", "missed"]),  # a finding in exactly 35 % is not fewer
        (0.749, 0.73, 0.1, ["missed", "reached"]),
    ],
)
def test_a_goal_is_reached_by_the_score_and_its_interval(dice, low, normals_fpr, expected):
    told = recipe.judge_goals(pd.Series({"dice": dice, "dice_low": low, "normals_fpr": normals_fpr}))
    assert re.findall("reached|missed", told) == expected


def test_the_figure_shows_a_bar_for_each_rung(table):
    fig = recipe.draw(table)
    dice, normals = fig.axes
    assert [bar.get_width() for bar in dice.patches] == pytest.approx([0, 30 / 35 - 20 / 30, 0])
    assert normals.lines[0].get_xdata().tolist() == [0.5, 0.5, 0]
    assert [text.get_text() for text in dice.texts] == ["baseline", "loss", "normals"]
    bottom, top = dice.get_ylim()
    assert bottom > top  # the first rung is on top
