"""Layouts: phantom images laid out as each known data set has them are found, paired and grouped."""

import random
import shutil
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi.config import StudyError
from busi.dataset import catalog, decode, duplicates, layouts

LESIONS = ["benign (1)", "benign (2)", "malignant (1)", "malignant (2)"]
"""Phantoms that are laid out; the second has two masks."""

NAMES = {
    "busi-folders": (
        [f"{name.split()[0]}/images/{name}" for name in LESIONS],
        [f"{name.split()[0]}/mask/{name}" for name in LESIONS],
    ),
    "bus-uclm": (
        [f"images/{name}" for name in ("ALWI_000", "ALWI_001", "BEMO_000", "BEMO_010")],
        [f"masks/{name}" for name in ("ALWI_000", "ALWI_001", "BEMO_000", "BEMO_010")],
    ),
    "bus-bra": (
        [f"Images/bus_{name}" for name in ("0001-l", "0001-r", "0010-l", "0100-s")],
        [f"Masks/mask_{name}" for name in ("0001-l", "0001-r", "0010-l", "0100-s")],
    ),
    "folders": ([f"original/{k:06}" for k in (1, 2, 10, 12)], [f"GT/{k:06}" for k in (1, 2, 10, 12)]),
    "nnunet": ([f"imagesTr/u_{k}_0000" for k in range(4)], [f"labelsTr/u_{k}" for k in range(4)]),
    "stu": ([f"Test_Image_{k}" for k in (1, 2, 10, 12)], [f"mask_{k}" for k in (1, 2, 10, 12)]),
    "breast": ([f"case{k:03}" for k in range(1, 5)], [f"case{k:03}_tumor" for k in range(1, 5)]),
    "buid": (
        [f"Benign/{k:03} Benign Image" for k in (1, 2)] + [f"Malignant/{k:03} Malignant Image" for k in (1, 2)],
        [f"Benign/{k:03} Benign Mask" for k in (1, 2)] + [f"Malignant/{k:03} Malignant Mask" for k in (1, 2)],
    ),
    "suffix": ([f"scan{k}" for k in (1, 2, 10, 12)], [f"scan{k}_mask" for k in (1, 2, 10, 12)]),
}
"""Names of the four images and of their masks in each layout but BUSI's own."""

GROUPS = {"bus-uclm": ["ALWI", "ALWI", "BEMO", "BEMO"], "bus-bra": ["0001", "0001", "0010", "0100"]}


def lay_out(phantoms, folder, images, masks, suffix=".png"):
    """Copy the lesion phantoms and their first masks to other names, written in random order."""
    jobs = []
    for name, image, mask in zip(LESIONS, images, masks, strict=True):
        source = phantoms / name.split()[0] / name
        jobs += [(f"{source}.png", image), (f"{source}_mask.png", mask)]
    random.Random(0).shuffle(jobs)
    for source, target in jobs:
        file = folder / f"{target}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source) as image:
            image.save(file)
    return folder


def truths(phantoms):
    """Return the pixels and the first mask of each phantom that is laid out."""
    stems = [phantoms / name.split()[0] / name for name in LESIONS]
    return [(decode.read_grey(f"{stem}.png"), decode.read_mask(f"{stem}_mask.png")) for stem in stems]


def name_of(image):
    """Return an image's name in a catalog: that of its file, composed, and in nnU-Net's layout without its channel."""
    return normalize("NFC", Path(image).name).removesuffix("_0000")


def assert_paired(found, images, phantoms):
    """Assert that each image has its own pixels, and its mask the lesion of that image."""
    table = found.table.set_index("name")
    for image, (pixels, inside) in zip(images, truths(phantoms), strict=True):
        row = table.loc[name_of(image)]
        np.testing.assert_array_equal(decode.read_grey(row.image), pixels)
        np.testing.assert_array_equal(decode.read_union(row.masks), inside)


@pytest.mark.parametrize("layout", NAMES)
def test_each_layout_is_found_by_itself(phantom_dir, tmp_path, layout):
    """Number 1 has its own mask and not that of 10 or 12, in whatever order the files were written."""
    images, masks = NAMES[layout]
    folder = lay_out(phantom_dir, tmp_path / "it's a sét", images, masks)
    found = catalog.read_catalog(folder, expected=None)
    assert found.layout == layout
    assert_paired(found, images, phantom_dir)
    groups = dict(zip(found.table.name, found.table.group, strict=True))
    expected = GROUPS.get(layout, [None] * 4)
    assert [groups[name_of(image)] for image in images] == expected


@pytest.mark.parametrize("layout", NAMES)
def test_each_layout_can_be_named(phantom_dir, tmp_path, layout):
    images, masks = NAMES[layout]
    folder = lay_out(phantom_dir, tmp_path / "data", images, masks, suffix=".TIF")
    found = catalog.read_catalog(folder, layout, expected=None)
    assert_paired(found, images, phantom_dir)


def test_a_patient_s_images_are_one_group(phantom_dir, tmp_path):
    """However little they resemble each other."""
    folder = lay_out(phantom_dir, tmp_path / "data", *NAMES["bus-bra"])
    found = catalog.read_catalog(folder, expected=None)
    assert duplicates.group_images(found).tolist() == [0, 0, 1, 2]


def test_an_image_without_a_patient_joins_no_patient_of_its_name():
    table = pd.DataFrame({"name": ["a", "7", "b", "c"], "group": ["7", None, "8", "7"]})
    assert duplicates.group_images(catalog.Catalog(table, "f")).tolist() == [0, 1, 2, 0]


def test_data_with_other_patients_are_other_data(phantom_dir, tmp_path):
    """Or a network of the earlier split would be scored on images that it was trained on."""
    images, masks = NAMES["folders"]
    folder = lay_out(phantom_dir, tmp_path / "data", images, masks)
    rows = pd.DataFrame({"image": images, "mask": masks}) + ".png"
    fingerprints = []
    for columns in ({}, {"patient": list("aabb")}, {"patient": list("aabb")}, {"patient": list("abab")}):
        rows.assign(**columns).to_csv(folder / "pairs.csv", index=False)
        fingerprints.append(catalog.read_catalog(folder, expected=None).fingerprint)
    without, first, again, other = fingerprints
    assert first == again
    assert len({without, first, other}) == 3


def test_classes_come_from_names_or_are_lesion(phantom_dir, tmp_path):
    classes = {}
    for layout in ("busi-folders", "buid", "stu"):
        folder = lay_out(phantom_dir, tmp_path / layout, *NAMES[layout])
        classes[layout] = catalog.read_catalog(folder, expected=None).table.image_class.tolist()
    assert classes["busi-folders"] == classes["buid"] == ["benign", "benign", "malignant", "malignant"]
    assert classes["stu"] == ["lesion"] * 4


def test_classes_come_from_colours(phantom_dir, tmp_path):
    """Green is benign, red malignant, black a normal image; benign come first."""
    images, masks = NAMES["bus-uclm"]
    folder = lay_out(phantom_dir, tmp_path / "data", images, masks)
    for mask, colour in zip(masks, [(255, 0, 0), (0, 255, 0), (0, 0, 0), (0, 255, 0)], strict=True):
        file = folder / f"{mask}.png"
        inside = decode.read_mask(file)
        Image.fromarray(inside[..., None] * np.array(colour, np.uint8)).save(file)
    with pytest.warns(catalog.DataWarning, match="empty masks in a data set without classes: read as normal images: 1"):
        found = catalog.read_catalog(folder, expected=None)
    assert found.encodings == {"colours": 3, "empty": 1}
    assert found.table.image_class.tolist() == ["benign", "benign", "malignant", "normal"]
    assert found.table.name.tolist() == ["ALWI_001", "BEMO_010", "ALWI_000", "BEMO_000"]
    assert found.lesions.name.tolist() == ["ALWI_001", "BEMO_010", "ALWI_000"]


def test_a_pattern_of_one_s_own(phantom_dir, tmp_path):
    images = ["scans/p1_a", "scans/p1_b", "scans/p2_a", "scans/p2_b"]
    masks = [f"outlines/{Path(image).name}-lesion" for image in images]
    folder = lay_out(phantom_dir, tmp_path / "data", images, masks)
    with pytest.raises(StudyError, match="no layout pairs images with masks; found 8 image files"):
        catalog.read_catalog(folder, expected=None)
    pattern = "scans/{group}_{key} | outlines/{group}_{key}-lesion"
    found = catalog.read_catalog(folder, pattern, expected=None)
    assert_paired(found, images, phantom_dir)
    assert found.table.group.tolist() == ["p1", "p1", "p2", "p2"]


def test_a_pattern_may_number_masks_and_name_the_class(phantom_dir, tmp_path):
    images = [f"in/{name.split()[0]}/{k}" for k, name in enumerate(LESIONS)]
    masks = [f"out/{k}_0" for k in range(4)]
    folder = lay_out(phantom_dir, tmp_path / "data", images, masks)
    shutil.copy(phantom_dir / "benign" / "benign (2)_mask_1.png", folder / "out" / "1_1.png")
    found = catalog.read_catalog(folder, "in/{class}/{key} | out/{key}{n}", expected=None)
    assert found.table.image_class.tolist() == ["benign", "benign", "malignant", "malignant"]
    assert found.table.masks.str.len().tolist() == [1, 2, 1, 1]


@pytest.mark.parametrize(
    "layout",
    [
        "busy",
        "a/{key}",
        "a/{key} | b/x",
        "a/{key} | b/{name}",
        "{key} | {key}_mask | {key}_other",
        "{key}{key} | {key}",
    ],
)
def test_a_layout_that_is_none_is_refused(phantom_dir, layout):
    with pytest.raises(StudyError, match=r"^layout: got .*; expected one of busi, busi-folders, "):
        catalog.read_catalog(phantom_dir, layout)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_pairs(phantom_dir, tmp_path, separator):
    """The first phantom has two rows, one for each mask; the normal image has none."""
    folder = tmp_path / "data"
    shutil.copytree(phantom_dir, folder / "files")
    rows = [
        ("files/malignant/malignant (1).png", "files/malignant/malignant (1)_mask.png", "Malignant", "007", "m"),
        ("files/benign/benign (2).png", "files/benign/benign (2)_mask.png", "Benign", "NA", "b"),
        ("files/benign/benign (2).png", "files/benign/benign (2)_mask_1.png", "Benign", "NA", "b"),
        ("files/normal/normal (1).png", "", "normal", "007", "n"),
    ]
    columns = ["Image", "Mask", "Class", "Patient", "Name"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "pairs.csv", sep=separator, index=False)
    with pytest.warns(catalog.DataWarning, match="normal images without a mask"):
        found = catalog.read_catalog(folder, expected=None)
    assert found.layout == "pairs.csv"
    assert found.table.name.tolist() == ["b", "m", "n"]
    assert found.table.group.tolist() == ["NA", "007", "007"]
    # The same pixels as in BUSI's layout, whose union has both masks.
    whole = catalog.read_catalog(phantom_dir, expected=None).table.set_index("name").lesion_share
    assert found.table.lesion_share.tolist() == [whole["benign (2)"], whole["malignant (1)"], 0]


def test_a_table_has_one_row_for_an_image_however_it_is_spelt(phantom_dir, tmp_path):
    """Blanks around cells, blank lines and cells that a line lacks change nothing either."""
    folder = tmp_path / "data"
    shutil.copytree(phantom_dir / "benign", folder / "scans")
    text = (
        "image ; mask; patient;name\n"
        "./scans/benign (2).png ; scans/benign (2)_mask.png ; 7 ; two\n"
        "\n"
        "scans/benign (2).png;scans//benign (2)_mask_1.png;7;two\n"
        "scans/../scans/benign (1).png;scans/benign (1)_mask.png;;one;;\n"
        ";;;\n"
    )
    (folder / "pairs.csv").write_text(text, encoding="utf-8")
    manifest = layouts.pair_files(folder)
    assert manifest.problems == []
    assert [(row["name"], row["group"], len(row["masks"])) for row in manifest.rows] == [
        ("one", None, 1),
        ("two", "7", 2),
    ]
    assert manifest.rows[1]["image"] == str(folder / "scans" / "benign (2).png")


def test_a_special_layout_goes_before_the_general_one_only_where_it_names_patients(phantom_dir, tmp_path):
    """Four letters that all names share are no patient."""
    images = [f"images/SCAN_00{k}" for k in range(4)]
    folder = lay_out(phantom_dir, tmp_path / "data", images, [f"masks/SCAN_00{k}" for k in range(4)])
    found = catalog.read_catalog(folder, expected=None)
    assert found.layout == "folders"
    assert found.table.group.isna().all()


@pytest.mark.parametrize(("form_of_images", "form_of_masks"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_are_the_same_in_both_forms_of_unicode(phantom_dir, tmp_path, form_of_images, form_of_masks):
    """An archive made on macOS holds "é" as two characters, masks named by other software as one."""
    names = [f"Jos\u00e9_{k}" for k in range(4)]
    images = [normalize(form_of_images, f"sc\u00e1ns/{name}") for name in names]
    masks = [normalize(form_of_masks, f"marques/{name}") for name in names]
    folder = lay_out(phantom_dir, tmp_path / "data", images, masks)
    for form in ("NFC", "NFD"):
        found = catalog.read_catalog(folder, normalize(form, "sc\u00e1ns/{group}_{key} | marques/{group}_{key}"))
        assert_paired(found, images, phantom_dir)
        assert found.table.group.tolist() == [names[0][:-2]] * 4


def test_hidden_files_are_passed_over(phantom_dir, tmp_path):
    """As macOS leaves them beside every file of an archive."""
    folder = shutil.copytree(phantom_dir, tmp_path / "data")
    for file in list(folder.rglob("*.png")):
        file.with_name(f"._{file.name}").write_bytes(b"Mac OS X")
    shutil.copytree(folder / "benign", folder / "__MACOSX" / "benign")
    (folder / "benign" / "Thumbs.db").write_bytes(b"\0")
    expected = catalog.read_catalog(phantom_dir, expected=None)
    assert catalog.read_catalog(folder, expected=None).fingerprint == expected.fingerprint


def test_suffixes_are_read_in_either_case(phantom_dir, tmp_path):
    folder = shutil.copytree(phantom_dir, tmp_path / "data")
    image = folder / "benign" / "benign (3).png"
    image.rename(image.with_suffix(".PNG"))
    expected = catalog.read_catalog(phantom_dir, expected=None)
    assert catalog.read_catalog(folder, expected=None).fingerprint == expected.fingerprint


def test_linked_folders_are_read(phantom_dir, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("benign", "malignant", "normal"):
        (folder / name).symlink_to(phantom_dir / name)
    assert len(layouts.pair_files(folder).rows) == 12


def test_stu_hospital_is_read_by_its_pattern(busi_dir, inside_study):
    folder = busi_dir.parent / "STU-Hospital"
    if not folder.is_dir():
        pytest.skip("needs STU-Hospital beside the BUSI release")
    with pytest.warns(catalog.DataWarning, match="of another size than their image.*: 36, e.g. mask_1.png"):
        found = catalog.read_catalog(folder)
    assert (found.layout, len(found.table)) == ("stu", 42)
    assert found.encodings == {"grey edges": 41, "black and white": 1}
    assert set(zip(found.table.height, found.table.width, strict=True)) == {(128, 128)}
    with Image.open(folder / "mask_7.png") as mask:
        share = (np.asarray(mask) > 127).mean()
    assert found.table.set_index("name").lesion_share["Test_Image_7"] == pytest.approx(share, rel=0.02)
