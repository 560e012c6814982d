"""The runs of a study: found in the store, or trained."""

from busi.config import FAMILIES, RunConfig, Study, StudyError, related
from busi.dataset import catalog
from busi.dataset.catalog import Catalog
from busi.runs import Run, Store

Runs = dict[str, list[Run]]
"""Variant -> its runs, in the order of the seeds."""


def store(study: Study) -> Store:
    """Where the study's runs are kept and gathered."""
    return Store(study.runs_path, study.report_path / "results")


def ensure(study: Study, protocol: str = "published", *, threads: int | None = None) -> Runs:
    """Each variant's runs under a protocol; a missing one is trained here.

    With ``study.train_missing`` off, no data are needed: the runs gathered into the report are returned, those of fewer
    epochs included, and a variant without any gets an empty list.

    Args:
        study: Its family's variants, its profile's size.
        protocol: "published" or "heldout".
        threads: As `busi.training.train`.

    Raises:
        StudyError: The data folder is missing or not whole.
    """
    configs = study.configs(protocol)
    if not study.train_missing:
        return {
            label: [run for config in runs if (run := store(study).read(config))] for label, runs in configs.items()
        }
    data = catalog.of(study)
    return {
        label: [finished(config, data, store(study), threads=threads) for config in runs]
        for label, runs in configs.items()
    }


def every_family(study: Study, protocol: str = "published") -> dict[str, Runs]:
    """The runs of all families under ``study``'s profile and settings, as `ensure`."""
    return {name: ensure(related(study, name), protocol) for name in FAMILIES}


def finished(config: RunConfig, data: Catalog, where: Store, *, threads: int | None = None) -> Run:
    """The run of ``config``, gathered: found in the store, or trained into it.

    Raises:
        StudyError: Names the run. It cannot be trained as asked, or a file could not be written or read: the disk is
            full, the store read-only, ...
    """
    try:
        if run := where.find(config, data.fingerprint):
            return where.gather(run)
        # Importing a Keras backend takes seconds: only who has to train pays for it.
        from busi import training

        return training.train(config, data, where, threads=threads)
    except StudyError as error:
        raise StudyError(f"{config.label}: {error}") from error
    except OSError as error:
        raise StudyError(f"{config.label}: {error}; mend it and start again: epochs are kept") from error
