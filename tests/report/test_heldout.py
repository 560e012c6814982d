"""Held-out tables: by hand, with folds missing, and untrained predictors gathered and read."""

import numpy as np
import pandas as pd
import pytest

from busi import config
from busi.config import RunConfig, Study
from busi.dataset import catalog, phantom
from busi.report import heldout
from busi.report.heldout import BLOB, CONSTANT, EVERYTHING, Answers


def answers(runs, trivial=None, planned=()):
    return Answers("loss", runs, trivial or {}, frozenset(planned))


@pytest.fixture
def study(tmp_path, phantom_dir, monkeypatch):
    """A study of twelve phantom images whose report is written elsewhere."""
    for module in (config, catalog):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return Study(data_dir=str(phantom_dir), runs_dir=str(tmp_path / "runs"))


pytestmark = pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")


# The table


def test_the_columns_are_those_that_readers_rely_on(make_heldout):
    found = heldout.every_table({"loss": answers({"KLD": [make_heldout([0.5, 0.6])]})})
    assert list(found.columns) == [
        *("family", "variant", "dice", "dice_low", "dice_high", "iou", "hd95", "nsd", "precision", "recall", "auc"),
        *("accuracy", "ece", "normals_fpr", "n_images", "n_runs", "parameters", "seconds"),
    ]


def test_a_row_is_the_mean_over_the_images_of_its_folds(make_heldout):
    runs = [
        make_heldout([0.5, 0.7, 0.6], accuracy=0.8, normals=[0.0, 0.1], seconds=60),
        make_heldout([1.0], fold=1, accuracy=1.0, normals=[0.3, 0.2], seconds=120),
    ]
    row = answers({"KLD": runs}).table.iloc[0]
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


def test_a_variant_without_a_run_has_counts_of_zero_and_nothing_else(make_heldout):
    table = answers({"KLD": [make_heldout([0.5, 0.6])], "DICE": []}).table.set_index("variant")
    waiting = table.loc["DICE"]
    assert (waiting.n_images, waiting.n_runs) == (0, 0)
    assert waiting.drop(["family", "n_images", "n_runs"]).isna().all()


def test_untrained_predictors_stand_last_in_every_table(make_heldout, make_scored):
    trivial = {CONSTANT: make_scored([0.0] * 4, normals=[0.0]), BLOB: make_scored([0.1, 0.2, 0.3, 0.4], normals=[0.1])}
    found = answers({"KLD": [make_heldout([0.5, 0.6])], "DICE": []}, trivial)
    assert list(found.table.variant) == ["KLD", "DICE", CONSTANT, BLOB]
    blob = found.table.set_index("variant").loc[BLOB]
    assert (blob.dice, blob.n_images, blob.n_runs, blob.parameters) == (0.25, 4, 0, 0)
    assert np.isnan(blob.seconds)
    assert set(found.parts.variant[~found.parts.trained]) == {CONSTANT, BLOB}
    assert found.pairs.empty  # one network alone


def test_a_table_before_any_run_is_there(make_scored):
    found = answers({"KLD": [], "DICE": []}, {CONSTANT: make_scored([0.0, 0.0])})
    assert found.table.n_images.tolist() == [0, 0, 2]
    assert heldout.every_pair({"loss": found}).columns.tolist() == list(heldout.PAIR_COLUMNS)
    assert heldout.shown(found.table)["95 % interval"].fillna("").tolist() == ["", "", "0.000–0.000"]


def test_several_seeds_score_an_image_once_with_their_mean(make_heldout):
    runs = [make_heldout([0.2, 0.4], seed=0), make_heldout([0.6, 0.4], seed=5)]
    scored = heldout.of_runs(runs)
    assert scored.per_image.dice.tolist() == pytest.approx([0.4, 0.4])
    assert answers({"KLD": runs}).table.n_images.tolist() == [2]
    assert answers({"KLD": runs}).table.n_runs.tolist() == [2]


# Pairs


def test_variants_are_compared_on_the_images_that_both_have_scored(make_heldout):
    kld = [make_heldout([0.5, 0.7, 0.9], loss="kld"), make_heldout([0.0, 0.0, 0.0], loss="kld", fold=1)]
    dice = [make_heldout([0.4, 0.7, 0.7], loss="dice")]
    pair = answers({"KLD": kld, "DICE": dice, "BCE": []}).pairs.iloc[0]
    assert (pair.family, pair.a, pair.b, pair.n_images) == ("loss", "KLD", "DICE", 3)
    assert pair.difference == pytest.approx(0.1)  # (0.1 + 0 + 0.2) / 3
    assert pair.wins == pytest.approx(2.5 / 3)  # two won, one drawn


def test_families_stand_one_below_the_other_and_keep_their_numbers(make_heldout):
    runs = {"A": [make_heldout([0.5, 0.6])], "B": [make_heldout([0.1, 0.3], loss="kld")]}
    pairs = heldout.every_pair({"loss": answers(runs), "data": answers({"A": []})})
    assert len(pairs) == 1
    assert pairs.p_holm.dtype == float


# Parts


def test_parts_are_the_classes_and_thirds_by_size(make_heldout):
    # benign and malignant in turn, ever larger
    parts = answers({"KLD": [make_heldout([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])]}).parts.set_index("part")
    assert parts.dice.to_dict() == pytest.approx(
        {"benign": 0.4, "malignant": 0.6, "small": 0.1, "medium": 0.5, "large": 0.9}
    )
    assert parts.n_images.to_dict() == {"benign": 3, "malignant": 3, "small": 2, "medium": 2, "large": 2}


# Both answers


def test_both_answers_stand_in_one_row_under_the_published_name(make_heldout):
    published = pd.DataFrame(
        {
            "method": ["Upsampling2D", "Conv2DTranspose"],
            "published_accuracy": [0.9251, 0.9290],
            "accuracy": [0.91, 0.92],
            "floor_accuracy": 0.9083,
        }
    )
    runs = {"Nearest, first step": [make_heldout([0.5, 0.7], accuracy=0.8)], "Conv2DTranspose": []}
    table = heldout.side_by_side(published, answers(runs).table, {"Upsampling2D": "Nearest, first step"})
    first, second = table.to_dict("records")
    assert first["method"] == "Upsampling2D"
    assert first["held-out variant"] == "Nearest, first step"
    assert (first["published accuracy"], first["rebuilt accuracy"]) == (0.9251, 0.91)
    assert (first["held-out Dice"], first["held-out accuracy"]) == pytest.approx((0.6, 0.8))
    assert second["held-out variant"] == "Conv2DTranspose"
    assert np.isnan(second["held-out Dice"])
    alone = heldout.side_by_side(published.iloc[1:].reset_index(drop=True), answers(runs).table, {})
    assert "held-out variant" not in alone


# For readers


def test_pairs_are_shown_with_signs_and_no_p_of_zero():
    pairs = pd.DataFrame(
        {
            **{"a": ["KLD"] * 2, "b": ["DICE", "BCE"], "difference": [0.2, -0.01], "low": [0.1, -0.03]},
            **{"high": [0.3, 0.012], "p": [1e-9, 0.2], "p_holm": [2e-9, 0.2], "wins": 0.5, "effect": 0.1},
            **{"n_images": 10, "family": "loss"},
        }
    )
    shown = heldout.shown_pairs(pairs)
    assert shown["95 % interval"].tolist() == ["+0.100 to +0.300", "-0.030 to +0.012"]
    assert shown["p after Holm"].tolist() == ["< 0.0001", "0.2000"]


# Gathered


def test_untrained_predictors_are_gathered_and_read_without_the_data(study):
    assert heldout.trivial(study.model_copy(update={"train_missing": False})) == {}
    written = heldout.trivial(study)
    read = heldout.trivial(study.model_copy(update={"train_missing": False, "data_dir": ""}))
    assert list(read) == [CONSTANT, EVERYTHING, BLOB]
    for label, scored in read.items():
        pd.testing.assert_frame_equal(scored.per_image, written[label].per_image)
        assert scored.per_image.name.nunique() == 12
        assert not scored.runs
    lesions = read[CONSTANT].per_image.query("image_class != 'normal'")
    assert (lesions.dice == 0).all()
    assert lesions.accuracy.to_numpy() == pytest.approx(1 - lesions.lesion_share.to_numpy(), abs=2e-6)
    assert (study.report_path / "results" / "heldout" / "darkest-blob" / "per_image.csv").is_file()


def test_untrained_predictors_are_scored_again_only_for_other_data(study, tmp_path):
    heldout.trivial(study)
    file = study.report_path / "results" / "heldout" / "constant" / "per_image.csv"
    before = file.stat().st_mtime_ns
    heldout.trivial(study)
    assert file.stat().st_mtime_ns == before
    (study.report_path / "results" / "heldout" / "trivial.sha256").write_text("other data\n")
    file.write_text("broken")
    assert len(heldout.trivial(study)[CONSTANT].per_image) == 12


def test_pairs_of_images_are_counted_by_distance_and_read_back(study):
    counts = heldout.near_duplicates(study)
    assert counts.distance.tolist() == list(range(65))
    assert counts.pairs.sum() == 12 * 11 / 2
    reader = study.model_copy(update={"train_missing": False, "data_dir": ""})
    pd.testing.assert_frame_equal(heldout.near_duplicates(reader), counts)


def test_the_split_tests_each_image_once_and_is_read_back(study, tmp_path):
    # Twelve images are too few for five folds.
    study = study.model_copy(update={"data_dir": str(phantom.draw(tmp_path / "more"))})
    reader = study.model_copy(update={"train_missing": False, "data_dir": ""})
    assert heldout.split(reader) is None
    split = heldout.split(study)
    assert ((split.filter(regex="^fold") == "test").sum(axis=1) == 1).all()
    pd.testing.assert_frame_equal(heldout.split(reader), split)


def test_a_family_s_answers_know_what_is_planned(study, make_heldout):
    study = study.model_copy(
        update={
            **{"train_missing": False, "family": "loss", "folds": [0, 1], "heldout": {"image_size": 32}},
            "heldout_variants": {"KLD": {"loss": "kld"}, "BCE": {}},
        }
    )
    found = heldout.answers(study)
    assert (len(found.planned), len(found.finished)) == (4, 0)
    assert RunConfig(protocol="heldout", image_size=32, fold=1, seed=1) in found.planned
    assert list(found.runs) == ["KLD", "BCE"]
