"""Exported networks: Keras or an ONNX runtime alone reads them, and they answer as the run does."""

import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import onnxruntime
import pytest

from busi.config import RunConfig, StudyError
from busi.dataset import preprocessing
from busi.dataset.preprocessing import Scaling
from busi.lab import export
from busi.lab.networks import Network
from busi.model import unet
from busi.scoring.scores import find_or_score

KLD, RAW = "loss: KLD", "data: No preprocess"

PREDICT_WITHOUT_BUSI = """
import sys
sys.modules["busi"] = None
import keras, numpy as np
images = np.load(sys.argv[2])
np.save(sys.argv[3], np.asarray(keras.saving.load_model(sys.argv[1])(images)))
"""


@pytest.mark.parametrize("label", [KLD, RAW])
def test_keras_alone_answers_as_the_network_does(laboratory, label, tmp_path):
    run = laboratory.variants[label].runs[0]
    file = export.export_network(run, tmp_path / "net.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32), dtype=np.uint8)
    np.save(tmp_path / "images.npy", (pixels / np.float32(255))[..., None])
    command = [sys.executable, "-c", PREDICT_WITHOUT_BUSI, file, tmp_path / "images.npy", tmp_path / "answers.npy"]
    subprocess.run(list(map(str, command)), check=True)
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), Network(run).predict(list(pixels)), atol=1e-6)


@pytest.mark.parametrize("flip_test", [False, True])
def test_an_onnx_runtime_answers_as_the_network_does(laboratory, flip_test, tmp_path):
    run = laboratory.variants[KLD].runs[0]
    run = replace(run, config=run.config.model_copy(update={"flip_test": flip_test}))
    file = export.export_network(run, tmp_path / "net.onnx")
    pixels = np.random.default_rng(3).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    images = (pixels / np.float32(255))[..., None]
    (answers,) = onnxruntime.InferenceSession(file).run(None, {"image": images})
    np.testing.assert_allclose(answers, Network(run).predict(list(pixels)), atol=1e-6)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx", "net.onnx.md"]


@pytest.mark.parametrize(
    "reading", ["none", "normalize", "standardize", "augment", "augment-image", "augment-strong", "text", "code"]
)
def test_a_model_scales_as_the_preprocessing_does(reading):
    images = np.random.default_rng(1).random((3, 8, 8, 1), np.float32) * 0.6
    images[2] = 0.5  # no contrast
    scaling = preprocessing.fit_scaling(images, reading)
    expected = preprocessing.scale(images, reading, scaling)
    in_keras = preprocessing.scale(images, reading, scaling, keras.ops)
    np.testing.assert_allclose(np.asarray(in_keras), expected, atol=1e-6)
    if reading == "standardize":
        assert scaling != Scaling()


@pytest.mark.parametrize("upsampling", ["UpSampling2D", "Conv2DTranspose"])
@pytest.mark.parametrize(
    ("size", "choices"),
    [
        (204, {"padding": "valid"}),
        (32, {"padding": "same"}),
        (32, {"padding": "same", "normalization": "instance", "residual": True}),
    ],
)
def test_a_plain_copy_has_only_layers_of_keras_and_the_same_answers(size, choices, upsampling):
    network = unet.build(RunConfig(image_size=size, base_filters=2, upsampling=upsampling, **choices))
    plain = export.copy_plain(network)
    assert {type(layer).__module__.partition(".")[0] for layer in plain.layers} == {"keras"}
    image = np.random.default_rng(2).random((1, size, size, 1), np.float32)
    np.testing.assert_allclose(plain(image), network(image), atol=1e-6)


def test_the_card_has_the_scores_of_the_images_held_out(laboratory, tmp_path):
    run = laboratory.variants[KLD].runs[0]
    images = find_or_score(run, laboratory.catalog).images
    export.export_network(run, tmp_path / "net.keras")
    card = (tmp_path / "net.keras.md").read_text(encoding="utf-8")
    row = next(line for line in card.splitlines() if line.startswith("| dice |"))
    mean, ends = row.split("|")[2:4]
    low, high = map(float, ends.split(" to "))
    lesions = images.dice.dropna()
    assert float(mean) == pytest.approx(lesions.mean(), abs=5e-5)
    assert low <= float(mean) <= high
    assert f"over {len(lesions)} lesion images" in card
    assert "Not for clinical use" in card and run.stored["fingerprint"] in card


def test_nothing_is_written_over_and_other_formats_are_refused(laboratory, tmp_path):
    run = laboratory.variants[KLD].runs[0]
    with pytest.raises(StudyError, match=r"ends in '\.h5'; expected \.keras or \.onnx"):
        export.export_network(run, tmp_path / "net.h5")
    (tmp_path / "net.keras.md").write_text("mine")
    with pytest.raises(StudyError, match=r"net\.keras\.md: exists; nothing is overwritten"):
        export.export_network(run, tmp_path / "net.keras")
    assert [file.name for file in tmp_path.iterdir()] == ["net.keras.md"]
