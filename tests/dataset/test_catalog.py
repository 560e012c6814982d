"""The catalog: a small folder made by hand, whole and at fault, and the release itself."""

import re
import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_study import make_study, refusal

from busi.config import Parameters, StudyError
from busi.dataset import catalog, decode
from busi.dataset.decode import Mask
from busi.dataset.phantom import draw_phantoms

INSIDE = np.zeros((8, 12), bool)
INSIDE[1:3, 2:5] = True  # 6 of 96 pixels


@pytest.fixture
def folder(tmp_path):
    """Write two benign images, the first with two masks, one malignant and one normal; 12 x 8 pixels each."""
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for image_class, name in [("benign", "b (1)"), ("benign", "b (2)"), ("malignant", "m (1)"), ("normal", "n (1)")]:
        (folder / image_class).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 12), np.uint8)).save(folder / image_class / f"{name}.png")
        lesion = INSIDE if image_class != "normal" else np.zeros_like(INSIDE)
        Image.fromarray(lesion).save(folder / image_class / f"{name}_mask.png")
    Image.fromarray(np.roll(INSIDE, 2, axis=1)).save(folder / "benign" / "b (1)_mask_1.png")
    return folder


def read(folder):
    return catalog.read_catalog(folder, expected=None)


# Reading


def test_table_of_a_hand_made_folder(folder):
    table = read(folder).table
    assert table.image_class.tolist() == ["benign", "benign", "malignant", "normal"]
    assert table.name.tolist() == ["b (1)", "b (2)", "m (1)", "n (1)"]
    assert table.height.tolist() == [8] * 4
    assert table.width.tolist() == [12] * 4
    # The second mask is two columns to the right of the first: their union has 2 x 5 pixels.
    assert table.lesion_share.tolist() == [10 / 96, 6 / 96, 6 / 96, 0]
    assert table.image[2] == str(folder / "malignant" / "m (1).png")
    assert table.masks[0] == [Mask(str(folder / "benign" / f"b (1)_mask{end}.png"), (8, 12)) for end in ("", "_1")]
    assert table.masks[1] == [Mask(str(folder / "benign" / "b (2)_mask.png"), (8, 12))]
    assert table.group.isna().all()


def test_lesions_are_the_images_that_are_not_normal(folder):
    lesions = read(folder).lesions
    assert lesions.name.tolist() == ["b (1)", "b (2)", "m (1)"]
    assert lesions.index.tolist() == [0, 1, 2]


# Refusals


def test_of_many_problems_the_first_twenty_are_shown(folder):
    for k in range(30):
        Image.fromarray(INSIDE).save(folder / "benign" / f"lost ({k})_mask.png")
    message = refusal(read, folder)
    assert message.startswith(f"{folder}: 30 problem(s)")
    assert message.count("mask without its image") == 20
    assert message.endswith("\n  ...")


def test_each_unexpected_count_is_a_warning(folder):
    with pytest.warns(catalog.CountWarning) as caught:
        catalog.read_catalog(folder, expected={"benign": 2, "malignant": 3, "normal": 0})
    assert [str(warning.message) for warning in caught] == [
        f"{folder / 'malignant'}: 1 images, the release has 3",
        f"{folder / 'normal'}: 1 images, the release has 0",
    ]


def test_expected_counts_of_the_release_are_the_default(folder):
    with pytest.warns(catalog.CountWarning) as caught:
        catalog.read_catalog(folder)
    assert [re.search(r"has (\d+)", str(warning.message))[1] for warning in caught] == ["437", "210", "133"]


# The fingerprint


def test_the_fingerprint_ignores_the_encoding(folder):
    before = read(folder).fingerprint
    for file in folder.rglob("*.png"):
        with Image.open(file) as image:
            recoded = image.convert("RGB")
        recoded.save(file, compress_level=0)
    assert read(folder).fingerprint == before


def test_the_fingerprint_ignores_where_the_folder_is(folder, tmp_path):
    before = read(folder).fingerprint
    assert read(shutil.copytree(folder, tmp_path / "elsewhere")).fingerprint == before


@pytest.mark.parametrize("name", ["benign/b (1).png", "benign/b (1)_mask_1.png", "malignant/m (1)_mask.png"])
def test_the_fingerprint_changes_with_one_pixel(folder, name):
    before = read(folder).fingerprint
    pixels = catalog.read_grey(folder / name).copy()
    pixels[5, 7] ^= 255
    Image.fromarray(pixels).save(folder / name)
    assert read(folder).fingerprint != before


def test_the_fingerprint_changes_with_a_name(folder):
    before = read(folder).fingerprint
    for end in ("", "_mask"):
        (folder / "benign" / f"b (2){end}.png").rename(folder / "benign" / f"b (3){end}.png")
    assert read(folder).fingerprint != before


def test_the_fingerprint_ignores_the_layout(folder, tmp_path):
    """Images in one folder, masks in another, as re-hosts of BUSI have them."""
    other = tmp_path / "other"
    for file in folder.rglob("*.png"):
        target = other / file.parent.name / ("mask" if "_mask" in file.name else "images") / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    moved = read(other)
    assert moved.layout == "busi-folders"
    assert moved.fingerprint == read(folder).fingerprint


def test_a_normal_image_may_come_without_a_mask(folder):
    before = read(folder).fingerprint
    (folder / "normal" / "n (1)_mask.png").unlink()
    with pytest.warns(
        catalog.DataWarning, match=re.escape("normal images without a mask: read as empty: 1, e.g. n (1).png")
    ):
        without = read(folder)
    assert without.fingerprint == before
    np.testing.assert_array_equal(catalog.read_union(without.table.masks[3]), np.zeros((8, 12), bool))


def test_a_class_may_be_missing(folder):
    shutil.rmtree(folder / "malignant")
    shutil.rmtree(folder / "normal")
    assert read(folder).table.image_class.tolist() == ["benign", "benign"]


# What is unusual, but no fault


def test_each_kind_of_oddity_is_one_warning_without_a_line_of_source(folder, capsys):
    for name in ("b (1)", "b (2)"):
        larger = Image.fromarray(INSIDE).resize((16, 12), Image.Resampling.NEAREST)
        larger.save(folder / "benign" / f"{name}_mask.png")
    Image.fromarray(np.full((8, 12), 9, np.uint8)).save(folder / "thumb.png")
    with pytest.warns(catalog.DataWarning) as caught:
        images = read(folder)
    assert [str(warning.message).rpartition(": ")[2] for warning in caught] == [
        "1, e.g. thumb.png",
        "2, e.g. b (1)_mask.png",
    ]
    assert {warning.filename for warning in caught} == {"images"}
    assert images.notes.file.tolist() == ["thumb.png", "b (1)_mask.png", "b (2)_mask.png"]
    # Twice the size: the nearest pixels are those it was made of.
    np.testing.assert_array_equal(catalog.read_union(images.table.masks[1]), INSIDE)


def test_masks_are_counted_by_their_encoding(folder):
    Image.fromarray(INSIDE.astype(np.uint8)).save(folder / "malignant" / "m (1)_mask.png")
    assert read(folder).encodings == {"black and white": 3, "0/1": 1, "empty": 1}


# The cache


def test_a_changed_file_is_noticed(folder):
    """The modification time is enough: name and size are the same."""
    file = folder / "benign" / "b (1).png"
    Image.fromarray(np.zeros((8, 12), np.uint8)).save(file, compress_level=0)
    before, size = read(folder).fingerprint, file.stat().st_size
    Image.fromarray(np.ones((8, 12), np.uint8)).save(file, compress_level=0)
    assert file.stat().st_size == size
    assert read(folder).fingerprint != before


def test_a_file_broken_after_it_was_read_is_noticed(folder):
    read(folder)
    file = folder / "normal" / "n (1).png"
    file.write_bytes(file.read_bytes()[:60])
    assert f"{file}: not a readable image" in refusal(read, folder)


def test_two_at_once_read_once(folder, monkeypatch):
    read_image = decode.read_image
    decoded = []

    def read_slowly(file, content=None):
        decoded.append(Path(file).name)
        time.sleep(0.02)
        return read_image(file, content)

    monkeypatch.setattr(decode, "read_image", read_slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(read, [folder, folder])
    assert sorted(decoded) == sorted(file.name for file in folder.rglob("*.png"))
    assert first.fingerprint == second.fingerprint


def double(number, label):
    CALLS.append(number)
    return 2 * number


CALLS = []


def test_a_remembered_function_is_called_once_for_each_argument_that_counts(here):
    CALLS.clear()
    remembered = catalog.remember(double, ignore=["label"])
    assert [remembered(3, "a"), remembered(3, "b"), remembered(4, "a")] == [6, 6, 8]
    assert CALLS == [3, 4]


def test_the_cache_is_in_the_folder_of_the_study_at_the_time_of_the_call(folder, here, tmp_path, monkeypatch):
    """One process may work in two studies one after the other."""
    cached = here / "build" / "cache"
    assert not cached.exists()
    read(folder)
    assert len([path for path in cached.iterdir() if path.is_dir()]) == 1
    second = make_study(tmp_path / "second")
    deep = second / "notebooks" / "deep"
    deep.mkdir()
    monkeypatch.chdir(deep)
    read(folder)
    assert (second / "build" / "cache").is_dir()
    assert not (deep / "build").exists()


def test_outside_a_study_nothing_is_cached(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match="not inside a study"):
        read(folder)


# The images of a study


def test_phantoms_are_drawn_where_they_are_missing(here, monkeypatch):
    # A study's own number takes a while to draw.
    few = {"benign": 2, "malignant": 1, "normal": 1}
    monkeypatch.setattr(catalog, "draw_phantoms", lambda folder, **_: draw_phantoms(folder, **few))
    parameters = Parameters(data_dir="phantom")
    drawn = catalog.load_catalog(parameters)
    assert drawn.table.image_class.value_counts().to_dict() == few
    assert parameters.data_path == here / "data" / "phantom"
    assert all(file.startswith(str(parameters.data_path)) for file in drawn.table.image)
    times = {file: file.stat().st_mtime_ns for file in parameters.data_path.rglob("*.png")}
    assert catalog.load_catalog(parameters).fingerprint == drawn.fingerprint
    assert {file: file.stat().st_mtime_ns for file in times} == times


def test_phantoms_of_another_number_are_left_as_they_are(here):
    """Nor do they have the numbers of the release: there is no warning."""
    draw_phantoms(here / "data" / "phantom", benign=1, malignant=1, normal=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", catalog.CountWarning)
        assert len(catalog.load_catalog(Parameters(data_dir="phantom")).table) == 3


def test_a_folder_given_is_compared_with_the_release(folder):
    with pytest.warns(catalog.CountWarning) as caught:
        loaded = catalog.load_catalog(Parameters(data_dir=str(folder)))
    assert len(caught) == 3
    assert loaded.fingerprint == read(folder).fingerprint


def test_without_a_folder_the_message_says_what_to_give():
    with pytest.raises(StudyError) as caught:
        catalog.load_catalog(Parameters(profile="paper"))
    message = str(caught.value)
    assert message.startswith("data_dir: not given; expected a folder of images")
    assert "train_missing" in message


# Descriptions and examples


def test_descriptions_hold_no_paths(folder):
    described = catalog.describe_images(read(folder))
    assert described.columns.tolist() == ["image_class", "name", "masks", "height", "width", "lesion_share"]
    assert described.masks.tolist() == [2, 1, 1, 1]
    assert described.lesion_share.tolist() == [0.104167, 0.0625, 0.0625, 0]
    assert described.iloc[0, :2].tolist() == ["benign", "b (1)"]


def test_describing_a_catalog_does_not_change_it(folder):
    images = read(folder)
    catalog.describe_images(images)
    assert len(images.table.masks[0]) == 2
    assert images.table.lesion_share[0] == 10 / 96


def test_examples_are_the_first_image_of_each_class(folder):
    pixels, inside, names = catalog.example_images(read(folder))
    assert names == ["b (1)", "m (1)", "n (1)"]
    np.testing.assert_array_equal(pixels[1], catalog.read_grey(folder / "malignant" / "m (1).png"))
    assert [mask.sum() for mask in inside] == [10, 6, 0]
    assert all(mask.dtype == bool and mask.shape == (8, 12) for mask in inside)


# The release


@pytest.fixture(scope="module")
def release(busi_dir, inside_study):
    with warnings.catch_warnings():
        warnings.simplefilter("error", catalog.CountWarning)
        return catalog.read_catalog(busi_dir)


def test_the_release_is_complete(release):
    by_class = release.table.groupby("image_class")
    assert by_class.size().to_dict() == {"benign": 437, "malignant": 210, "normal": 133}
    assert by_class.masks.agg(lambda masks: masks.str.len().sum()).to_dict() == {
        "benign": 454,
        "malignant": 211,
        "normal": 133,
    }


def test_the_fingerprint_of_the_release_is_the_one_its_splits_are_made_for(release):
    """Every committed result is bound to it."""
    assert release.fingerprint == "5ac060d8557cd17a"
    assert (release.layout, release.encodings) == ("busi", {"black and white": 665, "empty": 133})
    assert release.notes.empty


def test_the_release_has_17_images_with_several_masks(release):
    several = release.table[release.table.masks.str.len() > 1]
    assert several.groupby("image_class").size().to_dict() == {"benign": 16, "malignant": 1}
    assert several.set_index("name").masks.str.len()[["benign (195)", "malignant (53)"]].tolist() == [3, 2]


def test_lesion_sizes_of_the_release(release):
    medians = release.table.groupby("image_class").lesion_share.median()
    assert medians.round(3).to_dict() == {"benign": 0.038, "malignant": 0.121, "normal": 0}


def test_a_study_of_images_without_any_lesion_is_refused(folder):
    shutil.rmtree(folder / "benign")
    shutil.rmtree(folder / "malignant")
    assert len(read(folder).table) == 1
    with pytest.raises(decode.DataError, match="none of its 1 images has a lesion; expected some"):
        catalog.load_catalog(Parameters(data_dir=str(folder)))


def test_only_the_release_has_the_release_s_counts():
    released = pd.DataFrame({"image_class": np.repeat(["normal", "benign", "malignant"], [133, 437, 210])})
    assert catalog.is_released(released)
    assert not catalog.is_released(released[1:])
    assert not catalog.is_released(released.replace("normal", "lesion"))
