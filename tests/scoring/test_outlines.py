"""Outlines of the best, median and worst case, by hand: a square lesion and what two predictions mark of it."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi.config import RunConfig
from busi.dataset.catalog import Catalog
from busi.runs import Run
from busi.scoring import outlines

CONFIG = RunConfig(protocol="heldout", image_size=32, padding="same")
NAMES = ["benign (1)", "benign (2)"]


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    """Images of 32 x 32 pixels with one lesion, 8 x 4 pixels around row 10 and column 14."""
    mask = np.zeros((32, 32), np.uint8)
    mask[6:14, 12:16] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    rows = {"name": NAMES, "masks": [[tmp_path / "mask.png"]] * 2}
    return Catalog(pd.DataFrame(rows), "f")


@pytest.fixture
def run(tmp_path) -> Run:
    """A run that marks a part of the first image's lesion and a spot apart, and nothing of the second one."""
    probability = np.zeros((2, 32, 32), np.float32)
    probability[0, 6:14, 12:14] = 1
    probability[0, 20:24, 20:24] = 1
    np.savez_compressed(tmp_path / "predictions.npz", test_names=np.array(NAMES), test_probability=probability)
    (tmp_path / "outcome.json").write_text(json.dumps({"threshold": 0.5}), encoding="utf-8")
    return Run(tmp_path, CONFIG)


def spans(table, line):
    """Return the ends of each outline of a line: left, right, top, bottom."""
    pieces = table[table.line == line].groupby("piece")
    return pieces[["x", "y"]].agg(["min", "max"]).to_numpy().tolist()


def test_the_lesion_lies_in_the_middle_at_one_size_and_the_prediction_with_it(run, catalog):
    table = outlines.trace_case(run, catalog, NAMES[0])
    assert list(table) == outlines.COLUMNS
    # Contours run half a pixel inside the edge of what is marked: 8 pixels high from centre to centre, 4 wide.
    assert spans(table, "truth") == [[-0.3, 0.3, -0.6, 0.6]]
    # The part is the left half of the lesion; the spot begins 14 pixels below its top.
    part, spot = spans(table, "prediction")
    assert part == [-0.3, 0.0, -0.6, 0.6]
    assert spot == [0.9, 1.5, 1.5, 2.1]


def test_a_prediction_of_nothing_has_no_outline(run, catalog):
    table = outlines.trace_case(run, catalog, NAMES[1])
    assert set(table.line) == {"truth"}


def test_a_lesion_too_small_to_be_seen_at_network_size_has_no_outlines(run, catalog, tmp_path):
    """4 x 4 pixels of 640 x 640 are a twenty-fifth of a pixel of the network's 32 x 32."""
    mask = np.zeros((640, 640), np.uint8)
    mask[100:104, 100:104] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert outlines.trace_case(run, catalog, NAMES[0]).empty


def test_cases_are_the_ends_and_the_lower_of_two_in_the_middle():
    images = pd.DataFrame({"name": list("abcdn"), "dice": [0.4, 0.9, 0.1, 0.4, np.nan]})
    chosen = {case: row["name"] for case, row in outlines.choose_cases(images).items()}
    # Of equal scores the first name, and normal images have no score.
    assert chosen == {"best": "b", "median": "a", "worst": "c"}
