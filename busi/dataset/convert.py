"""Data sets and folds in the forms that other software reads."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image

from busi.config import FOLDS, StudyError
from busi.dataset.catalog import Catalog, read_grey, read_union
from busi.dataset.folders import new_folder
from busi.dataset.splits import PARTS

SPLIT_FILES = {"csv": "splits.csv", "json": "splits.json", "nnunet": "splits_final.json"}
"""Usual name of the file of folds in each format."""


def format_split(split: pd.DataFrame, form: Literal["csv", "json", "nnunet"]) -> str:
    """Return the folds of a split as the text of a file.

    Args:
        split: The table of `busi.dataset.splits.make_split`.
        form: "csv" has one row for each image: its class, name, near-duplicate group and part in each fold. "json" is a
            list with, for each fold, the names of the images in each of `PARTS`. "nnunet" is nnU-Net's
            ``splits_final.json``, in which `val` is the test part and `train` all the rest.
    """
    if form == "csv":
        return split.drop(columns="stratum").to_csv(index=False)
    folds = []
    for fold in range(FOLDS):
        names = split.name.groupby(split[f"fold{fold}"]).apply(list)
        parts = {part: names.get(part, []) for part in PARTS}
        if form == "nnunet":
            # nnU-Net chooses nothing on a validation part.
            training = sorted(parts["training"] + parts["validation"])
            parts = {"train": training, "val": parts["test"]}
        folds.append(parts)
    return json.dumps(folds, indent=1, ensure_ascii=False) + "\n"


def write_split(split: pd.DataFrame, form: str, file: Path) -> Path:
    """Write the folds of a split in a form of `format_split`, and return the file.

    Raises:
        StudyError: The file exists.
    """
    if file.exists():
        raise StudyError(f"{file}: exists; nothing is overwritten: give another file")
    file.write_text(format_split(split, form), encoding="utf-8")
    return file


def convert_catalog(catalog: Catalog, out: Path, layout: Literal["images-masks", "nnunet"]) -> Path:
    """Write a data set as grey PNG images with one mask of the same size each into ``out``, and return that folder.

    Args:
        catalog: The images; several masks of one image are merged.
        out: New folder.
        layout: "images-masks" writes ``images/<name>.png`` and ``masks/<name>.png`` (255 inside). "nnunet" writes a raw
            data set of nnU-Net 2: ``imagesTr/<name>_0000.png``, ``labelsTr/<name>.png`` (1 inside), ``dataset.json``.

    Raises:
        StudyError: ``out`` exists or cannot be made.
    """
    with new_folder(out) as folder:
        _write_images(catalog, folder, is_nnunet=layout == "nnunet")
    return out


def _write_images(catalog: Catalog, folder: Path, *, is_nnunet: bool) -> None:
    images, masks, inside = ("imagesTr", "labelsTr", 1) if is_nnunet else ("images", "masks", 255)
    channel = "_0000" if is_nnunet else ""
    for name in (images, masks):
        (folder / name).mkdir(parents=True)
    for row in catalog.table.itertuples():
        image = Image.fromarray(read_grey(row.image))
        # In labels for nnU-Net 1 means lesion; other training software expects 255.
        mask = read_union(row.masks).astype(np.uint8) * np.uint8(inside)
        image.save(folder / images / f"{row.name}{channel}.png")
        Image.fromarray(mask).save(folder / masks / f"{row.name}.png")
    if is_nnunet:
        described = {
            "channel_names": {"0": "ultrasound"},
            "labels": {"background": 0, "lesion": 1},
            "numTraining": len(catalog.table),
            "file_ending": ".png",
        }
        (folder / "dataset.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
