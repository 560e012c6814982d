"""The label noise of a flipped image, worked by hand, and as the preprocessing makes it."""

import numpy as np
import pandas as pd
import pytest

from busi.mechanisms import flips
from busi.model import preprocessing


def mask(columns: range, width: int = 10) -> np.ndarray:
    """One row of ten pixels, lesion in some columns."""
    inside = np.zeros((1, width), bool)
    inside[0, list(columns)] = True
    return inside


def test_the_noise_of_a_flipped_mask_by_hand():
    # Columns 1 to 3 become 6 to 8: six of ten pixels wrong, none of the lesion kept; centre 2.5 of 10.
    assert flips.noise(mask(range(1, 4))) == pytest.approx({"wrong": 0.6, "missed": 1.0, "offset": 0.5})
    # Columns 3 to 5 become 4 to 6: pixels 3 and 6 wrong, one of three missed; centre 4.5 of 10.
    assert flips.noise(mask(range(3, 6))) == pytest.approx({"wrong": 0.2, "missed": 1 / 3, "offset": 0.1})


def test_a_symmetric_mask_makes_no_noise():
    assert flips.noise(mask(range(4, 6))) == {"wrong": 0.0, "missed": 0.0, "offset": 0.0}


def test_half_of_the_noise_is_what_the_preprocessing_makes_while_training():
    inside = mask(range(1, 4)).astype(np.float32)
    # The image is its own mask, so that what was done to it can be told from the target.
    images = np.repeat(inside[None, ..., None], 4000, axis=0)
    targets = np.stack([images[..., 0], 1 - images[..., 0]], axis=-1)
    moved, kept = preprocessing.augment(images, targets, "augment-image", seed=0)
    seen = moved[..., 0] > moved.mean(axis=(1, 2, 3))[:, None, None]
    wrong = (seen != (kept[..., 0] > 0.5)).mean()
    assert wrong == pytest.approx(flips.noise(inside > 0)["wrong"] / 2, abs=0.015)
    moved, along = preprocessing.augment(images, targets, "augment", seed=0)
    seen = moved[..., 0] > moved.mean(axis=(1, 2, 3))[:, None, None]
    assert (seen == (along[..., 0] > 0.5)).all()


def rows() -> pd.DataFrame:
    offset = np.arange(10) / 10
    return pd.DataFrame({"offset": offset, "wrong": offset / 5, "missed": offset})


def test_the_table_halves_the_noise_and_orders_the_positions():
    found = flips.table(rows()).set_index("position")
    assert list(found.index) == [*flips.BANDS, "all"]
    assert found.n_images.tolist() == [2] * 5 + [10]
    assert found.missed.tolist() == pytest.approx([0.05, 0.25, 0.45, 0.65, 0.85, 0.45])
    assert found.expected["all"] == pytest.approx(0.045)


def test_the_conclusion_compares_the_two_trainings(make_heldout):
    table = flips.table(rows())
    text = flips.conclusion(table, {"image and mask": [], "image alone": []})
    assert "9.0% of its pixels and 45% of its lesion" in text
    assert "(5% of a lesion in the middle, 85% of one at the side), that is 4.5% of all pixels" in text
    assert text.endswith("the two augmentations have not been run yet.")
    runs = {
        "image alone": [make_heldout({"a": (0, 0.3), "b": (1, 0.2)}, preprocessing="augment-image")],
        "image and mask": [make_heldout({"b": (1, 0.6), "a": (0, 0.7)}, preprocessing="augment")],
    }
    assert flips.conclusion(table, runs).endswith("changes the held-out Dice by -0.400 (-0.400 to -0.400).")
