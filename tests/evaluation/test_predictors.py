"""Predictors without training: on drawings that say what is looked for, and on a folder against scores by hand."""

import numpy as np
import pandas as pd
import pytest
from skimage.draw import disk

from busi.config import StudyError
from busi.dataset import arrays, catalog
from busi.evaluation import metrics, predictors, statistics

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning:surface_distance"),
    pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning"),
]

SHAPE = (300, 400)


def tissue(seed=0):
    """Bright speckle that fades with depth."""
    speckle = np.random.default_rng(seed).normal(0, 12, SHAPE)
    return np.clip(170 - 80 * np.linspace(0, 1, SHAPE[0])[:, None] + speckle, 0, 255).astype(np.uint8)


def circle(y, x, radius):
    inside = np.zeros(SHAPE, bool)
    inside[disk((y, x), radius, shape=SHAPE)] = True
    return inside


def darker(pixels, inside, by=70):
    return np.where(inside, np.maximum(pixels.astype(int) - by, 0), pixels).astype(np.uint8)


def dice(truth, predicted):
    return metrics.per_image(truth, predicted.astype(np.float32), 0.5)["dice"]


def test_background_finds_nothing():
    assert predictors.background(tissue()).tolist() == np.zeros(SHAPE).tolist()
    assert predictors.background(tissue()).dtype == np.float32


@pytest.mark.parametrize(("y", "x", "radius"), [(150, 200, 45), (90, 140, 30), (200, 280, 25)])
def test_a_dark_circle_is_found(y, x, radius):
    lesion = circle(y, x, radius)
    found = predictors.darkest_blob(darker(tissue(), lesion))
    assert found.dtype == bool
    assert dice(lesion, found) > 0.85


def test_what_the_depth_makes_dark_is_no_blob():
    # The lesion near the surface is brighter than bare tissue near the bottom.
    lesion = circle(80, 200, 35)
    pixels = darker(tissue(), lesion, by=50)
    assert pixels[lesion].mean() > pixels[-50:].mean()
    assert dice(lesion, predictors.darkest_blob(pixels)) > 0.85


def test_a_shadow_at_the_border_is_passed_over_for_a_lesion():
    lesion, shadow = circle(150, 220, 30), np.zeros(SHAPE, bool)
    shadow[100:, :60] = True
    found = predictors.darkest_blob(darker(darker(tissue(), lesion), shadow))
    assert not (found & shadow).any()
    assert dice(lesion, found) > 0.8


def test_a_lesion_cut_off_by_the_border_is_taken_where_there_is_no_other():
    lesion = circle(150, 0, 60)
    assert dice(lesion, predictors.darkest_blob(darker(tissue(), lesion))) > 0.8


def test_the_larger_and_the_nearer_to_the_middle_is_taken():
    small, large = circle(150, 120, 20), circle(150, 280, 40)
    assert dice(large, predictors.darkest_blob(darker(tissue(), small | large))) > 0.85
    middle, aside = circle(150, 200, 30), circle(60, 60, 30)
    assert dice(middle, predictors.darkest_blob(darker(tissue(), middle | aside))) > 0.85


def test_a_compact_patch_is_taken_before_a_ragged_one_of_equal_area():
    lesion, cross = circle(150, 280, 30), np.zeros(SHAPE, bool)
    cross[140:160, 80:160] = cross[110:190, 110:130] = True
    assert dice(lesion, predictors.darkest_blob(darker(tissue(), lesion | cross))) > 0.85


def test_only_darkness_counts_not_its_unit():
    pixels = darker(tissue(), circle(150, 200, 45))
    assert (predictors.darkest_blob(pixels) == predictors.darkest_blob((pixels / 2).astype(np.uint8))).mean() > 0.99


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_image_of_one_level_has_no_blob(level):
    assert not predictors.darkest_blob(np.full(SHAPE, level, np.uint8)).any()


def test_layers_that_only_depth_tells_apart_have_no_blob():
    layers = np.repeat(np.linspace(200, 20, SHAPE[0]).astype(np.uint8)[:, None], SHAPE[1], axis=1)
    assert not predictors.darkest_blob(layers).any()


@pytest.fixture(scope="module")
def phantoms(phantom_dir):
    return catalog.read(phantom_dir, expected=None)


@pytest.fixture(scope="module")
def scored(phantoms):
    names = phantoms.table.name
    return predictors.scored(phantoms, pd.Series(range(100, 100 + len(names)), index=names).iloc[::-1])


def test_all_are_scored_on_every_image_as_a_network_is(phantoms, scored):
    assert list(scored) == ["constant", "everything", "darkest blob"]
    for name, predict in predictors.PREDICTORS.items():
        table = scored[name].per_image
        assert table.name.to_list() == phantoms.table.name.to_list()
        assert table.group.to_list() == list(range(100, 100 + len(table)))
        assert table.lesion_share.to_list() == phantoms.table.lesion_share.to_list()
        for row, image in zip(table.itertuples(), phantoms.table.itertuples(), strict=True):
            predicted = predict(catalog.grey(image.image)).astype(np.float32)
            expected = metrics.per_image(arrays.union(image.masks), predicted, 0.5)
            assert {score: getattr(row, score) for score in expected} == pytest.approx(expected, nan_ok=True)


def test_bins_hold_the_pixels_of_the_lesion_images(phantoms, scored):
    lesions = phantoms.lesions
    pixels = (lesions.height * lesions.width).sum()
    inside = round((lesions.height * lesions.width * lesions.lesion_share).sum())
    for found in scored.values():
        assert (found.bins.lesion.sum(), found.bins.background.sum()) == (inside, pixels - inside)
        assert len(found.bins) == metrics.BINS
    assert scored["constant"].bins.lesion[0] == inside


def test_the_constant_stands_at_its_floor(phantoms, scored):
    row = statistics.summary(*scored["constant"])
    assert (row["dice"], row["iou"], row["detected"], row["normals_fpr"], row["normals_area"]) == (0, 0, 0, 0, 0)
    assert row["auc"] == 0.5
    assert row["accuracy"] == pytest.approx(1 - phantoms.lesions.lesion_share.mean())
    assert row["hd95"] == pytest.approx(np.hypot(phantoms.lesions.height, phantoms.lesions.width).mean())


def test_everything_scores_what_the_lesion_s_share_alone_makes_of_it(scored):
    """All of the lesion and all of the rest inside: recall 1, precision s, Dice 2 s / (1 + s), accuracy s."""
    images = scored["everything"].per_image
    lesions = images[images.image_class != "normal"]
    share = lesions.lesion_share
    assert (lesions.recall == 1).all()
    for name, expected in (("precision", share), ("dice", 2 * share / (1 + share)), ("accuracy", share)):
        assert lesions[name].to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-9)


def test_looking_beats_not_looking(scored):
    looking = statistics.summary(*scored["darkest blob"])
    assert looking["dice_low"] > 0
    assert looking["auc"] > 0.5


def test_an_image_without_a_group_is_named(phantoms):
    groups = pd.Series(0, index=phantoms.table.name.drop(3))
    with pytest.raises(StudyError, match=r"groups: none for 1 of the images, among them benign \(4\); expected all"):
        predictors.scored(phantoms, groups)
