"""Parameters: what is refused and in which words, what a file decides, and what names and digests tell apart."""

import re
import subprocess
import sys
from itertools import pairwise

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from busi import config
from busi.config import FAMILIES, ROOT, RunConfig, Study, StudyError

ADAM = {"optimizer": "adam", "momentum": 0.0}

OTHER = {
    "image_size": 284,
    "base_filters": 32,
    "epochs": 74,
    "precision": "mixed_bfloat16",
    "upsampling": "Conv2DTranspose",
    "optimizer": "adam",
    "learning_rate": 0.02,
    "momentum": 0.0,
    "schedule": "exponential",
    "loss": "kld",
    "bce": "probabilities",
    "preprocessing": "text",
    "masks": "all",
    "second_channel": "complement",
    "target": "aligned",
    "upsampling_steps": "all",
    "resize": "letterbox",
    "padding": "same",
    "batch_size": 8,
    "shuffle": True,
    "seed": 1,
}
"""A second value for every field of a run that has one."""


def refused(**values):
    """The message that a run of ``values`` is refused with."""
    with pytest.raises(StudyError) as caught:
        config.validated(RunConfig, "run.yaml", values)
    return str(caught.value)


def written(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return [folder / f"{name}.yaml" for name in files]


# What is refused


@pytest.mark.parametrize(
    "values, message",
    [
        ({"learning_rate": "1e-4"}, "learning_rate: got '1e-4' (str); should be a valid number"
         " (YAML reads 1e-4 as text: write 1.0e-4)"),
        ({"learning_rate": True}, "learning_rate: got True (bool); should be a valid number"),
        ({"epochs": True}, "epochs: got True (bool); should be a valid integer"),
        ({"epochs": "75"}, "epochs: got '75' (str); should be a valid integer"),
        ({"epochs": 75.0}, "epochs: got 75.0 (float); should be a valid integer"),
        ({"epochs": 0}, "epochs: got 0 (int); should be greater than or equal to 1"),
        ({"shuffle": 1}, "shuffle: got 1 (int); should be a valid boolean"),
        ({"learning_rate": 0.0}, "learning_rate: got 0.0 (float); should be greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan (float); should be a finite number"),
        ({"momentum": 1.0}, "momentum: got 1.0 (float); should be less than 1"),
        ({"base_filters": 15}, "base_filters: got 15 (int); should be a multiple of 2"),
        ({"loss": "mse"}, "loss: got 'mse' (str); should be 'bce', 'kld', 'dice', 'lesion-dice' or 'lesion-dice+bce'"),
        ({"fold": 5}, "fold: got 5 (int); should be less than 5"),
        ({"fold": 1}, "fold, patience: need a split that holds images out; set both to 0"),
        ({"patience": 5}, "fold, patience: need a split that holds images out; set both to 0"),
        ({"split": "grouped"}, "split: got 'grouped' under protocol 'published'; 'heldout' takes grouped or random,"
         " 'published' none"),
        ({"protocol": "heldout", "split": "none", "image_size": 128}, "split: got 'none' under protocol 'heldout';"
         " 'heldout' takes grouped or random, 'published' none"),
        ({"image_size": 172}, "image_size: got 172; with 'valid' padding the network takes 188 + 16 k pixels: use 188"),
        ({"image_size": 301}, "image_size: got 301; with 'valid' padding the network takes 188 + 16 k pixels: use 300"),
        ({"image_size": 310}, "image_size: got 310; with 'valid' padding the network takes 188 + 16 k pixels: use 316"),
        ({"image_size": 300, "padding": "same"},
         "image_size: got 300; with 'same' padding the network takes 16 + 16 k pixels: use 304"),
        ({"optimizer": "adam"}, "momentum: got 0.9 with optimizer adam, which has none: set momentum to 0"),
        ({"lerning_rate": 0.1}, "unknown parameter 'lerning_rate'; known are image_size, base_filters, epochs,"
         " precision, protocol, upsampling, upsampling_steps, optimizer, learning_rate, momentum, schedule, loss, bce,"
         " preprocessing, masks, second_channel, target, resize, padding, shuffle, batch_size, split, fold, patience,"
         " seed"),
    ],
)  # fmt: skip
def test_a_faulty_parameter_is_named_with_what_it_got_and_takes(values, message):
    assert refused(**values) == f"run.yaml: {message}"


def test_every_fault_is_told_at_once():
    assert refused(epochs=0, loss="mse") == (
        "run.yaml: epochs: got 0 (int); should be greater than or equal to 1;"
        " loss: got 'mse' (str); should be 'bce', 'kld', 'dice', 'lesion-dice' or 'lesion-dice+bce'"
    )


@pytest.mark.parametrize("size, output", [(188, 4), (204, 20), (300, 116), (572, 388)])
def test_sizes_that_pool_evenly_are_taken(size, output):
    assert RunConfig(image_size=size).output_size == output


@pytest.mark.parametrize("size", [16, 32, 128, 256])
def test_a_padded_networks_output_covers_its_input(size):
    assert RunConfig(image_size=size, padding="same").output_size == size


def test_the_heldout_protocol_mends_every_fault_and_keeps_what_is_given():
    run = RunConfig(protocol="heldout", image_size=128, masks="first", patience=3)
    assert run.model_dump(exclude_defaults=True) == {
        "protocol": "heldout",
        "image_size": 128,
        "second_channel": "complement",
        "target": "aligned",
        "resize": "letterbox",
        "padding": "same",
        "bce": "probabilities",
        "optimizer": "adam",
        "learning_rate": 0.001,
        "momentum": 0.0,
        "preprocessing": "standardize",
        "shuffle": True,
        "batch_size": 8,
        "split": "grouped",
        "patience": 3,
    }
    assert run.name == "masks-first_patience-3"
    assert RunConfig(**run.model_dump()) == run


def test_heldout_runs_are_one_a_seed_and_fold_with_seeds_of_their_own():
    study = Study(
        seeds=[0, 2], folds=[1, 4], heldout={"image_size": 32}, heldout_variants={"A": {}, "B": {"loss": "kld"}}
    )
    runs = study.configs("heldout")
    assert [(run.fold, run.seed) for run in runs["A"]] == [(1, 1), (4, 4), (1, 11), (4, 14)]
    assert [run.loss for run in runs["B"]] == ["kld"] * 4
    assert {(run.protocol, run.image_size, run.split) for run in runs["A"]} == {("heldout", 32, "grouped")}
    assert study.configs() == {}


@pytest.mark.parametrize("field", ["seed", "fold"])
def test_a_variant_cannot_set_what_the_study_draws(field):
    study = Study(heldout={"image_size": 32}, heldout_variants={"A": {field: 1}})
    with pytest.raises(StudyError, match=f"^variant 'A': {field}: set by the study's seeds and folds"):
        study.configs("heldout")


@pytest.mark.parametrize(
    "settings, variant, message",
    [
        (
            {},
            {"loss": "KLD"},
            "loss: got 'KLD' (str); should be 'bce', 'kld', 'dice', 'lesion-dice' or 'lesion-dice+bce'",
        ),
        ({}, {"optimizer": "adam"}, "momentum: got 0.9 with optimizer adam, which has none: set momentum to 0"),
        ({"masks": "every"}, {}, "masks: got 'every' (str); should be 'first' or 'all'"),
    ],
)
def test_a_bad_variant_is_named_by_its_label(settings, variant, message):
    study = Study(settings=settings, variants={"Good": {}, "My row": variant})
    with pytest.raises(StudyError, match=rf"^variant '(Good|My row)': {re.escape(message)}$"):
        study.configs()


def test_a_profile_cannot_leave_the_folder_of_reports():
    with pytest.raises(StudyError, match=r"^parameters: profile: got '\.\./elsewhere' \(str\); "):
        config.read(profile="../elsewhere")


# What a file decides


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StudyError) as caught:
        config.read(tmp_path / "looss.yaml")
    message = f"{tmp_path / 'looss.yaml'}: no such parameter file; those of the study are in {ROOT / 'params'}"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text, found",
    [("- 1\n- 2\n", "list"), ("epochs 3\n", "str"), ("17\n", "int"), ("[]", "list"), ("false", "bool")],
)
def test_a_file_that_is_no_mapping_is_named(tmp_path, text, found):
    [file] = written(tmp_path, odd=text)
    with pytest.raises(StudyError) as caught:
        config.read(file)
    assert str(caught.value) == f"{file}: got a {found}; expected 'name: value' lines"


@pytest.mark.parametrize(
    "text, message", [("1: 2", "the name 1 is a int; names are text"), ("epochs: [1", "not YAML (")]
)
def test_a_file_that_is_not_yaml_of_names_is_named(tmp_path, text, message):
    [file] = written(tmp_path, odd=text)
    with pytest.raises(StudyError) as caught:
        config.read(file)
    assert str(caught.value).startswith(f"{file}: {message}")


@pytest.mark.parametrize("offset", ["5", True, -1])
def test_a_seed_offset_is_a_whole_number(offset):
    with pytest.raises(StudyError, match=f"variant 'A': seed_offset: got {offset!r}; expected a whole number"):
        Study(variants={"A": {"seed_offset": offset}}).configs()


def test_a_variant_has_no_seed_of_its_own():
    with pytest.raises(StudyError, match="variant 'A': seed: set by the study's seeds"):
        Study(variants={"A": {"seed": 5}}).configs()


def test_yaml_reads_1e_4_as_text_and_the_message_says_so(tmp_path):
    [file] = written(tmp_path, rate="variants: {Slow: {learning_rate: 1e-4}, Fine: {learning_rate: 1.0e-4}}")
    with pytest.raises(StudyError, match=r"^variant 'Slow': learning_rate: got '1e-4' \(str\); .*write 1\.0e-4\)$"):
        config.read(file).configs()


def test_a_later_file_wins_key_by_key_and_overrides_win_last(tmp_path):
    files = written(
        tmp_path,
        family="family: loss\nepochs: 5\nseeds: [1, 2]\nvariants: {A: {}, B: {loss: kld}}",
        empty="# nothing\n",
        profile="epochs: 6\nbase_filters: 8\nvariants: {C: {loss: dice}}",
    )
    study = config.read(*files, base_filters=4)
    assert (study.family, study.epochs, study.seeds, study.base_filters) == ("loss", 6, [1, 2], 4)
    assert study.variants == {"C": {"loss": "dice"}}, "a mapping is replaced as a whole, as by papermill -f"


def test_settings_and_size_hold_for_every_variant_and_a_variant_wins():
    study = Study(
        image_size=204,
        epochs=2,
        settings={"masks": "all", "shuffle": True},
        variants={"A": {}, "B": {"loss": "kld"}, "C": {"shuffle": False, "epochs": 9}},
    )
    size = {"image_size": 204, "masks": "all"}
    assert study.configs() == {
        "A": [RunConfig(**size, epochs=2, shuffle=True)],
        "B": [RunConfig(**size, epochs=2, shuffle=True, loss="kld")],
        "C": [RunConfig(**size, epochs=9, shuffle=False)],
    }


def test_seed_offset_is_added_to_every_seed():
    study = Study(seeds=[0, 7], variants={"A": {}, "B": {"seed_offset": 1000}})
    seeds = {label: [run.seed for run in runs] for label, runs in study.configs().items()}
    assert seeds == {"A": [0, 7], "B": [1000, 1007]}


def test_relative_folders_start_at_the_repository_and_absolute_ones_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(profile="laptop", data_dir="phantom", runs_dir=str(tmp_path))
    assert study.data_path == ROOT / "data" / "phantom"
    assert study.runs_path == tmp_path / "laptop"
    assert study.report_path == ROOT / "reports" / "laptop"


# A notebook's parameters


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A fresh kernel without its transport: real cells, counted as IPython counts them."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    settings = Config()
    settings.HistoryManager.enabled = False
    return InteractiveShell(config=settings, user_ns={"of_notebook": config.of_notebook})


def cell(shell, code):
    return shell.run_cell(code, store_history=True)


def test_a_notebook_reads_the_rows_of_its_family(shell):
    cell(shell, "family = 'loss'\nvariants = {}\nepochs = 2\nimage_size = 204")
    cell(shell, "study = of_notebook(globals())")
    assert shell.user_ns["study"] == config.read(ROOT / "params" / "loss.yaml", epochs=2, image_size=204)


def test_a_notebook_refuses_a_misspelt_parameter(shell):
    cell(shell, "family = 'loss'\nepochs = 2")
    cell(shell, "epohcs = 3")
    with pytest.raises(StudyError, match=r"^parameters: unknown parameter 'epohcs'; known are "):
        cell(shell, "of_notebook(globals())").raise_error()


def test_names_of_later_cells_are_no_parameters_when_a_cell_is_run_again(shell):
    cell(shell, "family = 'loss'\nepochs = 2")
    cell(shell, "study = of_notebook(globals())")
    cell(shell, "answer = 'computed further down'")
    cell(shell, "again = of_notebook(globals())").raise_error()
    assert shell.user_ns["again"] == shell.user_ns["study"]


# Names and digests


@pytest.mark.parametrize(
    "fields, name",
    [
        ({}, "baseline"),
        ({"seed": 1000, "epochs": 3, "image_size": 204, "base_filters": 4}, "baseline"),
        ({"loss": "kld"}, "loss-kld"),
        ({"bce": "probabilities"}, "bce-probabilities"),
        (ADAM, "optimizer-adam"),
        (ADAM | {"schedule": "exponential"}, "optimizer-adam_schedule-exponential"),
        ({"momentum": 0.0, "schedule": "exponential"}, "momentum-0.0_schedule-exponential"),
        ({"shuffle": True, "upsampling": "Conv2DTranspose"}, "upsampling-Conv2DTranspose_shuffle-True"),
    ],
)
def test_a_name_says_what_differs_from_the_baseline_but_size_and_seed(fields, name):
    assert RunConfig(**fields).name == name


def test_every_field_with_a_second_value_is_tried():
    assert set(RunConfig.model_fields) - set(OTHER) == {"protocol", "split", "fold", "patience"}


@pytest.mark.parametrize("field", OTHER)
def test_a_digest_changes_with_every_field_and_not_with_one_left_out(field):
    # 300 pixels are for the unpadded network, 304 for the padded one; Adam has no momentum.
    base = RunConfig(**ADAM if field == "optimizer" else {})
    if field == "padding":
        base = base.model_copy(update={"image_size": 304})
    if field == "optimizer":
        base = base.model_copy(update={"optimizer": "sgd"})
    changed = RunConfig(**base.model_dump() | {field: OTHER[field]})
    assert changed.digest() != base.digest()
    assert changed.digest(without=frozenset({field})) == base.digest()
    assert changed.digest(without=frozenset({"fold"})) == changed.digest(), "fold is at its default"


def test_a_digest_is_eight_digits_that_fields_at_their_default_leave_alone():
    # SHA-256 of '[{}]', so that a field added with a default renames no finished run.
    assert RunConfig().digest() == "e10808d4"
    assert RunConfig(learning_rate=0.01, seed=0, momentum=0.9).digest() == RunConfig().digest()
    assert RunConfig(learning_rate=1).digest() == RunConfig(learning_rate=1.0).digest()


def test_a_digest_tells_its_extras_apart():
    run = RunConfig()
    digests = [run.digest(), run.digest("a"), run.digest("b"), run.digest("a", "b"), run.digest("ab")]
    assert len(set(digests)) == 5


# The study's own files

PUBLISHED = {
    "upsampling": ["Upsampling2D", "Conv2DTranspose"],
    "optimization": ["SGD + fixed LR", "Adam + fixed LR", "SGD + decaying LR", "Adam + decaying LR"],
    "loss": ["KLD", "DICE", "BCE"],
    "data": ["No preprocess", "Resize+Norm+Std+Aug."],
}
"""The rows of the paper's Tables 1 to 4."""


def test_families_are_the_papers_tables_in_order():
    assert list(FAMILIES) == list(PUBLISHED)


@pytest.mark.parametrize("name, labels", PUBLISHED.items())
@pytest.mark.parametrize("profile", ["smoke", "laptop", "paper"])
def test_a_familys_rows_are_the_papers(profile, name, labels):
    study = config.family(name, profile)
    assert (study.family, study.profile, list(study.configs())) == (name, profile, labels)


def test_the_published_baseline_stands_in_three_tables():
    rows = {
        (name, label)
        for name in FAMILIES
        for label, runs in config.family(name, "paper").configs().items()
        if runs[0] == RunConfig()
    }
    assert rows == {
        ("upsampling", "Upsampling2D"),
        ("optimization", "SGD + fixed LR"),
        ("data", "No preprocess"),
    }


def test_distinct_is_nine_runs_a_seed():
    small = {"base_filters": 16, "precision": "mixed_bfloat16"}
    assert config.distinct(config.read(ROOT / "params" / "laptop.yaml")) == [
        RunConfig(**small),
        RunConfig(**small, upsampling="Conv2DTranspose"),
        RunConfig(**small, **ADAM),
        RunConfig(**small, momentum=0.0, schedule="exponential"),
        RunConfig(**small, **ADAM, schedule="exponential"),
        RunConfig(**small, loss="kld"),
        RunConfig(**small, loss="dice"),
        RunConfig(**small, seed=1000),
        RunConfig(**small, preprocessing="code"),
    ]


def test_distinct_gives_every_row_its_first_seed_before_any_has_its_second():
    runs = config.distinct(config.read(ROOT / "params" / "paper.yaml"))
    seeds = [run.seed % 1000 for run in runs]
    assert [seeds.count(seed) for seed in (0, 1, 2)] == [9, 9, 9]
    assert all(before <= after for before, after in pairwise(seeds))
    assert all(
        (run.image_size, run.base_filters, run.epochs, run.precision) == (300, 64, 75, "float32") for run in runs
    )


def test_distinct_keeps_the_studys_settings_and_size():
    runs = config.distinct(config.read(ROOT / "params" / "smoke.yaml", epochs=1, settings={"masks": "all"}))
    assert len(runs) == 9
    assert {(run.epochs, run.masks, run.image_size) for run in runs} == {(1, "all", 236)}


def test_only_phantoms_are_shown():
    shown = {name: config.read(ROOT / "params" / f"{name}.yaml") for name in ("smoke", "laptop", "paper")}
    assert {name: (study.show_pixels, study.data_dir) for name, study in shown.items()} == {
        "smoke": (True, "phantom"),
        "laptop": (False, ""),
        "paper": (False, ""),
    }


def test_importing_the_configuration_imports_no_backend():
    code = "import sys, busi.config; print({'keras', 'tensorflow', 'jax'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
