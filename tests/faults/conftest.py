"""The same study without any fault, for the tests of faults to compare with."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from working_copy import RUNS, WorkingCopy, epochs


class Undisturbed(NamedTuple):
    """A study that met no fault: its copy, its store as it was then, its tables."""

    copy: WorkingCopy
    runs: Path
    tables: dict[str, bytes]


@pytest.fixture(scope="session")
def every_epoch() -> dict[tuple[str, int], int]:
    """Return what `working_copy.epochs` counts where every epoch was trained exactly once."""
    return {(run, epoch): 1 for run, last in RUNS.items() for epoch in range(1, last + 1)}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, every_epoch) -> Undisturbed:
    """Run the study of few runs."""
    copy = WorkingCopy(tmp_path_factory.mktemp("undisturbed") / "copy", few=True)
    assert copy.study() == 0, copy.said()
    assert epochs(copy.said()) == every_epoch
    runs = shutil.copytree(copy.runs, copy.folder.parent / "runs")
    return Undisturbed(copy, runs, copy.tables())


@pytest.fixture
def copy(tmp_path) -> WorkingCopy:
    """Make a fresh copy with the same study; whatever a test leaves running in it is ended."""
    copy = WorkingCopy(tmp_path / "copy", few=True)
    yield copy
    for process in copy.processes():
        process.kill()
