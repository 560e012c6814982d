"""A study killed at random moments ends as if nothing had happened; ``make test-faults`` kills a hundred times."""

import os
import subprocess
import time

import numpy as np
import pytest
from working_copy import WorkingCopy, kill

KILLS = int(os.environ.get("KILLS", 3))
FEW = "KILLS" not in os.environ

SHARE = 0.25
"""Longest time between two kills as a share of what the whole study takes: enough for any of its jobs."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Run a study that nobody kills; return its tables and the seconds that it took."""
    copy = WorkingCopy(tmp_path_factory.mktemp("reference") / "copy", few=FEW)
    start = time.monotonic()
    assert copy.study() == 0, copy.said()
    return copy.tables(), time.monotonic() - start


def count_kills(copy, workers, moments):
    """Start a study, kill it after each of ``moments`` (seconds) and start it again; return the kills until its end."""
    for kills, moment in enumerate(moments):
        process = copy.start(JOBS=workers)
        try:
            assert process.wait(moment) == 0, copy.said()
            return kills
        except subprocess.TimeoutExpired:
            kill(process)
    assert copy.study(JOBS=workers) == 0, copy.said()
    return len(moments)


@pytest.mark.parametrize("workers", [2] if FEW else [1, 2])
def test_killed_at_random_moments_it_ends_with_the_same_tables(reference, workers, tmp_path):
    tables, seconds = reference
    moments = list(np.random.default_rng(workers).uniform(0, SHARE * seconds, KILLS))
    studies = 0
    while moments:
        copy = WorkingCopy(tmp_path / f"copy{studies}", few=FEW)
        kills = count_kills(copy, workers, moments)
        assert copy.tables() == tables
        moments = moments[kills:]
        studies += 1
        print(f"{workers} worker(s), study {studies}: ended after {kills} kills, {len(moments)} are left")
