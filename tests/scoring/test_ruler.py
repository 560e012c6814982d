"""Masks of other software are matched by name, whatever their size and coding, and scored on shared images alone."""

from unicodedata import normalize

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi.config import StudyError
from busi.dataset.catalog import DataWarning, read_catalog, read_union
from busi.scoring import metrics, ruler
from busi.scoring.ruler import Answer

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning:surface_distance")


@pytest.fixture(scope="module")
def phantoms(phantom_dir):
    return read_catalog(phantom_dir, expected=None)


def save(file, mask, inside=255):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * np.uint8(inside)).save(file)


def truths(catalog):
    return {row.name: read_union(row.masks) for row in catalog.table.itertuples()}


def test_perfect_masks_score_perfectly_in_folders_and_codings_of_any_kind(phantoms, tmp_path):
    for number, (name, truth) in enumerate(truths(phantoms).items()):
        if number % 3 == 0:
            save(tmp_path / "fold_0" / f"{name}.png", truth, inside=1)  # as nnU-Net writes classes
        elif number % 3 == 1:
            save(tmp_path / "fold_1" / f"{name}.TIF", truth)
        else:
            # Twice the size: every second pixel is the original.
            save(tmp_path / f"{name}.bmp", truth.repeat(2, axis=0).repeat(2, axis=1))
    (tmp_path / "summary.json").write_text("{}")
    scores = ruler.score_answers(phantoms, ruler.read_masks(phantoms, tmp_path))
    assert scores.name.tolist() == phantoms.table.name.tolist()
    lesions = scores.dropna(subset="dice")
    assert len(lesions) == 10
    assert (lesions[["dice", "iou", "precision", "recall", "nsd", "detected", "accuracy"]] == 1).all(axis=None)
    assert (lesions.hd95 == 0).all() and (scores.brier == 0).all()


@pytest.mark.parametrize(("of_image", "of_mask"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_mask_is_found_in_either_form_of_unicode(tmp_path, of_image, of_mask):
    """Masks that other software wrote on another system."""
    for folder, pixels in (("images", np.arange(1024).reshape(32, 32) % 251), ("masks", np.pad([[255] * 8] * 8, 12))):
        (tmp_path / folder).mkdir()
        form = of_image if folder == "images" else of_mask
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{normalize(form, 'für')}.png")
    catalog = read_catalog(tmp_path, expected=None)
    (answer,) = ruler.read_masks(catalog, tmp_path / "masks")
    assert answer.name == catalog.table.name[0] == normalize("NFC", "für")


def test_greys_count_from_half_of_white(phantoms, tmp_path):
    name = phantoms.table.name[0]
    height, width = truths(phantoms)[name].shape
    greys = np.zeros((height, width), np.uint8)
    greys[:, 0], greys[:, 1] = 127, 128
    Image.fromarray(greys).save(tmp_path / f"{name}.png")
    (answer,) = ruler.read_masks(phantoms, tmp_path)
    assert answer.name == name
    assert answer.probability.sum(axis=0).tolist()[:3] == [0, height, 0]


def encode(truth, coding):
    """Return a mask in a coding that software is known to write, as an image of Pillow's."""
    if coding == "palette":
        # Dark red, as in Pascal VOC: its luma is 38, and half of white would miss it.
        image = Image.fromarray(truth.astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 128, 0, 0])
        return image
    if coding == "red":
        return Image.fromarray(truth[..., np.newaxis] * np.array([255, 0, 0], np.uint8))
    kind, level = {"0/2": (np.uint8, 2), "0/100": (np.uint8, 100), "deep 0/1": (np.uint16, 1)}[coding]
    return Image.fromarray(truth.astype(kind) * kind(level))


@pytest.mark.parametrize("coding", ["0/2", "0/100", "deep 0/1", "palette", "red"])
def test_a_perfect_mask_is_perfect_in_every_coding_of_a_data_set_s_own_masks(phantoms, tmp_path, coding):
    name, truth = next(iter(truths(phantoms).items()))
    encode(truth, coding).save(tmp_path / f"{name}.png")
    scores = ruler.score_answers(phantoms, ruler.read_masks(phantoms, tmp_path))
    assert scores.dice.tolist() == [1]


@pytest.mark.parametrize("level", [1, 2, 255])
def test_a_mask_may_mark_everything_or_nothing(phantoms, tmp_path, level):
    """Its four corners would have a data set's own mask refused as inverted."""
    first, second, *_ = truths(phantoms).items()
    save(tmp_path / f"{first[0]}.png", np.ones_like(first[1]), inside=level)
    save(tmp_path / f"{second[0]}.png", np.zeros_like(second[1]))
    answers = ruler.read_masks(phantoms, tmp_path)
    assert [answer.probability.mean() for answer in answers] == [1, 0]


def test_masks_that_cannot_be_meant_are_refused_by_name(phantoms, tmp_path):
    # Not a square, which has no other way round.
    name, truth = next((name, truth) for name, truth in truths(phantoms).items() if len(truth) != len(truth.T))
    file = tmp_path / f"{name}.png"
    alpha = Image.new("RGBA", truth.shape[::-1])
    alpha.putalpha(Image.fromarray(truth.astype(np.uint8) * np.uint8(255)))
    levels = np.linspace(0, 255, truth.size).astype(np.uint8).reshape(truth.shape)
    for image, told in (
        (alpha, "transparent pixels"),
        (Image.fromarray(truth.T), "rotate one of them"),
        (Image.fromarray(levels), "of the pixels are grey"),
    ):
        image.save(file)
        with pytest.raises(StudyError, match=told) as caught:
            list(ruler.read_masks(phantoms, tmp_path))
        assert str(caught.value).startswith(f"{file}: ")


def test_masks_of_another_size_are_counted_in_one_warning(phantoms, tmp_path):
    for name, truth in list(truths(phantoms).items())[:3]:
        save(tmp_path / f"{name}.png", truth.repeat(2, axis=0).repeat(2, axis=1))
    with pytest.warns(DataWarning, match=r"another size than their image: .*: 3, e\.g\. .*benign \(1\)\.png") as told:
        list(ruler.read_masks(phantoms, tmp_path))
    assert len(told) == 1


def test_a_folder_that_is_not_there_is_told_before_any_mask_is_asked_for(phantoms, tmp_path):
    (tmp_path / "file").touch()
    for name in ("nope", "file"):
        with pytest.raises(StudyError, match=rf"{name}: no such folder"):
            ruler.read_masks(phantoms, tmp_path / name)


def test_two_masks_of_an_image_and_a_folder_without_any_are_refused(phantoms, tmp_path):
    name = phantoms.table.name[0]
    save(tmp_path / "other.png", np.ones((9, 9)))
    with pytest.raises(StudyError, match=r"no mask has the name of an image; expected files like benign \(1\)\.png"):
        list(ruler.read_masks(phantoms, tmp_path))
    save(tmp_path / f"{name}.png", np.ones((9, 9)))
    save(tmp_path / "again" / f"{name}.png", np.ones((9, 9)))
    with pytest.raises(StudyError, match="a second mask of"):
        list(ruler.read_masks(phantoms, tmp_path))


def test_all_rows_are_over_the_images_that_everybody_has_answered(phantoms):
    perfect = [Answer(name, truth.astype(float)) for name, truth in truths(phantoms).items()]
    empty = [answer._replace(probability=np.zeros_like(answer.probability)) for answer in perfect]
    full = [answer._replace(probability=np.ones_like(answer.probability)) for answer in perfect]
    normals = phantoms.table.name[phantoms.table.image_class == "normal"].tolist()
    scored = {
        "perfect on four": ruler.score_answers(phantoms, perfect[:4]),
        "half right": ruler.score_answers(phantoms, perfect[:2] + empty[2:]),
        "everything": ruler.score_answers(phantoms, full),
    }
    table, images = ruler.compare(phantoms, scored)
    assert table.predictor.tolist() == list(scored)
    assert table.answered.tolist() == [4, 12, 12]
    assert table.n_images.tolist() == [4, 4, 4]
    share = phantoms.table.lesion_share[:4]
    assert table.dice.tolist() == pytest.approx([1, 0.5, (2 * share / (1 + share)).mean()])
    assert table.recall.tolist() == [1, 0.5, 1]
    assert (table.dice_low <= table.dice).all() and (table.dice <= table.dice_high).all()
    assert table.n_normals.tolist() == [0, 0, 0]
    assert images.groupby("predictor").name.apply(set).map(len).tolist() == [4, 4, 4]
    table, _ = ruler.compare(phantoms, {key: scored[key] for key in ("half right", "everything")})
    assert table.n_images.tolist() == [10, 10]
    assert table.n_normals.tolist() == [len(normals)] * 2
    assert table.normals_fpr.tolist() == [0, 1]


def test_no_shared_lesion_image_is_told(phantoms):
    scores = pd.DataFrame([{"name": "normal (1)"} | dict.fromkeys((*metrics.LESION_SCORES, "accuracy"), np.nan)])
    with pytest.raises(StudyError, match="no image with a lesion has been answered"):
        ruler.compare(phantoms, {"a": scores.assign(predicted_share=0.0)})
