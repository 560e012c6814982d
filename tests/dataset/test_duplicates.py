"""Near-duplicates: copies planted among phantoms are found, unrelated images are not; numbers of the release."""

import io
import itertools
import shutil

import imagehash
import numpy as np
import pytest
from PIL import Image

from busi.dataset import catalog, duplicates


def jpeg(pixels):
    """Compress with a low quality: blocks and ringing."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=30)
    return catalog.read_grey(file)


def darker(pixels):
    return (0.8 * pixels).astype(np.uint8)


def half(pixels):
    return pixels[::2, ::2]


def cropped(percent):
    """Return a function that cuts this share of an image off each side."""

    def change(pixels):
        rows, columns = (round(side * percent / 100) for side in pixels.shape)
        return pixels[rows:-rows, columns:-columns]

    return change


PLANTED = {
    "benign (7)": ("benign (1)", jpeg),
    "benign (8)": ("benign (1)", darker),
    "benign (9)": ("benign (3)", half),
    "malignant (5)": ("benign (3)", cropped(2)),  # under another label
    "normal (3)": ("normal (1)", jpeg),
    # Each is a near-duplicate of the next one, but the first is none of the last one.
    "malignant (6)": ("malignant (1)", cropped(3)),
    "malignant (7)": ("malignant (1)", cropped(6)),
    "malignant (8)": ("malignant (1)", cropped(9)),
}
GROUPS = [
    {"benign (1)", "benign (7)", "benign (8)"},
    {"benign (3)", "benign (9)", "malignant (5)"},
    {"normal (1)", "normal (3)"},
    {"malignant (1)", "malignant (6)", "malignant (7)", "malignant (8)"},
]


@pytest.fixture(scope="module")
def planted(phantom_dir, tmp_path_factory, inside_study):
    """Write twelve phantoms, and changed copies of them with their masks."""
    folder = tmp_path_factory.mktemp("planted") / "data"
    shutil.copytree(phantom_dir, folder)
    for copy, (source, change) in PLANTED.items():
        for end in ("", "_mask"):
            pixels = catalog.read_grey(folder / source.split()[0] / f"{source}{end}.png")
            Image.fromarray(change(pixels)).save(folder / copy.split()[0] / f"{copy}{end}.png")
    return catalog.read_catalog(folder, expected=None)


def shared(groups, names):
    """Return the groups of more than one image, each as the set of its names."""
    sets = [set(names[groups == group]) for group in np.unique(groups)]
    return [each for each in sets if len(each) > 1]


def test_planted_copies_are_grouped_and_unrelated_images_are_not(planted):
    groups = duplicates.find_groups(planted)
    assert sorted(map(sorted, shared(groups, planted.table.name))) == sorted(map(sorted, GROUPS))


def test_near_duplicates_of_near_duplicates_are_in_one_group(planted):
    """The crops of 0 and 9 percent are no near-duplicates; those between connect them."""
    chain = [
        planted.table.name.tolist().index(name)
        for name in ("malignant (1)", "malignant (6)", "malignant (7)", "malignant (8)")
    ]
    distances = duplicates.hash_distances(planted)
    assert all(distances[a, b] <= duplicates.DISTANCE for a, b in itertools.pairwise(chain))
    assert distances[chain[0], chain[-1]] > duplicates.DISTANCE


def test_groups_are_numbered_in_order_of_appearance(planted):
    groups = duplicates.find_groups(planted)
    firsts = [groups.tolist().index(group) for group in range(groups.max() + 1)]
    assert firsts == sorted(firsts)


def test_distances_are_the_larger_of_both_hashes(planted):
    """Expected values come from imagehash's own subtraction."""
    hashes = [
        [kind(Image.fromarray(catalog.read_grey(file))) for kind in (imagehash.dhash, imagehash.average_hash)]
        for file in planted.table.image
    ]
    expected = [[max(a - b for a, b in zip(one, other, strict=True)) for other in hashes] for one in hashes]
    np.testing.assert_array_equal(duplicates.hash_distances(planted), expected)


def test_pairs_are_counted_once_at_each_distance(planted):
    counted = duplicates.count_distances(planted)
    assert counted.columns.tolist() == ["distance", "pairs"]
    assert counted.distance.tolist() == list(range(65))
    assert counted.pairs.sum() == 20 * 19 / 2
    distances = duplicates.hash_distances(planted)
    pairs = [distances[a, b] for a, b in itertools.combinations(range(20), 2)]
    assert counted.pairs.tolist() == [pairs.count(distance) for distance in range(65)]


# The release


@pytest.fixture(scope="module")
def release(busi_dir, inside_study):
    return catalog.read_catalog(busi_dir)


def test_groups_of_the_release(release):
    groups = shared(duplicates.find_groups(release), release.table.name)
    assert duplicates.DISTANCE == 8
    assert (len(groups), sum(map(len, groups))) == (143, 320)


def test_the_usual_bound_finds_fewer_groups(release, monkeypatch):
    monkeypatch.setattr(duplicates, "DISTANCE", 2)
    groups = shared(duplicates.find_groups(release), release.table.name)
    assert (len(groups), sum(map(len, groups))) == (85, 190)


def test_the_bound_lies_in_the_valley_between_duplicates_and_chance(release):
    """Pairs become rarer from a distance of 2 to one of 8, and more frequent from 10 on."""
    pairs = duplicates.count_distances(release).pairs
    assert pairs[:16].tolist() == [17, 38, 61, 39, 32, 14, 5, 4, 3, 2, 5, 6, 14, 32, 64, 102]


def test_one_image_under_two_labels_is_one_group(release):
    names = release.table.name.tolist()
    one, other = names.index("benign (433)"), names.index("malignant (145)")
    assert duplicates.hash_distances(release)[one, other] == 0
    groups = duplicates.find_groups(release)
    assert groups[one] == groups[other]
