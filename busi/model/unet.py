"""U-Net of the published study.

After Ronneberger, Fischer, Brox, "U-Net" (MICCAI 2015), with the changes of the public notebook: the second convolution
of the bottleneck has half as many filters as the first (1024, 512), and the published study varies only the first of
the four upsampling steps. The published network is unpadded, so its output covers only the middle of the input. The
held-out protocol uses the same network with padding.
"""

from typing import NamedTuple

import keras
from keras import layers, ops

from busi.config import RunConfig

DEPTH = 4
"""Number of poolings, and of upsampling steps."""

ARCHITECTURE = (
    *("image_size", "base_filters", "upsampling", "upsampling_steps"),
    *("precision", "padding", "normalization", "residual"),
)
"""Fields of `busi.config.RunConfig` that decide what `build` returns."""


def build(config: RunConfig) -> keras.Model:
    """Build the network of a run and initialise it (Glorot uniform, zero biases) from Keras' global seed.

    Only the fields of `ARCHITECTURE` are used. Instance normalization gives every feature map of an image mean 0 and
    deviation 1, then a learned scale and offset (Ulyanov, Vedaldi, Lempitsky 2016; as in nnU-Net). A residual block
    adds its input through a 1x1 convolution (He, Zhang, Ren, Sun 2016). The last layer is always float32.

    Returns:
        A model that maps float (n, image_size, image_size, 1) to float32 (n, o, o, 2), the logits of lesion and
        background; their softmax is the published network's output. The output size o is ``config.output_size``.

    Example:
        >>> model = build(RunConfig())
        >>> model.output_shape
        (None, 116, 116, 2)
        >>> model.count_params()
        22321090
    """
    # 64, 128, 256 and 512 in the published network.
    filters = [config.base_filters * 2**level for level in range(DEPTH)]
    policy = keras.DTypePolicy(config.precision)
    pair = _Pair(config.padding, config.normalization, config.residual, policy)
    inputs = keras.Input((config.image_size, config.image_size, 1), name="image")
    x = inputs
    skips = []
    for level in range(DEPTH):
        x = pair(x, filters[level], filters[level], f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"down{level}_pool", dtype=policy)(x)
    x = pair(x, 2 * filters[-1], filters[-1], "bottleneck")
    for level in reversed(range(DEPTH)):
        name = f"up{level}"
        # Levels count from full resolution, so the first upsampling step is the deepest level.
        is_first = level == DEPTH - 1
        method = config.upsampling if is_first or config.upsampling_steps == "all" else "Conv2DTranspose"
        x = _double_size(x, filters[level], method, name, policy)
        # Unpadded convolutions have made the map from below smaller than that of the skip connection.
        skip = _crop_to(skips[level], x.shape[1], f"{name}_crop", policy)
        x = layers.Concatenate(name=f"{name}_concat", dtype=policy)([skip, x])
        # The second convolution already halves the filters for the next step, as in the public notebook.
        last = filters[level] // 2 if level > 0 else filters[level]
        x = pair(x, filters[level], last, name)
    # float32 under every policy, because in bfloat16 the two probabilities would not add up to 1. Logits, because what
    # the published loss computes after a softmax depends on the Keras backend.
    outputs = layers.Conv2D(2, 1, name="logits", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="unet")


class _Pair(NamedTuple):
    """The two 3x3 convolutions at every level on either side, with their activations, normalization and residual."""

    padding: str
    normalization: str
    residual: bool
    policy: keras.DTypePolicy

    def __call__(self, x, first: int, second: int, name: str):
        """Return the feature maps of ``x`` after two convolutions, with ``first`` and ``second`` filters."""
        whole = x
        x = self._convolve(x, first, f"{name}_conv1", "relu")
        x = self._convolve(x, second, f"{name}_conv2", None if self.residual else "relu")
        if not self.residual:
            return x
        # Convolved, because the input has a different number of maps from the result.
        whole = Conv2D(second, 1, name=f"{name}_residual", dtype=self.policy)(whole)
        x = layers.Add(name=f"{name}_add", dtype=self.policy)([x, whole])
        return layers.Activation("relu", name=f"{name}_relu", dtype=self.policy)(x)

    def _convolve(self, x, filters: int, name: str, activation: str | None):
        if self.normalization == "none":
            return Conv2D(filters, 3, padding=self.padding, activation=activation, name=name, dtype=self.policy)(x)
        x = Conv2D(filters, 3, padding=self.padding, name=name, dtype=self.policy)(x)
        # Groups of one map each, so that the statistics of an image do not depend on the others in its batch.
        x = layers.GroupNormalization(groups=-1, name=f"{name}_norm", dtype=self.policy)(x)
        return layers.Activation(activation, name=f"{name}_activation", dtype=self.policy)(x) if activation else x


def _double_size(x, filters: int, method: str, name: str, policy):
    if method == "Conv2DTranspose":
        return Conv2DTranspose(filters, 2, strides=2, name=name, dtype=policy)(x)
    # This layer has no weights, so the number of feature maps stays as it is.
    interpolation = {"UpSampling2D": "nearest", "bilinear": "bilinear"}[method]
    return layers.UpSampling2D(interpolation=interpolation, name=name, dtype=policy)(x)


def _crop_to(x, size: int, name: str, policy):
    if x.shape[1] == size:
        return x
    return CenterCrop(size, name=name, dtype=policy)(x)


@ops.custom_gradient
def add_bias(x, bias):
    """Return ``x`` (n, h, w, c) plus ``bias`` (1, 1, 1, c), with a bias gradient that is exact and fast on a CPU.

    The gradient of the bias is the sum of the upstream gradient over all images and pixels, as in Keras. Keras' own
    gradient has two faults with TensorFlow on a CPU. It is summed in the precision of the layer: in bfloat16, 14,400
    ones add up to 256. And it is computed together with the gradient of the kernel, which at the first convolution
    takes up to five times as long as computing one after the other.
    """

    def gradient(*inputs, upstream=None):
        # Some Keras backends pass the upstream gradient by position, others by name.
        if upstream is None:
            upstream = inputs[0]
        return upstream, ops.sum(upstream, axis=(0, 1, 2), keepdims=True)

    return ops.add(x, bias), gradient


class Conv2D(layers.Conv2D):
    """Keras' convolution with the bias gradient of `add_bias`."""

    def call(self, x):
        """Return feature maps (n, h, w, filters) of ``x`` (n, h, w, c)."""
        x = self.convolution_op(x, self.kernel)
        bias = ops.reshape(self.bias, (1, 1, 1, -1))
        return self.activation(add_bias(x, bias))


class Conv2DTranspose(layers.Conv2DTranspose):
    """Keras' transposed convolution with the bias gradient of `add_bias`."""

    def call(self, x):
        """Return feature maps (n, 2 h, 2 w, filters) of ``x`` (n, h, w, c)."""
        x = ops.conv_transpose(x, self.kernel, self.strides, self.padding)
        bias = ops.reshape(self.bias, (1, 1, 1, -1))
        return self.activation(add_bias(x, bias))


class CenterCrop(layers.Layer):
    """Crop to the middle ``size`` x ``size`` pixels; of an odd excess, the larger part is cut off below and right.

    The result equals that of Keras' `Cropping2D`, whose gradient TensorFlow computes slowly and on one core.
    """

    def __init__(self, size: int, **options):
        super().__init__(**options)
        self.size = size

    def call(self, x):
        """Return the middle (n, size, size, c) of ``x`` (n, h, w, c)."""
        batch, height, _, channels = ops.shape(x)
        # Inputs are square, so rows and columns have the same start.
        start = (height - self.size) // 2
        return ops.slice(x, (0, start, start, 0), (batch, self.size, self.size, channels))

    def get_config(self):
        """Return the settings from which the layer can be built again."""
        return super().get_config() | {"size": self.size}

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for an input of ``input_shape``."""
        batch, _, _, channels = input_shape
        return batch, self.size, self.size, channels
