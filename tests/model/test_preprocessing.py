"""Preprocessing: what is scaled, what is flipped along with what, and within which bounds values move."""

import numpy as np
import pytest

from busi.model.preprocessing import augment, scale

IMAGES = 120


def mark():
    """Images (n, 8, 8, 1) with a bright left column and targets (n, 4, 4, 2) with lesion in the upper left corner."""
    draw = np.random.default_rng(0)
    images = draw.uniform(0.3, 0.5, (IMAGES, 8, 8, 1)).astype("float32")
    images[:, :, 0] = 0.7
    lesion = np.zeros((IMAGES, 4, 4), "float32")
    lesion[:, 0, 0] = 1
    return images, np.stack([lesion, 1 - lesion], axis=-1)


@pytest.fixture
def marked():
    return mark()


@pytest.fixture(scope="module", params=["text", "code", "augment", "augment-image"])
def epoch(request):
    """A reading and the marked images and targets after it, seed 3."""
    return request.param, *augment(*mark(), request.param, seed=3)


def images_flipped(images):
    return images[:, :, -1, 0].mean(axis=1) > images[:, :, 0, 0].mean(axis=1)


def targets_flipped(targets):
    return targets[:, 0, -1, 0] > targets[:, 0, 0, 0]


def straight_lines(before, after, flipped):
    """Slope and value at the image's mean, (n, 2), of each image's values after against before."""
    lines = []
    for x, y, turned in zip(before, after, flipped, strict=True):
        x = (x[:, ::-1] if turned else x).ravel().astype(float)
        slope, intercept = np.polyfit(x - x.mean(), y.ravel(), 1)
        np.testing.assert_allclose(y.ravel(), slope * (x - x.mean()) + intercept, rtol=0, atol=1e-5)
        lines.append((slope, intercept - x.mean()))
    return np.array(lines)


# The same in every epoch


def test_text_standardizes_each_image_by_itself():
    draw = np.random.default_rng(1)
    images = np.stack([draw.normal(0.2, 0.05, (9, 9, 1)), draw.normal(0.7, 0.1, (9, 9, 1))]).astype("float32")
    found = scale(images, "text")
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 0, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=(1, 2, 3)), 1, rtol=1e-6)
    assert (found.shape, found.dtype) == (images.shape, np.float32)


def test_text_by_hand():
    # Mean 0.5, deviation 0.25.
    images = np.array([0.25, 0.75, 0.25, 0.75], "float32").reshape(1, 2, 2, 1)
    assert scale(images, "text").ravel() == pytest.approx([-1, 1, -1, 1])


def test_text_makes_an_even_image_zero():
    assert not scale(np.full((1, 4, 4, 1), 0.5, "float32"), "text").any()


def test_code_divides_by_255_once_more():
    images = np.array([0, 0.5, 1], "float32").reshape(1, 3, 1, 1)
    found = scale(images, "code")
    assert found.ravel() == pytest.approx([0, 1 / 510, 1 / 255])
    assert found.dtype == np.float32


def test_normalize_by_hand():
    """Each image by its own extremes, whatever the training images are."""
    images = np.array([[0.2, 0.3, 0.4, 0.6], [0.5, 0.5, 1.0, 0.0]], "float32").reshape(2, 2, 2, 1)
    found = scale(images, "normalize", training=images[:1])
    assert found.ravel() == pytest.approx([0, 0.25, 0.5, 1, 0.5, 0.5, 1, 0])
    assert (found.shape, found.dtype) == (images.shape, np.float32)


def test_normalize_makes_an_even_image_zero():
    assert not scale(np.full((1, 4, 4, 1), 0.5, "float32"), "normalize").any()


STANDARDIZED = ("standardize", "augment", "augment-image")


@pytest.mark.parametrize("reading", STANDARDIZED)
def test_standardize_by_hand(reading):
    """Of the training images, normalized to 0, 0.5, 1, 1 and 0, 0, 0, 1: mean 7/16, deviation sqrt(55)/16."""
    training = np.array([[0.2, 0.3, 0.4, 0.4], [0.1, 0.1, 0.1, 0.9]], "float32").reshape(2, 2, 2, 1)
    image = np.array([0, 0.25, 0.5, 0.5], "float32").reshape(1, 2, 2, 1)
    found = scale(image, reading, training)
    assert found.ravel() == pytest.approx([-7 / 55**0.5, 1 / 55**0.5, 9 / 55**0.5, 9 / 55**0.5])
    assert found.dtype == np.float32


@pytest.mark.parametrize("reading", STANDARDIZED)
def test_training_images_are_their_own_reference(reading):
    """Mean 0 and deviation 1 all together, not one by one."""
    images = np.random.default_rng(1).beta([[[[2]]], [[[5]]]], 3, (2, 9, 9, 1)).astype("float32")
    found = scale(images, reading)
    assert found.mean() == pytest.approx(0, abs=1e-6)
    assert found.std() == pytest.approx(1, rel=1e-6)
    assert abs(found[0].mean()) > 0.05
    np.testing.assert_array_equal(found, scale(images, reading, training=images))


@pytest.mark.parametrize("reading", STANDARDIZED)
def test_constants_come_from_the_training_images_alone(reading):
    """What else is scaled beside an image changes nothing of it; other training images do."""
    draw = np.random.default_rng(2)
    images, training, others = draw.random((3, 4, 8, 8, 1), dtype="float32")
    alone = scale(images[:1], reading, training)
    np.testing.assert_array_equal(scale(images, reading, training)[:1], alone)
    assert np.abs(scale(images[:1], reading, others**2) - alone).max() > 0.1


@pytest.mark.parametrize("reading", ["none", "normalize", "standardize"])
def test_without_augmentation_every_epoch_is_the_same(marked, reading):
    found = augment(*marked, reading, seed=0)
    for array, before in zip(found, marked, strict=True):
        np.testing.assert_array_equal(array, before)


def test_none_is_the_identity(marked):
    np.testing.assert_array_equal(scale(marked[0], "none"), marked[0])


# Anew in every epoch


def test_about_half_of_the_images_are_flipped(epoch):
    _, images, _ = epoch
    # 120 coins: 60 heads, deviation 5.5; three deviations either way.
    assert 44 <= images_flipped(images).sum() <= 76


def test_targets_are_flipped_along_or_left_where_they_were(epoch, marked):
    """Left by the notebook's code, and by the same fault asked about."""
    reading, images, targets = epoch
    flipped = images_flipped(images) if reading in ("text", "augment") else np.zeros(IMAGES, bool)
    np.testing.assert_array_equal(targets_flipped(targets), flipped)
    np.testing.assert_array_equal(targets, np.where(flipped[:, None, None, None], marked[1][:, :, ::-1], marked[1]))


def test_flips_are_sideways():
    """A bright top stays on top."""
    images = np.full((40, 8, 8, 1), 0.2, "float32")
    images[:, 0] = 0.8
    found, _ = augment(images, np.zeros((40, 4, 4, 2), "float32"), "text", seed=0)
    assert (found[:, 0].min(axis=(1, 2)) > found[:, 1:].max(axis=(1, 2, 3))).all()


def test_contrast_turns_about_the_mean_and_brightness_shifts(epoch, marked):
    """Contrast by up to a fifth either way, brightness within a tenth, nothing clipped."""
    _, images, _ = epoch
    contrast, shift = straight_lines(marked[0], images, images_flipped(images)).T
    assert 0.8 <= contrast.min() < 0.83 and 1.17 < contrast.max() <= 1.2 + 1e-6
    assert -0.1 - 1e-6 <= shift.min() < -0.09 and 0.09 < shift.max() <= 0.1 + 1e-6
    assert abs(np.corrcoef(contrast, shift)[0, 1]) < 0.25, "drawn apart from each other"


def test_images_scaled_twice_keep_their_pattern():
    """In [0, 1/255] a shift of -0.1 would blacken every second image if values were clipped at 0."""
    ramp = np.linspace(0, 1 / 255, 64, dtype="float32").reshape(1, 8, 8, 1).repeat(40, axis=0)
    images, _ = augment(ramp, np.zeros((40, 4, 4, 2), "float32"), "code", seed=0)
    assert images.std(axis=(1, 2, 3)).min() > 0.79 * ramp[0].std()


def test_images_are_drawn_alike_whether_or_not_targets_move_along(marked):
    """The two variants differ in the fault alone."""
    right, wrong = (augment(*marked, reading, seed=3) for reading in ("augment", "augment-image"))
    np.testing.assert_array_equal(right[0], wrong[0])
    assert not np.array_equal(right[1], wrong[1])


def test_equal_seeds_give_equal_draws_and_others_others(epoch, marked):
    reading, images, targets = epoch
    again, other = (augment(*marked, reading, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(again[0], images)
    np.testing.assert_array_equal(again[1], targets)
    assert (other[0] != images).any(axis=(1, 2, 3)).all()
    assert not np.array_equal(images_flipped(other[0]), images_flipped(images))


def test_inputs_are_left_as_they_were(marked):
    before = [array[:9].copy() for array in marked]
    augment(marked[0][:9], marked[1][:9], "text", seed=1)
    for array, copy in zip((array[:9] for array in marked), before, strict=True):
        np.testing.assert_array_equal(array, copy)
