"""The study as a graph of jobs: what its commands are given. No job is run."""

import os
import subprocess
import sys
from pathlib import Path

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
