"""Command line of the benchmarks, with the measurements replaced."""

import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmarks import __main__ as command
from busi.config import StudyError


@pytest.fixture
def invoke(here, monkeypatch):
    """Run the command in an empty study."""
    monkeypatch.setattr(command.record, "describe_environment", lambda: {"cores": 2})

    def invoke(*arguments):
        return CliRunner().invoke(command.app, arguments)

    return invoke


def test_help_imports_nothing_that_it_measures_with(repository):
    code = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(('keras', 'tensorflow', 'snakemake')))\n"
        "sys.argv = ['benchmarks', '--help']\n"
        "runpy.run_module('benchmarks', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[default: 64, 16]" in done.stdout


def test_tables_are_written_into_the_study_of_the_current_folder(invoke, here, monkeypatch):
    plans = pd.DataFrame({"runs": [100], "seconds": [2.5]})
    monkeypatch.setattr(command.growth, "measure", lambda: {"plans": plans})
    done = invoke("growth")
    assert done.exit_code == 0, done.output
    assert (here / "reports/benchmark/plans.csv").read_text() == "runs,seconds\n100,2.5\n"
    assert "| 100 | 2.5 |" in (here / "reports/benchmark/README.md").read_text()


def test_precision_trains_the_profile_that_it_is_given(invoke, monkeypatch):
    given = {}

    def read_profile(name, **overrides):
        given.update(overrides, name=name)
        raise StudyError("stop here")

    monkeypatch.setattr(command.config, "read_profile", read_profile)
    done = invoke("precision", "--profile", "laptop", "--data-dir", "busi", "--runs-dir", "elsewhere")
    assert isinstance(done.exception, StudyError)
    assert given == {"name": "laptop", "data_dir": "busi", "runs_dir": "elsewhere"}


def test_an_unknown_part_is_refused(invoke):
    done = invoke("speed", "sped")
    assert done.exit_code == 2
    output = " ".join(done.output.replace("│", "").split())
    assert "'sped' is not one of 'speed', 'profile', 'growth', 'precision'" in output
