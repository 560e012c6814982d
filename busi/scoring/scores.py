"""Scores of a held-out run and fates of a published one, computed from the predictions that the run keeps.

Scoring needs the run's predictions, its threshold and the data's masks, but no network: after a change of the scoring
code, every run is scored again in seconds and none is trained again.
"""

import json
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock

from busi import selection
from busi.config import StudyError, code_version
from busi.dataset import arrays, splits
from busi.dataset.catalog import Catalog, read_named, read_union
from busi.runs import Run
from busi.scoring import fates, floors, metrics


class Scores(NamedTuple):
    """Scores of one predictor on held-out images.

    Attributes:
        images: One row for each image: `image_class`, `name`, `group`, `lesion_share` and the scores of
            `busi.scoring.metrics.score_image`.
        pixels: Pixels of the lesion images by probability, as `busi.scoring.metrics.count_pixels`.
    """

    images: pd.DataFrame
    pixels: pd.DataFrame


@cache
def scoring_version() -> str:
    """Return eight hexadecimal digits that change with the code that computes scores, not with its comments."""
    return code_version(sys.modules[__name__], metrics, fates, floors, arrays, selection)


def find_or_score(run: Run, catalog: Catalog) -> Scores:
    """Read the scores of a held-out run, and compute them first if this version of the scoring code has not done so.

    They are kept in the run's folder, in ``scores-<scoring version>/``; those of other versions are removed.
    """

    def make() -> dict[str, str]:
        scores = score_run(run, catalog)
        images = scores.images.to_csv(index=False, float_format="%.6f")
        return {"images.csv": images, "pixels.csv": scores.pixels.to_csv(index=False)}

    folder = _find_or_make(run, make)
    # Always read from the files, so that the first call returns the same digits as every later one.
    return Scores(read_named(folder / "images.csv"), pd.read_csv(folder / "pixels.csv"))


def find_or_decide_fate(run: Run, catalog: Catalog) -> dict:
    """Read the fate of a published run, as `busi.scoring.fates.measure_fate`; made and kept as in `find_or_score`."""

    def make() -> dict[str, str]:
        _refuse_other_data(run, catalog)
        names, probability = run.predictions["training"]
        targets = arrays.published_arrays(catalog, run.config)
        rows = {name: row for row, name in enumerate(targets.names)}
        # Predictions are in the order of training, which may be mixed.
        targets = targets.targets[[rows[name] for name in names]]
        lesions = targets[..., 0]
        mask_dice = fates.score_mean_mask_dice(lesions)
        floor = floors.lowest_loss(run.config.loss, floors.constant_floors(targets))
        relative_loss = run.outcome["still"]["loss"] / floor
        fate = fates.measure_fate(lesions, probability, mask_dice, relative_loss, run.outcome["end"])
        return {"fate.json": json.dumps(fate)}

    return json.loads((_find_or_make(run, make) / "fate.json").read_text(encoding="utf-8"))


def score_run(run: Run, catalog: Catalog) -> Scores:
    """Score the predictions that a held-out run made for its test part, at the images' original sizes.

    The truth is the union of all masks of an image. A pixel is predicted lesion if it reaches the run's threshold.

    Raises:
        StudyError: The run was trained on images other than those of ``catalog``.
    """
    _refuse_other_data(run, catalog)
    test = run.predictions["test"]
    split = splits.load_split(catalog, run.config.split)
    described = identify_images(catalog, split.group)
    # Predictions are matched with images by name, not by order.
    table = catalog.table.set_index("name")
    scores, counts = [], []
    for name, output in zip(test.names, test.probability, strict=True):
        image = table.loc[name]
        truth = read_union(image.masks)
        restored = arrays.restore(output, image.height, image.width, run.config)
        probability = restored
        if run.config.largest_component:
            probability = metrics.keep_largest_component(restored, run.threshold)
        scored = metrics.score_image(truth, probability, run.threshold)
        # Of the whole map: regions were removed at the run's threshold, but the peak is compared with any threshold.
        scored["peak"] = metrics.find_peak(truth, restored)
        scores.append({"name": name} | scored)
        if image.image_class != "normal":
            counts.append(metrics.count_pixels(truth, probability))
    images = described.merge(pd.DataFrame(scores), on="name")
    return Scores(images, metrics.add_counts(counts))


def identify_images(catalog: Catalog, groups: np.ndarray) -> pd.DataFrame:
    """Return the columns that begin a table of scores: `image_class`, `name`, `group` (``groups``), `lesion_share`."""
    images = catalog.table[["image_class", "name", "lesion_share"]].copy()
    images.insert(2, "group", groups)
    return images


def _find_or_make(run: Run, make: Callable[[], dict[str, str]]) -> Path:
    """Return the folder of the present scoring version; if missing, it is first written with the files of ``make``."""
    folder = run.folder / f"scores-{scoring_version()}"
    # A second process waits, then finds the scores. The lock is beside the run's folder, to keep that clean.
    with FileLock(run.folder.with_suffix(".scores.lock")):
        if not folder.is_dir():
            files = make()
            unfinished = folder.with_name("scores.unfinished")
            # Left behind by a process that was killed.
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for name, text in files.items():
                (unfinished / name).write_text(text, encoding="utf-8")
            # Renamed last, so that a folder that exists is complete.
            unfinished.rename(folder)
            for other in run.folder.glob("scores-*"):
                if other != folder:
                    shutil.rmtree(other)
    return folder


def _refuse_other_data(run: Run, catalog: Catalog) -> None:
    if run.stored["fingerprint"] != catalog.fingerprint:
        raise StudyError(
            f"{run.folder}: trained on data {run.stored['fingerprint']}, to be scored with the masks of data "
            f"{catalog.fingerprint}; give the folder of images that the run was trained on"
        )
