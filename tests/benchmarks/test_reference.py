"""The study's way trains what the package trains: the same images and targets."""

import numpy as np
import pytest

from benchmarks import reference
from busi.config import RunConfig
from busi.dataset import arrays, catalog

PUBLISHED = RunConfig(image_size=204, base_filters=2)
HELDOUT = RunConfig(
    protocol="heldout", image_size=32, base_filters=2, batch_size=5, resize="squash", masks="first", shuffle=False
)


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
