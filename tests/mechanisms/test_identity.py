"""Equal losses have equal gradients and stay together; another loss does not."""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from busi import results
from busi.config import RunConfig
from busi.dataset.arrays import Arrays, two_channels
from busi.mechanisms import identity
from busi.model.losses import make_loss
from busi.results import NotMeasured, Results

CONFIG = RunConfig(image_size=16, base_filters=2, padding="same", second_channel="complement", batch_size=2)


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    draw = np.random.default_rng(0)
    lesions = np.zeros((6, 16, 16), np.float32)
    lesions[:, 4:10, 3:9] = 1
    images = draw.normal(size=(6, 16, 16, 1)).astype(np.float32)
    names = np.array([f"image {n}" for n in range(6)])
    return Arrays(names, images, two_channels(lesions, "complement"))


@pytest.fixture(scope="module")
def ways(arrays) -> pd.DataFrame:
    tables = []
    for precision in ("float32", "float64"):
        table = identity.compare_losses(CONFIG, list(identity.LOSSES), precision, arrays, 5)
        tables.append(table.assign(precision=precision))
    return pd.concat(tables).set_index(["precision", "loss"])


@pytest.mark.parametrize(("precision", "rounding"), [("float64", 1e-12), ("float32", 1e-5)])
def test_kld_and_bce_of_probabilities_have_one_gradient(ways, precision, rounding):
    """After one step of SGD from rest the distance is that of the gradients, as a share of one of them."""
    way = ways.loc[(precision, identity.KLD)].set_index("step")
    assert way.distance[1] < rounding


def test_the_published_kld_is_another_loss_only_beyond_its_clipping(ways):
    """Keras lifts targets of 0 to 1e-7, which is all that moderate logits notice."""
    assert ways.distance[("float64", identity.CLIPPED)].iloc[0] < 1e-6


@pytest.mark.parametrize("size", [1, 15, 60])
def test_the_identity_holds_for_all_logits(size):
    """Also where the published KLD is clipped; tests/model/test_losses.py compares the gradients."""
    draw = np.random.default_rng(size)
    targets = two_channels((draw.random((1, 8, 8)) < 0.3).astype(np.float32), "complement")
    logits = draw.normal(0, size, (1, 8, 8, 2)).astype(np.float32)
    values = {}
    for name, fields in identity.LOSSES.items():
        values[name] = float(make_loss(CONFIG.model_copy(update=fields))(targets, logits))
    assert values[identity.KLD] == pytest.approx(values[identity.BCE], rel=1e-5)
    is_clipped = values[identity.CLIPPED] < 0.99 * values[identity.BCE]
    assert is_clipped == (size > 1)


def test_the_published_bce_has_another_gradient(ways):
    logits = ways.loc[("float32", identity.LOGITS)].set_index("step")
    assert logits.distance[1] > 0.1


def test_a_loss_compared_with_itself_is_no_step_apart_and_powers_of_two_are_recorded(arrays):
    table = identity.compare_losses(CONFIG, [identity.BCE], "float32", arrays, 5)
    assert table.step.tolist() == [1, 2, 4, 5]
    assert table.distance.tolist() == [0, 0, 0, 0]


def test_the_distance_is_a_share_of_the_way_of_bce(arrays, monkeypatch):
    # SGD's first step is the gradient times the rate: at twice the rate it ends one whole way beyond.
    twice = identity.LOSSES[identity.BCE] | {"learning_rate": 2 * CONFIG.learning_rate}
    monkeypatch.setitem(identity.LOSSES, "twice as fast", twice)
    table = identity.compare_losses(CONFIG, ["twice as fast"], "float64", arrays, 1)
    assert table.distance.tolist() == pytest.approx([1])


def test_the_double_precision_is_one_throughout(arrays):
    # A single layer or loss in float32 would round every step to 1e-7 of itself.
    with identity.set_precision("float64"):
        model = identity.compile_network(CONFIG, identity.KLD, "float64", steps=1)
        predicted = model(arrays.images.astype(np.float64))
        loss = model.loss(arrays.targets.astype(np.float64), predicted)
    assert {str(weight.dtype) for weight in model.weights} == {"float64"}
    assert {layer.compute_dtype for layer in model.layers} == {"float64"}
    assert [keras.backend.standardize_dtype(each.dtype) for each in (predicted, loss)] == ["float64", "float64"]


def test_the_default_precision_is_as_before(ways):
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float32", "float32")


def test_targets_are_hard_and_one_hot_or_as_published():
    targets = two_channels(np.float32([[1, 0.6, 0.4, 0]]), "complement")
    one_hot = identity.make_targets(targets, "one-hot")
    assert one_hot[0].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    mirrored = identity.make_targets(targets, "soft, mirrored")
    assert mirrored[..., 1].ravel() == pytest.approx([0, 1.6, 1.4, 1])


DISTANCES = {
    (identity.KLD, "float64"): [1e-7, 1e-6, 1e-5],
    (identity.KLD, "float32"): [1e-6, 0.2, 0.001],
    (identity.CLIPPED, "float32"): [1e-5, 0.002, 0.3],
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
        (identity.CLIPPED, "float32"): 2,
        ("BCE of logits", "float32"): 0,
    }
    assert table.steps.tolist() == [4, 4, 4, 4]
    assert table["first"][(identity.KLD, "float32")] == 1e-6


@pytest.fixture
def trained() -> Results:
    """Three seeds of KLD and one of BCE."""
    runs = pd.DataFrame(
        {
            "variant": [identity.KLD] * 3 + [identity.BCE],
            "seed": [0, 1, 2, 0],
            "planned_epochs": 12,
            "fold": 0,
            "config": CONFIG.model_dump_json(),
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
    text = identity.conclude(identity.tabulate(rows()), seeds, ("16 pixels", "16 pixels, 3 seeds"))
    assert "stay together for 4 of 4 steps in float64 and 1 in float32" in text
    assert "on soft, mirrored targets and clipped, as published, for 2;" in text
    assert "1e-07 and 1e-06 of the step; 16 pixels)" in text
    assert "its first step differs by 50%" in text
    assert "moves the training loss by up to 0.0500 and the accuracy by 0.0300 (16 pixels, 3 seeds)" in text
    assert text.endswith("against Table 3's gaps of 0.0780 and 0.0346.")


def test_one_seed_of_each_loss_is_not_enough(trained):
    with pytest.raises(NotMeasured, match="seeds"):
        identity.tabulate_seeds(replace(trained, runs=trained.runs[2:]))


def test_the_section_writes_both_tables(nothing_measured, write_measured, trained, monkeypatch):
    write_measured("mechanisms/identity", rows())
    monkeypatch.setattr(identity, "load_results", lambda *arguments: trained)
    shown = identity.show(nothing_measured)
    assert "32 pixels, 2 filters, batches of 4" in shown.figure.data
    assert "(16 pixels, 2 filters, 75 epochs, 1 to 3 seeds)" in shown.conclusion
    assert results.read_table(nothing_measured, "mechanisms_identity").together.tolist() == [0, 2, 1, 4]
    assert len(results.read_table(nothing_measured, "mechanisms_identity_seeds")) == 4


def test_each_trajectory_is_drawn_by_step():
    line = identity.draw(rows()).axes[0].lines[0]
    assert line.get_xydata().tolist() == [[1, 0.5], [2, 0.6], [4, 0.9]]
