"""The published numbers."""

import pandas as pd
import pytest

from busi import config, published
from busi.scoring.floors import lowest_loss

FLOORS = {"accuracy": 0.908252, "auc": 0.906965, "dice_loss": 0.091565, "bce": 0.306562, "kld": 0.308998}

# The paper's Tables 1 to 4, row by row: loss, accuracy, AUC.
PUBLISHED = {
    1: {"Upsampling2D": (0.1877, 0.9251, 0.9728), "Conv2DTranspose": (0.1758, 0.9290, 0.9761)},
    2: {
        "SGD + fixed LR": (0.1877, 0.9251, 0.9728),
        "Adam + fixed LR": (0.3068, 0.9083, 0.9052),
        "SGD + decaying LR": (0.2970, 0.9083, 0.9285),
        "Adam + decaying LR": (0.2973, 0.9082, 0.9278),
    },
    3: {"KLD": (0.1489, 0.9429, 0.9850), "DICE": (0.0916, 0.9083, 0.9070), "BCE": (0.2269, 0.9083, 0.9624)},
    4: {"No preprocess": (0.1877, 0.9251, 0.9728), "Resize+Norm+Std+Aug.": (0.3070, 0.9083, 0.9059)},
}


def test_published_numbers_are_those_of_the_paper():
    written = {}
    for number, content in published.published_tables().items():
        rows = content["rows"].items()
        written[number] = {method: (row["loss"], row["accuracy"], row["auc"]) for method, row in rows}
    assert written == PUBLISHED


def test_each_family_is_about_one_table_in_their_order():
    assert [published.table_number(family) for family in config.families()] == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_rows_are_the_variants_of_the_family_in_their_order(number):
    content = published.published_tables()[number]
    parameters = config.read_family(content["family"], config.read_profile("smoke"))
    assert list(content["rows"]) == list(parameters.variants)


def test_rows_that_share_a_run_have_the_same_numbers_and_no_others_do():
    runs, numbers = {}, {}
    for content in published.published_tables().values():
        configs = config.read_family(content["family"], config.read_profile("smoke")).configs("published")
        for method, row in content["rows"].items():
            runs.setdefault(configs[method][0], set()).add(tuple(row.values()))
            numbers.setdefault(tuple(row.values()), set()).add(configs[method][0])
    assert len(runs) == len(numbers) == 9
    assert all(len(each) == 1 for each in (*runs.values(), *numbers.values()))


def test_figures_2_to_10_show_each_distinct_row_once():
    figures = published.published_figures()
    assert figures == {
        2: ("upsampling", "Conv2DTranspose"),
        3: ("optimization", "Adam + fixed LR"),
        4: ("optimization", "SGD + fixed LR"),
        5: ("optimization", "Adam + decaying LR"),
        6: ("optimization", "SGD + decaying LR"),
        7: ("loss", "KLD"),
        8: ("loss", "DICE"),
        9: ("loss", "BCE"),
        10: ("data", "Resize+Norm+Std+Aug."),
    }
    shown = [tuple(published.published_row(*row).values()) for row in figures.values()]
    assert set(shown) == {numbers for rows in PUBLISHED.values() for numbers in rows.values()}


def test_the_published_network_has_the_sizes_of_unpadded_convolutions():
    # Two unpadded convolutions take four pixels, pooling halves, upsampling doubles: by hand from 300.
    network = published.published_network()
    assert [block["size"] for block in network["blocks"]] == [296, 144, 68, 30, 11, 18, 32, 60, 116]
    assert [block["filters"] for block in network["blocks"]] == [64, 128, 256, 512, 512, 256, 128, 64, 64]
    assert network["parameters"] == 22321090


def test_distinct_rows_are_nine_and_the_shared_run_goes_by_its_first_name():
    rows = published.distinct_rows()
    assert list(rows.row) == [
        "Upsampling2D",
        "Conv2DTranspose",
        "Adam + fixed LR",
        "SGD + decaying LR",
        "Adam + decaying LR",
        "KLD",
        "DICE",
        "BCE",
        "Resize+Norm+Std+Aug.",
    ]
    adam = rows[rows.row == "Adam + fixed LR"]
    assert adam.to_numpy().tolist() == [["Adam + fixed LR", "optimization", 0.3068, 0.9083, 0.9052]]


def test_six_of_the_nine_published_rows_stand_on_the_floor():
    rows = published.distinct_rows()
    standing = rows.row[published.on_floor(rows.accuracy, FLOORS["accuracy"])]
    adam = ["Adam + fixed LR", "SGD + decaying LR", "Adam + decaying LR"]
    assert list(standing) == [*adam, "DICE", "BCE", "Resize+Norm+Std+Aug."]


@pytest.mark.parametrize(
    ("accuracy", "on_floor"),
    [(0.90815, True), (0.90814, False), (0.9084, True), (0.90844, True), (0.90846, False), (0.9251, False)],
)
def test_on_the_floor_means_to_four_digits_or_one_of_them_off(accuracy, on_floor):
    assert published.on_floor(pd.Series([accuracy]), FLOORS["accuracy"]).tolist() == [on_floor]


@pytest.mark.parametrize(
    ("row", "loss", "floor"),
    [
        ("KLD", "kld", "kld"),
        ("DICE", "dice", "dice_loss"),
        ("BCE", "bce", "bce"),
        ("Adam + fixed LR", "bce", "bce"),
    ],
)
def test_each_loss_has_a_floor_of_its_own(row, loss, floor):
    assert published.row_loss(row) == loss
    assert lowest_loss(loss, FLOORS) == FLOORS[floor]
