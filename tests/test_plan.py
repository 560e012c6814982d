"""What is left of a study, worked out by hand; schedules against what is known of all schedules."""

import shutil
import time
from datetime import datetime

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from busi import config, plan, runs, study
from busi.dataset import catalog
from busi.mechanisms import experiments

pytestmark = pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")


@pytest.fixture
def asked(tmp_path, monkeypatch, phantom_dir):
    """Two variants and two seeds under the published protocol, one variant and one fold held out; 4 epochs each."""
    monkeypatch.setattr(config, "ROOT", tmp_path)
    (tmp_path / "params").mkdir()
    families = {name: {"family": name} for name in config.FAMILIES}
    families["upsampling"]["variants"] = {"Up": {}, "Transposed": {"upsampling": "Conv2DTranspose"}}
    families["loss"]["heldout_variants"] = {"BCE": {}}
    experiments = {
        "sizes": {"small": {"image_size": 32, "padding": "same", "epochs": 2}},
        "quick": {},
        "sections": {"ladder": {"size": "small", "variants": {"rebuilt": {}}}},
    }
    (tmp_path / "params" / "mechanisms.yaml").write_text(yaml.safe_dump(experiments))
    profile = {
        "profile": "tiny",
        "data_dir": str(phantom_dir),
        "epochs": 4,
        "seeds": [0, 1],
        "heldout": {"image_size": 32, "epochs": 4},
        "folds": [2],
    }
    for name, content in (families | {"tiny": profile}).items():
        (tmp_path / "params" / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return config.read(tmp_path / "params" / "tiny.yaml")


def checkpoint(asked, label, seconds):
    """What training leaves of a run's first epochs."""
    (run,) = [run for run in config.distinct(asked) if run.label == label]
    folder = study.store(asked).work(run, catalog.of(asked).fingerprint) / f"epoch-{len(seconds):04d}"
    folder.mkdir(parents=True)
    rows = "".join(f"{epoch},0.3,{value}\n" for epoch, value in enumerate(seconds, 1))
    (folder / "history.csv").write_text(f"epoch,loss,seconds\n{rows}")
    (folder / runs.STATE).write_bytes(b"weights")
    return run, folder


@pytest.fixture
def planned(asked):
    run, folder = checkpoint(asked, "published/baseline/fold0-seed0", [10.0, 20.0, 30.0, 100.0])
    study.store(asked).finish(run, catalog.of(asked).fingerprint, folder, {"seconds": 160.0}, {"python": "3"})
    checkpoint(asked, "published/upsampling-Conv2DTranspose/fold0-seed0", [20.0, 40.0])
    return plan.table(asked)


def test_what_is_left_at_the_median_speed_of_the_same_size(planned):
    published = planned[(planned.protocol == "published") & (planned.image_size == 300)].set_index("run")
    assert published.state.to_dict() == {
        "published/baseline/fold0-seed0": "finished",
        "published/upsampling-Conv2DTranspose/fold0-seed0": "unfinished",
        "published/baseline/fold0-seed1": "missing",
        "published/upsampling-Conv2DTranspose/fold0-seed1": "missing",
    }
    # The six epochs took 25 s in the median.
    assert published.seconds.tolist() == [0, 2 * 25, 4 * 25, 4 * 25]
    heldout = planned[planned.protocol == "heldout"]
    assert heldout.run.tolist() == ["heldout/baseline/fold2-seed2", "heldout/baseline/fold2-seed7"]
    assert heldout.seconds.isna().all()
    assert planned.run.tolist()[-1] == "mechanisms/ladder/published/padding-same/fold0-seed0"


def test_planning_changes_nothing(planned, asked, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    plan.table(asked)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_plan_in_sentences(planned, asked):
    assert plan.described(asked, planned, workers=2).splitlines() == [
        "tiny: 7 runs; 1 finished, 1 under way, 5 not begun",
        "  published/upsampling-Conv2DTranspose/fold0-seed0: after epoch 2 of 4",
        # 50 and 100 on one worker, 100 on the other.
        "left: at most 3 min on 2 workers (5 min of training in 3 runs, at the speed of the epochs so far)",
        "left, and for how long is not known: 2 runs of protocol heldout, image_size 32, base_filters 64, "
        "batch_size 8, precision float32, of which none has an epoch yet",
        "left, and for how long is not known: 1 runs of protocol published, image_size 32, base_filters 64, "
        "batch_size 1, precision float32, of which none has an epoch yet",
    ]


def test_runs_of_one_job_follow_each_other(planned, asked):
    """Jobs of 50 s and of 200 s: a second worker saves 50 s."""
    pairs = asked.model_copy(update={"runs_per_job": 2})
    assert "at most 4 min on 2 workers" in plan.described(pairs, planned, workers=2)


def test_progress_in_a_line(planned, asked):
    """Of the four runs whose size has an epoch, 50 s are left of one and 100 s of two."""
    noon = datetime(2024, 2, 28, 23, 59, 0)
    published = planned[planned.seconds.notna()]
    assert plan.progress(asked, published, workers=2, now=noon) == (
        "23:59:00 tiny: 1 of 4 runs trained; published/upsampling-Conv2DTranspose/fold0-seed0: after epoch 2 of 4; "
        "all trained in at most 3 min, by Thu 29 Feb 00:01"
    )
    assert plan.progress(asked, planned, workers=2, now=noon).endswith(
        "when all will be trained is not known yet: of the size of 3 runs no epoch has been timed"
    )
    done = published.assign(state="finished", seconds=0)
    assert plan.progress(asked, done, workers=2, now=noon) == "23:59:00 tiny: all 4 runs are trained"


def test_progress_names_four_runs_under_way_at_the_most(planned, asked):
    row = planned[planned.state == "unfinished"]
    many = pd.concat([row.assign(run=f"run{k}") for k in range(7)], ignore_index=True)
    line = plan.progress(asked, many, workers=7, now=datetime(2024, 1, 1))
    assert "; run3: after epoch 2 of 4; and 3 more; all trained" in line
    assert "run4" not in line


def test_a_run_in_its_first_epoch_is_under_way(asked):
    (run, *_) = config.distinct(asked)
    study.store(asked).work(run, catalog.of(asked).fingerprint).mkdir(parents=True)
    planned = plan.table(asked).set_index("run").loc[run.label]
    assert (planned.state, planned.epoch, planned.epochs) == ("unfinished", 0, 4)


def test_a_checkpoint_that_training_replaces_meanwhile_is_looked_for_again(asked, monkeypatch):
    """Between finding the newest epoch and reading it, the next one has taken its place."""
    run, folder = checkpoint(asked, "published/baseline/fold0-seed0", [10.0, 20.0])
    history = runs.Run.history.func

    def overtaken(self):
        if self.folder == folder and folder.is_dir():
            checkpoint(asked, run.label, [10.0, 20.0, 30.0])
            shutil.rmtree(folder)
        return history(self)

    monkeypatch.setattr(runs.Run, "history", property(overtaken))
    planned = plan.table(asked).set_index("run").loc[run.label]
    assert (planned.state, planned.epoch) == ("unfinished", 3)


def test_progress_is_told_until_all_is_trained(asked, monkeypatch):
    """Between two looks somebody finishes another run."""
    waiting = list(experiments.every_job(asked).values())

    def finish_another(pause):
        assert pause >= plan.EVERY
        run, where = waiting.pop()
        folder = where.work(run, catalog.of(asked).fingerprint) / "epoch-0001"
        folder.mkdir(parents=True)
        (folder / "history.csv").write_text("epoch,loss,seconds\n1,0.3,60.0\n")
        (folder / runs.STATE).write_bytes(b"weights")
        where.finish(run, catalog.of(asked).fingerprint, folder, {"seconds": 60.0}, {"python": "3"})

    monkeypatch.setattr(plan.time, "sleep", finish_another)
    said = []
    plan.tell(asked, 2, said.append)
    counts = [line.split("; ")[0].split(": ")[1] for line in said]
    assert counts == [*(f"{done} of 7 runs trained" for done in range(7)), "all 7 runs are trained"]


def test_looks_that_take_long_are_further_apart(asked, monkeypatch):
    """Twenty times what a look takes, so that a large store is not looked at without pause."""
    monkeypatch.setattr(plan, "EVERY", 0)
    pauses = []

    def asleep(pause):
        pauses.append(pause)
        raise KeyboardInterrupt

    monkeypatch.setattr(plan.time, "sleep", asleep)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        plan.tell(asked, 2, lambda line: None)
    assert pauses == [pytest.approx(20 * (time.monotonic() - start), rel=0.5)]


def test_each_job_goes_to_the_worker_that_is_free_first():
    # 3 and 1; the 2 follows the 1, the 4 either.
    assert plan.makespan([3, 1, 2, 4], workers=2) == 7
    assert plan.makespan([4, 3, 2, 1], workers=2) == 5
    assert plan.makespan([], workers=3) == 0


@given(st.lists(st.integers(0, 1000)), st.integers(1, 20))
def test_no_schedule_is_far_from_the_best(seconds, workers):
    """R. L. Graham, Bell System Technical Journal 45 (1966): within the longest job of an even split."""
    least = max(sum(seconds) / workers, max(seconds, default=0))
    assert least <= plan.makespan(seconds, workers) <= sum(seconds) / workers + max(seconds, default=0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.0, "59 s"), (60, "1 min"), (61, "2 min"), (3599, "1 h 00 min"), (3900, "1 h 05 min")],
)
def test_durations_are_rounded_up(seconds, text):
    assert plan.duration(seconds) == text
