"""The store of finished runs: a folder that exists is finished.

``runs/<profile>/<protocol>/<name>/fold0-seed0-<key>/`` holds ``config.json``, ``history.csv``, ``metrics.json``,
``environment.json`` and ``state.weights.h5`` (weights and optimizer, enough to train on); under the held-out protocol
also ``per_image.csv``, ``bins.csv`` and ``best.weights.h5`` (the epoch that the validation part chose). What readers
need of it is gathered into ``reports/<profile>/results/<protocol>/<name>/fold0-seed0/``, without the weights.
"""

import hashlib
import json
import shutil
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd
from filelock import FileLock

from busi.config import RunConfig, StudyError

TRAINING_VERSION = {
    ("published", "float32"): 1,
    ("published", "mixed_bfloat16"): 2,
    ("heldout", "float32"): 2,
    ("heldout", "mixed_bfloat16"): 3,
}
"""By protocol and precision; raised by a person when training code changes meaning.

Runs of another version are not found.
"""

STATE = "state.weights.h5"
EPOCHS = frozenset({"epochs"})
BEST = "best.weights.h5"
WEIGHTS = frozenset({STATE, BEST})


def training_version(config: RunConfig) -> int:
    """Of the code that trains ``config``."""
    return TRAINING_VERSION[config.protocol, config.precision]


class DamageWarning(UserWarning):
    """A finished run's files are not what was written: it counts as missing and is trained, or gathered, again."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    config: RunConfig

    @cached_property
    def metrics(self) -> dict:
        """What the run scored.

        Published: `training` (last epoch, averaged while the weights move), `still` (weights held), `images`,
        `seconds`. Held-out: `threshold`, `best_epoch`, `epochs`, `validation_dice`, `parameters`, `images`, `seconds`.
        """
        return json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch: `epoch` from 1, `loss`, `seconds`, and what the protocol measures besides.

        Published: `accuracy`, `auc`, `lesion_share`. Held-out: `validation_dice`.
        """
        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def per_image(self) -> pd.DataFrame:
        """Held-out only: the scores of every image of the test part, as `busi.evaluation.metrics.per_image`."""
        return pd.read_csv(self.folder / "per_image.csv")

    @cached_property
    def bins(self) -> pd.DataFrame:
        """Held-out only: pixels of the scored lesion images by probability, as `busi.evaluation.metrics.bins`."""
        return pd.read_csv(self.folder / "bins.csv")

    @cached_property
    def environment(self) -> dict:
        """Versions, hardware and threads it was trained with."""
        return json.loads((self.folder / "environment.json").read_text(encoding="utf-8"))

    @cached_property
    def superseded(self) -> bool:
        """Whether the training code has changed meaning since."""
        return _stored(self.folder)["training_version"] != training_version(self.config)


@dataclass(frozen=True)
class Store:
    """The runs of one profile.

    Attributes:
        root: ``runs/<profile>``: finished and unfinished run folders, with their weights.
        results: ``reports/<profile>/results``: what is gathered for readers; finished runs found there count too.
    """

    root: Path
    results: Path

    def key(self, config: RunConfig, fingerprint: str) -> str:
        """Hash of all that changes the numbers: configuration, data and training version."""
        return config.digest(fingerprint, str(training_version(config)))

    def folder(self, config: RunConfig, fingerprint: str) -> Path:
        """Where the finished run is or will be."""
        return self.root / f"{config.label}-{self.key(config, fingerprint)}"

    def gathered(self, config: RunConfig) -> Path:
        """Where the run's results are gathered; one place, whatever the key."""
        return self.results / config.label

    def work(self, config: RunConfig, fingerprint: str) -> Path:
        """The folder of an unfinished run."""
        return self.folder(config, fingerprint).with_suffix(".unfinished")

    def lock(self, config: RunConfig, fingerprint: str) -> FileLock:
        """Held while a run is trained: a second process waits, then finds it finished."""
        path = self.folder(config, fingerprint).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def find(self, config: RunConfig, fingerprint: str, *, weights: Literal["read", "there"] = "read") -> Run | None:
        """The finished, undamaged run, from `root` or else `results`; None if there is none.

        A damaged one is named in a `DamageWarning`; one in `root` stays until it is trained again.

        Args:
            config: The run.
            fingerprint: Of the data.
            weights: Whether those in `root` are compared with what was written, or looked for only: who asks about
                every run of a large study would wait for minutes.
        """
        folder = self.folder(config, fingerprint)
        if folder.is_dir():
            if not (damage := _damage(folder, weights=weights)):
                return Run(folder, config)
            warnings.warn(f"{folder}: {damage}; training this run again", DamageWarning, stacklevel=2)
            return None
        gathered = self.gathered(config)
        if gathered.is_dir() and _stored(gathered).get("key") == self.key(config, fingerprint):
            if not (damage := _damage(gathered)):
                return Run(gathered, config)
            warnings.warn(f"{gathered}: {damage}; training this run again", DamageWarning, stacklevel=2)
        return None

    def shorter(self, config: RunConfig, fingerprint: str) -> Run | None:
        """The longest finished run that differs in having fewer epochs only, with its state.

        Nothing in a run depends on how many epochs will follow, so a longer run can start where that one ended.
        """
        runs = [
            Run(folder, RunConfig(**stored["config"]))
            for folder in self.folder(config, fingerprint).parent.glob(f"fold{config.fold}-seed{config.seed}-????????")
            if (stored := _stored(folder)).get("fingerprint") == fingerprint
            and stored["training_version"] == training_version(config)
            and not _damage(folder, weights="read")
        ]
        prefixes = [
            run
            for run in runs
            if run.config.digest(without=EPOCHS) == config.digest(without=EPOCHS) and run.config.epochs < config.epochs
        ]
        return max(prefixes, key=lambda run: run.config.epochs, default=None)

    def finish(self, config: RunConfig, fingerprint: str, checkpoint: Path, metrics: dict, environment: dict) -> Run:
        """Turn the last checkpoint, which holds all else, into the finished run, in one rename."""
        folder = self.folder(config, fingerprint)
        _write_json(checkpoint / "metrics.json", metrics)
        _write_json(checkpoint / "environment.json", environment)
        stored = {
            "key": self.key(config, fingerprint),
            "config": config.model_dump(),
            "fingerprint": fingerprint,
            "training_version": training_version(config),
            "sha256": {file.name: _sha256(file) for file in sorted(checkpoint.iterdir()) if file.name != "config.json"},
        }
        _write_json(checkpoint / "config.json", stored)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one: an undamaged one would have been found
        checkpoint.rename(folder)
        return Run(folder, config)

    def gather(self, run: Run) -> Run:
        """Copy what readers need of a run into `results`; replaces any other than a longer run of the same on its data.

        Returns:
            The gathered run, or ``run`` where a longer one stands.
        """
        target = self.gathered(run.config)
        if run.folder == target:
            return run
        self.results.mkdir(parents=True, exist_ok=True)
        # Notebooks that run side by side gather the runs that they share.
        with FileLock(self.results / "gather.lock"):
            ours, theirs = _stored(run.folder), _stored(target)
            if target.is_dir() and (damage := _damage(target)):
                warnings.warn(f"{target}: {damage}; gathering it again", DamageWarning, stacklevel=2)
            elif theirs == ours:
                return Run(target, run.config)
            elif theirs and _continues(theirs, ours):
                return run
            fresh = target.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            for name in ("config.json", *(ours["sha256"].keys() - WEIGHTS)):
                shutil.copyfile(run.folder / name, fresh / name)
            shutil.rmtree(target, ignore_errors=True)
            fresh.rename(target)
        return Run(target, run.config)

    def damage(self, config: RunConfig) -> str:
        """What has become wrong with a finished run: with what was gathered of it, or with its folder in `root`.

        Nothing if all is well, or if `root` no longer holds it. Weights are looked for, not read: those of a large
        study would take minutes, and whoever goes on with them reads them.
        """
        gathered = self.gathered(config)
        if damage := _damage(gathered):
            return damage
        folder = self.root / f"{config.label}-{_stored(gathered)['key']}"
        return _damage(folder, weights="there") if folder.is_dir() else ""

    def read(self, config: RunConfig) -> Run | None:
        """The gathered run of ``config``, or of fewer epochs of the same, whatever data it was trained with.

        For readers without the data. A run of other settings in its place is not returned.

        Raises:
            StudyError: The gathered files are damaged.
        """
        folder = self.gathered(config)
        if not folder.is_dir():
            return None
        if damage := _damage(folder):
            raise StudyError(f"{folder}: {damage}; restore it (git checkout) or gather it again (busi train)")
        found = RunConfig(**_stored(folder)["config"])
        same = found.digest(without=EPOCHS) == config.digest(without=EPOCHS) and found.epochs <= config.epochs
        return Run(folder, found) if same else None


def _stored(folder: Path) -> dict:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _continues(longer: dict, shorter: dict) -> bool:
    """Whether one stored run is another with more epochs: same settings, data and training version."""
    first, second = (RunConfig(**stored["config"]) for stored in (longer, shorter))
    return (
        first.epochs > second.epochs
        and first.digest(without=EPOCHS) == second.digest(without=EPOCHS)
        and all(longer[name] == shorter[name] for name in ("fingerprint", "training_version"))
    )


def _damage(folder: Path, *, weights: Literal["read", "there", "elsewhere"] = "elsewhere") -> str:
    """What is wrong with a run folder's files, or nothing; its weights are compared, looked for, or not expected."""
    expected = _stored(folder).get("sha256")
    if not expected:
        return "config.json is missing or broken"
    for name in sorted(expected if weights != "elsewhere" else expected.keys() - WEIGHTS):
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (weights == "read" or name not in WEIGHTS) and _sha256(folder / name) != expected[name]:
            return f"{name} is not what was written"
    return ""


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _write_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
