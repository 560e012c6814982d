"""How far bfloat16 moves a real run: what a study's baselines end with in either precision."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from busi.config import Study
from busi.dataset import catalog
from busi.evaluation import statistics
from busi.runs import Store
from busi.study import finished

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
"""Precision -> Keras dtype policy."""

SCORES = ("dice", "iou", "nsd")
"""Of a held-out lesion image, the mean over seeds."""


def compared(study: Study) -> pd.DataFrame:
    """The published and the held-out baseline, trained in both precisions side by side on one thread each.

    Runs are kept in the study's store, where those of its own precision may be already.

    Args:
        study: Its size, seeds, folds, data and store; its precision does not count.

    Returns:
        One row a protocol and score: `protocol`; `score`, for "published" what the last epoch of training and the still
        weights have, the mean over seeds, for "heldout" the mean over the lesion images of all folds; `n` runs, or
        images; `float32`, `bfloat16`; `difference` (bfloat16 - float32), and for "heldout" with `low`, `high` and `p`
        as `busi.evaluation.statistics.pairwise`.

    Raises:
        StudyError: The data folder is missing or not whole; a run cannot be kept.
    """
    with ProcessPoolExecutor(len(POLICIES), mp_context=multiprocessing.get_context("spawn")) as pool:
        studies = [study.model_copy(update={"precision": policy}) for policy in POLICIES.values()]
        ended = dict(zip(POLICIES, pool.map(_ended, studies), strict=True))
    return pd.concat([_published(ended), _heldout(ended)], ignore_index=True)


def _ended(study: Study) -> dict[str, pd.DataFrame]:
    """By protocol, what the baseline's runs end with: a row a run, or an image."""
    baseline = {"baseline": {}}
    study = study.model_copy(update={"variants": baseline, "heldout_variants": baseline})
    data = catalog.of(study)
    with TemporaryDirectory() as folder:  # what is gathered into a report has one place for both precisions
        store = Store(study.runs_path, Path(folder))
        runs = {
            protocol: [finished(config, data, store, threads=1) for config in study.configs(protocol)["baseline"]]
            for protocol in ("published", "heldout")
        }
        published = [
            {
                f"{score}, {when}": run.metrics[when][score]
                for when in ("training", "still")
                for score in run.metrics[when]
            }
            for run in runs["published"]
        ]
        images = pd.concat([run.per_image for run in runs["heldout"]]).query("image_class != 'normal'")
        images = images.groupby(["image_class", "name", "group"])[list(SCORES)].mean().reset_index()
    return {"published": pd.DataFrame(published), "heldout": images}


def _published(ended: dict[str, dict[str, pd.DataFrame]]) -> pd.DataFrame:
    means = pd.DataFrame({precision: found["published"].mean() for precision, found in ended.items()})
    table = means.rename_axis("score").reset_index().assign(difference=lambda each: each.bfloat16 - each.float32)
    return table.assign(protocol="published", n=len(ended["float32"]["published"]))[
        ["protocol", "score", "n", *POLICIES, "difference"]
    ]


def _heldout(ended: dict[str, dict[str, pd.DataFrame]]) -> pd.DataFrame:
    images = {precision: found["heldout"] for precision, found in ended.items()}
    rows = []
    for score in SCORES:
        [pair] = statistics.pairwise({each: images[each] for each in ("bfloat16", "float32")}, score).to_dict("records")
        means = {precision: table[score].mean() for precision, table in images.items()}
        rows.append({"protocol": "heldout", "score": score, "n": pair["n_images"]} | means | pair)
    return pd.DataFrame(rows)[["protocol", "score", "n", *POLICIES, "difference", "low", "high", "p"]]
