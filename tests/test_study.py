"""Groups and runs of a study, and results that are gathered into its report and read from it."""

import errno
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from small_study import finish_run, read_files, refusal

from busi import config, results, study
from busi.config import Parameters, RunConfig, StudyError
from busi.dataset import arrays, duplicates, splits
from busi.dataset.catalog import describe_images, load_catalog, read_catalog
from busi.runs import Predictions
from busi.scoring import blind, floors, predictors, scores

pytestmark = pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")

REPOSITORY = Path(__file__).resolve().parents[1]

FILES = {
    "tiny": {
        "profile": "tiny",
        "image_size": 188,
        "base_filters": 2,
        "epochs": 3,
        "seeds": [0, 1],
        "heldout_seeds": [0, 1],
        "folds": [2],
    },
    "upsampling": {
        "family": "upsampling",
        "variants": {"Up": {}, "Transposed": {"upsampling": "Conv2DTranspose"}},
        "heldout_variants": {"Nearest": {}, "Bilinear": {"upsampling": "bilinear"}},
    },
    "loss": {
        "family": "loss",
        "variants": {"KLD": {"loss": "kld"}, "BCE": {"seed_offset": 1000}},
        "heldout_variants": {"BCE": {}, "KLD": {"loss": "kld"}},
    },
    "mechanisms": {
        "sizes": {"small": {"image_size": 32, "base_filters": 2, "epochs": 5, "padding": "same"}},
        "trajectory": {"size": "small", "steps": 4, "batch_size": 2},
        "quick": {
            "quick": {
                "sizes": {"small": {"image_size": 16, "base_filters": 2, "epochs": 1, "padding": "same"}},
                "trajectory": {"size": "small", "steps": 2, "batch_size": 1},
                "first": 3,
            }
        },
        "sections": {
            "identity": {
                "notebook": "2_loss",
                "size": "small",
                "seeds": [0, 4],
                "shared": {"optimizer": "adam", "momentum": 0.0, "epochs": 7},
                "variants": {"KLD": {"loss": "kld"}, "BCE": {}},
            },
            "leakage": {
                "notebook": "3_mechanisms",
                "size": "heldout",
                "shared": {"protocol": "heldout"},
                "folds": [0, 3],
                "seeds": [0, 1],
                "variants": {"grouped": {}, "random": {"split": "random"}},
            },
            "flips": {
                "notebook": "3_mechanisms",
                "size": "heldout",
                "shared": {"protocol": "heldout"},
                "variants": {"both": {"preprocessing": "augment"}},
            },
        },
    },
}
"""Parameter files of a study of two families and three sections."""

HELDOUT = {"image_size": 32, "base_filters": 2, "epochs": 3}


@pytest.fixture
def here(here):
    """Make the study of `FILES` the current folder and return it."""
    for name, content in FILES.items():
        text = yaml.safe_dump(content, sort_keys=False)
        (here / "params" / f"{name}.yaml").write_text(text, encoding="utf-8")
    for stem in ("0_dataset", "1_upsampling", "2_loss", "3_mechanisms"):
        (here / "notebooks" / f"{stem}.ipynb").touch()
    return here


@pytest.fixture
def tiny(here, quarters_dir):
    """Return the parameters of the study with its images at hand."""
    return config.read_profile("tiny", data_dir=str(quarters_dir), heldout=HELDOUT)


def reader(parameters):
    """Return the parameters of somebody who has the report and no data."""
    return parameters.model_copy(update={"train_missing": False, "data_dir": ""})


def finish(parameters, run_config, loss=0.3):
    """Put a finished run of made-up numbers into the store."""
    catalog = load_catalog(parameters)
    outcome = {"images": 28, "seconds": 1.5, "parameters": 7}
    if run_config.protocol == "published":
        outcome |= {"training": {"loss": loss}, "still": {"loss": loss / 2}, "end": "planned"}
        part, images = "training", catalog.lesions
    else:
        outcome |= {"threshold": 0.4, "best_epoch": 1, "epochs": 1, "validation_dice": 0.5}
        part, images = "test", catalog.table
    # A benign, a malignant and, of a test part, a normal image.
    names = images.name.iloc[[1, len(catalog.table) // 2 + 2, -1]]
    size = run_config.output_size
    probability = np.random.default_rng(run_config.seed).random((3, size, size), dtype=np.float32)
    predictions = {part: Predictions(names, probability)}
    history = {"epoch": [1], "loss": [loss], "validation_dice": [0.5], "seconds": [1.5]}
    store, environment = study.open_store(parameters, catalog), {"python": "3.12.1", "cores": 2}
    return finish_run(store, run_config, predictions, outcome, history, environment)


@pytest.fixture
def trained(monkeypatch):
    """Return the list of runs that were trained; training writes made-up numbers."""
    done = []

    def train(run_config, catalog, store, *, threads=None):
        done.append(run_config)
        parameters = Parameters(profile=store.root.name, data_dir=str(Path(catalog.table.image[0]).parents[1]))
        return finish(parameters, run_config)

    # The module is imported where a run has to be trained.
    monkeypatch.setattr("busi.training.train", train)
    return done


# Groups


def test_groups_are_families_under_each_protocol_then_sections(tiny):
    groups = study.find_groups(tiny)
    assert {name: group.notebook for name, group in groups.items()} == {
        "published/upsampling": "1_upsampling",
        "published/loss": "2_loss",
        "heldout/upsampling": "1_upsampling",
        "heldout/loss": "2_loss",
        "mechanisms/identity": "2_loss",
        "mechanisms/leakage": "3_mechanisms",
        "mechanisms/flips": "3_mechanisms",
    }
    assert all(group.name == name for name, group in groups.items())
    assert len(groups["heldout/loss"].configs) == 2 * 2
    assert groups["published/loss"].configs[-1] == RunConfig(image_size=188, base_filters=2, epochs=3, seed=1001)


def test_groups_of_the_second_size_come_between_the_held_out_ones_and_the_sections(here, tiny):
    """Of a family that names variants for it; seed 7 of fold 2 is 7 * 5 + 2."""
    loss = FILES["loss"] | {"second_variants": ["KLD"]}
    (here / "params" / "loss.yaml").write_text(yaml.safe_dump(loss, sort_keys=False), encoding="utf-8")
    assert not [name for name in study.find_groups(tiny) if name.startswith("second/")]
    both = tiny.model_copy(update={"second_size": {"image_size": 64}, "second_seeds": [7]})
    groups = study.find_groups(both)
    assert list(groups)[3:5] == ["heldout/loss", "second/loss"] and "second/upsampling" not in groups
    assert groups["second/loss"].notebook == "2_loss"
    heldout = {"protocol": "heldout", "base_filters": 2, "epochs": 3}
    run = RunConfig(**heldout, image_size=64, loss="kld", fold=2, seed=37)
    assert groups["second/loss"].variants == {"KLD": [run]}
    listed = list(study.list_runs(both))
    # Eight published runs and six held-out ones, as below, come before it.
    assert listed[14] == "heldout/64px-2f-3e/loss-kld/fold2-seed37"
    assert [*listed[:14], *listed[15:]] == list(study.list_runs(tiny))


def test_a_section_has_its_own_size_seeds_and_folds(tiny):
    groups = study.find_groups(tiny)
    small = {"image_size": 32, "base_filters": 2, "padding": "same", "optimizer": "adam", "momentum": 0.0, "epochs": 7}
    assert groups["mechanisms/identity"].variants == {
        "KLD": [RunConfig(**small, loss="kld", seed=seed) for seed in (0, 4)],
        "BCE": [RunConfig(**small, seed=seed) for seed in (0, 4)],
    }
    leakage = groups["mechanisms/leakage"].variants
    assert {label: [(run.split, run.fold, run.seed) for run in configs] for label, configs in leakage.items()} == {
        "grouped": [("grouped", 0, 0), ("grouped", 3, 3), ("grouped", 0, 5), ("grouped", 3, 8)],
        "random": [("random", 0, 0), ("random", 3, 3), ("random", 0, 5), ("random", 3, 8)],
    }
    assert {(run.image_size, run.epochs) for run in groups["mechanisms/leakage"].configs} == {(32, 3)}


def test_a_quick_profile_takes_the_first_runs_of_each_section_at_its_own_size(here):
    groups = study.find_groups(Parameters(profile="quick", image_size=188, heldout=HELDOUT))
    identity = groups["mechanisms/identity"].variants
    assert {label: [run.seed for run in configs] for label, configs in identity.items()} == {"KLD": [0, 4], "BCE": [0]}
    assert {(run.image_size, run.epochs) for run in groups["mechanisms/identity"].configs} == {(16, 1)}
    leakage = groups["mechanisms/leakage"].variants
    assert {label: [run.fold for run in configs] for label, configs in leakage.items()} == {
        "grouped": [0, 3],
        "random": [0],
    }
    assert {run.epochs for run in groups["mechanisms/leakage"].configs} == {3}


def test_a_quick_size_without_epochs_leaves_a_sections_own(here):
    size = {name: value for name, value in HELDOUT.items() if name != "epochs"}
    groups = study.find_groups(Parameters(profile="quick", image_size=188, heldout=size))
    assert {run.epochs for run in groups["mechanisms/leakage"].configs} == {75}
    assert {run.epochs for run in groups["mechanisms/identity"].configs} == {1}


def test_a_notebooks_own_variants_take_the_place_of_its_familys(tiny):
    own = tiny.model_copy(update={"family": "loss", "variants": {"Dice": {"loss": "dice"}}})
    groups = study.find_groups(own)
    assert list(groups["published/loss"].variants) == ["Dice"]
    assert groups["published/upsampling"] == study.find_groups(tiny)["published/upsampling"]


def test_an_unknown_group_is_named_with_those_that_there_are(tiny):
    assert study.find_group(tiny, "heldout/loss") == study.find_groups(tiny)["heldout/loss"]
    told = refusal(study.find_group, tiny, "heldout/los")
    assert told.startswith("heldout/los: no such group of runs; there are published/upsampling, published/loss, ")


@pytest.mark.parametrize(
    ("name", "section", "fault"),
    [
        ("mechanisms", FILES["mechanisms"]["sections"]["flips"] | {"variants": {"both": {"lerning_rate": 0.1}}},
         "section 'flips', variant 'both': unknown parameter 'lerning_rate'"),
        ("recipe", {"notebook": "7_recipe", "size": "small", "variants": {"wider": {"base_filter": 4}}},
         "section 'recipe', variant 'wider': unknown parameter 'base_filter'"),
    ],
)  # fmt: skip
def test_a_faulty_variant_of_a_section_is_named_with_file_section_and_label(here, tiny, name, section, fault):
    """The recipe is a section with a file of its own."""
    sections = FILES["mechanisms"]["sections"] | {"flips": section}
    content = FILES["mechanisms"] | {"sections": sections} if name == "mechanisms" else section
    (here / "params" / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert refusal(study.find_groups, tiny).startswith(f"params/{name}.yaml: {fault}; known are ")


# The list of runs


def test_every_run_is_listed_once_by_its_label(tiny):
    listed = study.list_runs(tiny)
    groups = study.find_groups(tiny)
    assert {run.label: run for run in listed.values()} == listed
    assert set(listed.values()) == {run for group in groups.values() for run in group.configs}
    # "Up" and the first BCE differ in their seed; the held-out baseline is a row of two families.
    assert len(listed) == 8 + 6 + 4 + 8 + 1


def test_every_row_has_its_first_run_before_any_has_its_second(tiny):
    listed = list(study.list_runs(tiny))
    size, heldout = "188px-2f-3e", "32px-2f-3e"
    assert listed[:8] == [
        f"published/{size}/baseline/fold0-seed0",
        f"published/{size}/upsampling-Conv2DTranspose/fold0-seed0",
        f"published/{size}/loss-kld/fold0-seed0",
        f"published/{size}/baseline/fold0-seed1000",
        f"published/{size}/baseline/fold0-seed1",
        f"published/{size}/upsampling-Conv2DTranspose/fold0-seed1",
        f"published/{size}/loss-kld/fold0-seed1",
        f"published/{size}/baseline/fold0-seed1001",
    ]
    assert listed[8:14] == [
        f"heldout/{heldout}/baseline/fold2-seed2",
        f"heldout/{heldout}/upsampling-bilinear/fold2-seed2",
        f"heldout/{heldout}/loss-kld/fold2-seed2",
        f"heldout/{heldout}/baseline/fold2-seed7",
        f"heldout/{heldout}/upsampling-bilinear/fold2-seed7",
        f"heldout/{heldout}/loss-kld/fold2-seed7",
    ]


# The committed study


@pytest.mark.parametrize("profile", ["smoke", "laptop", "paper"])
def test_the_committed_study_lists_the_runs_of_all_groups_once_and_shows_each_in_a_notebook(committed, profile):
    parameters = config.read_profile(profile)
    listed = study.list_runs(parameters)
    groups = study.find_groups(parameters).values()
    assert set(listed.values()) == {run for group in groups for run in group.configs}
    assert set(listed) == {run.label for group in groups for run in group.configs}
    assert {group.notebook for group in groups} <= set(config.list_notebooks())


def test_the_published_tables_are_nine_runs_for_each_seed(committed):
    small = {"base_filters": 16}
    adam = {"optimizer": "adam", "momentum": 0.0}
    assert list(study.list_runs(config.read_profile("laptop")).values())[:9] == [
        RunConfig(**small),
        RunConfig(**small, upsampling="Conv2DTranspose"),
        RunConfig(**small, **adam),
        RunConfig(**small, momentum=0.0, schedule="exponential"),
        RunConfig(**small, **adam, schedule="exponential"),
        RunConfig(**small, loss="kld"),
        RunConfig(**small, loss="dice"),
        RunConfig(**small, seed=1000),
        RunConfig(**small, preprocessing="code", **adam),
    ]


def test_the_paper_trains_the_first_seed_of_every_row_before_the_second_of_any(committed):
    listed = [run for run in study.list_runs(config.read_profile("paper")).values() if run.split == "none"][:27]
    seeds = [run.seed % 1000 for run in listed]
    assert [seeds.count(seed) for seed in (0, 1, 2)] == [9, 9, 9]
    assert all(before <= after for before, after in pairwise(seeds))
    sizes = {(run.image_size, run.base_filters, run.epochs, run.precision) for run in listed}
    assert sizes == {(300, 64, 75, "float32")}


def test_settings_and_size_of_a_study_apply_to_the_published_runs_of_every_family(committed):
    parameters = config.read_profile("smoke", epochs=1, settings={"masks": "all"})
    groups = study.find_groups(parameters)
    published = [run for family in config.families() for run in groups[f"published/{family}"].configs]
    assert {(run.epochs, run.masks, run.image_size) for run in published} == {(1, "all", 204)}
    assert len(set(published)) == 9


# Results read without data


def gather(parameters, name, *configs):
    """Finish some runs of a group, gather them into the report, and remove the store."""
    for run_config in configs:
        finish(parameters, run_config)
    group = study.find_group(parameters, name)
    gathered = study.gather_results(parameters, group, load_catalog(parameters), train=False)
    shutil.rmtree(parameters.runs_path)
    return gathered


def test_gathered_results_are_read_without_the_data(tiny):
    loss = study.find_group(tiny, "published/loss").variants
    gather(tiny, "published/loss", loss["BCE"][1], *loss["KLD"])
    read = study.load_results(reader(tiny), "published/loss")
    assert read.configs == [*loss["KLD"], loss["BCE"][1]]
    assert read.variants == ["KLD", "BCE"]
    assert read.runs.still_loss.tolist() == [0.15] * 3
    assert read.of("BCE").epochs.loss.tolist() == [0.3]


def test_runs_are_counted_once_by_experiment(tiny):
    """The baseline belongs to both families; a run of fewer epochs is none of those planned."""
    groups = study.find_groups(tiny)
    baseline, other = groups["published/loss"].variants["BCE"][0], groups["published/loss"].variants["KLD"][0]
    gather(tiny, "published/loss", baseline, other.model_copy(update={"epochs": 2}))
    gather(tiny, "published/upsampling", baseline)
    gathered = {name: study.load_results(reader(tiny), name) for name in groups}
    table = study.count_by_experiment(groups, gathered).set_index("experiment")
    planned = {config.label for name in ("loss", "upsampling") for config in groups[f"published/{name}"].configs}
    assert table.loc["published rows"].tolist() == ["188 pixels, 2 filters", 1, len(planned)]
    assert table.trained.drop("published rows").eq(0).all()
    assert [*table.index[:2]] == ["published rows", "held-out variants"]


def test_each_protocol_reads_its_own_results(tiny):
    published = study.find_group(tiny, "published/upsampling").variants
    heldout = study.find_group(tiny, "heldout/upsampling").variants
    gather(tiny, "published/upsampling", *published["Up"])
    gather(tiny, "heldout/upsampling", *reversed(heldout["Bilinear"]))
    assert study.load_results(reader(tiny), "published/upsampling").configs == published["Up"]
    read = study.load_results(reader(tiny), "heldout/upsampling")
    assert (read.variants, read.configs) == (["Bilinear"], heldout["Bilinear"])
    assert [(run.fold, run.seed) for run in read.configs] == [(2, 2), (2, 7)]
    assert len(read.images) == 2 * 3


def test_results_of_fewer_epochs_are_read_and_of_other_settings_are_not(tiny):
    gather(tiny, "published/loss", *study.find_group(tiny, "published/loss").configs)
    more = reader(tiny).model_copy(update={"epochs": 75})
    assert study.load_results(more, "published/loss").runs.planned_epochs.tolist() == [3, 3, 3, 3]
    for other in ({"epochs": 2}, {"base_filters": 4}, {"settings": {"masks": "all"}}, {"seeds": [5]}):
        assert study.load_results(reader(tiny).model_copy(update=other), "published/loss").runs.empty


def test_training_without_the_data_names_the_folder(tiny, here):
    before = read_files(here)
    gone = tiny.model_copy(update={"data_dir": "images"})
    told = refusal(study.load_results, gone, "published/loss")
    assert told.startswith(f"{here / 'images'}: no such folder")
    not_given = tiny.model_copy(update={"data_dir": ""})
    assert refusal(study.load_results, not_given, "published/loss").startswith(
        "data_dir: not given; expected a folder of images"
    )
    assert read_files(here) == before


# Results gathered


def test_missing_runs_are_trained_in_the_order_of_the_group_and_gathered(tiny, trained):
    configs = study.find_group(tiny, "heldout/loss").configs
    finish(tiny, configs[2])
    loaded = study.load_results(tiny, "heldout/loss")
    assert trained == [configs[0], configs[1], configs[3]]
    assert loaded.configs == configs
    assert list(read_files(tiny.results_path)) != []
    again = study.load_results(reader(tiny), "heldout/loss")
    for name, table in loaded.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table, check_exact=True)


def test_gathering_without_training_takes_what_is_finished(tiny, trained):
    group = study.find_group(tiny, "published/loss")
    catalog = load_catalog(tiny)
    assert study.gather_results(tiny, group, catalog, train=False).runs.empty
    assert not (tiny.results_path / "published").exists()
    finish(tiny, group.configs[1])
    assert study.gather_results(tiny, group, catalog, train=False).configs == [group.configs[1]]
    assert trained == []


def test_gathered_results_stand_for_a_run_whose_folder_is_gone(tiny, trained):
    """Somebody else trained it, on another machine."""
    configs = study.find_group(tiny, "heldout/loss").configs
    first = gather(tiny, "heldout/loss", *configs[:3])
    loaded = study.load_results(tiny, "heldout/loss")
    assert trained == configs[3:]
    assert loaded.configs == configs
    kept = loaded.in_order(loaded.runs.index[loaded.runs.run != configs[3].label])
    for name, table in first.tables.items():
        pd.testing.assert_frame_equal(kept.tables[name], table, check_exact=True)


def test_gathering_what_is_gathered_changes_no_file(tiny, trained):
    study.load_results(tiny, "heldout/loss")
    before = {file: file.stat().st_mtime_ns for file in tiny.results_path.rglob("*")}
    study.load_results(tiny, "heldout/loss")
    shutil.rmtree(tiny.runs_path)
    study.load_results(tiny, "heldout/loss")
    assert {file: file.stat().st_mtime_ns for file in tiny.results_path.rglob("*")} == before
    assert len(trained) == 4


def test_a_damaged_run_that_is_gathered_is_not_trained_again(tiny, trained):
    study.load_results(tiny, "published/loss")
    for file in tiny.runs_path.rglob("history.csv"):
        file.unlink()
    assert len(study.load_results(tiny, "published/loss").runs) == 4
    assert len(trained) == 4


def test_other_seeds_and_folds_stay_in_the_report(tiny, trained):
    study.load_results(tiny, "heldout/loss")
    other = tiny.model_copy(update={"heldout_seeds": [3], "folds": [0]})
    loaded = study.load_results(other, "heldout/loss")
    assert [(run.fold, run.seed) for run in loaded.configs] == [(0, 15), (0, 15)]
    assert len(trained) == 4 + 2
    assert len(results.read_results(tiny, "heldout/loss").runs) == 6
    assert len(study.load_results(reader(tiny), "heldout/loss").runs) == 4
    assert len(study.load_results(reader(other), "heldout/loss").runs) == 2


def test_a_longer_run_replaces_the_shorter_one_in_the_report(tiny, trained):
    study.load_results(tiny, "published/loss")
    longer = tiny.model_copy(update={"epochs": 9})
    assert study.load_results(longer, "published/loss").runs.planned_epochs.tolist() == [9] * 4
    assert results.read_results(tiny, "published/loss").runs.planned_epochs.tolist() == [9] * 4
    assert len(trained) == 8


def test_gathering_without_training_keeps_shorter_runs_until_longer_ones_are_trained(tiny, trained):
    study.load_results(tiny, "published/loss")
    longer = tiny.model_copy(update={"epochs": 9})
    group = study.find_group(longer, "published/loss")
    finish(longer, group.configs[1])
    gathered = study.gather_results(longer, group, load_catalog(longer), train=False)
    assert gathered.runs.planned_epochs.tolist() == [3, 9, 3, 3]
    assert results.read_results(tiny, "published/loss").runs.planned_epochs.tolist() == [3, 9, 3, 3]
    assert study.load_results(reader(longer), "published/loss").runs.planned_epochs.tolist() == [3, 9, 3, 3]
    assert len(trained) == 4


@pytest.fixture
def new_scoring(monkeypatch):
    """Return a function that changes the scoring code: it then has another version and a score more."""

    def change():
        score_image = scores.metrics.score_image
        monkeypatch.setattr(
            scores.metrics, "score_image", lambda truth, *rest: score_image(truth, *rest) | {"pixels": truth.size}
        )
        for module in (scores, results, study):
            monkeypatch.setattr(module, "scoring_version", lambda: "0123456e")

    return change


def test_a_new_score_is_computed_from_the_predictions_and_trains_nothing(tiny, trained, new_scoring):
    before = study.load_results(tiny, "heldout/loss")
    trained.clear()
    new_scoring()
    after = study.load_results(tiny, "heldout/loss")
    assert trained == []
    assert set(after.runs.scoring_version) == {"0123456e"}
    pd.testing.assert_frame_equal(after.images.drop(columns="pixels"), before.images)
    sizes = load_catalog(tiny).table.set_index("name")
    assert after.images.pixels.tolist() == [sizes.height[name] * sizes.width[name] for name in after.images.name]
    assert study.load_results(reader(tiny), "heldout/loss").images.equals(after.images)


def test_scores_of_runs_whose_folder_is_gone_stay_as_they_are(tiny, trained, new_scoring):
    configs = study.find_group(tiny, "heldout/loss").configs
    gather(tiny, "heldout/loss", *configs[:3])
    before = scores.scoring_version()
    new_scoring()
    loaded = study.load_results(tiny, "heldout/loss")
    assert trained == configs[3:]
    assert loaded.configs == configs
    assert loaded.runs.scoring_version.tolist() == [before] * 3 + ["0123456e"]
    assert loaded.images.pixels.isna().tolist() == [True] * 9 + [False] * 3


def test_results_of_other_data_are_neither_replaced_nor_trained(tiny, trained, phantom_dir):
    study.load_results(tiny, "published/loss")
    before = read_files(tiny.report_path)
    trained.clear()
    other = tiny.model_copy(update={"data_dir": str(phantom_dir)})
    told = refusal(study.load_results, other, "published/loss")
    assert told.startswith(f"{tiny.results_path / 'published' / 'loss'}: holds results of data ")
    assert (read_files(tiny.report_path), trained) == (before, [])
    assert len(study.load_results(other.model_copy(update={"report": "other"}), "published/loss").runs) == 4
    assert read_files(tiny.report_path) == before


def test_results_of_another_size_are_neither_replaced_nor_trained(tiny, trained):
    study.load_results(tiny, "heldout/loss")
    before = read_files(tiny.report_path)
    trained.clear()
    for heldout in ({"image_size": 48}, {"base_filters": 4}, {"epochs": 2}):
        other = tiny.model_copy(update={"heldout": HELDOUT | heldout})
        told = refusal(study.load_results, other, "heldout/loss")
        assert told.startswith(f"{tiny.results_path / 'heldout' / 'loss'}: holds results of ")
    assert (read_files(tiny.report_path), trained) == (before, [])


def test_a_notebook_on_phantoms_cannot_replace_the_results_of_a_profile_on_real_images(
    here, trained, quarters_dir, phantom_dir
):
    """`papermill 3_loss.ipynb -p profile laptop -p data_dir PHANTOMS`, where the report has results of other images."""
    profile = FILES["tiny"] | {"profile": "laptop", "data_dir": str(quarters_dir), "heldout": HELDOUT}
    (here / "params" / "laptop.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    given = {"profile": "laptop", "image_size": None, "epochs": None, "family": "loss", "variants": None}
    laptop = config.read_notebook(given)
    assert (laptop.image_size, laptop.epochs, laptop.data_dir) == (188, 3, str(quarters_dir))
    study.load_results(laptop, "published/loss")
    before = read_files(here / "reports" / "laptop")
    trained.clear()
    other = config.read_notebook(given | {"data_dir": str(phantom_dir)})
    told = refusal(study.load_results, other, "published/loss")
    assert "laptop/results/published/loss: holds results of data " in told
    assert (read_files(here / "reports" / "laptop"), trained) == (before, [])


def test_keys_of_gathered_runs_are_those_of_the_data_at_hand(tiny, trained, phantom_dir):
    catalog = load_catalog(tiny)
    assert study.gathered_keys(tiny, catalog) == set()
    published = study.find_group(tiny, "published/loss").configs
    heldout = study.find_group(tiny, "heldout/loss").configs
    gather(tiny, "published/loss", *published)
    gather(tiny, "heldout/loss", *heldout[:1])
    keys, store = study.gathered_keys(tiny, catalog), study.open_store(tiny, catalog)
    gathered = [run for run in study.list_runs(tiny).values() if store.key(run) in keys]
    assert set(gathered) == {*published, heldout[0]}
    other = read_catalog(phantom_dir, expected=None)
    assert study.gathered_keys(tiny, other) == set()


# Found or trained


def test_a_finished_run_is_found_and_not_trained_again(tiny, trained):
    catalog = load_catalog(tiny)
    store = study.open_store(tiny, catalog)
    assert (store.root, store.fingerprint) == (tiny.runs_path, catalog.fingerprint)
    (run_config, *_) = study.list_runs(tiny).values()
    run = study.find_or_train(run_config, catalog, store)
    assert study.find_or_train(run_config, catalog, store) == run
    assert (run.folder, trained) == (store.folder(run_config), [run_config])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (StudyError("no GPU"), "no GPU"),
        (
            OSError(errno.ENOSPC, "disk full", "runs"),
            "[Errno 28] disk full: 'runs'; fix this and rerun: finished epochs are kept",
        ),
    ],
)
def test_a_run_that_cannot_be_trained_is_named(tiny, monkeypatch, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("busi.training.train", fail)
    catalog = load_catalog(tiny)
    run_config = RunConfig(loss="kld")
    told = refusal(study.find_or_train, run_config, catalog, study.open_store(tiny, catalog))
    assert told == f"{run_config.label}: {message}"


# Measured on the data


@pytest.mark.parametrize(
    ("measure", "make"),
    [(study.measure_images, describe_images), (study.measure_duplicates, duplicates.count_distances)],
)
def test_images_and_their_near_duplicates_are_measured_once_and_read_without_the_data(tiny, measure, make):
    table = measure(tiny)
    pd.testing.assert_frame_equal(table, make(load_catalog(tiny)), check_dtype=False)
    assert measure(reader(tiny)).equals(table)


def test_the_grouped_split_is_kept(tiny):
    catalog = load_catalog(tiny)
    table = study.measure_split(tiny)
    assert table.name.tolist() == catalog.table.name.tolist()
    expected = splits.make_split(catalog, "grouped")
    assert table.fold0.tolist() == expected.fold0.tolist()


def test_the_floors_are_those_of_the_targets_that_published_rows_are_trained_on(tiny):
    other = tiny.model_copy(update={"settings": {"masks": "all", "second_channel": "complement"}, "image_size": 204})
    expected = arrays.published_arrays(load_catalog(tiny), RunConfig(image_size=188)).targets
    assert study.measure_floors(tiny) == floors.constant_floors(expected)
    targets = arrays.published_arrays(load_catalog(tiny), study.published_targets_config(other)).targets
    assert study.measure_floors(other) == floors.constant_floors(targets)
    assert study.published_targets_config(other).masks == "all"
    assert study.measure_floors(reader(other)) == floors.constant_floors(targets)


def test_biases_are_trained_class_by_class_and_in_the_orders_that_runs_see(tiny):
    """Of the paper's rows the study has KLD and BCE."""
    table = study.measure_blind(tiny).set_index(["predictor", "row", "order"]).sort_index()
    catalog = load_catalog(tiny)
    assert catalog.lesions.image_class.is_monotonic_increasing
    images = arrays.published_arrays(catalog, RunConfig(image_size=188))
    as_listed = np.arange(len(images))[None]
    for row, loss in (("KLD", "kld"), ("BCE", "bce")):
        run = RunConfig(image_size=188, base_filters=2, epochs=3, loss=loss)
        mixed = [blind.train_biases(images.shuffled(seed).targets, as_listed, run) for seed in range(25)]
        expected = {"by class": blind.train_biases(images.targets, as_listed, run), "mixed": pd.concat(mixed)}
        for order, trained in expected.items():
            told = table.loc["two biases", row, order]
            assert told.orders == len(trained)
            for score in ("loss", "accuracy", "auc"):
                ends = trained[score].min(), trained[score].max()
                assert (told[f"{score}_low"], told[f"{score}_high"]) == pytest.approx(ends, abs=5.1e-7)
        assert table.loc["two biases", row, "mixed"].loss_low < table.loc["two biases", row, "mixed"].loss_high
        constant = table.loc["constant", row, "any"]
        assert constant.loss_low == pytest.approx(floors.constant_floors(images.targets)[loss], abs=5.1e-7)
        mask = table.loc["mean mask", row, "any"]
        assert mask.loss_low == pytest.approx(blind.score_mean_mask(images.targets, loss)["loss"], abs=5.1e-7)
    assert set(table.index.get_level_values("row")) == {"KLD", "BCE"}


def test_untrained_predictors_are_scored_once_for_both_tables(tiny, monkeypatch):
    calls = []
    images = pd.DataFrame({"predictor": ["a"], "dice": [1 / 3]})
    pixels = pd.DataFrame({"predictor": ["a"], "lesion": [7]})

    def score(catalog, config):
        calls.append(catalog.fingerprint)
        return images, pixels

    monkeypatch.setattr(predictors, "score_untrained", score)
    measured = study.measure_untrained(tiny)
    assert [table.values.tolist() for table in measured] == [[["a", 0.333333]], [["a", 7]]]
    study.measure_untrained(tiny.model_copy(update={"heldout": HELDOUT | {"epochs": 9}}))
    assert calls == [load_catalog(tiny).fingerprint]
    assert [table.values.tolist() for table in study.measure_untrained(reader(tiny))] == [[["a", 0.333333]], [["a", 7]]]


def test_untrained_predictors_follow_the_size_of_the_networks_and_the_split(tiny, here, monkeypatch):
    sizes = []

    def score(catalog, config):
        sizes.append(config.image_size)
        table = pd.DataFrame({"predictor": ["a"], "size": [config.image_size]})
        return table, table

    monkeypatch.setattr(predictors, "score_untrained", score)
    both = tiny.model_copy(update={"second_size": {"image_size": 64}})
    assert [study.measure_untrained(both, protocol)[0]["size"][0] for protocol in ("heldout", "second")] == [32, 64]
    study.measure_untrained(both)
    assert sizes == [32, 64]
    # Another split has other training parts, and so other mean masks.
    (here / "params" / "splits-grouped.csv").write_text("# data of another data set\n", encoding="utf-8")
    study.measure_untrained(both)
    assert sizes == [32, 64, 32]
