"""Losses of the study: the three published ones, their stable forms, and two with a Dice of the lesion channel.

In every loss, the targets y are float (n, h, w, 2): channel 0 is the lesion, channel 1 the background. The predictions
are the network's logits z, float32 of the same shape, and p is their softmax over the channels. To add a loss, write a
class, enter it in `LOSSES`, and allow its name in `busi.config.RunConfig.loss`.

The public notebook calls functions for KLD and Dice that it never defines. This study takes them for Keras' own losses.
"""

import keras
from keras import ops

from busi.config import RunConfig

LIMIT = 10.0
"""Limit of the difference of the two logits in a stable Dice loss, where probabilities are 0.00005 and 0.99995.

Beyond it, the softmax's gradient p (1 - p) is below 0.00005, and Adam's epsilon would soon outweigh it.
"""


class LogitCrossentropy(keras.losses.BinaryCrossentropy):
    """Published binary cross-entropy, in which each logit goes through a sigmoid of its own.

    It is the mean over pixels and channels of -(y log s + (1 - y) log(1 - s)), with s = sigmoid(z).

    The published code hands softmax probabilities to Keras' `BinaryCrossentropy`. On TensorFlow, Keras replaces them
    with the logits, because the softmax attaches its logits to its output (``_keras_logits``). The
    published runs were trained so: their printed log shows a mean loss of 1602, which clipped probabilities cannot
    reach. On one-hot targets this loss equals neither KLD nor categorical cross-entropy; `ProbabilityCrossentropy`
    equals both.

    Example:
        The softmax of the logits is (0.75, 0.25), but their sigmoids are (1/2, 1/4). The loss is (ln 2 + ln 4/3) / 2.

        >>> y = ops.array([[[[1.0, 0.0]]]])
        >>> z = ops.log(ops.array([[[[1.0, 1 / 3]]]]))
        >>> round(float(LogitCrossentropy()(y, z)), 4)
        0.4904
    """

    def __init__(self):
        super().__init__(from_logits=True)


class ProbabilityCrossentropy(keras.losses.Loss):
    """Binary cross-entropy of the probabilities, computed from the logits so that no gradient vanishes.

    It is the mean over pixels and channels of -(y log p + (1 - y) log(1 - p)). Keras' own loss clips p to
    [1e-7, 1 - 1e-7], beyond which its gradient is 0: a network that is certain and wrong never learns again.

    Example:
        A lesion pixel with p = 0.75 costs ln 4/3, a background pixel with p = 0.5 costs ln 2; the loss is their mean.

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> z = ops.log(ops.array([[[[3.0, 1.0], [1.0, 1.0]]]]))
        >>> round(float(ProbabilityCrossentropy()(y, z)), 4)
        0.4904
    """

    def call(self, y_true, y_pred):
        """Return the cross-entropy of each pixel, (n, h, w)."""
        log_p = ops.log_softmax(y_pred, axis=-1)
        # With two channels, 1 - p of one is p of the other.
        log_rest = ops.flip(log_p, axis=-1)
        return -ops.mean(y_true * log_p + (1 - y_true) * log_rest, axis=-1)


class KLDivergence(keras.losses.Loss):
    """Published Kullback-Leibler divergence, as Keras computes it from probabilities.

    It is the mean over pixels of the sum over both channels of y log(y / p), with y and p clipped to [1e-7, 1].
    Clipping y matters for the mirror fault, which makes targets larger than 1. Where p is clipped, its gradient is 0.

    Example:
        Each pixel costs -log p of its true channel. The loss is (ln 4/3 + ln 2) / 2.

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> z = ops.log(ops.array([[[[3.0, 1.0], [1.0, 1.0]]]]))
        >>> round(float(KLDivergence()(y, z)), 4)
        0.4904
    """

    def call(self, y_true, y_pred):
        """Return the divergence of each pixel, (n, h, w)."""
        return keras.losses.kl_divergence(y_true, ops.softmax(y_pred, axis=-1))


class StableKLDivergence(keras.losses.Loss):
    """Kullback-Leibler divergence, computed from the logits so that no gradient vanishes.

    It is the mean over pixels of the sum over both channels of y (log y - log p), where y log y is 0 for y = 0.

    Example:
        On one-hot targets, y log y is 0. The loss is (ln 4/3 + ln 2) / 2.

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> z = ops.log(ops.array([[[[3.0, 1.0], [1.0, 1.0]]]]))
        >>> round(float(StableKLDivergence()(y, z)), 4)
        0.4904
    """

    def call(self, y_true, y_pred):
        """Return the divergence of each pixel, (n, h, w)."""
        # Where y is 0, log y only has to be finite, because its product with y is 0.
        log_y = ops.log(ops.maximum(y_true, keras.config.epsilon()))
        log_p = ops.log_softmax(y_pred, axis=-1)
        return ops.sum(y_true * (log_y - log_p), axis=-1)


class Dice(keras.losses.Loss):
    """Published Dice loss over both channels, as Keras computes it from probabilities.

    It is 1 - 2 sum(y p) / (sum(y) + sum(p)), with sums over all pixels and both channels of the batch.

    If the two channels of y add up to 1, both sums in the denominator equal the number of pixels, whatever is
    predicted. On one-hot targets the loss is then the mean absolute error, in which a small lesion counts for little.

    Example:
        The loss is 1 - 2 (0.75 + 0.5) / (2 + 2).

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> z = ops.log(ops.array([[[[3.0, 1.0], [1.0, 1.0]]]]))
        >>> round(float(Dice()(y, z)), 4)
        0.375
    """

    def call(self, y_true, y_pred):
        """Return the loss of the batch, one number."""
        return keras.losses.dice(y_true, ops.softmax(y_pred, axis=-1))


class StableDice(keras.losses.Loss):
    """Dice loss over both channels with the probabilities of `limit_probability`, whose gradient does not vanish.

    Example:
        The loss is 1 - 2 (0.75 + 0.5) / (2 + 2).

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> z = ops.log(ops.array([[[[3.0, 1.0], [1.0, 1.0]]]]))
        >>> round(float(StableDice()(y, z)), 4)
        0.375
    """

    def call(self, y_true, y_pred):
        """Return the loss of the batch, one number."""
        lesion = limit_probability(y_pred)
        return keras.losses.dice(y_true, ops.concatenate([lesion, 1 - lesion], axis=-1))


class LesionDice(keras.losses.Loss):
    """Dice loss over the lesion channel with the probabilities of `limit_probability`, whose gradient does not vanish.

    It is 1 - 2 sum(y p) / (sum(y) + sum(p)), with sums over the lesion channel of the batch. After Milletari, Navab,
    Ahmadi: V-Net (2016), section 3, but with sums instead of sums of squares in the denominator.

    Example:
        The loss is 1 - 2 * 0.75 / (1 + 1.25).

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> z = ops.log(ops.array([[[[3.0, 1.0], [1.0, 1.0]]]]))
        >>> round(float(LesionDice()(y, z)), 4)
        0.3333
    """

    def call(self, y_true, y_pred):
        """Return the loss of the batch, one number."""
        # A slice of length 1 keeps the four axes that Keras expects.
        return keras.losses.dice(y_true[..., :1], limit_probability(y_pred))


class LesionDicePlusCrossentropy(keras.losses.Loss):
    """Sum of `LesionDice` and `ProbabilityCrossentropy`, with equal weights.

    Example:
        The loss is 0.3333 + 0.4904, the sum of those in the examples of the two losses.

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> z = ops.log(ops.array([[[[3.0, 1.0], [1.0, 1.0]]]]))
        >>> round(float(LesionDicePlusCrossentropy()(y, z)), 4)
        0.8237
    """

    def call(self, y_true, y_pred):
        """Return the loss of the batch, one number."""
        # `call`, not the loss object, which would reduce and scale the result once more.
        dice = LesionDice().call(y_true, y_pred)
        crossentropy = ProbabilityCrossentropy().call(y_true, y_pred)
        return dice + ops.mean(crossentropy)


def limit_probability(logits):
    """Return the softmax's probability of lesion, (n, h, w, 1), with the difference of the logits limited to `LIMIT`.

    Example:
        >>> round(float(limit_probability(ops.array([[[[60.0, -60.0]]]]))[0, 0, 0, 0]), 6)
        0.999955
    """
    # The softmax of two channels is the sigmoid of their difference.
    return ops.sigmoid(_limit_difference(logits[..., :1] - logits[..., 1:]))


@ops.custom_gradient
def _limit_difference(difference):
    """Limit a difference of logits to `LIMIT` either way; beyond it, only a gradient that leads back is passed on.

    A pixel that is certain and wrong gets the gradient p (1 - p) of the limit, where that of the softmax itself would
    vanish. One that is certain and right gets none, or its logits would grow without end.
    """

    def gradient(*inputs, upstream=None):
        # Some Keras backends pass the upstream gradient by position, others by name.
        if upstream is None:
            upstream = inputs[0]
        # A step goes against the gradient.
        leads_away = ((difference > LIMIT) & (upstream < 0)) | ((difference < -LIMIT) & (upstream > 0))
        return ops.where(leads_away, 0.0, upstream)

    return ops.clip(difference, -LIMIT, LIMIT), gradient


LOSSES = {
    "bce": ProbabilityCrossentropy,
    "kld": StableKLDivergence,
    "dice": StableDice,
    "lesion-dice": LesionDice,
    "lesion-dice+bce": LesionDicePlusCrossentropy,
}
"""Loss classes by their names in `busi.config.RunConfig.loss`."""

PUBLISHED = {"kld": KLDivergence, "dice": Dice}
"""Classes that take the place of those in `LOSSES` where `busi.config.RunConfig.clipped` is set."""


def make_loss(config: RunConfig) -> keras.losses.Loss:
    """Return the loss that a run is trained with.

    Args:
        config: The run. `loss` selects the entry of `LOSSES`, or under `clipped` that of `PUBLISHED` if it has one. If
            `loss` is "bce" and `bce` is "logits", the published `LogitCrossentropy` is returned.

    Example:
        >>> type(make_loss(RunConfig(loss="kld"))).__name__
        'KLDivergence'
    """
    if config.loss == "bce" and config.bce == "logits":
        return LogitCrossentropy()
    classes = LOSSES | PUBLISHED if config.clipped else LOSSES
    return classes[config.loss]()
