"""The yardstick trains what the package trains: network, images, targets."""

import numpy as np
import pytest
import tensorflow as tf

from busi.benchmark import reference
from busi.config import RunConfig
from busi.dataset import arrays, catalog
from busi.training import compiled

PUBLISHED = RunConfig(image_size=204, base_filters=2)
HELDOUT = RunConfig(
    protocol="heldout", image_size=32, base_filters=2, batch_size=5, resize="squash", masks="first", shuffle=False
)


@pytest.mark.parametrize("config", [PUBLISHED, HELDOUT], ids=["published", "heldout"])
def test_network_is_the_packages(config):
    ours, theirs = compiled(config), reference.network(config)
    theirs.set_weights(ours.get_weights())
    images = np.random.default_rng(0).random((2, config.image_size, config.image_size, 1), np.float32)
    (found, gradients), (expected, their_gradients) = (_with_gradients(model, images) for model in (ours, theirs))
    np.testing.assert_array_equal(found, expected)
    for weight, gradient, theirs in zip(ours.trainable_variables, gradients, their_gradients, strict=True):
        # The package adds up the gradient of a bias in another order.
        order = 1e-5 * np.abs(theirs).max() if weight.name == "bias" else 0
        np.testing.assert_allclose(gradient, theirs, rtol=0, atol=order, err_msg=weight.path)


def _with_gradients(model, images):
    """Probabilities, and the gradients of the lesion's squared ones."""
    with tf.GradientTape() as tape:
        probabilities = model(images)
        squares = tf.reduce_sum(probabilities[..., 0] ** 2)
    return probabilities, tape.gradient(squares, model.trainable_variables)


@pytest.mark.parametrize("config", [PUBLISHED, HELDOUT], ids=["published", "heldout"])
def test_batches_are_the_packages_images_decoded_anew_without_end(phantom_dir, config):
    data = catalog.read(phantom_dir, expected=None)
    made = arrays.published(data, config)
    again = 2 * len(made) // config.batch_size
    batches = list(reference.batches(data, config).take(again).as_numpy_iterator())
    for array, decoded in zip((made.images, made.targets), zip(*batches, strict=True), strict=True):
        # TensorFlow interpolates in float32, the package in float64, rounded to six digits.
        np.testing.assert_allclose(np.concatenate(decoded), np.concatenate([array, array]), atol=1e-5)
