"""A study killed while it writes the results of a group loses none of them."""

import os
from pathlib import Path

import pandas as pd
import pytest
from small_study import Killed

from busi import results
from busi.config import Parameters
from busi.results import COLUMNS, Results

GROUP = "heldout/loss"


@pytest.fixture
def parameters(here):
    return Parameters()


def make_results(seed):
    """Make results of one run, all of whose values tell its seed."""
    tables = {}
    for name, columns in COLUMNS.items():
        row = dict.fromkeys(columns, f"{name}-{seed}") | {"variant": "BCE", "run": "heldout/baseline", "seed": seed}
        tables[name] = pd.DataFrame([row])
    return Results(**tables)


@pytest.mark.parametrize("before", [None, make_results(1)], ids=["first", "again"])
@pytest.mark.parametrize("files", range(len(COLUMNS)))
def test_killed_after_some_files_the_runs_are_those_from_before(parameters, monkeypatch, before, files):
    """The table of runs says what is there: it may name new runs only when all that belongs to them is written."""
    if before:
        results.write_results(parameters, GROUP, before)
    replace, done = Path.replace, []

    def replace_or_die(self, target):
        if len(done) == files:
            raise Killed
        done.append(target)
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace_or_die)
        with pytest.raises(Killed):
            results.write_results(parameters, GROUP, make_results(2))
    found = results.read_results(parameters, GROUP).runs
    assert found.seed.tolist() == ([1] if before else [])

    results.write_results(parameters, GROUP, make_results(2))
    folder = parameters.results_path / GROUP
    assert all(results.read_results(parameters, GROUP).tables[name].seed.tolist() == [2] for name in COLUMNS)
    assert sorted(os.listdir(folder)) == ["epochs.csv.xz", "images.csv.xz", "runs.csv"]
