"""Audit of a data set: how its files were read, where its lesions are and how bright, which images deserve a look.

What needs the pixels is measured once, for readers who do not have the data; all findings come from these measurements.
"""

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import distance_transform_edt, grey_opening

from busi.dataset.catalog import Catalog
from busi.dataset.decode import read_grey, read_image, read_union

SIDE = 48
"""Height and width of the mean mask in pixels."""

SMALL = 0.005
"""Share of the image below which a lesion is called small."""

COLOURED = 0.001
"""Share of coloured pixels from which on an image is said to hold colour."""

MARKED = 0.0015
"""Share of an image's pixels from which on thin white strokes are taken for text or calipers.

With BUSI's images sorted by their share, every thirteenth was looked at: all those above this value have marks; below
it, bright tissue begins to be included.
"""


def describe_files(catalog: Catalog) -> pd.DataFrame:
    """Describe how a data set's files were read.

    Returns:
        `what` ("layout", "groups", "masks" or "note"), `found` (in words), `count`, and the first five `files`.
    """
    table = catalog.table
    rows: list[tuple] = [("layout", catalog.layout, len(table), "")]
    patients = table.group.nunique()
    if patients:
        rows.append(("groups", "patients that the data set names", patients, ""))
    else:
        rows.append(("groups", "near-duplicates, because no patients are named", None, ""))
    rows += [("masks", encoding, count, "") for encoding, count in catalog.encodings.items()]
    for note, files in catalog.notes.groupby("note", sort=False).file:
        rows.append(("note", note, len(files), _shorten(files)))
    return pd.DataFrame(rows, columns=["what", "found", "count", "files"])


def describe_pixels(catalog: Catalog) -> pd.DataFrame:
    """Measure each image's pixels.

    Returns:
        One row for each image: `image_class`, `name`, `masks` (their number), `lesion_share`, `mean` (grey level, 0 to
        255), `coloured` and `marked` (shares of its pixels); for images with a lesion also `row` and `column` of the
        lesion's centre (0 to 1), `at_border` (whether it touches the image's border), `inside` and `ring` (mean grey
        levels of the lesion and of the band around it, half its radius wide).
    """
    rows = []
    for image in catalog.table.itertuples():
        pixels = read_grey(image.image)
        inside = read_union(image.masks)
        row = {"image_class": image.image_class, "name": image.name, "masks": len(image.masks)}
        row["lesion_share"] = image.lesion_share
        row["mean"] = pixels.mean()
        row["coloured"] = _share_colour(image.image)
        row["marked"] = _share_strokes(pixels)
        if inside.any():
            row |= _measure_lesion(pixels, inside)
        rows.append(row)
    columns = ["row", "column", "at_border", "inside", "ring"]
    table = pd.DataFrame(rows)
    # A data set of normal images alone gets the same columns.
    return table.reindex(columns=[*table.columns.drop(columns, errors="ignore"), *columns])


def _measure_lesion(pixels: np.ndarray, inside: np.ndarray) -> dict:
    height, width = inside.shape
    rows, columns = np.nonzero(inside)
    # The radius of a disc with the same area.
    radius = np.sqrt(len(rows) / np.pi)
    distance = distance_transform_edt(~inside)
    # Only a narrow band, because the lesion's shadow or enhancement lies farther behind it.
    near = distance <= max(1, radius / 2)
    ring = pixels[near & ~inside]
    borders = inside[0], inside[-1], inside[:, 0], inside[:, -1]
    return {
        "row": (rows.mean() + 0.5) / height,
        "column": (columns.mean() + 0.5) / width,
        "at_border": any(border.any() for border in borders),
        "inside": pixels[inside].mean(),
        "ring": ring.mean(),
    }


def _share_colour(file: str) -> float:
    """Return the share of pixels whose colour channels differ by more than compression can explain."""
    image = read_image(file)
    if image.mode not in ("RGB", "RGBA", "P"):
        return 0.0
    # A palette may hold only greys, so its colours are compared.
    channels = np.asarray(image.convert("RGB"))
    return float((np.ptp(channels, axis=-1) > 40).mean())


def _share_strokes(pixels: np.ndarray) -> float:
    """Return the share of pixels that belong to thin white strokes, far brighter than their surroundings."""
    # A letter's stroke is thinner than seven pixels, or than three in an image that was reduced to 128 pixels.
    width = min(7, 2 * (min(pixels.shape) // 100) + 1)
    background = grey_opening(pixels, size=(width, width))
    # The difference of unsigned pixels cannot wrap around: an opening is never brighter than the image.
    return float(((pixels > 200) & (pixels - background > 120)).mean())


def mean_mask(catalog: Catalog) -> pd.DataFrame:
    """Return the mean of all lesion masks, `SIDE` x `SIDE` numbers from 0 to 1: how often lesions cover each place."""
    masks = []
    for files in catalog.lesions.masks:
        mask = Image.fromarray(read_union(files)).convert("L")
        # A box filter averages the pixels under it, so that each number is a share of the area.
        small = mask.resize((SIDE, SIDE), Image.Resampling.BOX)
        masks.append(np.asarray(small) / 255)
    return pd.DataFrame(np.mean(masks, axis=0) if masks else np.zeros((SIDE, SIDE)))


def summarize_intensity(images: pd.DataFrame) -> pd.DataFrame:
    """Return each class's medians of `mean`, `inside` and `ring` of `describe_pixels`, and of their `contrast`.

    Contrast is the grey level inside the lesion minus that of the ring.
    """
    measured = images.assign(contrast=images.inside - images.ring)
    return measured.groupby("image_class", sort=False)[["mean", "inside", "ring", "contrast"]].median()


def find_faults(images: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Find images that deserve a look: one row for each `finding`, with the number of `images` and their `names`.

    Args:
        images: The table of `describe_pixels`.
        split: The `group` of each image in the same order, as in `busi.dataset.splits.make_split`.
    """
    groups = split.groupby("group")
    size = groups.name.transform("size")
    classes = groups.image_class.transform("nunique")
    is_small = images.lesion_share.between(0, SMALL, inclusive="right")
    findings = {
        "in a group with other images": size > 1,
        "in a group of several classes": classes > 1,
        "several masks": images.masks > 1,
        f"lesion under {SMALL:.1%} of the image": is_small,
        "lesion touches the border": images.at_border.eq(True),
        "lesion brighter than the band around it": images.inside > images.ring,
        "colour": images.coloured >= COLOURED,
        "burned-in text or calipers": images.marked >= MARKED,
    }
    rows = []
    for finding, found in findings.items():
        names = images.name[found]
        rows.append((finding, len(names), "; ".join(names)))
    return pd.DataFrame(rows, columns=["finding", "images", "names"])


def list_groups(split: pd.DataFrame) -> pd.DataFrame:
    """List the groups of several images: number of `images`, `classes`, `names`; groups of several classes first."""
    groups = split.groupby("group").agg(
        images=("name", "size"),
        classes=("image_class", lambda classes: ", ".join(sorted(set(classes)))),
        names=("name", "; ".join),
    )
    groups = groups[groups.images > 1]
    conflicts = groups.classes.str.contains(",")
    return pd.concat([groups[conflicts], groups[~conflicts]])


def shorten_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of findings with only the first five names in each row, for a page."""
    return table.assign(names=table.names.str.split("; ").map(_shorten))


def _shorten(names) -> str:
    names = list(names)
    return "; ".join(names[:5]) + ("; ..." if len(names) > 5 else "")
