"""Preprocessing: scaling by hand; flips, contrast and brightness by their bounds."""

import json

import numpy as np
import pytest

from busi.dataset import preprocessing
from busi.dataset.preprocessing import Scaling, augment, fit_scaling, scale

IMAGES = 120

NO_SCALING = Scaling()


def mark():
    """Make images (n, 8, 8, 1), left column bright, and targets (n, 4, 4, 2), lesion in the upper left corner."""
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
    """Return a reading, and the marked images and targets augmented by it with seed 3."""
    return request.param, *augment(*mark(), request.param, seed=3)


def images_flipped(images):
    return images[:, :, -1, 0].mean(axis=1) > images[:, :, 0, 0].mean(axis=1)


def targets_flipped(targets):
    return targets[:, 0, -1, 0] > targets[:, 0, 0, 0]


def straight_lines(before, after, flipped):
    """Fit each image's new values to its old ones, (n, 2): slope, and change at the image's mean."""
    lines = []
    for x, y, turned in zip(before, after, flipped, strict=True):
        x = (x[:, ::-1] if turned else x).ravel().astype(float)
        slope, intercept = np.polyfit(x - x.mean(), y.ravel(), 1)
        np.testing.assert_allclose(y.ravel(), slope * (x - x.mean()) + intercept, rtol=0, atol=1e-5)
        lines.append((slope, intercept - x.mean()))
    return np.array(lines)


# Scaling


def test_text_standardizes_each_image_on_its_own():
    draw = np.random.default_rng(1)
    images = np.stack([draw.normal(0.2, 0.05, (9, 9, 1)), draw.normal(0.7, 0.1, (9, 9, 1))]).astype("float32")
    scaled = scale(images, "text", NO_SCALING)
    np.testing.assert_allclose(scaled.mean(axis=(1, 2, 3)), 0, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=(1, 2, 3)), 1, rtol=1e-6)
    assert (scaled.shape, scaled.dtype) == (images.shape, np.float32)


def test_text_by_hand():
    # Mean 0.5, deviation 0.25.
    images = np.array([0.25, 0.75, 0.25, 0.75], "float32").reshape(1, 2, 2, 1)
    assert scale(images, "text", NO_SCALING).ravel() == pytest.approx([-1, 1, -1, 1])


@pytest.mark.parametrize("reading", ["text", "normalize"])
def test_an_even_image_becomes_zero(reading):
    assert not scale(np.full((1, 4, 4, 1), 0.5, "float32"), reading, NO_SCALING).any()


def test_code_divides_by_255_once_more():
    images = np.array([0, 0.5, 1], "float32").reshape(1, 3, 1, 1)
    scaled = scale(images, "code", NO_SCALING)
    assert scaled.ravel() == pytest.approx([0, 1 / 510, 1 / 255])
    assert scaled.dtype == np.float32


def test_normalize_by_hand():
    """Each image is scaled by its own extremes."""
    images = np.array([[0.2, 0.3, 0.4, 0.6], [0.5, 0.5, 1.0, 0.0]], "float32").reshape(2, 2, 2, 1)
    scaled = scale(images, "normalize", NO_SCALING)
    assert scaled.ravel() == pytest.approx([0, 0.25, 0.5, 1, 0.5, 0.5, 1, 0])
    assert (scaled.shape, scaled.dtype) == (images.shape, np.float32)


STANDARDIZED = ("standardize", "augment", "augment-image")


@pytest.mark.parametrize("reading", STANDARDIZED)
def test_standardize_by_hand(reading):
    """The training images are normalized to 0, 0.5, 1, 1 and 0, 0, 0, 1: mean 7/16, deviation sqrt(55)/16."""
    training = np.array([[0.2, 0.3, 0.4, 0.4], [0.1, 0.1, 0.1, 0.9]], "float32").reshape(2, 2, 2, 1)
    scaling = fit_scaling(training, reading)
    assert scaling == pytest.approx((7 / 16, 55**0.5 / 16))
    image = np.array([0, 0.25, 0.5, 0.5], "float32").reshape(1, 2, 2, 1)
    scaled = scale(image, reading, scaling)
    assert scaled.ravel() == pytest.approx([-7 / 55**0.5, 1 / 55**0.5, 9 / 55**0.5, 9 / 55**0.5])
    assert scaled.dtype == np.float32


@pytest.mark.parametrize("reading", ["none", "normalize", "text", "code"])
def test_readings_that_use_no_training_images_have_no_constants(marked, reading):
    assert fit_scaling(marked[0], reading) == (0, 1)


def test_training_images_without_contrast_are_not_divided_by_zero():
    even = np.full((3, 4, 4, 1), 0.5, "float32")
    scaling = fit_scaling(even, "standardize")
    assert scaling == pytest.approx((0, 1e-6))
    assert not scale(even, "standardize", scaling).any()


def test_scaling_survives_json_bit_for_bit(marked):
    """A run folder keeps the constants as text."""
    scaling = fit_scaling(marked[0], "standardize")
    restored = Scaling(**json.loads(json.dumps(scaling._asdict())))
    assert restored == scaling
    np.testing.assert_array_equal(scale(marked[0], "standardize", restored), scale(marked[0], "standardize", scaling))


@pytest.mark.parametrize("reading", STANDARDIZED)
def test_training_images_get_mean_0_and_deviation_1_together(reading):
    """Together, not each image on its own."""
    images = np.random.default_rng(1).beta([[[[2]]], [[[5]]]], 3, (2, 9, 9, 1)).astype("float32")
    scaled = scale(images, reading, fit_scaling(images, reading))
    assert scaled.mean() == pytest.approx(0, abs=1e-6)
    assert scaled.std() == pytest.approx(1, rel=1e-6)
    assert abs(scaled[0].mean()) > 0.05


@pytest.mark.parametrize("reading", STANDARDIZED)
def test_constants_come_from_the_training_images_alone(reading):
    """Images scaled in the same call do not change an image; other training images do."""
    draw = np.random.default_rng(2)
    images, training, others = draw.random((3, 4, 8, 8, 1), dtype="float32")
    scaling = fit_scaling(training, reading)
    alone = scale(images[:1], reading, scaling)
    np.testing.assert_array_equal(scale(images, reading, scaling)[:1], alone)
    assert np.abs(scale(images[:1], reading, fit_scaling(others**2, reading)) - alone).max() > 0.1


@pytest.mark.parametrize("reading", ["none", "normalize", "standardize"])
def test_without_augmentation_every_epoch_is_the_same(marked, reading):
    after = augment(*marked, reading, seed=0)
    for array, before in zip(after, marked, strict=True):
        np.testing.assert_array_equal(array, before)


def test_none_is_the_identity(marked):
    np.testing.assert_array_equal(scale(marked[0], "none", NO_SCALING), marked[0])


# Augmentation


def test_about_half_of_the_images_are_flipped(epoch):
    _, images, _ = epoch
    # Of 120 coins 60 show heads, with a deviation of 5.5: three deviations either way.
    assert 44 <= images_flipped(images).sum() <= 76


def test_targets_are_flipped_with_their_images_or_not_at_all(epoch, marked):
    """Not at all in the notebook's code, nor in the variant that repeats its fault."""
    reading, images, targets = epoch
    flipped = images_flipped(images) if reading in ("text", "augment") else np.zeros(IMAGES, bool)
    np.testing.assert_array_equal(targets_flipped(targets), flipped)
    np.testing.assert_array_equal(targets, np.where(flipped[:, None, None, None], marked[1][:, :, ::-1], marked[1]))


def test_flips_are_from_left_to_right():
    """A bright top stays at the top."""
    images = np.full((40, 8, 8, 1), 0.2, "float32")
    images[:, 0] = 0.8
    augmented, _ = augment(images, np.zeros((40, 4, 4, 2), "float32"), "text", seed=0)
    assert (augmented[:, 0].min(axis=(1, 2)) > augmented[:, 1:].max(axis=(1, 2, 3))).all()


def test_contrast_changes_about_the_mean_and_brightness_shifts(epoch, marked):
    """Contrast changes by up to a fifth either way, brightness by up to a tenth, and nothing is clipped."""
    _, images, _ = epoch
    contrast, shift = straight_lines(marked[0], images, images_flipped(images)).T
    assert 0.8 <= contrast.min() < 0.83 and 1.17 < contrast.max() <= 1.2 + 1e-6
    assert -0.1 - 1e-6 <= shift.min() < -0.09 and 0.09 < shift.max() <= 0.1 + 1e-6
    assert abs(np.corrcoef(contrast, shift)[0, 1]) < 0.25, "drawn independently"


def test_images_scaled_twice_keep_their_pattern():
    """In [0, 1/255], clipping at 0 after a shift of up to -0.1 would turn every second image black."""
    ramp = np.linspace(0, 1 / 255, 64, dtype="float32").reshape(1, 8, 8, 1).repeat(40, axis=0)
    images, _ = augment(ramp, np.zeros((40, 4, 4, 2), "float32"), "code", seed=0)
    assert images.std(axis=(1, 2, 3)).min() > 0.79 * ramp[0].std()


def test_images_are_the_same_whether_or_not_targets_are_flipped(marked):
    """The two variants differ in the fault alone."""
    right, wrong = (augment(*marked, reading, seed=3) for reading in ("augment", "augment-image"))
    np.testing.assert_array_equal(right[0], wrong[0])
    assert not np.array_equal(right[1], wrong[1])


def test_equal_seeds_give_equal_draws_and_other_seeds_do_not(epoch, marked):
    reading, images, targets = epoch
    again, other = (augment(*marked, reading, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(again[0], images)
    np.testing.assert_array_equal(again[1], targets)
    assert (other[0] != images).any(axis=(1, 2, 3)).all()
    assert not np.array_equal(images_flipped(other[0]), images_flipped(images))


def test_inputs_are_not_changed(marked):
    before = [array[:9].copy() for array in marked]
    augment(marked[0][:9], marked[1][:9], "text", seed=1)
    for array, copy in zip((array[:9] for array in marked), before, strict=True):
        np.testing.assert_array_equal(array, copy)


# The strong reading


def draw_discs(count=40, side=64, radius=12):
    """Make equal images with a bright disc in the middle, which is the lesion of their targets."""
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    disc = (np.hypot(rows, columns) < radius).astype("float32")
    images = np.repeat(0.2 + 0.6 * disc[None, ..., None], count, axis=0)
    return images, np.repeat(np.stack([disc, 1 - disc], axis=-1)[None], count, axis=0)


def test_without_motion_and_speckle_the_strong_reading_is_the_other(monkeypatch, marked):
    for name, value in {"ROTATION": 0, "ZOOM": 1, "SHIFT": 0, "SPECKLE": 0}.items():
        monkeypatch.setattr(preprocessing, name, value)
    strong, other = augment(*marked, "augment-strong", seed=5), augment(*marked, "augment", seed=5)
    np.testing.assert_allclose(strong[0], other[0], atol=1e-5)
    np.testing.assert_array_equal(strong[1], other[1])


def test_image_and_target_are_moved_together():
    images, targets = augment(*draw_discs(), "augment-strong", seed=0)
    lesion = targets[..., 0] == 1
    assert set(np.unique(targets)) == {0, 1} and (targets.sum(axis=-1) == 1).all()
    for image, inside in zip(images[..., 0], lesion, strict=True):
        bright = image > (image[inside].mean() + image[~inside].mean()) / 2
        assert 2 * (bright & inside).sum() / (bright.sum() + inside.sum()) > 0.9


def test_strong_scales_and_shifts_stay_within_their_bounds():
    images, targets = draw_discs()
    _, moved = augment(images, targets, "augment-strong", seed=0)
    lesion = moved[..., 0] == 1
    scales = np.sqrt(lesion.sum(axis=(1, 2)) / targets[0, ..., 0].sum())
    # A pixel of the disc's rim may go either way.
    assert 0.78 < scales.min() < 0.85 and 1.18 < scales.max() < 1.28
    centres = np.array([np.argwhere(inside).mean(axis=0) for inside in lesion]) - 31.5
    assert 5 < np.abs(centres).max() < 0.1 * 64 + 0.5


def test_speckle_is_stronger_where_an_image_is_brighter(monkeypatch):
    for name, value in {"ROTATION": 0, "ZOOM": 1, "SHIFT": 0, "CONTRAST": 0, "BRIGHTNESS": 0}.items():
        monkeypatch.setattr(preprocessing, name, value)
    images, targets = draw_discs()
    speckled, _ = augment(images, targets, "augment-strong", seed=0)
    lesion = targets[0, ..., 0] == 1
    noise = (speckled - images)[..., 0]
    # The background is the darkest there is; the disc is 0.6 above it.
    assert np.abs(noise[:, ~lesion]).max() < 1e-6
    assert noise[:, lesion].std() == pytest.approx(0.1 * 0.6, rel=0.03)
