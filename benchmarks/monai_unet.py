"""Peer: MONAI's U-Net on this study's folds, for the ruler of `busi evaluate` and the section `busi.mechanisms.peers`.

Network, loss, optimizer, rate and batch are those of MONAI's tutorial on 2D segmentation (2d_segmentation/torch,
unet_training_array.py), untuned. Folds, images, scaling, epochs, patience and threshold are those of this study's
held-out baseline, which is not augmented either. MONAI needs PyTorch, and is in no environment of the study:

    pip install monai
    python -m benchmarks.monai_unet DATA_DIR "runs/laptop/peers/MONAI U-Net, 64 pixels, 16 to 256 channels, Dice loss" \
        --size 64

The report calls a peer by the name of its folder, which should say how large it is.
"""

import argparse
from pathlib import Path

import monai
import numpy as np
import torch
from PIL import Image

from busi import selection
from busi.config import FOLDS, RunConfig
from busi.dataset.arrays import restore
from busi.dataset.catalog import Catalog, read_catalog
from busi.dataset.parts import Parts, load_parts, read_truths

BATCH = 4
RATE = 1e-3
EPOCHS = 150  # at most, as in params/laptop.yaml


def build() -> torch.nn.Module:
    """Build the tutorial's network: five levels of 16 to 256 channels with two residual units each."""
    return monai.networks.nets.UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    )


def train(parts: Parts, seed: int, patience: int) -> torch.nn.Module:
    """Train on the training part; return the network of the epoch with the best Dice on the validation part."""
    monai.utils.set_determinism(seed)
    network = build()
    loss = monai.losses.DiceLoss(sigmoid=True)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    images, targets = to_tensor(parts.training.images), to_tensor(parts.training.targets[..., :1])
    history, best = [], {}
    for epoch in range(1, EPOCHS + 1):
        network.train()
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            loss(network(images[rows]), targets[rows]).backward()
            optimizer.step()
        probability = predict(network, parts.validation.images)
        dice = selection.dice_by_threshold(parts.validation.targets[..., 0], probability).max()
        history.append({"validation_dice": float(dice)})
        if selection.best_epoch(history) == epoch:
            best = {name: values.clone() for name, values in network.state_dict().items()}
        if epoch - selection.best_epoch(history) >= patience:
            break
    network.load_state_dict(best)
    reached = max(row["validation_dice"] for row in history)
    print(f"seed {seed}: {epoch} epochs, best {selection.best_epoch(history)}, Dice {reached:.4f}", flush=True)
    return network


def predict(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Predict the probability of lesion, float32 (n, s, s), for scaled images (n, s, s, 1)."""
    network.eval()
    with torch.no_grad():
        answers = [network(batch).sigmoid()[:, 0] for batch in to_tensor(images).split(16)]
    return torch.cat(answers).numpy()


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """Convert images (n, h, w, c) to a tensor (n, c, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def write_masks(catalog: Catalog, size: int, out: Path) -> None:
    """Train one network a fold and write the masks of its test part, each of its image's size, into ``out``."""
    shapes = {row.name: (row.height, row.width) for row in catalog.table.itertuples()}
    for fold in range(FOLDS):
        # The baseline's first seed of each fold, as `busi.config.heldout_draws` gives it.
        config = RunConfig(protocol="heldout", image_size=size, fold=fold, seed=fold)
        parts = load_parts(config, catalog)
        network = train(parts, config.seed, config.patience)
        names = parts.validation.names
        truths = read_truths(catalog, names)
        outputs = predict(network, parts.validation.images)
        restored = [restore(output, *shapes[name], config) for name, output in zip(names, outputs, strict=True)]
        threshold = selection.choose_threshold(truths, restored)
        for name, output in zip(parts.test.names, predict(network, parts.test.images), strict=True):
            inside = restore(output, *shapes[name], config) >= threshold
            Image.fromarray(inside.astype(np.uint8) * np.uint8(255)).save(out / f"{name}.png")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of images that busi verify reads")
    parser.add_argument("out", type=Path, help="new folder for the masks; its name is the peer's")
    parser.add_argument("--size", type=int, default=64, help="height and width of the network's input in pixels")
    options = parser.parse_args()
    # Nothing is overwritten: a folder with masks of two trainings would be neither's.
    options.out.mkdir(parents=True)
    write_masks(read_catalog(options.data), options.size, options.out)


if __name__ == "__main__":
    main()
