"""Metrics that a run accumulates while it trains under the published protocol."""

import keras
from keras import ops


class LesionShare(keras.metrics.Mean):
    """Share of pixels predicted lesion (channel 0 above channel 1), from 0 to 1.

    Accuracy and AUC are high for a network that predicts background everywhere; this metric is 0 for it.

    Example:
        One of two pixels is predicted lesion:

        >>> share = LesionShare()
        >>> share.update_state(None, ops.array([[[[0.9, 0.1], [0.3, 0.7]]]]))
        >>> float(share.result())
        0.5
    """

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch of probabilities (n, h, w, 2); the targets are ignored."""
        # A tie counts as background here; Keras' accuracy takes the first of equal channels, the lesion.
        lesion = y_pred[..., 0] > y_pred[..., 1]
        return super().update_state(ops.cast(lesion, "float32"), sample_weight)


def published_metrics() -> list[keras.metrics.Metric]:
    """Return accuracy and AUC as the public notebook compiled them, and `LesionShare`.

    Accuracy is the share of pixels whose larger channel is right. AUC is Keras' default (ROC, 200 thresholds) over both
    channels pooled: every pixel counts twice, once as lesion and once as background.

    Example:
        A lesion pixel and a background pixel, both predicted background, with p(lesion) = 0.4 and 0.3. Half of the
        pixels are right. Pooled, the positives score 0.4 and 0.7, the negatives 0.6 and 0.3: of the four pairs, three
        are in the right order.

        >>> targets = ops.array([[[[1.0, 0.0], [0.0, 1.0]]]])
        >>> probabilities = ops.array([[[[0.4, 0.6], [0.3, 0.7]]]])
        >>> for metric in published_metrics():
        ...     metric.update_state(targets, probabilities)
        ...     print(metric.name, round(float(metric.result()), 4))
        accuracy 0.5
        auc 0.75
        lesion_share 0.0
    """
    return [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        # Without `multi_label=True`, Keras pools the channels.
        keras.metrics.AUC(name="auc"),
        LesionShare(name="lesion_share"),
    ]
