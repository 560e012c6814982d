"""The floors by formula and exactly, worked by hand."""

import math

import numpy as np
import pytest

from busi.dataset.arrays import two_channels
from busi.mechanisms import floors


def hard_quarter() -> np.ndarray:
    """One image of four pixels, one of them lesion."""
    return two_channels(np.array([[[1.0, 0.0], [0.0, 0.0]]]), "complement")


def test_on_hard_targets_the_formulas_are_exact():
    found = floors.of(hard_quarter()).set_index("metric")
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    expected = {"accuracy": 0.75, "AUC, both channels": 0.75, "AUC, lesion channel": 0.5, "Dice loss": 0.25}
    assert found.from_share.to_dict() == pytest.approx(expected | {"BCE": entropy, "KLD": entropy}, abs=1e-12)
    assert found.exact.to_numpy() == pytest.approx(found.from_share.to_numpy(), abs=2e-6)


def test_mirrored_soft_pixels_move_the_exact_floors_only():
    # Four pixels: lesion 1, 0.4, 0, 0. Mirrored, the second channel is 0, 1.4, 1, 1.
    targets = two_channels(np.array([[[1.0, 0.4], [0.0, 0.0]]]), "mirror")
    found = floors.of(targets).set_index("metric")
    assert found.from_share["Dice loss"] == 0.25
    assert found.exact["Dice loss"] == pytest.approx(1 - 2 * 3.4 / (4.8 + 4), abs=1e-6)
    # Positive above 0: lesion 2 of 4, background 3 of 4. The corner of the curve is at (1/3, 3/5).
    assert found.exact["AUC, both channels"] == pytest.approx((1 / 3 * 3 / 5 + 2 / 3 * (1 + 3 / 5)) / 2)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.9])
def test_a_constant_ranks_nothing_in_one_channel(probability):
    assert floors.channel_auc(np.array([True, False, False]), probability) == 0.5


def test_the_conclusion_counts_the_rows_and_tells_both_aucs():
    found = floors.of(hard_quarter())
    text = floors.conclusion(found, ["Adam", "DICE"], 9)
    assert "right on 0.7500 of the pixels, and 2 of the 9 published rows have that accuracy" in text
    assert "its AUC is 0.7500" in text
    assert text.endswith("on the lesion channel alone it is 0.5.")
    assert "none of the 9 published rows has" in floors.conclusion(found, [], 9)
    assert floors.conclusion(None, [], 9) == "Not run yet."
