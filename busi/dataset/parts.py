"""Images that a run is trained, validated and tested on, scaled and ready for the network."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from busi.config import RunConfig, StudyError
from busi.dataset.arrays import Arrays, all_arrays, published_arrays
from busi.dataset.catalog import Catalog, read_union
from busi.dataset.preprocessing import Scaling, fit_scaling, scale
from busi.dataset.splits import load_split


@dataclass(frozen=True)
class Parts:
    """Images of one run, scaled but not augmented.

    Attributes:
        training: Images to train on: all lesion images under the published protocol; under the held-out one the lesion
            images of the fold's training part, and its normal images if the configuration asks for them.
        validation: Lesion images of the fold's validation part; None under the published protocol.
        test: Lesion and normal images of the fold's test part, in the catalog's order; None under the published
            protocol.
        scaling: Constants that all parts are scaled by, computed from the training images alone.
    """

    training: Arrays
    validation: Arrays | None
    test: Arrays | None
    scaling: Scaling


def load_parts(config: RunConfig, catalog: Catalog) -> Parts:
    """Load the images of a run.

    Raises:
        StudyError: The data cannot be split into folds, or the file of the split is damaged.
    """
    if config.protocol == "published":
        # As published, nothing is held out: the run is scored on the images it is trained on.
        arrays = published_arrays(catalog, config)
        if config.order == "mixed":
            arrays = arrays.shuffled(config.seed)
        scaling = fit_scaling(arrays.images, config.preprocessing)
        return Parts(_scale(arrays, config, scaling), None, None, scaling)
    split = load_split(catalog, config.split)
    part = split[f"fold{config.fold}"]
    # Normal images are tested on, but trained on only if asked for, and never used to choose epoch or threshold.
    has_lesion = split.image_class != "normal"
    training = np.flatnonzero((part == "training") & (has_lesion | config.normals))
    validation = np.flatnonzero((part == "validation") & has_lesion)
    test = np.flatnonzero(part == "test")
    arrays = all_arrays(catalog, config)
    # From the training part alone, or the validation and test images would influence training.
    scaling = fit_scaling(arrays.images[training], config.preprocessing)
    scaled = _scale(arrays, config, scaling)
    return Parts(scaled[training], scaled[validation], scaled[test], scaling)


def _scale(arrays: Arrays, config: RunConfig, scaling: Scaling) -> Arrays:
    return replace(arrays, images=scale(arrays.images, config.preprocessing, scaling))


def read_truths(catalog: Catalog, names: Iterable[str]) -> list[np.ndarray]:
    """Read the union of the masks of each named image, bool (h, w) at the image's original size.

    Raises:
        StudyError: The data hold no image of a given name.
    """
    # Looked up by name, because a run stores its predictions in an order of its own.
    masks = dict(zip(catalog.table.name, catalog.table.masks, strict=True))
    truths = []
    for name in names:
        if name not in masks:
            raise StudyError(f"{name}: no image of this name; give the data that it was predicted from")
        truths.append(read_union(masks[name]))
    return truths
