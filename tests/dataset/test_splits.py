"""Splits: no near-duplicates in two parts, even shares of classes and sizes, and the committed files."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_study import jpeg

from busi.config import StudyError
from busi.dataset import catalog, duplicates, phantom, splits
from busi.dataset.catalog import Catalog

pytestmark = pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")

FOLDS = [f"fold{fold}" for fold in range(5)]

PARAMS = Path(__file__).parents[2] / "params"
"""Folder of the committed splits."""

SOURCES = ("phantoms", "the release", "the committed file")
"""Where a tested split comes from."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory, inside_study):
    """Draw 28 phantoms and copy some: six benign ones once, one five times, two into the other class, one normal."""
    folder = phantom.draw_phantoms(
        tmp_path_factory.mktemp("planted") / "data", benign=14, malignant=8, normal=6, seed=0
    )
    copies = [f"benign ({k})" for k in (1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7)]
    pairs = [(source, f"benign ({k})") for k, source in enumerate(copies, start=15)]
    pairs += [("benign (8)", "malignant (9)"), ("malignant (1)", "benign (26)"), ("normal (1)", "normal (7)")]
    for k, (source, copy) in enumerate(pairs):
        for end in ("", "_mask"):
            pixels = catalog.read_grey(folder / source.split()[0] / f"{source}{end}.png")
            Image.fromarray(jpeg(pixels, 40 + k)).save(folder / copy.split()[0] / f"{copy}{end}.png")
    return catalog.read_catalog(folder, expected=None)


@pytest.fixture(scope="module")
def patients(planted):
    """Name a patient for each image, so that a study with an empty cache need not search for near-duplicates."""
    return Catalog(planted.table.assign(group=planted.table.name), planted.fingerprint)


@pytest.fixture(scope="module")
def release(busi_dir, inside_study):
    return catalog.read_catalog(busi_dir)


@pytest.fixture(scope="module", params=itertools.product(("grouped", "blocked"), SOURCES), ids=" ".join)
def grouped(request):
    """Return a split that keeps groups, and the near-duplicate pairs of rows, from the images where there are any."""
    kind, source = request.param
    if source == "the committed file":
        split = pd.read_csv(PARAMS / f"splits-{kind}.csv", skiprows=1)
        same = split.group.to_numpy()[:, None] == split.group.to_numpy()
    else:
        data = request.getfixturevalue({"phantoms": "planted", "the release": "release"}[source])
        split = splits.make_split(data, kind)
        names = data.table.name.to_numpy()
        # Of the release, the rule finds nothing that is not listed (tests/dataset/test_duplicates.py).
        pairs = duplicates.read_pairs(data)
        pairs = duplicates.find_pairs(data) if pairs is None else pairs[pairs.verdict != "different"]
        same = np.zeros((len(names), len(names)), bool)
        row = {name: number for number, name in enumerate(names)}
        same[pairs.image_a.map(row), pairs.image_b.map(row)] = True
    return split, np.argwhere(np.triu(same, 1))


# Near-duplicates


def test_near_duplicates_are_always_in_the_same_part(grouped):
    split, pairs = grouped
    assert len(pairs) >= 20
    for fold in FOLDS:
        part = split[fold].to_numpy()
        separated = [pair for pair in pairs if part[pair[0]] != part[pair[1]]]
        assert separated == []
        assert split.groupby("group")[fold].nunique().max() == 1


def test_every_image_is_tested_in_exactly_one_fold(grouped):
    """Each row is another image, and has one part in each fold."""
    split, _ = grouped
    assert not split[["image_class", "name"]].duplicated().any()
    assert ((split[FOLDS] == "test").sum(axis=1) == 1).all()
    for fold in FOLDS:
        assert set(split[fold]) == {"training", "validation", "test"}


def test_the_random_split_separates_near_duplicates(planted):
    """Otherwise it could not measure the leak."""
    split = splits.make_split(planted, "random")
    assert ((split[FOLDS] == "test").sum(axis=1) == 1).all()
    separated = [split.groupby("group")[fold].nunique().gt(1).sum() for fold in FOLDS]
    assert min(separated) >= 3


def test_all_splits_name_the_same_groups_and_strata(planted):
    columns = ["image_class", "name", "group", "stratum"]
    random, grouped, blocked = (splits.make_split(planted, kind)[columns] for kind in splits.KINDS)
    pd.testing.assert_frame_equal(grouped, random)
    pd.testing.assert_frame_equal(grouped, blocked)
    assert grouped.name.tolist() == planted.table.name.tolist()
    np.testing.assert_array_equal(grouped.group, duplicates.group_images(planted))


# Even shares


def test_strata_are_the_class_and_the_tercile_of_the_lesion(planted):
    split = splits.make_split(planted, "random").assign(share=planted.table.lesion_share)
    assert (split.stratum.str.split().str[0] == split.image_class).all()
    assert set(split.stratum[split.image_class == "normal"]) == {"normal"}
    lesions = split[split.image_class != "normal"]
    terciles = lesions.groupby(lesions.stratum.str[-1]).share.agg(["count", "min", "max"])
    assert terciles.index.tolist() == ["0", "1", "2"]
    assert terciles["count"].max() - terciles["count"].min() <= 1
    assert (terciles["max"].to_numpy()[:-1] <= terciles["min"].to_numpy()[1:]).all()


@pytest.mark.parametrize("lesions", [0, 1])
def test_images_without_two_lesions_have_no_terciles(lesions):
    classes = ["benign"] * lesions + ["normal"] * 5
    table = pd.DataFrame({"image_class": classes, "lesion_share": [0.1] * lesions + [0.0] * 5})
    strata = splits.find_strata(table)
    assert [stratum.split()[0] for stratum in strata] == classes
    with pytest.raises(StudyError, match="at most 4 have the same class"):
        splits.find_strata(table[1:] if lesions == 0 else table.drop(5))


@pytest.mark.parametrize("kind", ["random", "grouped"])
def test_strata_of_the_release_are_divided_evenly(kind):
    """Each test part has a fifth of each stratum, each validation part a seventh of the rest, within 1.5 images."""
    split = pd.read_csv(PARAMS / f"splits-{kind}.csv", skiprows=1)
    sizes = split.stratum.value_counts()
    assert sizes["normal"] == 133 and sizes.filter(like="benign").sum() == 437 and sizes.sum() == 780
    for fold in FOLDS:
        test, validation = (split.stratum[split[fold] == part].value_counts() for part in ("test", "validation"))
        assert (test - sizes / 5).abs().max() <= 1.5
        assert (validation - (sizes - test) / 7).abs().max() <= 1.5


# Blocks


def make_images(groups):
    """Return twenty images, each in a group of its own but for those that are given another's number."""
    images = pd.DataFrame({"image_class": "benign", "name": [f"benign ({k})" for k in range(1, 21)]})
    # Listed by name, 10 to 19 come between 1 and 2.
    images = images.sort_values("name", ignore_index=True)
    number = images.name.str.extract(r"(\d+)", expand=False).astype(int)
    return images.assign(group=number.replace(groups)), number


def test_runs_hold_neighbouring_numbers():
    images, number = make_images({})
    assert splits._cut_into_runs(images, 5).tolist() == ((number - 1) // 4).tolist()


def test_a_group_stands_where_its_first_image_does():
    """Image 20 is a copy of 1, and 11 of 9: the runs end at images 3, 7, 11 and 15, which makes four images each."""
    images, number = make_images({20: 1, 11: 9})
    runs = pd.Series(splits._cut_into_runs(images, 5)).groupby(number).first()
    assert runs.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 0]


def test_blocked_folds_of_the_release_are_contiguous():
    """Counted by the first image of each group, a class's tested numbers have none of another fold between them."""
    split = pd.read_csv(PARAMS / "splits-blocked.csv", skiprows=1)
    number = split.name.str.extract(r"(\d+)", expand=False).astype(int)
    first = split.assign(number=number).sort_values(["image_class", "number"]).drop_duplicates("group")
    for _, images in first.groupby("image_class"):
        tested_in = (images[FOLDS] == "test").to_numpy().argmax(axis=1)
        assert tested_in.tolist() == sorted(tested_in) and set(tested_in) == set(range(5))
        for fold in FOLDS:
            outside = images[images[fold] != "test"]
            validation = np.flatnonzero(outside[fold] == "validation")
            assert (np.diff(validation) == 1).all() and len(validation)


def test_blocked_parts_of_the_release_are_about_equal():
    split = pd.read_csv(PARAMS / "splits-blocked.csv", skiprows=1)
    for fold in FOLDS:
        test, validation = ((split[fold] == part).sum() for part in ("test", "validation"))
        assert abs(test - 780 / 5) <= 4 and abs(validation - (780 - test) / 7) <= 4


# The files


@pytest.mark.parametrize("kind", splits.KINDS)
def test_the_committed_files_are_the_releases_splits(release, kind, tmp_path, monkeypatch):
    committed = pd.read_csv(PARAMS / f"splits-{kind}.csv", skiprows=1)
    pd.testing.assert_frame_equal(committed, splits.make_split(release, kind), check_dtype=False)
    shutil.copytree(PARAMS, tmp_path / "params")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    # Read, not made again.
    assert splits.split_version(kind, release.fingerprint)
    pd.testing.assert_frame_equal(splits.load_split(release, kind), committed)


def test_the_random_split_leaks_near_duplicates_into_training():
    """Checks the share of the release's test images whose near-duplicate is trained on, averaged over folds."""
    split = pd.read_csv(PARAMS / "splits-random.csv", skiprows=1)
    leaks = [split.group[split[fold] == "test"].isin(split.group[split[fold] == "training"]).mean() for fold in FOLDS]
    assert np.mean(leaks) == pytest.approx(0.363, abs=0.0005)


def test_a_fold_without_a_lesion_in_one_of_its_parts_is_refused(planted):
    """Two patients a class are six groups, enough for five test parts; one of these holds normal images alone."""
    table = planted.table
    half = table.groupby("image_class").cumcount() % 2
    few = Catalog(table.assign(group=table.image_class + half.astype(str)), planted.fingerprint)
    with pytest.raises(StudyError, match=r"^grouped split, fold \d: no image with a lesion in the test part of \d+ "):
        splits.make_split(few, "grouped")


def test_a_written_split_is_the_one_used(patients, here):
    """A line changed by hand shows that it is read, not made."""
    files = splits.write_splits(patients)
    assert files == [here / "params" / f"splits-{kind}.csv" for kind in ("random", "grouped", "blocked")]
    file = splits.split_file("grouped")
    made = splits.make_split(patients, "grouped")
    pd.testing.assert_frame_equal(splits.load_split(patients, "grouped"), made, check_dtype=False)
    fold = made.loc[0, FOLDS].tolist()
    line = ",".join(fold)
    moved = line.replace("test", "*").replace("training", "test", 1).replace("*", "training")
    file.write_text(file.read_text(encoding="utf-8").replace(line, moved, 1), encoding="utf-8")
    assert splits.load_split(patients, "grouped").loc[0, FOLDS].tolist() == moved.split(",") != fold


def test_names_that_look_like_numbers_or_gaps_come_back_as_they_are(patients, here):
    table = patients.table
    names = [f"{number:06}" for number in range(len(table) - 2)] + ["NA", "null"]
    numbered = Catalog(table.assign(name=names), patients.fingerprint)
    splits.write_splits(numbered)
    assert splits.load_split(numbered, "grouped").name.tolist() == names


def test_the_split_of_other_data_is_not_used(patients, here):
    splits.write_splits(patients)
    file = splits.split_file("grouped")
    text = (
        file.read_text(encoding="utf-8").replace(patients.fingerprint, "0123456789abcdef").replace("test", "training")
    )
    file.write_text(text, encoding="utf-8")
    pd.testing.assert_frame_equal(splits.load_split(patients, "grouped"), splits.make_split(patients, "grouped"))


def test_the_split_of_other_data_is_not_replaced(patients, here):
    """One file of other data is enough: a study whose splits are of two data sets would compare nothing."""
    others = here / "params" / "splits-blocked.csv"
    others.write_text("# data 0123456789abcdef\nimage_class,name\n", encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        splits.write_splits(patients)
    message = str(caught.value)
    assert message.startswith(f"{others}: holds the split of other data: it begins with '# data 0123456789abcdef', not")
    assert patients.fingerprint in message and "move this file or delete it" in message
    assert {file.name: file.stat().st_size for file in others.parent.iterdir()} == {"splits-blocked.csv": 41}
    others.unlink()
    first = [file.read_bytes() for file in splits.write_splits(patients)]
    # One's own may be written again.
    assert [file.read_bytes() for file in splits.write_splits(patients)] == first


def test_without_a_file_the_split_is_made(patients, here):
    pd.testing.assert_frame_equal(splits.load_split(patients, "grouped"), splits.make_split(patients, "grouped"))
    assert list((here / "params").iterdir()) == []


@pytest.mark.parametrize("old, new", [("fold4", "fold five"), (",validation", ",valid"), (",test", ",")])
def test_a_file_that_is_no_split_is_refused(patients, here, old, new):
    splits.write_splits(patients)
    file = splits.split_file("grouped")
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        splits.load_split(patients, "grouped")
    message = str(caught.value)
    assert message.startswith(f"{file}: not the split of these data; expected a row for each image")


def thinned(data, step):
    """Keep every ``step``-th image."""
    return Catalog(data.table[::step].reset_index(drop=True), f"every {step}")


def test_too_few_images_are_refused(planted):
    with pytest.raises(
        StudyError, match=r"^11 images: at most 3 have the same class and lesion size; expected 5 or more"
    ):
        splits.make_split(thinned(planted, 4), "grouped")


def of_patients(data, number):
    """Give the images to so many patients in turn."""
    return Catalog(data.table.assign(group=[f"p{row % number}" for row in range(len(data.table))]), f"of {number}")


@pytest.mark.parametrize("kind", ["grouped", "blocked"])
def test_too_few_patients_are_refused(planted, kind):
    with pytest.raises(StudyError, match=r"^42 images in 4 groups \(patients, .*; expected 5 or more, one for"):
        splits.make_split(of_patients(planted, 4), kind)
    # They are no hindrance where groups are separated.
    assert splits.make_split(of_patients(planted, 4), "random").group.nunique() == 4


@pytest.mark.parametrize("number", [5, 6, 8])
def test_a_few_patients_can_be_split(planted, number):
    """Outside a test part there are fewer than the seven that a validation part asks for."""
    split = splits.make_split(of_patients(planted, number), "grouped")
    for fold in FOLDS:
        of_part = split.groupby(fold).group.agg(set)
        assert set(of_part.index) == set(splits.PARTS)
        assert sum(map(len, of_part)) == number
    assert ((split[FOLDS] == "test").sum(axis=1) == 1).all()


def test_a_few_images_can_be_split(planted):
    """No stratum of a trial study has the seven images that a validation part asks for."""
    split = splits.make_split(thinned(planted, 2), "grouped")
    assert len(split) == 21 and split.stratum.value_counts().max() < 7
    lesions = split[split.image_class != "normal"]
    for fold in FOLDS:
        assert set(lesions[fold]) == {"training", "validation", "test"}
    assert ((split[FOLDS] == "test").sum(axis=1) == 1).all()


def test_a_file_with_its_rows_in_another_order_is_refused(patients, here):
    """Rows are used by position: another order would train on test images."""
    splits.write_splits(patients)
    path = splits.split_file("grouped")
    head, names, first, second, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([head, names, second, first, *rest]) + "\n", encoding="utf-8")
    with pytest.raises(StudyError, match="not the split of these data"):
        splits.load_split(patients, "grouped")
