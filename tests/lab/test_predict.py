"""Predicted files: their scores are the run's own, their rows say what is in them, and bad files stop nobody."""

import shutil
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi.config import StudyError
from busi.dataset.catalog import DataWarning, read_grey
from busi.lab import networks, predict
from busi.lab.networks import Network
from busi.scoring import metrics
from busi.scoring.scores import find_or_score

KLD, RAW = "loss: KLD", "data: No preprocess"


@pytest.fixture
def network(laboratory):
    return Network(laboratory.variants[KLD].runs[0])


def list_written(out):
    return sorted(file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file())


@pytest.mark.parametrize("label", [KLD, RAW])
def test_masks_of_held_out_images_score_what_the_run_has_recorded(laboratory, label, tmp_path):
    run = laboratory.variants[label].runs[0]
    recorded = find_or_score(run, laboratory.catalog).images.set_index("name")
    images = laboratory.catalog.table.set_index("name").loc[recorded.index, "image"]
    files = [predict.find_images(image)[0] for image in images]
    list(predict.predict_files(Network(run), files, tmp_path / "out"))
    assert len(recorded) > 5
    for name in recorded.index:
        _, truth = networks.read_picture(laboratory.catalog, name)
        mask = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{name}.png"))
        assert set(np.unique(mask)) <= {0, 255} and mask.shape == truth.shape
        scores = metrics.score_image(truth, (mask > 0).astype(np.float32), 0.5)
        for score in ("brier", "peak"):  # of the probabilities, which a mask has lost
            del scores[score]
        for score, value in scores.items():
            assert value == pytest.approx(recorded.loc[name, score], abs=1e-6, nan_ok=True), (name, score)


def test_a_row_says_what_the_files_hold(network, laboratory, tmp_path):
    out = tmp_path / "out"
    files = predict.find_images(str(laboratory.root / "data" / "phantom" / "benign"))
    rows = list(predict.predict_files(network, files, out))
    table = pd.read_csv(out / "predictions.csv")
    assert table.image.tolist() == [str(file) for file in files]
    assert len(list_written(out)) == 1 + 3 * len(files) == 1 + 3 * len(rows)
    marked = 0
    for file, row in zip(files, table.itertuples(), strict=True):
        inside = np.asarray(Image.open(out / "masks" / f"{file.stem}.png")) > 0
        greys = np.asarray(Image.open(out / "probability" / f"{file.stem}.png"))
        overlay = np.asarray(Image.open(out / "overlay" / f"{file.stem}.jpg")).astype(int)
        pixels = read_grey(file)
        np.testing.assert_allclose(greys / 255, network.probability(pixels), atol=0.5001 / 255)
        assert inside.shape == greys.shape == overlay.shape[:2] == pixels.shape == (row.height, row.width)
        assert row.lesion_share == pytest.approx(inside.mean(), abs=1e-6)
        if inside.any():
            marked += 1
            down, right = np.nonzero(inside)
            box = (right.min(), down.min(), right.max() + 1, down.max() + 1)
            assert (row.left, row.top, row.right, row.bottom) == box
            assert row.mean_probability == pytest.approx(greys[inside].mean() / 255, abs=0.003)
            assert row.mean_probability >= network.threshold
            # Compressed, but still grey inside.
            assert np.abs(overlay[inside][:, 0] - overlay[inside][:, 2]).mean() < 20
        else:
            assert np.isnan(row.left) and np.isnan(row.mean_probability)
    assert marked


def test_the_outline_is_a_line_of_two_pixels_around_the_mask(tmp_path):
    marked = np.zeros((48, 64), np.float32)
    marked[16:32, 20:40] = 1
    network = SimpleNamespace(threshold=0.5, predict=lambda images: [marked], restore=lambda output, shape: output)
    Image.new("L", (64, 48), 100).save(tmp_path / "grey.png")
    list(predict.predict_files(network, [tmp_path / "grey.png"], tmp_path / "out"))
    overlay = np.asarray(Image.open(tmp_path / "out" / "overlay" / "grey.jpg")).astype(int)
    # Two steps up, down or to a side, so that only one pixel is beyond each corner.
    is_line = np.zeros(marked.shape, bool)
    is_line[14:34, 20:40] = is_line[16:32, 18:42] = is_line[15:33, 19:41] = True
    is_line[16:32, 20:40] = False
    # Halfway from the grey to the green of the outline: compression moves neither that far.
    np.testing.assert_array_equal(overlay[..., 1] > 140, is_line)
    # Red and blue are kept for four pixels at once.
    assert overlay[is_line].mean(axis=0) == pytest.approx(predict.OUTLINE, abs=25)
    assert overlay[~is_line].mean(axis=0) == pytest.approx([100] * 3, abs=3)


def test_a_broken_image_leaves_nothing_behind_and_the_others_go_on(network, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 60), dtype=np.uint8))
    for name in ("a.png", "c.bmp", "d.tif"):
        picture.save(folder / name)
    (folder / "b.png").write_bytes(b"")
    files = predict.find_images(str(folder))
    rows = list(predict.predict_files(network, files, tmp_path / "out"))
    failed = [row["error"] for row in rows if "error" in row]
    assert len(failed) == 1 and failed[0].startswith(str(folder / "b.png"))
    assert not [file for file in list_written(tmp_path / "out") if "/b." in file]
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert table.image.str[-5:].tolist() == ["a.png", "c.bmp", "d.tif"]
    assert table.lesion_share.nunique() == 1  # the same picture three times


def test_nothing_is_written_over(network, laboratory, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    files = predict.find_images(laboratory.catalog.table.image[0])
    with pytest.raises(StudyError, match="not empty; nothing is overwritten"):
        next(predict.predict_files(network, files, tmp_path))
    assert list_written(tmp_path) == ["notes.txt"]


def test_images_are_found_by_file_folder_and_pattern(phantom_dir, tmp_path):
    benign = phantom_dir / "benign"
    names = {f"benign ({number}).png" for number in range(1, 7)}
    assert {file.name for file in predict.find_images(str(benign))} == names  # without the masks
    assert {file.name for file in predict.find_images(str(phantom_dir / "*" / "*(1).png"))} == {
        *("benign (1).png", "malignant (1).png", "normal (1).png")
    }
    # A pattern fits "benign (1)_mask.png" too, and is no reason to predict it.
    assert {file.name for file in predict.find_images(str(benign / "*1*"))} == {"benign (1).png"}
    for name in ("[1].png", "._x.png", "1.txt", "mask_1.png"):
        shutil.copy(benign / "benign (1).png", tmp_path / name)
    assert predict.find_images(str(tmp_path)) == [tmp_path / "[1].png"]
    assert predict.find_images(str(tmp_path / "*1*")) == [tmp_path / "[1].png"]
    assert predict.find_images(str(tmp_path / "[1].png")) == [tmp_path / "[1].png"]


def test_images_that_are_not_there_or_share_a_name_are_refused(tmp_path):
    with pytest.raises(StudyError, match="no image; expected"):
        predict.find_images(str(tmp_path / "*.png"))
    (tmp_path / "scans").mkdir()
    with pytest.raises(StudyError, match=r"its folders are not searched: name one of them \(scans\)"):
        predict.find_images(str(tmp_path))
    for name in ("a.png", "a.bmp"):
        Image.new("L", (20, 20)).save(tmp_path / name)
    with pytest.raises(StudyError, match=r"a\.png: named like .*a\.bmp"):
        predict.find_images(str(tmp_path))
    (tmp_path / "a.bmp").rename(tmp_path / "A.bmp")
    for where in (tmp_path, tmp_path / "*.*"):
        with pytest.raises(StudyError, match=r"a\.png: named like .*A\.bmp"):
            predict.find_images(str(where))


def test_deep_images_of_fewer_bits_are_predicted_with_a_word(network, tmp_path):
    """Of twelve bits in a file of sixteen: 3800 of 65535 becomes 15 of 255."""
    folder = tmp_path / "scans"
    folder.mkdir()
    levels = np.random.default_rng(0).integers(0, 3800, (48, 60), dtype=np.uint16)
    for number in range(predict.CHUNK + 1):
        Image.fromarray(levels).save(folder / f"{number:02d}.png")
    Image.fromarray(levels * np.uint16(16)).save(folder / "whole.png")
    files = predict.find_images(str(folder))
    with pytest.warns(DataWarning, match=r"nearly black: .*: 17, e\.g\. .*00\.png") as told:
        rows = list(predict.predict_files(network, files, tmp_path / "out"))
    assert len(told) == 1 and len(rows) == 18


def test_memory_does_not_grow_with_the_number_of_images(network, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    Image.new("L", (300, 200)).save(folder / "0.png")
    for number in range(1, 5 * predict.CHUNK):
        (folder / f"{number}.png").symlink_to(folder / "0.png")
    files = predict.find_images(str(folder))
    peaks = []
    # The first time, the backend sets itself up.
    for count in (1, 1, 5):
        tracemalloc.start()
        for _ in predict.predict_files(network, files[: count * predict.CHUNK], tmp_path / f"out{len(peaks)}"):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.3 * peaks[1]
