"""Operations counted by hand."""

import keras
import pytest
from keras import layers

from benchmarks import flops
from busi.config import RunConfig
from busi.model import unet


@pytest.fixture
def model():
    """Build 5 x 5 x 2 -> 3 x 3 x 4 -> 6 x 6 x 3 -> 6 x 6 x 2."""
    image = keras.Input((5, 5, 2))
    x = layers.Conv2D(4, 3)(image)
    x = layers.Conv2DTranspose(3, 2, strides=2)(x)
    return keras.Model(image, layers.Conv2D(2, 1, activation="softmax")(x))


def test_a_multiplication_and_an_addition_per_weight_and_place(model):
    _, convolution, transposed, pointwise = model.layers
    assert flops.count_forward(convolution) == 2 * (3 * 3 * 2 * 4) * (3 * 3)
    assert flops.count_forward(transposed) == 2 * (2 * 2 * 3 * 4) * (3 * 3)
    assert flops.count_forward(pointwise) == 2 * (3 * 2) * (6 * 6)


def test_training_is_forward_and_two_gradients_but_not_the_images(model):
    assert flops.count_training(model) == 3 * (1296 + 864 + 432) - 1296


def test_the_published_network_takes_48_billion_operations_forward():
    model = unet.build(RunConfig())
    assert sum(map(flops.count_forward, model.layers)) == pytest.approx(48e9, rel=0.01)
