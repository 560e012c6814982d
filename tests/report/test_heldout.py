"""Held-out tables by hand: with folds missing, with several seeds, next to predictors that need no training."""

import numpy as np
import pandas as pd
import pytest

from busi.config import RunConfig
from busi.report import heldout
from busi.results import empty_results
from busi.scoring.predictors import BLOB, CONSTANT, EVERYTHING

COLUMNS = [
    "family",
    "variant",
    "dice",
    "dice_low",
    "dice_high",
    "iou",
    "hd95",
    "nsd",
    "precision",
    "recall",
    "auc",
    "accuracy",
    "ece",
    "normals_fpr",
    "n_images",
    "n_runs",
    "parameters",
    "seconds",
]

KLD = {"loss": "kld"}
DICE = {"loss": "dice"}


# The table


def test_the_columns_are_those_that_readers_rely_on(make_heldout, make_answers):
    table = make_answers(make_heldout("KLD", [0.5, 0.6])).table
    assert list(table.columns[: len(COLUMNS)]) == COLUMNS
    assert list(heldout.join_tables([table]).columns) == COLUMNS


def test_a_row_is_the_mean_over_the_images_of_its_folds(make_heldout, make_answers):
    answers = make_answers(
        make_heldout("KLD", [0.5, 0.7, 0.6], accuracy=0.8, normals=[0.0, 0.1], seconds=60),
        make_heldout("KLD", [1.0], fold=1, accuracy=1.0, normals=[0.3, 0.2], seconds=120),
    )
    row = answers.table.iloc[0]
    assert row.dice == pytest.approx(0.7)  # (0.5 + 0.7 + 0.6 + 1.0) / 4, and not the mean of 0.6 and 1.0
    assert 0.5 <= row.dice_low < 0.7 < row.dice_high <= 1.0
    assert row.accuracy == pytest.approx(0.85)  # lesion images: the normals' 1.0 is left out
    assert row.normals_fpr == pytest.approx(3 / 4)
    assert row.normals_area == pytest.approx(0.15)
    assert (row.iou, row.precision, row.recall, row.hd95, row.nsd) == pytest.approx((0.4, 0.5, 0.6, 7.0, 0.3))
    assert (row.n_images, row.n_runs, row.parameters, row.seconds) == (4, 2, 1000, 90)
    # A lesion pixel beats a background pixel in the 10 of 20 at 0.8, ties in the others: 0.5 + 0.5 / 2.
    assert row.auc == pytest.approx(0.75)
    assert row.ece == pytest.approx((40 * 0.05 + 10 * 0.2) / 50)


def test_a_variant_without_a_run_has_counts_of_zero_and_nothing_else(make_heldout, make_answers):
    planned = {"DICE": [], "KLD": []}
    table = make_answers(make_heldout("KLD", [0.5, 0.6], settings=KLD), planned=planned).table
    assert list(table.variant) == ["DICE", "KLD", CONSTANT, EVERYTHING, BLOB]
    dice = table.set_index("variant").loc["DICE"]
    assert (dice.n_images, dice.n_runs) == (0, 0)
    assert dice.drop(["family", "n_images", "n_runs"]).isna().all()


def test_untrained_predictors_follow_the_networks(make_heldout, make_answers):
    untrained = {BLOB: ([0.1, 0.2, 0.3, 0.4], {"accuracy": 0.8})}
    answers = make_answers(make_heldout("KLD", [0.5, 0.6]), untrained=untrained)
    assert list(answers.table.variant) == ["KLD", CONSTANT, EVERYTHING, BLOB]
    blob = answers.table.iloc[-1]
    assert (blob.dice, blob.accuracy) == pytest.approx((0.25, 0.8))
    assert (blob.n_images, blob.n_runs, blob.parameters) == (4, 0, 0)
    assert np.isnan(blob.seconds)
    assert set(answers.parts.variant[~answers.parts.trained]) == {CONSTANT, EVERYTHING, BLOB}
    assert answers.pairs.empty  # one network alone


def test_a_table_before_any_run_is_there(make_answers):
    answers = make_answers(planned={"KLD": [], "DICE": []})
    assert answers.table.n_images.tolist() == [0, 0, 4, 4, 4]
    assert heldout.join_pairs([answers.pairs]).columns.tolist() == heldout.PAIR_COLUMNS
    intervals = heldout.format_scores(answers.table)["95 % interval"]
    assert intervals.fillna("").tolist() == ["", "", *["0.000–0.000"] * 3]
    assert answers.reliability.empty
    assert answers.blind == {}
    assert heldout.format_pairs(answers.pairs).empty


def test_several_seeds_score_an_image_once_with_their_mean(make_heldout, make_answers):
    first = make_heldout("KLD", [0.2, 0.4], normals=[0.0])
    second = make_heldout("KLD", [0.6, 0.4], normals=[0.4], settings={"seed": 5})
    answers = make_answers(first, second)
    scored = answers.variants["KLD"]
    assert scored.images.dice.dropna().tolist() == pytest.approx([0.4, 0.4])
    assert scored.images.predicted_share.iloc[-1] == pytest.approx(0.2)
    assert scored.pixels.to_dict("list") == {"probability": [0.2, 0.8], "lesion": [20, 20], "background": [60, 0]}
    assert answers.table.n_images[0] == 2
    assert answers.table.n_runs[0] == 2


def test_tables_of_families_are_joined_with_whole_numbers_of_parameters(make_heldout, make_answers):
    loss = make_answers(make_heldout("KLD", [0.5, 0.6]), planned={"KLD": [], "DICE": []})
    data = make_answers(make_heldout("none", [0.5, 0.6]), family="data")
    joined = heldout.join_tables([loss.table, pd.DataFrame(data.table.to_dict("list"))])
    assert joined.family.tolist() == ["loss"] * 5 + ["data"] * 4
    assert joined.parameters.tolist() == [1000, pd.NA, 0, 0, 0, 1000, 0, 0, 0]


# Runs


def test_runs_that_mark_no_pixel_of_a_lesion_image_are_counted(make_heldout, make_answers):
    answers = make_answers(
        make_heldout("KLD", [0.5] * 4, settings=KLD),
        # One of two finds nothing: marks on normal images alone find nothing either.
        make_heldout("DICE", [0.4] * 4, settings=DICE),
        make_heldout("DICE", [0] * 4, fold=1, marked=0.0, normals=[0.2], settings=DICE),
        make_heldout("BCE", [0] * 4, marked=[0, 0, 0, 0.001]),
    )
    assert answers.blind == {"DICE": (1, 2)}


def test_a_run_of_two_families_counts_once(make_heldout, make_answers):
    baseline = RunConfig(protocol="heldout", image_size=32)
    others = [RunConfig(protocol="heldout", image_size=32, fold=fold, seed=fold) for fold in (1, 2)]
    loss = make_answers(make_heldout("BCE", [0.5] * 4), planned={"BCE": [baseline, *others]})
    data = make_answers(make_heldout("Std", [0.5] * 4), family="data", planned={"Std": [baseline]})
    assert heldout.count_runs([loss]) == (1, 3)
    assert heldout.count_runs([loss, data]) == (1, 3)
    assert heldout.count_runs([make_answers(planned={"BCE": [baseline]})]) == (0, 1)


def test_the_baseline_is_found_in_whichever_family_has_run_it(make_heldout, make_answers):
    loss = make_answers(make_heldout("KLD", [0.5] * 4, settings=KLD))
    data = make_answers(make_heldout("Std", [0.3] * 4), family="data")
    assert heldout.find_baseline([loss, data]).images.dice.tolist() == pytest.approx([0.3] * 4)
    assert heldout.find_baseline([loss, make_answers()]) is None
    assert empty_results().variants == []


# Pairs


def test_variants_are_compared_on_the_images_that_both_have_scored(make_heldout, make_answers):
    answers = make_answers(
        make_heldout("KLD", [0.5, 0.7, 0.9], settings=KLD),
        make_heldout("KLD", [0.0, 0.0, 0.0], fold=1, settings=KLD),
        make_heldout("DICE", [0.4, 0.7, 0.7], settings=DICE),
        planned={"KLD": [], "DICE": [], "BCE": []},
    )
    pair = answers.pairs.iloc[0]
    assert list(answers.pairs) == heldout.PAIR_COLUMNS
    assert (pair.family, pair.a, pair.b, pair.n_images) == ("loss", "KLD", "DICE", 3)
    assert pair.difference == pytest.approx(0.1)  # (0.1 + 0 + 0.2) / 3
    assert pair.wins == pytest.approx(2.5 / 3)  # two won, one drawn


def test_pairs_of_families_are_joined_and_keep_their_numbers(make_heldout, make_answers):
    two = make_answers(make_heldout("A", [0.5, 0.6]), make_heldout("B", [0.1, 0.3], settings=KLD))
    one = make_answers(make_heldout("A", [0.5, 0.6]), family="data")
    pairs = heldout.join_pairs([two.pairs, one.pairs])
    assert len(pairs) == 1
    assert pairs.p_holm.dtype == float


# Parts


def test_parts_are_the_classes_and_thirds_by_size(make_heldout, make_answers):
    # benign and malignant in turn, ever larger
    answers = make_answers(make_heldout("KLD", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]))
    parts = answers.parts[answers.parts.trained].set_index("part")
    assert parts.dice.to_dict() == pytest.approx(
        {"benign": 0.4, "malignant": 0.6, "small": 0.1, "medium": 0.5, "large": 0.9}
    )
    assert parts.n_images.to_dict() == {"benign": 3, "malignant": 3, "small": 2, "medium": 2, "large": 2}


def test_reliability_is_the_networks_alone(make_heldout, make_answers):
    curves = make_answers(make_heldout("KLD", [0.5] * 4), make_heldout("DICE", [0.5] * 4, settings=DICE)).reliability
    assert curves.variant.tolist() == ["KLD", "KLD", "DICE", "DICE"]
    assert curves.observed[:2].tolist() == pytest.approx([0.25, 1.0])


# Both answers


def test_both_answers_are_in_one_row_under_the_published_name(make_heldout, make_answers):
    published = pd.DataFrame(
        {
            "method": ["Upsampling2D", "Conv2DTranspose"],
            "published_accuracy": [0.9251, 0.9290],
            "accuracy": [0.91, 0.92],
            "floor_accuracy": 0.9083,
        }
    )
    run = make_heldout("Nearest, first step", [0.5, 0.7], accuracy=0.8)
    table = make_answers(run, planned={"Nearest, first step": [], "Conv2DTranspose": []}).table
    combined = heldout.combine_answers(published, table, {"Upsampling2D": "Nearest, first step"})
    first, second = combined.to_dict("records")
    assert first["method"] == "Upsampling2D"
    assert first["held-out variant"] == "Nearest, first step"
    assert (first["published accuracy"], first["rebuilt accuracy"]) == (0.9251, 0.91)
    assert (first["held-out Dice"], first["held-out accuracy"]) == pytest.approx((0.6, 0.8))
    assert second["held-out variant"] == "Conv2DTranspose"
    assert np.isnan(second["held-out Dice"])
    alone = heldout.combine_answers(published.iloc[1:].reset_index(drop=True), table, {})
    assert "held-out variant" not in alone


# For pages


def test_formatted_scores_and_pixels_have_the_columns_of_their_digits(make_heldout, make_answers):
    table = make_answers(make_heldout("KLD", [0.5, 0.7], normals=[0.1], seconds=90)).table
    scores, pixels = heldout.format_scores(table), heldout.format_pixels(table)
    assert set(heldout.DIGITS) <= set(scores)
    assert set(heldout.PIXEL_DIGITS) <= set(pixels)
    assert (scores["runs"][0], scores["images"][0], scores["HD95"][0]) == (1, 2, 7.0)
    assert (pixels["minutes a run"][0], pixels["normals with a finding"][0]) == (1.5, 1.0)


def test_pairs_are_formatted_with_signs_and_no_p_of_zero():
    pairs = pd.DataFrame(
        {
            "family": "loss",
            "a": ["KLD"] * 2,
            "b": ["DICE", "BCE"],
            "difference": [0.2, -0.01],
            "low": [0.1, -0.03],
            "high": [0.3, 0.012],
            "p": [1e-9, 0.2],
            "p_holm": [2e-9, 0.2],
            "wins": 0.5,
            "effect": 0.1,
            "n_images": 10,
        }
    )
    formatted = heldout.format_pairs(pairs)
    assert formatted["95 % interval"].tolist() == ["+0.100 to +0.300", "-0.030 to +0.012"]
    assert formatted["p after Holm"].tolist() == ["< 0.0001", "0.2000"]
