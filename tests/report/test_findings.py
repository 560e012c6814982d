"""Sentences that follow the numbers."""

import numpy as np
import pandas as pd
from small_report import make_blind

from busi import config, runs
from busi.published import distinct_rows
from busi.report import findings, tables
from busi.results import empty_results, join_results

FLOORS = {"accuracy": 0.908252, "auc": 0.906965, "dice_loss": 0.091565, "bce": 0.306562, "kld": 0.308998}


def describe_loss_table(*parts, planned=3):
    return findings.describe_rows(tables.compare_rows(3, join_results(parts), make_blind()), planned)


# A table


def test_a_row_s_sentence_holds_its_numbers_and_those_of_the_paper_and_the_floor(make_run):
    numbers = {"loss": 0.12345, "accuracy": 0.91, "auc": 0.92}
    text = describe_loss_table(make_run("DICE", numbers, loss="dice", fate="falling"))
    assert (
        "**DICE** ends at loss 0.1235 (published 0.0916, floor 0.0916), accuracy 0.9100 (0.9083), AUC 0.9200 (0.9070); "
        "1 falling: not reproduced." in text
    )


def test_a_row_without_a_run_has_no_numbers(make_run):
    text = describe_loss_table(make_run("KLD", loss="kld"))
    assert text.endswith("**DICE** has not been run yet. **BCE** has not been run yet.")
    assert describe_loss_table().startswith("**KLD** has not been run yet.")


def test_a_run_that_stopped_early_is_said_to(make_run):
    whole = make_run("KLD", loss="kld")
    short = make_run("KLD", loss="kld", seed=1, losses=(0.5, 0.4))
    assert "**KLD** ends" in describe_loss_table(whole)
    assert "**KLD** (after 2 of 3 epochs) ends" in describe_loss_table(whole, short)
    assert "**KLD** (after 3 of 75 epochs) ends" in describe_loss_table(whole, planned=75)


# Predictors that never look


def place(reached_by):
    """Make the nine rows: ``reached_by`` by row, "none" otherwise."""
    rows = distinct_rows()[["row"]]
    return rows.assign(reached_by=[reached_by.get(row, "none") for row in rows.row])


def widen(*parts):
    """Make rows of widths, each of filters, row, verdict and number of runs."""
    table = pd.DataFrame(parts, columns=["filters", "row", "verdict", "n_runs"])
    return table.assign(precision=["float32" if filters == 64 else "mixed_bfloat16" for filters in table.filters])


NO_WIDTH = widen((16, "KLD", tables.NOT_RUN, 0))

BLIND = {
    "DICE": "a constant",
    "Adam + fixed LR": "two biases",
    "Resize+Norm+Std+Aug.": "two biases",
    "SGD + decaying LR": "the mean mask",
    "Adam + decaying LR": "the mean mask",
    "BCE": "the mean mask",
}


def test_the_rows_that_beat_every_blind_predictor_are_named_and_the_others_with_what_reaches_them():
    assert findings.describe_placement(place(BLIND), NO_WIDTH) == (
        "Of the 9 distinct published rows, beyond every predictor that never looks are Upsampling2D, Conv2DTranspose, "
        "KLD. The others are not: DICE: reached by a constant; Adam + fixed LR, Resize+Norm+Std+Aug: reached by two "
        "biases; SGD + decaying LR, Adam + decaying LR, BCE: an AUC not above that of the mean mask. None has been "
        "trained here yet."
    )


def test_reproduced_rows_are_counted_width_by_width_and_the_rest_is_named():
    widths = widen(
        (64, "Upsampling2D", tables.REPRODUCED, 1),
        (64, "KLD", tables.NOT_RUN, 0),
        (16, "Upsampling2D", tables.NOT_REPRODUCED, 3),
        (16, "DICE", tables.NOT_REPRODUCED, 1),
    )
    text = findings.describe_placement(place(BLIND), widths)
    assert text.endswith(
        " Trained here, every run in a mixed order of its own, are reproduced at 64 filters (float32, 1 run a row) 1 "
        "of 1 (Upsampling2D); at 16 filters (mixed_bfloat16, 1 to 3 runs a row) none of 2. Neither reproduced nor "
        "reached without looking: Conv2DTranspose, KLD."
    )
    everything = widen(*((64, row, tables.REPRODUCED, 2) for row in distinct_rows().row))
    text = findings.describe_placement(place(BLIND), everything)
    assert "(float32, 2 runs a row) 9 of 9 (Upsampling2D, " in text
    assert text.endswith("reached without looking: none.")


def test_the_floors_are_told_with_the_published_dice_row():
    assert findings.describe_floors(FLOORS) == (
        "The Dice loss of that predictor is 0.0916 and its AUC 0.9070; the published row DICE has 0.0916 and 0.9070. "
        "The lowest binary cross-entropy that a constant probability of lesion reaches is 0.3066."
    )
    assert "published" not in findings.describe_floors(FLOORS, comparable=False)


# How far the study is


def test_progress_names_runs_that_stop_short(make_run):
    kld, dice = make_run("KLD", loss="kld", losses=(0.5, 0.4)), make_run("DICE", loss="dice", losses=(0.5,))
    results = join_results([make_run("BCE"), kld, dice])
    assert findings.describe_progress(results.runs, 3) == (
        "3 runs have been trained under this profile; 2 of them stop short of the 3 epochs planned: loss-kld seed "
        "0 after 2; loss-dice seed 0 after 1."
    )


def test_progress_tells_why_a_run_ended_before_its_plan(make_run):
    dead = make_run("KLD", losses=[0.3] * 13, end="constant", loss="kld", seed=2)
    assert findings.describe_progress(dead.runs, 75).endswith(
        "1 of them stops short of the 75 epochs planned: loss-kld seed 2 (dead since epoch 4, stopped at 13)."
    )


def test_progress_when_all_runs_are_whole(make_run):
    results = join_results([make_run("BCE"), make_run("KLD", loss="kld")])
    expected = "2 runs have been trained under this profile, all of them for 3 epochs."
    assert findings.describe_progress(results.runs, 3) == expected


def test_progress_of_no_run():
    assert findings.describe_progress(empty_results().runs, 3) == "No run has been trained under this profile yet."


# Size and making of a study


def test_the_size_names_data_network_and_runs():
    parameters = config.Parameters(
        image_size=300, base_filters=16, precision="mixed_bfloat16", heldout={"image_size": 64, "base_filters": 8}
    )
    size = findings.describe_size(parameters, images(), "No run.")
    assert size["Images"] == "4, of which 3 with a lesion are trained on"
    assert size["Data"] == "images (not the BUSI release)"
    assert size["Input and output"] == "300² and 116² pixels"
    assert size["Network"] == "16 to 256 filters (published: 64 to 1024)"
    assert size["Epochs"] == "75 (published: 75), batches of one image"
    assert size["Arithmetic"] == "mixed_bfloat16"
    assert size["Runs"] == "No run."
    assert size["Held-out runs"].startswith("64² pixels, aspect ratio kept, 8 to 128 filters, at most 75 epochs in ")
    phantoms = parameters.model_copy(update={"data_dir": "phantom"})
    assert findings.describe_size(phantoms, images(), "")["Data"] == "phantom: synthetic images"


def test_only_the_release_is_named_busi():
    parameters = config.Parameters(data_dir="/data/STU-Hospital")
    assert findings.name_data(parameters, images()) == "STU-Hospital (not the BUSI release)"
    released = pd.DataFrame({"image_class": np.repeat(["benign", "malignant", "normal"], [437, 210, 133])})
    assert findings.name_data(parameters, released) == "BUSI"
    assert findings.name_data(parameters, released[1:]) == "STU-Hospital (not the BUSI release)"


def test_the_making_tells_days_hours_machines_and_software(make_run):
    results = join_results(
        [
            make_run("BCE", environment={"seconds": 1800}),
            make_run("KLD", loss="kld", environment={"finished": "2026-02-28", "seconds": 1800}),
            make_run("DICE", loss="dice", environment={"gpus": 1, "threads": 2, "seconds": 5400}),
        ]
    )
    made = findings.describe_making(results.runs)
    assert made["Trained"] == "2026-02-28 to 2026-03-04"
    assert made["Training time"] == "2.5 hours in 3 runs"
    assert set(made["Machine"].split("; ")) == {
        "AMD EPYC, 2 cores (1 used by a run), no GPUs",
        "AMD EPYC, 2 cores (2 used by a run), 1 GPU",
    }
    assert made["Software"] == "Python 3.11.7, Keras 3.15.1 on jax 0.8.0, NumPy 2.4.6"
    assert findings.describe_making(empty_results().runs) == {}


def test_the_making_counts_runs_of_training_code_that_has_changed_since(make_run):
    current, older = make_run("BCE"), make_run("KLD", loss="kld")
    current.runs["training_version"] = runs.TRAINING_VERSION
    older.runs["training_version"] = runs.TRAINING_VERSION - 1
    assert "Training code" not in findings.describe_making(current.runs)
    made = findings.describe_making(join_results([current, older]).runs)
    assert made["Training code"] == "1 of 2 runs by an earlier version, whose numbers differ"


def test_no_day_is_told_if_none_was_recorded(make_run):
    results = make_run("BCE", environment={"finished": None})
    assert "Trained" not in findings.describe_making(results.runs)


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
    text = findings.describe_dataset(images())
    assert text.startswith("4 images, 3 with a lesion. Half of the lesions cover less than 4.0% of their image")
    assert "right on 91.0% of the pixels" in text  # 1 - (0.02 + 0.04 + 0.21) / 3


def test_images_with_several_masks_are_counted():
    assert "2 images have more than one mask" in findings.describe_dataset(images(masks=[2, 3, 1, 1]))


def test_positions_are_told_of_lesions_alone():
    measured = pd.DataFrame(
        {
            "row": [0.3, 0.5, 0.8, np.nan],
            "column": [0.5, 0.74, 0.5, np.nan],
            "inside": [40, 120, 60, np.nan],
            "ring": [100, 110, 70, np.nan],
        }
    )
    text = findings.describe_positions(measured, pd.DataFrame([[0.1, 0.42], [0, 0.2]]))
    assert "The centre of 67% of the lesions lies in the middle quarter" in text
    assert "lesion in 42% of the lesion images" in text
    assert "1 of 3 lesions is brighter" in text


# Alternative texts


def test_loss_curve_is_told_by_its_ends(make_run):
    first = make_run("KLD", losses=(0.31, 0.2, 0.18765))
    second = make_run("KLD", seed=4, losses=(0.33, 0.3))
    epochs = join_results([first, second]).epochs
    assert findings.describe_loss_curve("KLD", epochs, 0.1489) == (
        "Training loss of KLD: seed 0 goes from 0.3100 to 0.1877 in 3 epochs; "
        "seed 4 goes from 0.3300 to 0.3000 in 2 epochs; published 0.1489 after 75."
    )
    assert findings.describe_loss_curve("KLD", epochs[:0], 0.1489) == (
        "Training loss of KLD: not run yet; published 0.1489 after 75."
    )
    assert findings.describe_loss_curve("KLD", epochs[:0], np.nan) == "Training loss of KLD: not run yet."


def test_network_is_told_map_by_map():
    blocks = [{"size": 296, "filters": 64}, {"size": 144, "filters": 128}]
    assert findings.describe_network(blocks) == "U-Net: 296 pixels with 64 filters, 144 pixels with 128 filters"


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


def test_held_out_progress_says_when_rows_cannot_be_compared():
    assert findings.describe_heldout_progress(0, 20) == "No held-out run has been trained yet; 20 are planned."
    partly = findings.describe_heldout_progress(7, 20)
    assert partly.startswith("7 of 20 held-out runs have been trained.")
    assert "cannot be compared" in partly
    assert findings.describe_heldout_progress(20, 20) == "All 20 held-out runs have been trained."


def test_a_held_out_row_s_sentence_holds_its_numbers_images_and_runs():
    first, waiting, blob = findings.describe_scores(scores()).split(" **")
    assert first == (
        "**KLD** has a mean Dice of 0.701 (95 % interval 0.680 to 0.720; 647 images, 5 runs) at a pixel accuracy of "
        "0.951."
    )
    assert waiting == "DICE** has not been run yet."
    assert "0.368 (95 % interval 0.330 to 0.410; 647 images, untrained)" in blob
    other = findings.describe_scores(scores(dice=[0.1, 0.2, 0.3], n_images=[1, 0, 647], n_runs=[1, 0, 0]))
    assert "0.100 (95 % interval 0.680 to 0.720; 1 image, 1 run)" in other


def test_pairs_are_counted_and_the_widest_is_named():
    pairs = pd.DataFrame(
        {
            **{"a": ["KLD", "KLD", "DICE"], "b": ["DICE", "BCE", "BCE"], "difference": [0.1, 0.01, -0.3]},
            **{"low": [0.05, -0.01, -0.4], "high": [0.15, 0.03, -0.2], "p_holm": [0.049, 0.05, 0.0001]},
            **{"n_images": [10, 20, 30], "kind": ["variants", "A/A", "variants"]},
        }
    )
    # A pair without its dead runs is the same pair again, and a constant is no variant.
    more = [pairs, pairs.assign(kind="alive"), pairs.assign(kind="untrained", difference=0.9)]
    assert findings.describe_pairs(pd.concat(more, ignore_index=True), 0.05) == (
        "2 of 3 pairs differ at p < 0.05 after Holm's correction. The widest difference is DICE − BCE: -0.300 Dice "
        "(95 % interval -0.400 to -0.200), on 30 images."
    )
    assert findings.describe_pairs(pairs.iloc[:1], 0.05).startswith("1 of 1 pair differs at")
    assert findings.describe_pairs(pairs.iloc[:0], 0.05) == "There are no two variants to compare yet."


def test_parts_and_calibration_are_told_variant_by_variant():
    parts = pd.DataFrame(
        {"variant": ["KLD", "KLD", "DICE"], "part": ["benign", "small", "benign"], "dice": [0.7, 0.5, 0]}
    )
    assert findings.describe_parts(parts) == (
        "Mean Dice by class and size of the lesion. KLD: benign 0.700, small 0.500; DICE: benign 0.000."
    )
    curves = pd.DataFrame({"variant": "KLD", "predicted": [0.02, 0.97], "observed": [0.01, 0.911]})
    assert findings.describe_reliability(curves).endswith(
        "KLD: of the pixels with a mean probability of 0.97, the highest bin, 91.1% are lesion."
    )
    assert findings.describe_reliability(curves[:0]).endswith("No network has run yet.")


def test_variants_with_such_runs_are_named():
    assert findings.name_runs({"DICE": (1, 2), "KLD": (3, 3)}, "Dead runs") == "Dead runs: DICE 1 of 2, KLD 3 of 3."
    assert findings.name_runs({}, "Dead runs") == ""


def test_the_share_of_normals_with_a_finding_is_that_of_networks():
    table = pd.DataFrame({"n_runs": [5, 5, 0, 0], "normals_fpr": [0.79, 0.96, 0.0, 1.0]})
    assert findings.describe_normals(table) == (
        "On images without a lesion, the networks mark one in 79% to 96% of their predictions."
    )
    assert findings.describe_normals(table[2:]) == ""


def test_power_is_that_of_the_median_pair():
    power = pd.DataFrame({"smallest": [0.01, 0.03, 0.05], "runs_needed": [20.0, 130.0, float("inf")]})
    assert findings.describe_power(power) == (
        "For the median of 3 pairs, this design tells a difference of 0.030 Dice or more in four of five cases; one of "
        "0.01 would need 130 runs a variant."
    )
    assert findings.describe_power(power[2:]).endswith("would need more images, whatever the number of runs.")


def test_near_duplicates_are_counted_by_pair_group_and_image():
    classes = ["benign", "benign", "normal", "benign", "malignant", "benign"]
    split = pd.DataFrame({"group": [0, 0, 1, 2, 2, 2], "image_class": classes})
    counts = pd.DataFrame({"distance": [0, 8, 9, 30], "pairs": [1, 2, 4, 8]})
    assert findings.describe_duplicates(split, counts, 8) == (
        "3 of 15 pairs of images differ in at most 8 bits of both hashes. With the crops that the match finds, 5 of 6 "
        "images are tied into 2 groups, the largest of 3; a group is never on both sides of a split. 1 group holds "
        "images of several classes."
    )
    alone = findings.describe_duplicates(split.assign(group=range(6)), counts, 8)
    assert "0 of 6 images are tied into 0 groups; a group" in alone and alone.endswith(
        "0 groups hold images of several classes."
    )


def test_our_groups_stand_beside_the_audits():
    groups = pd.DataFrame({"images": [4, 3, 2], "groups": [1, 0, 2], "audit": [5, 22, 122]})
    text = findings.compare_with_audit(groups)
    assert "names 330 images in 149 groups; here there are 8 images in 3." in text


# One of a kind


def test_one_is_spoken_of_as_one(make_run):
    short = make_run("KLD", loss="kld", losses=(0.5, 0.4))
    texts = [
        findings.describe_placement(place({}), widen((16, "KLD", tables.REPRODUCED, 1))),
        findings.describe_progress(short.runs, 3),
        findings.describe_progress(make_run("BCE").runs, 3),
        findings.describe_dataset(images()),
    ]
    plurals = ["1 of the 9 distinct published rows have", "of the 1 rows", "1 runs", "1 of them stop ", "1 images"]
    assert [(plural, text) for plural in plurals for text in texts if plural in text] == []
