"""Equal losses have equal gradients and stay together; another loss does not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from busi import results
from busi.config import RunConfig
from busi.dataset.arrays import Arrays, two_channels
from busi.mechanisms import identity
from busi.results import NotMeasured, Results

CONFIG = RunConfig(image_size=16, base_filters=2, padding="same", second_channel="complement")


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    draw = np.random.default_rng(0)
    lesions = np.zeros((6, 16, 16), np.float32)
    lesions[:, 4:10, 3:9] = 1
    images = draw.normal(size=(6, 16, 16, 1)).astype(np.float32)
    names = np.array([f"image {n}" for n in range(6)])
    return Arrays(names, images, two_channels(lesions, "complement"))


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

    with identity.set_precision("float64"):
        model = identity._compile_network(CONFIG, "float64", eager=True)
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


def test_two_trajectories_are_compared_step_by_step():
    start, a, b = np.zeros(2), np.array([3.0, 4.0]), np.array([3.0, 3.0])
    table = identity.compare_ways({0: (start, np.nan), 1: (a, 0.5)}, {0: (start, np.nan), 1: (b, 0.25)})
    assert table.to_dict("records") == [{"step": 1, "distance": pytest.approx(0.2), "value": 0.25, "reference": 0.5}]


def test_targets_are_hard_and_one_hot_or_as_published():
    targets = two_channels(np.float32([[1, 0.6, 0.4, 0]]), "complement")
    one_hot = identity.make_targets(targets, "one-hot")
    assert one_hot[0].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    mirrored = identity.make_targets(targets, "soft, mirrored")
    assert mirrored[..., 1].ravel() == pytest.approx([0, 1.6, 1.4, 1])


DISTANCES = {
    (identity.KLD, "float64"): [1e-7, 1e-6, 1e-5],
    (identity.KLD, "float32"): [1e-6, 0.2, 0.001],
    ("BCE of logits", "float32"): [0.5, 0.6, 0.9],
}


def rows() -> pd.DataFrame:
    """Return the rows of `DISTANCES`, steps out of order."""
    parts = []
    for (loss, precision), distances in DISTANCES.items():
        head = {"precision": precision, "targets": "one-hot", "loss": loss}
        parts += [head | {"step": 2**n, "distance": distance} for n, distance in enumerate(distances)]
    return pd.DataFrame(parts[::-1])


def test_two_are_together_until_they_first_part():
    table = identity.tabulate(rows()).set_index(["loss", "precision"])
    assert table.together.to_dict() == {
        (identity.KLD, "float64"): 4,
        (identity.KLD, "float32"): 1,
        ("BCE of logits", "float32"): 0,
    }
    assert table.steps.tolist() == [4, 4, 4]
    assert table["first"][(identity.KLD, "float32")] == 1e-6


@pytest.fixture
def trained() -> Results:
    """Three seeds of KLD and one of BCE."""
    runs = pd.DataFrame(
        {
            "variant": [identity.KLD] * 3 + [identity.BCE],
            "seed": [0, 1, 2, 0],
            "planned_epochs": 12,
            "training_loss": [0.2, 0.25, 0.21, 0.2],
            "training_accuracy": [0.93, 0.92, 0.95, 0.93],
        }
    )
    nothing = pd.DataFrame()
    return Results(runs, nothing, nothing, nothing)


def test_the_conclusion_compares_the_spread_over_seeds_with_the_published_gap(trained):
    seeds = identity.tabulate_seeds(trained)
    assert list(seeds) == ["loss", "seed", "epochs", "end_loss", "accuracy"]
    assert seeds.end_loss.tolist() == [0.2, 0.25, 0.21, 0.2]
    text = identity.conclude(identity.tabulate(rows()), seeds)
    assert "stay together for 4 of 4 steps in float64 and 1 in float32" in text
    assert "its first step differs by 50%" in text
    assert "moves the training loss by up to 0.0500 and the accuracy by 0.0300 after 12 epochs" in text
    assert text.endswith("against Table 3's gaps of 0.0780 and 0.0346.")


def test_one_seed_of_each_loss_is_not_enough(trained):
    with pytest.raises(NotMeasured, match="seeds"):
        identity.tabulate_seeds(replace(trained, runs=trained.runs[2:]))


def test_the_section_writes_both_tables(nothing_measured, write_measured, trained, monkeypatch):
    write_measured("mechanisms/identity", rows())
    monkeypatch.setattr(identity, "load_results", lambda *arguments: trained)
    shown = identity.show(nothing_measured)
    assert "32 pixels, 2 filters, batches of 4" in shown.figure.data
    assert results.read_table(nothing_measured, "mechanisms_identity").together.tolist() == [0, 1, 4]
    assert len(results.read_table(nothing_measured, "mechanisms_identity_seeds")) == 4


def test_each_trajectory_is_drawn_by_step():
    line = identity.draw(rows()).axes[0].lines[0]
    assert line.get_xydata().tolist() == [[1, 0.5], [2, 0.6], [4, 0.9]]
