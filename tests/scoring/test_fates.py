"""Fates of published runs: each decided on small predictions worked by hand."""

import numpy as np
import pandas as pd
import pytest

from busi.scoring.fates import count_fates, measure_fate, score_mean_mask_dice

LESIONS = np.zeros((2, 1, 10))
LESIONS[:, 0, 0] = 1
CONSTANT = -(0.1 * np.log(0.1) + 0.9 * np.log(0.9))
"""Lowest cross-entropy of a constant where one pixel of ten is lesion."""


def predict(lesion, background, spread=0.0):
    probability = np.where(LESIONS == 1, lesion, background)
    probability[0, 0, -1] += spread
    return probability.astype(np.float32)


@pytest.mark.parametrize(
    "probability, end, fate",
    [
        (predict(0.9, 0.1), "planned", "learned"),
        # -0.1 ln 0.45 - 0.9 ln 0.95 = 0.126: far below 0.95 of a constant's 0.325, but nothing is marked at one half
        (predict(0.45, 0.05), "planned", "falling"),
        # -0.1 ln 0.12 - 0.9 ln 0.9 = 0.307, 0.944 of it, and -0.1 ln 0.11 - 0.9 ln 0.9 = 0.316, 0.971 of it
        (predict(0.12, 0.1), "planned", "falling"),
        (predict(0.11, 0.1), "planned", "plateau"),
        (predict(0.1, 0.1), "constant", "dead"),
        (predict(0.1, 0.1, spread=0.01), "planned", "plateau"),
        (predict(0.9, 0.9), "planned", "dead"),
        (predict(np.nan, np.nan), "diverged", "diverged"),
    ],
)
def test_the_fate_of_predictions_by_hand(probability, end, fate):
    assert measure_fate(LESIONS, probability, 0.5, CONSTANT, end)["fate"] == fate


def test_the_numbers_behind_a_fate_by_hand():
    measured = measure_fate(LESIONS, predict(0.8, 0.2), 0.3, CONSTANT, "planned")
    assert measured["crossentropy"] == pytest.approx(-np.log(0.8), abs=1e-6)
    assert (measured["dice"], measured["mask_dice"]) == (1.0, 0.3)


def test_accuracy_does_not_decide():
    """Background everywhere is right on nine pixels of ten, and one that marks half of a lesion on fewer."""
    nothing = measure_fate(LESIONS, predict(0.2, 0.1), 0.5, CONSTANT, "planned")
    probability = predict(0.9, 0.1)
    probability[:, 0, 1] = 0.9
    marks = measure_fate(LESIONS, probability, 0.5, CONSTANT, "planned")
    assert (nothing["fate"], marks["fate"]) == ("falling", "learned")
    assert marks["dice"] == pytest.approx(2 / 3)


def test_a_network_must_find_more_than_the_mean_mask():
    assert measure_fate(LESIONS, predict(0.9, 0.1), 1.0, CONSTANT, "planned")["fate"] == "falling"


def test_the_dice_of_the_mean_mask_by_hand():
    """Lesions of 1 and 2 pixels that share one: both pixels score (2/3 + 1) / 2, the shared one (1 + 2/3) / 2."""
    lesions = np.array([[[1.0, 0, 0]], [[1.0, 1, 0]]])
    assert score_mean_mask_dice(lesions) == pytest.approx(5 / 6)


def test_fates_are_counted_best_first():
    assert count_fates(pd.Series(["plateau", "learned", "learned"])) == "2 learned, 1 plateau"
    assert count_fates(pd.Series([], dtype=object)) == ""
