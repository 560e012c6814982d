"""Two checkouts with one environment: a study belongs to the folder that its command runs in."""

import subprocess
import sys
from pathlib import Path

import pytest
from working_copy import WorkingCopy

RUN = "published/188px-2f-4e/loss-kld/fold0-seed0"


PHANTOMS = "benign=60, malignant=30, normal=10"
"""Numbers of phantoms in the code that draws a study's images."""


def busi(code, folder, *arguments):
    """Run the `busi` command in a folder, with the code of a checkout."""
    command = [Path(sys.executable).with_name("busi"), *arguments]
    environment = code.environment() | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def list_files(folder):
    """List the files of a checkout with the time of their last change, without Python's caches."""
    files = {}
    for file in folder.rglob("*"):
        if file.is_file() and ".venv" not in file.parts and file.suffix != ".pyc":
            files[file.relative_to(folder).as_posix()] = file.stat().st_mtime_ns
    return files


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory):
    """Measure the data and train a run in one copy of the repository with the code of another.

    Returns:
        The copy with the code, those of its files that are new or changed, the other copy, and what training said.
    """
    folder = tmp_path_factory.mktemp("checkouts")
    first, second = WorkingCopy(folder / "first", few=True), WorkingCopy(folder / "second", few=True)
    # A hundred phantoms take many times as long to draw and to measure.
    catalog = first.folder / "busi" / "dataset" / "catalog.py"
    text = catalog.read_text(encoding="utf-8")
    assert text.count(PHANTOMS) == 1
    catalog.write_text(text.replace(PHANTOMS, "benign=16, malignant=8, normal=4"), encoding="utf-8")
    before = list_files(first.folder)
    for command in (["data"], ["train", RUN]):
        done = busi(first, second.folder, *command, "-f", "params/tiny.yaml")
        assert done.returncode == 0, done.stderr
    return first, list_files(first.folder).items() - before.items(), second, done.stdout


def test_a_study_in_the_second_checkout_writes_nothing_into_the_first(checkouts):
    _, changed, second, said = checkouts
    assert changed == set()
    assert (second.folder / "data" / "phantom" / "benign").is_dir()
    assert (second.folder / "reports/tiny/results/dataset.csv").is_file()
    assert said.strip() == str(second.find_folder("published/loss-kld"))


def test_parameters_and_runs_are_those_of_the_current_folder(checkouts):
    """Also from a folder inside of the study, such as that of the notebooks."""
    first, _, second, _ = checkouts
    for folder, file, finished in (
        (second.folder, "params/tiny.yaml", 1),
        (second.folder / "notebooks", "../params/tiny.yaml", 1),
        (first.folder, "params/tiny.yaml", 0),
    ):
        assert f"tiny: 4 runs; {finished} finished" in busi(first, folder, "plan", "-f", file).stdout


def test_snakemake_plans_in_the_second_checkout(checkouts):
    """The rules' files are named as the commands name them, whose code is the first checkout's."""
    first, _, second, _ = checkouts
    before = list_files(first.folder)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--config", "profile=tiny"]
    done = subprocess.run(command, cwd=second.folder, env=first.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rule data:" not in done.stdout  # they have been measured here
    assert "rule run:" in done.stdout
    assert list_files(first.folder) == before
