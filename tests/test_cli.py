"""The command: what it tells a user who made a mistake, and that it works on phantom images."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import papermill
import pytest

from busi import cli, config, results, study
from busi.config import RunConfig
from busi.dataset.catalog import CountWarning, read_catalog
from busi.lab.networks import open_run

pytestmark = pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")

REPOSITORY = Path(__file__).resolve().parents[1]

SMOKE = str(REPOSITORY / "params" / "smoke.yaml")

TINY = ("-p", "image_size=188", "-p", "base_filters=2", "-p", "epochs=1")

BASELINE = "published/204px-4f-2e/baseline/fold0-seed0"

WITHOUT = "import sys; sys.modules.update(dict.fromkeys({})); from busi.cli import main; main()"
"""Program that runs the command where some packages cannot be imported."""


def run_without(packages, *arguments, **options) -> subprocess.CompletedProcess:
    """Run the command in another process, where some packages cannot be imported."""
    command = [sys.executable, "-c", WITHOUT.format(packages), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **{"cwd": REPOSITORY} | options)


BACKENDS = ("keras", "tensorflow", "jax")


def busi(*arguments):
    """Run the command in this process and return its exit code, or its message."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(sys, "argv", ["busi", *map(str, arguments)])
        cli.main()
    return stopped.value.code


def link_study(folder):
    """Make ``folder`` a study that has only the repository's parameters and notebooks and return it."""
    folder.mkdir()
    for name in ("params", "notebooks"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Make a study that has only parameters and notebooks the current folder and return it."""
    folder = link_study(tmp_path / "study")
    monkeypatch.chdir(folder)
    return folder


def list_files(folder) -> set[str]:
    """Return the files of a study except caches and locks."""
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return {file for file in files if not file.startswith(("build/", "params/", "notebooks/")) and file[-5:] != ".lock"}


# Mistakes


def test_help_lists_the_commands_without_a_keras_backend(tmp_path):
    done = run_without(BACKENDS, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("train", "predict", "readme"):
        assert f" {command} " in done.stdout


def test_an_unknown_run_is_told_with_the_closest_ones_before_keras_is_imported():
    done = run_without(BACKENDS, "train", "published/204px-4f-2e/loss-mse/fold0-seed0", "-f", SMOKE)
    assert (done.returncode, done.stdout) == (1, "")
    runs = len(study.list_runs(config.read_profile("smoke")))
    assert done.stderr == (
        f"busi: published/204px-4f-2e/loss-mse/fold0-seed0: not one of the {runs} runs of profile 'smoke'; close: "
        "published/204px-4f-2e/loss-dice/fold0-seed0, published/204px-4f-2e/loss-kld/fold0-seed0, "
        "published/204px-4f-2e/baseline/fold0-seed0\n"
    )


@pytest.mark.parametrize("command", [("train", BASELINE, "-f", SMOKE), ("readme",), ("plan", "-f", SMOKE)])
def test_a_command_outside_of_any_study_says_so(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert busi(*command).startswith(f"busi: {tmp_path}: not inside a study")
    assert list_files(tmp_path) == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-f", SMOKE, "-p", "epochs=1e-4"), "busi: parameters: epochs: got '1e-4' (str); should be a valid integer"),
        (("-f", SMOKE, "-p", "epochs=0"), "busi: parameters: epochs: got 0 (int); should be greater than or equal to"),
        (("-f", SMOKE, "-p", "epoch=5"), "busi: parameters: unknown parameter 'epoch'; known are image_size"),
        (("-f", SMOKE, "-p", "image_size=300.0"), "busi: parameters: image_size: got 300.0 (float)"),
        (("-f", SMOKE, "-p", "image_size=256"), "busi: parameters: image_size: got 256; with 'valid' padding the"),
        (("-f", SMOKE, "-p", "epochs"), "busi: -p epochs: expected NAME=VALUE, e.g. -p epochs=5"),
        (("-f", "params/gone.yaml"), "busi: params/gone.yaml: no such parameter file; in this folder there are: data,"),
        (("-f", SMOKE, "-p", "settings={learning_rate: 1e-4}"), "learning_rate: got '1e-4' (str)"),
        (("-f", SMOKE, "-p", "seeds=[0"), "busi: -p seeds: got '[0', which is not YAML; expected e.g. epochs=5"),
    ],
)
def test_a_mistake_in_the_parameters_is_told_in_one_message(capsys, arguments, message):
    told = busi("train", BASELINE, *arguments)
    assert message in told  # sys.exit prints a message and exits with 1
    assert "\n" not in told
    assert capsys.readouterr() == ("", "")


def test_missing_external_images_are_asked_for_before_anything_is_measured(here, phantom_dir, capsys):
    assert busi("data", "-f", SMOKE, "-p", f"data_dir={phantom_dir}", "-p", "external_dir=elsewhere") == 2
    assert f"{here / 'elsewhere'}: no such folder" in capsys.readouterr().err
    assert list_files(here) == set()


def test_missing_images_are_asked_for_and_nothing_is_written(here, capsys):
    assert busi("train", BASELINE, "-f", SMOKE, "-p", "data_dir=images") == 2
    assert (
        capsys.readouterr().err == f"busi: {here / 'images'}: no such folder; give the folder that holds the images\n"
    )
    label = "published/188px-2f-1e/baseline/fold0-seed0"
    told = busi("train", label, "-f", "params/laptop.yaml", *TINY)
    assert told.startswith("busi: data_dir: not given; expected a folder of images")
    assert list_files(here) == set()


def test_a_missing_notebook_profile_or_report_is_told(here):
    notebook = here / "executed" / "3_loss.ipynb"
    told = busi("page", notebook, here / "reports" / "smoke" / "3_loss.html", "-f", SMOKE)
    assert told.startswith(f"busi: {notebook}: no such notebook; ")
    assert "huge.yaml: no such parameter file" in busi("index", "-f", "params/huge.yaml")
    assert "huge.yaml: no such parameter file" in busi("readme", "--profile", "huge")
    assert list_files(here) == set()


def test_without_a_parameters_file_the_usage_is_shown(capsys):
    assert busi("train", BASELINE) == 2
    assert "Missing option '-f' / '--parameters-file'" in capsys.readouterr().err


# Notebooks and images


@pytest.mark.parametrize("notebook", sorted((REPOSITORY / "notebooks").glob("*.ipynb")), ids=lambda file: file.stem)
def test_papermill_finds_type_default_and_meaning_of_every_parameter(notebook):
    """They are what `papermill --help-notebook` shows."""
    cell = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]
    declared = [re.fullmatch(r"(\w+): (\w+) = (.+?)  # (.+)", line.strip()).groups() for line in cell["source"]]
    found = papermill.inspect_notebook(str(notebook)).values()
    assert [(each["name"], each["inferred_type_name"], each["default"], each["help"]) for each in found] == declared


def test_verify_counts_phantom_images_and_warns_that_they_are_not_the_release(phantom_dir, capsys):
    with pytest.warns(CountWarning) as warned:
        assert busi("verify", phantom_dir) == 0
    assert [str(each.message).removeprefix(f"{phantom_dir}/") for each in warned] == [
        "benign: 6 images, the release has 437",
        "malignant: 4 images, the release has 210",
        "normal: 2 images, the release has 133",
    ]
    out = capsys.readouterr().out
    assert out.splitlines()[:3] == [
        "layout: busi ({kind}/{key} | {kind}/{key}_mask{n})",
        "masks: 11 black and white, 2 empty",
        "groups: near-duplicates (no patients are named)",
    ]
    assert [line.split() for line in out.splitlines()[4:7]] == [["benign", "6"], ["malignant", "4"], ["normal", "2"]]
    assert f"whole; fingerprint {read_catalog(phantom_dir, expected=None).fingerprint}\n" in out


def test_verify_says_how_patients_are_named(here, phantom_dir, capsys):
    for kind, end in (("scans", ""), ("outlines", "_mask")):
        (here / "set" / kind).mkdir(parents=True)
        for k in range(1, 5):
            source = phantom_dir / "malignant" / f"malignant ({k}){end}.png"
            shutil.copy(source, here / "set" / kind / f"p{k // 3} {k}.png")
    assert busi("verify", here / "set", "--layout", "scans/{group} {key} | outlines/{group} {key}") == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[:3] == [
        "layout: scans/{group} {key} | outlines/{group} {key}",
        "masks: 4 black and white",
        "groups: 2 patients",
    ]
    assert err == ""


def test_a_warning_is_one_line(phantom_dir, tmp_path):
    """Python would add the line of source that warns."""
    folder = shutil.copytree(phantom_dir, tmp_path / "few")
    shutil.rmtree(folder / "normal")
    told = run_without((), "verify", folder)
    assert told.returncode == 0
    assert [line.split(": ")[:2] for line in told.stderr.splitlines()] == [["busi", "warning"]] * 3


def test_phantom_draws_what_is_asked_for_and_never_over_another_folder(here, capsys):
    folder = here / "drawn"
    assert busi("phantom", folder, "--benign", 1, "--malignant", 0, "--normal", 2, "--seed", 3) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert {file.name for file in folder.rglob("*.png") if "_mask" not in file.name} == {
        *("benign (1).png", "normal (1).png", "normal (2).png")
    }
    assert busi("phantom", folder).startswith(f"busi: {folder}: exists")


def test_data_measures_what_the_report_needs_of_the_images(here, quarters_dir):
    command = ("data", "-f", SMOKE, "-p", f"data_dir={quarters_dir}", "-p", "image_size=188")
    folder = "reports/smoke/results"
    assert busi(*command, "--images-only") == 0
    assert list_files(here) == {f"{folder}/dataset.csv"}
    assert busi(*command) == 0
    names = ["audit", "blind", "dataset", "duplicates", "files", "floors", "mean_mask", "split"]
    names += ["untrained/images", "untrained/pixels"]
    assert list_files(here) == {f"{folder}/{name}.csv" for name in names}
    assert len(study.measure_images(config.read_profile("smoke", train_missing=False))) == 34


# Runs


def test_train_finishes_a_run_and_finds_it_finished_the_second_time(here, phantom_dir, capsys):
    label = "published/188px-2f-1e/loss-dice/fold0-seed0"
    command = ("train", label, "-f", SMOKE, "-p", f"data_dir={phantom_dir}", *TINY)
    assert busi(*command) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder.parent == here / "runs" / "smoke" / Path(label).parent
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert stored["config"] == RunConfig(loss="dice", image_size=188, base_filters=2, epochs=1).model_dump()
    before = (folder / "state.weights.h5").stat().st_mtime_ns
    assert busi(*command) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert (folder / "state.weights.h5").stat().st_mtime_ns == before


def test_a_run_that_cannot_be_written_is_named_and_the_others_go_on(here, phantom_dir, capsys):
    labels = [f"published/188px-2f-1e/{name}/fold0-seed0" for name in ("loss-kld", "loss-dice")]
    in_the_way = here / "runs" / "smoke" / "published" / "188px-2f-1e" / "loss-kld"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    told = busi("train", *labels, "-f", SMOKE, "-p", f"data_dir={phantom_dir}", *TINY)
    assert told == (
        f"busi: {labels[0]}: [Errno 17] File exists: '{in_the_way}'; fix this and rerun: finished epochs are kept"
    )
    assert capsys.readouterr().out.startswith(str(in_the_way.with_name("loss-dice")))


HELDOUT_LABEL = "heldout/32px-2f-1e/baseline/fold0-seed0"


@pytest.fixture(scope="module")
def trained_study(tmp_path_factory, quarters_dir):
    """Train a held-out and a published run; return their study, and the arguments that name their settings."""
    heldout = "heldout={image_size: 32, base_filters: 2, epochs: 1}"
    arguments = ("-f", "params/smoke.yaml", "-p", f"data_dir={quarters_dir}", "-p", heldout, *TINY)
    folder = link_study(tmp_path_factory.mktemp("trained") / "study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert busi("train", HELDOUT_LABEL, "published/188px-2f-1e/loss-kld/fold0-seed0", *arguments) == 0
    return folder, arguments


@pytest.fixture
def trained(here, trained_study):
    """Copy these runs, and what was read of the images, into the current study; return the arguments."""
    folder, arguments = trained_study
    for name in ("runs", "build"):
        shutil.copytree(folder / name, here / name)
    return arguments


def test_plan_counts_what_train_has_done_and_estimates_the_rest(here, trained, capsys):
    before = list_files(here)
    assert busi("plan", *trained, "--jobs", 3) == 0
    counted, left, *unknown = capsys.readouterr().out.splitlines()
    # At these sizes some runs of the sections are those of families.
    parameters = cli._read_options([Path(SMOKE)], [argument for argument in trained[3:] if argument != "-p"])
    runs = len(study.list_runs(parameters))
    assert counted.startswith("smoke: ")
    assert re.findall(r"\d+ \w+", counted) == [f"{runs} runs", "2 finished", "0 in", f"{runs - 2} not"]
    # Runs of the sections at the same sizes are timed by them, too.
    timed = re.search(r" on 3 workers .* of training in (\d+) runs,", left)
    untimed = [int(re.search(r"unknown time: (\d+) runs ", line)[1]) for line in unknown]
    assert untimed and int(timed[1]) + sum(untimed) == runs - 2
    assert busi("plan", *trained, "--runs") == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()[-runs:]]
    assert [run for run, *_ in listed] == list(study.list_runs(parameters))
    assert [state for _, state, *_ in listed].count("finished") == 2
    assert list_files(here) == before


def test_score_and_gather_put_the_results_of_finished_runs_into_the_report(here, trained, capsys):
    labels = (HELDOUT_LABEL, "published/188px-2f-1e/loss-kld/fold0-seed0", "heldout/32px-2f-1e/loss-dice/fold0-seed0")
    assert busi("score", *labels, *trained) == 0
    # The third has not been trained.
    assert capsys.readouterr().out == "".join(f"{label}: scored\n" for label in labels[:2])
    assert len(list(here.glob("runs/smoke/heldout/*/baseline/*/scores-*/images.csv"))) == 1
    assert busi("gather", *trained) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "published/loss: 1 of 3 runs" in lines
    assert "heldout/loss: 1 of 5 runs" in lines
    assert "heldout/upsampling: 1 of 5 runs" in lines
    assert "published/data: 0 of 2 runs" in lines
    parameters = config.read_profile("smoke")
    assert results.read_results(parameters, "heldout/loss").variants == ["BCE"]
    assert results.read_results(parameters, "published/loss").variants == ["KLD"]


def test_train_leaves_a_run_alone_whose_results_are_gathered(here, trained, capsys):
    assert busi("gather", *trained) == 0
    shutil.rmtree(here / "runs")
    capsys.readouterr()
    assert busi("train", HELDOUT_LABEL, *trained) == 0
    assert capsys.readouterr().out == f"{HELDOUT_LABEL}: its results are in {here / 'reports' / 'smoke' / 'results'}\n"
    assert not list(here.glob("runs/**/*.h5"))


def test_a_trained_run_predicts_is_evaluated_and_exported_by_its_name(here, trained, quarters_dir, capsys):
    scans = here / "scans"
    scans.mkdir()
    # Of its own data set, a run is evaluated only on what it held out.
    tested = [name for name in open_run(HELDOUT_LABEL).predictions["test"].names if "normal" not in name]
    for name in tested[:2]:
        shutil.copy(quarters_dir / name.split()[0] / f"{name}.png", scans)
    (here / "runs").rename(here / "elsewhere")
    elsewhere = ("--runs-dir", "elsewhere")
    (scans / "torn.png").write_bytes((scans / f"{tested[0]}.png").read_bytes()[:200])
    assert busi("predict", HELDOUT_LABEL, scans, "--out", here / "predicted", *elsewhere) == 1
    out, err = capsys.readouterr()
    assert out == f"2 of 3 images: {here / 'predicted' / 'predictions.csv'}\n"
    assert f"busi: {scans / 'torn.png'}: not a readable image" in err
    told = busi("predict", HELDOUT_LABEL, scans, "--out", here / "predicted", *elsewhere)
    assert told.startswith(f"busi: {here / 'predicted'}: not empty")
    masks = ("--masks", here / "predicted" / "masks")
    assert busi("evaluate", HELDOUT_LABEL, quarters_dir, *masks, "--out", here / "evaluation", *elsewhere) == 0
    scores = pd.read_csv(here / "evaluation" / "scores.csv")
    assert scores.predictor.tolist()[:2] == [HELDOUT_LABEL, str(masks[1])]
    assert scores.answered.tolist()[1:] == [2, 34, 34, 34]
    assert scores.n_images.tolist() == [2] * 5
    assert busi("export", HELDOUT_LABEL, "--out", here / "network.keras", *elsewhere) == 0
    assert (here / "network.keras.md").is_file()


def test_without_a_name_the_mean_of_the_recipe_s_runs_predicts_and_they_are_named(here, trained, quarters_dir, capsys):
    """The trained run stands for that of every fold: the mean of equal answers is each of them."""
    run = open_run(HELDOUT_LABEL)
    recipe = study.find_group(config.read_profile("laptop"), "mechanisms/recipe")
    *_, rung = recipe.variants.values()
    for number, each in enumerate(rung):
        shutil.copytree(run.folder, here / "runs" / "laptop" / f"{each.label}-{number:08}")
    image = quarters_dir / "benign" / "benign (1).png"
    assert busi("predict", HELDOUT_LABEL, image, "--out", here / "one") == 0
    assert HELDOUT_LABEL not in capsys.readouterr().err
    assert busi("predict", image, "--out", here / "mean") == 0
    assert capsys.readouterr().err.count(HELDOUT_LABEL) == len(rung) == 5
    one, mean = (pd.read_csv(here / out / "predictions.csv").drop(columns="seconds") for out in ("one", "mean"))
    pd.testing.assert_frame_equal(mean, one)


def test_the_run_that_the_readme_names_is_one_of_the_smallest_study():
    (label,) = re.findall(r"^RUN=(\S+)", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert label in study.list_runs(config.read_profile("smoke"))


def test_predicting_without_a_run_says_how_to_get_one(here, quarters_dir):
    told = busi("predict", quarters_dir, "--out", here / "out")
    assert told.startswith(f"busi: no rung of the recipe has been trained in all folds in {here / 'runs'}; ")
    told = busi("predict", HELDOUT_LABEL, quarters_dir, "--out", here / "out")
    assert told.startswith(f"busi: {HELDOUT_LABEL}: neither") and "`make study`" in told
    assert list_files(here) == set()


def test_split_and_convert_write_what_other_software_reads_and_never_over_it(here, quarters_dir, capsys):
    assert busi("split", quarters_dir, "--format", "nnunet") == 0
    assert len(json.loads((here / "splits_final.json").read_text(encoding="utf-8"))) == 5
    assert busi("split", quarters_dir, "--format", "nnunet").startswith("busi: splits_final.json: exists")
    assert busi("convert", quarters_dir, here / "raw", "--layout", "nnunet") == 0
    assert len(list((here / "raw" / "labelsTr").glob("*.png"))) == 34
    assert busi("convert", quarters_dir, here / "raw", "--layout", "images-masks").startswith("busi: ")


def test_splits_of_other_data_are_never_replaced(here, quarters_dir):
    """Neither where --out is given without --format."""
    (here / "params").unlink()
    committed = shutil.copytree(REPOSITORY / "params", here / "params")
    before = {file.name: file.read_bytes() for file in committed.iterdir()}
    told = busi("split", quarters_dir, "--out", here / "folds.csv")
    assert told.startswith(f"busi: --out: got {here / 'folds.csv'} without --format; expected both")
    assert busi("split", quarters_dir).startswith(
        f"busi: {committed / 'splits-random.csv'}: holds the split of other data"
    )
    assert {file.name: file.read_bytes() for file in committed.iterdir()} == before
    assert list_files(here) == set()


def test_a_layout_is_told_to_every_command_that_reads_a_folder(here, quarters_dir, capsys):
    """Names that no layout knows: scan1.png with its mask mark1.png."""
    folder = here / "own"
    folder.mkdir()
    for number in range(1, 19):
        shutil.copy(quarters_dir / "benign" / f"benign ({number}).png", folder / f"scan{number}.png")
        shutil.copy(quarters_dir / "benign" / f"benign ({number})_mask.png", folder / f"mark{number}.png")
    layout = "scan{number} | mark{number}"
    commands = {
        "verify": ("--layout", layout),
        "split": ("--format", "json", "--out", here / "folds.json", "--layout", layout),
        "convert": (here / "raw", "--layout", "images-masks", "--from", layout),
    }
    for command, options in commands.items():
        assert busi(command, folder, *options) == 0
        assert busi(command, folder, *options[:-2]) == 2
        assert "no layout pairs images with masks" in capsys.readouterr().err
    assert len(list((here / "raw").rglob("*.png"))) == 36
    evaluated = ("evaluate", "--masks", here / "raw" / "masks", folder, "--out", here / "evaluation")
    assert busi(*evaluated) == 2
    assert busi(*evaluated, "--layout", layout) == 0
    # The merged masks against themselves.
    assert pd.read_csv(here / "evaluation" / "scores.csv").dice[0] == 1


NEW_METRIC = '''    return overlap | surface | {"detected"'''


def test_a_new_metric_is_computed_for_finished_runs_without_keras(here, trained, tmp_path):
    """The package is copied and a metric is added to the copy, in one file."""
    assert busi("gather", *trained) == 0
    before = results.read_results(config.read_profile("smoke"), "heldout/loss")
    weights = {file: file.stat().st_mtime_ns for file in here.glob("runs/**/*.h5")}
    shutil.copytree(REPOSITORY / "busi", tmp_path / "copy" / "busi", ignore=shutil.ignore_patterns("__pycache__"))
    metrics = tmp_path / "copy" / "busi" / "scoring" / "metrics.py"
    text = metrics.read_text(encoding="utf-8")
    assert text.count(NEW_METRIC) == 1
    metrics.write_text(
        text.replace(NEW_METRIC, '    return {"lesion": int(truth.sum())} | overlap | surface | {"detected"')
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "copy")}
    for arguments in (("score", HELDOUT_LABEL, *trained), ("gather", *trained)):
        done = run_without(BACKENDS, *arguments, cwd=here, env=environment)
        assert done.returncode == 0, done.stderr
    after = results.read_results(config.read_profile("smoke"), "heldout/loss")
    assert set(after.images.columns) - set(before.images.columns) == {"lesion"}
    pd.testing.assert_frame_equal(after.images[before.images.columns], before.images)
    described = study.measure_images(config.read_profile("smoke", data_dir=trained[3].partition("=")[2]))
    pixels = described.set_index("name").eval("height * width * lesion_share")
    lesions = after.images[after.images.image_class != "normal"]
    assert lesions.lesion.tolist() == pytest.approx(pixels[lesions.name].tolist(), abs=0.1)
    assert after.runs.scoring_version.tolist() != before.runs.scoring_version.tolist()
    assert {file: file.stat().st_mtime_ns for file in here.glob("runs/**/*.h5")} == weights


def test_ctrl_c_ends_training_in_the_middle_of_an_epoch(here, phantom_dir):
    """Python's own way, an exception that the command turns into an exit code, waits until TensorFlow comes back."""
    settings = ("epochs=1000", f"data_dir={phantom_dir}", "base_filters=2", "image_size=188")
    parameters = [argument for setting in settings for argument in ("-p", setting)]
    label = "published/188px-2f-1000e/baseline/fold0-seed0"
    program = "from busi.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", program, "train", label, "-f", SMOKE, *parameters]) as run:
        while run.poll() is None and not list(here.glob("runs/smoke/published/*/baseline/*.unfinished/epoch-*")):
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        assert run.wait() == -signal.SIGINT


def test_text_is_taken_as_it_is():
    """As YAML, "set #1" would be "set", 2024 a number, and a layout's braces a mapping."""
    parameters = cli._read_options(
        [Path(SMOKE)], ["data_dir=set #1", "report=2024", "layout={images}/{key} | {masks}/{key}"]
    )
    assert parameters.data_dir == "set #1" and parameters.report == "2024"
    assert parameters.layout == "{images}/{key} | {masks}/{key}"
    assert cli._read_options([Path(SMOKE)], ["seeds=[0, 1]", "epochs=3"]).seeds == [0, 1]


def test_a_place_that_cannot_be_written_is_one_message(tmp_path, quarters_dir):
    (tmp_path / "file").write_text("")
    advice = "give a folder in a place that can be written to"
    told = busi("phantom", tmp_path / "file" / "images")
    assert told == f"busi: {tmp_path}/file/images: cannot be made (Not a directory); {advice}"
    # Python's own message names the file, too.
    told = busi("split", quarters_dir, "--format", "csv", "--out", tmp_path / "file" / "folds.csv")
    assert told == f"busi: [Errno 20] Not a directory: '{tmp_path}/file/folds.csv'"


def test_a_file_that_is_no_notebook_makes_no_page(tmp_path):
    (tmp_path / "notes.txt").write_text("no JSON")
    message = busi("page", tmp_path / "notes.txt", tmp_path / "page.html", "-f", SMOKE)
    assert message == f"busi: {tmp_path}/notes.txt: not a notebook; expected one that papermill has executed"
    assert not (tmp_path / "page.html").exists()
