"""Two trained variants on small phantoms, in a study of their own."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from busi import config, study
from busi.config import Parameters
from busi.dataset.catalog import Catalog, load_catalog
from busi.lab import networks
from busi.lab.networks import Variant

REPOSITORY = Path(__file__).parents[2]

KLD, RAW = "loss: KLD", "data: No preprocess"
TRAINED = {KLD: 2, RAW: 1}
"""Variant -> how many of its folds are trained."""


@dataclass(frozen=True)
class Laboratory:
    root: Path
    parameters: Parameters
    catalog: Catalog
    variants: dict[str, Variant]


@pytest.fixture(scope="session")
def trained(copy_quarters, tmp_path_factory):
    """Folds 0 and 1 of KLD, fold 0 of raw images; phantoms at a quarter of their size."""
    folder = tmp_path_factory.mktemp("study")
    for name in ("params", "notebooks"):
        (folder / name).symlink_to(REPOSITORY / name)
    copy_quarters(folder / "data" / "phantom")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        size = {"image_size": 32, "base_filters": 2, "epochs": 4, "learning_rate": 0.05}
        parameters = config.read_profile("smoke", heldout=size, folds=[0, 1])
        catalog = load_catalog(parameters)
        store = study.open_store(parameters, catalog)
        groups = study.find_groups(parameters)
        for label, folds in TRAINED.items():
            family, _, variant = label.partition(": ")
            for run in groups[f"heldout/{family}"].variants[variant][:folds]:
                study.find_or_train(run, catalog, store)
        return Laboratory(folder, parameters, catalog, networks.find_variants(parameters, catalog))


@pytest.fixture
def laboratory(trained, monkeypatch):
    """The trained variants, for one test that runs in their study's folder."""
    monkeypatch.chdir(trained.root)
    return trained
