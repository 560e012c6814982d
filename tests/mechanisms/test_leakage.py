"""Near-duplicates on both sides of a split are found, and what they are worth is told."""

import re

import pandas as pd
import pytest
from small_study import numbers

from busi import display
from busi.mechanisms import leakage
from busi.results import NotMeasured

SPLIT = pd.DataFrame(
    [
        ("benign", "a", 0, "test"),
        ("benign", "a copied", 0, "training"),
        ("benign", "b", 1, "test"),
        ("benign", "b copied", 1, "validation"),
        ("benign", "c", 2, "test"),
        ("normal", "c without", 2, "training"),
        ("malignant", "d", 3, "test"),
        ("benign", "d copied", 3, "training"),
        ("normal", "n", 0, "test"),
    ],
    columns=["image_class", "name", "group", "fold0"],
)


def test_a_twin_is_a_near_duplicate_with_a_lesion_in_the_training_part():
    twin = leakage.find_twins(SPLIT, 0).set_index("name").twin
    # b's copy only decides when to stop, c's is a normal and never trained on, n has no lesion to score.
    assert twin.to_dict() == {"a": True, "b": False, "c": False, "d": True}


def make_twins() -> pd.DataFrame:
    random = leakage.find_twins(SPLIT, 0).assign(split="random", fold=0)
    kept = [random.assign(split=split, twin=False) for split in ("grouped", "blocked")]
    return pd.concat([random, *kept])


SCORES = {"a": (0, 0.9), "b": (1, 0.4), "c": (2, 0.2), "d": (3, 0.7)}


def under_all(make_results, **changes):
    """Return results with the same scores under every split but those that are given."""
    return make_results({"random": SCORES, "grouped": SCORES, "blocked": SCORES} | changes)


def raised(by):
    return {name: (group, dice + by.get(name, 0)) for name, (group, dice) in SCORES.items()}


def test_the_table_counts_twins_and_averages_the_scores_of_the_same_fold(make_results):
    twins = make_twins()
    # Another fold that has not been trained: its images count, and have no score.
    twins = pd.concat([twins, twins.assign(fold=1)])
    scores = leakage.join_scores(twins, under_all(make_results, grouped=raised({"a": -0.2, "d": -0.1, "c": 0.1})))
    table = leakage.tabulate(twins, scores).set_index(["split", "images"])
    changes = ["difference", "difference_low", "difference_high"]
    assert list(table) == ["n_images", "share", "dice", "low", "high", "n_scored", *changes]
    assert table.n_images.loc["random"].tolist() == [8, 4, 4]
    assert table.n_scored.loc["random"].tolist() == [4, 2, 2]
    assert table.share.loc["grouped"].tolist() == [1, 0, 1]
    assert table.dice.loc["random"].tolist() == pytest.approx([0.55, 0.8, 0.3])
    assert table.dice.loc["grouped"].tolist() == pytest.approx([0.5, float("nan"), 0.5], nan_ok=True)
    # Only a and d have a twin under the random split: 0.2 and 0.1 more there; b and c have 0 and 0.1 less.
    assert table.difference.loc["random"].tolist() == pytest.approx([0.05, 0.15, -0.05])
    assert table.difference.loc["grouped"].isna().all()
    assert table.difference_low["random", "twin in training"] == pytest.approx(0.1)
    assert table.difference_high["random", "twin in training"] == pytest.approx(0.2)


def test_seeds_are_averaged_and_widen_the_interval():
    """Eight images that every split scores alike, but for a seed that is good under the random one."""
    names = [f"i{n}" for n in range(8)]
    twins = pd.DataFrame({"split": "random", "fold": 0, "name": names, "twin": False})
    twins = pd.concat([twins.assign(split=split) for split in ("random", "grouped", "blocked")])
    rows = []
    for split, seeds in {"random": [0.5, 0.7], "grouped": [0.5, 0.5]}.items():
        for seed, dice in enumerate(seeds):
            rows += [(split, 0, seed, name, group, False, dice) for group, name in enumerate(names)]
    scores = pd.DataFrame(rows, columns=["split", "fold", "seed", "name", "group", "twin", "dice"])
    change = leakage.compare_with_grouped(scores, "random")
    assert change.mean == pytest.approx(0.1)
    assert change.low < 0 < 0.2 < change.high
    table = leakage.tabulate(twins, scores).set_index(["split", "images"])
    assert table.n_scored["random", "all"] == 8
    assert table.high["random", "all"] > 0.7 and table.high["grouped", "all"] == pytest.approx(0.5)


def test_only_images_scored_under_both_splits_are_compared(make_results):
    """Under the grouped split one fold is missing: neither b nor d has been scored."""
    results = under_all(make_results, grouped={"a": (0, 0.7), "c": (2, 0.3)})
    change = leakage.compare_with_grouped(leakage.join_scores(make_twins(), results), "random")
    assert change.mean == pytest.approx((0.2 - 0.1) / 2)


def test_the_conclusion_tells_the_twins_change_from_the_others(make_results):
    names = [f"t{n}" for n in range(20)] + [f"o{n}" for n in range(20)]
    twins = pd.DataFrame({"split": "random", "fold": 0, "name": names, "twin": [True] * 20 + [False] * 20})
    twins = pd.concat([twins, *(twins.assign(split=split, twin=False) for split in ("grouped", "blocked"))])
    random = {name: (n, 0.8 if n < 20 else 0.46 + (n % 2) / 10) for n, name in enumerate(names)}
    grouped = {name: (n, 0.5) for n, name in enumerate(names)}
    blocked = {name: (n, 0.4) for n, name in enumerate(names)}
    results = make_results({"random": random, "grouped": grouped, "blocked": blocked})
    text = leakage.conclude(twins, leakage.join_scores(twins, results), "64 pixels")
    assert numbers(text)[:3] == ["50", "0", "0"]
    assert "under the random one +0.155 (" in text
    assert "; those with a near-duplicate in training +0.300 (+0.300 to +0.300); those without +0.010 (" in text
    assert "; under the blocked one -0.100 (-0.100 to -0.100). " in text
    assert text.count("which does not exclude 0") == 1


def test_without_twins_the_conclusion_compares_the_splits_alone(make_results):
    twins = make_twins().assign(twin=False)
    scores = leakage.join_scores(twins, under_all(make_results))
    text = leakage.conclude(twins, scores, "64 pixels")
    # Shares of images with a twin, then two changes with their intervals.
    assert numbers(text) == [*["0"] * 3, *[*["+0.000"] * 3, "0"] * 2, "64"]
    assert re.findall(r"(\w+) one \+0\.000", text) == ["random", "blocked"]
    assert text.count("which does not exclude 0") == 2


def test_a_single_group_has_no_interval_and_shows_no_difference(make_results):
    other = {name: (0, dice + 0.05) for name, (_, dice) in SCORES.items()}
    results = under_all(make_results, blocked=other, grouped={name: (0, dice) for name, (_, dice) in SCORES.items()})
    text = leakage.conclude(make_twins(), leakage.join_scores(make_twins(), results), "64 pixels")
    assert text.endswith("blocked one +0.050 (+nan to +nan), which does not exclude 0. Size: 64 pixels.")


@pytest.mark.parametrize("missing", ["grouped", "random"])
def test_without_a_run_under_the_two_splits_of_the_question_there_are_no_scores(make_results, missing):
    trained = {split: SCORES for split in ("grouped", "random", "blocked") if split != missing}
    with pytest.raises(NotMeasured, match=f"{missing}: not trained yet"):
        leakage.join_scores(make_twins(), make_results(trained))


def test_what_the_blocked_split_changes_is_unknown_until_it_is_trained(make_results):
    results = make_results({"grouped": SCORES, "random": raised({"a": 0.1})})
    scores = leakage.join_scores(make_twins(), results)
    text = leakage.conclude(make_twins(), scores, "64 pixels")
    assert "under the random one +0.025 (" in text and text.endswith("blocked one not known yet. Size: 64 pixels.")
    table = leakage.tabulate(make_twins(), scores).set_index(["split", "images"])
    assert table.n_images["blocked", "all"] == 4 and table.n_scored["blocked", "all"] == 0


def test_only_scored_rows_are_drawn_with_the_ends_of_their_intervals():
    table = pd.DataFrame(
        [
            ("grouped", "all", 0, 1.0, None, None, None),
            ("random", "all", 129, 1.0, 0.6, 0.55, 0.7),
            ("random", "twin in training", 29, 0.2, 0.8, 0.7, 0.9),
            # Without a twin anywhere, the images without one are all of them.
            ("blocked", "all", 50, 1.0, 0.5, 0.4, 0.6),
            ("blocked", "no twin in training", 50, 1.0, 0.5, 0.4, 0.6),
        ],
        columns=["split", "images", "n_scored", "share", "dice", "low", "high"],
    )
    fig = leakage.draw(table)
    ax = fig.axes[0]
    assert display.title(fig) == "Random split: Dice 0.600 (all), 0.800 (twin in training)"
    shown = ["random: all (129)", "random: twin in training (29)", "blocked: all (50)"]
    assert [text.get_text() for text in ax.texts] == shown
    ends = ax.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([0.55, 0.7])
