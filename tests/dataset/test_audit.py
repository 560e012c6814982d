"""The audit: measures of images drawn by hand, and findings about a table worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi.dataset import audit, catalog


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, inside_study):
    """Write a dark square on grey, a bright one in a corner with colour and strokes around it, and a normal image."""
    folder = tmp_path_factory.mktemp("audit") / "data"
    for name in ("benign", "malignant", "normal"):
        (folder / name).mkdir(parents=True)
    dark, bright = np.zeros((2, 400, 500), bool)
    dark[100:200, 100:200] = True
    bright[0:40, 460:500] = True
    levels = {
        "benign": np.where(dark, 40, 100),
        "malignant": np.where(bright, 180, 100),
        "normal": np.full((400, 500), 9),
    }
    images = {name: np.repeat(level[..., None].astype(np.uint8), 3, axis=-1) for name, level in levels.items()}
    images["malignant"][300:320, :50] = (200, 30, 30)  # 1,000 of 200,000 pixels
    images["normal"][::20, :20] = 255  # 20 strokes of one pixel by 20
    for name, inside in (("benign", dark), ("malignant", bright), ("normal", np.zeros_like(dark))):
        Image.fromarray(images[name]).save(folder / name / f"{name}.png")
        Image.fromarray(inside).save(folder / name / f"{name}_mask.png")
    return catalog.read_catalog(folder, expected=None)


def test_pixels_are_measured(drawn):
    measured = audit.describe_pixels(drawn).set_index("name")
    assert measured.coloured.tolist() == [0, 1000 / 200_000, 0]
    assert measured.marked.tolist() == [0, 0, 400 / 200_000]
    assert measured.loc["benign", ["inside", "ring", "row", "column", "at_border"]].tolist() == [
        40,
        100,
        3 / 8,
        0.3,
        False,
    ]
    assert measured.loc["malignant", ["inside", "ring", "row", "column", "at_border"]].tolist() == [
        *(180, 100, 0.05, 0.96, True)
    ]
    assert measured.loc["benign", "mean"] == pytest.approx(100 - 60 * 10_000 / 200_000)
    assert measured.loc["normal", ["inside", "ring", "row", "column", "at_border"]].isna().all()


def test_the_ring_is_half_the_lesion_s_radius_wide(drawn):
    """A square of 100 pixels has the area of a disc of radius 56.4: beyond 28 pixels nothing counts."""
    pixels = np.full((400, 500), 100, np.uint8)
    inside = np.zeros((400, 500), bool)
    inside[100:200, 100:200] = True
    pixels[100:200, 228:] = 255
    assert audit._measure_lesion(pixels, inside)["ring"] == 100
    pixels[100:200, 227] = 255
    assert audit._measure_lesion(pixels, inside)["ring"] > 100


def test_the_mean_mask_counts_lesion_images_alone(drawn):
    shares = audit.mean_mask(drawn).to_numpy()
    assert shares.shape == (48, 48)
    # Of two lesion images each place is covered by one at most; the normal image does not count.
    assert shares.max() == 0.5
    assert (shares[18, 14], shares[0, 47], shares[40, 10]) == (0.5, 0.5, 0)
    # 100 x 100 and 40 x 40 of 200,000 pixels
    assert shares.mean() == pytest.approx((10_000 + 1_600) / 200_000 / 2, rel=0.01)


def test_files_are_described(drawn):
    described = audit.describe_files(drawn)
    assert list(zip(described.what, described.found, described["count"].fillna(0), strict=True)) == [
        ("layout", "busi", 3),
        ("groups", "near-duplicates, because no patients are named", 0),
        ("masks", "black and white", 2),
        ("masks", "empty", 1),
    ]


IMAGES = pd.DataFrame(
    {
        "image_class": ["benign", "benign", "malignant", "normal"],
        "name": ["b1", "b2", "m1", "n1"],
        "masks": [1, 3, 1, 1],
        "lesion_share": [0.004, 0.1, 0.2, 0],
        "mean": [80.0, 90, 100, 110],
        "coloured": [0, 0, 0.5, 0],
        "marked": [0, 0.002, 0, 0],
        "row": [0.5, 0.5, 0.5, np.nan],
        "column": [0.5, 0.5, 0.5, np.nan],
        "at_border": [False, False, True, np.nan],
        "inside": [40.0, 60, 120, np.nan],
        "ring": [100.0, 100, 110, np.nan],
    }
)
SPLIT = IMAGES[["image_class", "name"]].assign(group=[0, 1, 0, 2])


def test_findings_name_their_images():
    found = audit.find_faults(IMAGES, SPLIT).set_index("finding")
    assert found.names.to_dict() == {
        "in a group with other images": "b1; m1",
        "in a group of several classes": "b1; m1",
        "several masks": "b2",
        "lesion under 0.5% of the image": "b1",
        "lesion touches the border": "m1",
        "lesion brighter than the band around it": "m1",
        "colour": "m1",
        "burned-in text or calipers": "b2",
    }
    assert found.images.tolist() == [2, 2, 1, 1, 1, 1, 1, 1]


def test_groups_under_several_labels_come_first():
    split = pd.DataFrame(
        {
            "image_class": ["benign", "benign", "benign", "normal", "benign"],
            "name": list("abcde"),
            "group": [0, 0, 1, 1, 2],
        }
    )
    groups = audit.list_groups(split)
    assert groups.to_dict("records") == [
        {"images": 2, "classes": "benign, normal", "names": "c; d"},
        {"images": 2, "classes": "benign", "names": "a; b"},
    ]


def test_intensity_by_class():
    table = audit.summarize_intensity(IMAGES)
    assert table.contrast.iloc[:2].tolist() == [-50, 10]  # medians of -60 and -40, and of 10
    assert np.isnan(table.contrast["normal"])


def test_a_page_shows_the_first_five_names():
    table = pd.DataFrame({"names": ["a; b", "a; b; c; d; e; f"]})
    assert audit.shorten_names(table).names.tolist() == ["a; b", "a; b; c; d; e; ..."]
