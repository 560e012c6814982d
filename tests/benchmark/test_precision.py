"""What two precisions end with, against the runs themselves, trained here."""

import numpy as np
import pandas as pd
import pytest

from busi.benchmark import precision
from busi.config import Study
from busi.runs import Run


@pytest.fixture(scope="module")
def small(draw_quarters, tmp_path_factory):
    """A study of seconds: an epoch published, two of two folds held out, each from two seeds."""
    folder = tmp_path_factory.mktemp("precision")
    return Study(
        data_dir=str(draw_quarters(folder / "data")),
        runs_dir=str(folder / "runs"),
        image_size=188,
        base_filters=2,
        epochs=1,
        seeds=[0, 1],
        folds=[0, 1],
        heldout={"image_size": 32, "base_filters": 2, "epochs": 2},
    )


@pytest.fixture(scope="module")
def table(small):
    return precision.compared(small).set_index(["protocol", "score"])


def ended(study, protocol, policy):
    """The runs of one precision in the store."""
    configs = study.model_copy(
        update={"precision": policy, "variants": {"b": {}}, "heldout_variants": {"b": {}}}
    ).configs(protocol)["b"]
    labels = {config.label: config for config in configs}
    folders = (study.runs_path / protocol).glob("*/fold*-seed?-????????")
    runs = [Run(folder, labels[f"{protocol}/baseline/{folder.name[:-9]}"]) for folder in folders]
    return [run for run in runs if f'"{policy}"' in (run.folder / "config.json").read_text()]


def test_published_scores_are_means_over_the_seeds(small, table):
    for name, policy in precision.POLICIES.items():
        runs = ended(small, "published", policy)
        assert len(runs) == table.n["published", "loss, training"] == 2
        for when in ("training", "still"):
            expected = np.mean([run.metrics[when]["loss"] for run in runs])
            assert table[name]["published", f"loss, {when}"] == pytest.approx(expected, rel=1e-12)


def test_held_out_images_are_compared_with_themselves(small, table):
    single, half = (
        pd.concat([run.per_image for run in ended(small, "heldout", policy)]).query("image_class != 'normal'")
        for policy in precision.POLICIES.values()
    )
    # Two folds of 34 images, each image in one of them, scored after each of two seeds.
    assert table.n["heldout", "dice"] == single.name.nunique() == len(single) / 2
    for score in precision.SCORES:
        row = table.loc["heldout", score]
        differences = half.groupby("name")[score].mean() - single.groupby("name")[score].mean()
        assert row.difference == pytest.approx(differences.mean(), abs=1e-12)
        assert row.bfloat16 - row.float32 == pytest.approx(row.difference, abs=1e-12)
        assert row.low <= row.difference <= row.high


def test_the_precisions_are_not_the_same(table):
    assert 0 < abs(table.difference["published", "loss, training"]) < 0.01


def test_a_second_measurement_finds_the_runs(small, table):
    before = {file: file.stat().st_mtime_ns for file in small.runs_path.rglob("*.h5")}
    again = precision.compared(small).set_index(["protocol", "score"])
    pd.testing.assert_frame_equal(again, table)
    assert {file: file.stat().st_mtime_ns for file in small.runs_path.rglob("*.h5")} == before
