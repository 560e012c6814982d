"""What two precisions end with, checked against the runs themselves, trained here."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import precision
from busi import study
from busi.config import Parameters
from busi.dataset.catalog import load_catalog
from busi.scoring.scores import find_or_score

pytestmark = pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")


@pytest.fixture(scope="module")
def small(quarters_dir, tmp_path_factory):
    """Parameters of a study of seconds: one published epoch, one of five folds held out, both from two seeds."""
    folder = tmp_path_factory.mktemp("precision")
    return Parameters(
        data_dir=str(quarters_dir),
        runs_dir=str(folder / "runs"),
        image_size=188,
        base_filters=2,
        epochs=1,
        seeds=[0, 1],
        folds=[0],
        heldout_seeds=[0, 1],
        heldout={"image_size": 32, "base_filters": 2, "epochs": 2},
    )


@pytest.fixture(scope="module")
def table(small):
    return precision.compare(small).set_index(["protocol", "score"])


def read_runs(parameters, protocol, policy):
    """Read the runs of one precision from the store."""
    only = {"precision": policy, "variants": {"b": {}}, "heldout_variants": {"b": {}}}
    parameters = parameters.model_copy(update=only)
    store = study.open_store(parameters, load_catalog(parameters))
    return [store.find(config) for config in parameters.configs(protocol)["b"]]


def test_published_scores_are_means_over_the_seeds(small, table):
    for name, policy in precision.POLICIES.items():
        runs = read_runs(small, "published", policy)
        assert len(runs) == table.n["published", "loss, training"] == 2
        for when in ("training", "still"):
            expected = np.mean([run.outcome[when]["loss"] for run in runs])
            assert table[name]["published", f"loss, {when}"] == pytest.approx(expected, rel=1e-12)


def test_held_out_images_are_compared_with_themselves(small, table):
    images = load_catalog(small)
    scored = {}
    for name, policy in precision.POLICIES.items():
        runs = read_runs(small, "heldout", policy)
        tables = [find_or_score(run, images).images for run in runs]
        scored[name] = pd.concat(tables).query("image_class != 'normal'")
    single, half = scored["float32"], scored["bfloat16"]
    # Each image of the fold is scored after each of two seeds.
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
    again = precision.compare(small).set_index(["protocol", "score"])
    pd.testing.assert_frame_equal(again, table)
    assert {file: file.stat().st_mtime_ns for file in small.runs_path.rglob("*.h5")} == before
