"""Parameters: refused values and their messages, parameter files, notebooks, names and digests of runs."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell
from small_study import refusal
from traitlets.config import Config

from busi import config
from busi.config import Parameters, RunConfig, StudyError

REPOSITORY = Path(__file__).resolve().parents[1]

PROFILES = ("smoke", "laptop", "paper")

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
    "weight_decay": 0.01,
    "average": 0.99,
    "loss": "kld",
    "bce": "probabilities",
    "clipped": False,
    "order": "by-class",
    "last_steps": 3,
    "preprocessing": "text",
    "masks": "all",
    "second_channel": "complement",
    "target": "aligned",
    "upsampling_steps": "all",
    "resize": "letterbox",
    "padding": "same",
    "normalization": "instance",
    "residual": True,
    "normals": True,
    "flip_test": True,
    "largest_component": True,
    "batch_size": 8,
    "shuffle": True,
    "seed": 1,
}
"""Second value of every field that has one under the published protocol."""


def write_files(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return [folder / f"{name}.yaml" for name in files]


# Values of a run


@pytest.mark.parametrize(
    ("values", "name", "found", "expected"),
    [
        # YAML reads 1e-4 as text, and the message says how to write it.
        ({"learning_rate": "1e-4"}, "learning_rate", r"'1e-4' \(str\)", r"number.* 1\.0e-4"),
        ({"learning_rate": True}, "learning_rate", r"True \(bool\)", "number"),
        ({"epochs": True}, "epochs", r"True \(bool\)", "integer"),
        ({"epochs": "75"}, "epochs", r"'75' \(str\)", "integer"),
        ({"epochs": 75.0}, "epochs", r"75\.0 \(float\)", "integer"),
        ({"epochs": 0}, "epochs", r"0 \(int\)", "greater than or equal to 1"),
        ({"shuffle": 1}, "shuffle", r"1 \(int\)", "boolean"),
        ({"learning_rate": 0.0}, "learning_rate", r"0\.0 \(float\)", "greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate", r"nan \(float\)", "finite"),
        ({"momentum": 1.0}, "momentum", r"1\.0 \(float\)", "less than 1"),
        ({"base_filters": 15}, "base_filters", r"15 \(int\)", "multiple of 2"),
        ({"loss": "lesion-dice"}, "loss", "'lesion-dice' under protocol 'published'", "bce, kld, dice.* heldout"),
        ({"loss": "mse"}, "loss", r"'mse' \(str\)", "'bce', 'kld', 'dice', 'lesion-dice' or 'lesion-dice.bce'"),
        ({"fold": 5}, "fold", r"5 \(int\)", "less than 5"),
        ({"split": "grouped"}, "split", "'grouped' under protocol 'published'", "'published' none"),
        ({"protocol": "heldout", "split": "none", "image_size": 128},
         "split", "'none' under protocol 'heldout'", "'heldout' takes grouped, random or blocked"),
        ({"image_size": 172}, "image_size", "172", "'valid'.* 188$"),
        ({"image_size": 301}, "image_size", "301", "'valid'.* 300$"),
        ({"image_size": 310}, "image_size", "310", "'valid'.* 316$"),
        ({"image_size": 300, "padding": "same"}, "image_size", "300", "'same'.* 304$"),
        ({"optimizer": "adam"}, "momentum", r"0\.9 with optimizer adam", "to 0$"),
        ({"residual": True}, "residual", "true with padding 'valid'", "padding to same$"),
        ({"preprocessing": "augment-strong"},
         "preprocessing", "augment-strong with padding 'valid'", "padding to same$"),
        ({"average": 0.9}, "average", r"0\.9", "protocol heldout.* last_steps 0.* average to 0$"),
        ({"protocol": "heldout", "image_size": 32, "average": 0.9, "last_steps": 3},
         "average", r"0\.9", "protocol heldout.* last_steps 0.* average to 0$"),
        ({"normals": True}, "normals", "True under protocol 'published'", "with a lesion"),
        ({"largest_component": True}, "largest_component", "True under protocol 'published'", "pixels, not masks"),
        ({"protocol": "heldout", "image_size": 32, "order": "mixed"},
         "order", "'mixed' under protocol 'heldout'", "shuffle and seed"),
    ],
)  # fmt: skip
def test_a_faulty_parameter_is_named_with_its_value_and_what_is_expected(values, name, found, expected):
    told = refusal(config.validate, RunConfig, "run.yaml", values)
    assert re.search(rf"^run\.yaml: {name}: got {found}.*{expected}", told), told


@pytest.mark.parametrize("values", [{"fold": 1}, {"patience": 5}])
def test_fold_and_patience_need_a_split(values):
    told = refusal(config.validate, RunConfig, "run.yaml", values)
    assert re.search("^run.yaml: fold, patience: .*split.* to 0$", told), told


def test_an_unknown_parameter_is_named_with_all_that_are_known():
    told = refusal(config.validate, RunConfig, "run.yaml", {"lerning_rate": 0.1})
    fault, known = told.removesuffix(". Did you mean learning_rate?").split("; known are ")
    assert fault == "run.yaml: unknown parameter 'lerning_rate'"
    assert known.split(", ") == list(RunConfig.model_fields)


def test_all_faults_are_named_at_once():
    told = refusal(config.validate, RunConfig, "run.yaml", {"epochs": 0, "loss": "mse"})
    assert re.search("^run.yaml: epochs: got 0 .* run.yaml: loss: got 'mse' ", told), told


@pytest.mark.parametrize("size, output", [(188, 4), (204, 20), (300, 116), (572, 388)])
def test_sizes_that_pool_evenly_are_accepted(size, output):
    assert RunConfig(image_size=size).output_size == output


@pytest.mark.parametrize("size", [16, 32, 128, 256])
def test_the_output_of_a_padded_network_covers_its_input(size):
    assert RunConfig(image_size=size, padding="same").output_size == size


def test_the_heldout_protocol_fixes_every_fault_and_keeps_what_is_given():
    run = RunConfig(protocol="heldout", image_size=128, masks="first", patience=3)
    assert run.model_dump(exclude_defaults=True) == {
        "protocol": "heldout",
        "image_size": 128,
        "second_channel": "complement",
        "target": "aligned",
        "resize": "letterbox",
        "padding": "same",
        "bce": "probabilities",
        "clipped": False,
        "order": "by-class",
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


# Runs of variants


def test_heldout_runs_are_one_for_each_seed_and_fold_with_their_own_seeds():
    parameters = Parameters(
        seeds=[7],
        heldout_seeds=[0, 2],
        folds=[1, 4],
        heldout={"image_size": 32},
        heldout_variants={"A": {}, "B": {"loss": "kld"}},
    )
    runs = parameters.configs("heldout")
    assert [(run.fold, run.seed) for run in runs["A"]] == [(1, 1), (4, 4), (1, 11), (4, 14)]
    assert [run.loss for run in runs["B"]] == ["kld"] * 4
    assert {(run.protocol, run.image_size, run.split) for run in runs["A"]} == {("heldout", 32, "grouped")}
    assert parameters.configs("published") == {}


def test_runs_at_the_second_size_are_those_of_some_variants_with_seeds_of_their_own():
    parameters = Parameters(
        heldout={"image_size": 32, "epochs": 9},
        heldout_variants={"A": {}, "B": {"loss": "kld"}, "C": {}},
        heldout_seeds=[0, 1, 2],
        folds=[1, 4],
        second_size={"image_size": 64},
        second_seeds=[5],
        second_variants=["B"],
    )
    runs = parameters.configs("second")
    assert list(runs) == ["B"]
    assert [(run.fold, run.seed, run.image_size, run.epochs, run.loss) for run in runs["B"]] == [
        (1, 26, 64, 9, "kld"),
        (4, 29, 64, 9, "kld"),
    ]
    # Whatever differs but the size is that of the first one.
    first = parameters.configs("heldout")["B"][0]
    assert runs["B"][0].model_copy(update={"image_size": 32, "seed": 1}) == first
    assert parameters.model_copy(update={"second_size": {}}).configs("second") == {}
    unknown = parameters.model_copy(update={"second_variants": ["D"]})
    message = "second_variants: got 'D'; expected labels of heldout_variants: A, B, C"
    assert refusal(unknown.configs, "second") == message


@pytest.mark.parametrize("field", ["seed", "fold"])
def test_a_variant_cannot_set_its_seed_or_fold(field):
    parameters = Parameters(heldout={"image_size": 32}, heldout_variants={"A": {field: 1}})
    assert re.search(f"^variant 'A': {field}: .* seed_offset$", refusal(parameters.configs, "heldout"))


@pytest.mark.parametrize("offset", ["5", True, -1])
def test_a_seed_offset_is_a_whole_number(offset):
    parameters = Parameters(variants={"A": {"seed_offset": offset}})
    told = refusal(parameters.configs, "published")
    assert re.search(f"^variant 'A': seed_offset: got {offset!r}; .* from 0$", told), told


def test_a_seed_offset_is_added_to_every_seed():
    parameters = Parameters(seeds=[0, 7], variants={"A": {}, "B": {"seed_offset": 1000}})
    seeds = {label: [run.seed for run in runs] for label, runs in parameters.configs("published").items()}
    assert seeds == {"A": [0, 7], "B": [1000, 1007]}


@pytest.mark.parametrize(
    "settings, variant, message",
    [
        ({}, {"loss": "KLD"}, r"loss: got 'KLD' \(str\).* 'kld'"),
        ({}, {"optimizer": "adam"}, r"momentum: got 0\.9 .* to 0"),
        ({"masks": "every"}, {}, r"masks: got 'every' \(str\).* 'first' or 'all'"),
        ({"padding": "full"}, {}, r"padding: got 'full' \(str\).* 'valid' or 'same'"),
        ({"padding": ["same"]}, {}, r"padding: got \['same'\] \(list\).* 'valid' or 'same'"),
    ],
)
def test_a_faulty_setting_is_told_of_its_variant_or_of_what_all_variants_share(settings, variant, message):
    parameters = Parameters(settings=settings, variants={"Good": {}, "My row": variant})
    told = refusal(parameters.configs, "published")
    origin = "variant 'My row'" if variant else "settings"
    assert re.search(f"^{origin}: {message}", told), told


def test_settings_and_size_apply_to_every_variant_and_a_variant_overrides_them():
    parameters = Parameters(
        image_size=204,
        epochs=2,
        settings={"masks": "all", "shuffle": True},
        variants={"A": {}, "B": {"loss": "kld"}, "C": {"shuffle": False, "epochs": 9}},
    )
    size = {"image_size": 204, "masks": "all"}
    assert parameters.configs("published") == {
        "A": [RunConfig(**size, epochs=2, shuffle=True)],
        "B": [RunConfig(**size, epochs=2, shuffle=True, loss="kld")],
        "C": [RunConfig(**size, epochs=9, shuffle=False)],
    }


# The study's folder


def test_the_study_is_the_current_folder_or_the_nearest_parent_that_is_one(here, tmp_path, monkeypatch):
    inner = here / "notebooks" / "inner"
    for name in ("params", "notebooks"):
        (inner / name).mkdir(parents=True)
        (tmp_path / name).mkdir()
    (here / "data" / "phantom").mkdir(parents=True)
    for current, expected in [
        (here, here),
        (here / "notebooks", here),
        (here / "data" / "phantom", here),
        (inner, inner),
        (inner / "params", inner),
        (tmp_path, tmp_path),
    ]:
        monkeypatch.chdir(current)
        assert config.find_study_folder() == expected


@pytest.mark.parametrize("name", ["params", "notebooks"])
def test_a_folder_without_both_parameters_and_notebooks_is_not_a_study(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert refusal(config.find_study_folder).startswith(f"{tmp_path}: not inside a study")


def test_relative_folders_start_at_the_study_and_absolute_ones_stay(here, tmp_path, monkeypatch):
    monkeypatch.chdir(here / "notebooks")
    parameters = Parameters(profile="laptop", data_dir="phantom", runs_dir=str(tmp_path))
    assert parameters.data_path == here / "data" / "phantom"
    assert parameters.runs_path == tmp_path / "laptop"
    assert parameters.report_path == here / "reports" / "laptop"
    assert parameters.results_path == here / "reports" / "laptop" / "results"
    assert parameters.tables_path == here / "reports" / "laptop" / "tables"
    relative = Parameters(profile="laptop", data_dir="images", external_dir="others")
    assert relative.data_path == here / "images"
    assert relative.external_path == here / "others"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Parameters(external_dir="~/others").external_path == tmp_path / "others"
    assert relative.runs_path == here / "runs" / "laptop"


def test_a_report_of_its_own_name_shares_the_runs_of_its_profile(here):
    parameters = Parameters(profile="laptop", report="all-masks")
    assert parameters.report_path == here / "reports" / "all-masks"
    assert parameters.runs_path == here / "runs" / "laptop"


@pytest.mark.parametrize("name", ["profile", "report"])
def test_a_profile_or_report_cannot_leave_the_folder_of_reports(name):
    told = refusal(config.read_parameters, **{name: "../elsewhere"})
    assert told.startswith(f"parameters: {name}: got '../elsewhere'; expected small letters")


def test_pages_are_the_numbered_notebooks_and_the_gallery_only_where_pixels_may_be_shown(here):
    for name in ("10_late", "2_second", "1_first", "gallery", "explore"):
        (here / "notebooks" / f"{name}.ipynb").touch()
    assert Parameters(show_pixels=False).pages == ["1_first", "2_second"]
    assert Parameters(show_pixels=True).pages == ["1_first", "2_second", "gallery"]


# Parameter files


def test_a_missing_file_is_named_with_those_that_are_there(here):
    write_files(here / "params", smoke="", laptop="")
    file = here / "params" / "lapptop.yaml"
    message = f"{file}: no such parameter file; in this folder there are: laptop, smoke"
    assert refusal(config.read_parameters, file) == message
    assert refusal(config.read_profile, "lapptop") == message
    elsewhere = here / "elsewhere" / "tiny.yaml"
    assert refusal(config.read_parameters, elsewhere) == (
        f"{elsewhere}: no such parameter file; in this folder there are: none"
    )


@pytest.mark.parametrize(
    "text, kind",
    [("- 1\n- 2\n", "list"), ("epochs 3\n", "str"), ("17\n", "int"), ("[]", "list"), ("false", "bool")],
)
def test_a_file_that_is_not_a_mapping_is_named(tmp_path, text, kind):
    [file] = write_files(tmp_path, odd=text)
    assert refusal(config.read_parameters, file) == f"{file}: got a {kind}; expected 'name: value' lines"


@pytest.mark.parametrize(
    "text, message",
    [
        ("1: 2", "the name 1 is a int; names are text"),
        ("epochs: [1", "not YAML ("),
        # What is left of a template whose places have not been filled in.
        ("data_dir: {{folder}}", "not YAML ("),
        ("? [a]\n: 1", "not YAML ("),
    ],
)
def test_a_file_that_is_not_yaml_with_names_is_named(tmp_path, text, message):
    [file] = write_files(tmp_path, odd=text)
    assert refusal(config.read_parameters, file).startswith(f"{file}: {message}")


def test_a_file_in_another_encoding_is_named(tmp_path):
    file = tmp_path / "latin.yaml"
    file.write_bytes("report: Gerät".encode("latin-1"))
    assert refusal(config.read_parameters, file).startswith(f"{file}: not YAML (")


def test_each_faulty_value_is_named_with_the_file_that_it_comes_from(tmp_path):
    family, profile = write_files(tmp_path, family="seeds: [0]\nepoch: 3", profile="epochs: '3'\nimage_size: 301")
    told = refusal(config.read_parameters, family, profile, base_filters=3)
    faults = dict(fault.split(": ", 1) for fault in told.split("; ") if fault.startswith(("/", "parameters")))
    assert faults.keys() == {str(family), str(profile), "parameters"}
    assert faults[str(family)] == "unknown parameter 'epoch'"
    assert faults[str(profile)] == "epochs: got '3' (str)"
    assert faults["parameters"] == "base_filters: got 3 (int)"


def test_a_size_that_does_not_pool_evenly_is_named_with_its_file(tmp_path):
    [file] = write_files(tmp_path, profile="image_size: 301")
    for place, size, given in ((file, 301, {}), ("parameters", 302, {"image_size": 302})):
        told = refusal(config.read_parameters, file, **given)
        assert told.startswith(f"{place}: image_size: got {size}; ") and told.endswith(" 300")


def test_the_last_file_that_gives_a_value_is_to_blame_for_it(tmp_path):
    files = write_files(tmp_path, first="epochs: 1", second="epochs: 0")
    assert refusal(config.read_parameters, *files).startswith(f"{files[1]}: epochs: got 0 (int)")
    assert config.read_parameters(*reversed(files)).epochs == 1


def test_yaml_reads_1e_4_as_text_and_the_message_says_so(tmp_path):
    [file] = write_files(tmp_path, rate="variants: {Slow: {learning_rate: 1e-4}, Fine: {learning_rate: 1.0e-4}}")
    parameters = config.read_parameters(file)
    told = refusal(parameters.configs, "published")
    assert re.search(r"^variant 'Slow': learning_rate: got '1e-4' \(str\).* 1\.0e-4", told), told


def test_a_later_file_wins_key_by_key_and_overrides_win_last(tmp_path):
    files = write_files(
        tmp_path,
        family="family: loss\nepochs: 5\nseeds: [1, 2]\nvariants: {A: {}, B: {loss: kld}}",
        empty="# nothing\n",
        profile="epochs: 6\nbase_filters: 8\nvariants: {C: {loss: dice}}",
    )
    parameters = config.read_parameters(*files, base_filters=4)
    assert (parameters.family, parameters.epochs, parameters.seeds) == ("loss", 6, [1, 2])
    assert parameters.base_filters == 4
    assert parameters.variants == {"C": {"loss": "dice"}}, "a mapping is replaced as a whole, as by papermill -f"


# Families and sections


def test_a_family_is_a_numbered_notebook_with_a_parameter_file_of_its_name(here):
    for name in ("0_dataset", "2_loss", "1_depth", "3_mechanisms", "attention"):
        (here / "notebooks" / f"{name}.ipynb").touch()
    write_files(
        here / "params",
        loss="family: loss",
        depth="family: depth",
        mechanisms="sections: {}",
        attention="family: attention",
        smoke="profile: smoke",
    )
    assert config.families() == ["depth", "loss"]
    # Left out without a word, its runs would never be trained.
    write_files(here / "params", loss="family: los")
    with pytest.raises(StudyError, match=r"loss\.yaml: family: got 'los'; expected 'loss', the name of the file and"):
        config.families()


def test_a_family_takes_its_size_and_settings_from_the_parameters(here):
    write_files(here / "params", loss="family: loss\nepochs: 9\nvariants: {KLD: {loss: kld}}")
    parameters = Parameters(profile="tiny", epochs=4, seeds=[3], family="depth", variants={"A": {}}, folds=[2])
    family = config.read_family("loss", parameters)
    assert (family.family, family.variants, family.heldout_variants) == ("loss", {"KLD": {"loss": "kld"}}, {})
    assert (family.profile, family.epochs, family.seeds, family.folds) == ("tiny", 4, [3], [2])


SECTIONS = """
sizes:
  small: {image_size: 32, epochs: 9, padding: same}
trajectory: {size: small, steps: 256, batch_size: 8}
quick:
  smoke:
    sizes: {small: {image_size: 16, epochs: 1, padding: same}}
    trajectory: {size: small, steps: 4, batch_size: 4}
    first: 2
sections:
  collapse: {notebook: 2_optimization, size: small, seeds: [0, 1], variants: {A: {}}}
  leakage: {notebook: 5_mechanisms, size: heldout, variants: {}}
"""


def test_sections_are_read_with_the_profiles_sizes(here):
    write_files(here / "params", mechanisms=SECTIONS)
    heldout = {"image_size": 64, "epochs": 40}
    sections = config.read_sections(Parameters(profile="laptop", precision="mixed_bfloat16", heldout=heldout))
    assert sections.sizes == {
        "small": {"image_size": 32, "epochs": 9, "padding": "same"},
        "published": {"image_size": 300, "base_filters": 64, "epochs": 75, "precision": "mixed_bfloat16"},
        "heldout": {"precision": "mixed_bfloat16", "image_size": 64, "epochs": 40},
    }
    assert sections.trajectory.steps == 256
    assert list(sections.sections) == ["collapse", "leakage"]
    assert (sections.sections["collapse"].seeds, sections.sections["leakage"].seeds) == ([0, 1], [0])


def test_a_quick_profile_has_sizes_and_a_trajectory_of_its_own(here):
    write_files(here / "params", mechanisms=SECTIONS)
    sections = config.read_sections(Parameters(profile="smoke", image_size=236, heldout={"image_size": 32}))
    assert sections.sizes == {
        "small": {"image_size": 16, "epochs": 1, "padding": "same"},
        "published": {"image_size": 236, "base_filters": 64, "epochs": 75, "precision": "float32"},
        "heldout": {"precision": "float32", "image_size": 32},
    }
    assert sections.trajectory.steps == 4


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("seeds: [0, 1]", "seed: [0, 1]", "unknown parameter 'sections.collapse.seed'"),
        ("seeds: [0, 1]", "seeds: 1", "sections.collapse.seeds: got 1 (int); should be a valid list"),
        ("seeds: [0, 1]", "folds: [5]", "sections.collapse.folds.0: got 5 (int); should be less than 5"),
        (
            "size: heldout",
            "size: large",
            "sections.leakage.size: got 'large'; expected one of small, published, heldout",
        ),
        ("steps: 256", "steps: 0", "trajectory.steps: got 0 (int); should be greater than or equal to 1"),
        (
            "small, steps: 256",
            "big, steps: 256",
            "trajectory.size: got 'big'; expected one of small, published, heldout",
        ),
        (
            "small, steps: 4",
            "big, steps: 4",
            "quick.smoke.trajectory.size: got 'big'; expected one of small, published, heldout",
        ),
        ("sizes: {small:", "sizes: {tiny:", "quick.smoke.sizes: no size 'small'; expected small"),
        ("first: 2", "", "quick.smoke.first: missing; it has no default"),
        ("quick:", "quik:", "unknown parameter 'quik'; known are sizes, trajectory, quick, sections"),
    ],
)
def test_a_fault_in_the_sections_is_named_with_file_and_parameter(here, old, new, message):
    assert SECTIONS.count(old) == 1
    [file] = write_files(here / "params", mechanisms=SECTIONS.replace(old, new))
    assert refusal(config.read_sections, Parameters()).startswith(f"{file}: {message}")


# A notebook's parameters


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Return a fresh kernel without its transport: real cells, recorded as IPython records them."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    settings = Config()
    settings.HistoryManager.enabled = False
    return InteractiveShell(config=settings, user_ns={"read_notebook": config.read_notebook})


READ = "parameters = read_notebook(globals())"
"""Second cell of every notebook."""


def run_cells(shell, *cells):
    """Run cells one after another and return the parameters; raise what the last cell raises."""
    for cell in cells:
        result = shell.run_cell(cell, store_history=True)
    result.raise_error()
    return shell.user_ns["parameters"]


PARAMETER_CELL = """
profile: str = "smoke"  # the study's size
report: str = None
data_dir: str = None
seeds: list = None
settings: dict = None
image_size: int = None
base_filters: int = None
epochs: int = None
precision: str = None
folds: list = None
heldout: dict = None
family: str = "loss"
variants: dict = None
heldout_variants: dict = None
"""


def test_a_parameter_left_at_none_is_read_from_the_profile_and_the_family(shell, committed):
    parameters = run_cells(shell, PARAMETER_CELL, READ)
    assert parameters == config.read_parameters("params/loss.yaml", "params/smoke.yaml")
    assert (parameters.data_dir, parameters.image_size, parameters.heldout["epochs"]) == ("phantom", 204, 10)
    assert list(parameters.variants) == ["KLD", "DICE", "BCE"]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_name_of_a_profile_alone_gives_all_of_its_values(shell, committed, profile):
    parameters = run_cells(shell, PARAMETER_CELL, f"# Parameters\nprofile = {profile!r}\n", READ)
    assert parameters == config.read_parameters("params/loss.yaml", f"params/{profile}.yaml")
    content = config.read_yaml(REPOSITORY / "params" / f"{profile}.yaml")
    assert {name: getattr(parameters, name) for name in content} == content


def test_values_given_to_a_notebook_win_over_the_files_even_where_they_are_false_or_empty(shell, committed):
    parameters = run_cells(shell, PARAMETER_CELL, "train_missing = False\nvariants = {}\nepochs = 2\nfolds = [4]", READ)
    assert (parameters.train_missing, parameters.variants, parameters.epochs) == (False, {}, 2)
    assert parameters.folds == [4]
    assert list(parameters.heldout_variants) != []


def test_a_notebook_may_be_run_in_the_folder_of_notebooks(shell, here, monkeypatch):
    write_files(here / "params", smoke="profile: smoke\nepochs: 3", loss="family: loss")
    monkeypatch.chdir(here / "notebooks")
    assert run_cells(shell, PARAMETER_CELL, READ).epochs == 3


def test_a_parameter_mistyped_on_papermills_command_line_is_refused(shell, committed):
    with pytest.raises(StudyError, match=r"^parameters: unknown parameter 'epohcs'; known are image_size, "):
        run_cells(shell, PARAMETER_CELL, "# Parameters\nepohcs = 3", READ)


def test_names_of_other_cells_are_not_taken_for_parameters(shell, committed):
    first = run_cells(shell, PARAMETER_CELL, READ)
    later = ("answer = 'computed further down'", "import math\nepohcs = math.pi", "%pwd", "digits: int = 3")
    assert run_cells(shell, *later, READ) == first


# Names, labels and digests


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
        ({"protocol": "heldout", "image_size": 32, "fold": 2, "seed": 7}, "baseline"),
        ({"protocol": "heldout", "image_size": 32, "split": "random", "loss": "lesion-dice+bce"},
         "loss-lesion-dice+bce_split-random"),
    ],
)  # fmt: skip
def test_a_name_gives_the_settings_that_differ_from_the_baseline_except_size_seed_and_fold(fields, name):
    assert RunConfig(**fields).name == name


@pytest.mark.parametrize(
    "fields, label",
    [
        ({}, "published/300px-64f-75e/baseline/fold0-seed0"),
        ({"base_filters": 16, "loss": "kld", "seed": 3}, "published/300px-16f-75e/loss-kld/fold0-seed3"),
        ({"epochs": 5, "precision": "mixed_bfloat16"}, "published/300px-64f-5e-bfloat16/baseline/fold0-seed0"),
        ({"protocol": "heldout", "image_size": 64, "fold": 3, "seed": 8}, "heldout/64px-64f-75e/baseline/fold3-seed8"),
    ],
)
def test_a_label_gives_protocol_size_name_fold_and_seed(fields, label):
    assert RunConfig(**fields).label == label


def change(field):
    """Return two configurations that differ in one field."""
    # 300 pixels are for the unpadded network, 304 for the padded one; Adam has no momentum.
    base = RunConfig(**ADAM if field == "optimizer" else {})
    # These have an effect on held-out runs alone.
    if field in ("average", "normals", "largest_component"):
        base = RunConfig(protocol="heldout", image_size=32)
    if field == "padding":
        base = base.model_copy(update={"image_size": 304})
    if field == "residual":
        base = base.model_copy(update={"image_size": 304, "padding": "same"})
    if field == "optimizer":
        base = base.model_copy(update={"optimizer": "sgd"})
    return base, RunConfig(**base.model_dump() | {field: OTHER[field]})


def test_every_field_with_a_second_value_is_tried():
    assert set(RunConfig.model_fields) - set(OTHER) == {"protocol", "split", "fold", "patience"}


@pytest.mark.parametrize("field", OTHER)
def test_label_and_digest_change_with_every_field(field):
    base, changed = change(field)
    assert changed.label != base.label
    assert changed.digest() != base.digest()
    assert changed.digest(without=frozenset({field})) == base.digest()
    assert changed.digest(without=frozenset({"fold"})) == changed.digest(), "fold is at its default"


@pytest.mark.parametrize("other", [{"split": "random"}, {"fold": 1}, {"patience": 3}, {"patience": 0}])
def test_label_and_digest_of_a_heldout_run_change_with_its_part_of_the_images(other):
    base = RunConfig(protocol="heldout", image_size=32)
    changed = RunConfig(protocol="heldout", image_size=32, **other)
    assert changed.label != base.label
    assert changed.digest() != base.digest()


def test_a_digest_is_eight_digits_that_do_not_depend_on_fields_at_their_default():
    # SHA-256 of '[{}]', so that a field added with a default renames no finished run.
    assert RunConfig().digest() == "e10808d4"
    assert RunConfig(learning_rate=0.01, seed=0, momentum=0.9).digest() == RunConfig().digest()
    assert RunConfig(learning_rate=1).digest() == RunConfig(learning_rate=1.0).digest()


def test_a_digest_tells_its_extras_apart():
    run = RunConfig()
    digests = [run.digest(), run.digest("a"), run.digest("b"), run.digest("a", "b"), run.digest("ab")]
    assert len(set(digests)) == 5


# Version of code


def load_module(tmp_path, text) -> ModuleType:
    """Return a module with this source."""
    file = tmp_path / "module.py"
    file.write_text(text, encoding="utf-8")
    module = ModuleType("written")
    module.__file__ = str(file)
    return module


def version_of(tmp_path, text):
    """Return the version of a module with this source."""
    return config.code_version(load_module(tmp_path, text))


CODE = '''
"""Compute something."""

LIMIT = 3
"""Largest value."""


class Thing:
    """A thing."""

    def double(self, value):
        """Return twice the value."""
        return min(2 * value, LIMIT)  # never too much
'''


@pytest.mark.parametrize(
    "old, new",
    [
        ("Compute something.", "Compute something else."),
        ('"""Largest value."""', '"""Value that is never exceeded."""'),
        ("A thing.", "Something."),
        ("Return twice the value.", "Double the value.\n\n        Never more than the limit.\n        "),
        ("  # never too much", ""),
        ('        """Return twice the value."""\n', ""),
        ("LIMIT = 3", "# A comment.\nLIMIT = (\n    3\n)\n"),
        ('"""A thing."""\n\n', '"""A thing."""\n\n\n'),
    ],
)
def test_comments_docstrings_and_layout_do_not_change_the_version_of_code(tmp_path, old, new):
    assert CODE.count(old) == 1
    assert version_of(tmp_path, CODE.replace(old, new)) == version_of(tmp_path, CODE)


@pytest.mark.parametrize(
    "old, new",
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = '3'"),
        ("2 * value", "value * 2"),
        ("return min(2 * value, LIMIT)", "min(2 * value, LIMIT)"),
        ("(self, value)", "(self, value=0)"),
        ("double", "twice"),
    ],
)
def test_every_change_of_a_statement_changes_the_version_of_code(tmp_path, old, new):
    assert version_of(tmp_path, CODE.replace(old, new)) != version_of(tmp_path, CODE)


def test_a_function_of_nothing_but_a_docstring_has_a_version(tmp_path):
    texts = ['def f():\n    """Do nothing."""\n', "def f():\n    'Wait.'\n", "def f():\n    pass\n"]
    assert len({version_of(tmp_path, text) for text in texts}) == 1


def test_the_version_of_several_modules_changes_with_each_of_them(tmp_path):
    assert len(config.code_version(config)) == 8
    assert config.code_version(config, yaml) != config.code_version(config) != config.code_version(yaml)


FUNCTIONS = """
UNIT = 8
SIDES, TITLE = 2, "Lengths"


def double(value):
    return SIDES * value


def measure():
    def make():
        return double(UNIT)

    return make


def draw():
    return TITLE + str(measure())
"""


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("UNIT = 8", "UNIT = 9", True),
        ("SIDES * value", "SIDES + value", True),  # used by a function that is used
        ("SIDES, TITLE = 2", "SIDES, TITLE = 3", True),
        ("return make", "return lambda: make()", True),  # the function that it is defined in
        ("TITLE + str", "TITLE + repr", False),  # a function that uses it
        ("def draw():", "LIMIT = 3\n\n\ndef draw():", False),
    ],
)
def test_a_function_counts_with_what_it_uses_of_its_module(tmp_path, monkeypatch, old, new, changes):
    versions = []
    for text in (FUNCTIONS, FUNCTIONS.replace(old, new)):
        module = load_module(tmp_path, text)
        monkeypatch.setitem(sys.modules, "written", module)
        exec(text, module.__dict__)
        versions.append(config.code_version(module.measure()))
        # Nothing is added by the module around it.
        assert versions[-1] == config.code_version(module.measure)
    assert (versions[0] != versions[1]) == changes


# The committed files


def test_the_published_baseline_is_a_row_of_three_tables(committed):
    rows = set()
    paper = config.read_profile("paper")
    for name in config.families():
        for label, runs in config.read_family(name, paper).configs("published").items():
            if runs[0] == RunConfig():
                rows.add((name, label))
    assert rows == {
        ("upsampling", "Upsampling2D"),
        ("optimization", "SGD + fixed LR"),
        ("data", "No preprocess"),
    }


def test_a_profile_is_named_like_its_file(committed):
    assert [config.read_profile(name).profile for name in PROFILES] == list(PROFILES)


def test_only_phantoms_may_be_shown(committed):
    shown = {name: config.read_profile(name) for name in PROFILES}
    assert {name: (parameters.show_pixels, parameters.data_dir) for name, parameters in shown.items()} == {
        "smoke": (True, "phantom"),
        "laptop": (False, ""),
        "paper": (False, ""),
    }
    assert not config.read_profile("smoke", data_dir="my-data").show_pixels
    assert config.read_profile("smoke", data_dir="my-data", show_pixels=True).show_pixels


def test_importing_the_configuration_imports_no_backend():
    code = "import sys, busi.config; print({'keras', 'tensorflow', 'jax'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_a_name_given_twice_is_refused_and_merged_names_may_be_given_again(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("variants:\n  A: {loss: kld}\n  A: {loss: dice}\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"twice\.yaml: not YAML \('A' is given twice"):
        config.read_yaml(file)
    file.write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, y: 4}\n", encoding="utf-8")
    assert config.read_yaml(file) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 4}}


@pytest.mark.parametrize("name", ["settings", "heldout", "second_size"])
def test_a_mistake_in_what_all_variants_share_is_not_told_as_one_of_a_variant(name):
    parameters = Parameters(**{name: {"epoch": 3}}, variants={"A": {}}, family="loss")
    with pytest.raises(StudyError, match=f"^{name}: unknown parameter 'epoch'; known are image_size,"):
        parameters.configs("published")


@pytest.mark.parametrize(
    ("shared", "protocol", "told"),
    [
        ({"settings": {"learning_rate": "1e-3"}}, "published", "settings: learning_rate: got '1e-3'"),
        ({"heldout": {"batch_size": "x"}}, "heldout", "heldout: batch_size: got 'x'"),
        ({"second_size": {"image_size": 50}}, config.SECOND, "second_size: image_size: got 50"),
    ],
)
def test_a_wrong_value_of_what_all_variants_share_is_not_told_as_one_of_a_variant(shared, protocol, told):
    parameters = Parameters(**shared, variants={"A": {}}, heldout_variants={"A": {}}, family="loss")
    with pytest.raises(StudyError, match=f"^{told}"):
        parameters.configs(protocol)


def test_an_unknown_parameter_is_told_with_what_may_have_been_meant():
    with pytest.raises(StudyError, match=r"unknown parameter 'epohcs'; .*\. Did you mean epochs\?$"):
        config.read_parameters(epohcs=3)
    # A setting of a run is no parameter of a study, where it would not say of which runs.
    with pytest.raises(
        StudyError, match=r"\. learning_rate is set for all runs .* e\.g\. heldout=\{learning_rate: \.\.\.\}$"
    ):
        config.read_parameters(learning_rate=0.1)
    with pytest.raises(StudyError, match="report: got 'My Report'; expected small letters without accents, digits,"):
        config.read_parameters(report="My Report")


def test_a_faulty_variant_is_told_with_its_file():
    parameters = Parameters(variants={"KLD": {"los": "kld"}}, family="loss")
    with pytest.raises(StudyError, match=r"^params/loss\.yaml: variant 'KLD': unknown parameter 'los'"):
        parameters.configs("published")
