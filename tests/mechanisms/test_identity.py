"""Equal losses have equal gradients and stay together; another loss does not."""

import keras
import numpy as np
import pandas as pd
import pytest
from small_study import numbers

from busi import results
from busi.config import RunConfig
from busi.dataset.arrays import Arrays, two_channels
from busi.mechanisms import identity
from busi.model.losses import make_loss

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
    return identity.compare_losses(CONFIG, list(identity.LOSSES), arrays, 3).set_index("loss")


def test_kld_and_bce_of_probabilities_have_one_gradient(ways):
    """After one step of SGD from rest the distance is that of the gradients, as a share of one of them."""
    assert ways.distance[identity.KLD].iloc[0] < 1e-12


def test_the_published_kld_is_another_loss_only_beyond_its_clipping(ways):
    """Keras lifts targets of 0 to 1e-7, which is all that moderate logits notice."""
    assert ways.distance[identity.CLIPPED].iloc[0] < 1e-6


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
    assert ways.distance[identity.LOGITS].iloc[0] > 0.1


def test_a_loss_compared_with_itself_is_no_step_apart_and_powers_of_two_are_recorded(ways):
    own = ways.loc[identity.BCE]
    assert own.step.tolist() == [1, 2, 3]
    assert own.distance.tolist() == [0, 0, 0]


def test_the_distance_is_a_share_of_the_way_of_bce(arrays, monkeypatch):
    # SGD's first step is the gradient times the rate: at twice the rate it ends one whole way beyond.
    twice = identity.LOSSES[identity.BCE] | {"learning_rate": 2 * CONFIG.learning_rate}
    monkeypatch.setitem(identity.LOSSES, "twice as fast", twice)
    table = identity.compare_losses(CONFIG, ["twice as fast"], arrays, 1)
    assert table.distance.tolist() == pytest.approx([1])


def test_the_double_precision_is_one_throughout_and_ends_with_the_network(arrays):
    # A single layer or loss in float32 would round every step to 1e-7 of itself.
    model = identity.compile_network(CONFIG, identity.KLD, steps=1)
    assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float32", "float32")
    predicted = model(arrays.images.astype(np.float64))
    loss = model.loss(arrays.targets.astype(np.float64), predicted)
    assert {str(weight.dtype) for weight in model.weights} == {"float64"}
    assert {layer.compute_dtype for layer in model.layers} == {"float64"}
    assert [keras.backend.standardize_dtype(each.dtype) for each in (predicted, loss)] == ["float64", "float64"]


def test_targets_are_hard_and_one_hot_or_as_published():
    targets = two_channels(np.float32([[1, 0.6, 0.4, 0]]), "complement")
    one_hot = identity.make_targets(targets, "one-hot")
    assert one_hot[0].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    mirrored = identity.make_targets(targets, "soft, mirrored")
    assert mirrored[..., 1].ravel() == pytest.approx([0, 1.6, 1.4, 1])


DISTANCES = {
    (identity.KLD, "one-hot"): [1e-6, 0.2, 0.001],
    (identity.LOGITS, "one-hot"): [0.5, 0.6, 0.9],
    (identity.CLIPPED, "soft, mirrored"): [1e-5, 0.002, 0.3],
}


def rows() -> pd.DataFrame:
    """Return the rows of `DISTANCES`, steps out of order."""
    parts = []
    for (loss, targets), distances in DISTANCES.items():
        head = {"targets": targets, "loss": loss}
        parts += [head | {"step": 2**n, "distance": distance} for n, distance in enumerate(distances)]
    return pd.DataFrame(parts[::-1])


def test_two_are_together_until_they_first_part():
    table = identity.tabulate(rows()).set_index("loss")
    assert table.together.to_dict() == {identity.KLD: 1, identity.CLIPPED: 2, identity.LOGITS: 0}
    assert table.steps.tolist() == [4, 4, 4]
    assert table["first"][identity.KLD] == 1e-6
    # A trajectory of one step begins where it ends.
    alone = identity.tabulate(rows().query("step == 1")).set_index("loss")
    assert alone["first"][identity.KLD] == alone["last"][identity.KLD] == 1e-6


def test_the_section_writes_its_table_and_concludes(nothing_measured, write_measured):
    write_measured("mechanisms/identity", rows())
    shown = identity.show(nothing_measured)
    text = shown.conclusion
    # Together for one of the steps, clipped for two; the logits' first step; the gaps of KLD and of the baseline.
    assert "for 1 of 4 steps" in text and "for 2 steps" in text and "are 50% of the step" in text
    assert "KLD and BCE are 0.0780 apart" in text and "the baseline and BCE, with losses 0.0392 apart" in text
    assert "another loss" in text and "one loss" not in text
    assert numbers(text.split("Size: ")[1]) == ["32", "2", "4"]
    assert "32 pixels, 2 filters, batches of 4" in shown.figure.data
    assert results.read_table(nothing_measured, "mechanisms_identity").together.tolist() == [2, 0, 1]


def test_two_are_one_loss_only_if_they_stay_together_to_the_end():
    table = identity.tabulate(rows())
    whole = table.assign(together=table.together.where(table.loss != identity.KLD, 4))
    assert "for 4 of 4 steps, so they are one loss" in identity.conclude(whole, "")


def test_each_trajectory_is_drawn_by_step():
    line = identity.draw(rows()).axes[0].lines[0]
    assert line.get_xydata().tolist() == [[1, 1e-5], [2, 0.002], [4, 0.3]]
