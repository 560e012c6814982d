"""Layouts of data sets: which files of a folder are images, which are masks, and which belong together.

A layout consists of a pattern for an image's path and one for its masks' paths, both relative to the folder and without
suffix. Image and mask belong together if the parts that both patterns name are equal, never by the order of a listing.
"""

import csv
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from operator import itemgetter
from pathlib import Path
from unicodedata import normalize

from busi.dataset.decode import SUFFIXES, DataError
from busi.dataset.phantom import CLASSES

PAIRS = "pairs.csv"
"""Table of images and masks that takes precedence over the layouts if a folder holds one."""

LAYOUTS = {
    "busi": "{kind}/{key} | {kind}/{key}_mask{n}",
    "busi-folders": "{kind}/{images}/{key} | {kind}/{masks}/{key}{mask}",
    "bus-uclm": "{images}/{letters}_{number} | {masks}/{letters}_{number}",
    "bus-bra": "{images}/bus_{group}-{key} | {masks}/mask_{group}-{key}",
    "folders": "{images}/{key} | {masks}/{key}{mask}",  # UDIAT and many others
    "nnunet": "imagesTr/{key}_0000 | labelsTr/{key}",
    "stu": "Test_Image_{number} | mask_{number}",
    "breast": "case{number} | case{number}_tumor",
    "buid": "{folder}{number} {kind} Image | {folder}{number} {kind} Mask",
    "suffix": "{key} | {key}_mask{n}",
}
"""Patterns of images and masks by name; a more special layout comes before a general one that fits the same files."""

PLACEHOLDERS = {
    "key": r"(?P<key>[^/]+?)",
    "number": r"(?P<key>\d+)",
    "class": r"(?P<image_class>[^/]+?)",
    "kind": rf"(?P<image_class>{'|'.join(CLASSES)})",
    "group": r"(?P<group>[^/]+?)",
    "letters": r"(?P<group>(?-i:[A-Z][A-Z][A-Z][A-Z]))",
    "n": r"(_?\d+)?",
    "mask": r"(_mask(_\d+)?)?",
    "images": r"(images?|imgs?|original)",
    "masks": r"(masks?|labels?|gt|ground[ _]?truth)",
    "folder": r"([^/]+/)?",
}
"""Regular expressions for what is in braces in a layout; the named groups among them tie an image to its masks."""


@dataclass
class Manifest:
    """Images of a folder with their masks, unread.

    Attributes:
        layout: Name of the layout, its patterns, or the name of the table's file.
        rows: Images in the order of classes and names, each with `image` (path), `masks` (paths), `image_class` (lower
            case; empty if not known), `group` (patient; None if not known) and `name` (as the table gives it, else that
            of the image's file without suffix, in nnU-Net's layout also without the number of the channel).
        problems: Everything wrong with the folder, one line each.
        ignored: Image files that are neither image nor mask in this layout.
    """

    layout: str
    rows: list[dict]
    problems: list[str] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)


def pair_files(folder: Path, layout: str = "") -> Manifest:
    """Find the images of a folder and the masks of each.

    Args:
        folder: Holds the data set, its files at most three levels deep.
        layout: A name in `LAYOUTS`, a CSV file in ``folder``, or any other pair of patterns. If empty, `PAIRS` is read,
            or else the layout is detected from the files.

    Raises:
        DataError: The folder is missing, no layout fits, several do, or the given layout or table is faulty.
    """
    if not folder.is_dir():
        found = "a file, not a folder: unpack it and" if folder.exists() else "no such folder;"
        raise DataError(f"{folder}: {found} give the folder that holds the images")
    table = folder / (layout or PAIRS)
    if layout.endswith(".csv") or (not layout and table.is_file()):
        return _sort(_read_pairs(table))
    files, problems = _list_files(folder)
    if layout:
        manifest = _match(folder, files, layout)
        if not manifest.rows:
            raise DataError(f"{folder}: no image under layout {layout!r}; {_describe(folder, files)}")
    else:
        manifest = _detect(folder, files)
    manifest.problems[:0] = problems
    filled = {Path(row["image"]).relative_to(folder).parts[0] for row in manifest.rows}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.lower() in CLASSES and path.name not in filled:
            manifest.problems.append(f"{path}: no images; fill this folder or remove it")
    return _sort(manifest)


def is_clutter(name: str) -> bool:
    """Return whether a file or folder is a hidden one, or one that an archiver added."""
    return name.startswith(".") or name == "__MACOSX"


def _list_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the image files of a folder, and a problem for each path that only looks like one; skip hidden files."""
    files = []
    problems = []
    # Not `rglob`, which does not follow links to folders.
    for path in sorted(chain(folder.glob("*"), folder.glob("*/*"), folder.glob("*/*/*"))):
        skipped = any(map(is_clutter, path.relative_to(folder).parts))
        if skipped or path.suffix.lower() not in SUFFIXES:
            continue
        if path.is_file():
            files.append(path)
        else:
            kind = "a folder" if path.is_dir() else "a link that leads nowhere" if path.is_symlink() else "not a file"
            problems.append(f"{path}: {kind}; expected an image file: replace or remove it")
    return files, problems


def _compile(layout: str) -> tuple[re.Pattern, re.Pattern]:
    """Compile the patterns of image and mask of a layout, which is given by its name or by its patterns."""
    try:
        image, mask = map(_translate, LAYOUTS.get(layout, layout).split("|"))
        shared = image.groupindex.keys() & mask.groupindex.keys()
        is_whole = "key" in shared
    except (ValueError, re.error):  # not exactly two patterns, or a placeholder used twice
        is_whole = False
    # A brace that is left belongs to an unknown placeholder.
    if not is_whole or "{" in image.pattern + mask.pattern:
        raise DataError(
            f"layout: got {layout!r}; expected one of {', '.join(LAYOUTS)}, a CSV file in the data's folder, or two "
            "patterns with {key}, e.g. 'scans/{key} | outlines/{key}_lesion' (docs/datasets.md)"
        )
    return image, mask


def _translate(pattern: str) -> re.Pattern:
    text = re.escape(normalize("NFC", pattern.strip()))
    for name, expression in PLACEHOLDERS.items():
        text = text.replace(re.escape(f"{{{name}}}"), expression)
    return re.compile(text, re.IGNORECASE)


def _detect(folder: Path, files: list[Path]) -> Manifest:
    """Detect the only layout that pairs images with masks, and apply it; raise DataError if none or several do."""
    fitting: dict[str, Manifest] = {}
    found_images: list[set] = []
    for name in LAYOUTS:
        manifest = _match(folder, files, name)
        paired = {row["image"] for row in manifest.rows if row["masks"]}
        groups = {row["group"] for row in manifest.rows}
        # If all images have the same patient, their names only look like those of the layout.
        is_one_group = len(groups) == 1 and None not in groups
        # A more special layout has already found all of these images.
        is_general = any(paired <= images for images in found_images)
        if paired and not is_one_group and not is_general:
            fitting[name] = manifest
            found_images.append({row["image"] for row in manifest.rows})
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    if fitting:
        found = ", ".join(f"{name} ({len(manifest.rows)} images)" for name, manifest in fitting.items())
        raise DataError(
            f"{folder}: several layouts fit: {found}; say which with layout: NAME, or put the data sets into separate "
            "folders"
        )
    raise DataError(f"{folder}: no layout pairs images with masks; {_describe(folder, files)}")


def _describe(folder: Path, files: list[Path]) -> str:
    """Describe what a folder holds and what the user can do, for error messages."""
    paths = [file.relative_to(folder) for file in files]
    if not paths:
        return "found no image file; expected images with masks: give the folder that holds them"
    shown = ", ".join(map(str, paths[:3]))
    inner = {path.parts[0] for path in paths if len(path.parts) > 1}
    perhaps = f", perhaps one of its folders ({', '.join(sorted(inner))})" if inner else ""
    return (
        f"found {len(files)} image files ({shown}, ...); expected images with masks: give the folder that holds them"
        f"{perhaps}, or say how names are paired by a layout 'IMAGE | MASK' (docs/datasets.md)"
    )


def _match(folder: Path, files: list[Path], name: str) -> Manifest:
    """Pair the files of a folder by the named parts that the patterns of image and mask share."""
    image, mask = _compile(name)
    shared = sorted(image.groupindex.keys() & mask.groupindex.keys())
    manifest = Manifest(name, [])
    rows: dict[tuple, dict] = {}
    masks: dict[tuple, dict[str, str]] = defaultdict(dict)
    for file in files:
        # An "é" may be one character, or two as macOS writes it; normalized, both are the same name.
        path = normalize("NFC", file.relative_to(folder).with_suffix("").as_posix())
        as_mask = mask.fullmatch(path)
        matched = as_mask or image.fullmatch(path)
        if not matched:
            manifest.ignored.append(file)
            continue
        parts = matched.groupdict()
        # Names of classes may be in upper or lower case, but keys have to agree letter by letter.
        parts["image_class"] = parts.get("image_class", "").lower()
        key = tuple(parts[part] for part in shared)
        if as_mask:
            first = masks[key].setdefault(normalize("NFC", file.stem), str(file))
        else:
            row = _make_row(file, parts["image_class"], parts.get("group"))
            if name == "nnunet":
                # nnU-Net calls an image "x" whose first channel is in x_0000.png; so do its folds and its masks.
                row["name"] = parts["key"]
            first = rows.setdefault(key, row)["image"]
        if first != str(file):
            manifest.problems.append(f"{file}: named like {first}: remove one of them")
    _give_masks(rows, masks, manifest)
    manifest.rows = list(rows.values())
    return manifest


def _give_masks(rows: dict[tuple, dict], masks: dict[tuple, dict[str, str]], manifest: Manifest) -> None:
    """Enter the masks of each image into its row, and everything that does not fit into the problems."""
    expected = f"layout {manifest.layout} is {LAYOUTS.get(manifest.layout, manifest.layout)}"
    for key in sorted(masks.keys() - rows.keys()):
        orphan = min(masks[key].values())
        manifest.problems.append(f"{orphan}: mask without its image {key[-1]!r}; {expected}")
    for key, row in rows.items():
        # "x_mask" comes before "x_mask_1", whatever their suffixes.
        names = sorted(masks[key])
        row["masks"] = [masks[key][name] for name in names]
        if not names and row["image_class"] != "normal":
            manifest.problems.append(f"{row['image']}: no mask for {key[-1]!r}; {expected}")
        if names and names[0].endswith("_mask_1"):
            lost = names[0].removesuffix("_1")
            manifest.problems.append(
                f"{row['masks'][0]}: a further mask, but {lost} is not there: add it or rename this"
            )


def _read_pairs(table: Path) -> Manifest:
    """Pair the files that a table names. Paths start at its folder; an image with several masks has a line for each."""
    manifest = Manifest(table.name, [])
    rows: dict[Path, dict] = {}
    images: dict[Path, Path] = {}  # of masks
    for line, pair in _read_table(table):
        # Each path gets one spelling, because "./a.png" and "a.png" are the same image.
        image = Path(os.path.normpath(table.parent / pair["image"]))
        mask = Path(os.path.normpath(table.parent / pair["mask"]))
        row = _make_row(image, pair.get("class", "").lower(), pair.get("group") or None)
        row["name"] = normalize("NFC", pair.get("name", image.stem))
        problems = _check_pair(pair, image, mask)
        # A line whose files do not exist is not compared with others.
        if not problems:
            first = rows.setdefault(image, row)
            for column in ("image_class", "group", "name"):
                if row[column] != first[column]:
                    problems.append(f"{image} is {row[column]!r} here and {first[column]!r} above: correct one")
            if pair["mask"]:
                first["masks"].append(str(mask))
            elif first["image_class"] != "normal":
                problems.append("no mask; only an image of class normal may have none")
            elif first is not row:
                problems.append(f"{image} is above already: remove this line")
            if mask in images and pair["mask"]:
                problems.append(f"{mask} is the mask of {images[mask]} above: remove this line, or correct one")
            images[mask] = image
        manifest.problems += [f"{table}: line {line}: {problem}" for problem in problems]
    manifest.rows = list(rows.values())
    return manifest


def _check_pair(pair: dict[str, str], image: Path, mask: Path) -> list[str]:
    """Return what is wrong with the cells of one line, regardless of the other lines."""
    problems = []
    for column, file in (("image", image), ("mask", mask)):
        if not file.is_file() and (column == "image" or pair["mask"]):
            problems.append(f"{column} {pair[column]!r} is no file; expected an image: correct the path")
    # Files will be written under this name.
    if "name" in pair and not re.fullmatch(r"[^/\\:]+", pair["name"]):
        problems.append(f"name {pair['name']!r}; expected a file's name, without / \\ and colon: correct it")
    return problems


def _read_table(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Read a table with the columns `image` and `mask`, and optionally `class`, `group` (or `patient`) and `name`.

    Returns:
        The number of each line and its cells by column; missing ones are empty, "NA" and "001" stay as they are.

    Raises:
        DataError: The file is not a readable table, or its columns are not these.
    """
    if not table.is_file():
        raise DataError(f"{table}: no such file; expected a table with columns image, mask")
    try:
        text = table.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        # Separated by commas, semicolons or tabs, whichever the table uses.
        reader = csv.reader(text.split("\n"), delimiter=max(",;\t", key=head.count), strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table}: not a readable table ({error}); expected CSV with columns image, mask") from error
    names = [name.lower() for name in lines[0][1]] if lines else []
    columns = ["group" if name == "patient" else name for name in names]
    is_known = {"image", "mask"} <= set(columns) <= {"image", "mask", "class", "group", "name"}
    if not is_known or len(set(columns)) < len(columns):
        raise DataError(
            f"{table}: columns {', '.join(names) or 'none'}; expected image, mask and, if known, class, name, and "
            "group or patient, each once: rename or remove the others"
        )
    rows = []
    for line, cells in lines[1:]:
        if any(cells[len(columns) :]):
            raise DataError(
                f"{table}: line {line}: {len(cells)} cells, but {len(columns)} columns; expected no more: put quotes "
                "around a name that holds the separator"
            )
        # A short line lacks its last cells.
        cells = cells[: len(columns)]
        rows.append((line, dict(zip_longest(columns, cells, fillvalue=""))))
    return rows


def _make_row(image: Path, image_class: str, group: str | None) -> dict:
    # In one of its two Unicode forms, so that copies made on different systems have the same names.
    name = normalize("NFC", image.stem)
    return {"image": str(image), "masks": [], "image_class": image_class, "group": group, "name": name}


def _sort(manifest: Manifest) -> Manifest:
    """Sort the images by class and name, and add names that are used twice to the problems."""
    manifest.rows.sort(key=itemgetter("image_class", "name"))
    seen: dict[str, str] = {}
    for row in manifest.rows:
        # Predictions are stored by name, and names that differ only in case or encoding are one file on some systems.
        other = seen.setdefault(normalize("NFC", row["name"]).casefold(), row["image"])
        if other != row["image"]:
            manifest.problems.append(f"{row['image']}: {other} has the same name: rename one of them")
    return manifest
