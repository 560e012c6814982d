"""Networks of finished runs: they answer from the run folder alone, and as their run was scored."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_study import make_study

from busi.config import Parameters, RunConfig, StudyError, find_study_folder
from busi.dataset.arrays import restore
from busi.lab import networks
from busi.lab.networks import Case, Network, Variant
from busi.runs import Run
from busi.scoring import metrics
from busi.scoring.scores import find_or_score
from busi.study import Group, find_groups

REPOSITORY = Path(__file__).parents[2]

KLD, RAW = "loss: KLD", "data: No preprocess"


def copy_run(run, folder):
    shutil.copytree(run.folder, folder)
    return Run(folder, run.config)


def draw_picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (48, 60), dtype=np.uint8)


def test_only_trained_variants_are_found(laboratory):
    assert list(laboratory.variants) == [KLD, RAW]
    assert [len(variant.runs) for variant in laboratory.variants.values()] == [2, 1]


def test_a_shorter_run_takes_the_place_of_a_missing_one(laboratory):
    longer = laboratory.parameters.heldout | {"epochs": 9}
    parameters = laboratory.parameters.model_copy(update={"heldout": longer})
    variants = networks.find_variants(parameters, laboratory.catalog)
    assert {label: variant.runs for label, variant in variants.items()} == {
        label: variant.runs for label, variant in laboratory.variants.items()
    }


@pytest.mark.parametrize("label", [KLD, RAW])
def test_a_run_folder_predicts_without_the_data_what_its_run_has_stored(laboratory, label, tmp_path, monkeypatch):
    original = laboratory.variants[label].runs[0]
    scores = find_or_score(original, laboratory.catalog).images.set_index("name")
    pictures = {name: networks.read_picture(laboratory.catalog, name) for name in scores.index}
    copy = tmp_path / "study"
    shutil.copytree(laboratory.root, copy, symlinks=True)
    shutil.rmtree(copy / "data")
    folder = tmp_path / "run"
    (copy / original.folder.relative_to(laboratory.root)).rename(folder)
    shutil.rmtree(copy)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError):  # neither data nor caches can be read
        find_study_folder()

    stored = json.loads((folder / "config.json").read_text())
    run = Run(folder, RunConfig(**stored["config"]))
    network = Network(run)
    predictions = run.predictions["test"]
    assert sorted(predictions.names) == sorted(pictures)
    for name, answer in zip(predictions.names, predictions.probability, strict=True):
        pixels, truth = pictures[name]
        probability = network.probability(pixels)
        assert probability.shape == pixels.shape and probability.dtype == np.float32
        np.testing.assert_allclose(probability, restore(answer, *pixels.shape, run.config), atol=1e-6)
        for score, value in metrics.score_image(truth, probability, network.threshold).items():
            assert value == pytest.approx(scores.loc[name, score], abs=2e-6, nan_ok=True), (name, score)


@pytest.mark.parametrize("label", [KLD, RAW])
def test_every_held_out_image_has_the_scores_of_its_run(laboratory, label):
    variant = laboratory.variants[label]
    assert len(variant.scores) > 5
    for row in variant.scores.itertuples():
        case = variant.case(row.name)
        assert case.dice == pytest.approx(row.dice, abs=1e-6, nan_ok=True)
        assert case.predicted.mean() == pytest.approx(row.predicted_share, abs=1e-6)
        assert case.threshold == variant.find_run(row.name).threshold


def test_an_image_is_answered_by_a_run_that_held_it_out(laboratory):
    variant = laboratory.variants[KLD]
    for name in laboratory.catalog.table.name:
        holding = [run for run in variant.runs if name in run.predictions["test"].names]
        assert variant.holds_out(name) == bool(holding)
        assert variant.find_run(name) == (holding or variant.runs)[0]
    assert {variant.find_run(name).config.fold for name in variant.scores.name} == {0, 1}


def test_an_image_that_no_run_held_out_is_predicted_by_the_first(laboratory):
    variant = laboratory.variants[RAW]
    name = next(name for name in laboratory.catalog.table.name if not variant.holds_out(name))
    pixels, truth = networks.read_picture(laboratory.catalog, name)
    case = variant.case(name)
    np.testing.assert_array_equal(case.probability, Network(variant.runs[0]).probability(pixels))
    np.testing.assert_array_equal(case.truth, truth)


def test_a_foreign_image_keeps_its_size_and_is_predicted_whatever_its_name(laboratory):
    variant = laboratory.variants[RAW]
    name = variant.scores.name[0]
    pixels, _ = networks.read_picture(laboratory.catalog, name)
    wide = np.asarray(Image.fromarray(pixels).resize((91, 40)))
    case = variant.foreign_case(name, wide, threshold=0.3)
    assert case.probability.shape == (40, 91)
    assert case.threshold == 0.3
    assert case.truth is None and np.isnan(case.dice)
    assert variant.foreign_case(name, wide).threshold == variant.runs[0].threshold


def test_networks_that_take_turns_give_their_own_answers(laboratory):
    pixels = draw_picture(0)
    runs = [*laboratory.variants[KLD].runs, *laboratory.variants[RAW].runs]
    first_round = [Network(run).probability(pixels) for run in runs]
    second_round = [Network(run).probability(pixels) for run in runs]
    np.testing.assert_array_equal(first_round, second_round)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(first_round[one] - first_round[other]).max() > 1e-3


ASK_TWENTY_NETWORKS = """
import json, resource, sys
from pathlib import Path
import numpy as np
from busi.config import RunConfig
from busi.lab.networks import Network
from busi.runs import Run

pixels = np.zeros((48, 60), np.uint8)
networks, used = [], []
for folder in sorted(Path(sys.argv[1]).iterdir()):
    stored = json.loads((folder / "config.json").read_text())
    networks.append(Network(Run(folder, RunConfig(**stored["config"]))))
    networks[-1].probability(pixels)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    used.append(pages * resource.getpagesize())
print(len(used), used[2], used[-1])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the memory of a process is read as Linux tells it")
def test_memory_does_not_grow_with_the_number_of_networks(laboratory, tmp_path):
    run = laboratory.variants[KLD].runs[0]
    for number in range(20):
        copy_run(run, tmp_path / f"run{number:02d}")
    # In a process of its own: this one has memory to spare from training, in which a leak would hide.
    command = [sys.executable, "-c", ASK_TWENTY_NETWORKS, str(tmp_path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    count, after_three, after_all = map(int, output.split())
    assert count == 20
    # Networks that keep models of their own take some megabytes each, however small they are.
    assert after_all - after_three < 15e6


def test_unreadable_weights_are_named_and_disturb_no_other_network(laboratory, tmp_path):
    run = laboratory.variants[KLD].runs[0]
    pixels = draw_picture(0)
    before = Network(run).probability(pixels)
    damaged = copy_run(run, tmp_path / "damaged")
    damaged.weights.write_bytes(damaged.weights.read_bytes()[:5000])
    with pytest.raises(StudyError, match=r"damaged.best\.weights\.h5: cannot be read"):
        Network(damaged).probability(pixels)
    np.testing.assert_array_equal(Network(run).probability(pixels), before)


def test_a_case_is_scored_and_described_at_its_threshold():
    truth = np.array([[True, True, False, False]])
    probability = np.array([[0.9, 0.2, 0.5, 0.1]], np.float32)
    pixels = np.zeros((1, 4), np.uint8)
    assert Case("a", pixels, truth, probability, 0.5).dice == 0.5  # one of two found, one of two right
    assert Case("a", pixels, truth, probability, 0.15).dice == 0.8  # 2 * 2 / (2 + 3)
    assert Case("a", pixels, truth, probability, 0.95).dice == 0
    # In single precision, 0.7 is a little less than the threshold.
    assert not Case("a", pixels, truth, np.full_like(probability, 0.7), 0.7).predicted.any()
    assert np.isnan(Case("a", pixels, ~truth & truth, probability, 0.5).dice)
    assert np.isnan(Case("a", pixels, None, probability, 0.5).dice)
    assert Case("a", pixels, truth, probability, 0.5).description == "Dice 0.500, 50.0% marked at 0.50"
    assert Case("a", pixels, None, probability, 0.3).description == "50.0% marked at 0.30"


def test_the_first_of_two_runs_that_held_an_image_out_counts(laboratory):
    first, second = laboratory.variants[KLD].runs
    twice = Variant((first, second, first), laboratory.catalog)
    assert not twice.scores.name.duplicated().any()
    assert set(twice.scores.run) == {0, 1}


def test_the_command_to_type_is_named_where_nothing_is_trained(laboratory):
    phantoms = networks.explain_missing(Parameters(profile="none", data_dir="phantom"))
    assert phantoms.endswith("run `make study PROFILE=none` in a terminal, then run this notebook again.")
    images = networks.explain_missing(Parameters(profile="laptop", data_dir="images"))
    assert "`make study PROFILE=laptop DATA=images`" in images


def test_results_that_keep_runs_from_being_trained_are_named(laboratory):
    parameters = Parameters(profile="laptop", report="gathered", data_dir="images")
    (parameters.results_path / "heldout").mkdir(parents=True)
    message = networks.explain_missing(parameters)
    assert "results are in `reports/gathered/results/heldout` count as finished" in message


def test_several_networks_answer_with_the_mean_of_their_probabilities(laboratory):
    one, other = laboratory.variants[KLD].runs
    pixels = draw_picture(3)
    both = Network(one, other)
    mean = (Network(one).probability(pixels) + Network(other).probability(pixels)) / 2
    np.testing.assert_allclose(both.probability(pixels), mean, atol=1e-6)
    assert both.threshold == pytest.approx((one.threshold + other.threshold) / 2)


def test_smaller_regions_are_removed_if_all_networks_were_scored_so(laboratory):
    """Of two regions the one of three pixels stays, though they touch at corners only and the other is surer."""
    run = laboratory.variants[KLD].runs[0]
    largest = Run(run.folder, run.config.model_copy(update={"largest_component": True}))
    output = np.full((32, 32), 0.1 * run.threshold, np.float32)
    output[[4, 5, 6], [4, 5, 6]] = (1 + run.threshold) / 2
    output[20, 20:22] = 1
    alone = output.copy()
    alone[20, 20:22] = 0
    np.testing.assert_array_equal(Network(largest).restore(output, (32, 32)), alone)
    for runs in ((run,), (run, largest), (largest, run)):
        np.testing.assert_array_equal(Network(*runs).restore(output, (32, 32)), output)


def test_networks_of_different_sizes_are_not_averaged(laboratory):
    run = laboratory.variants[KLD].runs[0]
    larger = Run(run.folder, run.config.model_copy(update={"image_size": 48}))
    with pytest.raises(StudyError, match=r"image_size is 48, that of .* is 32"):
        Network(run, larger)


def test_a_run_is_opened_by_its_folder_or_its_name(laboratory, tmp_path):
    run = laboratory.variants[KLD].runs[0]
    assert networks.open_run(run.folder).config == run.config
    assert networks.open_run(run.config.label).folder == run.folder
    shutil.copytree(run.folder.parent, laboratory.root / "runs" / "copy" / Path(run.config.label).parent)
    try:
        with pytest.raises(StudyError, match="2 runs have this name; give the folder"):
            networks.open_run(run.config.label)
    finally:
        shutil.rmtree(laboratory.root / "runs" / "copy")


def test_a_run_in_another_folder_is_opened_by_its_name(laboratory, tmp_path):
    label = laboratory.variants[KLD].runs[0].config.label
    shutil.copytree(laboratory.root / "runs", tmp_path / "elsewhere")
    assert networks.open_run(label, str(tmp_path / "elsewhere")).folder.is_relative_to(tmp_path)


def test_what_is_no_finished_run_keeps_none_from_being_found_by_name(laboratory):
    run = laboratory.variants[KLD].runs[0]
    foreign = laboratory.root / "runs" / "foreign"
    size = foreign / Path(run.config.label).parent
    contents = {
        foreign / "model": '{"model": "of other software"}',
        size / "fold1-seed1-00000000": '{"model": "of other software"}',
        size / "fold2-seed2-00000000": '{"training_ver',
        size / f"{run.folder.name}.unfinished": (run.folder / "config.json").read_text(),
    }
    try:
        for folder, content in contents.items():
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(content)
        (size / "fold3-seed3-00000000").mkdir()
        assert networks.open_run(run.config.label).folder == run.folder
    finally:
        shutil.rmtree(foreign)


def test_a_run_that_is_not_there_is_told_with_a_close_one_and_the_way_to_get_one(laboratory, tmp_path, monkeypatch):
    label = laboratory.variants[KLD].runs[0].config.label
    with pytest.raises(StudyError, match=rf"{label}9: neither .*; close: {label}.*`make study`"):
        networks.open_run(f"{label}9")
    monkeypatch.chdir(make_study(tmp_path / "study"))
    with pytest.raises(StudyError, match=r"close: none\. To have one, train it: `make study`"):
        networks.open_run(label)


def test_a_damaged_run_is_not_opened(laboratory, tmp_path):
    copy = copy_run(laboratory.variants[KLD].runs[0], tmp_path / "run")
    copy.weights.write_bytes(b"")
    with pytest.raises(StudyError, match=r"best\.weights\.h5 is not what was written; expected"):
        networks.open_run(copy.folder)


def test_the_furthest_rung_that_is_trained_in_all_folds_predicts_by_default(laboratory, monkeypatch):
    groups = find_groups(laboratory.parameters)
    kld, raw = groups["heldout/loss"].variants["KLD"], groups["heldout/data"].variants["No preprocess"]
    # Of the last rung the second fold is missing.
    rungs = {"first": raw[:1], "second": kld[:2], "third": raw[:2]}
    recipe = {"mechanisms/recipe": Group("mechanisms/recipe", "7_recipe", rungs)}
    monkeypatch.setattr(networks, "find_groups", lambda *_: recipe)
    assert [run.config for run in networks.find_recipe_runs()] == kld[:2]
    monkeypatch.undo()
    monkeypatch.chdir(laboratory.root)
    with pytest.raises(StudyError, match="no rung of the recipe has been trained in all folds in "):
        networks.find_recipe_runs()


@pytest.mark.parametrize("missing", ["paper", "recipe"])
def test_a_study_without_a_profile_or_without_a_recipe_has_no_recipe_to_ask(tmp_path, monkeypatch, missing):
    for name in ("params", "notebooks"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    (tmp_path / "params" / f"{missing}.yaml").unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match="no rung of the recipe has been trained in all folds in "):
        networks.find_recipe_runs()
