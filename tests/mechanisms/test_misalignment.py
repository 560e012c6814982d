"""What the squeezed target costs, on masks drawn by hand."""

import numpy as np
import pandas as pd
import pytest

from busi.config import RunConfig
from busi.mechanisms import misalignment


def test_a_lesion_beside_the_middle_is_in_the_target_but_not_in_what_the_output_sees():
    # 236 pixels, of which the output sees 92 to 144; each output pixel of the squeezed target stands for 236 / 52.
    inside = np.zeros((236, 236), bool)
    inside[:59, :59] = True  # a quarter of the side: 13 of 52 pixels once squeezed
    squeezed, aligned, whole = misalignment.targets(inside, RunConfig(image_size=236))
    assert squeezed.shape == aligned.shape == (52, 52)
    assert squeezed.sum() == 13 * 13
    assert aligned.sum() == 0
    assert whole.sum() == 59 * 59
    found = misalignment.overlap(squeezed, aligned)
    assert found == pytest.approx({"dice": 0, "accuracy": 1 - 169 / 2704, "background": 1 - 169 / 2704})


def test_a_perfect_segmenter_scores_worse_than_the_background_on_a_lesion_that_fills_the_output():
    # 40 % of the side, centred: 94 pixels, more than the 52 that the output sees; squeezed, 21 of 52 at most.
    inside = np.zeros((236, 236), bool)
    inside[71:165, 71:165] = True
    squeezed, aligned, _ = misalignment.targets(inside, RunConfig(image_size=236))
    assert aligned.all()
    found = misalignment.overlap(squeezed, aligned)
    share = squeezed.mean()
    assert share == pytest.approx((94 / 236) ** 2, abs=0.02)
    assert found == pytest.approx({"dice": 2 * share / (share + 1), "accuracy": share, "background": 1 - share})


def test_overlap_by_hand():
    squeezed = np.array([[True, True], [False, False]])
    aligned = np.array([[True, False], [True, False]])
    assert misalignment.overlap(squeezed, aligned) == {"dice": 0.5, "accuracy": 0.5, "background": 0.5}


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
    found = misalignment.table(rows()).set_index("images")
    assert list(found.index) == ["all", "benign", "malignant"]
    assert found.loc["all", ["n_images", "dice", "accuracy", "background", "outside"]].tolist() == pytest.approx(
        [3, 0.2, 0.8, 0.9, 0.7]
    )
    assert found.unseen.tolist() == pytest.approx([1 / 3, 1 / 2, 0])


def test_the_conclusion_says_which_of_the_two_is_worse_and_what_training_makes_of_it(make_heldout):
    table = misalignment.table(rows())
    assert "reach accuracy 0.8000 under the published target, worse than 0.9000" in misalignment.conclusion(table, {})
    better = table.assign(accuracy=0.97)
    assert "accuracy 0.9700 under the published target, better than 0.9000" in misalignment.conclusion(better, {})
    assert misalignment.conclusion(table, {"aligned": []}).endswith("has not been trained yet.")
    runs = {
        "squeezed": [make_heldout({"a": (0, 0.1), "b": (1, 0.3)}, target="squeezed")],
        "aligned": [make_heldout({"a": (0, 0.5), "b": (1, 0.7)})],
    }
    assert "the held-out Dice changes by +0.400 (+0.400 to +0.400)" in misalignment.conclusion(table, runs)
