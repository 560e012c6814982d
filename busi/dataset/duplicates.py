"""Near-duplicate images: BUSI holds frames of one scan, crops and relabelled copies, and no patient identifiers.

Two images are near-duplicates when both of their perceptual hashes (difference and average hash, 64 bits each) differ
in at most `DISTANCE` bits, or when the middle of one is found in the other with a correlation of `MATCH` or more. The
hashes find copies at another scale, the match finds crops: hashes resize whole images to a square, so that a crop has
another hash. Either may be mirrored; of BUSI's none is. A group is a connected component of that relation. The grouped
split keeps it together.

All pairs of BUSI that this rule finds have been looked at, and those just below it. The list with the verdicts,
`pairs_file`, takes the place of the rule there. It adds what only the eye finds: other frames of one lesion.
"""

import io
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy import fft
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from busi.config import StudyError, find_study_folder
from busi.dataset.catalog import Catalog, read_grey, remember

DISTANCE = 8
"""Largest number of bits, of 64, by which each hash of two near-duplicates may differ.

`count_distances` counts the larger of the two distances for all pairs of BUSI's images. True near-duplicates become
rarer towards 8, and pairs that are alike by chance more frequent from 9 on. All 213 pairs of BUSI up to 8 are frames of
one scan or one lesion. The usual bound of 2 misses more than a third of the images concerned.
"""

BITS = 64
"""Length of each hash."""

MATCH = 0.95
"""Least correlation between the middle of one near-duplicate and its best place in the other.

All 147 pairs of BUSI from here on are frames of one scan or one lesion. Of those between 0.92 and 0.95 that no hash
ties, most are alike by chance: bright above and dark below.
"""

BLOCK = 8
"""Side in pixels of the blocks that are averaged before the match: it compares tissue, not speckle."""

MARGIN = 0.2
"""Share of the height and width that is cut off each side of an image before it is looked for in the others."""

BATCH = 40
"""Images that are searched at once."""

VERDICTS = ("same scan", "same lesion", "different")
"""What the eye makes of a pair. "Same lesion" is another frame of it, or of one place in a breast without a lesion.

If in doubt, a pair is called the same: joined wrongly it costs nothing, separated wrongly it leaks.
"""

_HEAD = "# data "


def group_images(catalog: Catalog) -> np.ndarray:
    """Find the group of each row of ``catalog.table``, normals included: its patient's, else its near-duplicates'.

    Returns:
        int (n,), numbered from 0 in order of first appearance. An image without near-duplicates has its own group.
    """
    patients = catalog.table.group
    if patients.notna().any():
        # An image whose patient is not named is a group of its own.
        return pd.factorize(patients.fillna(catalog.table.name))[0]
    listed = read_pairs(catalog)
    pairs = find_pairs(catalog) if listed is None else listed[listed.verdict != "different"]
    names = pd.Index(catalog.table.name)
    ends = names.get_indexer(pairs.image_a), names.get_indexer(pairs.image_b)
    links = coo_array((np.ones(len(pairs)), ends), shape=(len(names), len(names)))
    _, groups = connected_components(links, directed=False)
    return groups


def find_pairs(catalog: Catalog) -> pd.DataFrame:
    """Find all pairs of near-duplicates by hash and match, without a list.

    Returns:
        One row for each pair: `image_a`, `image_b` (names), `score` (correlation, -1 to 1), `found_by` ("hash" if both
        find it, else "match").
    """
    by_hash = hash_distances(catalog) <= DISTANCE
    scores = match_scores(catalog)
    is_pair = by_hash | (scores >= MATCH)
    # Both matrices are symmetric: every pair is above the diagonal once.
    first, second = np.nonzero(np.triu(is_pair, k=1))
    names = catalog.table.name.to_numpy()
    return pd.DataFrame(
        {
            "image_a": names[first],
            "image_b": names[second],
            "score": scores[first, second],
            "found_by": np.where(by_hash[first, second], "hash", "match"),
        }
    )


def read_pairs(catalog: Catalog) -> pd.DataFrame | None:
    """Read the list of pairs that have been looked at; None if there is none for these images.

    Returns:
        `image_a`, `image_b` and `score` as `find_pairs`. `found_by`: "hash" or "match" as there, where hashes tie the
        images to no common group also "match" from 0.92 on, from 0.88 on between neighbouring numbers of a class;
        "scale" by a match after one was shrunk by 1.2, "eye" by looking. `verdict`: one of `VERDICTS`.

    Raises:
        StudyError: The list names an image that does not exist, or a verdict that is none.
    """
    path = pairs_file()
    if not path.is_file():
        return None
    head, _, table = path.read_text(encoding="utf-8").partition("\n")
    if head != _HEAD + catalog.fingerprint:
        return None
    pairs = pd.read_csv(io.StringIO(table))
    named = pd.concat([pairs.image_a, pairs.image_b])
    is_image = named.isin(catalog.table.name)
    is_verdict = pairs.verdict.isin(VERDICTS)
    unknown = [*named[~is_image], *pairs.verdict[~is_verdict]]
    if unknown:
        raise StudyError(
            f"{path}: got {unknown[0]!r}; expected names of the data's images and the verdicts {', '.join(VERDICTS)}: "
            "restore the file (git checkout)"
        )
    return pairs


def pairs_file() -> Path:
    """Return the file of BUSI's pairs that have been looked at."""
    return find_study_folder() / "params" / "near-duplicates.csv"


def hash_distances(catalog: Catalog) -> np.ndarray:
    """Compute the larger of the two hash distances of every pair of images, int (n, n), bits of 64.

    Of an image and its mirror image, the nearer one counts.
    """
    # The fingerprint says which images these are, wherever the files lie.
    compute = remember(_hash_distances, ignore=["files"])
    return compute(list(catalog.table.image), catalog.fingerprint)


def match_scores(catalog: Catalog) -> np.ndarray:
    """Compute how well the middle of one image is found in the other, float32 (n, n), -1 to 1, at native pixel scale.

    Of both directions, and of the middle and its mirror image, the best one counts. BUSI's 304,000 pairs take one
    processor 80 seconds; the result is cached.
    """
    compute = remember(_match_scores, ignore=["files"])
    return compute(list(catalog.table.image), catalog.fingerprint)


def count_distances(catalog: Catalog) -> pd.DataFrame:
    """Count the pairs of images at each distance.

    Returns:
        One row for each `distance` from 0 to 64 (bits, the larger of both hashes) with its number of `pairs`.
    """
    distances = hash_distances(catalog)
    above = np.triu_indices_from(distances, k=1)
    pairs = distances[above]
    counts = np.bincount(pairs, minlength=BITS + 1)
    return pd.DataFrame({"distance": range(len(counts)), "pairs": counts})


def _hash_distances(files: list[str], fingerprint: str) -> np.ndarray:
    images = [Image.fromarray(read_grey(file)) for file in files]
    mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    distances = []
    for make_hash in (imagehash.dhash, imagehash.average_hash):
        hashes = _bits(make_hash, images)
        others = _bits(make_hash, mirrored)
        distances.append([_bits_apart(hashes, hashes), _bits_apart(hashes, others)])
    straight, flipped = np.max(distances, axis=0)
    # A mirrored hash is not always the hash of the mirrored image: the two directions may differ by a bit.
    return np.minimum(straight, np.minimum(flipped, flipped.T))


def _bits(make_hash, images: list[Image.Image]) -> np.ndarray:
    return np.stack([make_hash(image).hash.ravel() for image in images])


def _bits_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    share = cdist(one, other, "hamming")
    # SciPy gives the share of differing bits, which rounding errors keep from being a whole number of them.
    return np.rint(share * BITS).astype(int)


def _match_scores(files: list[str], fingerprint: str) -> np.ndarray:
    images = [_shrink(read_grey(file)) for file in files]
    middles = [_cut_middle(image) for image in images]
    scores = np.empty((len(images), len(images)), np.float32)
    # Images of similar size are searched together: all are padded to the largest of them.
    sides = [max(image.shape) for image in images]
    order = np.argsort(sides, kind="stable")
    for batch in np.split(order, range(BATCH, len(order), BATCH)):
        scores[:, batch] = find_best_places(middles, [images[row] for row in batch])
    return np.maximum(scores, scores.T)


def _shrink(pixels: np.ndarray) -> np.ndarray:
    height, width = (side // BLOCK for side in pixels.shape)
    whole = pixels[: height * BLOCK, : width * BLOCK]
    blocks = whole.reshape(height, BLOCK, width, BLOCK)
    return blocks.mean(axis=(1, 3)).astype(np.float32)


def _cut_middle(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    top, left = round(MARGIN * height), round(MARGIN * width)
    return image[top : height - top, left : width - left]


def find_best_places(templates: list[np.ndarray], images: list[np.ndarray]) -> np.ndarray:
    """Compute the largest normalized correlation of each template, or its mirror image, with each image.

    The same numbers as from `skimage.feature.match_template`, which would transform an image anew for every template.

    Args:
        templates: float32 (h, w) each, not constant.
        images: float32 (h, w) each.

    Returns:
        float32 (templates, images), -1 to 1; -1 where the template is larger than the image.
    """
    heights, widths = zip(*(image.shape for image in images), strict=True)
    size = [fft.next_fast_len(max(sides), real=True) for sides in (heights, widths)]
    # Beyond an image's own pixels a place is no number, and is not counted.
    padded = np.full((len(images), *size), np.nan, np.float32)
    for place, image in zip(padded, images, strict=True):
        # Around zero, rounding errors of the transform are smallest.
        place[: image.shape[0], : image.shape[1]] = image - image.mean()
    spectra = fft.rfft2(np.nan_to_num(padded))
    sums, squares = _integrate(padded), _integrate(padded**2)
    best = np.full((len(templates), len(images)), -1, np.float32)
    for number, template in enumerate(templates):
        height, width = template.shape
        if height > max(heights) or width > max(widths):
            continue
        centred = template - template.mean()
        straight = _overlap(spectra, centred, size)
        mirrored = _overlap(spectra, centred[:, ::-1], size)
        window_sums = _window(sums, height, width)
        spread = _window(squares, height, width) - window_sums**2 / template.size
        # Nothing is found where the image is flat: less than one grey level around its mean.
        spread[spread < template.size] = np.nan
        energy = np.sum(centred**2)
        correlation = np.maximum(straight, mirrored) / np.sqrt(spread * energy)
        best[number] = np.fmax.reduce(correlation, axis=(1, 2), initial=-1)
    return best


def _overlap(spectra: np.ndarray, template: np.ndarray, size: list[int]) -> np.ndarray:
    """Sum the products of a template with each image at every place where it lies within ``size``."""
    height, width = template.shape
    spectrum = fft.rfft2(template, size)
    # A correlation is a convolution with the conjugate.
    products = fft.irfft2(spectra * np.conj(spectrum), size)
    return products[:, : size[0] - height + 1, : size[1] - width + 1]


def _integrate(images: np.ndarray) -> np.ndarray:
    """Sum each image from its first pixel to every other; a border of zeros comes first."""
    bordered = np.pad(images.astype(float), ((0, 0), (1, 0), (1, 0)))
    return bordered.cumsum(axis=1).cumsum(axis=2)


def _window(integral: np.ndarray, height: int, width: int) -> np.ndarray:
    """Sum the pixels of every window of a size."""
    below, above = integral[:, height:], integral[:, :-height]
    return below[:, :, width:] - below[:, :, :-width] - above[:, :, width:] + above[:, :, :-width]
