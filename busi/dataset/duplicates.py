"""Near-duplicate images: BUSI holds frames of one scan, crops and relabelled copies, and no patient identifiers.

Two images are near-duplicates when both of their perceptual hashes (difference and average hash, 64 bits each) differ
in at most `DISTANCE` bits. A group is a connected component of that relation. The grouped split keeps it together.
"""

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from busi.dataset.catalog import Catalog, read_grey, remember

DISTANCE = 8
"""Largest number of bits, of 64, by which each hash of two near-duplicates may differ.

`count_distances` counts the larger of the two distances for all pairs of BUSI's images. True near-duplicates become
rarer towards 8, pairs that are alike by chance more frequent from 10 on, and 9 is the valley in between. The usual
bound of 2 misses more than a third of the images concerned.
"""

BITS = 64
"""Length of each hash."""


def find_groups(catalog: Catalog) -> np.ndarray:
    """Find the near-duplicate group of each row of ``catalog.table``, normals included.

    Returns:
        int (n,), numbered from 0 in order of first appearance. An image without near-duplicates has its own group.
    """
    related = hash_distances(catalog) <= DISTANCE
    _, groups = connected_components(related, directed=False)
    return groups


def hash_distances(catalog: Catalog) -> np.ndarray:
    """Compute the larger of the two hash distances of every pair of images, int (n, n), bits of 64."""
    # The fingerprint says which images these are, wherever the files lie.
    compute = remember(_hash_distances, ignore=["files"])
    return compute(list(catalog.table.image), catalog.fingerprint)


def count_distances(catalog: Catalog) -> pd.DataFrame:
    """Count the pairs of images at each distance.

    Returns:
        One row for each `distance` from 0 to 64 (bits, the larger of both hashes) with its number of `pairs`.
    """
    distances = hash_distances(catalog)
    # The matrix is symmetric: every pair is above the diagonal once.
    pairs = distances[np.triu_indices_from(distances, k=1)]
    counts = np.bincount(pairs, minlength=BITS + 1)
    return pd.DataFrame({"distance": range(len(counts)), "pairs": counts})


def _hash_distances(files: list[str], fingerprint: str) -> np.ndarray:
    images = [Image.fromarray(read_grey(file)) for file in files]
    difference = _bits_apart([imagehash.dhash(image) for image in images])
    average = _bits_apart([imagehash.average_hash(image) for image in images])
    return np.maximum(difference, average)


def _bits_apart(hashes: list[imagehash.ImageHash]) -> np.ndarray:
    bits = np.stack([each.hash.ravel() for each in hashes])
    share = cdist(bits, bits, "hamming")
    # SciPy gives the share of differing bits, which rounding errors keep from being a whole number of them.
    return np.rint(share * BITS).astype(int)
