"""Section 5: augmenting the image without its mask. A flipped image keeps its unflipped mask: how wrong is that?"""

import numpy as np
import pandas as pd

from busi.config import Study
from busi.dataset.arrays import union
from busi.dataset.catalog import Catalog
from busi.mechanisms import compare, experiments
from busi.study import Runs

BANDS = ("middle", "near the middle", "between", "near the side", "side")
"""Fifths of the images by how far the lesion's centre lies from the middle of the width."""


def noise(inside: np.ndarray) -> dict[str, float]:
    """What a flip of the image alone makes of its mask.

    Args:
        inside: The mask, bool (height, width), not empty.

    Returns:
        `wrong`: share of pixels with the wrong label where the image is flipped; half of it is expected, since half of
        the images are. `missed`: share of the flipped lesion's pixels that are labelled background. `offset`: distance
        of the lesion's centre from the middle of the width, 0 in the middle, 1 at a side.
    """
    flipped = inside[:, ::-1]
    centre = (np.nonzero(inside)[1].mean() + 0.5) / inside.shape[1]
    return {
        "wrong": float((inside != flipped).mean()),
        "missed": float((flipped & ~inside).sum() / inside.sum()),
        "offset": float(abs(2 * centre - 1)),
    }


def measured(study: Study) -> pd.DataFrame | None:
    """One row a lesion image: `image_class`, `name`, `lesion_share`, and those of `noise`."""

    def make(data: Catalog) -> pd.DataFrame:
        columns = ["image_class", "name", "lesion_share"]
        return data.lesions[columns].join(pd.DataFrame([noise(union(masks)) for masks in data.lesions.masks]))

    return experiments.gathered(study, "flips", make)


def table(per_image: pd.DataFrame) -> pd.DataFrame:
    """By `position` of the lesion, and all: `n_images`, `offset`, `wrong`, `expected` (half of it), `missed`."""
    fifths = pd.qcut(per_image.offset.rank(method="first"), len(BANDS), labels=BANDS)
    columns = ["offset", "wrong", "missed"]
    bands = per_image.groupby(fifths, observed=True)
    rows = pd.concat([bands[columns].mean().assign(n_images=bands.size()), _all(per_image, columns)])
    rows = rows.rename_axis("position").reset_index().assign(expected=lambda rows: rows.wrong / 2)
    return rows[["position", "n_images", "offset", "wrong", "expected", "missed"]]


def _all(per_image: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return per_image[columns].mean().to_frame("all").T.assign(n_images=len(per_image))


def conclusion(table: pd.DataFrame | None, found: Runs) -> str:
    """What moving the image and not its mask does.

    Args:
        table: As `table`.
        found: Runs of "image and mask" and "image alone".
    """
    if table is None:
        return experiments.NOT_RUN
    rows = table.set_index("position")
    text = (
        f"Where an image is flipped without its mask {rows.wrong['all']:.1%} of its pixels and "
        f"{rows.missed['all']:.0%} of its lesion carry the wrong label ({rows.missed[BANDS[0]]:.0%} of a lesion in the "
        f"middle, {rows.missed[BANDS[-1]]:.0%} of one at the side), that is {rows.expected['all']:.1%} of all pixels "
        "while training"
    )
    both = [compare.lesions(found[label]) for label in ("image and mask", "image alone") if found.get(label)]
    if len(both) < 2:
        return f"{text}; the two augmentations have not been run yet."
    change = compare.difference(*both, "dice")
    return f"{text}; leaving the mask behind changes the held-out Dice by {compare.text(change)}."
