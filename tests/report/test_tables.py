"""Tables of the published protocol: ours next to the paper and the floor, the runs, the data."""

import pandas as pd
import pytest

from busi.report import tables
from busi.results import empty_results, join_results

FLOORS = {"accuracy": 0.908252, "auc": 0.906965, "dice_loss": 0.091565, "bce": 0.306562, "kld": 0.308998}

COLUMNS = [
    "method",
    "published_loss",
    "published_accuracy",
    "published_auc",
    "loss",
    "accuracy",
    "auc",
    "floor_loss",
    "floor_accuracy",
    "floor_auc",
    "predicts_lesion",
]


# Ours next to the paper and the floor


def test_table_has_the_columns_its_readers_rely_on():
    assert list(tables.compare_rows(3, empty_results(), FLOORS).columns) == COLUMNS


def test_table_shows_the_mean_of_a_variant_s_runs_with_the_paper_and_the_floor(make_run):
    results = join_results(
        [
            make_run("KLD", {"loss": 0.25, "accuracy": 0.90, "auc": 0.94}, {"lesion_share": 0.0}, loss="kld"),
            make_run("KLD", {"loss": 0.15, "accuracy": 0.94, "auc": 0.97}, {"lesion_share": 0.1}, loss="kld", seed=1),
            # While its weights moved it predicted lesions, its final weights do not.
            make_run("DICE", {"loss": 0.0916, "lesion_share": 0.2}, {"loss": 0.5, "lesion_share": 0.0}, loss="dice"),
        ]
    )
    table = tables.compare_rows(3, results, FLOORS).set_index("method")
    kld = table.loc["KLD"]
    assert (kld.loss, kld.accuracy, kld.auc) == pytest.approx((0.2, 0.92, 0.955), rel=1e-12)
    assert (kld.published_loss, kld.published_accuracy, kld.published_auc) == (0.1489, 0.9429, 0.9850)
    assert (kld.floor_loss, kld.floor_accuracy, kld.floor_auc) == (0.308998, 0.908252, 0.906965)
    assert kld.predicts_lesion  # one of its two runs does
    dice = table.loc["DICE"]
    assert (dice.loss, dice.floor_loss) == (0.0916, 0.091565)
    assert not dice.predicts_lesion


def test_a_row_without_a_run_keeps_its_published_numbers_and_says_nothing_else(make_run):
    for results, waiting in ((make_run("KLD", loss="kld"), ["DICE", "BCE"]), (empty_results(), ["KLD", "DICE", "BCE"])):
        table = tables.compare_rows(3, results, FLOORS).set_index("method")
        assert list(table.index) == ["KLD", "DICE", "BCE"]
        assert table.published_loss.tolist() == [0.1489, 0.0916, 0.2269]
        for method in waiting:
            assert table.loc[method, ["loss", "accuracy", "auc", "predicts_lesion"]].isna().all()


def test_the_distinct_rows_take_our_accuracy_from_their_own_table(make_run):
    accuracy = {1: ("Upsampling2D", 0.91), 3: ("BCE", 0.95)}
    families = {}
    for number in (1, 2, 3, 4):
        results = empty_results()
        if number in accuracy:
            method, value = accuracy[number]
            results = make_run(method, {"accuracy": value})
        families[number] = tables.compare_rows(number, results, FLOORS)
    rows = tables.collect_accuracy(families).set_index("row").ours
    assert len(rows) == 9
    assert rows.dropna().to_dict() == {"Upsampling2D": 0.91, "BCE": 0.95}


def test_every_run_is_listed_once_however_many_tables_it_belongs_to(make_run):
    adam = {"optimizer": "adam", "momentum": 0.0, "seed": 3}
    results = join_results(
        [
            make_run("Upsampling2D"),
            make_run("SGD + fixed LR"),
            make_run("Adam + fixed LR", {"loss": 0.31}, {"loss": 0.32}, **adam),
        ]
    )
    runs = tables.list_runs(results.runs)
    assert runs[["run", "seed", "epochs", "seconds"]].values.tolist() == [
        ["baseline", 0, 3, 90],
        ["optimizer-adam", 3, 3, 90],
    ]
    assert (runs.training_loss[1], runs.still_loss[1]) == (0.31, 0.32)
    readings = [f"{reading}_{metric}" for reading in ("training", "still") for metric in ("accuracy", "auc")]
    assert set(readings) <= set(runs)


# For pages


def test_the_formatted_table_says_whose_numbers_are_whose(make_run):
    results = make_run("DICE", {"loss": 0.1, "accuracy": 0.91, "auc": 0.92}, loss="dice")
    table = tables.compare_rows(3, results, FLOORS)
    assert tables.format_rows(table).iloc[1].to_dict() == {
        "method": "DICE",
        "published loss": 0.0916,
        "our loss": 0.1,
        "floor of loss": 0.091565,
        "published accuracy": 0.9083,
        "our accuracy": 0.91,
        "published AUC": 0.9070,
        "our AUC": 0.92,
        "predicts a lesion": True,
    }
    assert tables.floor_caption(table) == "Floor of accuracy 0.9083, of AUC 0.9070"


def test_a_formatted_run_is_timed_in_minutes(make_run):
    results = make_run("KLD", {"auc": 0.91}, {"auc": 0.92}, loss="kld", seed=1000)
    row = tables.format_runs(tables.list_runs(results.runs)).iloc[0]
    assert (row["run"], row["seed"], row["epochs"], row["minutes"]) == ("loss-kld", "1000", 3, 1.5)
    assert (row["AUC"], row["AUC, still"], row["predicted lesion, still"]) == (0.91, 0.92, 0.05)
    assert tables.format_runs(tables.list_runs(empty_results().runs)).empty


# The data


def test_classes_are_summarized_by_their_medians():
    images = pd.DataFrame(
        {
            "image_class": ["benign", "benign", "malignant", "normal"],
            "name": ["benign (1)", "benign (2)", "malignant (1)", "normal (1)"],
            "masks": [1, 3, 1, 1],
            "height": [400, 500, 600, 300],
            "width": [500, 601, 700, 300],
            "lesion_share": [0.02, 0.04, 0.21, 0.0],
        }
    )
    table = tables.summarize_classes(images)
    assert table.index.name == "class"
    assert table.loc["benign"].to_dict() == pytest.approx(
        {"images": 2, "several_masks": 1, "width": 550, "height": 450, "lesion_area": 0.03}
    )
    assert list(table.index) == ["benign", "malignant", "normal"]


def test_a_fold_counts_lesions_trained_on_and_all_images_tested():
    split = pd.DataFrame(
        {
            "image_class": ["benign", "benign", "malignant", "normal", "normal"],
            "fold0": ["training", "validation", "test", "training", "test"],
            "fold1": ["test", "training", "training", "test", "validation"],
        }
    )
    assert tables.count_folds(split).to_dict("records") == [
        {"fold": "0", "training": 1, "validation": 1, "test, benign": 0, "test, malignant": 1, "test, normal": 1},
        {"fold": "1", "training": 2, "validation": 0, "test, benign": 1, "test, malignant": 0, "test, normal": 1},
    ]


def test_groups_are_counted_by_size_and_classes():
    classes = ["benign", "benign", "malignant", "benign", "normal", "benign", "normal", "normal", "benign"]
    split = pd.DataFrame({"group": [0, 0, 1, 2, 2, 3, 4, 4, 1], "image_class": classes})
    split = pd.concat([split, pd.DataFrame({"group": [5] * 5, "image_class": "malignant"})])
    counts = tables.count_groups(split)
    assert list(counts) == [
        "images", "groups", "audit", "benign", "malignant", "normal", "benign + malignant", "benign + normal"
    ]  # fmt: skip
    assert counts.to_numpy().tolist() == [
        [5, 1, 0, 0, 1, 0, 0, 0],
        [4, 0, 5, 0, 0, 0, 0, 0],
        [3, 0, 22, 0, 0, 0, 0, 0],
        [2, 4, 122, 1, 0, 1, 1, 1],
    ]


def test_without_near_duplicates_no_group_is_counted():
    counts = tables.count_groups(pd.DataFrame({"group": [0, 1], "image_class": ["benign", "normal"]}))
    assert counts.to_numpy().tolist() == [[4, 0, 5], [3, 0, 22], [2, 0, 122]]
    assert counts.groups.dtype.kind == "i"
