"""Store of trained runs. A run whose folder exists is finished.

``runs/<profile>/<protocol>/<size>/<name>/fold0-seed0-<key>/`` holds everything that prediction and scoring need:

- ``config.json``: the configuration, the data's fingerprint, the training version, a checksum of every other file;
- ``outcome.json``: what training measured and decided, including the scaling of the images and the threshold;
- ``history.csv``: one row for each epoch;
- ``predictions.npz``: the network's predictions at its output size;
- ``environment.json``: software and hardware;
- ``state.weights.h5``: weights and optimizer after the last epoch, enough to continue training;
- ``best.weights.h5`` (held-out runs): weights after the epoch that the validation part chose.
"""

import hashlib
import json
import shutil
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock
from pydantic import ValidationError

from busi.config import RunConfig
from busi.dataset.preprocessing import Scaling
from busi.dataset.splits import split_version

TRAINING_VERSION = 4
"""Version of the training code, to be raised by hand when a change alters results; older runs are then not found."""

STATE = "state.weights.h5"
"""File of weights and optimizer after the last epoch."""

BEST = "best.weights.h5"
"""File of the weights after the epoch that the validation part chose."""

WEIGHTS = frozenset({STATE, BEST})
"""The large files of a run."""

EPOCHS = frozenset({"epochs"})
"""The one field in which a shorter run may differ from the run that it stands in for."""

ANSWERS = frozenset({"flip_test", "largest_component"})
"""Fields that change how a trained network predicts, but not how it is trained."""


class DamageWarning(UserWarning):
    """Warns that a finished run is damaged, because its files have changed or are missing: it counts as missing."""


class Predictions(NamedTuple):
    """A network's predictions for one part of the images.

    Attributes:
        names: Names of the images, str (n,).
        probability: Probability of lesion at the network's output size, float32 (n, o, o), 0 to 1.
    """

    names: np.ndarray
    probability: np.ndarray


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its configuration."""

    folder: Path
    config: RunConfig

    @cached_property
    def outcome(self) -> dict:
        """Read what training measured and decided.

        All runs: `images` (trained on), `seconds`, `parameters` (of the network), `scaling` (`mean`, `deviation`),
        `epochs` (trained) and `end` ("planned", or as `busi.training.find_end`). Published runs: `training` (last
        epoch, averaged while the weights change) and `still` (after it, with the final weights), each with `loss`,
        `accuracy`, `auc`, `lesion_share`. Held-out runs: `threshold`, `best_epoch`, `validation_dice`.
        """
        return json.loads((self.folder / "outcome.json").read_text(encoding="utf-8"))

    @cached_property
    def history(self) -> pd.DataFrame:
        """Read the epochs: `epoch` from 1, `loss`, `seconds`, and what else the protocol measures.

        Published runs: `accuracy`, `auc`, `lesion_share`, `spread` (as `busi.training.measure_spread`). Held-out runs:
        `validation_dice`.
        """
        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def environment(self) -> dict:
        """Read the versions, hardware and threads of the training."""
        return json.loads((self.folder / "environment.json").read_text(encoding="utf-8"))

    @property
    def predictions(self) -> dict[str, Predictions]:
        """Read the predictions by part: "training" of a published run, "validation" and "test" of a held-out one."""
        # Not cached like the rest: the predictions of many runs would fill the memory.
        with np.load(self.folder / "predictions.npz") as arrays:
            parts = sorted({name.partition("_")[0] for name in arrays.files})
            return {part: Predictions(arrays[f"{part}_names"], arrays[f"{part}_probability"]) for part in parts}

    @property
    def threshold(self) -> float:
        """Return the probability at or above which a pixel is predicted lesion; 0.5 if there is no validation part."""
        return self.outcome.get("threshold", 0.5)

    @property
    def scaling(self) -> Scaling:
        """Return the mean and deviation by which images are scaled before the network sees them."""
        return Scaling(**self.outcome["scaling"])

    @property
    def weights(self) -> Path:
        """Return the weights that the predictions come from."""
        best = self.folder / BEST
        return best if best.is_file() else self.folder / STATE

    @cached_property
    def stored(self) -> dict:
        """Read `config.json`: `key`, `config`, `fingerprint`, `training_version` and `sha256`."""
        return read_stored(self.folder)


def find_checkpoint(work: Path) -> Path | None:
    """Return the newest checkpoint of an unfinished run: ``history.csv``, `STATE`, if held out `BEST`; None if none."""
    # Names have leading zeros, so the last one in order is the newest.
    return max(work.glob("epoch-*"), default=None)


def find_damage(folder: Path, *, weights: Literal["read", "there"]) -> str:
    """Return the first fault of a finished run's folder, "" if it has none; ``weights`` as in `Store.find`."""
    checksums = read_stored(folder).get("sha256")
    if not checksums:
        return "config.json is missing or broken"
    # Sorted, so that equal damage always gives the same message.
    for name, checksum in sorted(checksums.items()):
        if not (folder / name).is_file():
            return f"{name} is missing"
        is_read = weights == "read" or name not in WEIGHTS
        if is_read and _sha256(folder / name) != checksum:
            return f"{name} is not what was written"
    return ""


@dataclass(frozen=True)
class Store:
    """Runs of one profile on one data set.

    Attributes:
        root: ``runs/<profile>``, with finished and unfinished run folders.
        fingerprint: Fingerprint of the data that the runs are trained on.
    """

    root: Path
    fingerprint: str

    def key(self, config: RunConfig) -> str:
        """Hash everything that the run's results depend on: configuration, data, their split, the training version."""
        versions = [self.fingerprint, str(TRAINING_VERSION)]
        if config.protocol == "heldout":
            versions.append(split_version(config.split, self.fingerprint))
        return config.digest(*versions)

    def folder(self, config: RunConfig) -> Path:
        """Return the folder of the finished run, whether it exists yet or not."""
        return self.root / f"{config.label}-{self.key(config)}"

    def work(self, config: RunConfig) -> Path:
        """Return the folder of the unfinished run."""
        return self.folder(config).with_suffix(".unfinished")

    def lock(self, config: RunConfig) -> FileLock:
        """Return the lock that is held while the run is trained; a second process waits, then finds it finished."""
        # Beside the run's folder, which appears in one rename when the run is finished.
        path = self.folder(config).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def find(self, config: RunConfig, *, weights: Literal["read", "there"] = "read") -> Run | None:
        """Find the finished, undamaged run; None if there is none.

        A damaged run is named in a `DamageWarning` and stays in place until it has been trained again.

        Args:
            config: The run.
            weights: "read" compares the weights with their checksums; "there" only checks that their files exist,
                because reading the weights of every run of a large study takes minutes.
        """
        folder = self.folder(config)
        if not folder.is_dir():
            return None
        damage = find_damage(folder, weights=weights)
        if damage:
            warnings.warn(f"{folder}: {damage}; this run has to be trained again", DamageWarning, stacklevel=2)
            return None
        return Run(folder, config)

    def beginning(self, config: RunConfig, *, may_differ: frozenset[str] = EPOCHS | ANSWERS) -> Run | None:
        """Find the longest finished run that was trained like ``config``, as far as it went.

        With a constant rate, training does not depend on how many epochs follow, so that a longer run can continue
        where a shorter one ended. It does depend on that if the rate is scheduled or the last epoch is cut short.

        Args:
            config: The run.
            may_differ: Fields in which the other run may differ. `EPOCHS` alone finds a run that also predicts in the
                same way, and may stand in for a longer one.
        """
        longest = None
        # In the folders of any size and name, because these contain the settings that may differ.
        for folder in self.root.glob(f"{config.protocol}/*/*/fold{config.fold}-seed{config.seed}-????????"):
            stored = read_stored(folder)
            # The folder's name holds only a hash of data and version, so they are read from the file. They are compared
            # before the configuration, because another version may have settings that this one does not know.
            if (stored.get("fingerprint"), stored.get("training_version")) != (self.fingerprint, TRAINING_VERSION):
                continue
            try:
                run = Run(folder, RunConfig(**stored["config"]))
            except ValidationError:  # a setting that this version of the code does not have
                continue
            # The same configuration under another split is another run.
            if stored["key"] != self.key(run.config) or not _begins(run.config, config, may_differ):
                continue
            if longest and longest.config.epochs > run.config.epochs:
                continue
            # Checked last, because reading the weights takes longest.
            if not find_damage(folder, weights="read"):
                longest = run
        return longest

    def finish(self, config: RunConfig, checkpoint: Path, outcome: dict, environment: dict) -> Run:
        """Turn the last checkpoint, which holds history, weights and predictions, into the finished run by renaming."""
        folder = self.folder(config)
        _write_json(checkpoint / "outcome.json", outcome)
        _write_json(checkpoint / "environment.json", environment)
        # Everything but the file that will hold the checksums.
        files = sorted(file for file in checkpoint.iterdir() if file.name != "config.json")
        stored = {
            "key": self.key(config),
            "config": config.model_dump(),
            "fingerprint": self.fingerprint,
            "training_version": TRAINING_VERSION,
            "sha256": {file.name: _sha256(file) for file in files},
        }
        _write_json(checkpoint / "config.json", stored)
        # Only a damaged run can be here: an undamaged one would have been found.
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint.rename(folder)
        return Run(folder, config)


def _begins(earlier: RunConfig, later: RunConfig, may_differ: frozenset[str]) -> bool:
    """Return whether the training of ``earlier`` equals that of ``later``, or its beginning."""
    plans_ahead = later.schedule != "constant" or later.last_steps > 0
    fits = earlier.epochs == later.epochs if plans_ahead else earlier.epochs <= later.epochs
    return fits and earlier != later and earlier.digest(without=may_differ) == later.digest(without=may_differ)


def read_stored(folder: Path) -> dict:
    """Read a run's `config.json`, as `Run.stored`; empty if the file is missing or broken."""
    # A folder without this file, or with half of it, is not a finished run: its training is repeated.
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _write_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
