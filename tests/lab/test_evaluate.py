"""Evaluation: networks on what they were not trained on, and masks that a script outside of the package has made."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from busi import study
from busi.config import RunConfig, StudyError
from busi.dataset.catalog import DataWarning, read_catalog
from busi.dataset.convert import convert_catalog
from busi.lab import evaluate, networks
from busi.lab.networks import Network
from busi.runs import Run
from busi.scoring import metrics, predictors, ruler

KLD, RAW = "loss: KLD", "data: No preprocess"

DARKEST_BLOB = '''
"""Mark the darkest blob of each image: a program of somebody who has never seen this package."""
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from skimage import filters, measure, morphology, segmentation, transform

assert not any(name.startswith("busi") for name in sys.modules)
data, out = map(Path, sys.argv[1:])
for file in data.glob("*/*.png"):
    if "_mask" in file.stem:
        continue
    image = np.array(Image.open(file).convert("L"))
    size = [side * 128 // min(image.shape) for side in image.shape]
    small = filters.gaussian(transform.resize(image, size, anti_aliasing=True), 2.5)
    small = small - np.median(small, axis=1)[:, None]
    mask = np.zeros(image.shape, bool)
    if small.max() - small.min() >= 1 / 255:
        dark = morphology.isotropic_opening(small <= filters.threshold_multiotsu(small)[0], 2.5)
        inner = segmentation.clear_border(dark)
        labels = measure.label(inner if inner.any() else dark)
        def rating(region):
            y, x = region.centroid
            nearness = (1 - abs(2 * y / size[0] - 1)) * (1 - abs(2 * x / size[1] - 1))
            return region.area * region.solidity * nearness
        regions = measure.regionprops(labels)
        if regions:
            mask = transform.resize(labels == max(regions, key=rating).label, image.shape, order=0)
    Image.fromarray(mask.astype(np.uint8) * 255).save(out / file.name)
'''


def read(folder, name):
    return pd.read_csv(folder / f"{name}.csv")


def test_masks_of_a_foreign_script_score_to_the_digit_what_the_study_s_own_row_says(laboratory, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    (tmp_path / "blob.py").write_text(DARKEST_BLOB)
    data = laboratory.root / "data" / "phantom"
    # -I: neither this folder nor PYTHONPATH, so that the package cannot be imported by chance.
    subprocess.run([sys.executable, "-I", str(tmp_path / "blob.py"), str(data), str(masks)], check=True)
    evaluate.evaluate_predictors(laboratory.catalog, [], [masks], tmp_path / "out")
    images = read(tmp_path / "out", "images")
    foreign = images[images.predictor == str(masks)].set_index("name")
    own, _ = study.measure_untrained(laboratory.parameters)
    own = own[own.predictor == predictors.BLOB].set_index("name")
    assert len(foreign) == len(own) == 34
    scores = [*metrics.LESION_SCORES, *metrics.PIXEL_SCORES]
    scores.remove("peak")  # not known of masks whose smaller regions may have been removed
    pd.testing.assert_frame_equal(foreign[scores], own.loc[foreign.index, scores], rtol=0, atol=0)
    assert 0 < foreign.dice.mean() < 1
    table = read(tmp_path / "out", "scores").set_index("predictor")
    assert table.loc[str(masks), "dice"] == pytest.approx(own.dice.mean(), abs=1e-6)
    assert table.loc[str(masks)].drop("answered").equals(table.loc[predictors.BLOB].drop("answered"))


def test_networks_are_asked_only_about_images_that_they_held_out(laboratory):
    variant = laboratory.variants[KLD]
    answers = list(evaluate.ask_networks(list(variant.runs), laboratory.catalog))
    held_out = [name for run in variant.runs for name in run.predictions["test"].names]
    assert sorted(answer.name for answer in answers) == sorted(held_out)
    for answer in answers:
        case = variant.case(answer.name)
        np.testing.assert_allclose(answer.probability, case.probability, atol=1e-6)
        assert answer.threshold == case.threshold


def test_a_published_run_is_asked_about_none_of_the_images_it_was_trained_on(laboratory, tmp_path):
    """It has seen every lesion image and has no test part, so that no score of its own would be a fair one."""
    heldout = laboratory.variants[RAW].runs[0]
    folder = shutil.copytree(heldout.folder, tmp_path / "published")
    names = laboratory.catalog.lesions.name.to_numpy().astype(str)
    np.savez(folder / "predictions.npz", training_names=names, training_probability=np.zeros((len(names), 32, 32)))
    published = Run(folder, RunConfig(image_size=32, padding="same"))
    with pytest.raises(StudyError, match="published: trained on every image of these data"):
        list(evaluate.ask_networks([published], laboratory.catalog))
    # Beside a run that held images out it takes no part.
    answers = {answer.name: answer for answer in evaluate.ask_networks([published, heldout], laboratory.catalog)}
    assert sorted(answers) == sorted(heldout.predictions["test"].names)
    for name, answer in answers.items():
        np.testing.assert_allclose(answer.probability, laboratory.variants[RAW].case(name).probability, atol=1e-6)


def rename(catalog):
    """Return a catalog whose images have names that no run knows."""
    return replace(catalog, table=catalog.table.assign(name="other " + catalog.table.name))


def test_on_other_data_networks_are_averaged_over_all_images(laboratory, phantom_dir):
    runs = list(laboratory.variants[KLD].runs)
    other = rename(read_catalog(phantom_dir, expected=None))
    answers = {answer.name: answer for answer in evaluate.ask_networks(runs, other)}
    assert sorted(answers) == sorted(other.table.name)
    pixels, _ = networks.read_picture(other, "other malignant (2)")
    expected = Network(*runs).probability(pixels)
    np.testing.assert_allclose(answers["other malignant (2)"].probability, expected, atol=1e-6)


@pytest.mark.parametrize("form", ["images-masks", "nnunet"])
def test_a_copy_in_another_form_does_not_score_a_network_on_what_it_was_trained_on(laboratory, tmp_path, form):
    run = laboratory.variants[RAW].runs[0]
    parts = run.predictions
    known = len(parts["test"].names) + len(parts["validation"].names)
    copy = read_catalog(convert_catalog(laboratory.catalog, tmp_path / "copy", form), expected=None)
    assert copy.fingerprint != laboratory.catalog.fingerprint and known < len(copy.table)
    with pytest.raises(StudyError, match=rf"fold0-seed0-\w+: {known} of these 34 images are named .*, e\.g\. benign"):
        evaluate.evaluate_predictors(copy, [run], [], tmp_path / "out")
    # One of them is enough.
    few = copy.table[copy.table.name.isin(parts["validation"].names[:1])]
    with pytest.raises(StudyError, match="1 of these 1 images"):
        list(evaluate.ask_networks([run], replace(copy, table=few)))
    assert len(list(evaluate.ask_networks([run], rename(copy)))) == 34


def test_missing_images_are_named_and_the_page_says_so(laboratory, tmp_path):
    masks = tmp_path / "<masks>"
    masks.mkdir()
    names = [name for name in laboratory.catalog.table.name if not name.startswith("normal")]
    for name in names[2:]:
        Image.new("L", (8, 8), 255).save(masks / f"{name}.png")
    run = laboratory.variants[RAW].runs[0]
    tested = set(run.predictions["test"].names)
    left_out = 34 - len(tested & set(names[2:]))
    with pytest.warns(DataWarning, match=f"^{left_out} of 34 images are left out of every row"):
        table = evaluate.evaluate_predictors(laboratory.catalog, [run], [masks], tmp_path / "out")
    assert table.answered.tolist() == [len(tested), len(names) - 2, 34, 34, 34]
    assert table.n_images.eq(len(tested & set(names[2:]))).all()
    missing = read(tmp_path / "out", "missing")
    assert set(missing.name[missing.predictor == str(masks)]) == set(laboratory.catalog.table.name) - set(names[2:])
    page = BeautifulSoup((tmp_path / "out" / "index.html").read_text(encoding="utf-8"), "html.parser")
    listed = [row.find_all(["th", "td"]) for row in page.select("table")[1].select("tbody tr")]
    assert [(row[0].get_text(), row[1].get_text()) for row in listed] == list(
        missing.itertuples(index=False, name=None)
    )
    cells = [cell.get_text() for cell in page.select("tbody tr")[0].find_all(["th", "td"])]
    assert cells[0] == run.config.label
    assert cells[2].startswith(f"{table.dice[0]:.3f} ({table.dice_low[0]:.3f}")


def test_the_mean_mask_has_the_score_of_the_study_s_own_row(laboratory, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in laboratory.catalog.table.name:
        Image.new("L", (8, 8)).save(masks / f"{name}.png")
    table = evaluate.evaluate_predictors(laboratory.catalog, [], [masks], tmp_path / "out").set_index("predictor")
    own = predictors.score_untrained(laboratory.catalog, ruler.SIZE).images
    own = own[own.predictor == predictors.MEAN_MASK]
    for score in ("dice", "accuracy"):
        assert table.loc[predictors.MEAN_MASK, score] == pytest.approx(
            own.dropna(subset="dice")[score].mean(), abs=1e-6
        )
    assert table.dice[str(masks)] == 0 < table.dice[predictors.MEAN_MASK]


def test_few_images_are_scored_without_a_mean_mask(laboratory, tmp_path, recwarn):
    few = replace(laboratory.catalog, table=laboratory.catalog.table[:3], fingerprint="other")
    run = laboratory.variants[RAW].runs[0]
    table = evaluate.evaluate_predictors(rename(few), [run], [], tmp_path / "out")
    said = [str(warning.message) for warning in recwarn if warning.category is DataWarning]
    assert len(said) == 1 and said[0].startswith("no row 'Mean mask': 3 images")
    assert table.n_images.tolist() == [3, 3, 3]


def test_nothing_to_score_and_a_folder_that_exists_are_refused(laboratory, tmp_path):
    with pytest.raises(StudyError, match="give a run, or a folder of masks"):
        evaluate.evaluate_predictors(laboratory.catalog, [], [], tmp_path / "out")
    run = laboratory.variants[RAW].runs[0]
    with pytest.raises(StudyError, match="exists; nothing is overwritten"):
        evaluate.evaluate_predictors(laboratory.catalog, [run], [], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_scored(laboratory, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(ruler, "score_answers", None)
    run = laboratory.variants[RAW].runs[0]
    with pytest.raises(StudyError, match=r"file.new.out: cannot be made \(.*Not a directory"):
        evaluate.evaluate_predictors(laboratory.catalog, [run], [], tmp_path / "file" / "new" / "out")


def test_folders_without_masks_are_told_before_networks_are_asked(laboratory, tmp_path, monkeypatch):
    monkeypatch.setattr(ruler, "score_answers", None)
    run = laboratory.variants[RAW].runs[0]
    with pytest.raises(StudyError, match="nope: no such folder"):
        evaluate.evaluate_predictors(laboratory.catalog, [run], [tmp_path / "nope"], tmp_path / "out")


@pytest.mark.parametrize("name", [predictors.MEAN_MASK, "Darkest blob"])
def test_a_folder_of_masks_cannot_take_the_place_of_a_blind_predictor(laboratory, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    with pytest.raises(StudyError, match=f"{name}: the name of a predictor"):
        evaluate.evaluate_predictors(laboratory.catalog, [], [Path(name)], tmp_path / "out")


def test_what_fails_half_way_leaves_nothing_behind(laboratory, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(evaluate.layout, "write_html", fail)
    run = laboratory.variants[RAW].runs[0]
    with pytest.raises(OSError, match="disk full"):
        evaluate.evaluate_predictors(laboratory.catalog, [run], [], tmp_path / "new" / "out")
    assert not list(tmp_path.iterdir())
