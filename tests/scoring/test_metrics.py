"""Scores of an image against scikit-learn, surfaces measured point by point, and numbers worked by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn import metrics as sklearn_metrics

from busi.config import RunConfig, StudyError
from busi.dataset import arrays
from busi.dataset.catalog import read_catalog, read_union
from busi.scoring import metrics

# The library still reaches SciPy by names that SciPy 2 will drop.
pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning:surface_distance")

EXAMPLES = settings(derandomize=True, deadline=None)
"""Settings that try the same hundred examples every time, however slow the machine."""


def score(truth, predicted):
    """Return the scores of a prediction with probabilities 0 and 1."""
    return metrics.score_image(truth, predicted.astype(np.float32), 0.5)


def square(top, left, height, width, shape=(40, 40)):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


@st.composite
def pairs(draw):
    """Draw a mask with a lesion, often of one pixel, and a prediction of the same small shape that may be empty."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
    one = st.integers(0, int(np.prod(shape)) - 1).map(lambda i: np.arange(np.prod(shape)).reshape(shape) == i)
    truth = draw(one | hnp.arrays(bool, shape))
    assume(truth.any())
    return truth, draw(one | hnp.arrays(bool, shape) | st.just(np.zeros(shape, bool)))


@st.composite
def forecasts(draw):
    """Draw a mask, empty or not, and probabilities of the same small shape, 0 and 1 among them."""
    truth = draw(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
    values = st.floats(0, 1, width=32) | st.sampled_from([0, 0.25, 0.5, 1])
    return truth, draw(hnp.arrays(np.float32, truth.shape, elements=values))


# Overlap, against scikit-learn


@EXAMPLES
@given(pairs())
def test_overlap_is_that_of_scikit_learn(pair):
    truth, predicted = pair[0].ravel(), pair[1].ravel()
    scores = score(*pair)
    for name, expected in {
        "dice": sklearn_metrics.f1_score,
        "iou": sklearn_metrics.jaccard_score,
        "precision": sklearn_metrics.precision_score,
        "recall": sklearn_metrics.recall_score,
    }.items():
        assert scores[name] == pytest.approx(expected(truth, predicted, zero_division=0), abs=1e-12)
    assert scores["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted), abs=1e-12)


@EXAMPLES
@given(forecasts(), st.sampled_from([0.25, 0.5, 0.9]))
def test_all_pixels_count_at_any_threshold(forecast, threshold):
    truth, probability = forecast
    scores = metrics.score_image(truth, probability, threshold)
    predicted = probability.astype(np.float64) >= threshold
    assert scores["predicted_share"] == predicted.sum() / truth.size
    # Marking from the peak on touches the lesion, or a lesion-free image; marking only what is above it does not.
    looked_at = probability[truth] if truth.any() else probability.ravel()
    assert scores["peak"] in looked_at and not (looked_at > scores["peak"]).any()
    assert scores["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth.ravel(), predicted.ravel()))
    squares = [(float(p) - float(t)) ** 2 for p, t in zip(probability.ravel(), truth.ravel(), strict=True)]
    assert scores["brier"] == pytest.approx(np.mean(squares), abs=1e-6)  # single precision


def test_a_pixel_at_the_threshold_is_lesion():
    truth, probability = np.array([[True, False]]), np.array([[0.5, 0.49]], dtype=np.float32)
    assert metrics.score_image(truth, probability, 0.5)["dice"] == 1


def test_a_probability_just_below_the_threshold_in_double_precision_is_background():
    """0.7 in single precision is 0.69999999; thresholds are chosen in double precision."""
    truth, probability = np.array([[True]]), np.array([[0.7]], dtype=np.float32)
    assert metrics.score_image(truth, probability, 0.7)["predicted_share"] == 0


def test_dice_by_hand():
    truth = np.array([True, True, False, False])
    assert metrics.dice(truth, np.array([True, False, True, True])) == pytest.approx(2 / 5)
    assert metrics.dice(truth, truth) == 1
    assert metrics.dice(truth, ~truth) == 0
    assert metrics.dice(truth, np.zeros(4, bool)) == 0


@pytest.mark.parametrize("marked", [0, 3])
def test_dice_of_an_empty_truth_is_missing(marked):
    assert np.isnan(metrics.dice(np.zeros(4, bool), np.arange(4) < marked))


@EXAMPLES
@given(pairs())
def test_dice_of_an_image_is_the_dice_of_its_masks(pair):
    assert score(*pair)["dice"] == metrics.dice(*pair)


# Surfaces, point by point


def contour(mask):
    """Return the pixel corners (y, x) on a contour, and the length of the contour through each.

    Around a corner one or three of four pixels are cut off by a diagonal, two beside each other by a straight line,
    two across from each other by two diagonals.
    """
    pad = np.pad(mask, 1)
    around = np.stack([pad[:-1, :-1], pad[:-1, 1:], pad[1:, 1:], pad[1:, :-1]], axis=-1)
    points = np.argwhere(around.any(axis=-1) & ~around.all(axis=-1))
    lengths = []
    for y, x in points:
        inside = around[y, x]
        across = inside.sum() == 2 and inside[0] == inside[2]
        lengths.append(np.sqrt(2) if across else 1 if inside.sum() == 2 else np.sqrt(0.5))
    return points, np.array(lengths)


def percentile(distances, lengths, share):
    """Return the smallest distance that this share of the contour does not exceed."""
    return min(d for d in distances if lengths[distances <= d].sum() >= share * lengths.sum())


@EXAMPLES
@given(pairs())
def test_surfaces_are_those_measured_point_by_point(pair):
    truth, predicted = pair
    assume(predicted.any())
    (there, there_lengths), (here, here_lengths) = contour(truth), contour(predicted)
    apart = cdist(there, here)
    ways = [(apart.min(axis=1), there_lengths), (apart.min(axis=0), here_lengths)]
    scores = score(truth, predicted)
    # A share of exactly 95 % may be rounded either way.
    low, high = (max(percentile(*way, share) for way in ways) for share in (0.95 - 1e-9, 0.95 + 1e-9))
    assert low - 1e-9 <= scores["hd95"] <= high + 1e-9
    near = sum(lengths[distances <= metrics.NSD_TOLERANCE].sum() for distances, lengths in ways)
    assert scores["nsd"] == pytest.approx(near / (there_lengths.sum() + here_lengths.sum()), abs=1e-12)


@EXAMPLES
@given(pairs())
def test_no_prediction_is_farther_than_an_empty_one(pair):
    truth, predicted = pair
    assert score(truth, predicted)["hd95"] <= score(truth, np.zeros_like(truth))["hd95"]


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_a_square_shifted_by_k_is_k_away(k):
    assert score(square(5, 5, 10, 10), square(5, 5 + k, 10, 10))["hd95"] == k


def test_nsd_of_a_shifted_square_by_hand():
    # A contour of 36 corners of length 1 and 4 of sqrt(1/2). Shifted by 2, all of it is near enough. Shifted by 3, not
    # so are the side left behind, 9 corners and its 2 ends, and of the side that is covered the 5 corners that are 3
    # or more from its ends.
    truth = square(5, 5, 10, 10)
    assert score(truth, square(5, 7, 10, 10))["nsd"] == 1
    too_far = (9 + 2 * np.sqrt(0.5) + 5) / (36 + 4 * np.sqrt(0.5))
    assert score(truth, square(5, 8, 10, 10))["nsd"] == pytest.approx(1 - too_far, abs=1e-12)


def test_one_pixel_from_another_by_hand():
    # Half of a pixel's four corners are one pixel nearer to the other.
    scores = score(square(5, 5, 1, 1), square(5, 8, 1, 1))
    assert (scores["hd95"], scores["nsd"], scores["dice"]) == (3, 0.5, 0)
    assert score(square(5, 5, 1, 1), square(5, 7, 1, 1))["nsd"] == 1


def test_the_image_border_is_contour_where_a_lesion_touches_it():
    truth = square(0, 0, 10, 10, shape=(10, 20))
    # One row short of the lower border: three rows short would be a hole in the middle if borders did not count.
    scores = score(truth, square(0, 0, 7, 10, shape=(10, 20)))
    assert scores["hd95"] == 3
    assert score(np.ones((6, 8), bool), square(0, 0, 6, 5, shape=(6, 8)))["hd95"] == 3


# Empty masks


@EXAMPLES
@given(pairs())
def test_an_empty_prediction_scores_the_worst_there_is(pair):
    truth, _ = pair
    scores = score(truth, np.zeros_like(truth))
    for name in ("dice", "iou", "precision", "recall", "nsd", "detected", "predicted_share"):
        assert scores[name] == 0
    assert scores["hd95"] == pytest.approx(np.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    assert scores["accuracy"] == pytest.approx(1 - truth.mean())


@pytest.mark.parametrize(("predicted", "share"), [(square(0, 0, 3, 4, (6, 8)), 0.25), (square(0, 0, 0, 0, (6, 8)), 0)])
def test_a_normal_image_has_no_lesion_scores(predicted, share):
    scores = score(np.zeros((6, 8), bool), predicted)
    missing = {name for name, value in scores.items() if np.isnan(value)}
    assert missing == {"dice", "iou", "precision", "recall", "hd95", "nsd", "detected"}
    assert (scores["predicted_share"], scores["accuracy"], scores["brier"]) == (share, 1 - share, share)


# Lesions found


def test_each_lesion_of_an_image_is_found_or_not():
    truth = square(2, 2, 10, 10) | square(25, 25, 4, 4) | square(2, 30, 4, 4)
    assert score(truth, square(2, 2, 10, 10))["detected"] == pytest.approx(1 / 3)
    assert score(truth, square(2, 2, 10, 10) | square(25, 25, 4, 4))["detected"] == pytest.approx(2 / 3)


def test_a_tenth_in_common_is_a_hit():
    truth = square(0, 0, 10, 10)
    assert score(truth, square(0, 0, 1, 10))["detected"] == 1  # 10 pixels of 100
    assert score(truth, square(0, 0, 3, 3))["detected"] == 0  # 9
    assert score(truth, square(0, 0, 25, 40))["detected"] == 1  # 100 of 1,000
    assert score(truth, square(0, 0, 26, 40))["detected"] == 0


def test_patches_are_not_added_up_to_a_hit():
    truth = square(0, 0, 10, 10)
    assert score(truth, square(0, 0, 3, 3) | square(5, 5, 3, 3))["detected"] == 0


def test_pixels_that_touch_at_a_corner_are_one_lesion():
    truth = square(5, 5, 1, 1) | square(6, 6, 1, 1)
    assert score(truth, square(5, 5, 1, 1))["detected"] == 1


# The largest region


@EXAMPLES
@given(forecasts(), st.sampled_from([0.25, 0.5]))
def test_of_all_regions_the_largest_is_kept_whole_and_nothing_below_the_threshold_changes(forecast, threshold):
    _, probability = forecast
    kept = metrics.keep_largest_component(probability, threshold)
    inside = probability >= threshold
    # Regions that touch at a corner are one.
    regions, count = ndimage.label(inside, np.ones((3, 3)))
    remaining = np.unique(regions[inside & (kept > 0)])
    assert len(remaining) == min(count, 1)
    is_removed = inside & ~np.isin(regions, remaining)
    np.testing.assert_array_equal(kept, np.where(is_removed, 0, probability))
    sizes = np.bincount(regions[inside], minlength=1)
    assert sizes[remaining].tolist() == [sizes.max()] * len(remaining)


# All pixels together


@EXAMPLES
@given(forecasts())
def test_every_pixel_is_counted_in_the_bin_of_its_probability(forecast):
    truth, probability = forecast
    table = metrics.count_pixels(truth, probability)
    lower = np.linspace(0, 1, 1001)[:-1]
    for name, inside in (("lesion", truth), ("background", ~truth)):
        expected = np.zeros(1000, int)
        for p in probability[inside]:
            expected[np.flatnonzero(lower <= p)[-1]] += 1
        assert table[name].to_list() == expected.tolist()
    assert table.probability.to_list() == pytest.approx(list(lower + 0.0005), abs=1e-12)


@EXAMPLES
@given(forecasts())
def test_pooled_scores_are_those_of_the_raw_pixels(forecast):
    truth, probability = forecast
    assume(truth.any() and not truth.all())
    table = metrics.count_pixels(truth, probability)
    pooled = metrics.pool_pixels(table)
    # What one bin holds of both is a tie that may have been an order.
    ties = (table.lesion * table.background).sum() / truth.sum() / (~truth).sum() / 2
    raw = sklearn_metrics.roc_auc_score(truth.ravel(), probability.ravel())
    assert abs(pooled["auc"] - raw) <= ties + 1e-12
    # No probability moves by more than half a bin, nor its square by more than twice that.
    raw = sklearn_metrics.brier_score_loss(truth.ravel(), probability.ravel().astype(float), pos_label=True)
    assert abs(pooled["brier"] - raw) <= 0.001


def test_auc_is_that_of_the_raw_pixels_where_they_lie_in_the_middle_of_bins():
    draw = np.random.default_rng(2)
    probability = (draw.integers(0, 1000, 5000) + 0.5) / 1000
    truth = draw.random(5000) < probability
    pooled = metrics.pool_pixels(metrics.count_pixels(truth, probability))
    assert pooled["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(truth, probability), abs=1e-12)
    assert pooled["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(truth, probability), abs=1e-12)
    accuracy = sklearn_metrics.accuracy_score(truth, probability >= 0.5)
    assert pooled["accuracy_half"] == pytest.approx(accuracy, abs=1e-12)


def test_a_probability_of_one_half_counts_as_lesion():
    pooled = metrics.pool_pixels(metrics.count_pixels(np.array([True, True, False]), np.array([0.5, 0.499, 0.5])))
    assert pooled["accuracy_half"] == pytest.approx(1 / 3)


def test_calibration_by_hand():
    # Four pixels said 0.1005 of which none is lesion, two said 0.1995 of which one is, four said 0.9005 of which three
    # are.
    probability = np.array([0.1005] * 4 + [0.1995] * 2 + [0.9005] * 4)
    truth = np.array([0] * 4 + [1, 0] + [1, 1, 1, 0], bool)
    table = metrics.count_pixels(truth, probability)
    curve = metrics.reliability_curve(table)
    low = (4 * 0.1005 + 2 * 0.1995) / 6
    assert curve.predicted.to_list() == pytest.approx([low, 0.9005])
    assert curve.observed.to_list() == pytest.approx([1 / 6, 3 / 4])
    assert curve.pixels.to_list() == [6, 4]
    assert metrics.pool_pixels(table)["ece"] == pytest.approx(0.6 * abs(low - 1 / 6) + 0.4 * (0.9005 - 0.75))


def test_a_probability_of_one_is_in_the_last_reliability_bin():
    curve = metrics.reliability_curve(metrics.count_pixels(np.array([True, False]), np.array([1.0, 0.0])))
    assert curve.predicted.to_list() == pytest.approx([0.0005, 0.9995])
    assert curve.observed.to_list() == [0, 1]


def test_counts_of_several_images_may_be_added_or_concatenated():
    draw = np.random.default_rng(3)
    parts = [metrics.count_pixels(draw.random(400) < 0.3, draw.random(400)) for _ in range(3)]
    below = pd.concat(parts)
    added = metrics.add_counts(parts)
    assert len(added) == 1000
    assert (added.lesion.sum() + added.background.sum()) == 1200
    pd.testing.assert_series_equal(added.lesion, parts[0].lesion + parts[1].lesion + parts[2].lesion)
    assert metrics.pool_pixels(below) == pytest.approx(metrics.pool_pixels(added), abs=1e-12)
    pd.testing.assert_frame_equal(metrics.reliability_curve(below), metrics.reliability_curve(added))


# What is refused


@pytest.mark.parametrize(
    ("truth", "probability", "threshold", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 2)), 0.5, "truth: of type float64; expected bool"),
        (np.ones((2, 2), bool), np.ones((2, 3)), 0.5, r"probability: of shape \(2, 3\), truth of \(2, 2\)"),
        (np.ones((0, 2), bool), np.ones((0, 2)), 0.5, "expected the same pixels"),
        (np.ones((1, 2), bool), np.array([[0, 1.5]]), 0.5, r"probability: from 0.0 to 1.5; expected 0 to 1"),
        (np.ones((1, 2), bool), np.array([[0, np.nan]]), 0.5, "probability: from nan"),
        (np.ones((1, 2), bool), np.ones((1, 2)), 1, "threshold: 1; expected a number above 0 and below 1"),
        (np.ones((1, 2), bool), np.ones((1, 2)), 0, "threshold: 0"),
    ],
)
def test_what_cannot_be_scored_is_refused(truth, probability, threshold, message):
    with pytest.raises(StudyError, match=message):
        metrics.score_image(truth, probability, threshold)


def test_counts_refuse_the_same():
    with pytest.raises(StudyError, match=r"probability: from -0\.5"):
        metrics.count_pixels(np.array([True]), np.array([-0.5]))


# On BUSI


@pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")
def test_the_tolerance_is_strict_but_not_beyond_a_network_of_128_pixels(busi_dir):
    data = read_catalog(busi_dir)
    masks = data.table.set_index("name").masks
    first, second = (read_union(masks[name]) for name in ("benign (433)", "malignant (145)"))
    twice = score(first, second)
    assert twice["hd95"] > metrics.NSD_TOLERANCE
    assert twice["nsd"] < 0.5
    config = RunConfig(protocol="heldout", image_size=128)
    kept = []
    for row in data.lesions.iloc[::20].itertuples():
        truth = read_union(row.masks)
        small = arrays.restore(arrays.lesion_channel(truth, config), row.height, row.width, config)
        kept.append(metrics.score_image(truth, small, 0.5)["nsd"])
    assert np.mean(kept) > 0.95
