"""Losses of the study: the three published ones, cross-entropy of the probabilities, and two of the lesion channel.

In every loss, the targets y and the probabilities p are float (n, h, w, 2): channel 0 is the lesion, channel 1 the
background. To add a loss, write a class, enter it in `LOSSES`, and allow its name in `busi.config.RunConfig.loss`.

The public notebook calls functions for KLD and Dice that it never defines. This study reads them as Keras' own losses.
"""

import keras
from keras import ops

from busi.config import RunConfig, StudyError


class LogitCrossentropy(keras.losses.BinaryCrossentropy):
    """Published binary cross-entropy, computed from each softmax logit through a sigmoid of its own.

    For logits z, the mean over pixels and channels of -(y log s + (1 - y) log(1 - s)), with s = sigmoid(z).

    The published code hands softmax probabilities to Keras' `BinaryCrossentropy`. On TensorFlow, Keras replaces them
    with the logits, because the softmax attaches its logits to its output (``_keras_logits``). The published runs most
    likely did the same. On one-hot targets the result equals neither KLD nor categorical cross-entropy;
    `ProbabilityCrossentropy` equals both.

    Raises:
        StudyError: The Keras backend is not TensorFlow. Other backends do not replace the probabilities.

    Example:
        The softmax of the logits is (0.75, 0.25), but their sigmoids are (1/2, 1/4): (ln 2 + ln 4/3) / 2.

        >>> y = ops.array([[[[1.0, 0.0]]]])
        >>> p = keras.activations.softmax(ops.log(ops.array([[[[1.0, 1 / 3]]]])))
        >>> round(float(LogitCrossentropy()(y, p)), 4)
        0.4904
    """

    def __init__(self):
        # Elsewhere the same call would silently compute `ProbabilityCrossentropy`.
        backend = keras.backend.backend()
        if backend != "tensorflow":
            raise StudyError(
                f"bce: got 'logits' with the Keras backend {backend!r}; the published cross-entropy needs the backend "
                "'tensorflow': use that backend, or set bce: probabilities"
            )
        super().__init__()


class ProbabilityCrossentropy(keras.losses.Loss):
    """Binary cross-entropy of the probabilities.

    The mean over pixels and channels of -(y log p + (1 - y) log(1 - p)), with p clipped to [1e-7, 1 - 1e-7], Keras'
    `epsilon`.

    Example:
        A lesion pixel with p = 0.75 costs ln 4/3, a background pixel with p = 0.5 costs ln 2; the loss is their mean.

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> p = ops.array([[[[0.75, 0.25], [0.5, 0.5]]]])
        >>> round(float(ProbabilityCrossentropy()(y, p)), 4)
        0.4904
    """

    def call(self, y_true, y_pred):
        """Return the mean cross-entropy of each row of pixels, (n, h)."""
        # The copy is a new tensor without the softmax's logits, which Keras on TensorFlow would use in place of
        # the probabilities (see `LogitCrossentropy`).
        probabilities = ops.copy(y_pred)
        pixels = keras.losses.binary_crossentropy(y_true, probabilities)
        # Keras averages what this returns. The mean over a row changes only the order of summation, on which the bits
        # of trained networks depend.
        return ops.mean(pixels, axis=-1)


class KLDivergence(keras.losses.KLDivergence):
    """Published Kullback-Leibler divergence, as Keras computes it.

    The mean over pixels of the sum over both channels of y log(y / p), with y and p clipped to [1e-7, 1]. The clipping
    matters for the mirror fault, which makes targets larger than 1.

    Example:
        Each pixel costs -log p of its true channel: (ln 4/3 + ln 2) / 2.

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> p = ops.array([[[[0.75, 0.25], [0.5, 0.5]]]])
        >>> round(float(KLDivergence()(y, p)), 4)
        0.4904
    """


class Dice(keras.losses.Dice):
    """Published Dice loss over both channels, as Keras computes it.

    1 - 2 sum(y p) / (sum(y) + sum(p)), with sums over all pixels and both channels of the batch.

    If the two channels add up to 1, both sums in the denominator equal the number of pixels, whatever is predicted. The
    loss is then the mean absolute error: a small lesion counts for little.

    Example:
        1 - 2 (0.75 + 0.5) / (2 + 2):

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> p = ops.array([[[[0.75, 0.25], [0.5, 0.5]]]])
        >>> round(float(Dice()(y, p)), 4)
        0.375
    """


class LesionDice(keras.losses.Loss):
    """Dice loss over the lesion channel.

    1 - 2 sum(y p) / (sum(y) + sum(p)), with sums over the lesion channel of the batch. After Milletari, Navab, Ahmadi:
    V-Net (2016), section 3, with sums in place of sums of squares in the denominator.

    Example:
        1 - 2 * 0.75 / (1 + 1.25):

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> p = ops.array([[[[0.75, 0.25], [0.5, 0.5]]]])
        >>> round(float(LesionDice()(y, p)), 4)
        0.3333
    """

    def call(self, y_true, y_pred):
        """Return the loss of the batch, one number."""
        # Slices of length 1 keep the four axes that Keras expects.
        return keras.losses.dice(y_true[..., :1], y_pred[..., :1])


class LesionDicePlusCrossentropy(keras.losses.Loss):
    """Sum of `LesionDice` and `ProbabilityCrossentropy`, with equal weights.

    Example:
        0.3333 + 0.4904, the examples of the two losses:

        >>> y = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> p = ops.array([[[[0.75, 0.25], [0.5, 0.5]]]])
        >>> round(float(LesionDicePlusCrossentropy()(y, p)), 4)
        0.8237
    """

    def call(self, y_true, y_pred):
        """Return the loss of the batch, one number."""
        # `call` and not the loss itself, which Keras would scale and reduce once more.
        dice = LesionDice().call(y_true, y_pred)
        crossentropy = ProbabilityCrossentropy().call(y_true, y_pred)
        return dice + ops.mean(crossentropy)


LOSSES = {
    # `make_loss` returns the published cross-entropy where `RunConfig.bce` is "logits".
    "bce": ProbabilityCrossentropy,
    "kld": KLDivergence,
    "dice": Dice,
    "lesion-dice": LesionDice,
    "lesion-dice+bce": LesionDicePlusCrossentropy,
}
"""Loss classes by their names in `busi.config.RunConfig.loss`."""


def make_loss(config: RunConfig) -> keras.losses.Loss:
    """Return the loss that a run is trained with.

    Args:
        config: The run. `loss` selects the entry of `LOSSES`; if `loss` and `bce` are "bce" and "logits", the published
            `LogitCrossentropy` is returned.

    Raises:
        StudyError: The run asks for the published cross-entropy and the Keras backend is not TensorFlow.

    Example:
        >>> type(make_loss(RunConfig(loss="kld"))).__name__
        'KLDivergence'
    """
    if config.loss == "bce" and config.bce == "logits":
        return LogitCrossentropy()
    return LOSSES[config.loss]()
