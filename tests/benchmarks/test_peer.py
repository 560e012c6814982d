"""The peer trains the package's network, where PyTorch is installed."""

import keras
import numpy as np
import pytest

from busi.config import RunConfig
from busi.model import losses
from busi.training import compile_network

torch = pytest.importorskip("torch")
peer = pytest.importorskip("benchmarks.peer")

PUBLISHED = RunConfig(image_size=204, base_filters=2)
HELDOUT = RunConfig(protocol="heldout", image_size=32, base_filters=2)


@pytest.mark.parametrize("config", [PUBLISHED, HELDOUT], ids=["published", "heldout"])
def test_logits_and_loss_are_the_packages(config):
    ours = compile_network(config)
    parameters = peer.read_weights(ours.get_weights())
    generator = np.random.default_rng(0)
    images = generator.random((2, config.image_size, config.image_size, 1), np.float32)
    lesion = generator.integers(0, 2, (2, config.output_size, config.output_size)).astype(np.float32)
    targets = np.stack([lesion, 1 - lesion], axis=-1)

    logits = peer.compute_logits(parameters, peer.to_channels_last(images), config)
    np.testing.assert_allclose(ours(images), logits.permute(0, 2, 3, 1).detach(), atol=1e-5)
    expected = losses.make_loss(config)(targets, ours(images))
    loss = peer.compute_loss(logits, peer.to_channels_last(targets), config)
    assert loss.item() == pytest.approx(keras.ops.convert_to_numpy(expected), rel=1e-6)


@pytest.mark.parametrize("settings", [{"optimizer": "sgd", "learning_rate": 0.1}, {}], ids=["sgd", "adam"])
def test_it_learns_as_the_package_does(settings):
    config = HELDOUT.model_copy(update=settings | {"base_filters": 8})
    ours = compile_network(config)
    parameters = peer.read_weights(ours.get_weights())
    optimizer = peer.make_optimizer(parameters, config)
    images = np.random.default_rng(0).random((4, 32, 32, 1), np.float32)
    lesion = (images[..., 0] > 0.7).astype(np.float32)
    targets = np.stack([lesion, 1 - lesion], axis=-1)
    pixels = peer.to_channels_last(images)
    wanted = peer.to_channels_last(targets)
    for _ in range(8):
        ours.reset_metrics()
        expected = float(ours.train_on_batch(images, targets))
        loss = peer.train_step(parameters, optimizer, pixels, wanted, config)
        assert loss == pytest.approx(expected, rel=2e-5)


def test_a_step_takes_the_next_batch_and_begins_again_after_the_last(phantom_dir, tmp_path):
    config = HELDOUT.model_copy(update={"batch_size": 4, "learning_rate": 1e-9})
    np.savez(tmp_path / "weights.npz", *compile_network(config).get_weights())
    training = peer.prepare(config, phantom_dir, tmp_path / "weights.npz")
    # 10 lesion images make 2 batches of 4.
    means = [training.step() for _ in range(4)]
    losses = [means[0], 2 * means[1] - means[0], 3 * means[2] - 2 * means[1], 4 * means[3] - 3 * means[2]]
    assert losses[2:] == pytest.approx(losses[:2], rel=1e-4)
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
    assert training.facts["parameters"] == compile_network(config).count_params()
