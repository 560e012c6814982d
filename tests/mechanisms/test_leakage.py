"""Near-duplicates on both sides of a split are found, and what they are worth is told."""

import pandas as pd
import pytest

from busi.mechanisms import leakage

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
    found = leakage.twins(SPLIT, 0).set_index("name").twin
    # b's copy only decides when to stop, c's is a normal and never trained on, n has no lesion to score.
    assert found.to_dict() == {"a": True, "b": False, "c": False, "d": True}


def gathered() -> pd.DataFrame:
    random = leakage.twins(SPLIT, 0).assign(split="random", fold=0)
    return pd.concat([random, random.assign(split="grouped", twin=False)])


def test_the_table_counts_twins_and_scores_those_of_the_runs_fold(make_heldout):
    scores = {"a": (0, 0.9), "b": (1, 0.4), "c": (2, 0.2), "d": (3, 0.7)}
    runs = {"random": [make_heldout(scores, split="random")], "grouped": []}
    found = leakage.table(gathered(), runs).set_index(["split", "images"])
    assert found.n_images.loc["random"].tolist() == [4, 2, 2]
    assert found.share.loc["grouped"].tolist() == [1, 0, 1]
    assert found.dice.loc["random"].tolist() == pytest.approx([0.55, 0.8, 0.3])
    assert found.dice.loc["grouped"].isna().all()


def test_the_conclusion_tells_the_twins_score_from_the_others(make_heldout):
    names = [f"t{n}" for n in range(20)] + [f"o{n}" for n in range(20)]
    found = pd.DataFrame({"split": "random", "fold": 0, "name": names, "twin": [True] * 20 + [False] * 20})
    found = pd.concat([found, found.assign(split="grouped", twin=False)])
    random = {name: (n, 0.8 if n < 20 else 0.5 + (n % 2) / 10) for n, name in enumerate(names)}
    grouped = {name: (n, 0.5) for n, name in enumerate(names)}
    runs = {"random": [make_heldout(random, split="random")], "grouped": [make_heldout(grouped)]}
    text = leakage.conclusion(found, runs)
    assert text.startswith("Under the random split 50% of the test images have a near-duplicate in training")
    assert "those score a Dice of 0.800 against 0.550 without, +0.250 (" in text
    assert "the random split as a whole against the grouped one: +0.175" in text
    assert text.count("more") == 2
    reverse = {name: (n, 1 - dice) for n, (name, (_, dice)) in enumerate(random.items())}
    less = leakage.conclusion(found, {"random": [make_heldout(reverse, split="random", seed=1)], "grouped": []})
    assert less.endswith("less.")


def test_without_a_run_the_conclusion_is_about_the_split_alone():
    text = leakage.conclusion(gathered(), {"random": [], "grouped": []})
    assert text == (
        "Under the random split 50% of the test images have a near-duplicate in training, under the grouped one 0%; "
        "the network under the random split has not been run yet."
    )
