"""Section 8: from the published number to the held-out one in single steps.

Each rung is scored as whoever stands on it would report it: against its own targets, at the network's resolution, on
the images that it is scored on. What the scores share is their definition.
"""

from itertools import pairwise

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from busi.config import RunConfig, Study
from busi.dataset import splits
from busi.dataset.arrays import Arrays
from busi.dataset.catalog import Catalog
from busi.mechanisms import compare, experiments
from busi.runs import BEST, STATE, Run

SCORES = ("accuracy", "auc", "dice")

RUNGS = {
    "rebuilt": ("rebuilt", "training"),
    "settings that learn": ("settings that learn", "training"),
    "complement, not mirror": ("complement", "training"),
    "all masks, not the first": ("all masks", "training"),
    "aligned, not squeezed": ("aligned", "training"),
    "validation, not training": ("random split", "validation"),
    "held-out": ("random split", "test"),
    "grouped": ("grouped split", "test"),
}
"""Rung -> its variant in ``params/mechanisms.yaml`` and the part of the images that it is scored on."""


def per_image(targets: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, float]:
    """The published metrics, and Dice, of one image.

    Args:
        targets: float (o, o, 2), lesion and background.
        probability: Of lesion, float (o, o).
        threshold: From which on a pixel is predicted lesion.

    Returns:
        `accuracy`: over the channels, as Keras counts it; `auc`: of both channels' pixels pooled, as published;
        `lesion_auc`: of the lesion channel, missing where that is all one; `dice`, missing where the target is empty. A
        pixel is lesion where its first channel is no less than the second.
    """
    truth, predicted = targets[..., 0] >= targets[..., 1], probability >= threshold
    positive, both = targets > 0, np.stack([probability, 1 - probability], axis=-1)
    varied = 0 < positive[..., 0].sum() < positive[..., 0].size
    return {
        "accuracy": float((truth == predicted).mean()),
        "auc": float(roc_auc_score(positive.ravel(), both.ravel())),
        "lesion_auc": float(roc_auc_score(positive[..., 0].ravel(), probability.ravel())) if varied else np.nan,
        "dice": float(2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())) if truth.any() else np.nan,
    }


def measured(study: Study) -> pd.DataFrame | None:
    """One row a rung and scored image: `rung`, `name`, `group`, those of `per_image`, and the floor's `floor_*`.

    The floor is "background everywhere" on the same images and targets; it needs no training and is there for every
    rung. Scores are missing where a rung's run has no weights here.
    """
    runs = experiments.ensure(study, "ladder")
    configs = experiments.configs(study, "ladder")
    where = experiments.store(study, "ladder")

    def make(data: Catalog) -> pd.DataFrame:
        groups = splits.of(data, "grouped").set_index("name").group
        tables = []
        for rung, (variant, part) in RUNGS.items():
            if variant in configs:
                run = next(iter(runs[variant]), None)
                table = _scored(configs[variant][0], part, data, run and (run, _file(run, data, where)))
                tables.append(table.assign(rung=rung, group=groups[table.name].to_numpy()))
        return pd.concat(tables)

    return experiments.gathered(study, "ladder", make, *experiments.flat(runs))


def _file(run: Run, data: Catalog, where):
    return experiments.weights(run, data, where, BEST if run.config.protocol == "heldout" else STATE)


def _scored(config: RunConfig, part: str, data: Catalog, found) -> pd.DataFrame:
    names, arrays = _images(config, part, data)
    nothing = np.zeros(arrays.targets.shape[1:3], np.float32)
    rows = [
        {"name": name} | {f"floor_{score}": value for score, value in per_image(target, nothing, 0.5).items()}
        for name, target in zip(names, arrays.targets, strict=True)
    ]
    if found and found[1]:
        threshold = found[0].metrics.get("threshold", 0.5)
        probabilities = _predicted(config, found[1], arrays.images)
        scores = zip(arrays.targets, probabilities, strict=True)
        rows = [row | per_image(*each, threshold) for row, each in zip(rows, scores, strict=True)]
    return pd.DataFrame(rows)


def _images(config: RunConfig, part: str, data: Catalog) -> tuple[list[str], Arrays]:
    """The lesion images that a rung is scored on, as its network takes them."""
    from busi import protocols
    from busi.dataset.arrays import whole

    protocol = protocols.of(config, data)
    if config.protocol == "published":
        return list(data.lesions.name), protocol.training
    rows = np.flatnonzero((protocol.split[f"fold{config.fold}"] == part) & (protocol.split.image_class != "normal"))
    return list(protocol.split.name[rows]), Arrays(protocol.images[rows], whole(data, config).targets[rows])


def _predicted(config: RunConfig, file, images: np.ndarray) -> np.ndarray:
    from busi import training

    model = training.compiled(config)
    model.load_weights(file)
    return model.predict(images, batch_size=16, verbose=0)[..., 0]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a rung, in order.

    Returns:
        `rung`, `n_images`; for each of `SCORES` its mean, the floor's mean `floor_*`, the change from the rung before
        as `*_change` with `*_low` and `*_high`; and `lesion_auc`. Missing where a rung has not been run.
    """
    rungs = {rung: part.reset_index(drop=True) for rung, part in rows.groupby("rung", sort=False)}
    found = []
    for rung, part in rungs.items():
        means = {score: part.get(score, pd.Series(dtype=float)).mean() for score in (*SCORES, "lesion_auc")}
        floors = {f"floor_{score}": part[f"floor_{score}"].mean() for score in SCORES}
        found.append({"rung": rung, "n_images": len(part)} | means | floors)
    for (_, before), (rung, after) in pairwise(rungs.items()):
        row = found[list(rungs).index(rung)]
        for score in SCORES:
            if score in rows and before[score].notna().any() and after[score].notna().any():
                change = compare.difference(before, after, score)
                row |= {f"{score}_change": change.mean, f"{score}_low": change.low, f"{score}_high": change.high}
    columns = [f"{score}_{end}" for score in SCORES for end in ("change", "low", "high")]
    frame = pd.DataFrame(found)
    return frame.reindex(columns=[*frame.columns, *(name for name in columns if name not in frame)])


def conclusion(table: pd.DataFrame | None, published: dict[str, float]) -> str:
    """Where the number comes from, step by step.

    Args:
        table: As `table`.
        published: The baseline's published `accuracy` and `auc`.
    """
    if table is None:
        return experiments.NOT_RUN
    rungs = table.set_index("rung")
    ran = rungs[rungs.dice.notna()]
    waiting = [rung for rung in RUNGS if rung not in ran.index]
    if not len(ran):
        return "No rung of the ladder has been run yet."
    first, last = ran.iloc[0], ran.iloc[-1]
    text = (
        f"From accuracy {published['accuracy']:.4f} and AUC {published['auc']:.4f} as published, and "
        f"{first.accuracy:.4f}, {first.auc:.4f} and Dice {first.dice:.3f} rebuilt at this size, the ladder ends at "
        f"{last.accuracy:.4f}, {last.auc:.4f} and {last.dice:.3f} ({ran.index[-1]}), where background everywhere has "
        f"{last.floor_accuracy:.4f}, {last.floor_auc:.4f} and {last.floor_dice:.3f}"
    )
    sure = ran[(ran.dice_low > 0) | (ran.dice_high < 0)]
    if len(sure):
        steps = ", ".join(f"{rung} {row.dice_change:+.3f}" for rung, row in sure.iterrows())
        text += f"; the steps that change Dice beyond chance: {steps}"
    elif len(ran) > 1:
        text += "; no step changes Dice beyond chance"
    return f"{text}; not run yet: {'; '.join(waiting)}." if waiting else f"{text}."
