"""What the tests of faults compare with: the same study, undisturbed."""

import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from working_copy import WorkingCopy, epochs


class Undisturbed(NamedTuple):
    """A study that met no fault: its copy, its store as it was, its tables, and how often each epoch was trained."""

    copy: WorkingCopy
    runs: Path
    tables: dict[str, bytes]
    epochs: Counter


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Undisturbed:
    """Three runs and one page."""
    copy = WorkingCopy(tmp_path_factory.mktemp("undisturbed") / "copy", few=True)
    assert copy.study() == 0, copy.said()
    runs = shutil.copytree(copy.runs, copy.folder.parent / "runs")
    return Undisturbed(copy, runs, copy.tables(), epochs(copy.said()))


@pytest.fixture
def copy(tmp_path) -> WorkingCopy:
    """A fresh copy with the same study; whatever a test leaves at work in it is ended."""
    copy = WorkingCopy(tmp_path / "copy", few=True)
    yield copy
    for process in copy.processes():
        process.kill()
