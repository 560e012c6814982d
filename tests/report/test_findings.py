"""Sentences that follow the numbers."""

import re

import numpy as np
import pandas as pd
from small_study import numbers

from busi import config, runs
from busi.report import findings, tables
from busi.results import empty_results, join_results
from busi.scoring.predictors import MEAN_MASK, PERFECT

# The answer


def answer(
    verdicts=("upheld", "upheld"),
    dice=(0.5, 0.61),
    sizes=("64 pixels", "64 pixels"),
    seen=40,
    seconds=("", ""),
    runs=None,
    **rows,
):
    """Answer of nine rows, of which one is beyond blind predictors, of claims with verdicts, and of networks."""
    table = pd.DataFrame({"reached_by": ["none", *["two biases"] * 8], "published_loss": 0.3, "n_runs": 0})
    table["row"] = list("abcdefghi")
    # Two biases reach seven rows in AUC and loss, and one in AUC alone.
    table["fates"] = "1 plateau"
    told = {"verdict": tables.NOT_RUN, "lower_loss": [True, True, *[False] * 7], "auc_high": np.nan, "mask_auc": 0.9635}
    table = table.assign(**told | {"loss": np.nan} | rows)
    untrained = {"Darkest blob": 0.301, MEAN_MASK: 0.297, PERFECT: 0.96}
    scores = pd.DataFrame({"variant": [*"AB"[: len(dice)], *untrained], "dice": [*dice, *untrained.values()]})
    scores["n_runs"] = [*[5] * len(dice), 0, 0, 0]
    scores["n_images"] = [*[seen] * len(dice), 40, 40, 40]
    scores["size"] = "64px-8f-150e"
    # Of the second size, of which one fold has been trained.
    scores.loc[len(scores)] = ["A", 0.9, 1, 20, "128px-8f-150e"]
    # The first claim falls by proof.
    judged = pd.DataFrame({"verdict": verdicts, "size": sizes, "basis": ["proof", "scores"]})
    judged = judged.assign(claim=["1. A is best.", "2. B is best."], second_verdict=seconds, second_size="128 pixels")
    short = findings.answer_in_short(table, judged, 16)
    return short + findings.answer_in_detail(table, TWICE_RUNS if runs is None else runs, scores, 16)


def test_the_answer_counts_rows_claims_and_dice():
    rows, ours, claims, dice = answer()
    assert numbers(rows) == ["1", "9", "8", "1", "7"]
    assert "1 has a lower loss than all of these predictors (b), 7 are better neither in AUC nor in loss" in rows
    assert "No row has been trained" in ours
    assert numbers(claims) == ["2", "2", "1", "64"]
    assert "2 are upheld (1 of them by proof)" in claims
    assert numbers(dice) == ["0.500", "0.610", "64", "8", "0.297", "0.301"]
    assert "(Darkest blob)" in dice
    # Of images, networks of some folds have scored fewer than untrained predictors.
    assert "in the folds trained so far" in answer(seen=39)[3]
    assert "in the folds trained so far" not in dice


def test_the_answer_counts_the_rows_that_have_been_trained_by_their_verdicts():
    ours = answer(n_runs=3, verdict=tables.REPRODUCED, reached_by="none")[1]
    assert numbers(ours.partition(": a")[0]) == ["9", "9", "16", "3"]
    assert "reproduced** (16 filters, 3 runs each): a, b, c," in ours
    assert "blind" not in ours and "open" not in ours
    few = answer(n_runs=[1, 3, *[0] * 7], verdict=[tables.FEW_RUNS, tables.FATES_DIFFER, *[tables.NOT_RUN] * 7])[1]
    none = "**None of the 2 rows trained here are reproduced** (16 filters, 1 to 3 runs each). "
    assert few == f"{none}1 is open because of fewer than 3 runs. 1 is open because of runs with different fates."
    verdicts = [tables.REPRODUCED, tables.NOT_REPRODUCED, tables.FEW_RUNS, *[tables.NOT_RUN] * 6]
    assert (
        answer(n_runs=[2, 2, 1, *[0] * 6], verdict=verdicts)[1]
        .partition("Not reproduced")[2]
        .startswith(": b. 1 is open because of fewer")
    )
    one = answer(n_runs=[1, *[0] * 8], verdict=[tables.REPRODUCED, *[tables.NOT_RUN] * 8], reached_by="a constant")[1]
    assert one.startswith("**1 of the 1 rows trained here is reproduced**")
    assert one.endswith(": a; a blind predictor reaches a, too.")
    two = answer(n_runs=[1, 1, *[0] * 7], verdict=[tables.REPRODUCED] * 2 + [tables.NOT_RUN] * 7)[1]
    assert two.endswith(": a, b; a blind predictor reaches b, too.")
    assert (
        "Of the other 9, 9 are better neither in AUC nor in loss"
        in answer(n_runs=1, lower_loss=False, reached_by="a")[0]
    )
    assert answer(published_loss=float("nan"))[0] == tables.NO_PUBLISHED


def test_the_answer_counts_claims_by_their_verdicts_and_tells_their_size():
    _, _, claims, *dice = answer(["upheld", "undecided"], ())
    assert "1 is upheld (1 of them by proof), 1 is undecided" in claims
    assert dice == []
    sizes = ("64 pixels, 8 filters, 2 of 5 runs a variant", "64 pixels, 8 filters, 1 seed a fold")
    mixed = answer(sizes=sizes)[2]
    # What only one of the claims rests on is not told as the size of all.
    assert numbers(mixed) == ["2", "2", "1", "64", "8"]


def test_the_answer_tells_where_the_second_size_says_something_else():
    assert "At 128" not in answer()[2]
    assert answer(seconds=("upheld", "upheld"))[2].endswith("At 128 pixels, the verdicts are the same.")
    one = answer(seconds=("upheld", "undecided"))[2]
    assert one.endswith("At 128 pixels, the verdicts are the same, except on claim 2 (undecided).")
    both = answer(seconds=("not upheld", "undecided"))[2]
    assert both.endswith("except on claims 1 (not upheld) and 2 (undecided).")


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


TWICE_RUNS = pd.DataFrame(
    {
        "variant": ["Upsampling2D", "Upsampling2D", "KLD", "KLD", "BCE", "BCE"],
        "training_auc": [0.9625, 0.9650, 0.97, 0.99, 0.9800, 0.9881],
        "training_loss": [0.2100, 0.2237, 0.17, 0.18, 0.1168, 0.1300],
        "fate": ["falling", "falling", "learned", "learned", "learned", "learned"],
    }
)
"""Two runs of each of these rows and of KLD."""


def test_seeds_are_told_apart_where_one_configuration_was_published_twice():
    text = answer(**TWICE, n_runs=2)[3].replace("Upsampling2D", "Upsampling")
    # Our six pairs are 0.0025, 0.0175, 0.0256, 0.0150, 0.0231 and 0.0081 apart in AUC, 0.0153 on average; the two rows
    # above all blind predictors are 0.0122 apart.
    assert numbers(text) == ["0.9728", "0.9624", "4", "16", "75", "0.0153", "2", "0.0122"]
    assert "Upsampling and BCE" in text
    closer = answer(**TWICE, n_runs=2, runs=TWICE_RUNS.assign(training_auc=[0.98, 0.98, 0, 1, 0.98, 0.97]))[3]
    assert "runs here" in closer and "differ from each other by 0.0050 in AUC" in closer


def test_the_fates_of_a_configuration_published_twice_are_told_where_one_of_its_rows_is_called_reproduced():
    verdict = [tables.REPRODUCED, *[tables.NOT_REPRODUCED] * 8]
    told = "Judged as one row, it would be open: the fates of its runs are 2 learned, 2 falling."
    assert answer(**TWICE, n_runs=3, verdict=verdict)[3].endswith(told)
    assert "fates" not in answer(**TWICE, n_runs=3, verdict=verdict, runs=TWICE_RUNS.assign(fate="learned"))[3]
    assert "fates" not in answer(**TWICE, n_runs=3, verdict=tables.NOT_REPRODUCED)[3]


def test_the_gap_of_table_3_is_told_beside_that_of_one_configuration():
    beyond = TWICE | {"loss_low": [0.21, 0.11, 0.1168, *[0.3] * 6]}
    for rows, lowest, told in ((TWICE, "0.1700", "between them"), (beyond, "0.1100", "not between them")):
        text = answer(**rows, n_runs=2)[4].replace("Upsampling2D", "Upsampling")
        # Our six pairs are 0.0137, 0.0932, 0.0800, 0.1069, 0.0937 and 0.0132 apart.
        ours = ["16", "4", "0.1168", "0.2237", "4", "6"]
        assert numbers(text) == ["0.0780", "3", "0.0024", *ours, "2", lowest, "0.1800"]
        assert "KLD and BCE" in text and "Upsampling and BCE" in text
        assert re.search("(not )?between them", text)[0] == told


def test_rows_whose_runs_end_with_equal_numbers_are_named():
    rows = pd.DataFrame({"row": list("abcd"), "n_runs": [1, 1, 1, 0], "loss": [0.3, 0.3, 0.3, np.nan]})
    rows = rows.assign(accuracy=0.9, auc=[0.5, 0.6, 0.5, np.nan], fates=["1 dead", "1 dead", "1 dead", ""])
    dead = findings.describe_equal_rows(rows)
    assert "Our runs of a and c have the same" in dead and "(fates: 1 dead)" in dead
    assert "no longer depends on the image" in dead
    assert "order" not in findings.describe_equal_rows(rows.assign(fates=["1 dead", "1 dead", "1 plateau", ""]))
    assert findings.describe_equal_rows(rows.assign(auc=[0.5, 0.6, 0.7, np.nan])) == ""


def test_nothing_is_told_of_one_configuration_before_both_of_its_rows_have_been_trained():
    untrained = TWICE | {"loss": [0.22, 0.1755, np.nan, *[0.3] * 6]}
    assert len(answer(**untrained, n_runs=[1, 1, 0, *[1] * 6])) == 4
    assert len(answer(**TWICE | {"published_loss": np.nan}, n_runs=1)) == 3


def test_our_runs_that_do_not_repeat_a_row_s_lead_over_the_mean_mask_are_named():
    """The mean mask has 0.9635; a run that equals it in four digits is not above it."""
    told = answer(n_runs=1, reached_by=["none"] * 3 + ["two biases"] * 6, auc_high=[0.96354, 0.9617, 0.98, *[0.9] * 6])
    assert "our runs of a and b have no higher AUC" in told[1]
    assert "Unlike" not in answer(n_runs=1, auc_high=0.9636)[1]
    # Of two rows with one configuration, the run of the other one is above the mean mask.
    twins = TWICE | {"reached_by": ["none", "none", "the mean mask", *["two biases"] * 6], "auc_high": 0.96}
    assert "(BCE, the same configuration as Upsampling2D, has 0.9800 or more)" in answer(**twins, n_runs=1)[1]


# How far the study is


def test_progress_names_runs_that_stop_short(make_run):
    kld, dice = make_run("KLD", loss="kld", losses=(0.5, 0.4)), make_run("DICE", loss="dice", losses=(0.5,))
    results = join_results([make_run("BCE"), kld, dice])
    progress = findings.describe_progress(results.runs, 3)
    assert numbers(progress) == ["3", "2", "3", "0", "2", "0", "1"]
    assert re.findall(r"(\S+) seed 0 \((.*?)\)", progress) == [
        ("loss-kld", "as planned at 2"),
        ("loss-dice", "as planned at 1"),
    ]


def test_progress_tells_why_a_run_ended_before_its_plan(make_run):
    dead = make_run("KLD", losses=[0.3] * 13, end="constant", loss="kld", seed=2)
    progress = findings.describe_progress(dead.runs, 75)
    assert "1 short of the 75 epochs" in progress
    assert "loss-kld seed 2 (dead, stopped at 13)" in progress


def test_progress_when_all_runs_are_whole(make_run):
    results = join_results([make_run("BCE"), make_run("KLD", loss="kld")])
    progress = findings.describe_progress(results.runs, 3)
    assert numbers(progress) == ["2", "3"]
    assert "short" not in progress


def test_progress_of_no_run():
    progress = findings.describe_progress(empty_results().runs, 3)
    assert progress.startswith("No published row has been trained")


# Size and making of a study


def test_the_size_names_data_network_and_runs():
    parameters = config.Parameters(
        image_size=300, base_filters=16, precision="mixed_bfloat16", heldout={"image_size": 64, "base_filters": 8}
    )
    size = findings.describe_study(parameters, images(), "No run.")
    assert numbers(size["Images"]) == ["4", "3"]
    assert size["Data"] == "images (not the BUSI release)"
    published, heldout = (size[f"Our runs, {protocol} protocol"] for protocol in ("published", "held-out"))
    assert numbers(published)[:4] == ["300", "16", "256", "75"]
    assert "mixed_bfloat16" in published and "batches of one image" in published
    assert size["Trained"] == "No run."
    # Five levels of filters, each twice as many as the one before.
    assert numbers(heldout)[:5] == ["64", "8", "128", "75", "8"]
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
    assert made["Training time"] == "2.5 hours in 3 trainings"
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


def test_runs_that_only_predict_otherwise_share_one_training(make_run):
    hour = {"environment": {"seconds": 3600}}
    results = join_results(
        [make_run("A", **hour), make_run("B", flip_test=True, **hour), make_run("C", seed=1, **hour)]
    )
    assert findings.describe_making(results.runs)["Training time"] == "2.0 hours in 2 trainings"


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
    assert "7 of 20 at 64 pixels; 0 of 5 at 128 pixels" in partly
    assert "cannot be compared" in partly
    # Runs of an earlier plan may be there, too.
    whole = tell({"64 pixels": (21, 20), "128 pixels": (0, 5)})
    assert numbers(whole) == ["20", "20", "64", "0", "5", "128"]
    assert "cannot be compared" not in whole
    assert "none is planned" in tell({})


def test_the_caption_of_outlines_says_of_how_many_runs_they_are():
    """Later seeds may have been trained where the networks of the first are not."""
    assert "among those of 5 runs of each variant" in findings.describe_outlines(pd.DataFrame({"n_runs": [5, 5]}))
    assert "among those of 5 to 15 runs of each variant" in findings.describe_outlines(
        pd.DataFrame({"n_runs": [15, 5]})
    )


def test_power_is_that_of_the_median_pair():
    power = pd.DataFrame({"smallest": [0.01, 0.03, 0.05], "runs_needed": [20.0, 130.0, float("inf")]})
    power["size"] = "64px-8f-150e"
    text = findings.describe_power(power)
    assert numbers(text) == ["64", "8", "80", "0.030", "3", "0.01", "130", "1"]
    # Pairs of another size have another number of runs.
    both = findings.describe_power(pd.concat([power, power.assign(size="128px-8f-150e", smallest=0.2)]))
    assert both.startswith(text) and "At 128 pixels, 8 filters, a pair" in both and "0.200" in both
    assert "in 1 of them no number of runs is enough" in text
    # One run a fold shows how folds vary, but not seeds.
    once = findings.describe_power(power.assign(runs_needed=float("nan")))
    assert numbers(once) == ["64", "8", "80", "0.030", "3", "0.01"] and "not known with one seed a fold" in once
    assert "is not known." in findings.describe_power(power.assign(smallest=float("nan")))
    assert "more images or folds, whatever the number of seeds" in findings.describe_power(power[2:])
    # One pair has a single seed a fold.
    known = findings.describe_power(power.assign(runs_needed=[20.0, 130.0, np.nan]))
    assert "75 runs a variant (median of the 2 pairs" in known
    assert "is not known with one seed a fold" in findings.describe_power(power.assign(runs_needed=np.nan))


def test_near_duplicates_are_counted_by_pair_group_and_image():
    classes = ["benign", "benign", "normal", "benign", "malignant", "benign"]
    split = pd.DataFrame({"group": [0, 0, 1, 2, 2, 2], "image_class": classes})
    counts = pd.DataFrame({"distance": [0, 8, 9, 30], "pairs": [1, 2, 4, 8]})
    pairs = ["3", "15", "8", "64"]
    assert numbers(findings.describe_duplicates(split, counts, 8)) == [*pairs, "5", "6", "2", "3", "1"]
    # Without a group there is no largest one.
    alone = findings.describe_duplicates(split.assign(group=range(6)), counts, 8)
    assert numbers(alone) == [*pairs, "0", "6", "0", "0"]
