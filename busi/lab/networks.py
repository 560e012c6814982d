"""Trained held-out networks, to be asked about any image."""

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from busi import study as runs
from busi.config import FAMILIES, ROOT, RunConfig, Study, related
from busi.dataset.arrays import union
from busi.dataset.catalog import Catalog, grey
from busi.protocols import Heldout
from busi.runs import BEST, Run, Store
from busi.training import compiled

# TensorFlow warns of the graph of each further network, and where people type it does so among the results.
logging.getLogger("tensorflow").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Case:
    """What a network made of one image.

    Attributes:
        name: Of the image.
        pixels: Grey, uint8 (h, w).
        truth: Union of the masks, bool (h, w); None where nobody has drawn one.
        probability: Of lesion, float32 (h, w) in [0, 1].
        threshold: Pixels of at least this probability are predicted lesion.
    """

    name: str
    pixels: np.ndarray
    truth: np.ndarray | None
    probability: np.ndarray
    threshold: float

    @property
    def predicted(self) -> np.ndarray:
        """The pixels predicted lesion, bool (h, w)."""
        return self.probability >= self.threshold

    @property
    def dice(self) -> float:
        """Overlap of truth and prediction, 0 to 1; nan where the image has no lesion or its truth is not known."""
        if self.truth is None or not self.truth.any():
            return np.nan
        return float(2 * (self.truth & self.predicted).sum() / (self.truth.sum() + self.predicted.sum()))

    @property
    def described(self) -> str:
        """Its Dice, where it has one, how much is marked and the threshold, in a line."""
        dice = "" if np.isnan(self.dice) else f"Dice {self.dice:.3f}, "
        return f"{dice}{self.predicted.mean():.1%} marked at {self.threshold:.2f}"


class Network:
    """A finished held-out run with the weights of its best epoch.

    Args:
        run: From the store, with its weights.
        data: The images that it was trained on.

    Attributes:
        threshold: The one that its validation part chose.
        parts: Image -> "training", "validation" or "test".
    """

    def __init__(self, run: Run, data: Catalog):
        self._protocol, self._model = Heldout(run.config, data), compiled(run.config)
        self._model.load_weights(run.folder / BEST)
        self.threshold = run.metrics["threshold"]
        split = self._protocol.split
        self.parts = dict(zip(split.name, split[f"fold{run.config.fold}"], strict=True))

    def probability(self, pixels: np.ndarray) -> np.ndarray:
        """Of lesion, float32 (h, w) in [0, 1], for a grey image uint8 (h, w)."""
        return self._protocol.probability(self._model, pixels)


class Variant:
    """A variant of the study: a network for each fold that has been trained.

    Args:
        runs: Its finished runs, at least one, each with its weights.
        data: The images.

    Attributes:
        runs: As given.
        per_image: The scores of every image that one of ``runs`` has held out, as `busi.runs.Run.per_image`; of a
            repeated image the first run's.
    """

    def __init__(self, runs: tuple[Run, ...], data: Catalog):
        self.runs, self._data = runs, data
        self.per_image = pd.concat([run.per_image for run in runs]).drop_duplicates("name").reset_index(drop=True)

    @cached_property
    def _networks(self) -> list[Network]:
        # Building them takes seconds: not before one is asked.
        return [Network(run, self._data) for run in self.runs]

    def network(self, name: str) -> Network:
        """The first network that the image was held out from; the first of all where there is none."""
        return next((each for each in self._networks if each.parts.get(name) == "test"), self._networks[0])

    def case(self, name: str, pixels: np.ndarray, truth: np.ndarray | None, threshold: float | None = None) -> Case:
        """What `network` makes of an image.

        Args:
            name: Of the image; may be one that the data set has not.
            pixels: Grey, uint8 (h, w).
            truth: Union of its masks, bool (h, w), if there are any.
            threshold: The network's own unless given.
        """
        network = self.network(name)
        chosen = network.threshold if threshold is None else threshold
        return Case(name, pixels, truth, network.probability(pixels), chosen)


def variants(study: Study, data: Catalog) -> dict[str, Variant]:
    """The held-out variants of all families with a finished run whose weights are in the store: "loss: KLD", ...

    Runs of fewer epochs than planned count where there is none of as many.
    """
    found = {}
    for family in FAMILIES:
        for label, configs in related(study, family).configs("heldout").items():
            store = runs.store(study)
            if trained := tuple(run for config in configs if (run := _with_weights(config, data, store))):
                found[f"{family}: {label}"] = Variant(trained, data)
    return found


def missing(study: Study) -> str:
    """What to type where `variants` finds none, Markdown."""
    more = "" if study.data_dir == "phantom" else f" DATA={study.data_dir}"
    told = (
        f"No held-out run of profile `{study.profile}` has its weights in `{study.runs_dir}`: "
        f"run `make study PROFILE={study.profile}{more}` in a terminal, then this notebook again."
    )
    gathered = study.report_path / "results" / "heldout"
    if gathered.is_dir():
        told += (
            f" Runs whose results are in `{gathered.relative_to(ROOT)}` count as finished, and weights are not kept "
            "there: remove that folder first to have them trained here."
        )
    return told


def picture(data: Catalog, name: str) -> tuple[np.ndarray, np.ndarray]:
    """An image of the data set, grey, uint8 (h, w), and the union of its masks, bool (h, w)."""
    row = data.table.set_index("name").loc[name]
    return grey(row.image), union(row.masks)


def _with_weights(config: RunConfig, data: Catalog, store: Store) -> Run | None:
    run = store.find(config, data.fingerprint)
    if run and (run.folder / BEST).is_file():
        return run
    return store.shorter(config, data.fingerprint)
