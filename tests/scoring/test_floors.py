"""Floors against numbers worked by hand, against Keras on a constant prediction, and against the published rows."""

import keras
import numpy as np
import pytest

from busi.dataset import arrays
from busi.scoring import floors

# One lesion pixel, one soft one (m = 0.5, mirrored to 1.5), two of background.
FOUR_PIXELS = np.array([[[[1, 0], [0.5, 1.5]], [[0, 1], [0, 1]]]], dtype=np.float32)


def random_targets(second_channel="mirror"):
    """Draw seven images of 12 x 12 pixels with lesion shares of 1 to 25 %, some lesion pixels soft."""
    draw = np.random.default_rng(5)
    lesions = (draw.random((7, 12, 12)) < np.linspace(0.01, 0.25, 7)[:, None, None]).astype(np.float32)
    soft = draw.random(lesions.shape) < 0.05
    lesions[soft] = draw.uniform(0.1, 0.9, soft.sum())
    # A pixel half lesion is a tie between the channels of the complement.
    lesions[0, 0, 0] = 0.5
    return arrays.two_channels(lesions, second_channel)


def constant(targets, p):
    """Return the probability ``p`` of lesion everywhere."""
    return np.broadcast_to(np.array([p, 1 - p], dtype=np.float32), targets.shape)


# By hand


def test_accuracy_by_hand():
    assert floors.constant_floors(FOUR_PIXELS)["accuracy"] == 3 / 4


def test_dice_by_hand():
    # Overlap 0 + 1.5 + 1 + 1, targets' sum 5, prediction's sum 4: 1 - 2 * 3.5 / 9.
    assert floors.constant_floors(FOUR_PIXELS)["dice_loss"] == pytest.approx(2 / 9, rel=1e-12)


def test_auc_by_hand():
    # The soft pixel is positive in both channels: 5 positives and 3 negatives in all. At the score of background 3 of
    # the 5 and 1 of the 3 are called positive, at that of lesion all: 1/2 * 1/3 * 3/5 + 2/3 * (3/5 + 1) / 2.
    assert floors.constant_floors(FOUR_PIXELS)["auc"] == pytest.approx(0.1 + 8 / 15, rel=1e-12)


def test_bce_by_hand():
    # Means 0.375 and 0.875 make -(0.25 log p + 0.75 log(1 - p)), lowest at a quarter; without the mirror it would be
    # lowest at 0.375.
    values = floors.constant_floors(FOUR_PIXELS)
    assert values["bce_probability"] == pytest.approx(1 / 4, abs=1e-6)
    assert values["bce"] == pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)), rel=1e-9)


def test_kld_by_hand():
    # Keras clips the 1.5 to 1: means 0.375 and 0.75, lowest at a third; the soft pixel's 0.5 log 0.5 is taken off.
    lowest = 0.375 * np.log(3) + 0.75 * np.log(1.5) + 0.5 * np.log(0.5) / 4
    assert floors.constant_floors(FOUR_PIXELS)["kld"] == pytest.approx(lowest, abs=2e-6)


def test_dice_is_the_mean_over_images_not_of_all_pixels_at_once():
    empty = np.zeros_like(FOUR_PIXELS)
    empty[..., 1] = 1
    both = np.concatenate([FOUR_PIXELS, empty])
    assert floors.constant_floors(both)["dice_loss"] == pytest.approx(
        (2 / 9 + 0) / 2, rel=1e-12
    )  # at once: 1 - 2 * 7.5 / 17


# Against Keras


@pytest.mark.parametrize("second_channel", ["mirror", "complement"])
@pytest.mark.parametrize(
    ("floor", "metric"),
    [("accuracy", keras.metrics.CategoricalAccuracy), ("auc", keras.metrics.AUC)],
)
def test_metrics_are_those_of_keras(floor, metric, second_channel):
    targets, metric = random_targets(second_channel), metric()
    for image in range(len(targets)):  # as in training, one image at a time
        metric.update_state(targets[image : image + 1], constant(targets[:1], 0.1))
    assert floors.constant_floors(targets)[floor] == pytest.approx(float(metric.result()), abs=1e-6)


@pytest.mark.parametrize("second_channel", ["mirror", "complement"])
def test_dice_loss_is_that_of_keras(second_channel):
    targets = random_targets(second_channel)
    losses = [float(keras.losses.Dice()(image[None], constant(image[None], 0))) for image in targets]
    assert floors.constant_floors(targets)["dice_loss"] == pytest.approx(np.mean(losses), abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "keras_loss"),
    [
        ("bce", keras.losses.BinaryCrossentropy()),
        ("kld", keras.losses.KLDivergence()),
        ("dice", keras.losses.Dice(axis=(1, 2, 3))),
    ],
)
def test_the_lowest_loss_of_a_constant_is_that_of_the_runs_own_loss(loss, keras_loss):
    targets = random_targets("complement")
    grid = [float(keras_loss(targets, constant(targets, p))) for p in np.linspace(1e-7, 0.999, 400)]
    assert floors.lowest_loss(loss, floors.constant_floors(targets)) == pytest.approx(min(grid), rel=1e-4)


@pytest.mark.parametrize("second_channel", ["mirror", "complement"])
@pytest.mark.parametrize(
    ("floor", "loss"), [("bce", keras.losses.BinaryCrossentropy()), ("kld", keras.losses.KLDivergence())]
)
def test_no_constant_has_a_lower_loss_under_keras(floor, loss, second_channel):
    targets = random_targets(second_channel)
    lowest = floors.constant_floors(targets)[floor]
    coarse = [float(loss(targets, constant(targets, p))) for p in np.arange(0.01, 0.99, 0.01)]
    best = 0.01 + 0.01 * np.argmin(coarse)
    fine = [float(loss(targets, constant(targets, p))) for p in np.linspace(best - 0.01, best + 0.01, 101)]
    assert lowest == pytest.approx(min(fine), abs=2e-6)


def test_bce_is_the_lowest_on_a_dense_grid():
    targets = random_targets().astype(np.float64)
    p = np.linspace(0.001, 0.5, 49_901)  # every 1e-5
    # Pixel by pixel, as the loss is defined, instead of by their means.
    ones, counts = np.unique(targets.reshape(-1, 2), axis=0, return_counts=True)
    (lesion, background), weights = ones.T[..., None], counts[:, None] / counts.sum()
    on_lesion = lesion * np.log(p) + (1 - lesion) * np.log(1 - p)
    on_background = background * np.log(1 - p) + (1 - background) * np.log(p)
    grid = -(weights * (on_lesion + on_background)).sum(axis=0) / 2
    values = floors.constant_floors(targets)
    assert values["bce"] == pytest.approx(grid.min(), abs=1e-9)
    assert values["bce_probability"] == pytest.approx(p[grid.argmin()], abs=1e-5)


# On BUSI


def test_the_published_rows_of_busi_stand_on_its_floors(busi_targets):
    """Accuracy 0.9083, Dice loss 0.0916, AUC 0.9070 and BCE 0.3066 in the paper's four digits."""
    values = floors.constant_floors(busi_targets)
    probability = values.pop("bce_probability")
    assert {name: round(value, 6) for name, value in values.items()} == {
        "accuracy": 0.908252,
        "auc": 0.906965,
        "dice_loss": 0.091565,
        "bce": 0.306562,
        "kld": 0.308998,
    }
    assert probability == pytest.approx(0.0917, abs=1e-4)
