"""Differences between scores, paired where the images are the same."""

import numpy as np
import pandas as pd
import pytest

from busi.evaluation.statistics import Interval
from busi.mechanisms import compare


def scores(values, names=None, groups=None) -> pd.DataFrame:
    names = range(len(values)) if names is None else names
    return pd.DataFrame({"name": names, "group": names if groups is None else groups, "dice": values})


def test_the_same_images_are_compared_one_by_one_whatever_their_order():
    found = compare.difference(scores([0.1, 0.5, 0.9]), scores([1.0, 0.6, 0.2], names=[2, 1, 0]), "dice")
    assert found == pytest.approx((0.1, 0.1, 0.1))


def test_an_image_without_a_score_on_one_side_is_left_out_of_the_pairs():
    found = compare.difference(scores([0.1, 0.5, np.nan]), scores([0.3, 0.7, 0.9]), "dice")
    assert found == pytest.approx((0.2, 0.2, 0.2))


def test_other_images_are_compared_by_their_means():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 0.1, 400), rng.normal(0.5, 0.2, 900)
    found = compare.difference(scores(a), scores(b, names=range(1000, 1900)), "dice")
    assert found.mean == pytest.approx(b.mean() - a.mean())
    half = 1.96 * np.sqrt(a.var() / 400 + b.var() / 900)  # of the normal approximation
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_copies_of_one_image_count_as_one():
    a = scores([0.0, 1.0] * 50)
    single = compare.difference(a, scores([0.2, 0.8], names=[200, 201]), "dice")
    copies = compare.difference(a, scores([0.2] * 9 + [0.8] * 9, range(200, 218), [0] * 9 + [1] * 9), "dice")
    assert copies == pytest.approx(single, abs=0.01)


def test_scored_leaves_normals_and_empty_variants_out(make_heldout):
    found = compare.scored({"one": [make_heldout({"a": (0, 0.2), "b": (1, 0.6)})], "none": []})
    assert found.variant.tolist() == ["one"]
    assert found.loc[0, ["dice", "n_images", "epochs"]].tolist() == pytest.approx([0.4, 2, 7])


def test_text_shows_signs():
    assert compare.text(Interval(0.1234, -0.05, 0.3)) == "+0.123 (-0.050 to +0.300)"
