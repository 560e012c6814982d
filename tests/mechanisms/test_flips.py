"""The label noise of a flipped image, worked by hand, and as the preprocessing makes it."""

import numpy as np
import pandas as pd
import pytest
from small_study import numbers

from busi import display, results
from busi.dataset import preprocessing
from busi.mechanisms import flips
from busi.results import NotMeasured
from busi.study import find_group


def mask(columns: range, width: int = 10) -> np.ndarray:
    """One row of ten pixels, lesion in some columns."""
    inside = np.zeros((1, width), bool)
    inside[0, list(columns)] = True
    return inside


def test_the_noise_of_a_flipped_mask_by_hand():
    # Columns 1 to 3 become 6 to 8: six of ten pixels wrong, none of the lesion kept; centre 2.5 of 10.
    assert flips.measure_noise(mask(range(1, 4))) == pytest.approx({"wrong": 0.6, "missed": 1.0, "offset": 0.5})
    # Columns 3 to 5 become 4 to 6: pixels 3 and 6 wrong, one of three missed; centre 4.5 of 10.
    assert flips.measure_noise(mask(range(3, 6))) == pytest.approx({"wrong": 0.2, "missed": 1 / 3, "offset": 0.1})


def test_a_symmetric_mask_makes_no_noise():
    assert flips.measure_noise(mask(range(4, 6))) == {"wrong": 0.0, "missed": 0.0, "offset": 0.0}


def test_half_of_the_noise_is_what_the_preprocessing_makes_while_training():
    inside = mask(range(1, 4)).astype(np.float32)
    # The image is its own mask, so that what was done to it can be told from the target.
    images = np.repeat(inside[None, ..., None], 4000, axis=0)
    targets = np.stack([images[..., 0], 1 - images[..., 0]], axis=-1)
    moved, kept = preprocessing.augment(images, targets, "augment-image", seed=0)
    seen = moved[..., 0] > moved.mean(axis=(1, 2, 3))[:, None, None]
    wrong = (seen != (kept[..., 0] > 0.5)).mean()
    assert wrong == pytest.approx(flips.measure_noise(inside > 0)["wrong"] / 2, abs=0.015)
    moved, along = preprocessing.augment(images, targets, "augment", seed=0)
    seen = moved[..., 0] > moved.mean(axis=(1, 2, 3))[:, None, None]
    assert (seen == (along[..., 0] > 0.5)).all()


def rows() -> pd.DataFrame:
    offset = np.arange(10) / 10
    return pd.DataFrame({"offset": offset, "wrong": offset / 5, "missed": offset})


def test_the_table_halves_the_noise_and_orders_the_positions():
    table = flips.tabulate(rows()).set_index("position")
    assert list(table.index) == [*flips.BANDS, "all"]
    assert table.n_images.tolist() == [2] * 5 + [10]
    assert table.missed.tolist() == pytest.approx([0.05, 0.25, 0.45, 0.65, 0.85, 0.45])
    assert table.expected["all"] == pytest.approx(0.045)


SCORES = {
    flips.ALONE: {"a": (0, 0.3), "b": (1, 0.2)},
    flips.ALONG: {"b": (1, 0.6), "a": (0, 0.7)},
}


def test_the_conclusion_compares_the_two_trainings_image_by_image(make_results):
    text = flips.conclude(flips.tabulate(rows()), make_results(SCORES))
    noise, changes = text.split("held-out Dice")
    # Of all pixels and of the lesion, in ten images; of a lesion in the middle and at the side; of all in training.
    assert numbers(noise) == ["9.0", "45", "10", "5", "85", "4.5"]
    assert numbers(changes) == ["-0.400", "-0.400", "-0.400", "64", "2", "7", "1"]


def test_without_one_of_the_trainings_there_is_no_conclusion(make_results):
    with pytest.raises(NotMeasured, match=r"Resize.Norm.Std.Aug.: not trained yet"):
        flips.conclude(flips.tabulate(rows()), make_results({flips.ALONE: SCORES[flips.ALONE]}))


def test_the_section_writes_both_tables(nothing_measured, write_measured, monkeypatch, make_results):
    write_measured("mechanisms/flips", rows())
    monkeypatch.setattr(flips, "load_results", lambda *arguments: make_results(SCORES))
    shown = flips.show(nothing_measured)
    assert "45% of its lesion" in shown.conclusion
    written = results.read_table(nothing_measured, "mechanisms_flips")
    assert list(written) == ["position", "n_images", "offset", "wrong", "expected", "missed"]
    assert written.expected.tolist() == pytest.approx([0.005, 0.025, 0.045, 0.065, 0.085, 0.045])
    trained = results.read_table(nothing_measured, "mechanisms_flips_trained")
    assert trained.dice.tolist() == pytest.approx([0.65, 0.25])


def test_both_shares_are_drawn_by_position():
    table = flips.tabulate(rows())
    fig = flips.draw(table)
    missed, wrong = fig.axes[0].lines[:2]
    assert "85%" in display.title(fig)
    assert missed.get_xydata().tolist() == table[["offset", "missed"]][:5].to_numpy().tolist()
    assert wrong.get_ydata().tolist() == table.wrong[:5].tolist()


def test_the_networks_are_those_of_the_family_data(laptop):
    """One flips an image with its mask, the other one without."""
    variants = find_group(laptop, flips.GROUP).variants
    assert {run.preprocessing for run in variants[flips.ALONG]} == {"augment"}
    assert {run.preprocessing for run in variants[flips.ALONE]} == {"augment-image"}
    drawn = [[(run.fold, run.seed) for run in variants[variant]] for variant in (flips.ALONG, flips.ALONE)]
    assert drawn[0] == drawn[1]
