"""Intervals, comparisons and rows of tables: by hand, against SciPy without near-duplicates, and by simulation."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, bootstrap, norm, ttest_1samp
from scipy.stats import t as student

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


def runs(draw, folds=5, seeds=5, images=40, *, run=0.0, residual=0.0, image=0.0, fold=0.0, mean=0.0):
    """Draw scores of several runs whose parts vary with these standard deviations."""
    dice = []
    for _ in range(folds):
        of_images = mean + draw.normal(0, fold) + draw.normal(0, image, images)
        for _ in range(seeds):
            dice.append(of_images + draw.normal(0, run) + draw.normal(0, residual, images))
    number, seed, position = np.indices((folds, seeds, images)).reshape(3, -1)
    group = 100 * number + position
    table = pd.DataFrame({"name": group, "group": group, "fold": number, "seed": number + 5 * seed})
    return table.assign(dice=np.concatenate(dice), image_class="benign")


def compare(tables, **more):
    """Compare all pairs."""
    return statistics.compare_pairs(tables, combinations(tables, 2), **more)


def mean_interval(values, groups):
    """Return the interval of values of images that no run has made: over images alone."""
    table = pd.DataFrame({"name": range(len(values)), "group": np.asarray(groups), "value": np.asarray(values, float)})
    return statistics.score_interval(table, "value")


def clustered(draw, groups=60, size=4, spread=0.2, noise=0.02):
    """Draw values that agree within their groups."""
    group = np.repeat(np.arange(groups), size)
    return draw.normal(0.6, spread, groups)[group] + draw.normal(0, noise, groups * size), group


# Intervals


def test_interval_without_near_duplicates_is_scipys():
    values = np.random.default_rng(0).beta(2, 1, 80)
    expected = bootstrap(
        (values,), np.mean, n_resamples=9999, batch=1000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    interval = mean_interval(values, np.arange(80))
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_groups_are_drawn_whole():
    # Of two groups, (0, 0, 0) and (1,), a draw holds both, or one of them twice: means 1/4, 0 and 1, each of the
    # latter in a quarter of the draws. Images drawn one by one would rarely all be 1.
    interval = mean_interval([0, 0, 0, 1], ["a", "a", "a", "b"])
    assert interval == pytest.approx((0.25, 0, 1), abs=1e-12)


def test_the_order_of_images_does_not_matter():
    values, group = clustered(np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(len(values))
    assert mean_interval(values[order], group[order]) == pytest.approx(mean_interval(values, group))


def test_near_duplicates_widen_the_interval():
    values, group = clustered(np.random.default_rng(3))
    whole, single = mean_interval(values, group), mean_interval(values, np.arange(len(values)))
    # Four copies tell as much as one: twice the standard error, and so twice the width.
    assert (whole.high - whole.low) / (single.high - single.low) == pytest.approx(2, rel=0.1)


def test_the_interval_covers_the_mean_where_images_come_in_groups():
    draw, covered, simulations = np.random.default_rng(4), 0, 200
    for _ in range(simulations):
        _, low, high = mean_interval(*clustered(draw))
        covered += low <= 0.6 <= high
    # 0.94 is expected of a percentile interval of 60 groups, give or take 0.017; images alone would cover 0.67.
    assert 0.90 <= covered / simulations <= 0.98


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([0.5] * 30, range(30)) == (0.5, 0.5, 0.5)


def test_one_group_has_no_interval():
    interval = mean_interval([0.25, 0.75], ["a", "a"])
    assert interval.mean == 0.5
    assert np.isnan([interval.low, interval.high]).all()


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([0.5, np.nan], [0, 1], "value: 2 values, 1 of them missing"),
        ([], [], "value: 0 values, 0 of them missing"),
    ],
)
def test_what_has_no_mean_is_refused(values, groups, message):
    with pytest.raises(StudyError, match=message):
        mean_interval(values, groups)


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
    interval = statistics.difference_interval(scores(a), elsewhere(b), "dice")
    # Other draws, from one generator in place of two: ends of 9999 resamples agree to a few hundredths of the width.
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=0.01)


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
    with pytest.raises(StudyError, match="dice: 0 values, 0 of them missing"):
        statistics.difference_interval(scores([0.2, 0.4]), elsewhere([np.nan, np.nan]), "dice")


def test_runs_of_the_same_folds_and_seeds_are_subtracted():
    a = runs(np.random.default_rng(20), run=0.2, residual=0.1)
    assert statistics.difference_interval(a, a.assign(dice=a.dice + 0.1)) == pytest.approx((0.1, 0.1, 0.1))


def other_folds(table):
    """Return the same images under folds of another split."""
    return table.assign(fold=(table.fold + 1) % 5)


def test_on_the_same_images_in_other_folds_the_folds_of_both_vary():
    """Leakage: images differ by nothing, trainings of either split do: the variances of two means of five folds."""
    a = runs(np.random.default_rng(21), images=100)
    # Each fold of b holds a fifth of each fold of a.
    b = a.assign(fold=a.name % 5, seed=a.name % 5 + a.seed - a.fold)
    effects_a, effects_b = np.array([-0.05, 0.02, 0.0, 0.06, 0.03]), np.array([0.01, 0.04, -0.04, 0.0, -0.03])
    a["dice"], b["dice"] = 0.5 + effects_a[a.fold], 0.5 + effects_b[b.fold]
    interval = statistics.difference_interval(a, b)
    assert interval.mean == pytest.approx(effects_b.mean() - effects_a.mean())
    squares = effects_a.var(ddof=1) / 5, effects_b.var(ddof=1) / 5
    freedom = 4 * sum(squares) ** 2 / sum(square**2 for square in squares)
    half = student.ppf(0.975, freedom) * np.sqrt(sum(squares))
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.03)


def test_on_the_same_images_in_other_folds_images_are_subtracted():
    """Images that vary by 0.3 and that both score alike widen nothing; other images would."""
    draw = np.random.default_rng(22)
    a = runs(draw, image=0.3, residual=0.02, run=0.02)
    b = other_folds(a.assign(dice=a.dice + 0.1 + draw.normal(0, 0.02, len(a))))
    matched = statistics.difference_interval(a, b)
    renamed = b.assign(name=b.name + 1000, group=b.group + 1000)
    apart = statistics.difference_interval(a, renamed)
    assert matched.mean == pytest.approx(apart.mean)
    assert matched.high - matched.low < 0.05 < apart.high - apart.low


def test_equal_splits_differ_by_zero_at_the_nominal_rate(few_resamples):
    draw, covered, simulations = np.random.default_rng(23), 0, 60
    for _ in range(simulations):
        a, b = (runs(draw, seeds=3, images=20, run=0.04, residual=0.05) for _ in range(2))
        _, low, high = statistics.difference_interval(a, other_folds(b))
        covered += low <= 0 <= high
    assert binom.ppf(0.001, simulations, 0.95) <= covered <= binom.ppf(0.9999, simulations, 0.95)


def test_a_mean_that_may_be_lower_widens_the_difference_on_the_other_side():
    """One value of a far below the others: a's interval reaches further down, and so that of b - a further up."""
    a, b = scores([0.0] + [0.9] * 19), elsewhere([0.5] * 20)
    low, high = mean_interval(a.dice, a.group)[1:]
    interval = statistics.difference_interval(a, b)
    assert interval == pytest.approx((0.5 - a.dice.mean(), 0.5 - high, 0.5 - low))


def test_an_interval_is_written_with_signs():
    interval = Interval(0.1234, -0.05, 0.3)
    assert statistics.format_interval(interval) == "+0.123 (-0.050 to +0.300)"


def test_lesion_images_leaves_normals_out():
    table = pd.concat([scores([0.9]), scores([0.2], image_class="malignant"), normal([0.1])])
    assert statistics.lesion_images(table).image_class.to_list() == ["benign", "malignant"]


# Training


@pytest.mark.parametrize(("seeds", "fold", "run"), [(5, 0.05, 0.02), (2, 0.05, 0.02), (1, 0.0, 0.05)])
def test_folds_vary_as_their_means_do(seeds, fold, run):
    """Where images hardly vary, the interval is that of five means of folds: four degrees of freedom."""
    table = runs(np.random.default_rng(2), seeds=seeds, fold=fold, run=run, image=0.01, mean=0.5)
    error = np.sqrt(table.groupby("fold").dice.mean().var() / 5)
    interval = statistics.score_interval(table)
    assert (interval.high - interval.low) / 2 == pytest.approx(2.776 * error, rel=0.05)


def test_the_runs_of_one_fold_vary_as_their_mean_does():
    """Without images that vary, the interval is that of a mean of four runs: three degrees of freedom."""
    table = runs(np.random.default_rng(1), folds=1, seeds=4, run=0.05, images=300, mean=0.5)
    error = np.sqrt(table.groupby("seed").dice.mean().var() / 4)
    interval = statistics.score_interval(table)
    assert (interval.high - interval.low) / 2 == pytest.approx(3.182 * error, rel=0.05)


def test_one_run_alone_says_nothing_about_training():
    single = runs(np.random.default_rng(2), folds=1, seeds=1, run=0.05, image=0.01, mean=0.5)
    assert statistics.score_interval(single) == mean_interval(single.dice, single.group)
    row = compare({"a": single, "b": single.assign(dice=0.4)}).iloc[0]
    assert row.n_runs == 1  # by which the claims know


def test_images_that_vary_are_not_counted_a_second_time_as_training():
    """Images and what is left vary: folds and runs have means of their own, but differ no more than their images do."""
    draw, ratios = np.random.default_rng(3), []
    for _ in range(20):
        table = runs(draw, image=0.2, residual=0.2)
        images = table.groupby(["name", "group"], as_index=False).dice.mean()
        alone = mean_interval(images.dice, images.group)
        # The spread before Student's t widens it, which five folds alone make necessary.
        spread = statistics._vary_both(statistics._split_folds(table, "dice")).values.std()
        ratios.append(spread / ((alone.high - alone.low) / 2 / 1.96))
    # Where the folds happen to be closer to each other than their images explain, nothing is added.
    assert min(ratios) == pytest.approx(1, abs=0.02)
    assert np.mean(ratios) < 1.25


def test_folds_vary_by_their_means_over_images_with_the_degrees_of_freedom_of_these():
    """Groups of 10, 1 and 1 images: the means of a fold's groups and of its images differ, and the latter count.

    Deviations of a fold's groups are e, -e/2 and -e/2, so that the mean over its images is 3/4 e higher than that over
    its groups, and the sums of the groups' deviations from it are 2.5 e, -1.25 e and -1.25 e.
    """
    means = np.array([0.5, 0.52, 0.47, 0.55, 0.44])
    deviations = np.array([0.02, -0.06, 0.04, 0.03, -0.05])
    parts = []
    for fold, (mean, e) in enumerate(zip(means, deviations, strict=True)):
        values = [*[mean + e] * 10, mean - e / 2, mean - e / 2]
        groups = [3 * fold] * 10 + [3 * fold + 1, 3 * fold + 2]
        names = [f"image {12 * fold + number}" for number in range(12)]
        parts.append(scores(values, group=groups).assign(name=names, fold=fold, seed=fold))
    split = statistics._split_folds(pd.concat(parts), "dice")
    found = statistics._vary_runs(split)
    square = (means + 0.75 * deviations).var(ddof=1)
    known = 3 / 2 * (2.5**2 + 2 * 1.25**2) / 12**2 * (deviations**2).mean()
    variance = (square - known) / 5
    assert found.values.var() == pytest.approx(variance, rel=0.05)
    assert found.freedom == pytest.approx(4 * (found.values.var() / (square / 5)) ** 2)


@pytest.mark.parametrize(
    ("seeds", "parts"),
    [
        (5, {"run": 0.03, "residual": 0.2}),
        (5, {"run": 0.06, "residual": 0.1}),
        (2, {"run": 0.03, "residual": 0.2}),
        # Training sets of folds differ, too: what was wrong before.
        (5, {"run": 0.03, "residual": 0.2, "fold": 0.03}),
        (2, {"run": 0.03, "residual": 0.2, "fold": 0.06}),
        (1, {"run": 0.02, "residual": 0.2}),
        # One fold, three seeds: too few to be resampled.
        (3, {"run": 0.06, "residual": 0.1, "folds": 1}),
        (2, {"run": 0.06, "residual": 0.01, "folds": 1}),
    ],
)
def test_two_equal_arms_differ_by_zero_at_the_nominal_rate(seeds, parts, few_resamples):
    """Differences of equal arms have mean 0: their interval covers it in 95 of 100 cases, give or take the binomial."""
    draw, covered, simulations = np.random.default_rng(4), 0, 150
    for _ in range(simulations):
        _, low, high = statistics.score_interval(runs(draw, seeds=seeds, **parts))
        covered += low <= 0 <= high
    assert binom.ppf(0.001, simulations, 0.95) <= covered <= binom.ppf(0.9999, simulations, 0.95)


@pytest.mark.parametrize("run", [0.03, 0.045])
def test_five_runs_cover_zero_where_training_varies_as_much_as_images(run, few_resamples):
    """One run a fold: each image's part is subtracted from what varies between folds, and its doubt must not be."""
    draw, covered, simulations = np.random.default_rng(13), 0, 1000
    for _ in range(simulations):
        # A fold's mean varies by 0.032 with its 40 images.
        _, low, high = statistics.score_interval(runs(draw, seeds=1, image=0.2, run=run))
        covered += low <= 0 <= high
    assert binom.ppf(0.001, simulations, 0.95) <= covered <= binom.ppf(0.9999, simulations, 0.95)


def test_equal_arms_differ_by_zero_at_the_nominal_rate_where_groups_are_unequal(few_resamples):
    """Most images are alone, as in BUSI; a few groups are large, and weigh more in the mean over images."""
    sizes = [1] * 20 + [2] * 5 + [3, 7]
    first = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    draw, covered, simulations = np.random.default_rng(14), 0, 300
    for _ in range(simulations):
        table = runs(draw, seeds=1, image=0.2, run=0.05)
        # Images of a group score nearly the same.
        origin = 40 * (table.name // 100) + first[table.name % 100]
        noise = draw.normal(0, 0.02, len(table))
        table = table.assign(group=origin, dice=table.dice.to_numpy()[origin] + noise)
        _, low, high = statistics.score_interval(table)
        covered += low <= 0 <= high
    assert binom.ppf(0.001, simulations, 0.95) <= covered <= binom.ppf(0.9999, simulations, 0.95)


def test_images_alone_would_tell_equal_arms_apart():
    """What was wrong before: training that varies was left out."""
    draw, covered = np.random.default_rng(5), 0
    for _ in range(40):
        table = runs(draw, seeds=1, run=0.06, residual=0.1)
        _, low, high = mean_interval(table.dice, table.group)
        covered += low <= 0 <= high
    assert covered < 28


def test_parts_of_the_variance_are_found_again():
    draw = np.random.default_rng(6)
    table = runs(draw, folds=40, seeds=5, images=60, run=0.05, residual=0.2, image=0.3, fold=0.1)
    found = statistics.find_components(table)
    assert found["seed"] == pytest.approx(0.05**2, rel=0.3)
    assert found["residual"] == pytest.approx(0.2**2, rel=0.05)
    assert found["image"] == pytest.approx(0.3**2, rel=0.1)
    assert found["fold"] == pytest.approx(0.1**2, rel=0.4)
    assert (found["groups"], found["images"], found["runs"]) == (2400, 60, 200)


def test_with_one_run_a_fold_its_parts_are_in_image_and_fold():
    table = runs(np.random.default_rng(7), folds=60, seeds=1, images=60, run=0.1, residual=0.2, image=0.2)
    found = statistics.find_components(table)
    assert found["image"] == pytest.approx(0.2**2 + 0.2**2, rel=0.1)
    assert found["fold"] == pytest.approx(0.1**2, rel=0.4)
    assert np.isnan([found["seed"], found["residual"]]).all()


def test_a_component_by_hand():
    # Two images, two seeds: image means 0.2 and 0.6, seed means 0.3 and 0.5, nothing left over.
    table = pd.DataFrame({"name": ["a", "b"] * 2, "group": ["a", "b"] * 2, "fold": 0, "seed": [0, 0, 1, 1]})
    found = statistics.find_components(table.assign(dice=[0.1, 0.5, 0.3, 0.7]))
    assert found["image"] == pytest.approx(0.08)
    assert found["seed"] == pytest.approx(0.02)
    assert found["residual"] == pytest.approx(0)
    assert np.isnan(found["fold"])


def test_the_smallest_difference_is_told_in_four_of_five_cases():
    # 25 runs, each the mean of 40 images, as in `runs` with variances 0.04 ** 2 of seeds and 0.1 ** 2 left over.
    known = {"image": 0.0, "fold": 0.0, "seed": 0.04**2, "residual": 0.1**2, "groups": 200, "images": 40, "runs": 25}
    known["folds"] = 5
    smallest = statistics.find_power(known)["smallest"]
    spread = np.sqrt(0.04**2 + 0.1**2 / 40)
    means = np.random.default_rng(8).normal(smallest, spread, (4000, 25)).mean(axis=1)
    assert (abs(means) > 1.96 * spread / 5).mean() == pytest.approx(0.8, abs=0.02)


def test_few_runs_take_a_wider_difference():
    """Four degrees of freedom: Student's 2.776 and 0.941 in place of 1.960 and 0.842."""
    known = {"image": 0.0, "fold": 0.02**2, "seed": np.nan, "residual": np.nan, "groups": 500, "images": 100, "runs": 5}
    known["folds"] = 5
    power = statistics.find_power(known, freedom=4)
    assert power["smallest"] == pytest.approx((2.776 + 0.941) * 0.02 / np.sqrt(5), rel=1e-3)
    # Over images in groups of unequal size, the mean varies more than over groups.
    wider = statistics.find_power(known, freedom=4, variance=4 * 0.02**2 / 5)
    assert wider["smallest"] == pytest.approx(2 * power["smallest"])
    # What more seeds would leave cannot be told from one.
    assert np.isnan([power["limit"], power["runs_needed"]]).all()


def test_runs_needed_by_hand():
    errors = norm.ppf(0.975) + norm.ppf(0.8)
    components = {"image": 0.0, "fold": 0.0, "seed": 0.03**2, "residual": 0.0, "groups": 600, "images": 120, "runs": 25}
    components["folds"] = 5
    power = statistics.find_power(components)
    assert power["smallest"] == pytest.approx(errors * 0.03 / 5)
    # However many seeds there are, the folds are five: Student's 2.776 and 0.941.
    many = 2.7764 + 0.9410
    assert power["runs_needed"] == np.ceil((many * 0.03 / 0.01) ** 2)
    # Images that differ by 0.3 allow no less than 3.7 * 0.3 / sqrt(600), whatever the number of runs.
    limited = statistics.find_power(components | {"image": 0.09})
    assert limited["limit"] == pytest.approx(many * 0.3 / np.sqrt(600), rel=1e-4)
    assert limited["runs_needed"] == np.inf
    # Nor do five folds that differ by 0.01: 3.7 * 0.01 / sqrt(5).
    folds = statistics.find_power(components | {"fold": 0.01**2})
    assert folds["limit"] == pytest.approx(many * 0.01 / np.sqrt(5), rel=1e-4)
    # Seeds of one fold can be added without end.
    single = statistics.find_power(components | {"image": 0.09, "folds": 1})
    assert single["limit"] == pytest.approx(errors * 0.3 / np.sqrt(600))
    assert folds["smallest"] == pytest.approx(errors * np.hypot(0.01 / np.sqrt(5), 0.03 / 5))
    assert folds["runs_needed"] == np.inf


# Pairs


def test_a_pair_by_hand():
    # Differences 0.1, 0.2, -0.3, 0.4, 0.
    a = scores([0.5, 0.6, 0.2, 0.9, 0.4])
    b = scores([0.4, 0.4, 0.5, 0.5, 0.4])
    row = compare({"a": a, "b": b}).iloc[0]
    assert (row.a, row.b, row.n_images, row.n_runs) == ("a", "b", 5, 0)
    assert row.difference == pytest.approx(0.08)
    assert row.low < 0.08 < row.high
    assert row.wins == pytest.approx(3.5 / 5)


def test_a_pair_without_near_duplicates_or_runs_is_a_t_test_of_images():
    draw = np.random.default_rng(5)
    a, b = draw.beta(2, 1, 90), draw.beta(2, 1.2, 90)
    row = compare({"a": scores(a), "b": scores(b)}).iloc[0]
    assert row.p == pytest.approx(ttest_1samp(a - b, 0).pvalue, rel=0.1)
    expected = mean_interval(a - b, range(90))
    assert (row.difference, row.low, row.high) == pytest.approx(expected, abs=1e-12)


def test_near_duplicates_are_one_in_the_test():
    draw = np.random.default_rng(9)
    differences = draw.normal(0.05, 0.1, 30)
    single = compare({"a": scores(0.5 + differences), "b": scores(np.full(30, 0.5))}).iloc[0]
    copies = np.repeat(range(30), 10)
    many = compare({"a": scores(0.5 + differences[copies], copies), "b": scores(np.full(300, 0.5), copies)}).iloc[0]
    assert (many.p, many.low, many.high) == pytest.approx((single.p, single.low, single.high))


def test_runs_are_matched_by_fold_and_seed():
    """Both have the same runs, good and bad; matched, their difference does not vary at all."""
    a = runs(np.random.default_rng(10), run=0.2, residual=0.1)
    row = compare({"a": a, "b": a.assign(dice=a.dice - 0.01).iloc[::-1]}).iloc[0]
    assert (row.difference, row.low, row.high) == pytest.approx((0.01, 0.01, 0.01))
    assert row.n_runs == 25
    # A seed that only one has says nothing about the pair.
    fewer = compare({"a": a, "b": a[a.seed < 20]}).iloc[0]
    assert (fewer.n_runs, fewer.n_images, fewer.difference) == (20, 200, 0)


def test_an_untrained_predictor_is_compared_with_every_run():
    a = runs(np.random.default_rng(11), run=0.05, mean=0.5)
    constant = a.drop_duplicates("name").drop(columns=["fold", "seed"]).assign(dice=0.2)
    row = compare({"a": a, "constant": constant}).iloc[0]
    expected = statistics.score_interval(a.assign(dice=a.dice - 0.2))
    assert (row.difference, row.low, row.high) == pytest.approx(expected)
    assert row.n_runs == 25


def test_the_corrected_resampled_t_by_hand():
    # Means of three folds 0.01, 0.02, 0.03 (variance 0.0001); tested on half as many images as trained on.
    parts = []
    for fold, dice in enumerate([0.51, 0.52, 0.53]):
        # Two seeds of a fold share their training images, so that only their mean counts.
        for seed, chance in ((0, -0.004), (1, 0.004)):
            part = scores([dice + chance] * 4).assign(fold=fold, seed=seed)
            parts.append(part.assign(name=part.name + f" of {fold}", group=part.group + 10 * fold))
    a = pd.concat(parts)
    row = compare({"a": a, "b": a.assign(dice=0.5)}, ratio=0.5).iloc[0]
    t = 0.02 / np.sqrt((1 / 3 + 0.5) * 0.0001)
    # Two degrees of freedom have a distribution in closed form.
    assert row.p_t == pytest.approx(1 - t / np.sqrt(2 + t**2))
    # Its quantile at 97.5 % is 4.303.
    assert ((row.t_low + row.t_high) / 2, (row.t_high - row.t_low) / 2) == pytest.approx(
        (0.02, 4.303 * 0.02 / t), rel=1e-3
    )
    # One fold, however often it is trained, has no other training images.
    assert np.isnan(compare({"a": a[a.fold == 0], "b": a.assign(dice=0.5)}, ratio=0.5).p_t[0])


def test_the_difference_is_over_images_not_over_groups():
    # Group 0: 0.3, 0.3, -0.3, mean 0.1; group 1: -0.2.
    a = scores([0.5] * 4, group=[0, 0, 0, 1])
    b = scores([0.2, 0.2, 0.8, 0.7], group=[0, 0, 0, 1])
    row = compare({"a": a, "b": b}).iloc[0]
    assert row.difference == pytest.approx(0.1 / 4)
    assert row.wins == 0.5


def test_variants_that_never_differ():
    a = scores([0.1, 0.5, 0.9])
    row = compare({"a": a, "b": a}).iloc[0]
    assert (row.difference, row.low, row.high, row.p, row.wins) == (0, 0, 0, 1, 0.5)


def test_swapped_variants_turn_every_sign():
    draw = np.random.default_rng(6)
    a, b = scores(draw.random(40), group=np.arange(40) // 2), scores(draw.random(40), group=np.arange(40) // 2)
    there, back = (compare(pair).iloc[0] for pair in ({"a": a, "b": b}, {"b": b, "a": a}))
    assert there.difference == pytest.approx(-back.difference)
    assert there.wins == pytest.approx(1 - back.wins)
    assert there.p == back.p


def test_holm_by_hand():
    draw = np.random.default_rng(12)
    tables = {name: scores(draw.normal(mean, 0.1, 60)) for name, mean in (("a", 0.6), ("b", 0.56), ("c", 0.55))}
    compared = compare(tables)
    assert list(zip(compared.a, compared.b, strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    smallest, middle, largest = np.sort(compared.p)
    second = max(3 * smallest, 2 * middle)
    assert np.sort(compared.p_holm) == pytest.approx([3 * smallest, second, min(1, max(second, largest))])


def test_the_ratio_of_tested_to_trained_images_by_hand():
    """Two runs are trained on 6 and 10 images and scored on 3 and 5 with a lesion; normal images do not count."""
    lesions = [scores([0.5] * count).assign(run=run) for run, count in (("a", 3), ("b", 5))]
    images = pd.concat([*lesions, normal([0.1, 0.2]).assign(run="a")]).assign(variant="KLD")
    trained = pd.DataFrame({"images": [6, 10]})
    assert statistics.find_test_ratio(images, trained) == 4 / 8
    assert np.isnan(statistics.find_test_ratio(images[:0], trained))


def test_the_resampled_t_is_corrected_by_holm_where_it_is_known():
    """Of six pairs, three have all folds; the others have one fold in common, hence no test, and do not count."""
    draw = np.random.default_rng(3)
    parts = [scores(draw.normal(0.5, 0.1, 20)).assign(fold=fold, seed=0) for fold in range(3)]
    a = pd.concat([part.assign(name=part.name + f" of {part.fold[0]}") for part in parts])
    tables = {"a": a, "b": a.assign(dice=a.dice + draw.normal(0.02, 0.01, 60)), "c": a.assign(dice=a.dice + 0.001)}
    once = {"d": a[a.fold == 0]}
    compared = compare(tables | once, ratio=0.25)
    known = compared[compared.n_folds == 3]
    assert len(known) == 3 and compared.p_t_holm.notna().sum() == 3
    smallest, middle, largest = np.sort(known.p_t)
    second = max(3 * smallest, 2 * middle)
    expected = [min(1, p) for p in (3 * smallest, second, max(second, largest))]
    assert np.sort(known.p_t_holm) == pytest.approx(expected)


def test_images_are_matched_by_name_and_normals_left_out():
    a = pd.concat([scores([0.9, 0.1, 0.5]), normal([0.0, 0.2])])
    b = pd.concat([normal([0.1, 0.3]), scores([0.8, 0.3, 0.5])]).iloc[::-1]
    row = compare({"a": a, "b": b}).iloc[0]
    assert (row.n_images, row.wins) == (3, 0.5)
    assert row.difference == pytest.approx((0.1 - 0.2) / 3)


def test_only_images_that_both_have_are_compared():
    row = compare({"a": scores([0.9, 0.1, 0.5]), "b": scores([0.8, 0.3])}).iloc[0]
    assert row.n_images == 2
    assert row.difference == pytest.approx(-0.05)


def test_a_pair_without_common_images_has_no_row():
    other = scores([0.5, 0.6]).assign(name=["elsewhere 0", "elsewhere 1"])
    compared = compare({"a": scores([0.5, 0.7]), "b": other, "c": scores([0.1, 0.2])})
    assert list(zip(compared.a, compared.b, strict=True)) == [("a", "c")]
    alone = compare({"a": scores([0.5, 0.7]), "b": other})
    assert alone.empty
    assert alone.columns.to_list() == compared.columns.to_list()


def test_another_score_is_compared():
    a, b = scores([0.5, 0.5], hd95=[3.0, 8.0]), scores([0.1, 0.1], hd95=[5.0, 7.0])
    row = compare({"a": a, "b": b}, score="hd95").iloc[0]
    assert (row.difference, row.wins) == (-0.5, 0.5)


def test_an_image_scored_twice_is_refused():
    with pytest.raises(StudyError, match="b: image 0 scored twice; expected once by each run"):
        compare({"a": scores([0.5]), "b": pd.concat([scores([0.5]), scores([0.6])])})


# Rows


def pool(truth, probability):
    """Return the scores of pixels together, a table of one run."""
    return pd.DataFrame([metrics.pool_pixels(metrics.count_pixels(np.array(truth), np.array(probability)))])


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
    pooled = pool([True, True, False, False], [0.9, 0.3, 0.3, 0.1])
    row = statistics.summarize(pd.concat([lesions, normal([0, 0.001, 0.2, 0])]), pooled)
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
        "accuracy_half": 0.75,  # the lesion pixel at 0.3 is missed
        "normals_fpr": 0.5,
        "normals_area": 0.201 / 4,
        "n_images": 4,
        "n_empty": 0,
        "n_predictions": 4,
        "nsd_tolerance": 2,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert (row["dice_low"], row["dice_high"]) == mean_interval(lesions.dice, lesions.group)[1:]
    assert row["brier"] == pytest.approx((0.1**2 + 0.7**2 + 0.3**2 + 0.1**2) / 4, abs=0.001)
    assert row["ece"] == pytest.approx((0.1 + 2 * 0.2 + 0.1) / 4, abs=0.001)
    assert set(row) == {*expected, "dice_low", "dice_high", "brier", "ece", "auc_pooled", "loss"}


def test_a_score_that_was_added_after_the_runs_were_gathered_is_left_out():
    others = dict.fromkeys([*metrics.LESION_SCORES[1:], "accuracy"], 0.5)
    table = scores([0.2, 0.4], predicted_share=0.1, **others)
    pooled = pool([True, False], [0.9, 0.1])
    row = statistics.summarize(table, pooled)
    earlier = statistics.summarize(table.drop(columns="nsd"), pooled)
    assert row.pop("nsd") == 0.5
    assert earlier == pytest.approx(row, nan_ok=True)


def test_a_summary_of_several_runs_counts_an_image_once_and_each_prediction_on_its_own():
    others = dict.fromkeys([*metrics.LESION_SCORES[1:], "accuracy"], 0.5)
    first = pd.concat([scores([0.0, 0.4], predicted_share=[0.0, 0.1], **others), normal([0.0])]).assign(fold=0, seed=0)
    second = pd.concat([scores([0.2, 0.8], predicted_share=[0.1, 0.1], **others), normal([0.3])]).assign(fold=0, seed=1)
    pooled = pd.concat([pool([True, False], [0.9, 0.1]), pool([True, False], [0.1, 0.9])])
    row = statistics.summarize(pd.concat([first, second]), pooled)
    assert (row["n_images"], row["n_empty"], row["n_predictions"]) == (2, 1, 4)
    assert (row["dice"], row["dice_median"]) == pytest.approx((0.35, 0.35))
    # One of two predictions marks the normal image; a mean over runs would mark it for both.
    assert (row["normals_fpr"], row["normals_area"]) == pytest.approx((0.5, 0.15))
    # Ranked right by one run and wrong by the other.
    assert row["auc"] == pytest.approx(0.5)


def test_without_normals_their_scores_are_missing():
    lesions = scores([0.5, 0.6]).assign(predicted_share=0.5, **dict.fromkeys([*metrics.LESION_SCORES, "accuracy"], 0.5))
    row = statistics.summarize(lesions, pool([True, False], [0.9, 0.1]))
    assert np.isnan([row["normals_fpr"], row["normals_area"]]).all()


def test_runs_of_other_seeds_are_matched_in_their_order():
    """Seeds 0 and 5 of a fold stand opposite 1000 and 1005: by hand 0.1 and 0.3 apart."""
    tables = {}
    for label, seeds, dice in (("a", (0, 5), (0.5, 0.7)), ("b", (1005, 1000), (0.4, 0.4))):
        rows = []
        for seed, value in zip(seeds, dice, strict=True):
            for image in range(4):
                rows.append({"name": f"benign ({image})", "group": image, "fold": 0, "seed": seed, "dice": value})
        tables[label] = pd.DataFrame(rows).assign(image_class="benign")
    ranked = {label: statistics.rank_seeds(table) for label, table in tables.items()}
    row = statistics.compare_pairs(ranked, [("a", "b")]).iloc[0]
    assert row.n_runs == 2
    assert row.difference == pytest.approx(0.2)


def test_false_positives_are_compared_where_every_run_touches_as_many_lesions():
    """Of 20 lesions one may be missed at 95 %: the second run's threshold is 0.2, the first one's 0.8."""
    lesions = pd.DataFrame({"image_class": "benign", "peak": [0.1, *[0.8] * 19, 0.15, *[0.2] * 19]})
    lesions[["fold", "seed"]] = [[0, 0]] * 20 + [[1, 1]] * 20
    normals = pd.DataFrame({"image_class": "normal", "peak": [0.79, 0.81, 0.3, 0.1], "fold": [0, 0, 1, 1]})
    table = pd.concat([lesions, normals.assign(seed=normals.fold)])
    assert statistics.normals_at_sensitivity(table, 0.95).tolist() == [0.5, 0.5]
    # Whatever touches all 20: 0.1 in the first run, 0.15 in the second.
    assert statistics.normals_at_sensitivity(table, 1.0).tolist() == [1, 0.5]


def test_each_run_marks_a_share_of_its_normal_images():
    """One of two in the first run, none in the second; lesion images do not count."""
    table = pd.DataFrame({"fold": [0, 0, 0, 1, 1], "seed": [0, 0, 0, 1, 1], "predicted_share": [0.1, 0, 0.5, 0, 0.5]})
    table["image_class"] = ["normal", "normal", "benign", "normal", "benign"]
    assert statistics.normals_with_finding(table).tolist() == [0.5, 0]
    assert np.isnan(statistics.normals_with_finding(table[table.image_class == "benign"])).all()


def test_the_interval_of_dice_ends_where_dice_does():
    """Folds of which some have learned nothing: a mean of 0.4 that five trainings would move by far more."""
    folds = np.repeat(np.arange(5), 4)
    table = pd.DataFrame({"fold": folds, "seed": folds, "name": range(20), "group": range(20), "lesion_share": 0.1})
    table = table.assign(image_class="benign", dice=np.isin(folds, [0, 3]).astype(float))
    assert statistics.score_interval(table).low < 0
    row = statistics._summarize_dice(table)
    assert (row["dice"], row["dice_low"]) == (0.4, 0)
    assert statistics._summarize_dice(table.assign(dice=1 - table.dice))["dice_high"] == 1
