"""Two checkouts with one environment: a study belongs to the folder that its command runs in."""

import subprocess
import sys
from pathlib import Path

import pytest
from working_copy import WorkingCopy

RUN = "published/188px-2f-4e/loss-kld/fold0-seed0"


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory):
    """Make two copies of the repository; the environment's commands find the code of the first in both of them."""
    folder = tmp_path_factory.mktemp("checkouts")
    return WorkingCopy(folder / "first", few=True), WorkingCopy(folder / "second", few=True)


@pytest.fixture
def busi(checkouts):
    """Run the `busi` command in a folder, with the code of the first checkout."""
    first, _ = checkouts

    def run(folder, *arguments):
        command = [Path(sys.executable).with_name("busi"), *arguments]
        environment = first.environment() | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    return run


def list_files(folder):
    """List the files of a checkout with the time of their last change, without Python's caches."""
    files = {}
    for file in folder.rglob("*"):
        if file.is_file() and ".venv" not in file.parts and file.suffix != ".pyc":
            files[file.relative_to(folder).as_posix()] = file.stat().st_mtime_ns
    return files


def test_a_study_in_the_second_checkout_writes_nothing_into_the_first(checkouts, busi):
    first, second = checkouts
    before = list_files(first.folder)
    measured = busi(second.folder, "data", "-f", "params/tiny.yaml")
    assert measured.returncode == 0, measured.stderr
    trained = busi(second.folder, "train", RUN, "-f", "params/tiny.yaml")
    assert trained.returncode == 0, trained.stderr
    assert list_files(first.folder) == before
    assert (second.folder / "data" / "phantom" / "benign").is_dir()
    assert (second.folder / "reports/tiny/results/dataset.csv").is_file()
    assert trained.stdout.strip() == str(second.find_folder("published/loss-kld"))


def test_parameters_and_runs_are_those_of_the_current_folder(checkouts, busi):
    """Also from a folder inside of the study, such as that of the notebooks."""
    first, second = checkouts
    assert "tiny: 4 runs; 1 finished" in busi(second.folder, "plan", "-f", "params/tiny.yaml").stdout
    assert "tiny: 4 runs; 1 finished" in busi(second.folder / "notebooks", "plan", "-f", "../params/tiny.yaml").stdout
    assert "tiny: 4 runs; 0 finished" in busi(first.folder, "plan", "-f", "params/tiny.yaml").stdout


def test_snakemake_plans_in_the_second_checkout(checkouts):
    """The rules' files are named as the commands name them, whose code is the first checkout's."""
    first, second = checkouts
    before = list_files(first.folder)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--config", "profile=tiny"]
    done = subprocess.run(command, cwd=second.folder, env=first.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rule data:" not in done.stdout  # was measured here, in the first test
    assert "rule run:" in done.stdout
    assert list_files(first.folder) == before
