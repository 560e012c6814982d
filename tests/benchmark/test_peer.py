"""The peer trains the package's network, where PyTorch is installed."""

import keras
import numpy as np
import pytest

from busi.config import RunConfig
from busi.model import losses
from busi.training import compiled

torch = pytest.importorskip("torch")
peer = pytest.importorskip("busi.benchmark.peer")

PUBLISHED = RunConfig(image_size=204, base_filters=2)
HELDOUT = RunConfig(protocol="heldout", image_size=32, base_filters=2)


def test_parameters_of_the_published_width():
    network = peer.UNet(RunConfig())
    assert sum(parameter.numel() for parameter in network.parameters()) == 22_321_090


@pytest.mark.parametrize("config", [PUBLISHED, HELDOUT], ids=["published", "heldout"])
def test_probabilities_and_loss_are_the_packages(config):
    ours, theirs = compiled(config), peer.UNet(config)
    peer.load(theirs, ours.get_weights())
    rng = np.random.default_rng(0)
    images = rng.random((2, config.image_size, config.image_size, 1), np.float32)
    lesion = rng.integers(0, 2, (2, config.output_size, config.output_size)).astype(np.float32)
    targets = np.stack([lesion, 1 - lesion], axis=-1)

    logits = theirs(torch.from_numpy(images).permute(0, 3, 1, 2))
    probabilities = torch.softmax(logits, dim=1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(ours(images), probabilities.detach(), atol=1e-6)
    expected = losses.get(config)(targets, ours(images))
    found = peer.loss(logits, torch.from_numpy(targets).permute(0, 3, 1, 2), config)
    assert found.item() == pytest.approx(keras.ops.convert_to_numpy(expected), rel=1e-6)


@pytest.mark.parametrize("settings", [{"optimizer": "sgd", "learning_rate": 0.1}, {}], ids=["sgd", "adam"])
def test_it_learns_as_the_package_does(settings):
    config = HELDOUT.model_copy(update=settings | {"base_filters": 8})
    ours, theirs = compiled(config), peer.UNet(config)
    peer.load(theirs, ours.get_weights())
    steps = peer.optimizer(theirs, config)
    rng = np.random.default_rng(0)
    images = rng.random((4, 32, 32, 1), np.float32)
    lesion = (images[..., 0] > 0.7).astype(np.float32)
    targets = np.stack([lesion, 1 - lesion], axis=-1)
    pixels, wanted = (torch.from_numpy(array).permute(0, 3, 1, 2) for array in (images, targets))
    for _ in range(8):
        ours.reset_metrics()
        expected = float(ours.train_on_batch(images, targets))
        found = peer.loss(theirs(pixels), wanted, config)
        assert found.item() == pytest.approx(expected, rel=2e-5)
        steps.zero_grad()
        found.backward()
        steps.step()
