"""Training metrics against scikit-learn and numbers worked by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from busi.model import metrics


def scores(*batches):
    """Return name -> value after batches of (targets, probabilities)."""
    values = {}
    for metric in metrics.published_metrics():
        for targets, probabilities in batches:
            # The largest of these logits stand for probabilities of 0 and 1.
            logits = np.log(np.maximum(np.asarray(probabilities, "float64"), 1e-30))
            metric.update_state(np.asarray(targets, "float32"), logits.astype("float32"))
        values[metric.name] = float(metric.result())
    return values


def both(lesion):
    """Return lesion and its complement as two channels, (..., 2)."""
    lesion = np.asarray(lesion, "float32")
    return np.stack([lesion, 1 - lesion], axis=-1)


def constant(pixels, probability=0.1):
    """Return the same probabilities for every pixel."""
    return both(np.full((1, 1, pixels), probability))


@pytest.fixture(scope="module")
def pixels():
    """Return the truth of 20,000 pixels and a skilful prediction of it, both (2, 100, 100)."""
    draw = np.random.default_rng(0)
    lesion = draw.random((2, 100, 100)) < 0.1
    logit = draw.normal(np.where(lesion, 0.5, -2.5), 1.5)
    return lesion, (1 / (1 + np.exp(-logit))).astype("float32")


def test_auc_is_scikit_learns_with_scores_in_199_classes(pixels):
    """Between 200 thresholds i / 199 scores are ties; the trapezium counts a tie as half."""
    lesion, probability = pixels
    targets, probabilities = both(lesion), both(probability)
    classes = np.ceil(probabilities.ravel() * np.float32(199))
    expected = roc_auc_score(targets.ravel(), classes)
    assert scores((targets, probabilities))["auc"] == pytest.approx(expected, abs=1e-6)


def test_auc_is_scikit_learns_up_to_half_of_the_pairs_in_one_class(pixels):
    lesion, probability = pixels
    targets, probabilities = both(lesion).ravel(), both(probability).ravel()
    classes = np.ceil(probabilities * np.float32(199)).astype(int)
    positive, negative = (np.bincount(classes[targets == y], minlength=200) / (targets == y).sum() for y in (1, 0))
    bound = (positive * negative).sum() / 2
    assert bound < 0.005
    auc = scores((both(lesion), both(probability)))["auc"]
    assert abs(auc - roc_auc_score(targets, probabilities)) <= bound


def test_auc_pools_both_channels(pixels):
    """Pooling also rewards telling common background from rare lesion: 0.9 without any skill."""
    lesion, probability = pixels
    alone = roc_auc_score(lesion.ravel(), probability.ravel())
    assert alone == pytest.approx(0.92, abs=0.01)
    assert scores((both(lesion), both(probability)))["auc"] > alone + 0.04


def test_auc_of_a_constant_is_the_share_of_background():
    """The curve has one corner: (share of negatives in channel 1, share of positives there) = (0.3, 0.7).

    Under a curve through (0, 0), (x, y), (1, 1) lies (1 + y - x) / 2.
    """
    assert scores((both([[[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]]), constant(10)))["auc"] == pytest.approx(0.7, abs=1e-6)


def test_auc_takes_every_target_above_zero_for_a_positive():
    """Targets (1, 0), (0, 1), (0, 1) and a soft mirror pixel, which Keras reads as (1, 1).

    Positives 2 and 3, negatives 2 and 1: the corner is (1 / 3, 3 / 5).
    """
    targets = [[[[1, 0], [0, 1], [0, 1], [0.25, 1.25]]]]
    expected = (1 + 3 / 5 - 1 / 3) / 2
    assert scores((targets, constant(4)))["auc"] == pytest.approx(expected, abs=1e-6)


def test_accuracy_compares_the_larger_channels():
    """By hand: right, wrong, right, and a soft mirror pixel that is background whatever its lesion part."""
    targets = [[[[1, 0], [1, 0], [0, 1], [0.9, 1.9]]]]
    probabilities = both([[[0.51, 0.49, 0.2, 0.3]]])
    assert scores((targets, probabilities))["accuracy"] == 0.75


def test_accuracy_of_a_constant_is_the_share_of_background():
    assert scores((both([[[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]]), constant(10)))["accuracy"] == pytest.approx(0.7)


def test_lesion_share_counts_pixels_predicted_lesion():
    """The targets, here all background, do not matter."""
    values = scores((both(np.zeros((1, 1, 5))), both([[[0.9, 0.51, 0.49, 0.1, 0.6]]])))
    assert values["lesion_share"] == pytest.approx(0.6)
    assert scores((both([[[1, 1]]]), constant(2)))["lesion_share"] == 0


def test_a_tie_is_no_lesion_for_the_share_and_one_for_accuracy():
    values = scores((both([[[1, 0]]]), both([[[0.5, 0.5]]])))
    assert (values["lesion_share"], values["accuracy"]) == (0, 0.5)


def test_batches_count_by_their_images():
    """One image right and lesion, then three wrong and background: 1 of 4, not the mean of 1 and 0."""
    values = scores((both([[[1]]]), both([[[0.9]]])), (both([[[1]]] * 3), both([[[0.1]]] * 3)))
    assert (values["accuracy"], values["lesion_share"]) == (0.25, 0.25)
