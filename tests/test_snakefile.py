"""The study as a graph of jobs: what its commands are given. No job is run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

from busi import cli, study

REPOSITORY = Path(__file__).resolve().parents[1]


def list_commands(**settings) -> str:
    """Return the commands that a study of real images would run."""
    pairs = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", "--nolock", "--cores", "1"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command += ["--config", "profile=laptop", "data_dir=/images", *pairs]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True).stdout


def test_braces_of_a_layout_and_numbers_as_names_reach_every_command():
    layout = "scans/{key} | outlines/{key}_lesion"
    commands = list_commands(layout=layout, report="2024")
    assert f"-r layout '{layout}'" in commands
    assert f"-p 'layout={layout}'" in commands
    assert "-r report 2024 notebooks/3_loss.ipynb build/2024/3_loss.ipynb" in commands
    # A dry run waits for no lock, and makes nothing.
    assert not (REPOSITORY / "build" / "2024").exists()


def test_tables_are_measured_again_after_a_change_of_any_module_that_measures_them(monkeypatch):
    modules = set()

    def note(parameters, name, make, *, code=(), **_):
        modules.update([*code, sys.modules[make.__module__]])
        return pd.DataFrame(columns=["files", "floor", "value"])

    monkeypatch.setattr(study, "measure", note)
    monkeypatch.chdir(REPOSITORY)
    cli.data([Path("params/laptop.yaml")])
    rule = re.search(r"rule data:.*?code_version\((.*?)\)", Path("Snakefile").read_text(encoding="utf-8"), re.DOTALL)
    # The catalog is that of the rule before, whose table is an input of this one.
    assert {*rule[1].split(", "), "catalog"} == {module.__name__.rpartition(".")[2] for module in modules - {study}}
