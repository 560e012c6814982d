"""Sentences that follow the numbers."""

import pandas as pd
import pytest

from busi.report import findings, tables

FLOORS = {"accuracy": 0.908252, "auc": 0.906965, "dice_loss": 0.091565, "bce": 0.306562, "kld": 0.308998}


def of_loss_table(runs, planned=3):
    return findings.of_table(tables.table(3, runs, FLOORS), runs, planned)


def nine(ours=None):
    rows = tables.distinct_rows()
    return rows.assign(ours=[(ours or {}).get(row, float("nan")) for row in rows.row])


# A table


def test_a_row_s_sentence_holds_its_numbers_beside_the_paper_s_and_the_floor(make_run):
    text = of_loss_table({"DICE": [make_run({"loss": 0.12345, "accuracy": 0.91, "auc": 0.92}, loss="dice")]})
    assert (
        "**DICE** ends at loss 0.1235 (published 0.0916, floor 0.0916), accuracy 0.9100 (0.9083), AUC 0.9200 (0.9070) "
        "and predicts a lesion." in text
    )


def test_a_row_that_calls_every_pixel_background_is_said_to(make_run):
    finds = make_run(still={"lesion_share": 0.001}, loss="kld")
    never = make_run(still={"lesion_share": 0.0}, loss="dice")
    text = of_loss_table({"KLD": [finds], "DICE": [never]})
    kld, dice = text.partition("**BCE**")[0].split("**DICE**")
    assert "predicts a lesion" in kld and "never" not in kld
    assert "**never predicts** a lesion" in dice


def test_a_row_without_a_run_has_no_numbers(make_run):
    text = of_loss_table({"KLD": [make_run(loss="kld")], "DICE": []})
    assert text.endswith("**DICE** has not been run yet. **BCE** has not been run yet.")


def test_a_run_that_stopped_early_is_said_to(make_run):
    whole, short = make_run(loss="kld"), make_run(loss="kld", seed=1, losses=(0.5, 0.4))
    assert "**KLD** ends" in of_loss_table({"KLD": [whole]})
    assert "**KLD** (after 2 of 3 epochs) ends" in of_loss_table({"KLD": [whole, short]})
    assert "**KLD** (after 3 of 75 epochs) ends" in of_loss_table({"KLD": [whole]}, planned=75)


# The floor


def test_the_six_published_rows_on_the_floor_are_counted_and_named():
    text = findings.on_the_floor(nine(), FLOORS["accuracy"])
    assert text.startswith("6 of the 9 distinct published rows have")
    assert text.endswith(
        "(0.9083): Adam + fixed LR; SGD + decaying LR; Adam + decaying LR; DICE; BCE; Resize+Norm+Std+Aug."
    )


def test_another_floor_is_another_finding():
    text = findings.on_the_floor(nine(), 0.9429)
    assert "1 of the 9 distinct" in text
    assert text.endswith("(0.9429): KLD.")
    assert findings.on_the_floor(nine(), 0.5).endswith("(0.5000).")


def test_ours_on_the_floor_are_counted_among_those_run_so_far():
    ours = {"DICE": 0.90825, "BCE": 0.9083, "KLD": 0.9429, "Upsampling2D": 0.91}
    assert findings.on_the_floor(nine(ours), FLOORS["accuracy"]).endswith(" Rebuilt, 2 of the 4 rows run so far do.")


# How far the study is


def test_progress_counts_a_run_of_two_tables_once_and_names_those_that_stop_short(make_run):
    baseline, kld, dice = make_run(), make_run(loss="kld", losses=(0.5, 0.4)), make_run(loss="dice", losses=(0.5,))
    runs = findings.distinct({"loss": {"BCE": [baseline], "KLD": [kld], "DICE": [dice]}, "data": {"none": [baseline]}})
    assert findings.progress(runs, 3) == (
        "3 runs have been trained under this profile; 2 of them stop short of the 3 epochs planned: loss-kld seed "
        "0 after 2; loss-dice seed 0 after 1."
    )


def test_progress_where_all_are_whole(make_run):
    runs = [make_run(), make_run(loss="kld")]
    assert findings.progress(runs, 3) == "2 runs have been trained under this profile, all of them for 3 epochs."


def test_progress_of_none_does_not_boast():
    assert "all of them" not in findings.progress([], 3)


# The data


def images(**changes):
    table = {
        "image_class": ["benign", "benign", "malignant", "normal"],
        "name": ["benign (1)", "benign (2)", "malignant (1)", "normal (1)"],
        "masks": [1, 3, 1, 1],
        "height": [400, 500, 600, 300],
        "width": [500, 601, 700, 300],
        "lesion_share": [0.02, 0.04, 0.21, 0.0],
    }
    return pd.DataFrame(table | changes)


def test_lesions_alone_are_measured():
    text = findings.of_dataset(images())
    assert text.startswith("4 images, 3 with a lesion. Half of the lesions cover less than 4.0% of their image")
    assert "right on 91.0% of the pixels" in text  # 1 - (0.02 + 0.04 + 0.21) / 3


def test_images_with_several_masks_are_counted():
    assert "2 images have more than one mask" in findings.of_dataset(images(masks=[2, 3, 1, 1]))


def test_classes_are_summed_up_by_their_medians():
    table = findings.by_class(images())
    assert table.index.name == "class"
    assert table.loc["benign"].to_dict() == pytest.approx(
        {"images": 2, "several_masks": 1, "width": 550, "height": 450, "lesion_area": 0.03}
    )
    assert list(table.index) == ["benign", "malignant", "normal"]


# Alternative texts


def test_loss_curve_is_told_by_its_ends(make_run):
    runs = [make_run(losses=(0.31, 0.2, 0.18765)), make_run(seed=4, losses=(0.33, 0.3))]
    assert findings.loss_curve("KLD", runs, 0.1489) == (
        "Training loss of KLD: seed 0 goes from 0.3100 to 0.1877 in 3 epochs; "
        "seed 4 goes from 0.3300 to 0.3000 in 2 epochs; published 0.1489 after 75."
    )
    assert findings.loss_curve("KLD", [], 0.1489) == "Training loss of KLD: not run yet; published 0.1489 after 75."


def test_lesion_shares_are_those_of_the_last_epoch(make_run):
    text = findings.lesion_shares({"KLD": [make_run(loss="kld")], "DICE": [make_run(loss="dice", losses=(0.5, 0.4))]})
    assert text == "Pixels predicted lesion in the last epoch. KLD: 3.00%; DICE: 2.00%"


def test_network_is_told_map_by_map():
    blocks = [{"size": 296, "filters": 64}, {"size": 144, "filters": 128}]
    assert findings.of_network(blocks) == "U-Net: 296 pixels with 64 filters, 144 pixels with 128 filters"


def test_alternative_text_has_no_emphasis_marks():
    assert findings.plain("**DICE** ends and **never predicts** a lesion.") == "DICE ends and never predicts a lesion."


# Held out


def scores(**changes):
    table = {
        "variant": ["KLD", "DICE", "Darkest blob"],
        "dice": [0.7012, float("nan"), 0.3676],
        "dice_low": [0.68, float("nan"), 0.33],
        "dice_high": [0.72, float("nan"), 0.41],
        "accuracy": [0.951, float("nan"), 0.908],
        "n_images": [647, 0, 647],
        "n_runs": [5, 0, 0],
    }
    return pd.DataFrame(table | changes)


def test_held_out_progress_says_when_rows_do_not_compare():
    assert findings.heldout_progress(0, 20) == "No held-out run has been trained yet; 20 are planned."
    partly = findings.heldout_progress(7, 20)
    assert partly.startswith("7 of 20 held-out runs have been trained.")
    assert "do not compare" in partly
    assert findings.heldout_progress(20, 20) == "All 20 held-out runs have been trained."


def test_a_held_out_row_s_sentence_holds_its_numbers_images_and_runs():
    first, waiting, blob = findings.of_heldout(scores()).split(" **")
    assert first == (
        "**KLD** has a mean Dice of 0.701 (95 % interval 0.680 to 0.720; 647 images, 5 runs) at a pixel accuracy of "
        "0.951."
    )
    assert waiting == "DICE** has not been run yet."
    assert "0.368 (95 % interval 0.330 to 0.410; 647 images, untrained)" in blob
    other = findings.of_heldout(scores(dice=[0.1, 0.2, 0.3], n_images=[1, 0, 647], n_runs=[1, 0, 0]))
    assert "0.100 (95 % interval 0.680 to 0.720; 1 image, 1 run)" in other


def test_pairs_are_counted_and_the_widest_is_named():
    pairs = pd.DataFrame(
        {
            **{"a": ["KLD", "KLD", "DICE"], "b": ["DICE", "BCE", "BCE"], "difference": [0.1, 0.01, -0.3]},
            **{"low": [0.05, -0.01, -0.4], "high": [0.15, 0.03, -0.2], "p_holm": [0.049, 0.05, 0.0001]},
            "n_images": [10, 20, 30],
        }
    )
    assert findings.of_pairs(pairs, 0.05) == (
        "2 of 3 pairs differ at p < 0.05 after Holm's correction. The widest difference is DICE − BCE: -0.300 Dice "
        "(95 % interval -0.400 to -0.200), on 30 images."
    )
    assert findings.of_pairs(pairs.iloc[:1], 0.05).startswith("1 of 1 pair differs at")
    assert findings.of_pairs(pairs.iloc[:0], 0.05) == "There are no two variants to compare yet."


def test_parts_and_calibration_are_told_variant_by_variant():
    parts = pd.DataFrame(
        {"variant": ["KLD", "KLD", "DICE"], "part": ["benign", "small", "benign"], "dice": [0.7, 0.5, 0]}
    )
    assert findings.by_part(parts) == (
        "Mean Dice by class and size of the lesion. KLD: benign 0.700, small 0.500; DICE: benign 0.000."
    )
    curve = pd.DataFrame({"predicted": [0.02, 0.97], "observed": [0.01, 0.911]})
    assert "KLD: of the pixels with a mean probability of 0.97, the highest bin, 91.1% are lesion" in (
        findings.of_reliability({"KLD": curve})
    )


def test_near_duplicates_are_counted_by_pair_group_and_image():
    split = pd.DataFrame({"group": [0, 0, 1, 2, 2, 2]})
    counts = pd.DataFrame({"distance": [0, 8, 9, 30], "pairs": [1, 2, 4, 8]})
    assert findings.near_duplicates(split, counts, 8) == (
        "3 of 15 pairs of images differ in at most 8 bits of both hashes. They tie 5 of 6 images into 2 groups, the "
        "largest of 3; a group never stands on two sides of a split."
    )
    assert "They tie 0 of 6 images into 0 groups; a group" in findings.near_duplicates(
        split.assign(group=range(6)), counts, 8
    )


def test_a_fold_counts_lesions_trained_on_and_all_that_is_tested():
    split = pd.DataFrame(
        {
            "image_class": ["benign", "benign", "malignant", "normal", "normal"],
            "fold0": ["training", "validation", "test", "training", "test"],
            "fold1": ["test", "training", "training", "test", "validation"],
        }
    )
    assert findings.of_split(split).to_dict("records") == [
        {"fold": "0", "training": 1, "validation": 1, "test, benign": 0, "test, malignant": 1, "test, normal": 1},
        {"fold": "1", "training": 2, "validation": 0, "test, benign": 1, "test, malignant": 0, "test, normal": 1},
    ]


# One of a kind


def test_one_is_spoken_of_as_one(make_run):
    short = make_run(loss="kld", losses=(0.5, 0.4))
    texts = [
        findings.on_the_floor(nine({"DICE": 0.9083}), 0.9429),
        findings.progress([short], 3),
        findings.progress([make_run()], 3),
        findings.of_dataset(images()),
    ]
    plurals = ["1 of the 9 distinct published rows have", "of the 1 rows", "1 runs", "1 of them stop ", "1 images"]
    assert [(plural, text) for plural in plurals for text in texts if plural in text] == []
