"""What the squeezed target costs, on masks drawn by hand."""

import re

import numpy as np
import pandas as pd
import pytest
from small_study import numbers

from busi import display, results
from busi.config import RunConfig
from busi.dataset.arrays import two_channels
from busi.mechanisms import misalignment, section


def test_a_lesion_beside_the_middle_is_in_the_target_but_not_in_what_the_output_covers():
    # 236 pixels, of which the output covers 92 to 144; each output pixel of the squeezed target stands for 236 / 52.
    inside = np.zeros((236, 236), bool)
    inside[:59, :59] = True  # a quarter of the side: 13 of 52 pixels once squeezed
    squeezed, aligned, whole = misalignment.make_targets(inside, RunConfig(image_size=236))
    assert squeezed.shape == aligned.shape == (52, 52)
    assert squeezed.sum() == 13 * 13
    assert aligned.sum() == 0
    assert whole.sum() == 59 * 59
    scores = misalignment.compare_targets(squeezed, aligned)
    assert scores == pytest.approx({"dice": 0, "accuracy": 1 - 169 / 2704, "background": 1 - 169 / 2704})


def test_a_perfect_segmenter_scores_worse_than_the_background_on_a_lesion_that_fills_the_output():
    # 40 % of the side, centred: 94 pixels, more than the 52 that the output covers; squeezed, 21 of 52 at most.
    inside = np.zeros((236, 236), bool)
    inside[71:165, 71:165] = True
    squeezed, aligned, _ = misalignment.make_targets(inside, RunConfig(image_size=236))
    assert aligned.all()
    scores = misalignment.compare_targets(squeezed, aligned)
    share = squeezed.mean()
    assert share == pytest.approx((94 / 236) ** 2, abs=0.02)
    assert scores == pytest.approx({"dice": 2 * share / (share + 1), "accuracy": share, "background": 1 - share})


def test_the_scores_by_hand():
    squeezed = np.array([[True, True], [False, False]])
    aligned = np.array([[True, False], [True, False]])
    assert misalignment.compare_targets(squeezed, aligned) == {"dice": 0.5, "accuracy": 0.5, "background": 0.5}


def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_class": ["benign", "benign", "malignant"],
            "name": ["a", "b", "c"],
            "group": [0, 1, 2],
            "dice": [0.0, 0.2, 0.4],
            "accuracy": [0.9, 0.8, 0.7],
            "background": [0.95, 0.9, 0.85],
            "outside": [1.0, 0.5, 0.6],
        }
    )


def test_the_table_has_the_means_by_class():
    table = misalignment.tabulate(rows()).set_index("images")
    assert list(table.index) == ["all", "benign", "malignant"]
    assert table.loc["all", ["n_images", "dice", "accuracy", "background", "outside"]].tolist() == pytest.approx(
        [3, 0.2, 0.8, 0.9, 0.7]
    )


def test_an_empty_target_has_no_dice_and_counts_in_everything_else():
    empty = np.zeros((2, 2), bool)
    assert np.isnan(misalignment.compare_targets(empty, ~empty)["dice"])
    images = pd.concat([rows(), rows()[:1].assign(name="d", dice=np.nan, accuracy=0.4)])
    table = misalignment.tabulate(images).set_index("images")
    assert table.loc["all", ["n_images", "n_dice", "dice", "accuracy"]].tolist() == pytest.approx([4, 3, 0.2, 0.7])


@pytest.fixture
def answered(monkeypatch):
    """Makes a run that sees three images of four pixels, with its answers for the validation and the test part."""
    lesions = {"a": [1, 1, 0, 0], "b": [1, 0, 0, 0], "c": [0, 0, 0, 0]}
    answers = {
        "validation": {"a": [0.4, 0.3, 0.2, 0.1]},
        "test": {"a": [0.4, 0.2, 0.2, 0.1], "b": [0.9, 0.8, 0.2, 0.1], "c": [0.9, 0.1, 0.1, 0.1]},
    }

    def pair(run, part, catalog, target):
        assert target == "aligned"
        for name, probability in answers[part].items():
            yield name, two_channels(np.array(lesions[name]), "complement"), np.array(probability)

    monkeypatch.setattr(section, "pair_answers", pair)


def test_networks_are_scored_on_what_they_see_at_a_threshold_chosen_there(answered):
    """The smallest threshold that marks the two lesion pixels of the validation image alone is 0.21."""
    table = misalignment.score_crop(None, None).set_index("name")
    assert table.dice.tolist() == pytest.approx([2 / 3, 2 / 3, np.nan], nan_ok=True)
    assert table.marked.tolist() == [0.25, 0.5, 0.25]
    assert table.everywhere.tolist() == pytest.approx([2 / 3, 2 / 5, np.nan], nan_ok=True)


def scores() -> pd.DataFrame:
    """Return two images seen by two networks trained on either target."""
    rows = []
    for variant, marked, dice in (("squeezed", 0.9, [0.1, 0.3]), ("aligned", 0.3, [0.5, 0.7])):
        for seed in (0, 1):
            for group, name in enumerate("ab"):
                rows.append((variant, 0, seed, name, group, dice[group], marked, 0.4))
    return pd.DataFrame(rows, columns=["variant", "fold", "seed", "name", "group", "dice", "marked", "everywhere"])


def test_the_conclusion_says_which_of_the_two_is_worse_and_what_training_makes_of_it():
    table = misalignment.tabulate(rows())
    sizes = RunConfig(image_size=300), RunConfig(image_size=236)
    text = misalignment.conclude(table, scores(), *sizes, "236 pixels, 2 seeds")
    perfect, squeezed, aligned, change = re.split("Trained on the squeezed|Trained on the aligned|Aligning", text)
    # Outputs of 116 and 52 pixels a side cover 15% of the one size, and 5% of the other one.
    dice = ["0.200", "0.000", "0.400", "3"]
    assert numbers(perfect) == ["300", "0.8000", "0.9000", "15", "70", *dice, "236", "52", "5", "2", "2"]
    assert "worse than 0.9000" in perfect
    # Pixels marked, Dice, and its difference from calling everything lesion.
    assert numbers(squeezed) == ["90", "0.200", "-0.200", "-0.300", "-0.100"]
    assert numbers(aligned) == ["30", "0.600", "+0.200", "+0.100", "+0.300"]
    assert numbers(change) == [*["+0.400"] * 3, "236", "2"]
    better = misalignment.conclude(table.assign(accuracy=0.97), scores(), *sizes, "")
    assert numbers(better)[1] == "0.9700" and "better than 0.9000" in better


def test_the_section_writes_both_tables(nothing_measured, write_measured, runs_of):
    write_measured("mechanisms/misalignment", rows())
    write_measured("mechanisms/misalignment_trained", scores())
    runs_of({"squeezed": [0, 1], "aligned": [0, 1]})
    shown = misalignment.show(nothing_measured)
    size = "64 pixels, 2 filters, at most 7 epochs, 2 seeds in one fold"
    assert shown.conclusion.endswith(f"Size of the networks: {size}.")
    written = results.read_table(nothing_measured, "mechanisms_misalignment_trained")
    assert written[["variant", "marked", "n_images"]].values.tolist() == [["squeezed", 0.9, 2], ["aligned", 0.3, 2]]


def test_bars_show_the_segmenter_and_the_background():
    table = pd.DataFrame({"images": ["all", "benign"], "accuracy": [0.8, 0.86], "background": [0.907, 0.93]})
    fig = misalignment.draw(table)
    segmenter, background = fig.axes[0].containers
    assert display.title(fig) == "A perfect segmenter has accuracy 0.800 to 0.860 under the squeezed target"
    assert [bar.get_height() for bar in segmenter] == [0.8, 0.86]
    assert [bar.get_height() for bar in background] == [0.907, 0.93]
