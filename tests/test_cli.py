"""The command: what it tells a user who made a mistake, and that it works on phantom images."""

import json
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from busi import cli, config
from busi.config import ROOT, RunConfig
from busi.dataset import arrays, catalog, phantom
from busi.evaluation import floors, predictors

# The command where some packages cannot be imported.
BARE = "import sys; sys.modules.update(dict.fromkeys({})); from busi.cli import main; main()"
# The command in another repository, whose folder comes first.
ELSEWHERE = """
import sys
from pathlib import Path
from busi import config
config.ROOT = Path(sys.argv.pop(1))
from busi.cli import main
main()
"""
SMOKE = str(ROOT / "params" / "smoke.yaml")
TINY = ("-p", "image_size=188", "-p", "base_filters=2", "-p", "epochs=1")


def bare(*arguments, without=("keras", "tensorflow")) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", BARE.format(without), *arguments], capture_output=True, text=True)


@pytest.fixture
def busi(monkeypatch):
    """Runs the command in this process; returns its exit code, or message."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["busi", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code

    return run


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A repository with parameters alone."""
    for module in (config, catalog):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "params").symlink_to(ROOT / "params")
    return tmp_path


def written(folder) -> set[str]:
    """Files of a study in a repository, caches apart."""
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    return {file for file in files if not file.startswith(("build/", "params/"))}


# Mistakes


def test_help_lists_the_commands_without_a_keras_backend():
    done = bare("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("phantom", "verify", "split", "data", "params", "train", "plan", "bench", "page", "index"):
        assert f" {command} " in done.stdout


def test_help_of_the_benchmark_waits_for_nothing_that_it_measures_with():
    done = bare("bench", "--help", without=("keras", "tensorflow", "numpy", "pandas", "snakemake"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "[default: 64, 16]" in done.stdout


def test_an_unknown_run_stops_with_the_names_closest_to_it_before_keras_is_imported():
    done = bare("train", "published/loss-mse/fold0-seed0", "-f", SMOKE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "busi: published/loss-mse/fold0-seed0: not one of the 37 runs of profile 'smoke'; close: "
        "published/loss-dice/fold0-seed0, published/loss-kld/fold0-seed0, published/baseline/fold0-seed0\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-f", SMOKE, "-p", "epochs=1e-4"), "busi: parameters: epochs: got '1e-4' (str); should be a valid integer"),
        (("-f", SMOKE, "-p", "epochs=0"), "busi: parameters: epochs: got 0 (int); should be greater than or equal to"),
        (("-f", SMOKE, "-p", "epoch=5"), "busi: parameters: unknown parameter 'epoch'; known are image_size"),
        (("-f", SMOKE, "-p", "image_size=300.0"), "busi: parameters: image_size: got 300.0 (float)"),
        (("-f", SMOKE, "-p", "image_size=256"), "busi: parameters: image_size: got 256; with 'valid' padding the"),
        (("-f", SMOKE, "-p", "epochs"), "busi: -p epochs: expected NAME=VALUE, e.g. -p epochs=5"),
        (("-f", SMOKE, "-p", "profile=huge"), f"busi: {ROOT}/params/huge.yaml: no such parameter file"),
        (("-f", "params/gone.yaml"), "busi: params/gone.yaml: no such parameter file; those of the study are in"),
        (("-f", SMOKE, "-p", "settings={learning_rate: 1e-4}"), "learning_rate: got '1e-4' (str)"),
        (("-f", SMOKE, "-p", "settings={learning_rate: 1e-4}"), "(YAML reads 1e-4 as text: write 1.0e-4)"),
    ],
)
def test_a_mistake_in_the_parameters_is_told_in_one_message(busi, capsys, arguments, message):
    told = busi("train", "published/baseline/fold0-seed0", *arguments)
    assert message in told  # sys.exit prints a message and exits with 1
    assert "\n" not in told
    assert capsys.readouterr() == ("", "")


def test_a_value_that_is_no_yaml_is_told_in_one_message(busi):
    assert "-p seeds" in busi("train", "published/baseline/fold0-seed0", "-f", SMOKE, "-p", "seeds=[0")


def test_missing_images_are_asked_for_and_nothing_is_written(busi, elsewhere):
    told = busi("train", "published/baseline/fold0-seed0", "-f", SMOKE, "-p", "data_dir=images")
    assert told.startswith(f"busi: {elsewhere / 'images'}: no folder benign, malignant, normal; expected")
    told = busi("train", "published/baseline/fold0-seed0", "-f", ROOT / "params" / "laptop.yaml", *TINY)
    assert told.startswith("busi: data_dir: not given, and profile 'laptop' is for real images")
    assert written(elsewhere) == set()


def test_a_missing_notebook_or_profile_is_told(busi, elsewhere):
    notebook = elsewhere / "executed" / "3_loss.ipynb"
    told = busi("page", notebook, elsewhere / "reports" / "smoke" / "3_loss.html")
    assert told == f"busi: {notebook}: no such notebook; execute it with papermill first"
    assert "huge.yaml: no such parameter file" in busi("index", "huge")
    assert written(elsewhere) == set()


def test_an_unknown_part_of_the_benchmark_is_told(busi):
    assert busi("bench", "study", "sped") == "busi: bench: no part 'sped'; there are speed, study, scale, precision"


def test_without_a_parameters_file_the_usage_is_shown(busi, capsys):
    assert busi("train", "published/baseline/fold0-seed0") == 2
    assert "Missing option '-f' / '--parameters-file'" in capsys.readouterr().err


# Work


def test_params_lists_the_notebooks_by_their_titles(busi, capsys):
    assert busi("params") == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(listed) == sorted(file.stem for file in (ROOT / "notebooks").glob("*.ipynb"))
    assert (listed["0_dataset"], listed["3_loss"]) == ("The data set", "Table 3: loss")


@pytest.mark.parametrize("notebook", sorted(file.stem for file in (ROOT / "notebooks").glob("*.ipynb")))
def test_params_shows_type_default_and_meaning_of_every_parameter(busi, capsys, notebook):
    assert busi("params", notebook) == 0
    cell = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"][0]
    declared = [re.fullmatch(r"(\w+): (\w+) = (.+?)  # (.+)", line.strip()).groups() for line in cell["source"]]
    out, err = capsys.readouterr()
    # Columns stand two spaces or more apart, and nothing in them does.
    assert [tuple(re.split(r" {2,}", line)) for line in out.splitlines()] == declared
    assert err == ""


def test_params_names_the_notebooks_when_it_is_asked_for_another(busi, capsys):
    told = busi("params", "3_los")
    assert told.startswith("busi: 3_los: no such notebook; there are 0_dataset, 1_upsampling, ")
    assert capsys.readouterr() == ("", "")


def test_verify_counts_phantom_images_and_warns_that_they_are_not_the_release(busi, elsewhere, phantom_dir, capsys):
    with pytest.warns(catalog.CountWarning) as warned:
        assert busi("verify", phantom_dir) == 0
    assert [str(each.message).removeprefix(f"{phantom_dir}/") for each in warned] == [
        "benign: 6 images, the release has 437",
        "malignant: 4 images, the release has 210",
        "normal: 2 images, the release has 133",
    ]
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()[1:4]] == [["benign", "6"], ["malignant", "4"], ["normal", "2"]]
    assert f"whole; fingerprint {catalog.read(phantom_dir, expected=None).fingerprint}\n" in out


def test_verify_names_what_is_wrong(busi, elsewhere):
    for name in catalog.CLASSES:
        (elsewhere / "images" / name).mkdir(parents=True)
    told = busi("verify", elsewhere / "images")
    assert told.startswith(f"busi: {elsewhere / 'images'} is not whole, 3 problem(s):")


def test_phantom_draws_what_is_asked_for_and_never_over_another(busi, elsewhere, capsys):
    folder = elsewhere / "drawn"
    assert busi("phantom", folder, "--benign", 1, "--malignant", 0, "--normal", 2, "--seed", 3) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert {file.name for file in folder.rglob("*.png") if "_mask" not in file.name} == {
        *("benign (1).png", "normal (1).png", "normal (2).png")
    }
    assert busi("phantom", folder).startswith(f"busi: {folder}: exists")


@pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")
def test_data_gathers_what_the_report_needs_of_the_images(busi, elsewhere, tmp_path_factory):
    folder = phantom.draw(tmp_path_factory.mktemp("data") / "phantom", benign=16, malignant=8, normal=4, seed=0)
    assert busi("data", "-f", SMOKE, "-p", f"data_dir={folder}", "-p", "image_size=188") == 0
    results = elsewhere / "reports" / "smoke" / "results"
    untrained = [f"heldout/{name}/{file}.csv" for name in predictors.PREDICTORS for file in ("per_image", "bins")]
    assert {file.removeprefix("reports/smoke/results/") for file in written(elsewhere) if file[-5:] != ".lock"} == {
        *("dataset.csv", "floors.json", "duplicates.csv", "split.csv", "heldout/trivial.sha256"),
        *(name.replace(" ", "-") for name in untrained),
    }
    targets = arrays.published(catalog.read(folder), RunConfig(image_size=188)).targets
    assert json.loads((results / "floors.json").read_text(encoding="utf-8")) == floors.of(targets)
    assert len((results / "dataset.csv").read_text(encoding="utf-8").splitlines()) == 1 + 28
    split = pd.read_csv(results / "split.csv")
    assert (split.filter(like="fold") == "test").sum(axis=1).eq(1).all()


@pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")
def test_train_gathers_the_run_and_finds_it_finished_the_second_time(busi, elsewhere, phantom_dir, capsys):
    command = ("train", "published/loss-dice/fold0-seed0", "-f", SMOKE, "-p", f"data_dir={phantom_dir}", *TINY)
    assert busi(*command) == 0
    folder = elsewhere / "reports" / "smoke" / "results" / "published" / "loss-dice" / "fold0-seed0"
    assert capsys.readouterr().out == f"{folder}\n"
    assert (
        json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
        == RunConfig(loss="dice", image_size=188, base_filters=2, epochs=1).model_dump()
    )
    weights = list(elsewhere.glob("runs/smoke/published/loss-dice/*/state.weights.h5"))
    assert len(weights) == 1
    before = weights[0].stat().st_mtime_ns
    assert busi(*command) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert weights[0].stat().st_mtime_ns == before


@pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")
def test_a_run_that_cannot_be_written_is_named_and_the_others_go_on(busi, elsewhere, phantom_dir, capsys):
    labels = [f"published/{name}/fold0-seed0" for name in ("loss-kld", "loss-dice")]
    in_the_way = elsewhere / "runs" / "smoke" / "published" / "loss-kld"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    told = busi("train", *labels, "-f", SMOKE, "-p", f"data_dir={phantom_dir}", *TINY)
    assert (
        told == f"busi: {labels[0]}: [Errno 17] File exists: '{in_the_way}'; mend it and start again: epochs are kept"
    )
    assert capsys.readouterr().out == f"{elsewhere / 'reports/smoke/results' / labels[1]}\n"


@pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")
def test_plan_counts_what_train_has_done_and_says_when_the_rest_will_be(busi, elsewhere, phantom_dir, capsys):
    study = ("-f", SMOKE, "-p", f"data_dir={phantom_dir}", *TINY)
    assert busi("train", "published/loss-dice/fold0-seed0", *study) == 0
    before = written(elsewhere)
    capsys.readouterr()
    assert busi("plan", *study, "--jobs", 3) == 0
    found, left, *unknown = capsys.readouterr().out.splitlines()
    assert found == "smoke: 37 runs; 1 finished, 0 under way, 36 not begun"
    assert " on 3 workers " in left
    assert " of training in 9 runs," in left  # published ones, and the first rung of the ladder
    unknown_for = "left, and for how long is not known: 20 runs of protocol heldout, image_size 32, "
    assert [line for line in unknown if line.startswith(unknown_for)]
    assert written(elsewhere) == before


def test_ctrl_c_ends_training_in_the_midst_of_an_epoch(elsewhere, phantom_dir):
    """Python's own way, an exception that the command turns into an exit code, waits until TensorFlow comes back."""
    settings = ("epochs=1000", f"data_dir={phantom_dir}", "base_filters=2", "image_size=188")
    parameters = [argument for setting in settings for argument in ("-p", setting)]
    label = "published/baseline/fold0-seed0"
    with subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, elsewhere, "train", label, "-f", SMOKE, *parameters]
    ) as run:
        while run.poll() is None and not list(elsewhere.glob("runs/smoke/published/baseline/*.unfinished/epoch-*")):
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        assert run.wait() == -signal.SIGINT
