"""A study of its own for the tests of this folder: their caches and splits stay out of the repository."""

import shutil
from pathlib import Path

import pytest
from small_study import make_study

from busi.dataset import catalog

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory) -> Path:
    """Make a study without splits; all modules share its cache, so that the release is decoded once."""
    folder = make_study(tmp_path_factory.mktemp("here") / "study")
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
