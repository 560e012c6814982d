"""Sentences that follow the numbers."""

import numpy as np
import pandas as pd

from busi import config, runs
from busi.report import findings, tables
from busi.results import empty_results, join_results
from busi.scoring.predictors import MEAN_MASK, PERFECT

# The answer


def answer(verdicts=("upheld", "upheld"), dice=(0.5, 0.61), sizes=("64 pixels", "64 pixels"), seen=40, **rows):
    """Answer of nine rows, of which one is beyond blind predictors, of claims with verdicts, and of networks."""
    table = pd.DataFrame({"reached_by": ["none", *["two biases"] * 8], "published_loss": 0.3, "n_runs": 0})
    table["row"] = list("abcdefghi")
    # Two biases reach seven rows in AUC and loss, and one in AUC alone.
    told = {"verdict": tables.NOT_RUN, "lower_loss": [True, True, *[False] * 7], "auc_high": np.nan, "mask_auc": 0.9635}
    table = table.assign(**told | {"loss": np.nan} | rows)
    untrained = {"Darkest blob": 0.301, MEAN_MASK: 0.297, PERFECT: 0.96}
    scores = pd.DataFrame({"variant": [*"AB"[: len(dice)], *untrained], "dice": [*dice, *untrained.values()]})
    scores["n_runs"] = [*[5] * len(dice), 0, 0, 0]
    scores["n_images"] = [*[seen] * len(dice), 40, 40, 40]
    # The first claim falls by proof.
    judged = pd.DataFrame({"verdict": verdicts, "size": sizes, "basis": ["proof", "scores"]})
    return findings.answer_in_short(table, judged, scores, 16)


def test_the_answer_counts_rows_claims_and_dice():
    assert answer() == [
        "**1 of 9 published rows** has a higher AUC than every blind predictor tried here, none of which looks at the "
        "image. 7 are better in neither AUC nor loss, 1 in loss alone (b). None has been trained here yet.",
        "**Of 2 claims**, 2 are upheld (1 of them by proof). Scores are of images that the scored network was not "
        "trained on (64 pixels).",
        "**Dice on those images** is 0.500 to 0.610 for the variants of the four families; without training, 0.297 for "
        "the mean of the training masks and at most 0.301 (Darkest blob).",
    ]
    rows, claims, *dice = answer(["upheld", "undecided"], (), n_runs=3, verdict=tables.REPRODUCED, reached_by="none")
    counted = (
        "**9 of 9 published rows** have a higher AUC than every blind predictor tried here, none of which looks at"
    )
    assert rows == f"{counted} the image. All 9 have been trained here (16 filters, 3 runs each): 9 are reproduced."
    few = answer(n_runs=[1, 3, *[0] * 7], verdict=[tables.ONE_RUN, tables.FATES_DIFFER, *[tables.NOT_RUN] * 7])[0]
    assert few.endswith(". 2 have been trained here (16 filters, 1 to 3 runs each): none are reproduced, 2 are open.")
    constant = answer(n_runs=[1, *[0] * 8], verdict=[tables.REPRODUCED, *[tables.NOT_RUN] * 8], reached_by="a constant")
    assert constant[0].endswith(
        "1 has been trained here (16 filters, 1 run each): 1 is reproduced (reached by such a predictor, too)."
    )
    told = {"n_runs": [1, 1, *[0] * 7], "verdict": [tables.REPRODUCED] * 2 + [tables.NOT_RUN] * 7}
    assert answer(**told)[0].endswith("2 are reproduced (1 of them reached by such a predictor, too).")
    assert ". 9 are better in neither AUC nor loss. All 9 have" in answer(n_runs=1, lower_loss=False, reached_by="a")[0]
    assert claims.startswith("**Of 2 claims**, 1 is upheld (1 of them by proof), 1 is undecided. Scores")
    assert dice == []
    sizes = ("64 pixels, 8 filters, 2 of 5 runs a variant", "64 pixels, 8 filters, 1 seed a fold")
    assert answer(sizes=sizes)[1].endswith(" (64 pixels, 8 filters; each claim says from how many runs).")
    assert (
        "for the variants of the four families, in the folds trained so far; without training, 0.297"
        in answer(seen=39)[2]
    )
    assert answer(published_loss=float("nan"))[0] == tables.NO_PUBLISHED


TWICE = {
    "row": ["Upsampling2D", "KLD", "BCE", "DICE", *"efghi"],
    "reached_by": ["none", "none", "the mean mask", *["two biases"] * 6],
    "published_auc": [0.9728, 0.9850, 0.9624, *[0.9] * 6],
    "auc_low": [0.9625, 0.97, 0.98, *[0.5] * 6],
    "auc_high": [0.9650, 0.99, 0.9881, *[1.0] * 6],
    "epochs": 75,
    "published_loss": [0.1877, 0.1489, 0.2269, *[0.3] * 6],
    "floor_loss": [0.3066, 0.3090, 0.3066, *[0.3066] * 6],
    "loss": [0.22, 0.1755, 0.12, *[0.3] * 6],
    "loss_low": [0.21, 0.17, 0.1168, *[0.3] * 6],
    "loss_high": [0.2237, 0.18, 0.13, *[0.3] * 6],
}
"""Rows of which two were published with one configuration."""


def test_seeds_are_told_apart_where_one_configuration_was_published_twice():
    assert answer(**TWICE, n_runs=2)[1] == (
        "**One configuration is published twice**, as far as the public code shows: as Upsampling2D and BCE, with AUC "
        "0.9728 and 0.9624. Its 4 runs here (other weights and another order of the images; 16 filters, cut at epoch "
        "75) are 0.0256 apart, from 0.9625 to 0.9881; the 2 rows above all blind predictors are 0.0122 apart."
    )


def test_the_gap_of_table_3_is_told_beside_that_of_one_configuration():
    text = (
        "**KLD and BCE are 0.0780 apart in Table 3**, in losses whose floors differ by 0.0024. Here, at 16 filters, "
        "the 4 runs of one configuration, Upsampling2D and BCE, end 0.1069 apart, at 0.1168 to 0.2237, and KLD (2 "
        "runs) ends between them, at 0.1755."
    )
    assert answer(**TWICE, n_runs=2)[2] == text
    beyond = TWICE | {"loss_low": [0.21, 0.11, 0.1168, *[0.3] * 6]}
    assert answer(**beyond, n_runs=2)[2] == text.replace("ends between", "ends not between")


def test_nothing_is_told_of_one_configuration_before_both_of_its_rows_have_been_trained():
    untrained = TWICE | {"loss": [0.22, 0.1755, np.nan, *[0.3] * 6]}
    assert len(answer(**untrained, n_runs=[1, 1, 0, *[1] * 6])) == 3
    assert len(answer(**TWICE | {"published_loss": np.nan}, n_runs=1)) == 3


def test_our_runs_that_do_not_repeat_a_row_s_lead_over_the_mean_mask_are_named():
    """The mean mask has 0.9635; a run that equals it in four digits is not above it."""
    told = answer(n_runs=1, reached_by=["none"] * 3 + ["two biases"] * 6, auc_high=[0.96354, 0.9617, 0.98, *[0.9] * 6])
    assert told[0].endswith(" Unlike the published rows, our runs of a and b have no higher AUC than the mean mask.")
    assert "Unlike" not in answer(n_runs=1, auc_high=0.9636)[0]
    # Of two rows with one configuration, the run of the other one is above the mean mask.
    twins = TWICE | {"reached_by": ["none", "none", "the mean mask", *["two biases"] * 6], "auc_high": 0.96}
    assert answer(**twins, n_runs=1)[0].endswith(
        " have no higher AUC than the mean mask (BCE, the same configuration as Upsampling2D, has 0.9800 or more)."
    )


# How far the study is


def test_progress_names_runs_that_stop_short(make_run):
    kld, dice = make_run("KLD", loss="kld", losses=(0.5, 0.4)), make_run("DICE", loss="dice", losses=(0.5,))
    results = join_results([make_run("BCE"), kld, dice])
    assert findings.describe_progress(results.runs, 3) == (
        "3 runs of published rows have been trained; 2 short of the 3 epochs planned: loss-kld seed 0 (as planned at "
        "2); loss-dice seed 0 (as planned at 1)."
    )


def test_progress_tells_why_a_run_ended_before_its_plan(make_run):
    dead = make_run("KLD", losses=[0.3] * 13, end="constant", loss="kld", seed=2)
    assert findings.describe_progress(dead.runs, 75).endswith(
        "; 1 short of the 75 epochs planned: loss-kld seed 2 (dead, stopped at 13)."
    )


def test_progress_when_all_runs_are_whole(make_run):
    results = join_results([make_run("BCE"), make_run("KLD", loss="kld")])
    expected = "2 runs of published rows have been trained, for 3 epochs."
    assert findings.describe_progress(results.runs, 3) == expected


def test_progress_of_no_run():
    progress = findings.describe_progress(empty_results().runs, 3)
    assert progress == "No published row has been trained under this profile yet."


# Size and making of a study


def test_the_size_names_data_network_and_runs():
    parameters = config.Parameters(
        image_size=300, base_filters=16, precision="mixed_bfloat16", heldout={"image_size": 64, "base_filters": 8}
    )
    size = findings.describe_study(parameters, images(), "No run.")
    assert size["Images"] == "4, 3 of them with a lesion; the four families are trained on these alone"
    assert size["Data"] == "images (not the BUSI release)"
    assert (
        size["Our runs, published protocol"]
        == "300² pixels, 16 to 256 filters, 75 epochs in mixed_bfloat16, batches of one image"
    )
    assert size["Trained"] == "No run."
    assert size["Our runs, held-out protocol"].startswith(
        "64² pixels, 8 to 128 filters, 75 epochs at most, batches of 8, "
    )
    phantoms = parameters.model_copy(update={"data_dir": "phantom"})
    assert findings.describe_study(phantoms, images(), "")["Data"] == "phantom: synthetic images"


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
            make_run("DICE", loss="dice", environment={"gpus": 1, "threads": 2.0, "cores": 2.0, "seconds": 5400}),
        ]
    )
    made = findings.describe_making(results.runs)
    assert made["Trained"] == "2026-02-28 to 2026-03-04"
    assert made["Training time"] == "2.5 hours in 3 runs of rows and variants"
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
    assert "right on 91.0% of an average image, at its original size" in text  # 1 - (0.02 + 0.04 + 0.21) / 3


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


# Held out


def test_held_out_progress_says_when_rows_cannot_be_compared():
    tell = findings.describe_heldout_progress
    partly = tell({"64 pixels": (7, 20), "128 pixels": (0, 5)})
    assert partly.startswith("Held-out runs that have been trained: 7 of 20 at 64 pixels; 0 of 5 at 128 pixels. Rows")
    assert "cannot be compared" in partly
    # Runs of an earlier plan may be there, too.
    whole = tell({"64 pixels": (21, 20), "128 pixels": (0, 5)})
    assert whole == "Held-out runs that have been trained: 20 of 20 at 64 pixels; 0 of 5 at 128 pixels."
    assert tell({}) == "Held-out runs that have been trained: none, because none is planned."


def test_the_caption_of_outlines_says_of_how_many_runs_they_are():
    """Later seeds may have been trained where the networks of the first are not."""
    assert "among those of 5 runs of each variant" in findings.describe_outlines(pd.DataFrame({"n_runs": [5, 5]}))
    assert "among those of 5 to 15 runs of each variant" in findings.describe_outlines(
        pd.DataFrame({"n_runs": [15, 5]})
    )


def test_power_is_that_of_the_median_pair():
    power = pd.DataFrame({"smallest": [0.01, 0.03, 0.05], "runs_needed": [20.0, 130.0, float("inf")]})
    assert findings.describe_power(power) == (
        "With these runs, a difference of 0.030 Dice or less can be told from zero in half of 3 pairs (80% power, "
        "before Holm's correction). A difference of 0.01 would need 130 runs a variant (median of the pairs; in 1 of "
        "them no number of runs is enough). These numbers take the variance between folds as so few folds estimate it, "
        "which is uncertain."
    )
    endless = findings.describe_power(power[2:])
    assert "would need more images or folds, whatever the number of seeds (median of the pairs)." in endless
    # One pair has a single seed a fold.
    known = findings.describe_power(power.assign(runs_needed=[20.0, 130.0, np.nan]))
    assert "would need 75 runs a variant (median of the 2 pairs with several seeds a fold)." in known
    one_seed = findings.describe_power(power.assign(runs_needed=np.nan))
    assert one_seed.endswith("How many runs a difference of 0.01 would need is not known with one seed a fold.")


def test_near_duplicates_are_counted_by_pair_group_and_image():
    classes = ["benign", "benign", "normal", "benign", "malignant", "benign"]
    split = pd.DataFrame({"group": [0, 0, 1, 2, 2, 2], "image_class": classes})
    counts = pd.DataFrame({"distance": [0, 8, 9, 30], "pairs": [1, 2, 4, 8]})
    assert findings.describe_duplicates(split, counts, 8) == (
        "3 of 15 pairs of images differ in at most 8 bits in each of two hashes of 64 bits. With the crops that the "
        "match finds and pairs found by eye, 5 of 6 images are tied into 2 groups, the largest of 3. The grouped split "
        "never has a group on both sides. 1 group holds images of several classes."
    )
    alone = findings.describe_duplicates(split.assign(group=range(6)), counts, 8)
    assert "0 of 6 images are tied into 0 groups. The grouped" in alone and alone.endswith(
        "0 groups hold images of several classes."
    )


# One of a kind


def test_one_is_spoken_of_as_one(make_run):
    short = make_run("KLD", loss="kld", losses=(0.5, 0.4))
    texts = [
        findings.describe_progress(short.runs, 3),
        findings.describe_progress(make_run("BCE").runs, 3),
        findings.describe_dataset(images()),
    ]
    plurals = ["1 runs", "1 images"]
    assert [(plural, text) for plural in plurals for text in texts if plural in text] == []
