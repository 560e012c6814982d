"""Near-duplicate images: BUSI holds frames of one scan, crops and relabelled copies, and no patient identifiers.

Two images are near-duplicates if both of their perceptual hashes (difference and average hash, 64 bits each) differ in
at most `DISTANCE` bits, or if the middle of one is found in the other with a correlation of `MATCH` or more. The hashes
find copies at another scale. They resize whole images to a square, so that a crop has another hash; the match finds
crops. Both find mirrored copies too, but BUSI has none. A group is a connected component of this relation, and the
grouped split keeps each group together.

All pairs of BUSI that this rule finds, and those that it just misses, have been looked at. For BUSI, the list of these
pairs with their verdicts, `pairs_file`, replaces the rule. It also has pairs that only the eye can find: other frames
of the same lesion.
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
from busi.dataset.catalog import Catalog, read_grey, read_named, remember

DISTANCE = 8
"""Largest number of bits, of 64, in which each hash of two near-duplicates may differ.

`count_distances` counts the pairs of BUSI's images by the larger of their two distances. Towards 8, true
near-duplicates become rarer; from 9 on, pairs that are alike by chance become more frequent. All 213 pairs of BUSI up
to 8 are frames of one scan or one lesion. The usual limit of 2 misses more than a third of the images concerned.
"""

BITS = 64
"""Length of each hash in bits."""

MATCH = 0.95
"""Lowest correlation between the middle of one near-duplicate and its best place in the other.

All 147 pairs of BUSI at or above it are frames of one scan or one lesion. Most of those between 0.92 and 0.95 that are
not tied by a hash are alike by chance: bright above and dark below.
"""

BLOCK = 8
"""Side in pixels of the blocks that are averaged before the match, so that it compares tissue, not speckle."""

MARGIN = 0.2
"""Share of height and width cut off at each side of an image; the remaining middle is searched for in the others."""

BATCH = 40
"""Number of images that are searched at once."""

VERDICTS = ("same scan", "same lesion", "different")
"""Verdicts of the eye on a pair. "Same lesion" means two frames of it, or of one place in a breast without a lesion.

If in doubt, a pair is called the same, because a pair joined wrongly costs nothing, but one separated wrongly leaks.
"""

_HEAD = "# data "


def group_images(catalog: Catalog) -> np.ndarray:
    """Return the group of each row of ``catalog.table``, normals included: by patient, else by near-duplicates.

    Returns:
        int (n,), numbered from 0 in order of first appearance. An image without near-duplicates is a group of its own.
    """
    patients = catalog.table.group
    if patients.notna().any():
        # An image without a named patient is a group of its own, even if its name is that of a patient.
        return pd.factorize(patients.fillna("no patient, image " + catalog.table.name))[0]
    listed = read_pairs(catalog)
    pairs = find_pairs(catalog) if listed is None else listed[listed.verdict != "different"]
    names = pd.Index(catalog.table.name)
    ends = names.get_indexer(pairs.image_a), names.get_indexer(pairs.image_b)
    links = coo_array((np.ones(len(pairs)), ends), shape=(len(names), len(names)))
    _, groups = connected_components(links, directed=False)
    return groups


def find_pairs(catalog: Catalog) -> pd.DataFrame:
    """Find all pairs of near-duplicates by hash and match, without using the list.

    Returns:
        One row for each pair: `image_a`, `image_b` (names), `score` (correlation, -1 to 1), `found_by` ("hash" if the
        hashes find it, whether or not the match does, else "match").
    """
    by_hash = hash_distances(catalog) <= DISTANCE
    scores = match_scores(catalog)
    is_pair = by_hash | (scores >= MATCH)
    # Both matrices are symmetric, so every pair is above the diagonal once.
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
    """Read the list of pairs that have been looked at; None if there is no list for these images.

    Returns:
        `image_a`, `image_b` and `score` as in `find_pairs`; `verdict`, one of `VERDICTS`; and `found_by`: "hash" or
        "match" as in `find_pairs`, "scale" for a match after one image was shrunk by a factor of 1.2, or "eye". For
        images that the hashes do not put into one group, "match" includes lower scores: from 0.92 on, or from 0.88 on
        between neighbouring numbers of a class.

    Raises:
        StudyError: The list names an image that does not exist, or a verdict that is not in `VERDICTS`.
    """
    path = pairs_file()
    if not path.is_file():
        return None
    head, _, table = path.read_text(encoding="utf-8").partition("\n")
    if head != _HEAD + catalog.fingerprint:
        return None
    pairs = read_named(io.StringIO(table), texts=("image_a", "image_b"))
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
    """Return the path of the list of BUSI's pairs that have been looked at."""
    return find_study_folder() / "params" / "near-duplicates.csv"


def hash_distances(catalog: Catalog) -> np.ndarray:
    """Compute the larger of the two hash distances of every pair of images, int (n, n), in bits of 64.

    One image of each pair is also compared mirrored, and the smaller distance counts.
    """
    # The fingerprint identifies the images, wherever their files are.
    compute = remember(_hash_distances, ignore=["files"])
    return compute(list(catalog.table.image), catalog.fingerprint)


def match_scores(catalog: Catalog) -> np.ndarray:
    """Compute how well the middle of one image is found in the other, float32 (n, n), -1 to 1, at native pixel scale.

    The score of a pair is the best over both directions, and over the middle and its mirror image. BUSI's 304,000 pairs
    take 80 seconds on one core; the result is cached.
    """
    compute = remember(_match_scores, ignore=["files"])
    return compute(list(catalog.table.image), catalog.fingerprint)


def count_distances(catalog: Catalog) -> pd.DataFrame:
    """Count the pairs of images at each distance.

    Returns:
        One row for each `distance` from 0 to 64 (bits, the larger one of the two hashes) with its number of `pairs`.
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
    # Mirroring one image or the other may give distances that differ by a bit: the smaller one counts.
    return np.minimum(straight, np.minimum(flipped, flipped.T))


def _bits(make_hash, images: list[Image.Image]) -> np.ndarray:
    return np.stack([make_hash(image).hash.ravel() for image in images])


def _bits_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return cdist(one, other, "cityblock").astype(int)


def _match_scores(files: list[str], fingerprint: str) -> np.ndarray:
    images = [_shrink(read_grey(file)) for file in files]
    middles = [_cut_middle(image) for image in images]
    scores = np.empty((len(images), len(images)), np.float32)
    # Images of similar size are searched together, because all of a batch are padded to the largest one.
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

    The results equal those of `skimage.feature.match_template`, which would transform an image anew for every template.

    Args:
        templates: float32 (h, w) each.
        images: float32 (h, w) each.

    Returns:
        float32 (templates, images), -1 to 1; -1 where the template is larger than the image, or flat.
    """
    heights, widths = zip(*(image.shape for image in images), strict=True)
    size = [fft.next_fast_len(max(sides), real=True) for sides in (heights, widths)]
    # Places beyond an image's own pixels give NaN and are ignored.
    padded = np.full((len(images), *size), np.nan, np.float32)
    for place, image in zip(padded, images, strict=True):
        # With a mean of zero, rounding errors of the transform are smallest.
        place[: image.shape[0], : image.shape[1]] = image - image.mean()
    spectra = fft.rfft2(np.nan_to_num(padded))
    sums, squares = _integrate(padded), _integrate(padded**2)
    best = np.full((len(templates), len(images)), -1, np.float32)
    for number, template in enumerate(templates):
        height, width = template.shape
        if height > max(heights) or width > max(widths):
            continue
        centred = template - template.mean()
        energy = np.sum(centred**2)
        # A flat template, such as the middle of a black image, is found nowhere.
        if energy == 0:
            continue
        straight = _overlap(spectra, centred, size)
        mirrored = _overlap(spectra, centred[:, ::-1], size)
        window_sums = _window(sums, height, width)
        spread = _window(squares, height, width) - window_sums**2 / template.size
        # Nothing is found where the image is flat, that is, deviates from its mean by less than one grey level.
        spread[spread < template.size] = np.nan
        correlation = np.maximum(straight, mirrored) / np.sqrt(spread * energy)
        best[number] = np.fmax.reduce(correlation, axis=(1, 2), initial=-1)
    return best


def _overlap(spectra: np.ndarray, template: np.ndarray, size: list[int]) -> np.ndarray:
    """Sum the products of a template and each image at every place where the template lies within ``size``."""
    height, width = template.shape
    spectrum = fft.rfft2(template, size)
    # A correlation is the product of one spectrum with the conjugate of the other.
    products = fft.irfft2(spectra * np.conj(spectrum), size)
    return products[:, : size[0] - height + 1, : size[1] - width + 1]


def _integrate(images: np.ndarray) -> np.ndarray:
    """Compute the integral of each image: sums over all pixels above and to the left, with a border of zeros first."""
    bordered = np.pad(images.astype(float), ((0, 0), (1, 0), (1, 0)))
    return bordered.cumsum(axis=1).cumsum(axis=2)


def _window(integral: np.ndarray, height: int, width: int) -> np.ndarray:
    """Sum the pixels of every window of ``height`` x ``width``, from the integral of each image."""
    below, above = integral[:, height:], integral[:, :-height]
    return below[:, :, width:] - below[:, :, :-width] - above[:, :, width:] + above[:, :, :-width]
