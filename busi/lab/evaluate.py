"""Evaluation on any data set with masks: scores of networks, and of masks by other software, as tables and a page."""

import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pandas as pd
from bs4 import BeautifulSoup
from markupsafe import escape

from busi import display
from busi.config import StudyError
from busi.dataset.catalog import Catalog, DataWarning, read_grey
from busi.dataset.folders import new_folder
from busi.lab.networks import Network
from busi.lab.predict import CHUNK
from busi.report import layout
from busi.runs import Run
from busi.scoring import ruler
from busi.scoring.predictors import MEAN_MASK


def evaluate_predictors(catalog: Catalog, runs: list[Run], folders: list[Path], out: Path) -> pd.DataFrame:
    """Score networks and folders of masks beside untrained predictors, and write the results into a new folder.

    ``out`` gets ``scores.csv`` and ``images.csv``, the two tables of `busi.scoring.ruler.compare`, ``missing.csv``
    (images that a predictor has not answered) and a page, ``index.html``.

    Args:
        catalog: The images.
        runs: Runs whose networks are averaged, for one row; without any there is no such row.
        folders: Folders of masks, as `busi.scoring.ruler.read_masks`; each is a row.
        out: The folder.

    Raises:
        StudyError: ``out`` exists or cannot be made, there is nothing to score, or as `ask_networks` and the functions
            of `busi.scoring.ruler`. Nothing is written then.
    """
    if not runs and not folders:
        raise StudyError("nothing to score: give a run, or a folder of masks with --masks")
    # First, because scoring takes minutes: a folder that cannot be written is refused before that.
    with new_folder(out) as folder:
        scored = _score_predictors(catalog, runs, folders)
        table, images = ruler.compare(catalog, scored)
        missing = _list_missing(catalog, scored)
        _warn_missing(catalog, missing)
        table.to_csv(folder / "scores.csv", index=False, float_format="%.6f")
        images.to_csv(folder / "images.csv", index=False, float_format="%.6f")
        missing.to_csv(folder / "missing.csv", index=False)
        body = BeautifulSoup(_draw_page(catalog, table, missing), "html.parser")
        layout.write_html(folder / "index.html", body, profile="evaluation", pages=())
    return table


def _score_predictors(catalog: Catalog, runs: list[Run], folders: list[Path]) -> dict[str, pd.DataFrame]:
    """Return each predictor's scores, as `ruler.score_answers`, by its name: networks, masks, untrained predictors."""
    answers = {}
    if runs:
        answers[_name_network(runs)] = ask_networks(runs, catalog)
    for folder in folders:
        if str(folder) in (MEAN_MASK, *ruler.BLIND):
            raise StudyError(f"{folder}: the name of a predictor that needs no training; rename the folder")
        answers[str(folder)] = ruler.read_masks(catalog, folder)
    for name, predict in ruler.BLIND.items():
        answers[name] = ruler.ask_blindly(catalog, predict)
    # Answers are computed only here, after folders without masks have been refused.
    scored = {name: ruler.score_answers(catalog, given) for name, given in answers.items()}
    try:
        scored[MEAN_MASK] = ruler.score_answers(catalog, ruler.ask_mean_mask(catalog))
    except StudyError as error:  # a handful of images can be scored, but not split into folds
        warnings.warn(f"no row {MEAN_MASK!r}: {error}", DataWarning, stacklevel=2)
    return scored


def _list_missing(catalog: Catalog, scored: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return `predictor` and `name` for each image that a predictor has not answered."""
    tables = []
    for predictor, answers in scored.items():
        is_answered = catalog.table.name.isin(answers.name)
        tables.append(pd.DataFrame({"predictor": predictor, "name": catalog.table.name[~is_answered]}))
    return pd.concat(tables)


def _warn_missing(catalog: Catalog, missing: pd.DataFrame) -> None:
    names = missing.name.unique()
    if len(names):
        message = f"{len(names)} of {len(catalog.table)} images are left out of every row, because a predictor has not "
        warnings.warn(f"{message}answered them, e.g. {names[0]}: see missing.csv", DataWarning, stacklevel=3)


def ask_networks(runs: list[Run], catalog: Catalog) -> Iterator[ruler.Answer]:
    """Ask the mean of several networks about a data set, each network only about images that it was not trained on.

    If a run was trained on this very data set, it is asked only about the images of its test part. Images that no run
    may be asked about are left out.

    Raises:
        StudyError: Every run was trained on all images, or images of another data set are named like a run's own.
    """
    allowed = [_fair_names(run, catalog) for run in runs]

    def find_fair(image) -> tuple[int, ...]:
        return tuple(number for number, names in enumerate(allowed) if names is None or image.name in names)

    # Sorted, so that runs with the same images follow one another and each network is loaded once.
    images = sorted(catalog.table.itertuples(), key=find_fair)
    if not find_fair(images[-1]):
        raise StudyError(f"{runs[0].folder}: trained on every image of these data; expected a run that held some out")
    for fair, rows in groupby(images, key=find_fair):
        if fair:
            network = Network(*[runs[number] for number in fair])
            yield from _ask_network(network, list(rows))


def _ask_network(network: Network, rows: list) -> Iterator[ruler.Answer]:
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        outputs = network.predict([read_grey(row.image) for row in chunk])
        for row, output in zip(chunk, outputs, strict=True):
            probability = network.restore(output, (row.height, row.width))
            yield ruler.Answer(row.name, probability, network.threshold)


def _fair_names(run: Run, catalog: Catalog) -> set[str] | None:
    """Return the names of the images that a run may be asked about; None if it may be asked about all."""
    predictions = run.predictions
    if run.stored["fingerprint"] == catalog.fingerprint:
        # Published runs have no test part: they were trained on all lesion images.
        return set(predictions["test"].names) if "test" in predictions else set()
    # Compared by name, because a run keeps no pixels, and those of a converted or cropped copy would differ.
    own = {name for part in predictions.values() for name in part.names}
    shared = own & set(catalog.table.name)
    if shared:
        raise StudyError(
            f"{run.folder}: {len(shared)} of these {len(catalog.table)} images are named like images of its own, e.g. "
            f"{min(shared)}, and the data set is another one: it may have been trained on the rest. Evaluate it on the "
            "data that it was trained on, or, if these are other images, rename them (docs/ruler.md)"
        )
    return None


def _name_network(runs: list[Run]) -> str:
    label = runs[0].config.label
    return label if len(runs) == 1 else f"{label} and {len(runs) - 1} more"


def _draw_page(catalog: Catalog, table: pd.DataFrame, missing: pd.DataFrame) -> str:
    shown = pd.DataFrame({"predictor": table.predictor, "images": table.n_images})
    for score in ruler.SCORES:
        intervals = table[[score, f"{score}_low", f"{score}_high"]].to_numpy()
        shown[score] = [f"{mean:.3f} ({low:.3f}–{high:.3f})" for mean, low, high in intervals]
    shown["normals"] = table.n_normals
    shown["normals marked"] = table.normals_fpr
    # The first row is that of the networks or, without any, of the first folder of masks.
    first = table.iloc[0]
    caption = "Mean over images with its 95 % interval; hd95 in pixels."
    parts = [
        "<h1>Evaluation</h1>",
        f"<p>{escape(first.predictor)}: Dice {first.dice:.3f} over {first.n_images} images with a lesion. The data set "
        f"has {len(catalog.table)} images, fingerprint {catalog.fingerprint}. Every row is over the images that all "
        "predictors have answered; intervals resample near-duplicates together.</p>",
        display.table(shown, caption=caption, digits=3).data,
    ]
    if len(missing):
        parts.append("<h2>Missing</h2>")
        parts.append(display.table(missing, caption="Images that a predictor has not answered.").data)
    return "\n".join(parts)
