"""The runs of a study that trains nothing: read from what a report has gathered."""

import shutil

import pytest

from busi import config, runs, study
from busi.config import Study, StudyError

REPOSITORY = config.ROOT
METRICS = {"training": {"loss": 0.3}, "still": {"loss": 0.25}, "images": 10, "seconds": 1.5}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A repository without data, runs and reports."""
    monkeypatch.setattr(config, "ROOT", tmp_path)


def two_losses(**settings):
    variants = {"KLD": {"loss": "kld"}, "Dice": {"loss": "dice"}}
    return Study(family="loss", seeds=[0, 1], variants=variants, data_dir="images", **settings)


def gather(asked, run_config):
    """A report's copy of a run whose folder, with its weights, is gone."""
    store = study.store(asked)
    work = store.work(run_config, "0123456789abcdef")
    work.mkdir(parents=True)
    (work / "history.csv").write_text("epoch,loss\n1,0.3\n", encoding="utf-8")
    (work / runs.STATE).write_bytes(b"weights")
    store.gather(store.finish(run_config, "0123456789abcdef", work, METRICS, {}))
    shutil.rmtree(store.root)


def test_gathered_runs_are_read_without_the_data():
    asked = two_losses(train_missing=False)
    configs = asked.configs()
    for run_config in (*configs["KLD"], configs["Dice"][1]):
        gather(asked, run_config)
    found = study.ensure(asked)
    assert [run.config for run in found["KLD"]] == configs["KLD"]
    assert [run.config.seed for run in found["Dice"]] == [1]
    assert found["Dice"][0].metrics == METRICS


def test_variants_without_a_run_are_empty():
    assert study.ensure(two_losses(train_missing=False)) == {"KLD": [], "Dice": []}


def held_out(**settings):
    variants = {"Nearest": {}, "Bilinear": {"upsampling": "bilinear"}}
    return Study(
        family="upsampling",
        variants={"Upsampling2D": {}},
        heldout={"image_size": 32},
        heldout_variants=variants,
        folds=[0, 3],
        train_missing=False,
        **settings,
    )


def test_each_protocol_reads_its_own_runs():
    """Held out one a fold, in their order; those of the other protocol do not stand in."""
    asked = held_out()
    published, heldout = (asked.configs(protocol) for protocol in config.PROTOCOLS)
    for run_config in (*published["Upsampling2D"], *reversed(heldout["Bilinear"])):
        gather(asked, run_config)
    assert {label: [run.config for run in found] for label, found in study.ensure(asked).items()} == published
    found = study.ensure(asked, "heldout")
    assert found["Nearest"] == []
    assert [(run.config.fold, run.config.seed) for run in found["Bilinear"]] == [(0, 0), (3, 3)]
    assert [run.config for run in found["Bilinear"]] == heldout["Bilinear"]


def test_every_family_is_asked_under_either_protocol(tmp_path):
    """With the committed variants, and the profile's size and folds."""
    shutil.copytree(REPOSITORY / "params", tmp_path / "params")
    found = study.every_family(held_out(), "heldout")
    assert list(found) == ["upsampling", "optimization", "loss", "data"]
    assert [len(variants) for variants in found.values()] == [5, 7, 5, 5]
    assert all(runs == [] for variants in found.values() for runs in variants.values())


def test_training_without_the_data_names_the_folder(tmp_path):
    with pytest.raises(StudyError) as caught:
        study.ensure(two_losses())
    assert str(caught.value).startswith(f"{tmp_path / 'images'}: no folder benign, malignant, normal")
    assert list(tmp_path.iterdir()) == []
