"""External test: which networks are tested, what they score on phantoms of another study, and how it is told."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_study import numbers

from busi import display, results, study
from busi.config import RunConfig, StudyError
from busi.dataset.catalog import read_catalog
from busi.dataset.phantom import draw_phantoms
from busi.lab import external
from busi.lab.networks import Network, read_picture
from busi.results import COLUMNS, NotMeasured, Results, empty_results
from busi.scoring import metrics

KLD = "loss: KLD"


def trained(*rows) -> Results:
    """Return results of runs of (variant, fold, validation Dice, loss), with the fold as seed unless one follows."""
    runs = []
    for variant, fold, dice, loss, *seeds in rows:
        seed = seeds[0] if seeds else fold
        config = RunConfig(protocol="heldout", image_size=32, fold=fold, seed=seed, loss=loss)
        row = {"variant": variant, "run": config.label, "fold": fold, "seed": seed, "name": config.name}
        runs.append(row | {"validation_dice": dice, "config": config.model_dump_json()})
    return Results(pd.DataFrame(runs), *(table for name, table in empty_results().tables.items() if name != "runs"))


def test_the_best_is_chosen_by_the_validation_part_among_variants_with_all_runs():
    base = [("upsampling: first", 0, 0.5, "bce"), ("upsampling: first", 1, 0.5, "bce")]
    kld = [("loss: KLD", 0, 0.4, "kld"), ("loss: KLD", 1, 0.8, "kld")]
    dice = [("loss: DICE", 0, 0.5, "dice"), ("loss: DICE", 1, 0.6, "dice")]
    # One fold alone, an easy one.
    easy = [("loss: both", 0, 0.9, "lesion-dice")]
    # The baseline stands in a second family under another name.
    again = [("loss: BCE", 0, 0.5, "bce"), ("loss: BCE", 1, 0.5, "bce")]
    chosen = external.choose_networks(trained(*base, *kld, *dice, *easy, *again), "baseline")
    assert chosen.runs.variant.tolist() == ["upsampling: first"] * 2 + ["loss: KLD"] * 2
    with pytest.raises(NotMeasured):
        external.choose_networks(empty_results(), "baseline")


def test_more_seeds_of_one_variant_do_not_rule_out_the_others():
    scores = [(0, 0.4, 0), (1, 0.4, 1), (0, 0.5, 5), (1, 0.5, 6), (1, 0.9, 11)]
    base = [("first", fold, dice, "bce", seed) for fold, dice, seed in scores]
    better = [("KLD", 0, 0.6, "kld"), ("KLD", 1, 0.5, "kld")]
    assert set(external.choose_networks(trained(*base, *better), "baseline").runs.variant) == {"first", "KLD"}
    # Fold by fold, 0.45 and 0.60: a mean over runs would count fold 1 three times.
    close = [("DICE", 0, 0.53, "lesion-dice"), ("DICE", 1, 0.53, "lesion-dice")]
    assert set(external.choose_networks(trained(*base, *close), "baseline").runs.variant) == {"first", "DICE"}


def test_the_recipe_is_tested_by_its_last_rung_once_that_is_whole():
    rows = [("first", 0, 0.5, "bce"), ("first", 1, 0.5, "bce"), ("last", 0, 0.6, "kld"), ("last", 1, 0.6, "kld")]
    ladder = trained(*rows)
    planned = {rung: ladder.of(rung).configs for rung in ("first", "last")}
    assert external.take_last_rung(ladder, planned).runs.variant.tolist() == ["last"] * 2
    # A fold is missing: the rung before it is not asked in its place.
    assert external.take_last_rung(trained(*rows[:3]), planned).runs.empty
    assert external.take_last_rung(trained(*rows[:2]), planned).runs.empty


@pytest.fixture(scope="module")
def other_dir(phantom_dir, tmp_path_factory):
    """Copy the phantoms, with names that none of the laboratory's images has."""
    folder = shutil.copytree(phantom_dir, tmp_path_factory.mktemp("other") / "phantom")
    for file in list(folder.glob("*/*.png")):
        file.rename(file.with_name(f"other {file.name}"))
    return folder


def gather(laboratory, other_dir, report):
    """Gather the laboratory's held-out runs into a report of their own, with other phantoms to test on."""
    own = laboratory.parameters.model_copy(update={"report": report, "external_dir": str(other_dir)})
    for name, group in study.find_groups(own).items():
        if name.startswith("heldout/"):
            study.gather_results(own, group, laboratory.catalog, train=False)
    return own


@pytest.fixture
def parameters(laboratory, other_dir):
    return gather(laboratory, other_dir, "external")


def test_a_recipe_that_is_whole_joins_the_chosen_networks(laboratory, other_dir):
    parameters = gather(laboratory, other_dir, "whole")
    others = external.load_chosen(parameters).variants
    ladder = study.find_group(parameters, "mechanisms/recipe")
    rungs = [(rung, config) for rung, configs in ladder.variants.items() for config in configs]
    runs = trained(*((rung, config.fold, 0.6, "kld") for rung, config in rungs)).runs
    runs["config"] = [config.model_dump_json() for _, config in rungs]
    runs["planned_epochs"] = [config.epochs for _, config in rungs]
    columns = dict.fromkeys([*COLUMNS["runs"], *runs])
    results.write_results(parameters, ladder.name, replace(empty_results(), runs=runs.reindex(columns=[*columns])))
    assert external.load_chosen(parameters).variants == [*others, f"recipe: {rungs[-1][0]}"]


def test_sizes_are_told_once_each_and_only_of_networks_that_were_asked():
    chosen = trained(("A", 0, 0.5, "bce"), ("B", 0, 0.5, "kld"), ("C", 0, 0.5, "dice"))
    larger = chosen.configs[2].model_copy(update={"image_size": 48})
    chosen.runs.loc[2, "config"] = larger.model_dump_json()
    small, large = (f"{pixels} pixels, 64 filters, at most 75 epochs, 1 seed in one fold" for pixels in (32, 48))
    assert external.describe_sizes(chosen, {"A", "B", "C", "Blob"}) == f"{small}; {large}"
    assert external.describe_sizes(chosen, {"A", "B", "Blob"}) == small


def test_runs_of_seeds_that_were_not_asked_are_left_out():
    """The second seed of each fold was trained after the test; the held-out score beside it must not include it."""
    chosen = trained(("A", 0, 0.5, "bce"), ("A", 1, 0.5, "bce"), ("A", 0, 0.7, "kld"), ("A", 1, 0.7, "kld"))
    chosen.runs["seed"] = [0, 1, 5, 6]
    images = pd.DataFrame({"predictor": ["A", "A", "Blob"], "seed": [1, 1, np.nan], "dice": 0.5})
    assert external.keep_asked(chosen, images).runs.seed.tolist() == [0, 1]
    both = images.assign(seed=[1, 2, np.nan])
    assert external.keep_asked(chosen, both).runs.seed.tolist() == [0, 1, 5, 6]


def test_networks_of_all_folds_are_averaged_on_the_other_images(parameters, laboratory, other_dir):
    shown = external.show(parameters)
    table = results.read_table(parameters, "external").set_index("predictor")
    assert table.index.tolist() == [KLD, "Lesion everywhere", "Darkest blob"]
    other = read_catalog(other_dir, expected=None)
    network = Network(*laboratory.variants[KLD].runs)
    dice = []
    for row in other.lesions.itertuples():
        pixels, truth = read_picture(other, row.name)
        dice.append(metrics.dice(truth, network.probability(pixels) >= network.threshold))
    row = table.loc[KLD]
    assert row.dice == pytest.approx(np.mean(dice), abs=1e-6)
    assert (row.n_images, row.n_networks, row.n_seeds) == (10, 2, 1)
    assert row.seed_low == row.seed_high == pytest.approx(row.dice)
    own = laboratory.variants[KLD].scores
    assert row.heldout_dice == pytest.approx(own.dice.mean(), abs=1e-6)
    assert np.isnan(table.n_networks["Darkest blob"])
    assert shown.conclusion.startswith(
        f"Dice on the 10 images of phantom, on which nothing was chosen. {KLD}: {row.dice:.3f}"
    )
    # Without data and networks the section is drawn again from what the report holds.
    reader = parameters.model_copy(update={"train_missing": False, "external_dir": ""})
    assert external.show(reader).conclusion == shown.conclusion


def test_neither_own_images_nor_those_of_an_earlier_test_are_taken(parameters, laboratory, tmp_path, monkeypatch):
    chosen = external.load_chosen(parameters)
    # From any folder of the study: like `data_dir` it starts at the study's own.
    monkeypatch.chdir(laboratory.root / "data")
    own = {"external_dir": "data/phantom", "report": "own"}
    with pytest.raises(StudyError, match="holds the study's own images"):
        external.measure(parameters.model_copy(update=own), chosen)
    external.measure(parameters, chosen)
    another = draw_phantoms(tmp_path / "another", benign=2, malignant=1, normal=1, seed=5)
    with pytest.raises(StudyError, match="holds results of external data"):
        external.measure(parameters.model_copy(update={"external_dir": str(another)}), chosen)


def test_networks_that_were_asked_on_another_machine_keep_their_scores(laboratory, other_dir, tmp_path):
    here = gather(laboratory, other_dir, "elsewhere")
    elsewhere = here.model_copy(update={"runs_dir": str(tmp_path)})
    chosen = external.load_chosen(here)
    with pytest.raises(NotMeasured, match="none of the chosen networks is here"):
        external.measure(elsewhere, chosen)
    asked = external.measure(here, chosen)
    [file] = (here.results_path / "external").glob("*loss-kld.csv")
    # As if other code had scored them there.
    there = file.read_text(encoding="utf-8").replace("made by", "made there by")
    file.write_text(there, encoding="utf-8")
    pd.testing.assert_frame_equal(external.measure(elsewhere, chosen), asked)
    assert file.read_text(encoding="utf-8") == there


def test_without_external_data_the_section_says_so_and_writes_nothing(laboratory):
    parameters = laboratory.parameters.model_copy(update={"report": "nothing"})
    shown = external.show(parameters)
    assert shown.conclusion == external.NOT_GIVEN
    assert not parameters.tables_path.exists()


def images_of(predictor, seed, dice, **columns) -> pd.DataFrame:
    table = pd.DataFrame({"predictor": predictor, "seed": seed, "dice": dice, "iou": 0.5, "nsd": 0.5, "detected": 1.0})
    return table.assign(name=[f"image {n}" for n in range(len(dice))], group=range(len(dice)), **columns)


def test_seeds_vary_the_score_and_their_range_stands_beside_it():
    tables = [images_of("A", seed, [0.5 + shift, 0.7 + shift], n_networks=5) for seed, shift in ((1, -0.1), (2, 0.1))]
    blind = images_of("Blob", np.nan, [0.2, 0.4])
    heldout = pd.concat([images_of("A", seed, [0.8, 0.6, None], fold=0) for seed in (0, 5)])
    table = external.tabulate(pd.concat([*tables, blind]), heldout).set_index("predictor")
    row = table.loc["A"]
    assert (row.n_networks, row.n_seeds, row.n_images, row.heldout_images) == (5, 2, 2, 2)
    assert [row.dice, row.seed_low, row.seed_high, row.heldout_dice] == pytest.approx([0.6, 0.5, 0.7, 0.7])
    # Images alone would end at 0.5 and 0.7.
    assert row.low < 0.5 and row.high > 0.7
    assert (table.low["Blob"], table.high["Blob"]) == pytest.approx((0.2, 0.4))
    assert np.isnan(table.heldout_dice["Blob"])
    fig = external.draw(table.reset_index())
    # Of the networks alone: the blob is not trained.
    assert numbers(display.title(fig)) == ["0.600", "0.600", "0.700", "0.700"]
    text = external.conclude(table.reset_index(), "Hospital", "64 pixels")
    assert "2 images of Hospital" in text
    network, blob = re.search(r"A: (.*) Blob: (.*?nan)\.", text).groups()
    assert numbers(network)[0] == "0.600" and numbers(network)[3:] == ["2", "0.500", "0.700", "0.700"]
    assert numbers(blob) == ["0.300", "0.200", "0.400"]
    assert "Goals" not in text and "images alone" not in text


@pytest.mark.parametrize(("own", "word"), [(0.2, "easier"), (0.4, "harder")])
def test_a_predictor_that_was_not_trained_says_whether_the_images_are_easier(own, word):
    """The best of them on the external images decides, the networks do not."""
    networks, best, worst = (
        images_of("A", 1, [0.9, 0.9], n_networks=5),
        *(images_of(name, np.nan, dice) for name, dice in (("Blob", [0.2, 0.4]), ("Everywhere", [0.1, 0.1]))),
    )
    held = [("A", 0, 0.5), ("Blob", np.nan, own), ("Everywhere", np.nan, 0.3 - own / 2)]
    heldout = pd.concat([images_of(name, seed, [dice], fold=0) for name, seed, dice in held])
    table = external.tabulate(pd.concat([networks, best, worst]), heldout)
    told = re.search("external images are (easier|harder).*: (.*), which .*", external.conclude(table, "Hospital", ""))
    assert told.groups() == (word, "Blob")
    assert numbers(told[0]) == ["0.300", f"{own:.3f}"]


def test_the_summary_tells_the_networks_and_whether_the_images_are_easier(laboratory):
    parameters = laboratory.parameters.model_copy(update={"report": "told"})
    assert external.list_answers(parameters) == []
    tables = [images_of("A", 1, [0.9, 0.7], n_networks=5), images_of("Blob", np.nan, [0.2, 0.4])]
    heldout = pd.concat([images_of("A", 0, [0.5], fold=0), images_of("Blob", np.nan, [0.1])])
    table = external.tabulate(pd.concat(tables), heldout).assign(size=["64 pixels, 1 seed", ""])
    results.write_table(parameters, "external", table)
    (told,) = external.list_answers(parameters)
    low, high = (f"{end:.3f}" for end in table.loc[0, ["low", "high"]])
    assert numbers(told) == ["2", "0.800", low, high, "0.500", "0.300", "0.100", "64", "1"]
    assert f"0.800 ({low} to {high}) for A (0.500 held out)." in told and "easier" in told
    assert "over images alone" in told and told.endswith("Size: 64 pixels, 1 seed.")


@pytest.mark.parametrize(("dice", "expected"), [(0.75, "reached"), (0.7499, "missed")])
def test_the_recipe_s_external_score_is_judged_by_the_goal_set_beforehand(dice, expected):
    tables = [images_of(name, 1, [dice, dice], n_networks=5) for name in ("loss: KLD", "recipe: 16 filters")]
    table = external.tabulate(pd.concat(tables), images_of("A", 1, [0.5], fold=0))
    text = external.conclude(table, "Hospital", "")
    assert re.findall(r"Dice of at least 0\.75 \((\w+)\)", text) == [expected]
    # Another network is as good: then the goal says little about the recipe.
    assert ("It is also reached by others (loss: KLD)." in text) == (expected == "reached")
    # One seed shows nothing of how training varies.
    assert "the intervals of external predictions are over images alone" in text
