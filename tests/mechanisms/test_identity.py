"""Equal losses have equal gradients and stay together; another loss does not."""

import json

import numpy as np
import pandas as pd
import pytest

from busi.config import RunConfig
from busi.dataset.arrays import Arrays, two_channels
from busi.mechanisms import identity
from busi.runs import Run

CONFIG = RunConfig(image_size=16, base_filters=2, padding="same", second_channel="complement")


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    draw = np.random.default_rng(0)
    lesions = np.zeros((6, 16, 16), np.float32)
    lesions[:, 4:10, 3:9] = 1
    images = draw.normal(size=(6, 16, 16, 1)).astype(np.float32)
    return Arrays(images, two_channels(lesions, "complement"))


@pytest.fixture(scope="module")
def ways(arrays) -> dict:
    return {
        (loss, precision): identity.follow(CONFIG.model_copy(update=fields), precision, arrays, 2, 4)
        for loss, fields in identity.LOSSES.items()
        for precision in ("float32", "float64")
    }


def step(way: dict) -> np.ndarray:
    """The first step, which for SGD from rest is minus the gradient times the rate."""
    return way[1][0] - way[0][0]


@pytest.mark.parametrize(("precision", "rounding"), [("float64", 1e-6), ("float32", 1e-5)])
def test_kld_and_bce_of_probabilities_have_one_gradient_and_one_value(ways, precision, rounding):
    # In float64 what is left comes from Keras, which clips KLD's targets to 1e-7 and more.
    bce, kld = ways[identity.BCE, precision], ways[identity.KLD, precision]
    assert np.linalg.norm(step(kld) - step(bce)) < rounding * np.linalg.norm(step(bce))
    assert [kld[n][1] for n in (1, 2, 4)] == pytest.approx([bce[n][1] for n in (1, 2, 4)], abs=2e-6)


def test_what_keras_trains_as_bce_has_another_gradient(ways):
    bce, logits = ways[identity.BCE, "float32"], ways["BCE of logits", "float32"]
    assert np.linalg.norm(step(logits) - step(bce)) > 0.1 * np.linalg.norm(step(bce))
    assert abs(logits[1][1] - bce[1][1]) > 1e-3


def test_the_double_precision_is_one_throughout(arrays):
    # A single layer or loss in float32 would round every step to 1e-7 of itself.
    import keras

    with identity.precise("float64"):
        model = identity._compiled(CONFIG, "float64", eager=True)
        predicted = model(arrays.images.astype(np.float64))
        loss = model.loss(arrays.targets.astype(np.float64), predicted)
    assert {str(weight.dtype) for weight in model.weights} == {"float64"}
    assert {layer.compute_dtype for layer in model.layers} == {"float64"}
    assert [keras.backend.standardize_dtype(each.dtype) for each in (predicted, loss)] == ["float64", "float64"]


def test_all_follow_from_the_same_start_and_record_powers_of_two(ways):
    for precision in ("float32", "float64"):
        starts = [ways[loss, precision][0][0] for loss in identity.LOSSES]
        assert all((start == starts[0]).all() for start in starts)
    assert list(ways[identity.KLD, "float64"]) == [0, 1, 2, 4]


def test_the_default_precision_is_as_before(ways):
    import keras

    assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float32", "float32")


def test_distance_is_a_share_of_the_way():
    start, a, b = np.array([1.0, 1.0]), np.array([4.0, 5.0]), np.array([4.0, 4.0])
    assert identity.distance(a, b, start) == pytest.approx(1 / 5)


def rows(**distances) -> pd.DataFrame:
    parts = [
        {"precision": precision, "targets": "one-hot", "loss": loss, "step": 2**n, "distance": distance}
        for (loss, precision), values in distances["of"].items()
        for n, distance in enumerate(values)
    ]
    return pd.DataFrame(parts)


DISTANCES = {
    (identity.KLD, "float64"): [1e-7, 1e-6, 1e-5],
    (identity.KLD, "float32"): [1e-6, 0.2, 0.001],
    ("BCE of logits", "float32"): [0.5, 0.6, 0.9],
}


def test_two_are_together_until_they_first_part():
    found = identity.table(rows(of=DISTANCES)).set_index(["loss", "precision"])
    assert found.together.to_dict() == {
        (identity.KLD, "float64"): 4,
        (identity.KLD, "float32"): 1,
        ("BCE of logits", "float32"): 0,
    }
    assert found.steps.tolist() == [4, 4, 4]


def make(tmp_path, seed: int, loss: float, accuracy: float) -> Run:
    config = CONFIG.model_copy(update={"seed": seed, "epochs": 12})
    folder = tmp_path / str(seed)
    folder.mkdir()
    metrics = {"training": {"loss": loss, "accuracy": accuracy}}
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return Run(folder, config)


def test_the_conclusion_sets_a_seed_s_spread_beside_the_published_gap(tmp_path):
    table, gap = identity.table(rows(of=DISTANCES)), {"loss": 0.078, "accuracy": 0.0346}
    runs = {
        identity.KLD: [make(tmp_path, 0, 0.2, 0.93), make(tmp_path, 1, 0.25, 0.92), make(tmp_path, 2, 0.21, 0.95)],
        identity.BCE: [make(tmp_path, 3, 0.2, 0.93)],
    }
    text = identity.conclusion(table, runs, gap)
    assert "stay together for 4 of 4 steps in float64 and 1 in float32" in text
    assert "its first step differs by 50%" in text
    assert "moves the training loss by up to 0.0500 and the accuracy by 0.0300 after 12 epochs" in text
    assert text.endswith("against Table 3's gaps of 0.0780 and 0.0346.")
    assert identity.conclusion(table, {identity.KLD: []}, gap).endswith("several seeds have not been run yet.")
    assert identity.seeds(runs).end_loss.tolist() == [0.2, 0.25, 0.21, 0.2]
