"""The published U-Net, unpadded, so that its output covers only the middle of the input; and the same one padded.

After Ronneberger, Fischer, Brox, "U-Net" (MICCAI 2015), as the public notebook has it: the bottleneck narrows in its
second convolution (1024, 512), and of the four upsampling steps only the first is the one under study.
"""

import keras
from keras import layers, ops

DEPTH = 4


def build(
    image_size: int = 300,
    base_filters: int = 64,
    upsampling: str = "UpSampling2D",
    precision: str = "float32",
    *,
    upsampling_steps: str = "first",
    padding: str = "valid",
) -> keras.Model:
    """The network, freshly initialised (Glorot uniform, zero biases) from Keras' global seed.

    Args:
        image_size: Height and width of the input in pixels: 188 + 16 k unpadded, 16 k padded.
        base_filters: Filters of the first convolution, doubled at each of the four poolings.
        upsampling: "UpSampling2D" (nearest), "bilinear" or "Conv2DTranspose".
        precision: Keras dtype policy of all layers but the softmax, which is float32.
        upsampling_steps: Which of the four steps ``upsampling`` is for: the "first" (published), the others being
            Conv2DTranspose; or "all".
        padding: Of the 3x3 convolutions, "valid" (published) or "same".

    Returns:
        A model from (n, image_size, image_size, 1) to (n, o, o, 2), o = image_size - 184 unpadded, image_size padded:
        the probabilities of lesion and background, which sum to one.

    Example:
        >>> build().count_params()
        22321090
    """
    filters = [base_filters * 2**level for level in range(DEPTH)]
    policy = keras.DTypePolicy(precision)
    inputs = keras.Input((image_size, image_size, 1), name="image")
    x, skips = inputs, []
    for level, f in enumerate(filters):
        x = _convolutions(x, f, f, f"down{level}", padding, policy)
        skips.append(x)
        x = layers.MaxPooling2D(name=f"down{level}_pool", dtype=policy)(x)
    x = _convolutions(x, 2 * filters[-1], filters[-1], "bottleneck", padding, policy)
    for level in reversed(range(DEPTH)):
        f = filters[level]
        studied = upsampling_steps == "all" or level == DEPTH - 1
        x = _doubled(x, f, upsampling if studied else "Conv2DTranspose", f"up{level}", policy)
        skip = _centre(skips[level], x.shape[1], f"up{level}_crop", policy)
        x = layers.Concatenate(name=f"up{level}_concat", dtype=policy)([skip, x])
        x = _convolutions(x, f, f // 2 if level else f, f"up{level}", padding, policy)
    outputs = layers.Conv2D(2, 1, activation="softmax", name="probability", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="unet")


def _convolutions(x, first: int, second: int, name: str, padding: str, policy):
    x = Conv2D(first, 3, padding=padding, activation="relu", name=f"{name}_conv1", dtype=policy)(x)
    return Conv2D(second, 3, padding=padding, activation="relu", name=f"{name}_conv2", dtype=policy)(x)


def _doubled(x, filters: int, upsampling: str, name: str, policy):
    if upsampling == "Conv2DTranspose":
        return Conv2DTranspose(filters, 2, strides=2, name=name, dtype=policy)(x)
    interpolation = {"UpSampling2D": "nearest", "bilinear": "bilinear"}[upsampling]
    return layers.UpSampling2D(interpolation=interpolation, name=name, dtype=policy)(x)


@ops.custom_gradient
def add_bias(x, bias):
    """``x`` (n, h, w, c) and ``bias`` (1, 1, 1, c) added, with the sum over all pixels as the gradient of the bias.

    The same gradient as Keras' own, which on a processor TensorFlow adds up in the precision that the layer computes
    in, so that in bfloat16 14 400 ones make 256; and which it computes together with the kernel's, where that takes
    longer than one after the other: at the first convolution up to five times as long.
    """

    def gradient(*inputs, upstream=None):
        # Which of the two it comes as depends on Keras' backend.
        upstream = inputs[0] if upstream is None else upstream
        return upstream, ops.sum(upstream, axis=(0, 1, 2), keepdims=True)

    return ops.add(x, bias), gradient


class Conv2D(layers.Conv2D):
    """Keras' own, but for `add_bias`."""

    def call(self, x):
        """Feature maps (n, h, w, filters) of ``x`` (n, h, w, c)."""
        return self.activation(add_bias(self.convolution_op(x, self.kernel), ops.reshape(self.bias, (1, 1, 1, -1))))


class Conv2DTranspose(layers.Conv2DTranspose):
    """Keras' own, but for `add_bias`."""

    def call(self, x):
        """Feature maps (n, 2 h, 2 w, filters) of ``x`` (n, h, w, c)."""
        x = ops.conv_transpose(x, self.kernel, self.strides, self.padding)
        return self.activation(add_bias(x, ops.reshape(self.bias, (1, 1, 1, -1))))


def _centre(x, size: int, name: str, policy):
    return x if x.shape[1] == size else _Centre(size, name=name, dtype=policy)(x)


class _Centre(layers.Layer):
    """The middle ``size`` x ``size`` pixels; of an odd excess the larger part is cut off below and to the right.

    The same numbers as Keras' `Cropping2D`, whose gradient TensorFlow computes on one core, and slowly even for one.
    """

    def __init__(self, size: int, **options):
        super().__init__(**options)
        self.size = size

    def call(self, x):
        batch, height, _, channels = ops.shape(x)
        before = (height - self.size) // 2
        return ops.slice(x, (0, before, before, 0), (batch, self.size, self.size, channels))

    def get_config(self):
        return super().get_config() | {"size": self.size}

    def compute_output_shape(self, input_shape):
        batch, _, _, channels = input_shape
        return batch, self.size, self.size, channels


def blocks(model: keras.Model) -> list[dict]:
    """The feature maps of a network of `build` after each pair of convolutions, in the order of computation.

    Returns:
        Dictionaries of `name`, `level` (0 at full resolution), `side` ("down", "bottom", "up"), `size` (pixels) and
        `filters`.
    """
    found = []
    for layer in model.layers:
        if not layer.name.endswith("conv2"):
            continue
        name = layer.name.removesuffix("_conv2")
        side = "bottom" if name == "bottleneck" else name.rstrip("0123456789")
        level = DEPTH if side == "bottom" else int(name.removeprefix(side))
        _, size, _, filters = layer.output.shape
        found.append({"name": name, "level": level, "side": side, "size": size, "filters": filters})
    return found
