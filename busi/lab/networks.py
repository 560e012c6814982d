"""Trained held-out networks and their answers about images of the data set and about any other image.

A network needs its run folder and nothing else. Answers about images that a run held out are already in that folder:
no network is loaded for them.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from busi.config import RECIPE, Parameters, RunConfig, StudyError, find_study_folder, read_profile, validate
from busi.dataset import arrays, preprocessing
from busi.dataset.catalog import Catalog, read_grey, read_union
from busi.runs import EPOCHS, TRAINING_VERSION, Run, find_damage, read_stored
from busi.scoring import metrics
from busi.scoring.scores import find_or_score
from busi.study import find_groups, open_store

GEOMETRY = ("image_size", "resize", "target", "padding")
"""Fields of `RunConfig` that say which part of an image an output covers; averaged networks must share them."""

PROFILES = ("paper", "laptop", "smoke")
"""Profiles in the order in which their networks are preferred."""

THREADS = 2
"""Number of threads that resize and write images: their work is done in compiled code, outside Python's lock."""

_HOW_TO_TRAIN = (
    "`make study` takes minutes on phantom images, `make study PROFILE=laptop DATA=...` days on BUSI; for runs in "
    "another folder give --runs-dir"
)


@dataclass(frozen=True)
class Case:
    """A network's answer about one image.

    Attributes:
        name: Name of the image.
        pixels: Grey image, uint8 (h, w).
        truth: Union of the masks, bool (h, w); None if the image has not been annotated.
        probability: Probability of lesion, float32 (h, w), 0 to 1.
        threshold: A pixel is predicted lesion if its probability is at least this.
    """

    name: str
    pixels: np.ndarray
    truth: np.ndarray | None
    probability: np.ndarray
    threshold: float

    @property
    def predicted(self) -> np.ndarray:
        """Return the pixels predicted lesion, bool (h, w)."""
        # In double precision, as runs are scored: in single precision, 0.7 is below the threshold 0.7.
        return self.probability >= np.float64(self.threshold)

    @property
    def dice(self) -> float:
        """Return the Dice score, 0 to 1; nan if the image has no lesion or has not been annotated."""
        if self.truth is None:
            return np.nan
        return metrics.dice(self.truth, self.predicted)

    @property
    def description(self) -> str:
        """Return one line of text: the Dice score if there is one, the share of pixels marked and the threshold."""
        marked = f"{self.predicted.mean():.1%} marked at {self.threshold:.2f}"
        if np.isnan(self.dice):
            return marked
        return f"Dice {self.dice:.3f}, {marked}"


class Network:
    """The trained network of a run, or the mean of several. It reads nothing but the run folders.

    Weights are loaded when they are needed. Memory does not grow with the number of runs: at most two architectures are
    kept, each with the weights of one run.

    Args:
        *runs: Finished runs, at least one, of the same image size and geometry.

    Attributes:
        runs: The runs whose probabilities are averaged.
        threshold: A pixel is predicted lesion if its probability is at least this: the mean of the runs' thresholds,
            each chosen on a validation part.

    Raises:
        StudyError: The runs differ in one of `GEOMETRY`.

    Example:
        >>> network = Network(open_run("runs/smoke/heldout/.../fold0-seed0-0123abcd"))  # doctest: +SKIP
        >>> inside = network.probability(read_grey("image.png")) >= network.threshold  # doctest: +SKIP
    """

    def __init__(self, *runs: Run):
        self.runs = runs
        self.threshold = float(np.mean([run.threshold for run in runs]))
        # Outputs of different sizes cannot be averaged; of different geometry, equal pixels are different places.
        for run in runs[1:]:
            for field in GEOMETRY:
                one = getattr(runs[0].config, field)
                other = getattr(run.config, field)
                if one != other:
                    raise StudyError(
                        f"{run.folder}: {field} is {other}, that of {runs[0].folder} is {one}; expected equal ones: "
                        "average runs of one size"
                    )

    def probability(self, pixels: np.ndarray) -> np.ndarray:
        """Predict a grey image of any size, uint8 (h, w).

        Returns:
            Probability of lesion, float32 (h, w), 0 to 1.

        Raises:
            StudyError: The weights in a run folder cannot be read.
        """
        return self.restore(self.predict([pixels])[0], pixels.shape)

    def predict(self, images: list[np.ndarray]) -> np.ndarray:
        """Predict grey images of any sizes, uint8 (h, w), at the network's size; many at once are faster.

        Returns:
            Probability of lesion, float32 (n, o, o), 0 to 1, for `restore`.
        """
        # Importing a Keras backend takes seconds, and most answers are read from the run folder.
        from busi.training import predict_lesion

        config = self.runs[0].config

        def shrink(pixels: np.ndarray) -> np.ndarray:
            # In single precision, like the images that the network was trained on.
            return arrays.resize_image(pixels / np.float32(255), config.image_size, config.resize)

        with ThreadPoolExecutor(THREADS) as pool:
            batch = np.stack(list(pool.map(shrink, images)))[..., np.newaxis]
        answers = []
        for run in self.runs:
            scaled = preprocessing.scale(batch, run.config.preprocessing, run.scaling)
            model = load_model(run)
            flip_too = run.config.flip_test
            answers.append(predict_lesion(model, scaled, config.batch_size, flip_too=flip_too))
        return np.mean(answers, axis=0)

    def restore(self, output: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Resize one answer of `predict` to the height and width of its image, float32 (h, w).

        If all runs keep only the largest connected region, the probability in the other regions becomes 0.
        """
        probability = arrays.restore(output, *shape, self.runs[0].config)
        if all(run.config.largest_component for run in self.runs):
            probability = metrics.keep_largest_component(probability, self.threshold)
        return probability


class Variant:
    """A variant of the study: its finished held-out runs, at least one, and the data set that they were trained on."""

    def __init__(self, runs: tuple[Run, ...], catalog: Catalog):
        self.runs = runs
        self._catalog = catalog

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Return the scores of each held-out image, by the first run that held it out; `run` is its place in `runs`."""
        tables = []
        for position, run in enumerate(self.runs):
            images = find_or_score(run, self._catalog).images
            tables.append(images.assign(run=position))
        # With several seeds, an image is held out by one run of each.
        return pd.concat(tables).drop_duplicates("name").reset_index(drop=True)

    def holds_out(self, name: str) -> bool:
        """Return whether one of the runs held an image of the data set out."""
        return name in self._positions

    def find_run(self, name: str) -> Run:
        """Return the first run that held an image of the data set out; the first of all runs if none did."""
        return self.runs[self._positions.get(name, 0)]

    def case(self, name: str, threshold: float | None = None) -> Case:
        """Return the answer about an image of the data set, from a run that held the image out if there is one.

        ``threshold`` replaces the run's own.
        """
        pixels, truth = read_picture(self._catalog, name)
        run = self.find_run(name)
        if self.holds_out(name):
            predictions = run.predictions["test"]
            row = predictions.names.tolist().index(name)
            probability = Network(run).restore(predictions.probability[row], pixels.shape)
        else:
            probability = Network(run).probability(pixels)
        return Case(name, pixels, truth, probability, run.threshold if threshold is None else threshold)

    def foreign_case(self, name: str, pixels: np.ndarray, threshold: float | None = None) -> Case:
        """Return the answer of the first run's network about an image of another data set, as `case`."""
        # None of the networks has seen the image, so any of them would do.
        run = self.runs[0]
        probability = Network(run).probability(pixels)
        return Case(name, pixels, None, probability, run.threshold if threshold is None else threshold)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return dict(zip(self.scores.name, self.scores.run, strict=True))


def find_variants(parameters: Parameters, catalog: Catalog) -> dict[str, Variant]:
    """Find the held-out variants of all families with a trained run; their names begin with the family: "loss: KLD".

    A run of fewer epochs stands in for a planned one that is missing.
    """
    store = open_store(parameters, catalog)
    variants = {}
    for group in find_groups(parameters).values():
        protocol, _, family = group.name.partition("/")
        # Published runs hold no image out, and sections are about other questions.
        if protocol != "heldout":
            continue
        for label, configs in group.variants.items():
            # Checking the weights of all runs by checksum would take minutes, and most are not needed.
            found = [
                store.find(config, weights="there") or store.beginning(config, may_differ=EPOCHS) for config in configs
            ]
            runs = tuple(run for run in found if run)
            if runs:
                variants[f"{family}: {label}"] = Variant(runs, catalog)
    return variants


def explain_missing(parameters: Parameters) -> str:
    """Return what to show if `find_variants` finds none: what is missing and what to type, in Markdown."""
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
    """Read an image of the data set as grey levels, uint8 (h, w), and the union of its masks, bool (h, w)."""
    row = catalog.table.set_index("name").loc[name]
    return read_grey(row.image), read_union(row.masks)


def open_run(name: str | Path, runs_dir: str = "runs") -> Run:
    """Return a finished run.

    Args:
        name: The run's folder, or its label as `busi plan` and the report name it: "heldout/.../loss-kld/fold0-seed0".
        runs_dir: Folder of the runs that labels name; a relative path starts at the study's folder.

    Raises:
        StudyError: There is no such run, several have this label, or a file is missing or has been changed.
    """
    folder = Path(name)
    if not (folder / "config.json").is_file():
        folder = _find_folder(str(name), find_study_folder() / Path(runs_dir).expanduser())
    damage = find_damage(folder, weights="read")
    if damage:
        raise StudyError(f"{folder}: {damage}; expected the folder of a finished run: copy or train it again")
    return Run(folder, validate(RunConfig, f"{folder / 'config.json'}", read_stored(folder)["config"]))


def find_recipe_runs(runs_dir: str = "runs") -> list[Run]:
    """Return the runs of the recipe's last rung that is trained in all folds, of the first of `PROFILES` with one.

    Args:
        runs_dir: As in `open_run`.

    Raises:
        StudyError: No rung has been trained in all folds under any profile.
    """
    root = find_study_folder() / Path(runs_dir).expanduser()
    for profile in PROFILES:
        # A study of one's own may lack a profile, or the recipe.
        if not (find_study_folder() / "params" / f"{profile}.yaml").is_file():
            continue
        folders = _list_folders(root, profile)
        recipe = find_groups(read_profile(profile)).get(f"mechanisms/{RECIPE}")
        # The last rung is the best recipe, but training may not have come that far.
        for configs in reversed(recipe.variants.values() if recipe else ()):
            own = [folders.get(config.label, []) for config in configs]
            if all(own):
                labels = [config.label for config in configs]
                return [open_run(_take_only(*each), runs_dir) for each in zip(labels, own, strict=True)]
    raise StudyError(
        f"no rung of the recipe has been trained in all folds in {root}; name other runs, busi predict RUN... IMAGES "
        f"--out DIR, or train some: {_HOW_TO_TRAIN}"
    )


def _list_folders(root: Path, profile: str = "*") -> dict[str, list[Path]]:
    """Return label -> folders of a profile's runs (or all runs) below ``root`` that the present training code made."""
    folders: dict[str, list[Path]] = {}
    # Only at the depth of <profile>/<label>-<key>: folders of unfinished runs, which come and go, are passed over.
    for folder in sorted(root.glob(f"{profile}/*/*/*/fold*-????????")):
        # Where the file is missing, broken or not of this study, there is no version.
        if read_stored(folder).get("training_version") == TRAINING_VERSION:
            own = Path(*folder.relative_to(root).parts[1:]).as_posix()
            folders.setdefault(own.rpartition("-")[0], []).append(folder)
    return folders


def _take_only(label: str, folders: list[Path]) -> Path:
    """Return the only folder of runs of one label; raises StudyError if there are several."""
    if len(folders) > 1:
        names = ", ".join(map(str, folders))
        raise StudyError(f"{label}: {len(folders)} runs have this name; give the folder: {names}")
    return folders[0]


def _find_folder(label: str, root: Path) -> Path:
    """Return the folder of the only run below ``root`` with this label."""
    labels = _list_folders(root)
    found = labels.get(label, [])
    # A label may be used under two profiles, or on two data sets.
    if found:
        return _take_only(label, found)
    # However different the names are: something to choose from helps more than nothing.
    close = ", ".join(get_close_matches(label, labels, cutoff=0)) or "none"
    raise StudyError(
        f"{label}: neither the folder of a finished run nor the name of one in {root}; close: {close}. To have one, "
        f"train it: {_HOW_TO_TRAIN}"
    )


# One entry: runs of one architecture share a model, so loading another run changes the model that was returned before.
@lru_cache(maxsize=1)
def load_model(run: Run):
    """Return the network of a run as a Keras model, with the run's weights until the next call for another run."""
    # The module imports Keras, which is not needed to read stored answers.
    from busi.model.unet import ARCHITECTURE

    model = _build_model(*(getattr(run.config, field) for field in ARCHITECTURE))
    try:
        model.load_weights(run.weights)
    except (OSError, ValueError) as error:
        # The model may hold some of the new weights and is no longer that of the run before.
        load_model.cache_clear()
        raise StudyError(
            f"{run.weights}: cannot be read ({error}); delete the run's folder and train it again"
        ) from error
    return model


# Building a network anew for every run is slow, and TensorFlow keeps some megabytes for each.
@lru_cache(maxsize=2)
def _build_model(*architecture):
    from busi.model import unet

    return unet.build(RunConfig(**dict(zip(unet.ARCHITECTURE, architecture, strict=True))))
