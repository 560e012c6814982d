"""Near-duplicates on both sides of a split are found, and what they are worth is told."""

import pandas as pd
import pytest

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
    return pd.concat([random, random.assign(split="grouped", twin=False)])


SCORES = {"a": (0, 0.9), "b": (1, 0.4), "c": (2, 0.2), "d": (3, 0.7)}


def test_the_table_counts_twins_and_averages_the_scores_of_the_same_fold(make_results):
    twins = make_twins()
    # Another fold that has not been trained: its images count, and have no score.
    twins = pd.concat([twins, twins.assign(fold=1)])
    scores = leakage.join_scores(twins, make_results({"random": SCORES, "grouped": SCORES}))
    table = leakage.tabulate(twins, scores).set_index(["split", "images"])
    assert list(table) == ["n_images", "share", "dice", "low", "high", "n_scored"]
    assert table.n_images.loc["random"].tolist() == [8, 4, 4]
    assert table.n_scored.loc["random"].tolist() == [4, 2, 2]
    assert table.share.loc["grouped"].tolist() == [1, 0, 1]
    assert table.dice.loc["random"].tolist() == pytest.approx([0.55, 0.8, 0.3])
    assert table.dice.loc["grouped"].tolist() == pytest.approx([0.55, float("nan"), 0.55], nan_ok=True)


def test_the_conclusion_tells_the_twins_score_from_the_others(make_results):
    names = [f"t{n}" for n in range(20)] + [f"o{n}" for n in range(20)]
    twins = pd.DataFrame({"split": "random", "fold": 0, "name": names, "twin": [True] * 20 + [False] * 20})
    twins = pd.concat([twins, twins.assign(split="grouped", twin=False)])
    random = {name: (n, 0.8 if n < 20 else 0.5 + (n % 2) / 10) for n, name in enumerate(names)}
    grouped = {name: (n, 0.5) for n, name in enumerate(names)}
    scores = leakage.join_scores(twins, make_results({"random": random, "grouped": grouped}))
    text = leakage.conclude(twins, scores)
    assert text.startswith("Under the random split 50% of the test images have a near-duplicate in training")
    assert "those score a Dice of 0.800 against 0.550 without, +0.250 (" in text
    assert "the random split as a whole against the grouped one: +0.175" in text
    assert text.count("more") == 2
    reverse = {name: (n, 0.9 - dice) for n, (name, (_, dice)) in enumerate(random.items())}
    scores = leakage.join_scores(twins, make_results({"random": reverse, "grouped": grouped}))
    assert leakage.conclude(twins, scores).count("less") == 2


def test_without_twins_the_conclusion_compares_the_splits_alone(make_results):
    twins = make_twins().assign(twin=False)
    scores = leakage.join_scores(twins, make_results({"random": SCORES, "grouped": SCORES}))
    assert leakage.conclude(twins, scores) == (
        "Under the random split 0% of the test images have a near-duplicate in training, under the grouped one 0%; the "
        "random split as a whole against the grouped one: +0.000 (+0.000 to +0.000), no difference beyond chance."
    )


def test_a_single_group_has_no_interval_and_shows_no_difference(make_results):
    twins = make_twins()
    other = {name: (0, dice + 0.05) for name, (_, dice) in SCORES.items()}
    scores = leakage.join_scores(twins, make_results({"random": other, "grouped": {"a": (7, 0.1)}}))
    assert leakage.conclude(twins, scores).endswith("no difference beyond chance.")


def test_without_a_run_under_both_splits_there_are_no_scores(make_results):
    with pytest.raises(NotMeasured, match="random: not trained yet"):
        leakage.join_scores(make_twins(), make_results({"grouped": SCORES}))


def test_only_scored_rows_are_drawn_with_the_ends_of_their_intervals():
    table = pd.DataFrame({"split": ["grouped", "random"], "images": ["all", "all"], "n_scored": [0, 129]})
    table = table.assign(dice=[None, 0.6], low=[None, 0.55], high=[None, 0.7]).astype({"dice": float})
    ax = leakage.draw(table.astype({"low": float, "high": float})).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["random: all (129)"]
    ends = ax.containers[0].lines[2][0].get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([0.55, 0.7])
