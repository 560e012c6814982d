"""A study of its own for the tests of this folder: their caches and splits stay out of the repository."""

import shutil
from pathlib import Path

import pytest

from busi.dataset import catalog

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory) -> Path:
    """Make a study without splits; all modules share its cache, so that the release is decoded once."""
    folder = make_study(tmp_path_factory.mktemp("study"))
    shutil.copy(REPOSITORY / "params" / "near-duplicates.csv", folder / "params")
    return folder


@pytest.fixture(autouse=True, scope="module")
def inside_study(study_folder):
    """Run a module's tests inside the study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study_folder)
        yield


@pytest.fixture(autouse=True)
def untold():
    """Have every warning about a folder shown again."""
    catalog._warn_once.cache_clear()


@pytest.fixture
def other_study(tmp_path, monkeypatch) -> Path:
    """Make an empty study for one test, without splits, and run the test inside it."""
    folder = tmp_path / "study"
    folder.mkdir()
    make_study(folder)
    monkeypatch.chdir(folder)
    return folder


def make_study(folder: Path) -> Path:
    """Make ``folder`` a study: a folder with params/ and notebooks/."""
    for name in ("params", "notebooks"):
        (folder / name).mkdir()
    return folder
