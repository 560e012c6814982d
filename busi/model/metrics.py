"""Metrics that a run accumulates while it is trained under the published protocol; all take the network's logits."""

import keras
from keras import ops


class LesionShare(keras.metrics.Mean):
    """Share of pixels predicted lesion (channel 0 above channel 1), from 0 to 1.

    For a network that predicts background everywhere, accuracy and AUC are high, but this metric is 0.

    Example:
        One of two pixels is predicted lesion.

        >>> share = LesionShare()
        >>> share.update_state(None, ops.array([[[[0.9, 0.1], [0.3, 0.7]]]]))
        >>> float(share.result())
        0.5
    """

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch of logits (n, h, w, 2); the targets are ignored."""
        # A tie counts as background here; Keras' accuracy takes the first of equal channels, the lesion.
        lesion = y_pred[..., 0] > y_pred[..., 1]
        return super().update_state(ops.cast(lesion, "float32"), sample_weight)


class PooledAUC(keras.metrics.AUC):
    """Area under the ROC curve of the softmax, with both channels pooled (as Keras does by default; 200 thresholds).

    Every pixel counts twice, once as lesion and once as background. Keras' own option ``from_logits`` would take a
    sigmoid of each channel instead of the softmax.

    Example:
        The positives score 0.4 and 0.7, the negatives 0.6 and 0.3: three of the four pairs are in the right order.

        >>> auc = PooledAUC()
        >>> targets = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> auc.update_state(targets, ops.log(ops.array([[[[0.4, 0.6], [0.3, 0.7]]]])))
        >>> round(float(auc.result()), 4)
        0.75
    """

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch of targets and logits (n, h, w, 2)."""
        return super().update_state(y_true, ops.softmax(y_pred, axis=-1), sample_weight)


def published_metrics() -> list[keras.metrics.Metric]:
    """Return accuracy and AUC as the public notebook uses them, and `LesionShare`.

    Accuracy is the share of pixels whose larger channel is the right one.

    Example:
        A lesion pixel and a background pixel are both predicted background: half of the pixels are right.

        >>> targets = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> logits = ops.log(ops.array([[[[0.4, 0.6], [0.3, 0.7]]]]))
        >>> for metric in published_metrics():
        ...     metric.update_state(targets, logits)
        ...     print(metric.name, round(float(metric.result()), 4))
        accuracy 0.5
        auc 0.75
        lesion_share 0.0
    """
    return [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        PooledAUC(name="auc"),
        LesionShare(name="lesion_share"),
    ]
