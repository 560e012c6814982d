"""The runs behind the sections, and what is gathered of them for readers without data."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from busi import config as parameters
from busi import study as runs
from busi.config import FOLDS, PROTOCOLS, RunConfig, Study, StudyError, distinct, validated
from busi.dataset import catalog
from busi.dataset.catalog import Catalog
from busi.runs import Run, Store, training_version
from busi.study import Runs

FILE = "params/mechanisms.yaml"
"""Of the repository."""

VERSION = 1
"""Raised by a person when code that makes a gathered table changes meaning: those of another are made again."""

NOT_RUN = "Not run yet."


def settings(study: Study) -> dict:
    """``params/mechanisms.yaml``; under a quick profile its own entries take the place of the common ones."""
    return _read(parameters.ROOT / FILE) | _quick(study)


def _quick(study: Study) -> dict:
    return _read(parameters.ROOT / FILE)["quick"].get(study.profile, {})


@cache
def _read(file: Path) -> dict:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def size(study: Study, name: str) -> dict:
    """`RunConfig` fields of the size ``name``: of the file's, or "heldout", the profile's held-out size."""
    if name == "heldout":
        return {"precision": study.precision} | study.heldout
    sizes = settings(study)["sizes"]
    if name not in sizes:
        raise StudyError(f"{FILE}: size {name!r}; expected heldout, {', '.join(sizes)}")
    return sizes[name]


def configs(study: Study, section: str) -> dict[str, list[RunConfig]]:
    """Each variant's runs in a section, one a seed and fold: fold 0 for the sections that name no other.

    Raises:
        StudyError: A variant names an unknown field or gives an impossible value.
    """
    given = settings(study)
    found = given["sections"][section]
    shared = size(study, found["size"]) | found.get("shared", {})
    if _quick(study):  # whatever a section would like
        shared |= {"epochs": size(study, found["size"])["epochs"]}
    # As for every held-out run: each fold has an initialisation of its own.
    draws = [
        {"fold": fold, "seed": seed * FOLDS + fold if fold else seed}
        for seed in found.get("seeds", [0])
        for fold in found.get("folds", [0])
    ]
    runs = [(label, fields | draw) for label, fields in found["variants"].items() for draw in draws]
    configs = {}
    for label, fields in runs[: given.get("first")]:
        config = validated(RunConfig, f"{FILE}: {section}, {label!r}", shared | fields)
        configs.setdefault(label, []).append(config)
    return configs


def store(study: Study, section: str) -> Store:
    """Where a section's runs are: those of the profile's held-out size beside the study's, others by themselves."""
    if settings(study)["sections"][section]["size"] == "heldout":
        return runs.store(study)
    return Store(study.runs_path / "mechanisms" / section, study.report_path / "results" / "mechanisms" / section)


def jobs(study: Study) -> dict[str, tuple[RunConfig, Store]]:
    """Every run of every section with its store, by its folder in the report's results.

    "mechanisms/ladder/published/baseline/fold0-seed0", and "heldout/baseline/fold0-seed0" for those that sections share
    with the families or with each other.
    """
    return {
        (store(study, section).results / config.label).relative_to(study.report_path / "results").as_posix(): (
            config,
            store(study, section),
        )
        for section in settings(study)["sections"]
        for found in configs(study, section).values()
        for config in found
    }


def every_job(study: Study) -> dict[str, tuple[RunConfig, Store]]:
    """Every run of the study with its store, by its folder in the report's results: families first, then `jobs`.

    Raises:
        StudyError: As `busi.config.distinct`.
    """
    families = [config for protocol in PROTOCOLS for config in distinct(study, protocol)]
    return {config.label: (config, runs.store(study)) for config in families} | jobs(study)


def ensure(study: Study, section: str) -> Runs:
    """A section's runs, variant by variant: trained where they are missing, or as far as they have been gathered.

    Raises:
        StudyError: The data folder is missing or not whole.
    """
    where = store(study, section)
    if not study.train_missing:
        return {
            label: [run for config in found if (run := where.read(config))]
            for label, found in configs(study, section).items()
        }
    data = catalog.of(study)
    return {
        label: [runs.finished(config, data, where) for config in found]
        for label, found in configs(study, section).items()
    }


def weights(run: Run, data: Catalog, where: Store, name: str) -> Path | None:
    """A file of weights of a run; None where only what readers need of it has been kept."""
    file = where.folder(run.config, data.fingerprint) / name
    return file if file.is_file() else None


def gathered(study: Study, name: str, make: Callable[[Catalog], pd.DataFrame], *of: Run) -> pd.DataFrame | None:
    """A table that needs the data or weights: made where the data are, and again only where what it hangs on differs.

    Kept in ``reports/<profile>/results/mechanisms/<name>.csv`` under a line with a hash of the data, settings and runs.

    Args:
        study: With `train_missing` off the table is read.
        name: Of the file.
        make: From the images to the table.
        of: The runs that it hangs on.

    Returns:
        The table as read from the file, None where it has not been gathered.
    """
    file = study.report_path / "results" / "mechanisms" / f"{name}.csv"
    if study.train_missing:
        data = catalog.of(study)
        settled = {"image_size": study.image_size, "settings": study.settings, "folds": study.folds}
        settled |= {"heldout": study.heldout, "trajectory": settings(study)["trajectory"]}
        hangs_on = [data.fingerprint, *(_version(run) for run in of), json.dumps(settled, sort_keys=True)]
        key = hashlib.sha256(" ".join([str(VERSION), *hangs_on]).encode()).hexdigest()[:16]
        if _key(file) != key:
            table = make(data).to_csv(index=False, float_format="%.6g")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"# key {key}\n{table}", encoding="utf-8")
    return pd.read_csv(file, skiprows=1) if file.is_file() else None


def _version(run: Run) -> str:
    return run.config.digest(str(training_version(run.config)))


def _key(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open(encoding="utf-8") as lines:
        return lines.readline().removeprefix("# key ").strip()


def flat(found: Runs) -> list[Run]:
    """All runs of all variants."""
    return [run for each in found.values() for run in each]
