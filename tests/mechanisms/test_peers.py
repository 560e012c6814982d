"""Masks of other software beside the recipe, scored on phantoms and on numbers made by hand."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi import results
from busi.config import StudyError
from busi.dataset import splits
from busi.dataset.catalog import load_catalog, read_union
from busi.mechanisms import peers
from busi.results import NotMeasured
from busi.scoring.statistics import lesion_images


def images_of(lesions: list[float], normals: list[float], **columns) -> pd.DataFrame:
    """Make scores of one fold: Dice of the lesion images, share marked of the normal ones."""
    table = pd.DataFrame(
        {"dice": [*lesions, *[np.nan] * len(normals)], "predicted_share": [0.1] * len(lesions) + normals}
    )
    table["image_class"] = ["benign"] * len(lesions) + ["normal"] * len(normals)
    table["name"] = [f"image {number}" for number in range(len(table))]
    return table.assign(group=range(len(table)), fold=0, seed=0, **columns)


@pytest.fixture
def recipe(make_results):
    rungs = {"baseline": [0.4, 0.6], "loss": [0.5, 0.7], "pixels": [0.6, 0.8]}
    trained = make_results(
        {rung: {f"image {n}": (n, dice) for n, dice in enumerate(values)} for rung, values in rungs.items()}
    )
    images = [images_of(values, [0.0, 0.2], variant=rung, run=f"{rung} 0") for rung, values in rungs.items()]
    return results.Results(trained.runs, trained.epochs, pd.concat(images, ignore_index=True))


def test_a_peer_stands_beside_the_first_and_the_last_rung(recipe):
    table = peers.tabulate(images_of([0.3, 0.5], [0.0, 0.0], predictor="other"), recipe)
    assert table.network.tolist() == ["this study, baseline", "this study, recipe up to pixels", "other"]
    assert table.dice.tolist() == pytest.approx([0.5, 0.7, 0.4])
    # Every image changes by the same, so that the intervals have no width.
    for column in ("change", "change_low", "change_high"):
        assert table[column].tolist() == pytest.approx([np.nan, 0.2, -0.1], nan_ok=True)
    assert table.normals_fpr.tolist() == [0.5, 0.5, 0]


def test_the_conclusion_says_what_can_be_told_apart(recipe):
    scores = [images_of([0.3, 0.5], [], predictor="worse"), images_of([0.2, 0.9], [], predictor="mixed")]
    text = peers.conclude(peers.tabulate(pd.concat(scores), recipe), "64 pixels")
    assert text.endswith("Sizes of this study's networks: 64 pixels.")
    assert text.startswith("The study's baseline has Dice 0.500 (")
    assert "This study, recipe up to pixels is better than the baseline: +0.200 (+0.200 to +0.200). " in text
    assert "Worse is worse than the baseline: -0.100 (-0.100 to -0.100). " in text
    assert "Mixed cannot be told from the baseline: +0.050 (-0.200 to +0.300)." in text


@pytest.fixture
def study_of_phantoms(nothing_measured, copy_quarters):
    """A study that may measure, with 34 phantoms, their truth as one peer's masks, and no network."""
    data = copy_quarters(nothing_measured.report_path.parents[1] / "data" / "phantom")
    parameters = nothing_measured.model_copy(update={"train_missing": True})
    catalog = load_catalog(parameters)
    folder = parameters.runs_path / "peers" / "the truth"
    folder.mkdir(parents=True)
    for row in catalog.table.itertuples():
        Image.fromarray(read_union(row.masks)).save(folder / f"{row.name}.png")
    assert data == parameters.data_path
    return parameters, catalog


def test_masks_are_scored_in_the_fold_that_tests_them(study_of_phantoms):
    parameters, catalog = study_of_phantoms
    scores = peers.measure(parameters)
    assert set(scores.predictor) == {"the truth"} and len(scores) == len(catalog.table)
    assert (lesion_images(scores).dice == 1).all()
    split = splits.load_split(catalog, "grouped").set_index("name")
    assert all(
        split.loc[row.name_, f"fold{row.fold}"] == "test"
        for row in scores.rename(columns={"name": "name_"}).itertuples()
    )
    assert (scores.seed == scores.fold).all()


def test_a_peer_cannot_gain_by_leaving_images_out(study_of_phantoms):
    parameters, catalog = study_of_phantoms
    folder = parameters.runs_path / "peers" / "the truth"
    name = catalog.table.name[3]
    (folder / f"{name}.png").unlink()
    expected = re.escape(f"{folder}: no mask for 1 of {len(catalog.table)} images, such as {name}; expected one for")
    with pytest.raises(StudyError, match=expected):
        peers.measure(parameters)


def test_changed_masks_are_scored_anew_and_kept_where_they_are_gone(study_of_phantoms):
    parameters, _ = study_of_phantoms
    folder = parameters.runs_path / "peers" / "the truth"
    peers.measure(parameters)
    for file in folder.iterdir():
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(file)
    assert (lesion_images(peers.measure(parameters)).dice == 0).all()
    # In a clone that has the report alone.
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert (lesion_images(peers.measure(parameters)).dice == 0).all()


def test_a_peer_whose_masks_are_elsewhere_stays_beside_one_that_is_here(study_of_phantoms):
    parameters, catalog = study_of_phantoms
    peers.measure(parameters)
    root = parameters.runs_path / "peers"
    (root / "the truth").rename(root / "one more, v1.5")
    scores = peers.measure(parameters)
    assert scores.groupby("predictor").name.nunique().to_dict() == {
        "one more, v1.5": len(catalog.table),
        "the truth": len(catalog.table),
    }


def test_without_a_peer_nothing_is_measured(nothing_measured):
    with pytest.raises(NotMeasured, match="peers"):
        peers.measure(nothing_measured)
