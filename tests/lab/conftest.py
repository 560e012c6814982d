"""Two trained variants on small phantoms, in a repository of their own."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from busi import config, study
from busi.config import ROOT, Study
from busi.dataset import catalog, splits
from busi.dataset.catalog import Catalog
from busi.lab import networks
from busi.lab.networks import Variant

KLD, RAW = "loss: KLD", "data: No preprocess"


@dataclass(frozen=True)
class Laboratory:
    root: Path
    study: Study
    data: Catalog
    variants: dict[str, Variant]


def in_repository(folder, patch):
    for module in (config, catalog, splits):
        patch.setattr(module, "ROOT", folder)


@pytest.fixture(scope="session")
def trained(draw_quarters, tmp_path_factory):
    """Folds 0 and 1 of KLD, fold 0 of raw images; phantoms at a quarter of their size."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "params").symlink_to(ROOT / "params")
    draw_quarters(folder / "data" / "phantom")
    with pytest.MonkeyPatch.context() as patch:
        in_repository(folder, patch)
        size = {"image_size": 32, "base_filters": 2, "epochs": 4, "learning_rate": 0.05}
        asked = config.read(ROOT / "params" / "smoke.yaml", heldout=size, folds=[0, 1])
        data = catalog.of(asked)
        for label, folds in ((KLD, 2), (RAW, 1)):
            family, variant = label.split(": ")
            for run in config.related(asked, family).configs("heldout")[variant][:folds]:
                study.finished(run, data, study.store(asked))
        return Laboratory(folder, asked, data, networks.variants(asked, data))


@pytest.fixture
def laboratory(trained, monkeypatch):
    """The trained variants, for one test seen from their repository."""
    in_repository(trained.root, monkeypatch)
    return trained
