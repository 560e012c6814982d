"""Held-out tables by hand: with folds missing, with several seeds, next to predictors that need no training."""

import numpy as np
import pandas as pd
import pytest

from busi import config
from busi.config import RunConfig
from busi.report import heldout
from busi.results import read_table
from busi.scoring.predictors import BLOB, CONSTANT, EVERYTHING, MEAN_MASK, PERFECT, PREDICTORS

UNTRAINED = [CONSTANT, EVERYTHING, BLOB, MEAN_MASK, PERFECT]

KLD = {"loss": "kld"}
DICE = {"loss": "dice"}


# The table


def test_a_row_is_the_mean_over_the_images_of_its_folds(make_heldout, make_answers):
    answers = make_answers(
        make_heldout("KLD", [0.5, 0.7, 0.6], accuracy=0.8, normals=[0.0, 0.1], seconds=60),
        make_heldout("KLD", [1.0], fold=1, accuracy=1.0, normals=[0.3, 0.2], seconds=120),
    )
    row = answers.table.iloc[0]
    assert row.dice == pytest.approx(0.7)  # (0.5 + 0.7 + 0.6 + 1.0) / 4, and not the mean of 0.6 and 1.0
    assert row.dice_low < 0.7 < row.dice_high
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
    assert list(table.variant) == ["DICE", "KLD", *UNTRAINED]
    dice = table.set_index("variant").loc["DICE"]
    assert (dice.n_images, dice.n_runs) == (0, 0)
    assert dice.drop(["family", "size", "n_images", "n_runs"]).isna().all()


def test_untrained_predictors_follow_the_networks(make_heldout, make_answers):
    untrained = {BLOB: ([0.1, 0.2, 0.3, 0.4], {"accuracy": 0.8})}
    answers = make_answers(make_heldout("KLD", [0.5, 0.6]), untrained=untrained)
    assert list(answers.table.variant) == ["KLD", *UNTRAINED]
    blob = answers.table.set_index("variant").loc[BLOB]
    assert (blob.dice, blob.accuracy) == pytest.approx((0.25, 0.8))
    assert (blob.n_images, blob.n_runs, blob.parameters) == (4, 0, 0)
    assert np.isnan(blob.seconds)
    # One network alone has nothing to be compared with but them, and the ceiling is no predictor.
    assert set(answers.pairs.kind) == {"untrained"}
    assert set(answers.pairs.a) | set(answers.pairs.b) == {"KLD", *PREDICTORS}


def test_a_table_before_any_run_is_there(make_answers):
    answers = make_answers(planned={"KLD": [], "DICE": []})
    assert answers.table.n_images.tolist() == [0, 0, *[4] * 5]
    assert set(answers.pairs.kind) == {"untrained"}
    assert answers.power.empty and answers.variance.empty
    intervals = heldout.add_cells(answers.table).interval
    assert intervals.fillna("").tolist() == ["", "", *["0.000 [0.000, 0.000]"] * 5]
    assert answers.dead == {}
    assert heldout.format_pairs(answers.pairs).empty


def test_several_seeds_score_an_image_once_with_their_mean(make_heldout, make_answers):
    first = make_heldout("KLD", [0.2, 0.4], normals=[0.0])
    second = make_heldout("KLD", [0.6, 0.4], normals=[0.4], settings={"seed": 5})
    row = make_answers(first, second).table.iloc[0]
    assert (row.dice, row.dice_median) == pytest.approx((0.4, 0.4))
    assert (row.normals_fpr, row.normals_area) == pytest.approx((0.5, 0.2))
    assert (row.n_images, row.n_runs, row.n_seeds, row.n_predictions) == (2, 2, 2, 4)


def test_tables_of_both_sizes_and_all_families_are_joined(make_heldout, make_answers, tmp_path, monkeypatch):
    parameters = config.read_profile("smoke")
    for folder in ("params", "notebooks"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(heldout, "families", lambda: ["loss", "data"])
    sizes = [
        make_answers(*(make_heldout(name, [0.5, 0.6], settings={"image_size": pixels}) for name in ("A", "B")))
        for pixels in (32, 64)
    ]
    heldout.write_tables(parameters, sizes)
    heldout.write_tables(parameters, [make_answers(planned={"C": []}, family="data")])
    for name in ("heldout", "pairwise", "variance", "power"):
        assert heldout.join_tables(parameters, name).columns.tolist() == read_table(parameters, name).columns.tolist()
    table = read_table(parameters, "heldout")
    assert table.columns.tolist() == heldout.COLUMNS
    assert table.variant[table.n_runs > 0].tolist() == ["A", "B", "A", "B"]
    assert table["size"][table.n_runs > 0].tolist() == ["32px-64f-75e"] * 2 + ["64px-64f-75e"] * 2
    pairs = read_table(parameters, "pairwise")
    assert (pairs.kind == "variants").sum() == 2
    assert read_table(parameters, "variance").variant.tolist() == ["A", "B", "A", "B"]
    power = read_table(parameters, "power")
    assert power[["a", "b"]].to_numpy().tolist() == [["A", "B"]] * 2
    # As text, because a missing count must not turn the others into decimals.
    assert ",1000," in (parameters.tables_path / "heldout.csv").read_text(encoding="utf-8")


def test_runs_that_reach_the_last_epoch_are_counted(make_heldout, make_answers):
    ended = make_heldout("KLD", [0.5, 0.6], settings={"epochs": 3})  # the fixture trains two epochs
    capped = make_heldout("KLD", [0.5, 0.6], fold=1, settings={"epochs": 2})
    answers = make_answers(ended, capped)
    assert answers.table.n_capped[0] == 1
    assert answers.capped == {"KLD": (1, 2)}


def test_empty_predictions_are_counted_beside_what_they_cost(make_heldout, make_answers):
    row = make_answers(make_heldout("KLD", [0.5, 0.0, 0.0, 0.5], marked=[0.1, 0.0, 0.0, 0.1])).table.iloc[0]
    assert (row.n_empty, row.n_predictions, row.n_dead) == (2, 4, 0)


# Runs


def test_runs_that_say_the_same_of_every_pixel_are_dead(make_heldout, make_answers):
    answers = make_answers(
        make_heldout("KLD", [0.5] * 4, settings=KLD),
        # One of two finds nothing: marks on normal images alone find nothing either.
        make_heldout("DICE", [0.4] * 4, settings=DICE),
        make_heldout("DICE", [0] * 4, fold=1, marked=0.0, normals=[0.2], settings=DICE),
        make_heldout("BCE", [0] * 4, marked=[0, 0, 0, 0.001]),
        # The same, by a network that has found nothing on its validation images either.
        make_heldout("BCE", [0] * 4, fold=1, marked=[0, 0, 0, 0.001], validation_dice=0.009),
        make_heldout("all", [0.1] * 4, marked=1.0, settings={"loss": "lesion-dice"}),
    )
    assert answers.dead == {"DICE": (1, 2), "BCE": (1, 2), "all": (1, 1)}


def test_a_pair_is_compared_once_more_without_dead_runs(make_heldout, make_answers):
    """Fold 1 of DICE is dead: 0.3 better over all eight images, 0.1 over the four of living runs."""
    answers = make_answers(
        make_heldout("KLD", [0.5] * 4, settings=KLD),
        make_heldout("KLD", [0.5] * 4, fold=1, settings=KLD),
        make_heldout("DICE", [0.4] * 4, settings=DICE),
        make_heldout("DICE", [0.0] * 4, fold=1, marked=0.0, settings=DICE),
    )
    pairs = answers.pairs[answers.pairs.a.eq("KLD") & answers.pairs.b.eq("DICE")].set_index("kind")
    assert pairs.difference.to_dict() == pytest.approx({"variants": 0.3, "alive": 0.1})
    assert pairs.n_images.to_dict() == {"variants": 8, "alive": 4}


def test_kld_and_bce_are_the_study_s_own_a_a_test(make_heldout, make_answers):
    parts = [
        ("KLD", KLD),
        ("BCE", {}),
        ("none", {"preprocessing": "none"}),
        ("KLD none", KLD | {"preprocessing": "none"}),
    ]
    answers = make_answers(*(make_heldout(label, [0.5, 0.6], settings=settings) for label, settings in parts))
    same = answers.pairs[answers.pairs.kind == "A/A"]
    assert same[["a", "b"]].to_numpy().tolist() == [["KLD", "BCE"], ["none", "KLD none"]]


def test_a_run_of_two_families_counts_once(make_heldout, make_answers):
    baseline = RunConfig(protocol="heldout", image_size=32)
    others = [RunConfig(protocol="heldout", image_size=32, fold=fold, seed=fold) for fold in (1, 2)]
    loss = make_answers(make_heldout("BCE", [0.5] * 4), planned={"BCE": [baseline, *others]})
    data = make_answers(make_heldout("Std", [0.5] * 4), family="data", planned={"Std": [baseline]})
    assert heldout.count_runs([loss]) == (1, 3)
    assert heldout.count_runs([loss, data]) == (1, 3)
    assert heldout.count_runs([make_answers(planned={"BCE": [baseline]})]) == (0, 1)


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


# For pages


def test_tables_on_pages_show_intervals_minutes_and_shares(make_heldout, make_answers):
    table = make_answers(make_heldout("KLD", [0.5, 0.5, 0.0, 0.5], marked=[0.1, 0.1, 0.0, 0.1], seconds=90)).table
    cells = heldout.add_cells(table).iloc[0]
    assert cells.interval.startswith("0.375 [0.")
    assert (cells.minutes, cells["empty"]) == (1.5, 0.25)


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
            "n_runs": 25,
            "p_t": [0.01, np.nan],
            "p_t_holm": [0.02, np.nan],
            "kind": "variants",
            "size": ["64px-8f-150e", "128px-8f-150e"],
        }
    )
    formatted = heldout.format_pairs(pairs)
    assert formatted.interval.tolist() == ["+0.200 [+0.100, +0.300]", "-0.010 [-0.030, +0.012]"]
    assert formatted.p_shown.tolist() == ["< 0.001", "0.2000"]
    assert formatted.t_shown.tolist() == ["0.0200", ""]
    assert formatted["at"].tolist() == ["64 pixels, 8 filters", "128 pixels, 8 filters"]
