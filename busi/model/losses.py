"""The losses: the three published ones over both channels, and Dice of the lesion alone, by itself and with BCE."""

import keras
from keras import ops

from busi.config import RunConfig, StudyError


class ProbabilityCrossentropy(keras.losses.Loss):
    """Binary cross-entropy of the probabilities themselves, whatever layer made them.

    Targets y and probabilities p are (n, h, w, 2); mean over pixels and channels of -(y log p + (1 - y) log(1 - p)), p
    clipped to [1e-7, 1 - 1e-7], Keras' `epsilon`.
    """

    def call(self, y_true, y_pred):
        """Cross-entropy a pixel, (n, h, w)."""
        # A new tensor: Keras on TensorFlow hangs a softmax's logits onto its output and would use those instead.
        return ops.mean(keras.losses.binary_crossentropy(y_true, ops.copy(y_pred)), axis=-1)


class LesionDice(keras.losses.Loss):
    """Dice over the lesion pixels of the whole batch: y and p are (n, h, w, 2), lesion first; the result is a number.

    Milletari, Navab, Ahmadi: V-Net (2016), section 3, with sums in place of sums of squares.
    """

    def call(self, y_true, y_pred):
        """1 - 2 sum(y p) / (sum(y) + sum(p)) over the first channel."""
        return keras.losses.dice(y_true[..., :1], y_pred[..., :1])


class LesionDicePlusCrossentropy(keras.losses.Loss):
    """`LesionDice` plus `ProbabilityCrossentropy`: y and p are (n, h, w, 2), the result is a number."""

    def call(self, y_true, y_pred):
        """The sum of the two."""
        return LesionDice().call(y_true, y_pred) + ops.mean(ProbabilityCrossentropy().call(y_true, y_pred))


def get(config: RunConfig) -> keras.losses.Loss:
    """The loss of ``config.loss``, for targets y and softmax probabilities p (n, h, w, 2).

    - "bce" of "probabilities", mean over pixels and channels: -(y log p + (1 - y) log(1 - p)).
    - "bce" of "logits", the same with p replaced by sigmoid(z) of each softmax logit z. Keras on TensorFlow computes
      this for BinaryCrossentropy behind a softmax, because the softmax hands its logits on with its output
      (``_keras_logits``); so did the published runs, as far as anyone can tell. On one-hot targets it is neither KLD
      nor categorical cross-entropy, which "bce" of "probabilities" is.
    - "kld", mean over pixels of the sum over channels: y log(y / p); Keras clips y to at most 1.
    - "dice", over all pixels and channels of the batch: 1 - 2 sum(y p) / (sum(y) + sum(p)). Where the channels are
      complements, both sums are the number of pixels, whatever is predicted, and this is the mean absolute error: it
      weighs a lesion by its area.
    - "lesion-dice", the same over the lesion channel alone.
    - "lesion-dice+bce", the sum of "lesion-dice" and "bce" of "probabilities".

    The public notebook names functions for "kld" and "dice" that it never defines; Keras' own are the reading here.

    Raises:
        StudyError: "bce" of "logits" on another Keras backend, where Keras does not do this.
    """
    if config.loss == "kld":
        return keras.losses.KLDivergence()
    if config.loss == "dice":
        return keras.losses.Dice()
    if config.loss == "lesion-dice":
        return LesionDice()
    if config.loss == "lesion-dice+bce":
        return LesionDicePlusCrossentropy()
    if config.bce == "probabilities":
        return ProbabilityCrossentropy()
    if keras.backend.backend() != "tensorflow":
        raise StudyError(
            f"bce: got 'logits' with the Keras backend {keras.backend.backend()!r}; the published cross-entropy is "
            "what Keras makes of it on TensorFlow: use that backend, or bce: probabilities"
        )
    return keras.losses.BinaryCrossentropy()
