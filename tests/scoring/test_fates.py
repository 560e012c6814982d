"""Fates of published runs: each decided on small predictions worked by hand."""

import numpy as np
import pandas as pd
import pytest

from busi.scoring.fates import count_fates, measure_fate, score_mean_mask_dice

LESIONS = np.zeros((2, 1, 10))
LESIONS[:, 0, 0] = 1


def predict(lesion, background, spread=0.0):
    probability = np.where(LESIONS == 1, lesion, background)
    probability[0, 0, -1] += spread
    return probability.astype(np.float32)


@pytest.mark.parametrize(
    "probability, loss, end, fate",
    [
        (predict(0.9, 0.1), 0.5, "planned", "learned"),
        (predict(0.45, 0.05), 0.5, "planned", "falling"),  # nothing is marked at one half
        (predict(0.45, 0.05), 0.94, "planned", "falling"),
        (predict(0.45, 0.05), 0.96, "planned", "plateau"),
        (predict(0.1, 0.1), 0.99, "constant", "dead"),
        (predict(0.1, 0.1, spread=0.01), 0.99, "planned", "plateau"),
        (predict(0.9, 0.9), 3.0, "planned", "dead"),
        (predict(np.nan, np.nan), np.nan, "diverged", "diverged"),
    ],
)
def test_the_fate_of_predictions_by_hand(probability, loss, end, fate):
    assert measure_fate(LESIONS, probability, 0.5, loss, end)["fate"] == fate


def test_the_numbers_behind_a_fate_by_hand():
    measured = measure_fate(LESIONS, predict(0.8, 0.2), 0.3, 0.7, "planned")
    assert measured["crossentropy"] == pytest.approx(-np.log(0.8), abs=1e-6)
    assert (measured["relative_loss"], measured["dice"], measured["mask_dice"]) == (0.7, 1.0, 0.3)


def test_neither_accuracy_nor_a_certain_mistake_decides():
    """Background everywhere is as accurate as lesions marked twice too large; certainty costs it cross-entropy."""
    certain = measure_fate(LESIONS, predict(1e-5, 1e-6), 0.5, 0.8, "planned")
    # -0.1 ln 1e-5, where the best constant has -0.1 ln 0.1 - 0.9 ln 0.9 = 0.325
    assert certain["crossentropy"] == pytest.approx(1.1513, abs=1e-4)
    probability = predict(0.9, 0.1)
    probability[:, 0, 1] = 0.9
    marks = measure_fate(LESIONS, probability, 0.5, 0.8, "planned")
    assert marks["dice"] == pytest.approx(2 / 3)
    # Both are right on nine pixels of ten.
    assert (certain["fate"], marks["fate"]) == ("falling", "learned")


def test_a_network_must_find_more_than_the_mean_mask():
    assert measure_fate(LESIONS, predict(0.9, 0.1), 1.0, 0.5, "planned")["fate"] == "falling"


def test_the_dice_of_the_mean_mask_by_hand():
    """Lesions of 1 and 2 pixels that share one: both pixels score (2/3 + 1) / 2, the shared one (1 + 2/3) / 2."""
    lesions = np.array([[[1.0, 0, 0]], [[1.0, 1, 0]]])
    assert score_mean_mask_dice(lesions) == pytest.approx(5 / 6)


def test_fates_are_counted_best_first():
    assert count_fates(pd.Series(["plateau", "learned", "learned"])) == "2 learned, 1 plateau"
    assert count_fates(pd.Series([], dtype=object)) == ""
