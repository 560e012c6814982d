"""Trained held-out networks and their answers: about images of the data set, and about any other image.

A network needs its run folder and nothing else. Answers about images that a run held out are already in that folder:
no network is loaded for them.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

from busi.config import Parameters, StudyError, find_study_folder
from busi.dataset import arrays, preprocessing
from busi.dataset.catalog import Catalog, read_grey, read_union
from busi.runs import Run
from busi.scoring import metrics
from busi.scoring.scores import find_or_score
from busi.study import find_groups, open_store


@dataclass(frozen=True)
class Case:
    """A network's answer about one image.

    Attributes:
        name: Name of the image.
        pixels: Grey image, uint8 (h, w).
        truth: Union of the masks, bool (h, w); None if the image has not been annotated.
        probability: Probability of lesion, float32 (h, w), 0 to 1.
        threshold: Probability from which on a pixel is predicted lesion.
    """

    name: str
    pixels: np.ndarray
    truth: np.ndarray | None
    probability: np.ndarray
    threshold: float

    @property
    def predicted(self) -> np.ndarray:
        """Return the pixels predicted lesion, bool (h, w)."""
        return self.probability >= self.threshold

    @property
    def dice(self) -> float:
        """Return the Dice score, 0 to 1; nan if the image has no lesion or has not been annotated."""
        if self.truth is None:
            return np.nan
        return metrics.dice(self.truth, self.predicted)

    @property
    def description(self) -> str:
        """Return the Dice score if there is one, the share of pixels marked and the threshold, as one line of text."""
        marked = f"{self.predicted.mean():.1%} marked at {self.threshold:.2f}"
        if np.isnan(self.dice):
            return marked
        return f"Dice {self.dice:.3f}, {marked}"


class Network:
    """The trained network of a run. Its run folder is all that it reads.

    Weights are loaded when they are needed. Memory does not grow with the number of runs: at most two architectures are
    kept, each with the weights of one run.

    Args:
        run: A finished run.

    Attributes:
        run: The run that it belongs to.
        threshold: Probability from which on a pixel is predicted lesion; the validation part has chosen it.
    """

    def __init__(self, run: Run):
        self.run = run
        self.threshold = run.threshold

    def probability(self, pixels: np.ndarray) -> np.ndarray:
        """Predict an image.

        Args:
            pixels: Grey image of any size, uint8 (h, w).

        Returns:
            Probability of lesion, float32 (h, w), 0 to 1.

        Raises:
            StudyError: The weights in the run folder cannot be read.
        """
        # Importing a Keras backend takes seconds, and most answers are read from the run folder.
        from busi.training import predict_lesion

        config = self.run.config
        # In single precision, like the images that the network was trained on.
        image = arrays.resize_image(pixels / np.float32(255), config.image_size, config.resize)
        batch = image[np.newaxis, ..., np.newaxis]
        scaled = preprocessing.scale(batch, config.preprocessing, self.run.scaling)
        predicted = predict_lesion(_load_model(self.run), scaled, config.batch_size)
        height, width = pixels.shape
        return arrays.restore(predicted[0], height, width, config)


class Variant:
    """A variant of the study: its trained networks, one for each fold and seed.

    Args:
        runs: Finished held-out runs, at least one.
        catalog: The images that they were trained and scored on.
    """

    def __init__(self, runs: tuple[Run, ...], catalog: Catalog):
        self.runs = runs
        self._catalog = catalog

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Return the scores of every image that a run held out, with the first such run's position as `run`."""
        tables = []
        for position, run in enumerate(self.runs):
            images = find_or_score(run, self._catalog).images
            tables.append(images.assign(run=position))
        # With several seeds an image is held out by one run of each seed.
        return pd.concat(tables).drop_duplicates("name").reset_index(drop=True)

    def holds_out(self, name: str) -> bool:
        """Return whether one of the runs held an image of the data set out."""
        return name in self._positions

    def find_run(self, name: str) -> Run:
        """Return the first run that held an image of the data set out; the first of all runs if none did."""
        return self.runs[self._positions.get(name, 0)]

    def case(self, name: str, threshold: float | None = None) -> Case:
        """Return the answer about an image of the data set, from a run that held it out if there is one.

        Args:
            name: Name of the image.
            threshold: Replaces the threshold of the run.
        """
        pixels, truth = read_picture(self._catalog, name)
        run = self.find_run(name)
        if self.holds_out(name):
            probability = _read_probability(run, name, pixels.shape)
        else:
            probability = Network(run).probability(pixels)
        return Case(name, pixels, truth, probability, _choose(threshold, run))

    def foreign_case(self, name: str, pixels: np.ndarray, threshold: float | None = None) -> Case:
        """Return the answer of the first run's network about an image that is not in the data set.

        Args:
            name: Title of the image.
            pixels: Grey image, uint8 (h, w).
            threshold: Replaces the threshold of the run.
        """
        # None of the networks has seen the image: each would do.
        run = self.runs[0]
        probability = Network(run).probability(pixels)
        return Case(name, pixels, None, probability, _choose(threshold, run))

    @cached_property
    def _positions(self) -> dict[str, int]:
        return dict(zip(self.scores.name, self.scores.run, strict=True))


def find_variants(parameters: Parameters, catalog: Catalog) -> dict[str, Variant]:
    """Find the held-out variants of all families that have a trained run: "loss: KLD", ...

    A run of fewer epochs than planned takes the place of one that is missing.
    """
    store = open_store(parameters, catalog)
    variants = {}
    for group in find_groups(parameters).values():
        protocol, _, family = group.name.partition("/")
        # Published runs hold no image out, and sections ask questions of their own.
        if protocol != "heldout":
            continue
        for label, configs in group.variants.items():
            # Comparing the weights of all runs with their checksums would take minutes, and most are not needed.
            found = [store.find(config, weights="there") or store.shorter(config) for config in configs]
            runs = tuple(run for run in found if run)
            if runs:
                variants[f"{family}: {label}"] = Variant(runs, catalog)
    return variants


def explain_missing(parameters: Parameters) -> str:
    """Return the sentence to show if `find_variants` finds none: what is missing and what to type, Markdown."""
    data = "" if parameters.data_dir == "phantom" else f" DATA={parameters.data_dir}"
    message = (
        f"No held-out run of profile `{parameters.profile}` has been trained in `{parameters.runs_dir}`: "
        f"run `make study PROFILE={parameters.profile}{data}` in a terminal, then run this notebook again."
    )
    gathered = parameters.results_path / "heldout"
    if gathered.is_dir():
        message += (
            f" Runs whose results are in `{gathered.relative_to(find_study_folder())}` count as finished, and a report "
            "holds no weights: remove that folder first to have the runs trained here."
        )
    return message


def read_picture(catalog: Catalog, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read an image of the data set, grey, uint8 (h, w), and the union of its masks, bool (h, w)."""
    row = catalog.table.set_index("name").loc[name]
    return read_grey(row.image), read_union(row.masks)


def _choose(threshold: float | None, run: Run) -> float:
    return run.threshold if threshold is None else threshold


def _read_probability(run: Run, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Read the prediction that a run has stored of an image that it held out, at the image's size."""
    predictions = run.predictions["test"]
    row = predictions.names.tolist().index(name)
    height, width = shape
    return arrays.restore(predictions.probability[row], height, width, run.config)


# One entry: networks of one architecture share a model, so that loading another run changes the model returned before.
@lru_cache(maxsize=1)
def _load_model(run: Run):
    """Return the network of a run as a Keras model, with the run's weights until the next call for another run."""
    config = run.config
    model = _build_model(
        config.image_size,
        config.base_filters,
        config.upsampling,
        config.precision,
        config.upsampling_steps,
        config.padding,
    )
    try:
        model.load_weights(run.weights)
    except (OSError, ValueError) as error:
        # The model may hold some of the new weights, and is not the one of the run before any more.
        _load_model.cache_clear()
        raise StudyError(
            f"{run.weights}: cannot be read ({error}); delete the run's folder and train it again"
        ) from error
    return model


# Building a network anew for every run is slow, and TensorFlow keeps some megabytes of each one.
@lru_cache(maxsize=2)
def _build_model(image_size: int, base_filters: int, upsampling: str, precision: str, steps: str, padding: str):
    # Imports Keras: not needed by those who only read stored answers.
    from busi.model import unet

    return unet.build(image_size, base_filters, upsampling, precision, upsampling_steps=steps, padding=padding)
