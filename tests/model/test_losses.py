"""Losses against numbers worked by hand and independent implementations, of moderate and of extreme logits."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import expit, rel_entr, softmax
from sklearn.metrics import log_loss

from busi.config import RunConfig
from busi.model import losses, unet

CONFIGS = {
    "bce": RunConfig(bce="probabilities"),
    "bce of logits": RunConfig(bce="logits"),
    "kld": RunConfig(loss="kld", clipped=False),
    "published kld": RunConfig(loss="kld"),
    "dice": RunConfig(loss="dice", clipped=False),
    "published dice": RunConfig(loss="dice"),
    "lesion-dice": RunConfig(protocol="heldout", image_size=64, loss="lesion-dice"),
    "lesion-dice+bce": RunConfig(protocol="heldout", image_size=64, loss="lesion-dice+bce"),
}
STABLE = ("bce", "kld", "dice", "lesion-dice", "lesion-dice+bce")


def value(name, targets, probabilities):
    """Return a loss of logits whose softmax is ``probabilities``."""
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(np.asarray(probabilities, "float64")), -80)
    loss = losses.make_loss(CONFIGS[name])
    return float(loss(np.asarray(targets, "float32"), logits.astype("float32")))


def differentiate(loss, targets, logits):
    """Return a loss and its gradient with respect to ``logits`` (..., 2), by Keras' own training step on any backend.

    The logits are the weights of a layer that adds them to an input of 0, and the optimizer's step is the gradient.
    """
    logits = np.asarray(logits, "float32")
    inputs = keras.Input(logits.shape[1:])
    layer = Adder(logits.shape[1:])
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([logits[0]])
    model.compile(Reader(1.0), loss, jit_compile=False)
    total = model.train_on_batch(np.zeros_like(logits), np.asarray(targets, "float32"))
    return float(total), ops.convert_to_numpy(model.optimizer.gradient)[None]


class Adder(keras.layers.Layer):
    def __init__(self, shape):
        super().__init__()
        self.value = self.add_weight(shape=shape, name="value")

    def call(self, x):
        return x + self.value


class Reader(keras.optimizers.SGD):
    """Keeps the gradient of the only weight, exactly: subtracting it from a large logit would round it away."""

    def build(self, variables):
        super().build(variables)
        self.gradient = self.add_variable_from_reference(variables[0], name="gradient")

    def update_step(self, gradient, variable, learning_rate):
        self.assign(self.gradient, gradient)


def one_hot(lesion):
    lesion = np.asarray(lesion, "float32")
    return np.stack([lesion, 1 - lesion], axis=-1)


@pytest.fixture
def pixels():
    """Return one-hot targets and probabilities, float64 (2, 6, 6, 2)."""
    draw = np.random.default_rng(0)
    lesion = draw.uniform(0.02, 0.98, (2, 6, 6))
    return one_hot(draw.random((2, 6, 6)) < 0.3), np.stack([lesion, 1 - lesion], axis=-1)


# By hand


@pytest.mark.parametrize(
    "name, by_hand",
    [
        # -(0.25 ln 0.5 + 0.75 ln 0.5 + 1.25 ln 0.5 - 0.25 ln 0.5) / 2 = ln 2
        ("bce", 0.6931472),
        # the target is clipped to (0.25, 1): 0.25 ln(0.25 / 0.5) + 1 ln(1 / 0.5) = 0.5 ln 2 - 0.25 ln 2 + 0.5 ln 2
        ("published kld", 0.5198604),
        # not clipped: 0.25 ln(0.25 / 0.5) + 1.25 ln(1.25 / 0.5)
        ("kld", 0.9720767),
        # 1 - 2 * (0.125 + 0.625) / (1.5 + 1)
        ("published dice", 0.4),
        ("dice", 0.4),
        ("lesion-dice", 0.6666667),  # 1 - 2 * 0.125 / (0.25 + 0.5)
        ("lesion-dice+bce", 1.3598139),
    ],
)
def test_a_soft_mirror_pixel_by_hand(name, by_hand):
    assert value(name, [[[[0.25, 1.25]]]], [[[[0.5, 0.5]]]]) == pytest.approx(by_hand, abs=1e-6)


def test_published_dice_of_background_everywhere_is_the_lesion_share():
    targets = one_hot(np.arange(100).reshape(1, 10, 10) < 9)
    assert value("published dice", targets, one_hot(np.zeros((1, 10, 10)))) == pytest.approx(0.09, abs=1e-6)


def test_published_kld_takes_a_mirror_above_one_for_one():
    probabilities = [[[[0.3, 0.7]]]]
    above, one = (value("published kld", [[[[0.25, mirror]]]], probabilities) for mirror in (1.25, 1.0))
    assert above == one


@pytest.mark.parametrize("m", [0.1, 0.5, 0.9])
def test_bce_takes_a_soft_mirror_pixel_for_pure_background(m):
    """-m ln q - (1 - m) ln(1 - q) in one channel, -(1 + m) ln(1 - q) + m ln q in the other: m cancels."""
    assert value("bce", [[[[m, 1 + m]]]], [[[[0.3, 0.7]]]]) == pytest.approx(-np.log(0.7), abs=1e-6)


# Independent implementations


def test_bce_is_the_log_loss_of_both_channels_pooled(pixels):
    targets, probabilities = pixels
    expected = log_loss(targets.ravel(), probabilities.ravel())
    assert value("bce", targets, probabilities) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["kld", "published kld"])
@pytest.mark.parametrize("soft", [False, True])
def test_kld_is_the_relative_entropy_summed_over_channels(pixels, name, soft):
    targets, probabilities = pixels
    targets = 0.7 * targets + 0.1 if soft else targets
    expected = rel_entr(targets, probabilities).sum(axis=-1).mean()
    # Keras lifts a zero target to 1e-7, which costs about 1e-7 * ln(1e-7) a pixel.
    assert value(name, targets, probabilities) == pytest.approx(expected, abs=3e-6)


@pytest.mark.parametrize("name", ["dice", "published dice"])
def test_dice_is_taken_over_the_whole_batch_and_both_channels(pixels, name):
    targets, probabilities = pixels
    expected = 1 - 2 * (targets * probabilities).sum() / (targets.sum() + probabilities.sum())
    assert value(name, targets, probabilities) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["dice", "published dice"])
def test_dice_of_one_hot_pixels_is_the_mean_absolute_error(pixels, name):
    """Over both channels, target and prediction each sum to the number of pixels: the denominator is fixed.

    So nothing gives a small lesion more weight, as Dice over the lesion channel alone would.
    """
    targets, probabilities = pixels
    assert value(name, targets, probabilities) == pytest.approx(np.abs(targets - probabilities).mean(), rel=1e-5)


def test_dice_of_the_lesion_is_taken_over_the_whole_batch_and_its_channel_alone(pixels):
    y, p = (channels[..., 0] for channels in pixels)
    assert value("lesion-dice", *pixels) == pytest.approx(1 - 2 * (y * p).sum() / (y.sum() + p.sum()), rel=1e-5)


def test_dice_of_the_lesion_and_bce_are_summed_unweighted(pixels):
    y, p = (channels[..., 0] for channels in pixels)
    expected = 1 - 2 * (y * p).sum() / (y.sum() + p.sum()) + log_loss(pixels[0].ravel(), pixels[1].ravel())
    assert value("lesion-dice+bce", *pixels) == pytest.approx(expected, rel=1e-5)


# Gradients


@pytest.fixture
def logits():
    """Return one-hot targets and moderate logits, float64 (1, 8, 8, 2)."""
    draw = np.random.default_rng(5)
    return one_hot(draw.random((1, 8, 8)) < 0.3), draw.normal(0, 2, (1, 8, 8, 2))


@pytest.mark.parametrize("name", ["bce", "kld", "published kld"])
def test_bce_and_kld_are_one_function_of_one_hot_pixels(logits, name):
    """The log loss, whose gradient is softmax minus target; the mean is over 64 pixels."""
    targets, z = logits
    p = softmax(z, axis=-1)
    total, gradient = differentiate(losses.make_loss(CONFIGS[name]), targets, z)
    assert total == pytest.approx(log_loss(targets[..., 0].ravel(), p[..., 0].ravel()), abs=3e-6)
    np.testing.assert_allclose(gradient, (p - targets) / 64, rtol=0, atol=2e-7)


@pytest.mark.parametrize("size", [1, 15, 60, 2000])
def test_the_published_bce_is_that_of_two_sigmoids(size):
    """Each logit has a sigmoid of its own, also after an explosion: the mean of log(1 + exp(z)) - y z."""
    draw = np.random.default_rng(size)
    targets, z = one_hot(draw.random((1, 8, 8)) < 0.3), draw.normal(0, size, (1, 8, 8, 2))
    total, gradient = differentiate(losses.make_loss(CONFIGS["bce of logits"]), targets, z)
    assert total == pytest.approx((np.logaddexp(0, z) - targets * z).mean(), rel=1e-5)
    np.testing.assert_allclose(gradient, (expit(z) - targets) / 128, rtol=0, atol=1e-7)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow's softmax keeps its logits")
@pytest.mark.parametrize("size", [1, 15, 60, 2000])
@pytest.mark.parametrize(
    "name, loss",
    [
        ("bce of logits", keras.losses.BinaryCrossentropy()),
        ("published kld", keras.losses.KLDivergence()),
        ("published dice", keras.losses.Dice()),
    ],
)
def test_published_losses_equal_keras_own_behind_a_softmax(name, loss, size):
    """Loss and gradient of the step that the public notebook takes, at moderate logits and after an explosion."""
    draw = np.random.default_rng(size)
    lesion = draw.choice([0.0, 0.25, 1.0], (1, 8, 8), p=[0.7, 0.1, 0.2])
    targets, z = np.stack([lesion, np.mod(lesion + 1, 2)], axis=-1), draw.normal(0, size, (1, 8, 8, 2))
    # A loss of Keras' own would be checked and converted; a plain function is handed the softmax, logits and all.
    behind_softmax = lambda y, logits: loss(y, keras.activations.softmax(logits))  # noqa: E731
    expected, expected_gradient = differentiate(behind_softmax, targets, z)
    total, gradient = differentiate(losses.make_loss(CONFIGS[name]), targets, z)
    assert total == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("size", [15, 60])
@pytest.mark.parametrize("name", STABLE)
def test_a_lesion_that_is_certainly_missed_pulls_every_stable_loss(name, size):
    """Logits -z and z: the cross-entropy's gradient is -1 on its pixel, which Keras' clipped form takes for 0."""
    _, gradient = differentiate(
        losses.make_loss(CONFIGS[name]), [[[[1, 0], [0, 1]]]], [[[[-size, size], [size, -size]]]]
    )
    missed, invented = gradient[0, 0, :, 0]
    assert missed < -1e-5
    assert invented > 1e-9
    if name in ("bce", "kld"):
        assert (missed, invented) == pytest.approx((-0.5, 0.5), abs=1e-6)  # of two pixels


def test_clipping_takes_the_gradient_of_the_published_kld_away():
    _, gradient = differentiate(losses.make_loss(CONFIGS["published kld"]), [[[[1, 0]]]], [[[[-15, 15]]]])
    assert np.abs(gradient).max() < 1e-12


@pytest.mark.parametrize("name", ["dice", "lesion-dice"])
def test_a_pixel_that_is_certain_and_right_is_left_alone_by_a_stable_dice(name):
    """Beyond the limit of 10: pulled on and on, its logits would grow until they are no numbers."""
    targets = [[[[1, 0], [0, 1], [1, 0]]]]
    _, gradient = differentiate(losses.make_loss(CONFIGS[name]), targets, [[[[6, -6], [-6, 6], [-1, 1]]]])
    assert gradient[0, 0, :2].tolist() == [[0, 0], [0, 0]]
    # The third is wrong, and not certain.
    assert gradient[0, 0, 2, 0] < -0.01


def test_a_limited_probability_is_the_softmax_up_to_the_limit(logits):
    _, z = logits
    p = softmax(z, axis=-1)[..., :1]
    np.testing.assert_allclose(ops.convert_to_numpy(losses.limit_probability(ops.array(z, "float32"))), p, atol=1e-6)


@pytest.mark.parametrize(
    "name, by_hand",
    [
        # As for background, where the softmax of the lesion is 0.2: 0.2 - 0 and 0.8 - 1.
        ("bce", [0.2, -0.2]),
        # Target (0.25, 1), whose sum is 1.25: 1.25 * 0.2 - 0.25 and 1.25 * 0.8 - 1: at rest where it stands.
        ("published kld", [0.0, 0.0]),
        # Sigmoids 0.2 / 1.2 = 1/6 and 0.8 / 1.8 = 4/9: (1/6 - 0.25) / 2 and (4/9 - 1.25) / 2.
        ("bce of logits", [-0.0416667, -0.4027778]),
    ],
)
def test_a_soft_mirror_pixel_pulls_each_loss_elsewhere(name, by_hand):
    z = [[[[np.log(0.2), np.log(0.8)]]]]
    _, gradient = differentiate(losses.make_loss(CONFIGS[name]), [[[[0.25, 1.25]]]], z)
    np.testing.assert_allclose(gradient.ravel(), by_hand, rtol=0, atol=1e-6)


def test_dice_of_the_lesion_and_bce_pull_with_the_sum_of_their_gradients(logits):
    """The cross-entropy in the sum is that of the probabilities, not of the logits."""
    targets, z = logits
    names = ("lesion-dice+bce", "lesion-dice", "bce")
    both, dice, bce = (differentiate(losses.make_loss(CONFIGS[name]), targets, z)[1] for name in names)
    np.testing.assert_allclose(both, dice + bce, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("name, precision", [(name, "float32") for name in CONFIGS] + [("bce", "mixed_bfloat16")])
def test_a_network_is_trained_on_its_loss(name, precision):
    """Keras' training step returns the loss. All features are zero, so the logits are the biases -2 and 0.5."""
    model = unet.build(RunConfig(image_size=32, base_filters=2, precision=precision, padding="same"))
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    model.get_layer("logits").bias.assign([-2.0, 0.5])
    image = np.zeros((1, 32, 32, 1), "float32")
    targets = one_hot(np.random.default_rng(2).random((1, 32, 32)) < 0.3)
    z = np.full(targets.shape, [-2.0, 0.5])
    p = softmax(z, axis=-1)
    expected = {
        "bce": log_loss(targets.ravel(), p.ravel()),
        "bce of logits": log_loss(targets.ravel(), expit(z).ravel()),
        "kld": rel_entr(targets, p).sum(axis=-1).mean(),
        "dice": 1 - 2 * (targets * p).sum() / (targets.sum() + p.sum()),
    }
    lesion, probability = targets[..., 0], p[..., 0]
    expected["lesion-dice"] = 1 - 2 * (lesion * probability).sum() / (lesion.sum() + probability.sum())
    expected["lesion-dice+bce"] = expected["lesion-dice"] + expected["bce"]
    # Building a graph takes longer than the step itself.
    model.compile("sgd", losses.make_loss(CONFIGS[name]), run_eagerly=True)
    assert model.train_on_batch(image, targets) == pytest.approx(expected[name.removeprefix("published ")], abs=3e-6)
