"""Untrained predictors on drawings of what they look for, and their scores on a folder of phantom images."""

import numpy as np
import pandas as pd
import pytest
from skimage.draw import disk

from busi.config import RunConfig
from busi.dataset import arrays, duplicates
from busi.dataset.catalog import read_catalog, read_grey, read_union
from busi.dataset.splits import load_split
from busi.scoring import metrics, predictors, statistics

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning:surface_distance"),
    pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning"),
]

SHAPE = (300, 400)


def tissue(seed=0):
    """Draw bright speckle that fades with depth."""
    speckle = np.random.default_rng(seed).normal(0, 12, SHAPE)
    return np.clip(170 - 80 * np.linspace(0, 1, SHAPE[0])[:, None] + speckle, 0, 255).astype(np.uint8)


def circle(y, x, radius):
    inside = np.zeros(SHAPE, bool)
    inside[disk((y, x), radius, shape=SHAPE)] = True
    return inside


def darker(pixels, inside, by=70):
    return np.where(inside, np.maximum(pixels.astype(int) - by, 0), pixels).astype(np.uint8)


def test_background_finds_nothing():
    assert predictors.background(tissue()).tolist() == np.zeros(SHAPE).tolist()
    assert predictors.background(tissue()).dtype == np.float32


@pytest.mark.parametrize(("y", "x", "radius"), [(150, 200, 45), (90, 140, 30), (200, 280, 25)])
def test_a_dark_circle_is_found(y, x, radius):
    lesion = circle(y, x, radius)
    predicted = predictors.darkest_blob(darker(tissue(), lesion))
    assert predicted.dtype == bool
    assert metrics.dice(lesion, predicted) > 0.85


def test_what_the_depth_makes_dark_is_no_blob():
    # The lesion near the surface is brighter than bare tissue near the bottom.
    lesion = circle(80, 200, 35)
    pixels = darker(tissue(), lesion, by=50)
    assert pixels[lesion].mean() > pixels[-50:].mean()
    assert metrics.dice(lesion, predictors.darkest_blob(pixels)) > 0.85


def test_a_shadow_at_the_border_is_passed_over_for_a_lesion():
    lesion, shadow = circle(150, 220, 30), np.zeros(SHAPE, bool)
    shadow[100:, :60] = True
    predicted = predictors.darkest_blob(darker(darker(tissue(), lesion), shadow))
    assert not (predicted & shadow).any()
    assert metrics.dice(lesion, predicted) > 0.8


def test_a_lesion_cut_off_by_the_border_is_taken_where_there_is_no_other():
    lesion = circle(150, 0, 60)
    assert metrics.dice(lesion, predictors.darkest_blob(darker(tissue(), lesion))) > 0.8


def test_the_larger_and_the_nearer_to_the_middle_is_taken():
    small, large = circle(150, 120, 20), circle(150, 280, 40)
    assert metrics.dice(large, predictors.darkest_blob(darker(tissue(), small | large))) > 0.85
    middle, aside = circle(150, 200, 30), circle(60, 60, 30)
    assert metrics.dice(middle, predictors.darkest_blob(darker(tissue(), middle | aside))) > 0.85


def test_a_compact_patch_is_taken_before_a_ragged_one_of_equal_area():
    lesion, cross = circle(150, 280, 30), np.zeros(SHAPE, bool)
    cross[140:160, 80:160] = cross[110:190, 110:130] = True
    assert metrics.dice(lesion, predictors.darkest_blob(darker(tissue(), lesion | cross))) > 0.85


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
def phantoms(quarters_dir):
    """Return enough phantom images for a split."""
    return read_catalog(quarters_dir, expected=None)


CONFIG = RunConfig(protocol="heldout", image_size=16)


@pytest.fixture(scope="module")
def scored(phantoms):
    return predictors.score_untrained(phantoms, CONFIG)


def of(scored, predictor):
    """Return images and pixels of one predictor."""
    return [table[table.predictor == predictor].reset_index(drop=True) for table in scored]


def summarize(scored, predictor):
    images, pixels = of(scored, predictor)
    return statistics.summarize(images, pd.DataFrame([metrics.pool_pixels(pixels)]))


def test_tables_name_the_predictors_first(scored):
    for table in scored:
        assert table.columns[0] == "predictor"
        assert list(dict.fromkeys(table.predictor)) == [*predictors.PREDICTORS, predictors.PERFECT]
    assert scored.images.columns[:5].tolist() == ["predictor", "image_class", "name", "group", "lesion_share"]


@pytest.mark.parametrize("predictor", predictors.LOOKING)
def test_every_image_is_scored_as_a_network_scores_it(phantoms, scored, predictor):
    images, _ = of(scored, predictor)
    assert images.name.to_list() == phantoms.table.name.to_list()
    assert images.image_class.to_list() == phantoms.table.image_class.to_list()
    assert images.group.to_list() == duplicates.group_images(phantoms).tolist()
    assert images.lesion_share.to_list() == phantoms.table.lesion_share.to_list()
    for row, image in zip(images.itertuples(), phantoms.table.itertuples(), strict=True):
        probability = predictors.LOOKING[predictor](read_grey(image.image)).astype(np.float32)
        expected = metrics.score_image(read_union(image.masks), probability, 0.5)
        assert {score: getattr(row, score) for score in expected} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("predictor", predictors.PREDICTORS)
def test_pixels_are_those_of_the_lesion_images(phantoms, scored, predictor):
    lesions = phantoms.lesions
    area = lesions.height * lesions.width
    inside = round((area * lesions.lesion_share).sum())
    _, pixels = of(scored, predictor)
    assert (pixels.lesion.sum(), pixels.background.sum()) == (inside, area.sum() - inside)
    assert len(pixels) == metrics.BINS
    if predictor == predictors.CONSTANT:
        assert pixels.lesion[0] == inside


def test_the_constant_stands_at_its_floor(phantoms, scored):
    row = summarize(scored, predictors.CONSTANT)
    assert (row["dice"], row["iou"], row["detected"], row["normals_fpr"], row["normals_area"]) == (0, 0, 0, 0, 0)
    assert row["auc"] == 0.5
    assert row["accuracy"] == pytest.approx(1 - phantoms.lesions.lesion_share.mean())
    assert row["hd95"] == pytest.approx(np.hypot(phantoms.lesions.height, phantoms.lesions.width).mean())


def test_scores_of_lesion_everywhere_follow_from_the_lesion_s_share(scored):
    """For a lesion share s: recall 1, precision s, Dice 2 s / (1 + s), accuracy s."""
    images, _ = of(scored, predictors.EVERYTHING)
    lesions = statistics.lesion_images(images)
    share = lesions.lesion_share
    assert (lesions.recall == 1).all()
    for name, expected in (("precision", share), ("dice", 2 * share / (1 + share)), ("accuracy", share)):
        assert lesions[name].to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-9)


def test_looking_beats_not_looking(scored):
    looking = summarize(scored, predictors.BLOB)
    assert looking["dice_low"] > 0
    assert looking["auc"] > 0.5


# The mean mask and the ceiling


def test_the_mean_mask_is_that_of_the_training_part_of_the_fold_that_tests_the_image(phantoms, scored):
    """Each mean is computed again from the files, image by image, and each threshold by trying all of them."""
    images, _ = of(scored, predictors.MEAN_MASK)
    split = load_split(phantoms, "grouped")
    masks = {row.name: read_union(row.masks) for row in phantoms.table.itertuples(index=False)}
    sizes = {row.name: (row.height, row.width) for row in phantoms.table.itertuples(index=False)}
    lesions = split.image_class != "normal"
    for fold in (0, 3):
        parts = {part: split.name[(split[f"fold{fold}"] == part) & lesions] for part in ("training", "validation")}
        mean = np.mean([arrays.lesion_channel(masks[name], CONFIG) for name in parts["training"]], axis=0)
        best = (0.0, 0.0)
        for threshold in np.arange(1, 100) / 100:
            dices = []
            for name in parts["validation"]:
                dices.append(metrics.dice(masks[name], arrays.restore(mean, *sizes[name], CONFIG) >= threshold))
            best = max(best, (np.mean(dices), -threshold))
        tested = images[images.name.isin(split.name[split[f"fold{fold}"] == "test"])]
        for row in tested.dropna(subset="dice").itertuples():
            predicted = arrays.restore(mean, *sizes[row.name], CONFIG) >= -best[1]
            assert row.dice == pytest.approx(metrics.dice(masks[row.name], predicted), abs=1e-9)


def test_a_perfect_mask_at_network_size_is_not_perfect(scored):
    """What the target loses on its way to the network and back is lost for every network."""
    images, _ = of(scored, predictors.PERFECT)
    lesions = statistics.lesion_images(images)
    assert lesions.dice.mean() > 0.7 and lesions.dice.max() < 1
    assert lesions.nsd.mean() < 1
    assert (images.predicted_share[images.image_class == "normal"] == 0).all()


def test_a_larger_network_has_a_higher_ceiling(phantoms, scored):
    larger = predictors.score_untrained(phantoms, CONFIG.model_copy(update={"image_size": 64}))
    low, high = (statistics.lesion_images(of(each, predictors.PERFECT)[0]) for each in (scored, larger))
    assert high.nsd.mean() > low.nsd.mean() and high.dice.mean() > low.dice.mean()
