"""Killed at random moments, a study ends as if nothing had happened; ``make test-faults`` kills a hundred times."""

import os
import subprocess
import time

import numpy as np
import pytest
from working_copy import WorkingCopy, kill

KILLS = int(os.environ.get("KILLS", 3))
STUDY = {"profile": "smoke"} if "KILLS" in os.environ else {"few": True}

SHARE = 0.25
"""The longest that a study is left alone, as a share of what the whole of it takes: enough for any of its jobs."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The tables of a study that nobody killed, and the seconds it took."""
    copy = WorkingCopy(tmp_path_factory.mktemp("reference") / "copy", **STUDY)
    start = time.monotonic()
    assert copy.study() == 0, copy.said()
    return copy.tables(), time.monotonic() - start


def killed(copy, workers, moments):
    """Start a study, kill it after each of ``moments`` (seconds) and start it again; the kills it took to its end."""
    for kills, moment in enumerate(moments):
        process = copy.start(JOBS=workers)
        try:
            assert process.wait(moment) == 0, copy.said()
            return kills
        except subprocess.TimeoutExpired:
            kill(process)
    assert copy.study(JOBS=workers) == 0, copy.said()
    return len(moments)


@pytest.mark.parametrize("workers", [1, 2] if "KILLS" in os.environ else [2])
def test_killed_at_random_moments_it_ends_with_the_same_tables(reference, workers, tmp_path):
    tables, seconds = reference
    moments = list(np.random.default_rng(workers).uniform(0, SHARE * seconds, KILLS))
    studies = 0
    while moments:
        copy = WorkingCopy(tmp_path / f"copy{studies}", **STUDY)
        kills = killed(copy, workers, moments)
        assert copy.tables() == tables
        print(f"{workers} worker(s), study {studies + 1}: ended after {kills} kills, {len(moments) - kills} are left")
        moments, studies = moments[kills:], studies + 1
