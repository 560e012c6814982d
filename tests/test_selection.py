"""Choices of the validation part, by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import f1_score

from busi.selection import THRESHOLDS, best_epoch, choose_threshold, dice_by_threshold

NAN = float("nan")


def at(dice, *thresholds):
    """Return the Dice at these thresholds."""
    by_threshold = dict(zip(THRESHOLDS.tolist(), dice.tolist(), strict=True))
    return [by_threshold[threshold] for threshold in thresholds]


# Dice at every threshold


def test_a_network_that_ranks_pixels_well_scores_high_before_its_probabilities_are_large():
    # Lesion at 0.11 and 0.12, background at 0.10 and 0.05: from 0.11 on, the lesion alone is inside.
    truth, probability = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.11, 0.10], [0.05, 0.12]])
    dice = dice_by_threshold([truth], [probability])
    assert at(dice, 0.05, 0.1, 0.11, 0.12, 0.13) == pytest.approx([2 / 3, 0.8, 1, 2 / 3, 0])


def test_a_pixel_at_the_threshold_is_inside():
    dice = dice_by_threshold([np.ones((1, 1))], [np.full((1, 1), 0.25)])
    assert at(dice, 0.24, 0.25, 0.26) == [1, 1, 0]


def test_the_dice_of_several_images_is_their_mean_not_that_of_their_pixels():
    truths = [np.ones((1, 1)), np.ones((3, 3))]
    probabilities = [np.full((1, 1), 0.9), np.full((3, 3), 0.1)]
    dice = dice_by_threshold(truths, probabilities)
    assert at(dice, 0.05, 0.5, 0.95) == [1, 0.5, 0]


@given(
    arrays.arrays(bool, (2, 6, 5)),
    arrays.arrays(np.float32, (2, 6, 5), elements=st.integers(0, 1000).map(lambda k: np.float32(k / 1000))),
)
def test_dice_is_scikit_learns_at_every_threshold(truths, probabilities):
    dice = dice_by_threshold(truths, probabilities)
    for k in (0, 10, 49, 98):
        each = [
            f1_score(truth.ravel(), probability.ravel() >= THRESHOLDS[k], zero_division=0)
            for truth, probability in zip(truths, probabilities, strict=True)
        ]
        assert dice[k] == pytest.approx(np.mean(each), abs=1e-6)


def test_soft_truths_count_with_their_share():
    # 2 * 0.25 / (0.25 + 1), where the pixel is inside.
    dice = dice_by_threshold([np.array([[0.25, 0]])], [np.array([[0.5, 0.1]])])
    assert at(dice, 0.3, 0.6) == pytest.approx([0.4, 0])


def test_a_network_that_diverged_marks_nothing():
    assert (dice_by_threshold([np.ones((2, 2))], [np.full((2, 2), np.nan)]) == 0).all()


def test_nothing_to_find_and_nothing_marked_counts_as_not_found():
    assert (dice_by_threshold([np.zeros((2, 2))], [np.full((2, 2), 0.5)]) == 0).all()


def test_truths_and_probabilities_must_be_equally_many():
    with pytest.raises(ValueError, match="zip"):
        dice_by_threshold([np.zeros((2, 2))] * 2, [np.zeros((2, 2))])


# Threshold


def test_the_threshold_with_the_best_mean_dice_is_chosen_and_of_equals_the_smallest():
    truth = np.array([[True, True, False, False]])
    # From 0.31 to 0.60 exactly the lesion is inside.
    assert choose_threshold([truth], [np.array([[0.9, 0.6, 0.3, 0.1]])]) == 0.31
    # From 0.11 to 0.20 the mean is 0.9. Below, the first image has a fourth pixel inside; above, the second has none.
    both = [np.array([[0.9, 0.6, 0.3, 0.1]]), np.array([[0.2, 0.2, 0.0, 0.0]])]
    assert choose_threshold([truth, truth], both) == 0.11


def test_without_any_prediction_the_smallest_threshold_is_chosen():
    assert choose_threshold([np.ones((2, 2), bool)], [np.zeros((2, 2))]) == 0.01


def test_images_may_have_sizes_of_their_own():
    truths = [np.ones((2, 3), bool), np.ones((5, 4), bool)]
    assert choose_threshold(truths, [np.full((2, 3), 0.4), np.full((5, 4), 0.4)]) == 0.01
    assert type(choose_threshold(truths, [np.full((2, 3), 0.4), np.full((5, 4), 0.4)])) is float


# Best epoch


@pytest.mark.parametrize(
    "values, best",
    [
        ([0.2], 1),
        ([0.2, 0.3], 2),
        ([0.2, 0.3, 0.3], 2),  # the first of equals
        ([0.2, 0.3, 0.1, 0.3], 2),
        ([0.2, 0.3, 0.1, 0.4], 4),
        ([0.2, NAN], 1),  # a network that diverged is no better
        ([NAN, 0.2], 2),
        ([NAN, 0.0], 2),  # not even than one that finds nothing
        ([NAN, NAN], 1),
    ],
)
def test_the_best_epoch_has_the_highest_validation_dice(values, best):
    history = [{"epoch": k, "loss": 1 / k, "validation_dice": value} for k, value in enumerate(values, start=1)]
    assert best_epoch(history) == best
    assert type(best_epoch(history)) is int
