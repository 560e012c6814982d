"""Floating-point operations of a network's convolutions, counted from its layers; all else is small beside them."""

import math

import keras


def forward(layer: keras.Layer) -> int:
    """Operations of a layer for one image: a multiplication and an addition for each weight at each place it is used.

    A convolution uses its kernel once at every output pixel, a transposed one at every input pixel; any other layer
    counts 0.
    """
    if isinstance(layer, keras.layers.Conv2DTranspose):
        places = layer.input.shape[1:3]
    elif isinstance(layer, keras.layers.Conv2D):
        places = layer.output.shape[1:3]
    else:
        return 0
    return 2 * math.prod(layer.kernel.shape) * math.prod(places)


def training(model: keras.Model) -> int:
    """Operations of one training step for one image.

    Forward, the gradient of the weights and the gradient of the input cost the same each; the first convolution's input
    is the image, whose gradient nobody needs.
    """
    counts = [count for layer in model.layers if (count := forward(layer))]
    return 3 * sum(counts) - counts[0]
