"""The study's way trains what the package trains: the same network, images and targets."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import reference
from busi.config import RunConfig
from busi.dataset import arrays, catalog
from busi.training import compile_network

PUBLISHED = RunConfig(image_size=204, base_filters=2)
HELDOUT = RunConfig(
    protocol="heldout", image_size=32, base_filters=2, batch_size=5, resize="squash", masks="first", shuffle=False
)


@pytest.mark.parametrize("config", [PUBLISHED, HELDOUT], ids=["published", "heldout"])
def test_network_is_the_packages(config):
    package = compile_network(config)
    network = reference.build_network(config)
    network.set_weights(package.get_weights())
    images = np.random.default_rng(0).random((2, config.image_size, config.image_size, 1), np.float32)
    probabilities, gradients = differentiate(network, images)
    expected, expected_gradients = differentiate(package, images)
    np.testing.assert_array_equal(probabilities, expected)
    for weight, gradient, other in zip(network.trainable_variables, gradients, expected_gradients, strict=True):
        # The package adds up the gradient of a bias in another order.
        tolerance = 1e-5 * np.abs(other).max() if weight.name == "bias" else 0
        np.testing.assert_allclose(gradient, other, rtol=0, atol=tolerance, err_msg=weight.path)


def differentiate(model, images):
    """Return probabilities, and the gradients of the sum of the lesion's squared ones."""
    with tf.GradientTape() as tape:
        probabilities = model(images)
        squares = tf.reduce_sum(probabilities[..., 0] ** 2)
    return probabilities, tape.gradient(squares, model.trainable_variables)


@pytest.mark.parametrize("config", [PUBLISHED, HELDOUT], ids=["published", "heldout"])
def test_batches_are_the_packages_images_decoded_anew_without_end(phantom_dir, config):
    phantoms = catalog.read_catalog(phantom_dir, expected=None)
    prepared = arrays.published_arrays(phantoms, config)
    twice = 2 * len(prepared) // config.batch_size
    batches = list(reference.stream_batches(phantoms, config).take(twice).as_numpy_iterator())
    images = np.concatenate([images for images, _ in batches])
    targets = np.concatenate([targets for _, targets in batches])
    # TensorFlow interpolates in float32, the package in float64, rounded to six digits.
    np.testing.assert_allclose(images, np.concatenate([prepared.images] * 2), atol=1e-5)
    np.testing.assert_allclose(targets, np.concatenate([prepared.targets] * 2), atol=1e-5)
