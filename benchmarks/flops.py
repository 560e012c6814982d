"""Floating-point operations of a network, counted from its convolutions; everything else is small beside them."""

import math

import keras


def count_forward(layer: keras.Layer) -> int:
    """Count a layer's operations for one image; 0 for a layer that is no convolution."""
    if isinstance(layer, keras.layers.Conv2DTranspose):
        places = layer.input.shape[1:3]
    elif isinstance(layer, keras.layers.Conv2D):
        places = layer.output.shape[1:3]
    else:
        return 0
    # A multiplication and an addition per weight, at each place where the kernel is laid.
    return 2 * math.prod(layer.kernel.shape) * math.prod(places)


def count_training(model: keras.Model) -> int:
    """Count the operations of one training step for one image."""
    counts = [count_forward(layer) for layer in model.layers]
    convolutions = [count for count in counts if count > 0]
    # The gradients of weights and input cost as much as the forward pass, each; the image needs no gradient.
    return 3 * sum(convolutions) - convolutions[0]
