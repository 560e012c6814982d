"""Images for the tests of more than one room: real ones where they are at hand, phantoms where they are not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from small_study import make_study

from busi.dataset.phantom import draw_phantoms
from busi.scoring import statistics

REPOSITORY = Path(__file__).resolve().parent.parent


LONGEST = (
    "test_render.py",
    "test_notebooks.py",
    "test_training.py",
    "test_duplicates.py",
    "test_precision.py",
    "test_two_checkouts.py",
    "test_speed.py",
    "test_backends.py",
)
"""Files whose tests take longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first: one of them at the end would keep one worker busy and leave the other idle."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session")
def busi_dir() -> Path:
    """Return the BUSI release: BUSI_DATA_DIR, else ../shared/data/Dataset_BUSI_with_GT beside the repository."""
    given = os.environ.get("BUSI_DATA_DIR")
    if given:
        if not Path(given).is_dir():
            pytest.fail(f"BUSI_DATA_DIR={given}: no such folder; name the one that holds benign/, or unset it")
        # Tests change their folder.
        return Path(given).resolve()
    beside = REPOSITORY.parent / "shared" / "data" / "Dataset_BUSI_with_GT"
    if not beside.is_dir():
        pytest.skip("needs the BUSI release: set BUSI_DATA_DIR to its folder Dataset_BUSI_with_GT")
    return beside


@pytest.fixture
def few_resamples(monkeypatch):
    """Draw fewer resamples than for tables, where intervals are simulated by the hundred or far from any limit."""
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    statistics._draw_counts.cache_clear()
    yield
    statistics._draw_counts.cache_clear()


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory) -> Path:
    """Draw twelve phantom images in the layout of BUSI, for tests that only read them."""
    return draw_phantoms(tmp_path_factory.mktemp("data") / "phantom", benign=6, malignant=4, normal=2, seed=0)


@pytest.fixture(scope="session")
def quarters_dir(tmp_path_factory) -> Path:
    """Draw 34 phantom images at a quarter of their size, for tests that train and score."""
    drawn = draw_phantoms(tmp_path_factory.mktemp("quarters") / "phantom", benign=18, malignant=10, normal=6, seed=0)
    for file in drawn.glob("*/*.png"):
        with Image.open(file) as image:
            small = image.resize((image.width // 4, image.height // 4), Image.Resampling.NEAREST)
        small.save(file)
    return drawn


@pytest.fixture(scope="session")
def copy_quarters(quarters_dir) -> Callable[[Path], Path]:
    """Return a function that copies these images into a new folder, for tests whose study has images of its own."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(quarters_dir, folder))

    return copy


@pytest.fixture
def committed(monkeypatch) -> None:
    """Make the repository the current folder, for tests of the committed parameter files."""
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Make a study without parameters and notebooks the current folder and return it."""
    folder = make_study(tmp_path / "study")
    monkeypatch.chdir(folder)
    return folder
