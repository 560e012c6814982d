"""The runs of each section, where they are kept, and tables that are made once."""

from itertools import pairwise

import pandas as pd
import pytest

from busi import config, study
from busi.config import RunConfig, Study, StudyError
from busi.mechanisms import experiments
from busi.mechanisms.ladder import RUNGS

LAPTOP = config.read(config.ROOT / "params" / "laptop.yaml")
SMOKE = config.read(config.ROOT / "params" / "smoke.yaml")
PARAMS = config.ROOT / "params"
SECTIONS = ("collapse", "identity", "misalignment", "flips", "checkerboards", "leakage", "ladder")


def test_the_sweep_holds_the_published_protocol_save_padding_and_what_a_label_says():
    found = {label: run for label, (run,) in experiments.configs(LAPTOP, "collapse").items()}
    size = {"image_size": 64, "base_filters": 8, "epochs": 10, "padding": "same"}
    assert found["SGD + momentum, 0.01"] == RunConfig(**size)
    assert found["Adam, 0.001"] == RunConfig(**size, optimizer="adam", momentum=0.0, learning_rate=0.001)
    for label, run in found.items():
        if (optimizer := label.partition(", ")[0]) in ("SGD", "SGD + momentum", "Adam"):
            assert run.learning_rate == float(label.partition(", ")[2])
            assert (run.optimizer, run.momentum > 0) == (optimizer.split()[0].lower(), optimizer == "SGD + momentum")
        else:  # one thing changed
            assert len(run.model_dump().items() - RunConfig(**size).model_dump().items()) == 1


def test_each_rung_of_the_ladder_changes_one_thing():
    runs = [run for (run,) in experiments.configs(LAPTOP, "ladder").values()]
    protocol = {"protocol", "patience"}  # of the held-out runs, patience is set to the published 0
    changed = [
        {name for name in after.model_dump() if getattr(after, name) != getattr(before, name)} - protocol
        for before, after in pairwise(runs)
    ]
    assert changed[1:] == [{"second_channel"}, {"masks"}, {"target"}, {"split"}, {"split"}]
    assert changed[0] == {"optimizer", "momentum", "learning_rate", "preprocessing", "batch_size", "shuffle"}
    assert {variant for variant, _ in RUNGS.values()} == set(experiments.configs(LAPTOP, "ladder"))


@pytest.mark.parametrize(("section", "family"), [("flips", "data"), ("checkerboards", "upsampling")])
def test_runs_that_other_notebooks_have_are_found_there(section, family):
    theirs = [run for runs in config.family(family, "laptop").configs("heldout").values() for run in runs]
    ours = [run for runs in experiments.configs(LAPTOP, section).values() for run in runs]
    assert set(ours) <= set(theirs)
    assert experiments.store(LAPTOP, section) == study.store(LAPTOP)


def test_a_run_is_named_after_the_one_place_where_it_is_gathered():
    for profile in (LAPTOP, SMOKE):
        for name, (run, where) in experiments.every_job(profile).items():
            assert where.gathered(run) == profile.report_path / "results" / name


def test_every_run_of_every_section_is_a_job_and_those_of_families_are_shared():
    for profile in (LAPTOP, SMOKE):
        jobs = experiments.every_job(profile)
        for section in SECTIONS:
            where = experiments.store(profile, section)
            for run in (run for runs in experiments.configs(profile, section).values() for run in runs):
                assert (run, where) in jobs.values()
        families = {run.label: run for protocol in config.PROTOCOLS for run in config.distinct(profile, protocol)}
        assert families.items() <= {name: run for name, (run, _) in jobs.items()}.items()
        assert experiments.jobs(profile).keys() <= jobs.keys()


def test_a_quick_profile_has_two_runs_a_section_of_its_own_size():
    for section in SECTIONS:
        runs = [run for found in experiments.configs(SMOKE, section).values() for run in found]
        assert len(runs) == 2
        assert all(run.epochs <= 3 and run.base_filters == 2 and run.image_size <= 188 for run in runs)
    assert len(experiments.configs(SMOKE, "identity")["KLD"]) == 2  # seeds come first


def test_an_unknown_size_is_named():
    with pytest.raises(StudyError, match=r"mechanisms.yaml: size 'huge'; expected heldout, small, unpadded"):
        experiments.size(LAPTOP, "huge")


@pytest.fixture
def phantom_study(tmp_path, monkeypatch) -> Study:
    monkeypatch.setattr(config, "ROOT", tmp_path)
    (tmp_path / "params").symlink_to(PARAMS)
    return Study(data_dir="phantom", runs_dir="runs", image_size=236)


def counted(calls: list):
    def make(data) -> pd.DataFrame:
        calls.append(data.fingerprint)
        return pd.DataFrame({"value": [len(calls), 0.123456789]})

    return make


def test_a_table_is_made_once_and_again_when_what_it_hangs_on_differs(phantom_study, tmp_path):
    calls = []
    first = experiments.gathered(phantom_study, "made", counted(calls))
    assert first.value.tolist() == [1, 0.123457]
    assert experiments.gathered(phantom_study, "made", counted(calls)).value.tolist() == first.value.tolist()
    assert len(calls) == 1
    larger = phantom_study.model_copy(update={"image_size": 300})
    assert experiments.gathered(larger, "made", counted(calls)).value[0] == 2
    file = tmp_path / "reports" / "smoke" / "results" / "mechanisms" / "made.csv"
    assert file.read_text(encoding="utf-8").startswith("# key ")


def test_readers_need_neither_data_nor_the_same_settings(phantom_study):
    reader = Study(train_missing=False, image_size=300)
    assert experiments.gathered(reader, "made", counted([])) is None
    experiments.gathered(phantom_study, "made", counted([]))
    calls = []
    assert experiments.gathered(reader, "made", counted(calls)).value[0] == 1
    assert not calls
