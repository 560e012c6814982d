"""Scores of a held-out run: computed from its predictions, kept beside them, and renewed without training."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from small_study import make_study

from busi.config import RunConfig, StudyError
from busi.dataset import arrays, splits
from busi.dataset.catalog import Catalog, read_catalog, read_union
from busi.runs import Run
from busi.scoring import metrics, scores

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning:surface_distance")

CONFIG = RunConfig(protocol="heldout", image_size=32, fold=1)
THRESHOLD = 0.37


@pytest.fixture(autouse=True, scope="module")
def study_folder(tmp_path_factory):
    """Work in a study without splits, with a cache of its own."""
    folder = make_study(tmp_path_factory.mktemp("here") / "study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def phantoms(study_folder, copy_quarters):
    return copy_quarters(study_folder / "data")


@pytest.fixture(scope="module")
def catalog(phantoms):
    return read_catalog(phantoms, expected=None)


@pytest.fixture(scope="module")
def test_part(catalog):
    """Return the rows of the catalog that the run has not been trained on."""
    split = splits.load_split(catalog, "grouped")
    return catalog.table[split.fold1 == "test"]


@pytest.fixture
def run(tmp_path, catalog, test_part):
    """Write a run that predicts every lesion roughly, at the size of its network."""
    draw = np.random.default_rng(0)
    outputs = []
    for masks in test_part.masks:
        lesion = arrays.lesion_channel(read_union(masks), CONFIG)
        noise = draw.random(lesion.shape, dtype=np.float32)
        outputs.append(0.5 * lesion + 0.5 * noise)
    folder = tmp_path / "fold1-seed0-12345678"
    folder.mkdir()
    write_predictions(folder, test_part.name, outputs)
    (folder / "outcome.json").write_text(json.dumps({"threshold": THRESHOLD}), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"fingerprint": catalog.fingerprint}), encoding="utf-8")
    return Run(folder, CONFIG)


def write_predictions(folder, names, outputs):
    names, outputs = np.array(names, dtype=str), np.stack(outputs)
    np.savez_compressed(folder / "predictions.npz", test_names=names, test_probability=outputs)


def restored(run, test_part):
    """Return truth and probability of each test image at its original size."""
    pairs = []
    for output, row in zip(run.predictions["test"].probability, test_part.itertuples(), strict=True):
        probability = arrays.restore(output, row.height, row.width, run.config)
        pairs.append((read_union(row.masks), probability))
    return pairs


# What is scored


def test_every_image_of_the_test_part_is_scored_once_and_described(run, catalog, test_part):
    images = scores.score_run(run, catalog).images
    assert len(images) == len(test_part) >= 5
    for column in ("image_class", "name", "lesion_share"):
        assert images[column].to_list() == test_part[column].to_list()
    split = splits.load_split(catalog, "grouped").set_index("name")
    assert images.group.to_list() == split.group[images.name].to_list()


def test_names_that_look_like_numbers_or_gaps_are_kept(run, catalog, test_part):
    """Scores are read back from a file."""
    numbers = {name: f"{number:06}" for number, name in enumerate(catalog.table.name)}
    numbers[test_part.name.iloc[0]] = "NA"
    numbered = Catalog(catalog.table.assign(name=catalog.table.name.map(numbers)), catalog.fingerprint)
    names = [numbers[name] for name in test_part.name]
    write_predictions(run.folder, names, run.predictions["test"].probability)
    assert scores.find_or_score(run, numbered).images.name.to_list() == names


def test_columns_stand_in_the_order_of_the_files(run, catalog):
    images, pixels = scores.score_run(run, catalog)
    described = ["image_class", "name", "group", "lesion_share"]
    measured = ["dice", "iou", "precision", "recall", "hd95", "nsd", "detected", "accuracy", "brier"]
    measured += ["predicted_share", "peak"]
    assert images.columns.to_list() == described + measured
    assert pixels.columns.to_list() == ["probability", "lesion", "background"]


def test_dice_is_that_at_the_original_size_against_all_masks(run, catalog, test_part):
    images = scores.score_run(run, catalog).images
    for (truth, probability), row in zip(restored(run, test_part), images.itertuples(), strict=True):
        predicted = probability >= THRESHOLD
        if row.image_class == "normal":
            assert np.isnan(row.dice)
        else:
            assert row.dice == pytest.approx(f1_score(truth.ravel(), predicted.ravel()), abs=1e-12)
        assert row.predicted_share == predicted.mean()


def test_normals_have_only_the_scores_of_pixels(run, catalog):
    images = scores.score_run(run, catalog).images
    normals = images[images.image_class == "normal"]
    assert len(normals) >= 1
    missing = {column for column in normals if normals[column].isna().all()}
    assert missing == set(metrics.LESION_SCORES)
    # Everything that is predicted lesion there is wrong, and the rest is right.
    assert normals.accuracy.to_numpy() == pytest.approx(1 - normals.predicted_share.to_numpy())
    assert not images[images.image_class != "normal"].isna().any(axis=None)


def test_the_peak_is_that_of_the_map_before_small_regions_are_removed(run, catalog):
    """Otherwise a lesion that lost to a larger region would count as missed at every threshold."""
    whole = scores.score_run(run, catalog).images
    largest = Run(run.folder, run.config.model_copy(update={"largest_component": True}))
    kept = scores.score_run(largest, catalog).images
    assert (kept.predicted_share < whole.predicted_share).any()
    pd.testing.assert_series_equal(kept.peak, whole.peak)


def test_pixels_are_those_of_the_lesion_images(run, catalog, test_part):
    pixels = scores.score_run(run, catalog).pixels
    pairs = [(truth, probability) for truth, probability in restored(run, test_part) if truth.any()]
    truth = np.concatenate([truth.ravel() for truth, _ in pairs])
    probability = np.concatenate([probability.ravel() for _, probability in pairs])
    assert len(pixels) == metrics.BINS
    assert (pixels.lesion.sum(), pixels.background.sum()) == (truth.sum(), (~truth).sum())
    # The middle of a bin differs from its pixels by half a bin at most.
    mean = np.average(pixels.probability, weights=pixels.lesion)
    assert mean == pytest.approx(probability[truth].mean(), abs=0.0005)


def test_predictions_are_matched_with_images_by_name(run, catalog):
    expected = scores.score_run(run, catalog)
    names, probability = run.predictions["test"]
    write_predictions(run.folder, names[::-1], list(probability[::-1]))
    reversed_scores = scores.score_run(run, catalog)
    for table, other in zip(reversed_scores, expected, strict=True):
        pd.testing.assert_frame_equal(table, other, check_exact=True)


def test_masks_of_other_data_are_refused(run, catalog):
    other = Catalog(catalog.table, "0123456789abcdef")
    with pytest.raises(StudyError, match=r"fold1-seed0-12345678: trained on data .* masks of data 0123456789abcdef"):
        scores.find_or_score(run, other)
    assert not list(run.folder.glob("scores*"))


# What is kept


def scores_folder(run):
    return run.folder / f"scores-{scores.scoring_version()}"


def test_scores_are_kept_with_six_digits_and_read_back(run, catalog):
    computed = scores.score_run(run, catalog)
    first = scores.find_or_score(run, catalog)
    assert sorted(file.name for file in scores_folder(run).iterdir()) == ["images.csv", "pixels.csv"]
    pd.testing.assert_frame_equal(first.images, computed.images, check_dtype=False, rtol=0, atol=5.1e-7)
    assert (first.images.brier == first.images.brier.round(6)).all()
    pd.testing.assert_frame_equal(first.pixels, computed.pixels)


def test_a_second_call_reads_what_the_first_has_written(run, catalog, monkeypatch):
    first = scores.find_or_score(run, catalog)
    monkeypatch.setattr(scores, "score_run", None)
    second = scores.find_or_score(run, catalog)
    for table, other in zip(second, first, strict=True):
        pd.testing.assert_frame_equal(table, other, check_exact=True)


def test_scores_of_another_version_are_computed_again_and_removed(run, catalog, monkeypatch):
    scores.find_or_score(run, catalog)
    old = scores_folder(run)
    (old / "images.csv").write_text("of another version", encoding="utf-8")
    monkeypatch.setattr(scores, "scoring_version", lambda: "other")
    images = scores.find_or_score(run, catalog).images
    assert [folder.name for folder in run.folder.glob("scores*")] == ["scores-other"]
    assert images.dice.max() > 0.5


def test_scores_cut_short_by_a_kill_are_computed_again(run, catalog):
    unfinished = run.folder / "scores.unfinished"
    unfinished.mkdir()
    (unfinished / "images.csv").write_text("image_class,na", encoding="utf-8")
    images = scores.find_or_score(run, catalog).images
    assert len(images) == len(run.predictions["test"].names)
    assert [folder.name for folder in run.folder.glob("scores*")] == [scores_folder(run).name]


def test_two_at_once_score_a_run_once(run, catalog, monkeypatch):
    calls = []
    compute = scores.score_run

    def count(*arguments):
        calls.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(scores, "score_run", count)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(scores.find_or_score, run, catalog) for _ in range(2)]
        one, other = (each.result() for each in waiting)
    assert len(calls) == 1
    pd.testing.assert_frame_equal(one.images, other.images, check_exact=True)
