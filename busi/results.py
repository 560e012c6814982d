"""Results of a study: compact files under ``reports/<report>/`` that hold everything its readers need.

- ``results/<group>/``: measurements of a group's runs, three tables for all of them together (`Results`);
- ``results/<name>.csv``: measurements of the data, or made with trained networks (`measure`);
- ``tables/<name>.csv``: tables that notebooks computed from the results (`write_table`);
- ``findings.json``: findings that notebooks derived from them, such as sentences (`record_finding`).

The files are small enough to commit. From them, every table and figure can be made again without data or training.
"""

import hashlib
import json
import lzma
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from filelock import FileLock

from busi.config import Parameters, RunConfig, StudyError, code_version
from busi.dataset.catalog import Catalog, load_catalog, read_named
from busi.runs import EPOCHS, Run
from busi.scoring.metrics import pool_pixels
from busi.scoring.scores import find_or_decide_fate, find_or_score, scoring_version

DRAW = frozenset({"fold", "seed"})
"""Fields by which the runs of one variant differ."""

IDENTITY = ["variant", "run"]
"""Columns that identify a row of a group's runs; one run may belong to several variants."""

HEAD = [*IDENTITY, "fold", "seed"]
"""First columns of every table of `Results`."""

COLUMNS = {
    "runs": [*HEAD, "name", "key", "fingerprint", "training_version", "scoring_version", "config", "planned_epochs"],
    "epochs": [*HEAD, "epoch", "loss", "seconds"],
    "images": [*HEAD, "image_class", "name", "group", "lesion_share"],
}
"""Columns that each table of `Results` has, even if it has no rows."""

SUFFIXES = {"runs": ".csv", "epochs": ".csv.xz", "images": ".csv.xz"}
"""Suffixes of the tables' files; the long tables are compressed."""


_POOLED = "pixels_"  # begins the columns of scores of all pixels together

ANOTHER_REPORT = "named by REPORT=NAME (make), -p report=NAME (busi) or -p report NAME (papermill)"
"""How to give results a report of their own, for error messages."""


class NotMeasured(StudyError):
    """An error that says what has not been measured yet, and how to measure it."""


@dataclass(frozen=True)
class Results:
    """Measurements of a group of runs, in three tables that all begin with `variant`, `run`, `fold` and `seed`.

    Attributes:
        runs: One row for each run: `name`, `key`, `fingerprint`, `training_version`, `scoring_version`, `config`
            (JSON), `planned_epochs` and `epochs` (trained), `images` (trained on), `seconds`, `parameters` (of the
            network), `end`; for published runs `training_*`, `still_*` and the columns of
            `busi.scoring.fates.measure_fate`, for held-out runs `threshold`, `best_epoch`, `validation_dice` and
            `pixels_*` (see `pooled`); then software and hardware.
        epochs: One row for each epoch: `epoch`, `loss`, `seconds`, and what else the protocol measures.
        images: One row for each image that a held-out run was scored on, as `busi.scoring.scores.score_run`.
    """

    runs: pd.DataFrame
    epochs: pd.DataFrame
    images: pd.DataFrame

    @property
    def variants(self) -> list[str]:
        """Return the variants that have a run, in the order of the group."""
        return list(dict.fromkeys(self.runs.variant))

    def of(self, variant: str) -> "Results":
        """Return the rows of one variant."""
        rows = {name: table[table.variant == variant].reset_index(drop=True) for name, table in self.tables.items()}
        return Results(**rows)

    def in_order(self, positions: Iterable[int]) -> "Results":
        """Return the rows of the runs at ``positions`` of `runs`, in that order."""
        order = self.runs.loc[list(positions), IDENTITY].reset_index(drop=True).reset_index(names="rank")
        tables = {}
        for name, table in self.tables.items():
            # A merge, not a lookup, because a table may have many rows for a run, or none.
            ranked = table.merge(order, on=IDENTITY, how="inner").sort_values("rank", kind="stable")
            tables[name] = ranked.drop(columns="rank").reset_index(drop=True)
        return Results(**tables)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the three tables by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def pooled(self) -> pd.DataFrame:
        """Return the scores of each held-out run's lesion images, all pixels together: the columns of `pool_pixels`."""
        scores = self.runs.filter(regex=f"^{_POOLED}")
        return scores.rename(columns=lambda name: name.removeprefix(_POOLED))

    @property
    def configs(self) -> list[RunConfig]:
        """Return the configuration of each row of `runs`."""
        return [RunConfig(**json.loads(text)) for text in self.runs.config]


def empty_results() -> Results:
    """Return results without any run."""
    return Results(**{name: pd.DataFrame(columns=columns) for name, columns in COLUMNS.items()})


def join_results(parts: Iterable[Results]) -> Results:
    """Concatenate the rows of several results."""
    parts = [*parts, empty_results()]
    return Results(**{name: stack(part.tables[name] for part in parts) for name in COLUMNS})


def stack(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the rows of several tables; if all are empty, return the first one."""
    tables = list(tables)
    # An empty table has columns without a type, and adding it would change the types of the others.
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def collect_results(variant: str, run: Run, catalog: Catalog) -> Results:
    """Return the results of one run; score it first if the current code has not scored it."""
    config = run.config
    head = {"variant": variant, "run": config.label, "fold": config.fold, "seed": config.seed}
    described = head | _describe_run(run)
    # Published runs are scored on the images they were trained on, so no scores of single images are kept.
    images = pd.DataFrame(columns=COLUMNS["images"])
    if config.protocol == "heldout":
        scores = find_or_score(run, catalog)
        images = _under(head, scores.images)
        for name, score in pool_pixels(scores.pixels).items():
            described[f"{_POOLED}{name}"] = score
    else:
        described |= find_or_decide_fate(run, catalog)
    # Last, because these columns are the least interesting ones.
    described |= run.environment
    return Results(pd.DataFrame([described]), _under(head, run.history), images)


def _under(head: dict, table: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` with the columns of ``head`` in front."""
    columns = pd.DataFrame(head, index=table.index)
    return pd.concat([columns, table], axis=1)


def _describe_run(run: Run) -> dict:
    outcome = dict(run.outcome)
    # Only prediction needs it, and reads it from the run's folder.
    outcome.pop("scaling")
    # The published metrics of both kinds become columns of their own: training_loss, still_loss, ...
    for reading in ("training", "still"):
        for metric, value in outcome.pop(reading, {}).items():
            outcome[f"{reading}_{metric}"] = value
    return {
        "name": run.config.name,
        "key": run.stored["key"],
        "fingerprint": run.stored["fingerprint"],
        "training_version": run.stored["training_version"],
        "scoring_version": scoring_version(),
        "config": json.dumps(run.config.model_dump()),
        "planned_epochs": run.config.epochs,
        "epochs": len(run.history),
    } | outcome


def read_results(parameters: Parameters, group: str) -> Results:
    """Read all gathered results of a group; if none have been gathered, return results without any run.

    Raises:
        StudyError: A file is missing or damaged.
    """
    if not (parameters.results_path / group).is_dir():
        return empty_results()
    return Results(**{name: _read_rows(parameters, group, name) for name in COLUMNS})


def read_fingerprint(parameters: Parameters) -> str:
    """Return the fingerprint of the data that a report is about; "" if nothing has been measured for it."""
    # Every report has this table first, and it is small enough to be committed.
    words = _first_line(parameters.results_path / "dataset.csv").split()
    # "# data FINGERPRINT made by ..."
    return words[2] if words else ""


def read_keys(parameters: Parameters, group: str, fingerprint: str) -> set[str]:
    """Return the keys of the gathered runs of a group that were trained on the data with this fingerprint."""
    if not (parameters.results_path / group).is_dir():
        return set()
    runs = _read_rows(parameters, group, "runs")
    return set(runs.key[runs.fingerprint == fingerprint])


def _read_rows(parameters: Parameters, group: str, name: str) -> pd.DataFrame:
    file = parameters.results_path / group / f"{name}{SUFFIXES[name]}"
    advice = f"restore it (git checkout) or delete {file.parent}"
    try:
        table = read_named(file, texts=("name", "key", "fingerprint", "scoring_version"))
    except (OSError, ValueError, EOFError, lzma.LZMAError) as error:
        raise StudyError(f"{file}: not readable ({error}); {advice}") from error
    for column in COLUMNS[name]:
        if column not in table:
            raise StudyError(f"{file}: no column {column}; {advice}")
    return table


def lock_results(parameters: Parameters, group: str) -> FileLock:
    """Return the lock of a group's gathered results, which two processes must not read and write at the same time."""
    file = parameters.results_path / f"{group}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(file)


def write_results(parameters: Parameters, group: str, gathered: Results) -> None:
    """Write the gathered results of a group, replacing those that are there; to be called under `lock_results`."""
    folder = parameters.results_path / group
    # The first three tables of a group appear together: a folder with only some of them would count as damaged.
    target = folder if folder.is_dir() else folder.with_name(f"{folder.name}.part")
    target.mkdir(parents=True, exist_ok=True)
    # Later they are replaced one by one, `runs` last, so that it never names a run whose rows are not there yet.
    for name in ("epochs", "images", "runs"):
        suffix = SUFFIXES[name]
        # The suffix stays last, because pandas chooses the compression by it.
        partial = target / f"{name}.part{suffix}"
        gathered.tables[name].to_csv(partial, index=False)
        partial.replace(target / f"{name}{suffix}")
    if target != folder:
        target.replace(folder)


def match_results(gathered: Results, variants: dict[str, list[RunConfig]]) -> Results:
    """Return the gathered runs of the given configurations, in their order, including runs with fewer epochs.

    A run with other settings under the same label is left out.
    """
    rows = {}
    # Compared without the epochs, because a shorter run stands in for a longer one that is missing.
    for position, config in enumerate(gathered.configs):
        rows[gathered.runs.variant[position], config.digest(without=EPOCHS)] = position
    positions = []
    for variant, configs in variants.items():
        for config in configs:
            position = rows.get((variant, config.digest(without=EPOCHS)))
            if position is not None and gathered.runs.planned_epochs[position] <= config.epochs:
                positions.append(position)
    return gathered.in_order(positions)


def keep_others(gathered: Results, variants: dict[str, list[RunConfig]]) -> Results:
    """Return the gathered runs that are not among the given ones: those of other variants, seeds and folds."""
    asked = {(variant, config.digest(without=EPOCHS)) for variant, configs in variants.items() for config in configs}
    identities = zip(gathered.runs.variant, gathered.configs, strict=True)
    others = [(variant, config.digest(without=EPOCHS)) not in asked for variant, config in identities]
    return gathered.in_order(np.flatnonzero(others))


def refuse_other_results(
    parameters: Parameters, group: str, gathered: Results, variants: dict[str, list[RunConfig]], fingerprint: str
) -> None:
    """Raise StudyError if results of other data, size or settings would be replaced; to be called before training."""
    for row, before in zip(gathered.runs.itertuples(), gathered.configs, strict=True):
        configs = variants.get(row.variant)
        if not configs:
            continue
        differences = [_describe_difference(before, config) for config in configs]
        if row.fingerprint != fingerprint:
            differences.append(f"data {row.fingerprint}, and these are of data {fingerprint}")
        for difference in filter(None, differences):
            raise StudyError(
                f"{parameters.results_path / group}: holds results of {difference} ({row.variant}). Results are not "
                "replaced by those of other data, size or settings: put these into a report of their own, "
                f"{ANOTHER_REPORT}, or delete that folder first"
            )


def _describe_difference(before: RunConfig, after: RunConfig) -> str:
    """Return the first setting in which runs of a variant differ, "" if none; more epochs are no difference."""
    # The runs of one variant differ in fold and seed.
    for field, old in before.model_dump(exclude=set(DRAW)).items():
        new = getattr(after, field)
        is_longer = field == "epochs" and new > old
        if new != old and not is_longer:
            return f"{field} {old}, and these are of {new}"
    return ""


def measure(
    parameters: Parameters,
    name: str,
    make: Callable[[Catalog], pd.DataFrame],
    *,
    depends: Iterable[str] = (),
    code: tuple[ModuleType | Callable, ...] = (),
    number: str | None = "%.6g",
) -> pd.DataFrame:
    """Return a table that is computed from the data or with trained networks; read it where these are not available.

    All such tables follow one rule. With `train_missing` the table is made, and made again only when the data, what it
    depends on or its code has changed. Without it, or where ``make`` raises NotMeasured because the networks it needs
    are on another machine, ``results/<name>.csv`` is read as it is.

    Args:
        parameters: Parameters of the study.
        name: Name of the file in the results, without suffix.
        make: Makes the table from the images.
        depends: Everything besides images and code that decides the numbers: keys of runs, settings.
        code: Modules and functions, besides ``make``, whose code decides the numbers (`busi.config.code_version`).
        number: Format of floating-point numbers in the file; None writes all digits.

    Returns:
        The table as read from the file, so that every reader sees the same numbers.

    Raises:
        NotMeasured: The table has not been made yet and cannot be made here.
        StudyError: The file holds a table of other data; or as `load_catalog`.
    """
    file = parameters.results_path / f"{name}.csv"
    if parameters.train_missing:
        catalog = load_catalog(parameters)
        content = " ".join([catalog.fingerprint, code_version(make, *code), *depends])
        head = f"# data {catalog.fingerprint} made by {hashlib.sha256(content.encode()).hexdigest()[:16]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        # Notebooks that run at the same time may ask for the same table.
        with FileLock(file.with_suffix(".lock")):
            before = _first_line(file)
            _refuse_other_data(file, before, catalog.fingerprint)
            if before != head:
                _make_table(file, head, lambda: make(catalog), number)
    if not file.is_file():
        raise NotMeasured(f"{file}: not measured yet; run the study with its data and train_missing: true")
    return read_named(file, skiprows=1)


def _make_table(file: Path, head: str, make: Callable[[], pd.DataFrame], number: str | None) -> None:
    try:
        table = make().to_csv(index=False, float_format=number)
    except NotMeasured:
        # Its networks were trained on another machine. The table that was made there is the best available.
        if not file.is_file():
            raise
        return
    replace_text(file, f"{head}\n{table}")


def _first_line(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open(encoding="utf-8") as lines:
        return lines.readline().rstrip("\n")


def _refuse_other_data(file: Path, head: str, fingerprint: str) -> None:
    if head and head.split()[:3] != ["#", "data", fingerprint]:
        raise StudyError(
            f"{file}: holds results of other data ({head}), and these are of data {fingerprint}. Results are not "
            f"replaced by those of other data: put these into a report of their own, {ANOTHER_REPORT}, or delete that "
            "file first"
        )


def write_table(parameters: Parameters, name: str, table: pd.DataFrame, *, number: str = "%.6f") -> pd.DataFrame:
    """Write ``tables/<name>.csv``, numbers as ``number`` formats them, and return the table."""
    parameters.tables_path.mkdir(parents=True, exist_ok=True)
    replace_text(parameters.tables_path / f"{name}.csv", table.to_csv(index=False, float_format=number))
    return table


def read_table(parameters: Parameters, name: str) -> pd.DataFrame:
    """Read ``tables/<name>.csv``.

    Raises:
        NotMeasured: No notebook has written it yet.
    """
    file = parameters.tables_path / f"{name}.csv"
    if not file.is_file():
        raise NotMeasured(f"{file}: not written yet; execute the notebooks of the report in order, or make study")
    return read_named(file, texts=("variant", "a", "b"))


def record_finding(parameters: Parameters, section: str, **facts) -> None:
    """Add facts to a section of ``findings.json``, from which the index and the README are written.

    Args:
        parameters: Parameters of the study.
        section: Part of the file, e.g. "claims".
        facts: Name -> a sentence, or any other value that JSON can hold. Facts of the same name are replaced.
    """
    file = parameters.report_path / "findings.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    # Notebooks that run at the same time write into one file.
    with FileLock(file.with_suffix(".lock")):
        findings = read_findings(parameters)
        findings.setdefault(section, {}).update(facts)
        # Sorted, so that the file does not depend on the order in which notebooks finish.
        ordered = {}
        for name, own in sorted(findings.items()):
            ordered[name] = dict(sorted(own.items()))
        text = json.dumps(ordered, indent=1, ensure_ascii=False)
        replace_text(file, f"{text}\n")


def read_findings(parameters: Parameters) -> dict[str, dict]:
    """Read ``findings.json``; empty if no notebook has recorded a finding yet."""
    file = parameters.report_path / "findings.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def replace_text(file: Path, text: str) -> None:
    """Write a file in one step, so that no reader ever sees half of it."""
    partial = file.with_name(f"{file.name}.part")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(file)
