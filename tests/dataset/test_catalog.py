"""The catalog: a small folder made by hand, broken in every way that is refused; and the release itself."""

import re
import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from busi.config import StudyError
from busi.dataset import catalog

INSIDE = np.zeros((6, 8), bool)
INSIDE[1:3, 2:5] = True  # 6 of 48 pixels


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "ROOT", tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Two benign images, the first with two masks; one malignant, one normal; 8 x 6 pixels each."""
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for image_class, name in [("benign", "b (1)"), ("benign", "b (2)"), ("malignant", "m (1)"), ("normal", "n (1)")]:
        (folder / image_class).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 8), np.uint8)).save(folder / image_class / f"{name}.png")
        lesion = INSIDE if image_class != "normal" else np.zeros_like(INSIDE)
        Image.fromarray(lesion).save(folder / image_class / f"{name}_mask.png")
    Image.fromarray(np.roll(INSIDE, 2, axis=1)).save(folder / "benign" / "b (1)_mask_1.png")
    return folder


def read(folder):
    return catalog.read(folder, expected=None)


def refusal(folder):
    with pytest.raises(StudyError) as caught:
        read(folder)
    return str(caught.value)


# What is read


def test_table_of_a_hand_made_folder(folder):
    table = read(folder).table
    assert table.image_class.tolist() == ["benign", "benign", "malignant", "normal"]
    assert table.name.tolist() == ["b (1)", "b (2)", "m (1)", "n (1)"]
    assert table.height.tolist() == [6] * 4
    assert table.width.tolist() == [8] * 4
    # The second mask lies two columns to the right of the first: their union is 2 x 5 pixels.
    assert table.lesion_share.tolist() == [10 / 48, 6 / 48, 6 / 48, 0]
    assert table.image[2] == str(folder / "malignant" / "m (1).png")
    assert table.masks[0] == [str(folder / "benign" / f"b (1)_mask{end}.png") for end in ("", "_1")]
    assert table.masks[1] == [str(folder / "benign" / "b (2)_mask.png")]


def test_lesions_leave_the_normals_out(folder):
    lesions = read(folder).lesions
    assert lesions.name.tolist() == ["b (1)", "b (2)", "m (1)"]
    assert lesions.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_masks_read_the_same_in_every_mode_of_the_release(tmp_path, mode):
    file = tmp_path / "mask.png"
    Image.fromarray(INSIDE).convert(mode).save(file)
    with Image.open(file) as stored:
        assert stored.mode == mode
    read = catalog.mask(file)
    assert read.dtype == bool
    np.testing.assert_array_equal(read, INSIDE)


def test_mask_starts_at_half_of_white(tmp_path):
    file = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 1, 127, 128, 255]], np.uint8)).save(file)
    assert catalog.mask(file).tolist() == [[False, False, False, True, True]]


def test_colour_becomes_grey_by_luma(tmp_path):
    file = tmp_path / "colour.png"
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (10, 200, 60)]
    Image.fromarray(np.array([colours], np.uint8)).save(file)
    # 0.299 R + 0.587 G + 0.114 B: 76.2, 149.7, 29.1, 255, 127.2
    assert catalog.grey(file).tolist() == [[76, 150, 29, 255, 127]]


# What is refused


def test_missing_class_folders_are_named(folder):
    shutil.rmtree(folder / "malignant")
    shutil.rmtree(folder / "normal")
    message = refusal(folder)
    assert message.startswith(f"{folder}: no folder malignant, normal; expected benign, malignant, normal")


def test_class_without_images(folder):
    for file in (folder / "normal").iterdir():
        file.unlink()
    assert f"{folder / 'normal'}: no images" in refusal(folder)


def test_image_without_mask(folder):
    (folder / "malignant" / "m (1)_mask.png").unlink()
    assert f"{folder / 'malignant' / 'm (1).png'}: no mask; expected m (1)_mask.png" in refusal(folder)


def test_further_masks_do_not_stand_in_for_the_first(folder):
    (folder / "benign" / "b (1)_mask.png").unlink()
    assert f"{folder / 'benign' / 'b (1).png'}: no mask; expected b (1)_mask.png" in refusal(folder)


def test_mask_without_image(folder):
    (folder / "benign" / "b (2).png").unlink()
    assert f"{folder / 'benign' / 'b (2)_mask.png'}: mask without its image b (2).png" in refusal(folder)


def test_mask_of_another_size(folder):
    file = folder / "benign" / "b (2)_mask.png"
    Image.fromarray(INSIDE.T).save(file)
    assert f"{file}: 6 x 8 pixels, its image has 8 x 6: sizes must be equal" in refusal(folder)


@pytest.mark.parametrize("name", ["b (1)_mask.png", "b (1)_mask_1.png"])
def test_empty_lesion_mask(folder, name):
    file = folder / "benign" / name
    Image.fromarray(np.zeros_like(INSIDE)).save(file)
    assert f"{file}: empty, but a benign image shows a lesion" in refusal(folder)


def test_normal_mask_with_a_lesion(folder):
    file = folder / "normal" / "n (1)_mask.png"
    Image.fromarray(INSIDE).save(file)
    assert f"{file}: 6 mask pixels; a normal image shows no lesion: expected none" in refusal(folder)


@pytest.mark.parametrize("name", ["b (2).png", "b (2)_mask.png"])
def test_text_in_place_of_an_image(folder, name):
    file = folder / "benign" / name
    file.write_text("<html>404 not found</html>", encoding="utf-8")
    assert f"{file}: not a readable image" in refusal(folder)


def test_an_image_cut_short_anywhere_is_refused_or_whole(tmp_path):
    """A transfer may stop at any byte; the last 20 (two checksums, the closing chunk) carry no pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8)
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    Image.fromarray(pixels).save(whole)
    content = whole.read_bytes()
    for length in range(len(content) - 20):
        cut.write_bytes(content[:length])
        with pytest.raises(StudyError, match=re.escape(f"{cut}: not a readable image")):
            catalog.grey(cut)
    for length in range(len(content) - 20, len(content)):
        cut.write_bytes(content[:length])
        np.testing.assert_array_equal(catalog.grey(cut), pixels)


def test_all_problems_are_reported_together(folder):
    (folder / "benign" / "b (2).png").write_bytes(b"\x89PNG\r\n")
    (folder / "malignant" / "m (1)_mask.png").unlink()
    Image.fromarray(INSIDE).save(folder / "normal" / "n (1)_mask.png")
    message = refusal(folder)
    assert message.startswith(f"{folder} is not whole, 3 problem(s):")
    for name in ("benign/b (2).png", "malignant/m (1).png", "normal/n (1)_mask.png"):
        assert f"\n  {folder / name}: " in message


def test_unexpected_counts_are_a_warning_each(folder):
    with pytest.warns(catalog.CountWarning) as caught:
        catalog.read(folder, expected={"benign": 2, "malignant": 3, "normal": 0})
    assert [str(warning.message) for warning in caught] == [
        f"{folder / 'malignant'}: 1 images, the release has 3",
        f"{folder / 'normal'}: 1 images, the release has 0",
    ]


def test_expected_counts_of_the_release_are_the_default(folder):
    with pytest.warns(catalog.CountWarning) as caught:
        catalog.read(folder)
    assert [re.search(r"has (\d+)", str(warning.message))[1] for warning in caught] == ["437", "210", "133"]


# The fingerprint


def test_fingerprint_ignores_the_encoding(folder):
    before = read(folder).fingerprint
    for file in folder.rglob("*.png"):
        with Image.open(file) as image:
            recoded = image.convert("RGB")
        recoded.save(file, compress_level=0)
    assert read(folder).fingerprint == before


def test_fingerprint_ignores_where_the_folder_is(folder, tmp_path):
    before = read(folder).fingerprint
    assert read(shutil.copytree(folder, tmp_path / "elsewhere")).fingerprint == before


@pytest.mark.parametrize("name", ["benign/b (1).png", "benign/b (1)_mask_1.png", "malignant/m (1)_mask.png"])
def test_fingerprint_tells_one_pixel(folder, name):
    before = read(folder).fingerprint
    pixels = catalog.grey(folder / name).copy()
    pixels[5, 7] ^= 255
    Image.fromarray(pixels).save(folder / name)
    assert read(folder).fingerprint != before


def test_fingerprint_tells_a_renamed_image(folder):
    before = read(folder).fingerprint
    for end in ("", "_mask"):
        (folder / "benign" / f"b (2){end}.png").rename(folder / "benign" / f"b (3){end}.png")
    assert read(folder).fingerprint != before


# The memory


def test_a_changed_file_is_noticed(folder):
    """Same name, same size in bytes: the time of change is enough."""
    file = folder / "benign" / "b (1).png"
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(file, compress_level=0)
    before, size = read(folder).fingerprint, file.stat().st_size
    Image.fromarray(np.ones((6, 8), np.uint8)).save(file, compress_level=0)
    assert file.stat().st_size == size
    assert read(folder).fingerprint != before


def test_a_file_broken_after_it_was_read_is_noticed(folder):
    read(folder)
    file = folder / "normal" / "n (1).png"
    file.write_bytes(file.read_bytes()[:60])
    assert f"{file}: not a readable image" in refusal(folder)


def test_two_who_ask_at_once_read_once(folder, monkeypatch):
    grey, decoded = catalog.grey, []

    def slowly(file):
        decoded.append(file.name)
        time.sleep(0.02)
        return grey(file)

    monkeypatch.setattr(catalog, "grey", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(read, [folder, folder])
    assert sorted(decoded) == sorted(file.name for file in folder.rglob("*.png"))
    assert first.fingerprint == second.fingerprint


# The release


@pytest.fixture(scope="module")
def release(busi_dir, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(catalog, "ROOT", tmp_path_factory.mktemp("cache"))
        warnings.simplefilter("error", catalog.CountWarning)
        return catalog.read(busi_dir)


def test_release_is_whole(release):
    by_class = release.table.groupby("image_class")
    assert by_class.size().to_dict() == {"benign": 437, "malignant": 210, "normal": 133}
    assert by_class.masks.agg(lambda masks: masks.str.len().sum()).to_dict() == {
        "benign": 454,
        "malignant": 211,
        "normal": 133,
    }


def test_release_has_17_images_with_several_masks(release):
    several = release.table[release.table.masks.str.len() > 1]
    assert several.groupby("image_class").size().to_dict() == {"benign": 16, "malignant": 1}
    assert several.set_index("name").masks.str.len()[["benign (195)", "malignant (53)"]].tolist() == [3, 2]


def test_release_lesion_sizes(release):
    medians = release.table.groupby("image_class").lesion_share.median()
    assert medians.round(3).to_dict() == {"benign": 0.038, "malignant": 0.121, "normal": 0}
