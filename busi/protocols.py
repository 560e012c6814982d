"""What a protocol trains on, what it measures after an epoch, and how it scores the trained network."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from busi.config import RunConfig
from busi.dataset import splits
from busi.dataset.arrays import Arrays, published, resized, restored, union, whole
from busi.dataset.catalog import Catalog
from busi.evaluation import metrics
from busi.model import preprocessing
from busi.model.metrics import published as published_metrics
from busi.runs import BEST

THRESHOLDS = np.arange(1, 100) / 100
"""Thresholds of the probability among which the validation part chooses: 0.01 to 0.99."""


class Published:
    """Trained and scored on all lesion images, as the study's code did.

    Args:
        config: The run.
        data: Its images.

    Attributes:
        training: The images and targets that are trained on, preprocessed but not augmented.
    """

    def __init__(self, config: RunConfig, data: Catalog):
        arrays = published(data, config)
        self.training = Arrays(preprocessing.scale(arrays.images, config.preprocessing), arrays.targets)

    def metrics(self) -> list:
        """What Keras accumulates beside the loss."""
        return published_metrics()

    def measured(self, model) -> dict[str, float]:
        """Nothing more after an epoch."""
        return {}

    def improved(self, history: list[dict]) -> bool:
        """No epoch is better than another: the last one counts."""
        return False

    def ended(self, history: list[dict]) -> bool:
        """Every epoch is trained."""
        return False

    def score(self, model, history: list[dict], folder: Path) -> dict:
        """The run's metrics: the last epoch as published, and the same images with the weights held still."""
        still = model.evaluate(self.training.images, self.training.targets, batch_size=1, verbose=0, return_dict=True)
        return {
            "training": {name: history[-1][name] for name in still},
            "still": still,
            "images": len(self.training),
            "seconds": sum(row["seconds"] for row in history),
        }


class Heldout:
    """Trained on a fold's training part; its validation part decides epoch and threshold; its test part is scored.

    Args:
        config: The run.
        data: Its images.

    Attributes:
        training: The images and targets that are trained on, preprocessed but not augmented.
        validation: Those of the validation part, the same way.
    """

    def __init__(self, config: RunConfig, data: Catalog):
        self.config, self.data = config, data
        self.split = splits.of(data, config.split)
        arrays = whole(data, config)
        self._raw = arrays[self._rows("training")].images
        scaled = Arrays(self._scaled(arrays.images), arrays.targets)
        self.images = scaled.images
        self.training, self.validation = scaled[self._rows("training")], scaled[self._rows("validation")]

    def _rows(self, part: str) -> np.ndarray:
        """Of the lesion images: normals are never trained on and decide nothing."""
        return np.flatnonzero((self.split[f"fold{self.config.fold}"] == part) & (self.split.image_class != "normal"))

    def metrics(self) -> list:
        """The loss is enough while training."""
        return []

    def measured(self, model) -> dict[str, float]:
        """`validation_dice`: mean Dice on the validation part at the network's resolution, at the best threshold.

        What the final threshold is chosen by, so that an epoch counts for what it will be scored as: means the same
        whatever the loss, and rewards a network that ranks pixels well before its probabilities are large.
        """
        p, y = self._predicted(model, self.validation.images), self.validation.targets[..., 0]
        return {"validation_dice": float(_dice(y, p).max())}

    def improved(self, history: list[dict]) -> bool:
        """Whether the last epoch is the best yet on the validation part."""
        return _best(history) == len(history)

    def ended(self, history: list[dict]) -> bool:
        """Whether `patience` epochs have passed since the best."""
        return bool(history and self.config.patience) and len(history) - _best(history) >= self.config.patience

    def score(self, model, history: list[dict], folder: Path) -> dict:
        """The run's metrics, of the best epoch's weights; writes ``per_image.csv`` and ``bins.csv`` into ``folder``.

        The threshold is the one of `THRESHOLDS` with the best mean Dice on the validation part. Everything is computed
        at the images' original sizes, against all masks of an image.
        """
        model.load_weights(folder / BEST)
        threshold = THRESHOLDS[np.argmax(_dice(*self._restored(model, self._rows("validation"))))]
        scored = np.flatnonzero(self.split[f"fold{self.config.fold}"] == "test")
        truths, probabilities = self._restored(model, scored)
        per_image = self.split.loc[scored, ["image_class", "name", "group"]].assign(
            lesion_share=self.data.table.lesion_share[scored]
        )
        rows = [metrics.per_image(t, p, threshold) for t, p in zip(truths, probabilities, strict=True)]
        per_image = per_image.reset_index(drop=True).join(pd.DataFrame(rows))
        per_image.to_csv(folder / "per_image.csv", index=False, float_format="%.6f")
        lesions = [i for i, truth in enumerate(truths) if truth.any()]
        bins = sum(metrics.bins(truths[i], probabilities[i]).set_index("probability") for i in lesions)
        bins.reset_index().to_csv(folder / "bins.csv", index=False)
        return {
            "threshold": float(threshold),
            "best_epoch": _best(history),
            "epochs": len(history),
            "validation_dice": history[_best(history) - 1]["validation_dice"],
            "parameters": model.count_params(),
            "images": len(self.training),
            "seconds": sum(row["seconds"] for row in history),
        }

    def probability(self, model, pixels: np.ndarray) -> np.ndarray:
        """What ``model`` says of an image, which need not be one of the data set.

        Args:
            model: A network of this run's configuration.
            pixels: Grey, uint8 (h, w).

        Returns:
            Probability of lesion, float32 (h, w) in [0, 1].
        """
        small = resized(pixels / np.float32(255), self.config.image_size, self.config.resize)
        (predicted,) = self._predicted(model, self._scaled(small[None, ..., None]))
        return restored(predicted, *pixels.shape, self.config)

    def _scaled(self, images: np.ndarray) -> np.ndarray:
        return preprocessing.scale(images, self.config.preprocessing, self._raw)

    def _predicted(self, model, images: np.ndarray) -> np.ndarray:
        # Not `predict`, which unrolls as many steps into its graph as `fit` takes in one execution.
        starts = range(0, len(images), self.config.batch_size)
        batches = [model.predict_on_batch(images[start : start + self.config.batch_size]) for start in starts]
        return np.concatenate(batches)[..., 0]

    def _restored(self, model, rows: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Truth and probability of each image at its original size."""
        table = self.data.table.loc[rows]
        predicted = self._predicted(model, self.images[rows])
        sizes = zip(predicted, table.height, table.width, strict=True)
        return [union(files) for files in table.masks], [restored(p, h, w, self.config) for p, h, w in sizes]


def of(config: RunConfig, data: Catalog) -> Published | Heldout:
    """The protocol of a run, with its images."""
    return {"published": Published, "heldout": Heldout}[config.protocol](config, data)


def _best(history: list[dict]) -> int:
    """The epoch, from 1, with the highest validation Dice; the earliest of equals, and none that went to nan."""
    return 1 + int(np.argmax([np.nan_to_num(row["validation_dice"], nan=-1) for row in history]))


def _dice(truths: Iterable[np.ndarray], probabilities: Iterable[np.ndarray]) -> np.ndarray:
    """Dice at each of `THRESHOLDS`, mean over the images; 2 sum(y inside) / (sum(y) + sum(inside)) where y is soft."""
    rows = []
    for truth, probability in zip(truths, probabilities, strict=True):
        # How many thresholds a pixel is inside of: none, where a network has diverged.
        reached = np.digitize(np.nan_to_num(probability), THRESHOLDS).ravel()
        overlap, inside = (
            np.bincount(reached, weights, minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:]
            for weights in (truth.ravel(), None)
        )
        # An unpadded network's output may see no lesion: nothing to find counts as not found.
        rows.append(2 * overlap / np.maximum(truth.sum() + inside, 1e-7))
    return np.mean(rows, axis=0)
