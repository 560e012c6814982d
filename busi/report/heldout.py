"""The held-out answers: what each variant scores on images it was never trained on, beside predictors that need none.

Folds arrive one after another: every table says how many runs and images stand behind a row, and two variants are
compared only on the images that both have scored.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from busi import evaluation
from busi.config import FAMILIES, RunConfig, Study, related
from busi.dataset import catalog, duplicates, splits
from busi.evaluation import metrics, predictors, statistics
from busi.runs import Run
from busi.study import Runs, ensure

CONSTANT, EVERYTHING, BLOB = "Background everywhere", "Lesion everywhere", "Darkest blob"

TRIVIAL = {CONSTANT: "constant", EVERYTHING: "everything", BLOB: "darkest blob"}
"""Untrained predictors as tables name them -> as `busi.evaluation.predictors` does."""

COLUMNS = (
    *("family", "variant", "dice", "dice_low", "dice_high", "iou", "hd95", "nsd", "precision", "recall", "auc"),
    *("accuracy", "ece", "normals_fpr", "n_images", "n_runs", "parameters", "seconds"),
)
"""Of ``tables/heldout.csv``."""

PAIR_COLUMNS = (*("family", "a", "b", "difference", "low", "high", "p", "p_holm", "wins", "effect", "n_images"),)
"""Of ``tables/pairwise.csv``."""


DIGITS = dict.fromkeys(["Dice", "median", "IoU", "NSD", "precision", "recall", "found"], 3) | {"HD95": 1}
"""Decimals of a table of `shown`."""


@dataclass(frozen=True)
class Scored:
    """One predictor's scores on held-out images.

    Attributes:
        per_image: One row an image, as `busi.evaluation.metrics.per_image`, headed by `image_class`, `name`, `group`
            and `lesion_share`; the mean over seeds where there are several.
        bins: Pixels of the scored lesion images by probability, as `busi.evaluation.metrics.bins`.
        runs: What stands behind them; empty for a predictor that is not trained.
    """

    per_image: pd.DataFrame
    bins: pd.DataFrame
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Answers:
    """A family's question under the held-out protocol.

    Attributes:
        family: Its name.
        runs: Variant -> its finished runs, of which there may be none.
        trivial: The untrained predictors' scores, by their names in `TRIVIAL`; empty where none have been gathered.
        planned: The runs that the profile plans for the family.
    """

    family: str
    runs: Runs
    trivial: Mapping[str, Scored]
    planned: frozenset[RunConfig]

    @cached_property
    def variants(self) -> dict[str, Scored]:
        """The scores of every variant with a run."""
        return {label: of_runs(found) for label, found in self.runs.items() if found}

    @cached_property
    def everyone(self) -> dict[str, Scored]:
        """The scores of every variant with a run, then of the untrained predictors."""
        return {**self.variants, **self.trivial}

    @cached_property
    def blind(self) -> dict[str, tuple[int, int]]:
        """Variant -> how many of its runs mark no pixel of any held-out lesion image, and of how many.

        Variants without such a run are left out.
        """
        counts = {label: (sum(map(_marks_nothing, found)), len(found)) for label, found in self.runs.items()}
        return {label: count for label, count in counts.items() if count[0]}

    @cached_property
    def finished(self) -> frozenset[Path]:
        """The folders of the runs that have been trained."""
        return frozenset(run.folder for found in self.runs.values() for run in found)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a variant, then the untrained predictors.

        Returns:
            `COLUMNS`, and what else `busi.evaluation.statistics.summary` gives: scores of the lesion images (distances
            in pixels) and, as `normals_*`, of the normals. `n_runs` (0 for an untrained predictor), `parameters` of the
            network, `seconds` of training, the mean over runs. A variant without a run has the two counts only.
        """
        waiting = {label: {"n_images": 0, "n_runs": 0} for label in self.runs}
        rows = waiting | {label: _row(each) for label, each in self.everyone.items()}
        table = pd.DataFrame([{"family": self.family, "variant": label} | row for label, row in rows.items()])
        more = table.columns.difference(COLUMNS, sort=False)
        return table.reindex(columns=[*COLUMNS, *more]).astype({"parameters": "Int64"})

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """The variants pairwise by Dice: `PAIR_COLUMNS`, as `busi.evaluation.statistics.pairwise`."""
        pairs = statistics.pairwise({label: scored.per_image for label, scored in self.variants.items()})
        return pairs.assign(family=self.family)[list(PAIR_COLUMNS)]

    @cached_property
    def parts(self) -> pd.DataFrame:
        """Dice by class and by size of the lesion, terciles of the lesion images that a row's predictor has scored.

        Returns:
            `family`, `variant`, `trained` (whether a network's), `part` ("benign", "small", ...), and as
            `busi.evaluation.statistics.by`.
        """
        columns = ["family", "variant", "trained", "part", "dice", "dice_low", "dice_high", "dice_median", "n_images"]
        found = [
            statistics.by(scored.per_image, column)
            .rename(columns={column: "part"})
            .assign(family=self.family, variant=label, trained=bool(scored.runs))
            for label, scored in self.everyone.items()
            for column in ("image_class", "lesion_size")
        ]
        return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)

    @cached_property
    def reliability(self) -> dict[str, pd.DataFrame]:
        """The reliability curve of every variant with a run, as `busi.evaluation.metrics.reliability`."""
        return {label: metrics.reliability(scored.bins) for label, scored in self.variants.items()}


def answers(study: Study) -> Answers:
    """A family's held-out answers: runs found or trained as `busi.study.ensure`, untrained predictors beside them.

    Raises:
        StudyError: As `busi.study.ensure`.
    """
    planned = frozenset(chain.from_iterable(study.configs("heldout").values()))
    return Answers(study.family, ensure(study, "heldout"), trivial(study), planned)


def every_family(study: Study) -> dict[str, Answers]:
    """The held-out answers of all families under ``study``'s profile, as `answers`."""
    return {name: answers(related(study, name)) for name in FAMILIES}


def every_table(families: Mapping[str, Answers]) -> pd.DataFrame:
    """The tables of all families one below the other: `COLUMNS`."""
    return pd.concat([family.table[list(COLUMNS)] for family in families.values()], ignore_index=True)


def every_pair(families: Mapping[str, Answers]) -> pd.DataFrame:
    """The pairs of all families one below the other: `PAIR_COLUMNS`."""
    # An empty table has no types, and would take those of the others away.
    found = [family.pairs for family in families.values() if len(family.pairs)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=PAIR_COLUMNS)


def of_runs(runs: list[Run]) -> Scored:
    """What one variant's runs, at least one, scored together."""
    images = pd.concat([run.per_image for run in runs])
    keys = ["image_class", "name", "group"]
    scores = images.columns.difference(keys, sort=False)
    per_image = images.astype(dict.fromkeys(scores, float)).groupby(keys, sort=False).mean().reset_index()
    bins = pd.concat([run.bins for run in runs]).groupby("probability").sum().reset_index()
    return Scored(per_image, bins, tuple(runs))


def trivial(study: Study) -> dict[str, Scored]:
    """The untrained predictors' scores, by their names in `TRIVIAL`, gathered into the report.

    Computed where the data are (a minute or two for BUSI), and again only where the data or what scores them differ;
    else read. Empty where nothing is to be trained, so that the data are not read, and nothing has been gathered.
    """
    folder = study.report_path / "results" / "heldout"
    if study.train_missing:
        found = catalog.of(study)
        folder.mkdir(parents=True, exist_ok=True)
        # Notebooks that run side by side gather the same files.
        with FileLock(folder / "trivial.lock"):
            _gather(folder, found)
    if not (folder / _KEY).is_file():
        return {}
    return {
        label: Scored(
            pd.read_csv(_folder(folder, name) / "per_image.csv"), pd.read_csv(_folder(folder, name) / "bins.csv")
        )
        for label, name in TRIVIAL.items()
    }


def near_duplicates(study: Study) -> pd.DataFrame | None:
    """How many pairs of images are how far apart: `distance` (bits of 64, the larger of both hashes), `pairs`.

    Gathered into the report where the data are, else read; None where nothing has been gathered.
    """

    def count() -> pd.DataFrame:
        distances = duplicates.distances(catalog.of(study))
        pairs = np.bincount(distances[np.triu_indices_from(distances, k=1)], minlength=65)
        return pd.DataFrame({"distance": range(len(pairs)), "pairs": pairs})

    return _gathered(study, "duplicates.csv", count)


def split(study: Study) -> pd.DataFrame | None:
    """The grouped split of the study's images, as `busi.dataset.splits.make`.

    Gathered into the report where the data are, else read; None where nothing has been gathered.
    """
    return _gathered(study, "split.csv", lambda: splits.of(catalog.of(study), "grouped"))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `Answers.table` as a page shows it: how well lesions are outlined."""
    columns = {
        **{"variant": "variant", "n_runs": "runs", "n_images": "images", "dice": "Dice", "interval": "95 % interval"},
        **{"dice_median": "median", "iou": "IoU", "hd95": "HD95", "nsd": "NSD", "precision": "precision"},
        **{"recall": "recall", "detected": "found"},
    }
    return _shown(table.assign(interval=_intervals(table)), columns)


def shown_pixels(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `Answers.table` as a page shows it: pixels and their probabilities, normals, cost."""
    columns = {
        **{"variant": "variant", "accuracy": "pixel accuracy", "auc": "lesion AUC", "brier": "Brier", "ece": "ECE"},
        **{"normals_fpr": "normals with a finding", "normals_area": "area marked on normals"},
        **{"parameters": "parameters", "minutes": "minutes a run"},
    }
    return _shown(table.assign(minutes=table.seconds / 60), columns)


def shown_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """A table of `Answers.pairs` as a page shows it."""
    columns = {
        **{"a": "a", "b": "b", "difference": "Dice a − b", "interval": "95 % interval", "p_shown": "p after Holm"},
        **{"effect": "effect", "wins": "a wins", "n_images": "images"},
    }
    ends = [f"{low:+.3f} to {high:+.3f}" for low, high in zip(pairs.low, pairs.high, strict=True)]
    # Four decimals would show as zero what is merely small.
    corrected = ["< 0.0001" if p < 0.0001 else f"{p:.4f}" for p in pairs.p_holm]
    return _shown(pairs.assign(interval=ends, p_shown=corrected), columns)


def side_by_side(published: pd.DataFrame, heldout: pd.DataFrame, same: Mapping[str, str]) -> pd.DataFrame:
    """Both answers to one question, row by row.

    Args:
        published: As `busi.report.tables.table`.
        heldout: As `Answers.table`.
        same: Published method -> the held-out variant of its settings, where that has another name.

    Returns:
        One row a published method: its accuracy as published, rebuilt, and of the floor, all on training images; Dice
        with its 95 % interval and accuracy on images never trained on, and the held-out variant where names differ.
    """
    ours = heldout.assign(interval=_intervals(heldout)).set_index("variant")
    columns = {"dice": "held-out Dice", "interval": "95 % interval", "accuracy": "held-out accuracy"}
    variants = [same.get(method, method) for method in published.method]
    names = {
        **{"method": "method", "published_accuracy": "published accuracy", "accuracy": "rebuilt accuracy"},
        "floor_accuracy": "floor of accuracy",
    }
    right = ours.reindex(variants)[list(columns)].rename(columns=columns).reset_index(drop=True)
    if same:
        right.insert(0, "held-out variant", variants)
    return published[list(names)].rename(columns=names).join(right)


_KEY = "trivial.sha256"


def _marks_nothing(run: Run) -> bool:
    images = run.per_image
    return not images.predicted_share[images.image_class != "normal"].any()


def _row(scored: Scored) -> dict:
    cost = {"n_runs": len(scored.runs), "parameters": 0, "seconds": np.nan}
    if scored.runs:
        cost["parameters"] = scored.runs[0].metrics["parameters"]
        cost["seconds"] = np.mean([run.metrics["seconds"] for run in scored.runs])
    return statistics.summary(scored.per_image, scored.bins) | cost


def _gather(folder: Path, data: catalog.Catalog) -> None:
    source = Path(evaluation.__file__).parent
    code = b"".join((source / f"{module}.py").read_bytes() for module in evaluation.SCORING)
    key = hashlib.sha256(data.fingerprint.encode() + code).hexdigest()
    if (folder / _KEY).is_file() and (folder / _KEY).read_text(encoding="utf-8").strip() == key:
        return
    found = predictors.scored(data, pd.Series(duplicates.groups(data), index=data.table.name))
    (folder / _KEY).unlink(missing_ok=True)  # written last: with it, the rest is whole
    for name, scored in found.items():
        _folder(folder, name).mkdir(parents=True, exist_ok=True)
        scored.per_image.to_csv(_folder(folder, name) / "per_image.csv", index=False, float_format="%.6f")
        scored.bins.to_csv(_folder(folder, name) / "bins.csv", index=False)
    (folder / _KEY).write_text(f"{key}\n", encoding="utf-8")


def _folder(folder: Path, name: str) -> Path:
    return folder / name.replace(" ", "-")


def _gathered(study: Study, name: str, make) -> pd.DataFrame | None:
    file = study.report_path / "results" / name
    if study.train_missing:
        table = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(file, index=False)
    return pd.read_csv(file) if file.is_file() else None


def _intervals(table: pd.DataFrame) -> list[str | None]:
    ends = zip(table.dice_low, table.dice_high, strict=True)
    return [None if pd.isna(low) else f"{low:.3f}–{high:.3f}" for low, high in ends]


def _shown(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    return table.reindex(columns=list(columns)).rename(columns=columns)
