"""Section 4: what squeezing the whole mask onto an output costs that sees only the middle of the image."""

import numpy as np
import pandas as pd

from busi.config import RunConfig, Study, validated
from busi.dataset import splits
from busi.dataset.arrays import lesion, resized, union
from busi.dataset.catalog import Catalog
from busi.evaluation import statistics
from busi.mechanisms import compare, experiments
from busi.study import Runs


def overlap(squeezed: np.ndarray, aligned: np.ndarray) -> dict[str, float]:
    """A segmenter that finds exactly the lesion in what it sees, under the squeezed target of the same image.

    Args:
        squeezed: The published target, bool (o, o).
        aligned: What a perfect segmenter answers, bool (o, o).

    Returns:
        `dice` and `accuracy` of ``aligned`` against ``squeezed``, dice 1 where both are empty; `background`: the
        accuracy of "background everywhere" against the same.
    """
    total = squeezed.sum() + aligned.sum()
    return {
        "dice": float(2 * (squeezed & aligned).sum() / total) if total else 1.0,
        "accuracy": float((squeezed == aligned).mean()),
        "background": float((~squeezed).mean()),
    }


def targets(inside: np.ndarray, config: RunConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One image's squeezed and aligned target, bool (o, o), and its whole mask at the input's size, bool (s, s)."""
    both = [lesion(inside, config.model_copy(update={"target": target})) >= 0.5 for target in ("squeezed", "aligned")]
    return *both, resized(inside.astype(np.float32), config.image_size, config.resize) >= 0.5


def measured(study: Study) -> pd.DataFrame | None:
    """One row a lesion image, at the published size.

    Returns:
        `image_class`, `name`, `group`, those of `overlap`, and `outside`: the share of the lesion's pixels that the
        output does not cover.
    """
    config = validated(RunConfig, "settings", {"image_size": study.image_size} | study.settings)

    def make(data: Catalog) -> pd.DataFrame:
        groups = splits.of(data, "grouped").set_index("name").group
        rows = []
        for row in data.lesions.itertuples():
            squeezed, aligned, whole = targets(union(row.masks[:1]), config)
            outside = 1 - aligned.sum() / whole.sum() if whole.any() else np.nan
            rows.append(
                {"image_class": row.image_class, "name": row.name, "group": groups[row.name]}
                | overlap(squeezed, aligned)
                | {"outside": outside}
            )
        return pd.DataFrame(rows)

    return experiments.gathered(study, "misalignment", make)


def table(per_image: pd.DataFrame) -> pd.DataFrame:
    """By class, and of all: means of what `measured` gives, with an interval of Dice.

    Returns:
        `images`, `n_images`, `dice` with `low` and `high`, `accuracy`, `background`, `outside`, and `unseen`: share of
        images of whose lesion the output sees nothing.
    """
    parts = {"all": per_image, **dict(list(per_image.groupby("image_class")))}
    rows = []
    for name, part in parts.items():
        found = statistics.interval(part.dice, part.group)
        means = part[["accuracy", "background", "outside"]].mean().to_dict()
        rows.append(
            {"images": name, "n_images": len(part), "dice": found.mean, "low": found.low, "high": found.high}
            | means
            | {"unseen": float((part.outside == 1).mean())}
        )
    return pd.DataFrame(rows)


def conclusion(table: pd.DataFrame | None, found: Runs) -> str:
    """What the misalignment costs.

    Args:
        table: As `table`.
        found: Runs on the squeezed and on the aligned target.
    """
    if table is None:
        return experiments.NOT_RUN
    row = table.iloc[0]
    verdict = "worse" if row.accuracy < row.background else "better"
    text = (
        f"The published target and the one that matches what the output sees have a Dice of {row.dice:.3f} "
        f"({row.low:.3f} to {row.high:.3f}): a segmenter without fault would reach accuracy {row.accuracy:.4f} under "
        f"the published target, {verdict} than {row.background:.4f} for background everywhere; {row.outside:.0%} of an "
        f"average lesion lies where the output does not reach"
    )
    return f"{text}; {_trained(found)}."


def _trained(found: Runs) -> str:
    if not all(found.get(label) for label in ("squeezed", "aligned")):
        return "a network on each target has not been trained yet"
    better = compare.difference(compare.lesions(found["squeezed"]), compare.lesions(found["aligned"]), "dice")
    config = found["aligned"][0].config
    return (
        f"trained on the aligned target in place of the squeezed one ({config.image_size} pixels, "
        f"{config.base_filters} filters, at most {config.epochs} epochs), the held-out Dice changes by "
        f"{compare.text(better)}"
    )
