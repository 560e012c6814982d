"""Section 7: what near-duplicates on both sides of a split are worth."""

import pandas as pd

from busi.config import Study
from busi.dataset import splits
from busi.dataset.catalog import Catalog
from busi.evaluation import statistics
from busi.mechanisms import compare, experiments
from busi.study import Runs


def twins(split: pd.DataFrame, fold: int) -> pd.DataFrame:
    """The test images of a fold with a lesion, and whether a near-duplicate of each is trained on.

    Args:
        split: As `busi.dataset.splits.make`; normals are never trained on.
        fold: Of the cross-validation.

    Returns:
        `name`, `twin` (bool).
    """
    lesions = split[split.image_class != "normal"]
    trained = set(lesions.group[lesions[f"fold{fold}"] == "training"])
    test = lesions[lesions[f"fold{fold}"] == "test"]
    return pd.DataFrame({"name": test.name, "twin": test.group.isin(trained)}).reset_index(drop=True)


def measured(study: Study) -> pd.DataFrame | None:
    """Every fold's test images under both splits: `split`, `fold`, `name`, `twin`."""

    def make(data: Catalog) -> pd.DataFrame:
        found = [
            twins(splits.of(data, kind), fold).assign(split=kind, fold=fold)
            for kind in splits.KINDS
            for fold in study.folds
        ]
        return pd.concat(found)[["split", "fold", "name", "twin"]]

    return experiments.gathered(study, "leakage", make)


def scored(found: pd.DataFrame, runs: Runs) -> pd.DataFrame:
    """The lesion images that the runs scored, with their twins: `split`, `fold`, `name`, `group`, `twin`, `dice`."""
    scores = [
        run.per_image[["name", "group", "dice"]].assign(split=label, fold=run.config.fold)
        for label, each in runs.items()
        for run in each
    ]
    columns = ["split", "fold", "name", "group", "twin", "dice"]
    return (
        pd.concat(scores).merge(found, on=["split", "fold", "name"])[columns]
        if scores
        else pd.DataFrame(columns=columns)
    )


def table(found: pd.DataFrame, runs: Runs) -> pd.DataFrame:
    """Dice by split and by `images`: "all", "twin in training", "no twin".

    Returns:
        `split`, `images`, `n_images` and `share` (of the split's lesion images, all folds counted); `dice` with `low`
        and `high` over the `n_scored` of them that runs have scored.
    """
    scores = scored(found, runs)
    rows = []
    for split, part in found.groupby("split", sort=False):
        for images, wanted in (("all", (True, False)), ("twin in training", (True,)), ("no twin", (False,))):
            some = scores[(scores.split == split) & scores.twin.isin(wanted)]
            ends = statistics.interval(some.dice, some.group) if len(some) else (None, None, None)
            count = int(part.twin.isin(wanted).sum())
            row = {"split": split, "images": images, "n_images": count, "share": count / len(part)}
            rows.append(row | dict(zip(("dice", "low", "high"), ends, strict=True)) | {"n_scored": len(some)})
    return pd.DataFrame(rows)


def conclusion(found: pd.DataFrame | None, runs: Runs) -> str:
    """How far a random split leaks, and what that is worth.

    Args:
        found: As `measured`.
        runs: Of the "grouped" and the "random" split.
    """
    if found is None:
        return experiments.NOT_RUN
    share = found.groupby("split").twin.mean()
    text = (
        f"Under the random split {share['random']:.0%} of the test images have a near-duplicate in training, under the "
        f"grouped one {share['grouped']:.0%}"
    )
    scores = scored(found, runs)
    random = scores[scores.split == "random"]
    if not len(random):
        return f"{text}; the network under the random split has not been run yet."
    twin, none = random[random.twin], random[~random.twin]
    if len(twin) and len(none):
        means = f"{twin.dice.mean():.3f} against {none.dice.mean():.3f} without"
        text += f"; those score a Dice of {means}, {_change(none, twin)}"
    grouped = scores[scores.split == "grouped"]
    if not len(grouped):
        return f"{text}."
    return f"{text}; the random split as a whole against the grouped one: {_change(grouped, random)}."


def _change(a: pd.DataFrame, b: pd.DataFrame) -> str:
    found = compare.difference(a, b, "dice")
    # An interval of one group has no ends.
    verdict = "more" if found.low > 0 else "less" if found.high < 0 else "no difference beyond chance"
    return f"{compare.text(found)}, {verdict}"
