"""Losses against numbers worked by hand and independent implementations, alone and behind a softmax."""

import keras
import numpy as np
import pytest
from scipy.special import expit, rel_entr
from sklearn.metrics import log_loss

from busi.config import RunConfig, StudyError
from busi.model import losses, unet

CONFIGS = {
    "bce": RunConfig(bce="probabilities"),
    "bce of logits": RunConfig(bce="logits"),
    "kld": RunConfig(loss="kld"),
    "dice": RunConfig(loss="dice"),
    "lesion-dice": RunConfig(loss="lesion-dice"),
    "lesion-dice+bce": RunConfig(loss="lesion-dice+bce"),
}
CROSS_ENTROPY = keras.losses.CategoricalCrossentropy()


def value(name, targets, probabilities):
    """Return a loss of probabilities that do not come from a softmax layer."""
    loss = losses.make_loss(CONFIGS[name])
    return float(loss(np.asarray(targets, "float32"), np.asarray(probabilities, "float32")))


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
        ("bce", 0.4904146),  # (-ln 0.75 - ln 0.5) / 2 = (0.2876821 + 0.6931472) / 2
        ("kld", 0.4904146),  # the same: only the true channel counts, but for 1e-7 * ln(1e-7) in the other
        ("dice", 0.375),  # 1 - 2 * (0.75 + 0.5) / (2 + 2)
        ("lesion-dice", 0.3333333),  # 1 - 2 * 0.75 / (1 + 1.25)
        ("lesion-dice+bce", 0.8237480),  # 0.3333333 + 0.4904146
    ],
)
def test_a_lesion_and_a_background_pixel_by_hand(name, by_hand):
    targets = [[[[1, 0], [0, 1]]]]
    probabilities = [[[[0.75, 0.25], [0.5, 0.5]]]]
    assert value(name, targets, probabilities) == pytest.approx(by_hand, abs=2e-6)


@pytest.mark.parametrize(
    "name, by_hand",
    [
        # -(0.25 ln 0.5 + 0.75 ln 0.5 + 1.25 ln 0.5 - 0.25 ln 0.5) / 2 = ln 2
        ("bce", 0.6931472),
        # the target is clipped to (0.25, 1): 0.25 ln(0.25 / 0.5) + 1 ln(1 / 0.5) = 0.5 ln 2 - 0.25 ln 2 + 0.5 ln 2
        ("kld", 0.5198604),
        # 1 - 2 * (0.125 + 0.625) / (1.5 + 1)
        ("dice", 0.4),
        ("lesion-dice", 0.6666667),  # 1 - 2 * 0.125 / (0.25 + 0.5)
        ("lesion-dice+bce", 1.3598139),
    ],
)
def test_a_soft_mirror_pixel_by_hand(name, by_hand):
    assert value(name, [[[[0.25, 1.25]]]], [[[[0.5, 0.5]]]]) == pytest.approx(by_hand, abs=1e-6)


def test_dice_of_background_everywhere_is_the_lesion_share():
    targets = one_hot(np.arange(100).reshape(1, 10, 10) < 9)
    assert value("dice", targets, one_hot(np.zeros((1, 10, 10)))) == pytest.approx(0.09, abs=1e-6)


def test_kld_takes_a_mirror_above_one_for_one():
    probabilities = [[[[0.3, 0.7]]]]
    assert value("kld", [[[[0.25, 1.25]]]], probabilities) == value("kld", [[[[0.25, 1.0]]]], probabilities)


@pytest.mark.parametrize("m", [0.1, 0.5, 0.9])
def test_bce_takes_a_soft_mirror_pixel_for_pure_background(m):
    """-m ln q - (1 - m) ln(1 - q) in one channel, -(1 + m) ln(1 - q) + m ln q in the other: m cancels."""
    assert value("bce", [[[[m, 1 + m]]]], [[[[0.3, 0.7]]]]) == pytest.approx(-np.log(0.7), abs=1e-6)


def test_bce_of_a_certain_mistake_is_finite():
    # Clipped to 1e-7 and, in float32, to 1 - 2 ** -23: -(ln 1e-7 + ln 2 ** -23) / 2.
    expected = -(np.log(1e-7) + np.log(2.0**-23)) / 2
    assert value("bce", [[[[1, 0]]]], [[[[0, 1]]]]) == pytest.approx(expected, rel=1e-5)


# Independent implementations


def test_bce_is_the_log_loss_of_both_channels_pooled(pixels):
    targets, probabilities = pixels
    expected = log_loss(targets.ravel(), probabilities.ravel())
    assert value("bce", targets, probabilities) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_kld_is_the_relative_entropy_summed_over_channels(pixels, soft):
    targets, probabilities = pixels
    targets = 0.7 * targets + 0.1 if soft else targets
    expected = rel_entr(targets, probabilities).sum(axis=-1).mean()
    # Keras lifts a zero target to 1e-7, which costs about 1e-7 * ln(1e-7) a pixel.
    assert value("kld", targets, probabilities) == pytest.approx(expected, abs=3e-6)


def test_dice_is_taken_over_the_whole_batch_and_both_channels(pixels):
    targets, probabilities = pixels
    expected = 1 - 2 * (targets * probabilities).sum() / (targets.sum() + probabilities.sum())
    assert value("dice", targets, probabilities) == pytest.approx(expected, rel=1e-5)


def test_dice_of_one_hot_pixels_is_the_mean_absolute_error(pixels):
    """Over both channels, target and prediction each sum to the number of pixels: the denominator is fixed.

    So nothing gives a small lesion more weight, as Dice over the lesion channel alone would.
    """
    targets, probabilities = pixels
    assert value("dice", targets, probabilities) == pytest.approx(np.abs(targets - probabilities).mean(), rel=1e-5)


def test_dice_of_the_lesion_is_taken_over_the_whole_batch_and_its_channel_alone(pixels):
    y, p = (channels[..., 0] for channels in pixels)
    assert value("lesion-dice", *pixels) == pytest.approx(1 - 2 * (y * p).sum() / (y.sum() + p.sum()), rel=1e-5)


def test_dice_of_the_lesion_and_bce_are_summed_unweighted(pixels):
    y, p = (channels[..., 0] for channels in pixels)
    expected = 1 - 2 * (y * p).sum() / (y.sum() + p.sum()) + log_loss(pixels[0].ravel(), pixels[1].ravel())
    assert value("lesion-dice+bce", *pixels) == pytest.approx(expected, rel=1e-5)


def test_missing_every_lesion_costs_dice_of_the_lesion_all_and_dice_of_both_channels_little():
    targets = one_hot(np.arange(100).reshape(1, 10, 10) < 9)
    background = one_hot(np.zeros((1, 10, 10)))
    assert value("lesion-dice", targets, background) == pytest.approx(1, abs=1e-6)
    assert value("dice", targets, background) == pytest.approx(0.09, abs=1e-6)


# Behind a softmax

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="gradients are read from TensorFlow's tape"
)


def behind_softmax(loss, targets, logits):
    """Return a loss behind Keras' softmax, as in the network, and its gradient with respect to ``logits`` (..., 2)."""
    import tensorflow as tf

    logits = tf.constant(logits, "float32")
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = loss(tf.constant(targets, "float32"), keras.activations.softmax(logits))
    return float(total), tape.gradient(total, logits).numpy()


@pytest.fixture
def logits():
    """Return one-hot targets and logits, float64 (1, 8, 8, 2)."""
    draw = np.random.default_rng(5)
    return one_hot(draw.random((1, 8, 8)) < 0.3), draw.normal(0, 2, (1, 8, 8, 2))


@needs_tensorflow
@pytest.mark.parametrize("loss", [losses.make_loss(CONFIGS["bce"]), losses.make_loss(CONFIGS["kld"]), CROSS_ENTROPY])
def test_bce_kld_and_cross_entropy_are_one_function_of_one_hot_pixels(logits, loss):
    """The log loss, whose gradient is softmax minus target; the mean is over 64 pixels."""
    targets, z = logits
    softmax = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    total, gradient = behind_softmax(loss, targets, z)
    assert total == pytest.approx(log_loss(targets[..., 0].ravel(), softmax[..., 0].ravel()), abs=3e-6)
    np.testing.assert_allclose(gradient, (softmax - targets) / 64, rtol=0, atol=2e-7)


@needs_tensorflow
def test_the_published_bce_is_that_of_two_sigmoids(logits):
    """Each logit has a sigmoid of its own: the gradient is half of sigmoid minus target, channel by channel."""
    targets, z = logits
    total, gradient = behind_softmax(losses.make_loss(CONFIGS["bce of logits"]), targets, z)
    assert total == pytest.approx(log_loss(targets.ravel(), expit(z).ravel()), rel=1e-5)
    np.testing.assert_allclose(gradient, (expit(z) - targets) / 128, rtol=0, atol=1e-7)


@needs_tensorflow
@pytest.mark.parametrize(
    "name, by_hand",
    [
        # As for background, where the softmax of the lesion is 0.2: 0.2 - 0 and 0.8 - 1.
        ("bce", [0.2, -0.2]),
        # Target (0.25, 1), whose sum is 1.25: 1.25 * 0.2 - 0.25 and 1.25 * 0.8 - 1: at rest where it stands.
        ("kld", [0.0, 0.0]),
        # Sigmoids 0.2 / 1.2 = 1/6 and 0.8 / 1.8 = 4/9: (1/6 - 0.25) / 2 and (4/9 - 1.25) / 2.
        ("bce of logits", [-0.0416667, -0.4027778]),
    ],
)
def test_a_soft_mirror_pixel_pulls_each_loss_elsewhere(name, by_hand):
    _, gradient = behind_softmax(losses.make_loss(CONFIGS[name]), [[[[0.25, 1.25]]]], [[[[np.log(0.2), np.log(0.8)]]]])
    np.testing.assert_allclose(gradient.ravel(), by_hand, rtol=0, atol=1e-6)


@needs_tensorflow
def test_dice_of_the_lesion_and_bce_pull_with_the_sum_of_their_gradients(logits):
    """The cross-entropy in the sum is that of the probabilities, not of the logits."""
    targets, z = logits
    names = ("lesion-dice+bce", "lesion-dice", "bce")
    both, dice, bce = (behind_softmax(losses.make_loss(CONFIGS[name]), targets, z)[1] for name in names)
    np.testing.assert_allclose(both, dice + bce, rtol=2e-5, atol=2e-7)


@needs_tensorflow
@pytest.mark.parametrize(
    "name, precision",
    [
        *((name, "float32") for name in CONFIGS),
        *((name, "mixed_bfloat16") for name in ("bce of logits", "lesion-dice+bce")),
    ],
)
def test_a_network_is_trained_on_its_loss(name, precision):
    """Keras' training step returns the loss. All features are zero, so the logits are the biases -2 and 0.5."""
    model = unet.build(32, 2, precision=precision, padding="same")
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    model.get_layer("probability").bias.assign([-2.0, 0.5])
    image = np.zeros((1, 32, 32, 1), "float32")
    targets = one_hot(np.random.default_rng(2).random((1, 32, 32)) < 0.3)
    z = np.full(targets.shape, [-2.0, 0.5])
    softmax = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    expected = {
        "bce": log_loss(targets.ravel(), softmax.ravel()),
        "bce of logits": log_loss(targets.ravel(), expit(z).ravel()),
        "kld": rel_entr(targets, softmax).sum(axis=-1).mean(),
        "dice": 1 - 2 * (targets * softmax).sum() / (targets.sum() + softmax.sum()),
    }
    y, p = targets[..., 0], softmax[..., 0]
    expected["lesion-dice"] = 1 - 2 * (y * p).sum() / (y.sum() + p.sum())
    expected["lesion-dice+bce"] = expected["lesion-dice"] + expected["bce"]
    model.compile("sgd", losses.make_loss(CONFIGS[name]), jit_compile=False)
    assert model.train_on_batch(image, targets) == pytest.approx(expected[name], abs=3e-6)


def test_the_published_bce_is_refused_on_a_backend_that_computes_another(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert isinstance(losses.make_loss(CONFIGS["bce"]), losses.ProbabilityCrossentropy)
    with pytest.raises(StudyError, match=r"^bce: got 'logits' with the Keras backend 'jax'; .* bce: probabilities$"):
        losses.make_loss(CONFIGS["bce of logits"])
