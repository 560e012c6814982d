"""Intervals, comparisons and rows of tables: by hand, against SciPy without near-duplicates, and by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, wilcoxon

from busi.config import StudyError
from busi.scoring import metrics, statistics
from busi.scoring.statistics import Interval


def scores(dice, group=None, image_class="benign", **columns):
    """Make a table of scores of lesion images with the columns that Dice needs."""
    n = len(dice)
    table = pd.DataFrame({"image_class": image_class, "name": [f"image {i}" for i in range(n)], "dice": dice})
    return table.assign(group=range(n) if group is None else group, lesion_share=np.arange(1, n + 1) / 100, **columns)


def normal(predicted_share):
    return pd.DataFrame(
        {
            "image_class": "normal",
            "name": [f"normal {i}" for i in range(len(predicted_share))],
            "group": [f"normal {i}" for i in range(len(predicted_share))],
            "predicted_share": predicted_share,
            "accuracy": 0.0,
        }
    )


def clustered(draw, groups=60, size=4, spread=0.2, noise=0.02):
    """Draw values that agree within their groups."""
    group = np.repeat(np.arange(groups), size)
    return draw.normal(0.6, spread, groups)[group] + draw.normal(0, noise, groups * size), group


# Intervals


def test_interval_without_near_duplicates_is_scipys():
    values = np.random.default_rng(0).beta(2, 1, 80)
    expected = bootstrap(
        (values,), np.mean, n_resamples=9999, batch=1000, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    interval = statistics.mean_interval(values, np.arange(80), seed=7)
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_groups_are_drawn_whole():
    # Of two groups, (0, 0, 0) and (1,), a draw holds both, or one of them twice: means 1/4, 0 and 1, each of the
    # latter in a quarter of the draws. Images drawn one by one would rarely all be 1.
    assert statistics.mean_interval([0, 0, 0, 1], ["a", "a", "a", "b"]) == (0.25, 0, 1)


def test_the_order_of_images_does_not_matter():
    values, group = clustered(np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(len(values))
    assert statistics.mean_interval(values[order], group[order]) == pytest.approx(
        statistics.mean_interval(values, group)
    )


def test_near_duplicates_widen_the_interval():
    values, group = clustered(np.random.default_rng(3))
    whole, single = statistics.mean_interval(values, group), statistics.mean_interval(values, np.arange(len(values)))
    # Four copies tell as much as one: twice the standard error, and so twice the width.
    assert (whole.high - whole.low) / (single.high - single.low) == pytest.approx(2, rel=0.1)


def test_the_interval_covers_the_mean_where_images_come_in_groups():
    draw, covered, simulations = np.random.default_rng(4), 0, 200
    for _ in range(simulations):
        _, low, high = statistics.mean_interval(*clustered(draw))
        covered += low <= 0.6 <= high
    # 0.94 is expected of a percentile interval of 60 groups, give or take 0.017; images alone would cover 0.67.
    assert 0.90 <= covered / simulations <= 0.98


def test_equal_values_have_an_interval_of_no_width():
    assert statistics.mean_interval([0.5] * 30, range(30)) == (0.5, 0.5, 0.5)


def test_one_group_has_no_interval():
    interval = statistics.mean_interval([0.25, 0.75], ["a", "a"])
    assert interval.mean == 0.5
    assert np.isnan([interval.low, interval.high]).all()


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([0.5, np.nan], [0, 1], "values: 2, 1 of them missing, with 2 groups"),
        ([], [], "values: 0, 0 of them missing"),
        ([0.5, 0.5], [0], "values: 2, 0 of them missing, with 1 groups"),
    ],
)
def test_what_has_no_mean_is_refused(values, groups, message):
    with pytest.raises(StudyError, match=message):
        statistics.mean_interval(values, groups)


# Differences


def test_the_same_images_are_compared_one_by_one_whatever_their_order():
    a, b = scores([0.1, 0.5, 0.9]), scores([0.2, 0.6, 1.0]).iloc[::-1]
    assert statistics.difference_interval(a, b, "dice") == pytest.approx((0.1, 0.1, 0.1))


def test_an_image_without_a_score_on_one_side_is_left_out_of_the_pairs():
    interval = statistics.difference_interval(scores([0.1, 0.5, np.nan]), scores([0.3, 0.7, 0.9]), "dice")
    assert interval == pytest.approx((0.2, 0.2, 0.2))


def elsewhere(dice, group=None):
    """Make a table of other images than those of `scores`."""
    table = scores(dice, group)
    return table.assign(name=[f"other {name}" for name in table.name])


def test_other_images_are_compared_by_their_means():
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.3, 0.1, 400), draw.normal(0.5, 0.2, 900)
    interval = statistics.difference_interval(scores(a), elsewhere(b), "dice")
    assert interval.mean == pytest.approx(b.mean() - a.mean())
    # Half the width of the interval by normal approximation.
    half = 1.96 * np.sqrt(a.var() / 400 + b.var() / 900)
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.04)
    assert (interval.high + interval.low) / 2 == pytest.approx(interval.mean, abs=0.1 * half)


def test_other_images_without_near_duplicates_are_resampled_as_scipy_does():
    draw = np.random.default_rng(8)
    a, b = draw.beta(2, 1, 30), draw.beta(1, 2, 50)

    def difference(a, b, axis):
        return b.mean(axis=axis) - a.mean(axis=axis)

    rng = np.random.default_rng(3)
    expected = bootstrap((a, b), difference, batch=1000, method="percentile", rng=rng).confidence_interval
    interval = statistics.difference_interval(scores(a), elsewhere(b), "dice", seed=3)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_copies_of_one_image_count_as_one_among_other_images():
    a = scores([0.0, 1.0] * 50)
    single = statistics.difference_interval(a, elsewhere([0.2, 0.8]), "dice")
    copies = statistics.difference_interval(a, elsewhere([0.2] * 9 + [0.8] * 9, [0] * 9 + [1] * 9), "dice")
    assert copies == pytest.approx(single, abs=0.01)


def test_a_difference_from_one_group_of_other_images_has_no_interval():
    interval = statistics.difference_interval(scores([0.2, 0.4]), elsewhere([0.5, 0.7], [3, 3]), "dice")
    assert interval.mean == pytest.approx(0.3)
    assert np.isnan([interval.low, interval.high]).all()


def test_other_images_without_any_score_are_refused():
    with pytest.raises(StudyError, match="values: 0, 0 of them missing"):
        statistics.difference_interval(scores([0.2, 0.4]), elsewhere([np.nan, np.nan]), "dice")


def test_an_interval_is_written_with_signs():
    interval = Interval(0.1234, -0.05, 0.3)
    assert statistics.format_interval(interval) == "+0.123 (-0.050 to +0.300)"
    assert statistics.format_interval(interval, digits=1) == "+0.1 (-0.1 to +0.3)"


def test_lesion_images_leaves_normals_out():
    table = pd.concat([scores([0.9]), scores([0.2], image_class="malignant"), normal([0.1])])
    assert statistics.lesion_images(table).image_class.to_list() == ["benign", "malignant"]


# Pairs


def test_a_pair_by_hand():
    # Differences 0.1, 0.2, -0.3, 0.4, 0: of four that differ the ranks above zero are 1 + 2 + 4 of 10. Of the 16
    # patterns of signs 5 have 3 or less below zero (none, 1, 2, 3, 1 + 2), and twice that many are as far either way.
    a = scores([0.5, 0.6, 0.2, 0.9, 0.4])
    b = scores([0.4, 0.4, 0.5, 0.5, 0.4])
    row = statistics.compare_pairs({"a": a, "b": b}).iloc[0]
    assert (row.a, row.b, row.n_images) == ("a", "b", 5)
    assert row.difference == pytest.approx(0.08)
    assert row.low < 0.08 < row.high
    assert row.wins == pytest.approx(3.5 / 5)
    assert row.effect == pytest.approx((7 - 3) / 10)
    assert row.p == pytest.approx(10 / 16)


def test_a_pair_without_near_duplicates_is_scipys():
    draw = np.random.default_rng(5)
    a, b = draw.beta(2, 1, 90), draw.beta(2, 1.2, 90)
    row = statistics.compare_pairs({"a": scores(a), "b": scores(b)}).iloc[0]
    assert row.p == pytest.approx(wilcoxon(a, b).pvalue, rel=1e-9)
    expected = statistics.mean_interval(a - b, range(90))
    assert (row.difference, row.low, row.high) == pytest.approx(expected, abs=1e-12)
    # The mean of the signs of all ranks.
    ranks = pd.Series(np.abs(a - b)).rank()
    assert row.effect == pytest.approx((np.sign(a - b) * ranks).sum() / ranks.sum(), abs=1e-12)


def test_near_duplicates_are_one_in_the_test():
    # Ten copies of each of five images: significant if they were fifty, not so for five (2 / 2 ** 5).
    a = scores(np.repeat([0.5, 0.6, 0.7, 0.8, 0.9], 10), group=np.repeat(range(5), 10))
    b = a.assign(dice=a.dice - np.repeat([0.01, 0.02, 0.03, 0.04, 0.05], 10))
    row = statistics.compare_pairs({"a": a, "b": b}).iloc[0]
    assert row.p == pytest.approx(2 / 2**5)
    assert (row.effect, row.wins, row.n_images) == (1, 1, 50)


def test_a_group_stands_with_its_mean_difference_but_the_difference_is_over_images():
    # Group 0: 0.3, 0.3, -0.3, mean 0.1; group 1: -0.2. Ranks 1 above and 2 below.
    a = scores([0.5] * 4, group=[0, 0, 0, 1])
    b = scores([0.2, 0.2, 0.8, 0.7], group=[0, 0, 0, 1])
    row = statistics.compare_pairs({"a": a, "b": b}).iloc[0]
    assert row.difference == pytest.approx(0.1 / 4)
    assert row.effect == pytest.approx((1 - 2) / 3)
    assert row.wins == 0.5


def test_variants_that_never_differ():
    a = scores([0.1, 0.5, 0.9])
    row = statistics.compare_pairs({"a": a, "b": a}).iloc[0]
    assert (row.difference, row.low, row.high, row.p, row.effect, row.wins) == (0, 0, 0, 1, 0, 0.5)


def test_swapped_variants_turn_every_sign():
    draw = np.random.default_rng(6)
    a, b = scores(draw.random(40), group=np.arange(40) // 2), scores(draw.random(40), group=np.arange(40) // 2)
    there, back = (statistics.compare_pairs(pair).iloc[0] for pair in ({"a": a, "b": b}, {"b": b, "a": a}))
    assert there.difference == pytest.approx(-back.difference)
    assert there.effect == pytest.approx(-back.effect)
    assert there.wins == pytest.approx(1 - back.wins)
    assert there.p == back.p


def test_holm_by_hand():
    # Exact p of n differences of one sign is 2 / 2 ** n. a - b: 6 images differ; a - c and b - c: 8.
    base = np.full(8, 0.5)
    tables = {
        "a": scores(base + 0.3),
        "b": scores(base + 0.3 - np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0, 0])),
        "c": scores(base + 0.001 * np.arange(8)),
    }
    compared = statistics.compare_pairs(tables)
    assert list(zip(compared.a, compared.b, strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert compared.p.to_list() == pytest.approx([1 / 32, 1 / 128, 1 / 128])
    # Smallest times 3; the next, 2 / 128, is raised to the one before; the largest times 1.
    assert compared.p_holm.to_list() == pytest.approx([1 / 32, 3 / 128, 3 / 128])


def test_images_are_matched_by_name_and_normals_left_out():
    a = pd.concat([scores([0.9, 0.1, 0.5]), normal([0.0, 0.2])])
    b = pd.concat([normal([0.1, 0.3]), scores([0.8, 0.3, 0.5])]).iloc[::-1]
    row = statistics.compare_pairs({"a": a, "b": b}).iloc[0]
    assert (row.n_images, row.wins) == (3, 0.5)
    assert row.difference == pytest.approx((0.1 - 0.2) / 3)


def test_only_images_that_both_have_are_compared():
    row = statistics.compare_pairs({"a": scores([0.9, 0.1, 0.5]), "b": scores([0.8, 0.3])}).iloc[0]
    assert row.n_images == 2
    assert row.difference == pytest.approx(-0.05)


def test_a_pair_without_common_images_has_no_row():
    other = scores([0.5, 0.6]).assign(name=["elsewhere 0", "elsewhere 1"])
    compared = statistics.compare_pairs({"a": scores([0.5, 0.7]), "b": other, "c": scores([0.1, 0.2])})
    assert list(zip(compared.a, compared.b, strict=True)) == [("a", "c")]
    alone = statistics.compare_pairs({"a": scores([0.5, 0.7]), "b": other})
    assert alone.empty
    assert alone.columns.to_list() == compared.columns.to_list()


def test_another_score_is_compared():
    a, b = scores([0.5, 0.5], hd95=[3.0, 8.0]), scores([0.1, 0.1], hd95=[5.0, 7.0])
    row = statistics.compare_pairs({"a": a, "b": b}, score="hd95").iloc[0]
    assert (row.difference, row.wins) == (-0.5, 0.5)


def test_an_image_scored_twice_is_refused():
    with pytest.raises(StudyError, match="b: image 0 scored twice; expected once"):
        statistics.compare_pairs({"a": scores([0.5]), "b": pd.concat([scores([0.5]), scores([0.6])])})


# Rows


def test_a_summary_by_hand():
    lesions = scores(
        [0.9, 0.5, 0.1, 0.3],
        group=[0, 0, 1, 2],
        iou=[0.8, 0.4, 0.0, 0.2],
        precision=[1.0, 0.5, 0.5, 0.5],
        recall=[0.6, 0.2, 0.2, 0.2],
        hd95=[1.0, 2.0, 3.0, 10.0],
        nsd=[1.0, 0.0, 0.0, 0.0],
        detected=[1.0, 1.0, 0.5, 0.0],
        accuracy=[0.9, 0.9, 0.9, 0.7],
        brier=0.0,
        predicted_share=0.5,
    )
    bins = metrics.count_pixels(np.array([True, True, False, False]), np.array([0.9, 0.3, 0.3, 0.1]))
    row = statistics.summarize(pd.concat([lesions, normal([0, 0.001, 0.2, 0])]), bins)
    expected = {
        "dice": 0.45,
        "dice_median": 0.4,
        "iou": 0.35,
        "precision": 0.625,
        "recall": 0.3,
        "hd95": 4,
        "nsd": 0.25,
        "detected": 0.625,
        "accuracy": 0.85,
        "auc": 0.875,  # of the four pairs one is a tie
        "normals_fpr": 0.5,
        "normals_area": 0.201 / 4,
        "n_images": 4,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert (row["dice_low"], row["dice_high"]) == statistics.mean_interval(lesions.dice, lesions.group)[1:]
    assert row["brier"] == pytest.approx((0.1**2 + 0.7**2 + 0.3**2 + 0.1**2) / 4, abs=0.001)
    assert row["ece"] == pytest.approx((0.1 + 2 * 0.2 + 0.1) / 4, abs=0.001)
    assert set(row) == {*expected, "dice_low", "dice_high", "brier", "ece"}


def test_without_normals_their_scores_are_missing():
    lesions = scores([0.5, 0.6]).assign(predicted_share=0.5, **dict.fromkeys([*metrics.LESION_SCORES, "accuracy"], 0.5))
    row = statistics.summarize(lesions, metrics.count_pixels(np.array([True, False]), np.array([0.9, 0.1])))
    assert np.isnan([row["normals_fpr"], row["normals_area"]]).all()


def test_dice_by_class():
    table = pd.concat([scores([0.9, 0.6, 0.6]), scores([0.2, 0.4], image_class="malignant"), normal([0, 0])])
    parts = statistics.dice_by(table, "image_class")
    assert parts.image_class.to_list() == ["benign", "malignant"]
    assert parts.n_images.to_list() == [3, 2]
    assert parts.dice.to_list() == pytest.approx([0.7, 0.3])
    assert parts.dice_median.to_list() == pytest.approx([0.6, 0.3])
    assert parts.dice_low.to_list() == pytest.approx([0.6, 0.2])
    assert parts.dice_high.to_list() == pytest.approx([0.9, 0.4])


def test_dice_by_lesion_size():
    table = scores([0.1, 0.9, 0.5, 0.2, 0.8, 0.6])
    table["lesion_share"] = [0.01, 0.5, 0.1, 0.02, 0.4, 0.1]
    parts = statistics.dice_by(table, "lesion_size")
    assert parts.lesion_size.to_list() == ["small", "medium", "large"]
    assert parts.dice.to_list() == pytest.approx([0.15, 0.55, 0.85])
    assert parts.n_images.to_list() == [2, 2, 2]


def test_equal_lesions_still_make_three_parts():
    table = scores([0.1, 0.2, 0.3, 0.4]).assign(lesion_share=0.1)
    assert statistics.dice_by(table, "lesion_size").n_images.sum() == 4
    assert len(statistics.dice_by(table, "lesion_size")) == 3
