"""The floors by formula and exactly, worked by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from busi import display, results
from busi.dataset.arrays import two_channels
from busi.mechanisms import floors
from busi.scoring.floors import constant_floors

FLOORS = {"accuracy": 0.90825, "auc": 0.90696, "dice_loss": 0.09163, "bce": 0.30656, "kld": 0.309}
"""Floors of BUSI at the published size."""


def hard_quarter() -> np.ndarray:
    """One image of four pixels, one of them lesion."""
    return two_channels(np.array([[[1.0, 0.0], [0.0, 0.0]]]), "complement")


def test_on_hard_targets_the_formulas_are_exact():
    table = floors.tabulate(constant_floors(hard_quarter())).set_index("metric")
    entropy = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    expected = {"accuracy": 0.75, "AUC, both channels": 0.75, "AUC, lesion channel": 0.5, "Dice loss": 0.25}
    assert table.from_share.to_dict() == pytest.approx(expected | {"BCE": entropy, "KLD": entropy}, abs=1e-12)
    assert table.exact.to_numpy() == pytest.approx(table.from_share.to_numpy(), abs=2e-6)


def test_mirrored_soft_pixels_move_the_exact_floors_only():
    # Four pixels: lesion 1, 0.4, 0, 0. Mirrored, the second channel is 0, 1.4, 1, 1.
    targets = two_channels(np.array([[[1.0, 0.4], [0.0, 0.0]]]), "mirror")
    table = floors.tabulate(constant_floors(targets)).set_index("metric")
    assert table.from_share["Dice loss"] == 0.25
    assert table.exact["Dice loss"] == pytest.approx(1 - 2 * 3.4 / (4.8 + 4), abs=1e-6)
    # Positive above 0: lesion 2 of 4, background 3 of 4. The corner of the curve is at (1/3, 3/5).
    assert table.exact["AUC, both channels"] == pytest.approx((1 / 3 * 3 / 5 + 2 / 3 * (1 + 3 / 5)) / 2)


def test_the_conclusion_counts_the_rows_and_tells_both_aucs():
    text = floors.conclude(constant_floors(hard_quarter()))
    assert "right on 0.7500 of the pixels. None of the 9 published rows have that accuracy within 0.0001." in text
    assert "Its AUC is 0.7500" in text
    # All nine rows have been trained on images with fewer lesion pixels.
    assert text.count(", ") == 8


def test_the_section_shows_six_published_rows_on_the_floor_and_writes_its_table(nothing_measured, write_measured):
    write_measured("floors", pd.DataFrame(FLOORS.items(), columns=["floor", "value"]))
    shown = floors.show(nothing_measured)
    # Five have 0.9083, and one 0.9082.
    assert "6 of the 9 published rows have that accuracy within 0.0001." in shown.conclusion
    assert shown.conclusion.endswith("by more than that: Upsampling2D, Conv2DTranspose, KLD.")
    written = results.read_table(nothing_measured, "mechanisms_floors")
    assert written.exact.tolist() == [0.90825, 0.90696, 0.5, 0.09163, 0.30656, 0.309]


def test_rows_are_drawn_against_the_floor_of_their_own_loss():
    fig = floors.draw(FLOORS)
    accuracy, auc, loss = fig.axes
    assert display.title(fig) == "3 of 9 published rows exceed the floor of accuracy"
    # Of fewer lesions the floor is higher.
    fewer = floors.draw(FLOORS | {"accuracy": 0.93})
    assert display.title(fewer).startswith("1 of 9 ")
    assert [ax.lines[0].get_xdata()[0] for ax in fig.axes] == [0.90825, 0.90696, 0]
    names = [label.get_text() for label in accuracy.get_yticklabels()]
    distances = dict(zip(names, loss.lines[1].get_xdata(), strict=True))
    assert distances["DICE"] == pytest.approx(0.0916 - 0.09163)
    assert distances["KLD"] == pytest.approx(0.1489 - 0.309)
    assert distances["BCE"] == pytest.approx(0.2269 - 0.30656)
    assert len(auc.lines[1].get_xdata()) == 9
