"""Targets of BUSI, which take seconds to make."""

import pytest

from busi.config import RunConfig
from busi.dataset.arrays import published_arrays
from busi.dataset.catalog import read_catalog


@pytest.fixture(scope="session")
def busi_targets(busi_dir):
    """Return the targets that the published rows are trained on."""
    return published_arrays(read_catalog(busi_dir), RunConfig()).targets
