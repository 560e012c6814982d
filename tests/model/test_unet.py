"""Network, published and padded: shapes written out by hand; wiring tested with weights that open one path only."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from busi.config import RunConfig
from busi.model import unet

PUBLISHED = {
    "image": (300, 1),
    "down0_conv1": (298, 64),
    "down0_conv2": (296, 64),
    "down0_pool": (148, 64),
    "down1_conv1": (146, 128),
    "down1_conv2": (144, 128),
    "down1_pool": (72, 128),
    "down2_conv1": (70, 256),
    "down2_conv2": (68, 256),
    "down2_pool": (34, 256),
    "down3_conv1": (32, 512),
    "down3_conv2": (30, 512),
    "down3_pool": (15, 512),
    "bottleneck_conv1": (13, 1024),
    "bottleneck_conv2": (11, 512),
    "up3": (22, 512),
    "up3_crop": (22, 512),
    "up3_concat": (22, 1024),
    "up3_conv1": (20, 512),
    "up3_conv2": (18, 256),
    "up2": (36, 256),
    "up2_crop": (36, 256),
    "up2_concat": (36, 512),
    "up2_conv1": (34, 256),
    "up2_conv2": (32, 128),
    "up1": (64, 128),
    "up1_crop": (64, 128),
    "up1_concat": (64, 256),
    "up1_conv1": (62, 128),
    "up1_conv2": (60, 64),
    "up0": (120, 64),
    "up0_crop": (120, 64),
    "up0_concat": (120, 128),
    "up0_conv1": (118, 64),
    "up0_conv2": (116, 64),
    "logits": (116, 2),
}
"""Layer -> height (and width) in pixels, channels; both upsampling variants."""


def build(size=300, filters=64, **fields) -> keras.Model:
    return unet.build(RunConfig(image_size=size, base_filters=filters, **fields))


@pytest.fixture(scope="module", params=["UpSampling2D", "Conv2DTranspose"])
def full(request):
    """The published network at full width, once for each variant."""
    keras.utils.set_random_seed(0)
    return build(upsampling=request.param)


def test_parameters_are_as_many_as_published(full):
    first = type(full.get_layer("up3")).__name__
    assert full.count_params() == {"UpSampling2D": 22_321_090, "Conv2DTranspose": 23_370_178}[first]


def test_layers_have_the_published_shapes(full):
    assert {layer.name: layer.output.shape for layer in full.layers} == {
        name: (None, size, size, channels) for name, (size, channels) in PUBLISHED.items()
    }


def test_only_the_first_upsampling_step_differs():
    nearest, transposed = (build(204, 2, upsampling=upsampling) for upsampling in ("UpSampling2D", "Conv2DTranspose"))
    pairs = list(zip(nearest.layers, transposed.layers, strict=True))
    assert [(type(a).__name__, type(b).__name__) for a, b in pairs if a.get_config() != b.get_config()] == [
        ("UpSampling2D", "Conv2DTranspose")
    ]


STEPS = {
    ("UpSampling2D", "first"): ["nearest", "transposed", "transposed", "transposed"],
    ("bilinear", "first"): ["bilinear", "transposed", "transposed", "transposed"],
    ("UpSampling2D", "all"): ["nearest"] * 4,
    ("bilinear", "all"): ["bilinear"] * 4,
    ("Conv2DTranspose", "first"): ["transposed"] * 4,
    ("Conv2DTranspose", "all"): ["transposed"] * 4,
}
TRANSPOSED = {3: 1_049_088, 2: 262_400, 1: 65_664, 0: 16_448}
"""Parameters of a transposed convolution at each step: 2 * 2 * f * f + f for 512, 256, 128 and 64 filters."""


@pytest.mark.parametrize(("upsampling", "steps"), STEPS)
def test_upsampling_is_for_the_first_step_or_all(upsampling, steps):
    model = build(32, 2, upsampling=upsampling, upsampling_steps=steps, padding="same")
    kinds = [
        getattr(model.get_layer(f"up{level}"), "interpolation", "transposed") for level in reversed(range(unet.DEPTH))
    ]
    assert kinds == STEPS[upsampling, steps]


@pytest.mark.parametrize(("upsampling", "steps"), STEPS)
def test_only_transposed_steps_have_parameters(upsampling, steps):
    """By hand, at full width; those of all else are what the published network has without its three."""
    elsewhere = 22_321_090 - 262_400 - 65_664 - 16_448
    kinds = dict(zip((3, 2, 1, 0), STEPS[upsampling, steps], strict=True))
    expected = elsewhere + sum(TRANSPOSED[level] for level in kinds if kinds[level] == "transposed")
    assert build(32, 64, upsampling=upsampling, upsampling_steps=steps, padding="same").count_params() == expected


PADDED = {
    "image": (32, 1),
    "down0_conv1": (32, 2),
    "down0_conv2": (32, 2),
    "down0_pool": (16, 2),
    "down1_conv1": (16, 4),
    "down1_conv2": (16, 4),
    "down1_pool": (8, 4),
    "down2_conv1": (8, 8),
    "down2_conv2": (8, 8),
    "down2_pool": (4, 8),
    "down3_conv1": (4, 16),
    "down3_conv2": (4, 16),
    "down3_pool": (2, 16),
    "bottleneck_conv1": (2, 32),
    "bottleneck_conv2": (2, 16),
    "up3": (4, 16),
    "up3_concat": (4, 32),
    "up3_conv1": (4, 16),
    "up3_conv2": (4, 8),
    "up2": (8, 8),
    "up2_concat": (8, 16),
    "up2_conv1": (8, 8),
    "up2_conv2": (8, 4),
    "up1": (16, 4),
    "up1_concat": (16, 8),
    "up1_conv1": (16, 4),
    "up1_conv2": (16, 2),
    "up0": (32, 2),
    "up0_concat": (32, 4),
    "up0_conv1": (32, 2),
    "up0_conv2": (32, 2),
    "logits": (32, 2),
}
"""As `PUBLISHED`, with padding: nothing is cropped, and the output covers the input."""


@pytest.mark.parametrize("steps", ["first", "all"])
@pytest.mark.parametrize("upsampling", ["UpSampling2D", "bilinear", "Conv2DTranspose"])
def test_padded_layers_keep_their_size(upsampling, steps):
    model = build(32, 2, upsampling=upsampling, upsampling_steps=steps, padding="same")
    assert {layer.name: layer.output.shape for layer in model.layers} == {
        name: (None, size, size, channels) for name, (size, channels) in PADDED.items()
    }


def test_normalized_maps_of_an_image_have_mean_0_and_deviation_1():
    model = build(32, 2, padding="same", normalization="instance")
    maps = keras.Model(model.input, model.get_layer("down0_conv1_norm").output)
    images = np.random.default_rng(0).uniform(0, 1, (3, 32, 32, 1)).astype("float32")
    answers = np.asarray(maps(images))
    np.testing.assert_allclose(answers.mean(axis=(1, 2)), 0, atol=1e-5)
    # Keras adds 0.001 to the variance.
    variance = np.asarray(keras.Model(model.input, model.get_layer("down0_conv1").output)(images)).var(axis=(1, 2))
    np.testing.assert_allclose(answers.std(axis=(1, 2)), np.sqrt(variance / (variance + 1e-3)), rtol=1e-4)


def test_instance_normalization_adds_a_scale_and_an_offset_to_every_map():
    """With 2 filters: two maps in each of both convolutions at every level, as `PADDED` lists them."""
    plain, normalized = (build(32, 2, padding="same", normalization=kind) for kind in ("none", "instance"))
    maps = sum(channels for name, (_, channels) in PADDED.items() if "conv" in name)
    assert normalized.count_params() - plain.count_params() == 2 * maps


@pytest.mark.parametrize("normalization", ["none", "instance"])
def test_a_residual_pair_without_kernels_passes_its_input_on(normalization):
    model = build(32, 2, padding="same", normalization=normalization, residual=True)
    for name in ("down0_conv1", "down0_conv2"):
        layer = model.get_layer(name)
        layer.kernel.assign(np.zeros(layer.kernel.shape))
    kernel, bias = model.get_layer("down0_residual").weights
    kernel.assign([[[[0.5, -1.0]]]])
    bias.assign([0.25, 0.0])
    images = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 1)).astype("float32")
    answers = keras.Model(model.input, model.get_layer("down0_relu").output)(images)
    expected = np.concatenate([0.5 * images + 0.25, np.zeros_like(images)], axis=-1)
    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_kernels_are_glorot_uniform_and_biases_zero(full):
    for layer in full.layers:
        if not layer.weights:
            continue
        assert not layer.bias.numpy().any()
        kernel = layer.kernel.numpy()
        height, width, *channels = kernel.shape
        limit = np.float32(np.sqrt(6 / (height * width * sum(channels))))
        assert np.abs(kernel).max() <= limit
        if kernel.size > 30_000:
            # A uniform variable in [-limit, limit] has deviation limit / sqrt(3).
            assert np.abs(kernel).max() > 0.999 * limit
            assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.01)


def test_every_convolution_but_the_last_is_rectified_and_no_upsampling_is(full):
    activations = {layer.name: layer.activation.__name__ for layer in full.layers if layer.weights}
    rectified = {name for name in activations if "_conv" in name}
    assert {name for name, activation in activations.items() if activation == "relu"} == rectified
    assert activations.pop("logits") == "linear"
    assert {activation for name, activation in activations.items() if name not in rectified} == {"linear"}


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_logits_are_float32(precision):
    keras.utils.set_random_seed(1)
    model = build(204, 4, precision=precision)
    images = np.random.default_rng(1).random((2, 204, 204, 1), dtype="float32")
    output = keras.ops.convert_to_numpy(model(images))
    assert (output.shape, output.dtype) == ((2, 20, 20, 2), np.float32)
    assert output.min() < 0 < output.max()


def test_bfloat16_is_for_computing_only():
    model = build(204, 2, precision="mixed_bfloat16")
    assert {variable.dtype for variable in model.variables} == {"float32"}
    computed = {layer.name: layer.compute_dtype for layer in model.layers if layer.name != "image"}
    assert computed.pop("logits") == "float32"
    assert set(computed.values()) == {"bfloat16"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradient_of_a_bias_is_the_sum_over_all_pixels(precision):
    """Of 120 x 120 ones, 2, 3: bfloat16 itself has no numbers between 256 and 258."""
    upstream = tf.ones((1, 120, 120, 3), precision) * [1, 2, 3]
    x, bias = tf.zeros_like(upstream), tf.zeros((1, 1, 1, 3), precision)
    with tf.GradientTape() as tape:
        tape.watch([x, bias])
        added = unet.add_bias(x, bias)
    of_x, of_bias = tape.gradient(added, [x, bias], upstream)
    np.testing.assert_array_equal(of_x, upstream)
    np.testing.assert_array_equal(
        of_bias.numpy().astype(int).ravel(), [14_400, 28_800, 43_264 if precision == "bfloat16" else 43_200]
    )


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_gradients_of_all_biases_in_bfloat16_are_near_those_in_float32(padding):
    gradients = []
    images = np.random.default_rng(2).random((2, 208, 208, 1) if padding == "same" else (2, 204, 204, 1), np.float32)
    for precision in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(3)
        model = build(images.shape[1], 8, upsampling="Conv2DTranspose", precision=precision, padding=padding)
        with tf.GradientTape() as tape:
            squares = tf.reduce_mean(tf.nn.softmax(model(images))[..., 0] ** 2)
        gradients.append(tape.gradient(squares, model.trainable_variables))
    for weight, single, half in zip(model.trainable_variables, *gradients, strict=True):
        if weight.name == "bias":
            away = np.linalg.norm(single - half) / np.linalg.norm(single)
            assert away < 0.1, weight.path


def let_through(model, level):
    """Set weights that copy the image down to ``level``, take that level's maximum, and copy it up again.

    Every convolution on the path copies its centre, every transposed convolution repeats its pixel; all else is zero.
    Where the path turns it is the skip, channel 0 of the concatenation; above, it comes from below and stands behind
    all channels of the skip.
    """
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])

    def copy(name, source):
        kernel = np.zeros(model.get_layer(name).kernel.shape, "float32")
        kernel[kernel.shape[0] // 2, kernel.shape[1] // 2, source, 0] = 1
        model.get_layer(name).kernel.assign(kernel)

    for down in range(level + 1):
        name = f"down{down}" if down < 4 else "bottleneck"
        copy(f"{name}_conv1", 0)
        copy(f"{name}_conv2", 0)
    for up in range(min(level, 3), -1, -1):
        if up < level and isinstance(model.get_layer(f"up{up}"), keras.layers.Conv2DTranspose):
            kernel = np.zeros(model.get_layer(f"up{up}").kernel.shape, "float32")
            kernel[:, :, 0, 0] = 1
            model.get_layer(f"up{up}").kernel.assign(kernel)
        skip_channels = model.get_layer(f"up{up}_concat").input[0].shape[-1]
        copy(f"up{up}_conv1", 0 if up == level else skip_channels)
        copy(f"up{up}_conv2", 0)
    copy("logits", 0)


@pytest.mark.parametrize("level", range(5))
def test_crops_are_centred_skips_come_first_and_upsampling_repeats(level):
    """Output pixel i stands for input pixel i + 92 on every path through the network.

    Pooled pixels of a level are squares of 2**level input pixels, the first of which begins at 2**(level + 1) - 2, for
    each level above has cut two of its own pixels. Level 4 turns at the bottleneck, whose way up begins with
    UpSampling2D: repeated pixels give the maxima unchanged, interpolated ones would not.
    """
    model = build(300, 2)
    let_through(model, level)
    image = np.random.default_rng(level).uniform(0, 3, (300, 300)).astype("float32")
    output = keras.ops.convert_to_numpy(model(image[None, :, :, None]))[0, :, :, 0]

    side, begin = 2**level, 2 ** (level + 1) - 2
    squares = image[begin:, begin:]
    squares = squares[: len(squares) // side * side, : len(squares) // side * side]
    maxima = squares.reshape(len(squares) // side, side, -1, side).max(axis=(1, 3))
    at = (np.arange(116) + 92 - begin) // side
    np.testing.assert_allclose(output, maxima[np.ix_(at, at)], rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", ["first", "all"])
@pytest.mark.parametrize("level", range(5))
def test_a_padded_output_pixel_stands_for_the_input_pixel_in_its_place(level, steps):
    """On every path: it is the maximum of the square of 2**level input pixels around it, whichever step repeats it."""
    model = build(64, 2, upsampling_steps=steps, padding="same")
    let_through(model, level)
    image = np.random.default_rng(level).uniform(0, 3, (64, 64)).astype("float32")
    output = keras.ops.convert_to_numpy(model(image[None, :, :, None]))[0, :, :, 0]
    side = 2**level
    maxima = image.reshape(64 // side, side, -1, side).max(axis=(1, 3)).repeat(side, axis=0).repeat(side, axis=1)
    np.testing.assert_allclose(output, maxima, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("upsampling", "row"), [("UpSampling2D", [0, 0, 1, 1]), ("bilinear", [0, 0.25, 0.75, 1])], ids=str
)
def test_upsampling_repeats_or_interpolates_pixels(upsampling, row):
    """Each pixel becomes four; interpolated, their centres lie a quarter of the way to the neighbours' either side."""
    layer = build(32, 2, upsampling=upsampling, padding="same").get_layer("up3")
    pixels = np.array([[1, 2], [3, 4]], "float32").reshape(1, 2, 2, 1)
    output = keras.ops.convert_to_numpy(layer(pixels))[0, :, :, 0]
    np.testing.assert_allclose(output, 1 + 2 * np.array(row)[:, None] + np.array(row), rtol=0, atol=1e-6)


def test_an_output_pixel_sees_only_its_receptive_field():
    """The last four rows of the output of 204 pixels see the last 188 rows of the input only.

    So the first 16 rows of the input must not change them. They do change the first row of the output.
    """
    keras.utils.set_random_seed(2)
    model = build(204, 2)
    image = np.random.default_rng(2).random((1, 204, 204, 1), dtype="float32")
    changed = image.copy()
    changed[:, :16] += 5
    before, after = (keras.ops.convert_to_numpy(model(x)) for x in (image, changed))
    np.testing.assert_array_equal(before[:, -4:], after[:, -4:])
    assert (before[:, 0] != after[:, 0]).any()
