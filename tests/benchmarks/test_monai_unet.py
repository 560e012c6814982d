"""MONAI's U-Net on phantoms, where MONAI is installed: it is in no environment of the study."""

import numpy as np
import pytest
from PIL import Image

from busi.dataset.catalog import read_catalog
from busi.scoring import ruler

pytest.importorskip("monai")

from benchmarks import monai_unet


def test_every_image_gets_one_mask_of_its_size(copy_quarters, tmp_path, monkeypatch):
    monkeypatch.setattr(monai_unet, "EPOCHS", 1)
    catalog = read_catalog(copy_quarters(tmp_path / "phantom"), expected=None)
    out = tmp_path / "masks"
    out.mkdir()
    monai_unet.write_masks(catalog, 32, out)
    assert sorted(file.stem for file in out.iterdir()) == sorted(catalog.table.name)
    for row in catalog.table.itertuples():
        with Image.open(out / f"{row.name}.png") as mask:
            assert mask.size == (row.width, row.height)
            assert set(np.unique(mask)) <= {0, 255}
    assert len(list(ruler.read_masks(catalog, out))) == len(catalog.table)
