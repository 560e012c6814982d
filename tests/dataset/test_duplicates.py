"""Near-duplicates: copies planted among phantoms are found, unrelated images are not; numbers of the release."""

import itertools
import shutil
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse.csgraph import connected_components
from skimage.feature import match_template
from small_study import jpeg

from busi.config import StudyError
from busi.dataset import catalog, duplicates

PARAMS = Path(__file__).parents[2] / "params"
"""Folder of the committed list and splits."""


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


def brighter(pixels):
    return np.minimum(1.3 * pixels + 20, 255).astype(np.uint8)


def mirrored(pixels):
    return pixels[:, ::-1]


def right_side(pixels):
    """Cut off the left 30 percent and the lower tenth: another aspect ratio, and another hash."""
    rows, columns = pixels.shape
    return pixels[: round(0.9 * rows), round(0.3 * columns) :]


def shifted(pixels):
    """Show a part that begins 37 pixels further right and 21 further down."""
    return pixels[21:, 37:]


def mirrored_crop(pixels):
    return right_side(pixels)[:, ::-1]


PLANTED = {
    "benign (7)": ("benign (1)", jpeg),
    "benign (8)": ("benign (1)", darker),
    "benign (9)": ("benign (3)", half),
    "malignant (5)": ("benign (3)", cropped(2)),  # under another label
    "normal (3)": ("normal (1)", jpeg),
    # Each is a near-duplicate of the next one by hash, but the first is none of the last one.
    "malignant (6)": ("malignant (1)", cropped(3)),
    "malignant (7)": ("malignant (1)", cropped(6)),
    "malignant (8)": ("malignant (1)", cropped(9)),
    "benign (10)": ("benign (4)", mirrored),
    "benign (11)": ("benign (5)", right_side),
    "benign (12)": ("benign (6)", shifted),
    "malignant (9)": ("malignant (2)", mirrored_crop),
    "malignant (10)": ("malignant (3)", brighter),
}
GROUPS = [
    {"benign (1)", "benign (7)", "benign (8)"},
    {"benign (3)", "benign (9)", "malignant (5)"},
    {"normal (1)", "normal (3)"},
    {"malignant (1)", "malignant (6)", "malignant (7)", "malignant (8)"},
    {"benign (4)", "benign (10)"},
    {"benign (5)", "benign (11)"},
    {"benign (6)", "benign (12)"},
    {"malignant (2)", "malignant (9)"},
    {"malignant (3)", "malignant (10)"},
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
    groups = duplicates.group_images(planted)
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
    groups = duplicates.group_images(planted)
    firsts = [groups.tolist().index(group) for group in range(groups.max() + 1)]
    assert firsts == sorted(firsts)


def test_crops_are_found_by_the_match_and_rescaled_copies_by_the_hashes(planted):
    """Neither finds both, so that both are needed."""
    names = planted.table.name.tolist()
    distances, scores = duplicates.hash_distances(planted), duplicates.match_scores(planted)
    crop = names.index("benign (5)"), names.index("benign (11)")
    assert distances[crop] > duplicates.DISTANCE and scores[crop] >= duplicates.MATCH
    smaller = names.index("benign (3)"), names.index("benign (9)")
    assert distances[smaller] <= duplicates.DISTANCE and scores[smaller] < duplicates.MATCH
    found_by = duplicates.find_pairs(planted).set_index(["image_a", "image_b"]).found_by
    # In the order of the catalog, in which 11 comes before 5.
    assert found_by["benign (11)", "benign (5)"] == "match" and found_by["benign (3)", "benign (9)"] == "hash"


def test_distances_are_the_larger_of_both_hashes_of_the_nearer_image(planted):
    """Expected values come from imagehash's own subtraction, of each image and of its mirror image."""
    kinds = (imagehash.dhash, imagehash.average_hash)
    images = [Image.fromarray(catalog.read_grey(file)) for file in planted.table.image]
    mirror_images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    hashes, mirror_hashes = ([[kind(image) for kind in kinds] for image in each] for each in (images, mirror_images))

    def larger(one, other):
        return max(a - b for a, b in zip(one, other, strict=True))

    expected = np.empty((len(images), len(images)), int)
    for a, b in itertools.product(range(len(images)), repeat=2):
        pairs = [(hashes[a], hashes[b]), (hashes[a], mirror_hashes[b]), (hashes[b], mirror_hashes[a])]
        expected[a, b] = min(larger(*pair) for pair in pairs)
    np.testing.assert_array_equal(duplicates.hash_distances(planted), expected)


def test_pairs_are_counted_once_at_each_distance(planted):
    counted = duplicates.count_distances(planted)
    assert counted.columns.tolist() == ["distance", "pairs"]
    assert counted.distance.tolist() == list(range(65))
    assert counted.pairs.sum() == 25 * 24 / 2
    distances = duplicates.hash_distances(planted)
    pairs = [distances[a, b] for a, b in itertools.combinations(range(25), 2)]
    assert counted.pairs.tolist() == [pairs.count(distance) for distance in range(65)]


# The match


def best_place(image, template):
    """Return scikit-image's best correlation of a template or its mirror image, -1 where it does not fit."""
    if any(inner > outer for inner, outer in zip(template.shape, image.shape, strict=True)):
        return -1
    return max(match_template(image, each).max() for each in (template, template[:, ::-1]))


def test_the_match_is_scikit_images():
    """Images of several sizes, one of them flat, and templates of which one fits into none."""
    rng = np.random.default_rng(0)
    shapes = [(20, 31), (24, 24), (13, 40), (9, 8)]
    images = [rng.normal(100, 30, shape).astype(np.float32) for shape in shapes]
    images.append(np.full((30, 30), 7, np.float32))
    templates = [images[0][4:15, 3:20], images[1][5:17, 6:14][:, ::-1], rng.normal(0, 9, (35, 6)).astype(np.float32)]
    found = duplicates.find_best_places(templates, images)
    expected = [[best_place(image, template) for image in images] for template in templates]
    # What scikit-image calls 0, a flat image, is nothing that could be found.
    np.testing.assert_allclose(found[:, :4], np.array(expected)[:, :4], atol=1e-5)
    assert found[0, 0] == pytest.approx(1) and found[1, 1] == pytest.approx(1)
    assert found[:, 4].tolist() == [-1, -1, -1] and found[2].tolist() == [-1] * 5
    # Nor is a flat template found anywhere, even in itself.
    assert (duplicates.find_best_places([images[4]], images) == -1).all()


def test_the_match_compares_the_middle_at_native_scale_in_both_directions(planted):
    """Each side loses a fifth of its blocks of 8 pixels."""
    scores = duplicates.match_scores(planted)
    blocks = []
    for file in planted.table.image[:6]:
        pixels = catalog.read_grey(file)
        height, width = (side // 8 for side in pixels.shape)
        rows = np.add.reduceat(pixels[: 8 * height].astype(float), range(0, 8 * height, 8), axis=0)
        blocks.append(np.add.reduceat(rows[:, : 8 * width], range(0, 8 * width, 8), axis=1) / 64)
    for a, b in itertools.product(range(6), repeat=2):
        one, other = blocks[a], blocks[b]
        directions = []
        for image, inner in ((one, other), (other, one)):
            top, left = (round(side / 5) for side in inner.shape)
            directions.append(best_place(image, inner[top:-top, left:-left]))
        assert scores[a, b] == pytest.approx(max(directions), abs=1e-4)


# The list


def write_list(study, data, rows):
    table = pd.DataFrame(rows, columns=["image_a", "image_b", "score", "found_by", "verdict"])
    text = f"# data {data.fingerprint}\n{table.to_csv(index=False)}"
    (study / "params" / "near-duplicates.csv").write_text(text, encoding="utf-8")


def test_verdicts_take_the_place_of_the_rule(planted, here):
    """Different, the nearest pair is separated; called the same, any two are joined."""
    rows = [
        ("benign (1)", "benign (7)", 0.9, "hash", "different"),
        ("benign (2)", "normal (2)", 0.1, "eye", "same lesion"),
        ("normal (2)", "benign (3)", 0.1, "eye", "same scan"),
    ]
    write_list(here, planted, rows)
    assert shared(duplicates.group_images(planted), planted.table.name) == [{"benign (2)", "normal (2)", "benign (3)"}]


def test_the_list_of_other_data_is_not_used(planted, here):
    write_list(here, catalog.Catalog(planted.table, "other"), [("benign (1)", "benign (2)", 1, "eye", "same scan")])
    assert duplicates.read_pairs(planted) is None
    assert len(shared(duplicates.group_images(planted), planted.table.name)) == len(GROUPS)


@pytest.mark.parametrize(
    "image, verdict, fault", [("benign (99)", "different", "benign \\(99\\)"), ("benign (2)", "sam", "sam")]
)
def test_a_faulty_list_is_refused(planted, here, image, verdict, fault):
    write_list(here, planted, [("benign (1)", image, 0.9, "eye", verdict)])
    with pytest.raises(StudyError, match=f"near-duplicates.csv: got '{fault}'; expected names of the data's images"):
        duplicates.group_images(planted)


def test_the_committed_list_makes_the_committed_groups():
    """Without the data: names and verdicts are valid, and the groups of the splits are the list's components."""
    file = PARAMS / "splits-grouped.csv"
    split = pd.read_csv(file, skiprows=1)
    # The first line names the data: "# data 5ac060d8557cd17a".
    data = catalog.Catalog(split, file.read_text(encoding="utf-8").split()[2])
    # This study holds a copy of the committed list.
    pairs = duplicates.read_pairs(data)
    assert set(pairs.found_by) == {"hash", "match", "scale", "eye"} and set(pairs.verdict) == set(duplicates.VERDICTS)
    assert not pairs.duplicated(["image_a", "image_b"]).any()
    np.testing.assert_array_equal(duplicates.group_images(data), split.group)
    group = split.set_index("name").group
    # Two that are called different may still be tied by a third one: none is.
    different = pairs[pairs.verdict == "different"]
    assert (group[different.image_a].to_numpy() != group[different.image_b].to_numpy()).all()


# The release


@pytest.fixture(scope="module")
def release(busi_dir, inside_study):
    return catalog.read_catalog(busi_dir)


@pytest.fixture(scope="module")
def listed(release):
    return duplicates.read_pairs(release)


def test_groups_of_the_release(release):
    groups = shared(duplicates.group_images(release), release.table.name)
    assert (len(groups), sum(map(len, groups))) == (161, 374)


def test_hashes_alone_find_fewer_groups(release):
    """Also with the usual bound of 2, under which more than a third of the images are missed."""
    found = {}
    for bound in (duplicates.DISTANCE, 2):
        _, groups = connected_components(duplicates.hash_distances(release) <= bound, directed=False)
        groups = shared(groups, release.table.name)
        found[bound] = (len(groups), sum(map(len, groups)))
    assert found == {8: (143, 320), 2: (85, 190)}


def test_the_bound_lies_in_the_valley_between_duplicates_and_chance(release):
    """Pairs become rarer from a distance of 2 to one of 8, and more frequent from 9 on."""
    pairs = duplicates.count_distances(release).pairs
    assert pairs[:9].tolist() == [17, 38, 61, 39, 32, 14, 5, 4, 3]
    assert (np.diff(pairs[8:16]) > 0).all()


def test_all_that_the_rule_finds_in_the_release_is_listed(release, listed):
    """And nothing that is listed as found by hash or match is less alike than that. Takes a minute or two."""
    names = release.table.name.to_numpy()
    found = duplicates.find_pairs(release).set_index(["image_a", "image_b"])
    pairs = listed.set_index(["image_a", "image_b"])
    assert not pairs.index.duplicated().any()
    assert set(found.index) <= set(pairs.index)
    assert (pairs.found_by[found.index] == found.found_by).all()
    assert (pairs.verdict[found.index] != "different").all()
    # From 0.92 on all pairs were looked at that the hashes do not tie.
    scores = duplicates.match_scores(release)
    _, by_hash = connected_components(duplicates.hash_distances(release) <= duplicates.DISTANCE, directed=False)
    untied = by_hash[:, None] != by_hash
    alike = np.argwhere(np.triu(untied & (scores >= 0.92), k=1))
    assert {(names[a], names[b]) for a, b in alike} <= set(pairs.index)
    row = {name: number for number, name in enumerate(names)}
    of_list = scores[listed.image_a.map(row), listed.image_b.map(row)]
    np.testing.assert_allclose(of_list, listed.score, atol=0.0006)
    assert of_list[listed.found_by == "match"].min() >= 0.88


def test_a_crop_at_another_scale_is_listed(release, listed):
    """Hashes miss it because it is a crop, the match because it is shrunk by 1.2."""
    names = release.table.name.tolist()
    files = release.table.image[[names.index("malignant (113)"), names.index("malignant (11)")]]
    whole, crop = (Image.fromarray(catalog.read_grey(file)) for file in files)
    enlarged = crop.resize((round(1.2 * crop.width), round(1.2 * crop.height)), Image.Resampling.BOX)
    image, inner = (np.array(each.reduce(8), np.float32) for each in (whole, enlarged))
    top, left = (round(side / 5) for side in inner.shape)
    assert best_place(image, inner[top:-top, left:-left]) >= duplicates.MATCH
    verdict = listed.set_index(["image_a", "image_b"]).verdict
    assert verdict["malignant (11)", "malignant (113)"] == "same scan"


def test_one_image_under_two_labels_is_one_group(release):
    names = release.table.name.tolist()
    one, other = names.index("benign (433)"), names.index("malignant (145)")
    assert duplicates.hash_distances(release)[one, other] == 0
    groups = duplicates.group_images(release)
    assert groups[one] == groups[other]
