"""The splits: nothing stands on two sides, classes and sizes are dealt out evenly, and the committed files hold."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi.config import ROOT, StudyError
from busi.dataset import catalog, duplicates, phantom, splits
from busi.dataset.catalog import Catalog

pytestmark = pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")

FOLDS = [f"fold{fold}" for fold in range(5)]


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "ROOT", tmp_path_factory.getbasetemp())
        yield


def jpeg(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return catalog.grey(file)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """28 phantoms; of the first six benign ones a copy each, of the seventh five, of two more one in another class."""
    folder = phantom.draw(tmp_path_factory.mktemp("planted") / "data", benign=14, malignant=8, normal=6, seed=0)
    copies = [f"benign ({k})" for k in (1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7)]
    pairs = [(source, f"benign ({k})") for k, source in enumerate(copies, start=15)]
    pairs += [("benign (8)", "malignant (9)"), ("malignant (1)", "benign (26)"), ("normal (1)", "normal (7)")]
    for k, (source, copy) in enumerate(pairs):
        for end in ("", "_mask"):
            pixels = catalog.grey(folder / source.split()[0] / f"{source}{end}.png")
            Image.fromarray(jpeg(pixels, 40 + k)).save(folder / copy.split()[0] / f"{copy}{end}.png")
    return catalog.read(folder, expected=None)


@pytest.fixture(scope="module")
def release(busi_dir, own_cache):
    return catalog.read(busi_dir)


@pytest.fixture(scope="module", params=["phantoms", "the release", "the committed file"])
def grouped(request):
    """A grouped split and the pairs of near-duplicate rows, found apart from it where the images are at hand."""
    if request.param == "the committed file":
        split = splits.read(ROOT / "params" / "splits-grouped.csv")
        same = split.group.to_numpy()[:, None] == split.group.to_numpy()
    else:
        data = request.getfixturevalue({"phantoms": "planted", "the release": "release"}[request.param])
        split = splits.make(data, "grouped")
        same = duplicates.distances(data) <= duplicates.DISTANCE
    return split, np.argwhere(np.triu(same, 1))


# Nothing on two sides


def test_no_two_near_duplicates_stand_on_two_sides(grouped):
    split, pairs = grouped
    assert len(pairs) >= 20
    for fold in FOLDS:
        part = split[fold].to_numpy()
        straddling = [pair for pair in pairs if part[pair[0]] != part[pair[1]]]
        assert straddling == []
        assert split.groupby("group")[fold].nunique().max() == 1


def test_every_image_is_tested_in_exactly_one_fold(grouped):
    """And a row is one image, with one part a fold: none can stand on two sides."""
    split, _ = grouped
    assert not split[["image_class", "name"]].duplicated().any()
    assert ((split[FOLDS] == "test").sum(axis=1) == 1).all()
    for fold in FOLDS:
        assert set(split[fold]) == {"training", "validation", "test"}


def test_the_random_split_tears_near_duplicates_apart(planted):
    """Else it would measure no leak."""
    split = splits.make(planted, "random")
    assert ((split[FOLDS] == "test").sum(axis=1) == 1).all()
    torn = [split.groupby("group")[fold].nunique().gt(1).sum() for fold in FOLDS]
    assert min(torn) >= 3


def test_both_splits_name_the_same_groups_and_strata(planted):
    columns = ["image_class", "name", "group", "stratum"]
    grouped, random = (splits.make(planted, kind)[columns] for kind in splits.KINDS)
    pd.testing.assert_frame_equal(grouped, random)
    assert grouped.name.tolist() == planted.table.name.tolist()
    np.testing.assert_array_equal(grouped.group, duplicates.groups(planted))


# Dealt out evenly


def test_strata_are_the_class_and_the_tercile_of_the_lesion(planted):
    split = splits.make(planted, "random").assign(share=planted.table.lesion_share)
    assert (split.stratum.str.split().str[0] == split.image_class).all()
    assert set(split.stratum[split.image_class == "normal"]) == {"normal"}
    lesions = split[split.image_class != "normal"]
    terciles = lesions.groupby(lesions.stratum.str[-1]).share.agg(["count", "min", "max"])
    assert terciles.index.tolist() == ["0", "1", "2"]
    assert terciles["count"].max() - terciles["count"].min() <= 1
    assert (terciles["max"].to_numpy()[:-1] <= terciles["min"].to_numpy()[1:]).all()


@pytest.mark.parametrize("kind", splits.KINDS)
def test_strata_of_the_release_are_dealt_out_evenly(kind):
    """A fifth of each stratum in each test part and a seventh of what is left in each validation part, to one image."""
    split = splits.read(ROOT / "params" / f"splits-{kind}.csv")
    sizes = split.stratum.value_counts()
    assert sizes["normal"] == 133 and sizes.filter(like="benign").sum() == 437 and sizes.sum() == 780
    for fold in FOLDS:
        test, validation = (split.stratum[split[fold] == part].value_counts() for part in ("test", "validation"))
        assert (test - sizes / 5).abs().max() <= 1
        assert (validation - (sizes - test) / 7).abs().max() <= 1


# The files


@pytest.mark.parametrize("kind", splits.KINDS)
def test_the_committed_files_are_the_releases_splits(release, kind):
    committed = splits.read(ROOT / "params" / f"splits-{kind}.csv")
    assert committed.attrs["fingerprint"] == release.fingerprint
    pd.testing.assert_frame_equal(committed, splits.make(release, kind), check_dtype=False)
    pd.testing.assert_frame_equal(splits.of(release, kind), committed)


def test_the_random_split_leaks_near_duplicates_into_training():
    """Share of the release's test images whose near-duplicate is trained on, mean over folds."""
    split = splits.read(ROOT / "params" / "splits-random.csv")
    leaks = [split.group[split[fold] == "test"].isin(split.group[split[fold] == "training"]).mean() for fold in FOLDS]
    assert np.mean(leaks) == pytest.approx(0.304, abs=0.0005)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A repository without splits."""
    (tmp_path / "params").mkdir()
    monkeypatch.setattr(splits, "ROOT", tmp_path)
    return tmp_path / "params"


def test_a_written_split_is_the_one_used(planted, elsewhere):
    """And a line changed by hand shows that it is read, not made."""
    file = splits.write(planted, "grouped")
    assert file == elsewhere / "splits-grouped.csv"
    made = splits.make(planted, "grouped")
    pd.testing.assert_frame_equal(splits.of(planted, "grouped"), made, check_dtype=False)
    fold = made.loc[0, FOLDS].tolist()
    line = ",".join(fold)
    moved = line.replace("test", "*").replace("training", "test", 1).replace("*", "training")
    file.write_text(file.read_text(encoding="utf-8").replace(line, moved, 1), encoding="utf-8")
    assert splits.of(planted, "grouped").loc[0, FOLDS].tolist() == moved.split(",") != fold


def test_the_split_of_other_data_is_not_used(planted, elsewhere):
    file = splits.write(planted, "grouped")
    text = file.read_text(encoding="utf-8").replace(planted.fingerprint, "0123456789abcdef").replace("test", "training")
    file.write_text(text, encoding="utf-8")
    pd.testing.assert_frame_equal(splits.of(planted, "grouped"), splits.make(planted, "grouped"))


def test_without_a_file_the_split_is_made(planted, elsewhere):
    assert splits.read(elsewhere / "splits-grouped.csv") is None
    pd.testing.assert_frame_equal(splits.of(planted, "grouped"), splits.make(planted, "grouped"))
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "old, new", [("# data ", "data "), ("fold4", "fold five"), (",validation", ",valid"), (",test", ",")]
)
def test_a_file_that_is_no_split_is_refused(planted, elsewhere, old, new):
    file = splits.write(planted, "grouped")
    file.write_text(file.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        splits.of(planted, "grouped")
    assert str(caught.value).startswith(f"{file}: not a split; expected '# data FINGERPRINT' and 5 columns")


def some(data, step):
    """Every second image, or every fourth."""
    return Catalog(data.table[::step].reset_index(drop=True), f"every {step}")


def test_too_few_images_are_refused(planted):
    with pytest.raises(
        StudyError, match=r"^11 images: at most 3 of a class and lesion size; expected 5 or more of one"
    ):
        splits.make(some(planted, 4), "grouped")


def test_a_few_images_are_split_all_the_same(planted):
    """As many as a trial study draws: no stratum has the seven images that the validation part asks for."""
    split = splits.make(some(planted, 2), "grouped")
    assert len(split) == 21 and split.stratum.value_counts().max() < 7
    lesions = split[split.image_class != "normal"]
    for fold in FOLDS:
        assert set(lesions[fold]) == {"training", "validation", "test"}
    assert ((split[FOLDS] == "test").sum(axis=1) == 1).all()


def test_a_file_whose_rows_were_moved_is_refused(planted, tmp_path, monkeypatch):
    """Rows are taken by their place: another order would train on what is tested."""
    monkeypatch.setattr(splits, "ROOT", tmp_path)
    (tmp_path / "params").mkdir()
    path = splits.write(planted, "grouped")
    pd.testing.assert_frame_equal(splits.of(planted, "grouped"), splits.make(planted, "grouped"), check_dtype=False)
    head, names, first, second, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([head, names, second, first, *rest]) + "\n", encoding="utf-8")
    with pytest.raises(StudyError, match="not the data's images in their order"):
        splits.of(planted, "grouped")
