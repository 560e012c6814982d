"""Data sets and folds for other software hold what the study reads."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi.config import StudyError
from busi.dataset.catalog import Catalog, read_catalog, read_grey, read_union
from busi.dataset.convert import convert_catalog, format_split, write_split
from busi.dataset.splits import load_split


@pytest.fixture(scope="module")
def phantoms(phantom_dir):
    return read_catalog(phantom_dir, expected=None)


@pytest.fixture(scope="module")
def split(quarters_dir):
    return load_split(read_catalog(quarters_dir, expected=None), "grouped")


@pytest.mark.parametrize(
    ("layout", "image", "mask", "white"),
    [("images-masks", "images/{}.png", "masks/{}.png", 255), ("nnunet", "imagesTr/{}_0000.png", "labelsTr/{}.png", 1)],
)
def test_a_converted_set_holds_the_same_pixels(phantoms, tmp_path, layout, image, mask, white):
    out = convert_catalog(phantoms, tmp_path / "out", layout)
    assert len(list(out.rglob("*.png"))) == 2 * len(phantoms.table)
    for row in phantoms.table.itertuples():
        pixels = np.asarray(Image.open(out / image.format(row.name)))
        inside = np.asarray(Image.open(out / mask.format(row.name)))
        assert pixels.dtype == inside.dtype == np.uint8
        np.testing.assert_array_equal(pixels, read_grey(row.image))
        np.testing.assert_array_equal(inside, read_union(row.masks) * white)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_nnunet_is_told_how_to_read_the_set(phantoms, tmp_path):
    content = json.loads((convert_catalog(phantoms, tmp_path / "out", "nnunet") / "dataset.json").read_text())
    assert content == {
        "channel_names": {"0": "ultrasound"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 12,
        "file_ending": ".png",
    }


def test_nothing_is_converted_over_a_folder(phantoms, tmp_path):
    with pytest.raises(StudyError, match="exists; nothing is overwritten"):
        convert_catalog(phantoms, tmp_path, "nnunet")
    assert not list(tmp_path.iterdir())


def test_a_conversion_that_fails_leaves_nothing_and_takes_nothing(phantoms, tmp_path):
    """The second image is gone; a folder of somebody's that is named like an unfinished one stays."""
    kept = tmp_path / "out.unfinished" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine", encoding="utf-8")
    table = phantoms.table.copy()
    table.loc[1, "image"] = str(tmp_path / "gone.png")
    with pytest.raises(StudyError, match=r"gone\.png"):
        convert_catalog(Catalog(table, "other"), tmp_path / "out", "images-masks")
    convert_catalog(phantoms, tmp_path / "other", "images-masks")
    assert {path.name for path in tmp_path.iterdir()} == {"other", "out.unfinished"}
    assert kept.read_text(encoding="utf-8") == "mine"


def test_json_folds_are_those_of_the_split(split):
    folds = json.loads(format_split(split, "json"))
    assert len(folds) == 5
    for number, fold in enumerate(folds):
        part = dict(zip(split.name, split[f"fold{number}"], strict=True))
        assert {name: key for key, names in fold.items() for name in names} == part
        assert sum(map(len, fold.values())) == len(split)


def test_nnunet_s_folds_validate_on_the_test_part_and_train_on_the_rest(split):
    folds = json.loads(format_split(split, "nnunet"))
    assert len(folds) == 5
    for number, fold in enumerate(folds):
        assert list(fold) == ["train", "val"]
        is_tested = split[f"fold{number}"] == "test"
        assert sorted(fold["val"]) == sorted(split.name[is_tested])
        assert sorted(fold["train"]) == sorted(split.name[~is_tested])


def test_csv_folds_have_a_row_for_each_image(split):
    table = pd.read_csv(io.StringIO(format_split(split, "csv")))
    assert table.columns.tolist() == ["image_class", "name", "group", *(f"fold{number}" for number in range(5))]
    pd.testing.assert_frame_equal(table, split[table.columns], check_dtype=False)


def test_folds_are_not_written_over_a_file(split, tmp_path):
    file = write_split(split, "json", tmp_path / "folds.json")
    with pytest.raises(StudyError, match=r"folds\.json: exists"):
        write_split(split, "csv", file)
    assert len(json.loads(file.read_text())) == 5
