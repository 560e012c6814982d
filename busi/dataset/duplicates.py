"""Near-duplicate images: BUSI holds frames of one scan, crops and relabelled copies, and no patient identifiers.

Two images are near-duplicates when both of their perceptual hashes (difference and average hash, 64 bits each) differ
in at most `DISTANCE` bits. A group is a connected component of that relation and never straddles a split.
"""

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from busi.dataset.catalog import Catalog, grey, memory

DISTANCE = 8
"""Bits of 64 by which each hash of two near-duplicates may differ.

The larger of a pair's two distances is counted for all pairs of BUSI's images by `distances`: true near-duplicates fall
off towards 8, pairs that are alike by chance rise from 10 on, and 9 is the valley between. A bound of 2, the usual one,
misses more than a third of the images concerned.
"""


def groups(catalog: Catalog) -> np.ndarray:
    """The near-duplicate group of each row of ``catalog.table``, normals included.

    Returns:
        int (n,), numbered from 0 in the order of first appearance; an image without near-duplicates is a group alone.
    """
    return connected_components(distances(catalog) <= DISTANCE, directed=False)[1]


def distances(catalog: Catalog) -> np.ndarray:
    """The larger of the two hash distances of every pair of images, int (n, n), bits of 64."""
    return memory().cache(_distances, ignore=["files"])(list(catalog.table.image), catalog.fingerprint)


def _distances(files: list[str], fingerprint: str) -> np.ndarray:
    images = [Image.fromarray(grey(file)) for file in files]
    kinds = (imagehash.dhash, imagehash.average_hash)
    return np.maximum.reduce([_bits_apart([kind(image) for image in images]) for kind in kinds])


def _bits_apart(hashes: list[imagehash.ImageHash]) -> np.ndarray:
    bits = np.stack([each.hash.ravel() for each in hashes])
    return np.rint(cdist(bits, bits, "hamming") * bits.shape[1]).astype(int)
