"""Effect of bfloat16 on real runs: scores of a profile's baselines, trained in both precisions."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pandas as pd

from busi import study
from busi.config import Parameters
from busi.dataset import catalog
from busi.scoring import scores, statistics

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
"""Keras dtype policy of each precision."""

SCORES = ("dice", "iou", "nsd")
"""Scores of a held-out lesion image, averaged over seeds."""


def compare(parameters: Parameters) -> pd.DataFrame:
    """Train the published and the held-out baseline in both precisions, side by side on one thread each, and compare.

    Runs are kept in the profile's store, where those of its own precision may be already.

    Returns:
        One row per protocol and score: `protocol`; `score`; `n` runs or images; `float32`, `bfloat16`; `difference`
        (bfloat16 - float32). "published": scores of the last epoch of training and of the still weights, averaged over
        seeds. "heldout": averages over the lesion images of all folds, with `low`, `high` and `p` of
        `busi.scoring.statistics.compare_pairs`.
    """
    versions = [parameters.model_copy(update={"precision": policy}) for policy in POLICIES.values()]
    # A forked process would inherit the state of TensorFlow and hang.
    with ProcessPoolExecutor(len(POLICIES), mp_context=multiprocessing.get_context("spawn")) as pool:
        single, half = pool.map(_train_baselines, versions)
    published = pd.DataFrame({"float32": single["published"].mean(), "bfloat16": half["published"].mean()})
    published = published.rename_axis("score").reset_index()
    published = published.assign(protocol="published", n=len(single["published"]))
    published["difference"] = published.bfloat16 - published.float32
    rows = []
    for score in SCORES:
        # The difference is the first of the pair minus the second.
        pair = {"bfloat16": half["heldout"], "float32": single["heldout"]}
        (compared,) = statistics.compare_pairs(pair, [tuple(pair)], score=score).to_dict("records")
        means = {precision: images[score].mean() for precision, images in pair.items()}
        rows.append({"protocol": "heldout", "score": score, "n": compared["n_images"]} | means | compared)
    table = pd.concat([published, pd.DataFrame(rows)], ignore_index=True)
    return table[["protocol", "score", "n", *POLICIES, "difference", "low", "high", "p"]]


def _train_baselines(parameters: Parameters) -> dict[str, pd.DataFrame]:
    """Train the baselines; returns a row per run for "published" and a row per lesion image for "heldout"."""
    baseline = {"baseline": {}}
    parameters = parameters.model_copy(update={"variants": baseline, "heldout_variants": baseline})
    images = catalog.load_catalog(parameters)
    store = study.open_store(parameters, images)
    runs = {}
    for protocol in ("published", "heldout"):
        configs = parameters.configs(protocol)["baseline"]
        runs[protocol] = [study.find_or_train(config, images, store, threads=1) for config in configs]
    outcomes = []
    for run in runs["published"]:
        training = {f"{score}, training": value for score, value in run.outcome["training"].items()}
        still = {f"{score}, still": value for score, value in run.outcome["still"].items()}
        outcomes.append(training | still)
    scored = pd.concat([scores.find_or_score(run, images).images for run in runs["heldout"]])
    lesions = scored[scored.image_class != "normal"]
    # Seeds are averaged first: the images are what the two precisions are compared on.
    by_image = lesions.groupby(["image_class", "name", "group"])[list(SCORES)].mean().reset_index()
    return {"published": pd.DataFrame(outcomes), "heldout": by_image}
