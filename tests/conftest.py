"""What tests of more than one room need: images, real where they are at hand and drawn where they are not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from busi.config import ROOT
from busi.dataset import phantom


@pytest.fixture(scope="session")
def busi_dir() -> Path:
    """The BUSI release: BUSI_DATA_DIR, else ../shared/data/Dataset_BUSI_with_GT seen from the repository."""
    given = os.environ.get("BUSI_DATA_DIR")
    if given:
        if not Path(given).is_dir():
            pytest.fail(f"BUSI_DATA_DIR={given}: no such folder; name the one that holds benign/, or unset it")
        return Path(given)
    beside = ROOT.parent / "shared" / "data" / "Dataset_BUSI_with_GT"
    if not beside.is_dir():
        pytest.skip("needs the BUSI release: set BUSI_DATA_DIR to its folder Dataset_BUSI_with_GT")
    return beside


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory) -> Path:
    """Twelve phantom images in the layout of BUSI, for tests that only read them."""
    return phantom.draw(tmp_path_factory.mktemp("data") / "phantom", benign=6, malignant=4, normal=2, seed=0)


@pytest.fixture(scope="session")
def draw_quarters() -> Callable[[Path], Path]:
    """Draws 34 phantom images of a quarter of their size into a folder, for tests that train and score on them."""

    def draw(folder: Path) -> Path:
        drawn = phantom.draw(folder, benign=18, malignant=10, normal=6, seed=0)
        for file in drawn.glob("*/*.png"):
            with Image.open(file) as image:
                small = image.resize((image.width // 4, image.height // 4), Image.Resampling.NEAREST)
            small.save(file)
        return drawn

    return draw
