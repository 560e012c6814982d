"""What is left of a study, worked out by hand; schedules against what is known of all schedules."""

import re
import shutil
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_study import finish_run, numbers

from busi import config, plan, runs, study
from busi.config import StudyError
from busi.dataset.catalog import load_catalog
from busi.runs import Predictions, Run

pytestmark = pytest.mark.filterwarnings("ignore::busi.dataset.catalog.CountWarning")

BASELINE = "published/300px-64f-4e/baseline/fold0-seed0"
TRANSPOSED = "published/300px-64f-4e/upsampling-Conv2DTranspose/fold0-seed0"

FILES = {
    "tiny": {
        "profile": "tiny",
        "epochs": 4,
        "seeds": [0, 1],
        "heldout_seeds": [0, 1],
        "heldout": {"image_size": 32, "epochs": 4},
        "folds": [2],
    },
    "upsampling": {"family": "upsampling", "variants": {"Up": {}, "Transposed": {"upsampling": "Conv2DTranspose"}}},
    "loss": {"family": "loss", "heldout_variants": {"BCE": {}}},
    "mechanisms": {
        "sizes": {"small": {"image_size": 32, "padding": "same", "epochs": 2}},
        "trajectory": {"size": "small", "steps": 1, "batch_size": 1},
        "sections": {"ladder": {"notebook": "3_mechanisms", "size": "small", "variants": {"rebuilt": {}}}},
    },
}
"""Two variants and two seeds under the published protocol, one variant and one fold held out, and one section's run."""


@pytest.fixture
def parameters(here, phantom_dir):
    """Return the parameters of the study of `FILES`, which is the current folder."""
    for name, content in FILES.items():
        (here / "params" / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    for stem in ("1_upsampling", "2_loss", "3_mechanisms"):
        (here / "notebooks" / f"{stem}.ipynb").touch()
    return config.read_profile("tiny", data_dir=str(phantom_dir))


def open_store(parameters):
    return study.open_store(parameters, load_catalog(parameters))


def write_checkpoint(parameters, label, seconds):
    """Write what training leaves of a run's first epochs."""
    run_config = study.list_runs(parameters)[label]
    folder = open_store(parameters).work(run_config) / f"epoch-{len(seconds):04d}"
    folder.mkdir(parents=True)
    rows = "".join(f"{epoch},0.3,{value}\n" for epoch, value in enumerate(seconds, 1))
    (folder / "history.csv").write_text(f"epoch,loss,seconds\n{rows}", encoding="utf-8")
    (folder / runs.STATE).write_bytes(b"weights")
    return folder


def finish(parameters, label, seconds):
    """Finish a run whose epochs took ``seconds``."""
    run_config = study.list_runs(parameters)[label]
    part = "training" if run_config.protocol == "published" else "test"
    probability = np.zeros((1, run_config.output_size, run_config.output_size), np.float32)
    predictions = {part: Predictions(load_catalog(parameters).lesions.name[:1], probability)}
    outcome = {"seconds": sum(seconds), "end": "planned", "still": {"loss": 0.3}}
    history = {"epoch": range(1, len(seconds) + 1), "loss": 0.3, "seconds": seconds}
    finish_run(open_store(parameters), run_config, predictions, outcome, history)


@pytest.fixture
def planned(parameters):
    finish(parameters, BASELINE, [10.0, 20.0, 30.0, 100.0])
    write_checkpoint(parameters, TRANSPOSED, [20.0, 40.0])
    return plan.plan_runs(parameters)


# The plan


def test_the_time_left_is_estimated_at_the_median_speed_of_the_same_size(planned):
    published = planned[(planned.protocol == "published") & (planned.image_size == 300)].set_index("run")
    assert published.state.to_dict() == {
        BASELINE: "finished",
        TRANSPOSED: "unfinished",
        BASELINE.replace("seed0", "seed1"): "missing",
        TRANSPOSED.replace("seed0", "seed1"): "missing",
    }
    # The six epochs took 25 s in the median.
    assert published.seconds.tolist() == [0, 2 * 25, 4 * 25, 4 * 25]
    heldout = planned[planned.protocol == "heldout"]
    folder = "heldout/32px-64f-4e/baseline"
    assert heldout.run.tolist() == [f"{folder}/fold2-seed2", f"{folder}/fold2-seed7"]
    assert heldout.seconds.isna().all()
    assert planned.run.tolist()[-1] == "published/32px-64f-2e/padding-same/fold0-seed0"
    assert planned.run.tolist() == list(study.list_runs(config.read_profile("tiny")))


def test_planning_changes_nothing(planned, parameters, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    plan.plan_runs(parameters)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_run_whose_results_are_gathered_is_finished_without_its_folder(planned, parameters):
    group = study.find_group(parameters, "published/upsampling")
    study.gather_results(parameters, group, load_catalog(parameters), train=False)
    shutil.rmtree(open_store(parameters).folder(group.configs[0]))
    again = plan.plan_runs(parameters).set_index("run")
    assert (again.state[BASELINE], again.seconds[BASELINE]) == ("finished", 0)
    # Its epochs are gone, so that those of the unfinished run are the only ones timed.
    assert (again.state[TRANSPOSED], again.seconds[TRANSPOSED]) == ("unfinished", 2 * 30)


def test_a_run_that_continues_a_shorter_one_has_only_its_other_epochs_left(planned, parameters):
    longer = parameters.model_copy(update={"epochs": 10})
    again = plan.plan_runs(longer).set_index("run")
    label = BASELINE.replace("-4e", "-10e")
    # Nobody has started it.
    assert (again.state[label], again.epoch[label], again.epochs[label]) == ("missing", 4, 10)
    # The four epochs took 25 s in the median.
    assert again.seconds[label] == 6 * 25


def test_a_run_in_its_first_epoch_is_in_training(parameters):
    label, run_config = next(iter(study.list_runs(parameters).items()))
    open_store(parameters).work(run_config).mkdir(parents=True)
    planned = plan.plan_runs(parameters).set_index("run").loc[label]
    assert (planned.state, planned.epoch, planned.epochs) == ("unfinished", 0, 4)


def test_a_checkpoint_that_training_replaces_in_the_meantime_is_looked_for_again(parameters, monkeypatch):
    """Between finding the newest epoch and reading it, the next one has taken its place."""
    folder = write_checkpoint(parameters, BASELINE, [10.0, 20.0])
    history = Run.history.func

    def overtaken(self):
        if self.folder == folder and folder.is_dir():
            write_checkpoint(parameters, BASELINE, [10.0, 20.0, 30.0])
            shutil.rmtree(folder)
        return history(self)

    monkeypatch.setattr(Run, "history", property(overtaken))
    planned = plan.plan_runs(parameters).set_index("run").loc[BASELINE]
    assert (planned.state, planned.epoch) == ("unfinished", 3)


@pytest.mark.parametrize("left", [None, b""])
def test_a_damaged_checkpoint_is_named(parameters, left):
    """A power failure can take a file, or leave it without its content."""
    history = write_checkpoint(parameters, BASELINE, [10.0, 20.0]) / "history.csv"
    history.unlink()
    if left is not None:
        history.write_bytes(left)
    with pytest.raises(StudyError, match=f"{history.parent}: cannot be read .* delete this folder"):
        plan.plan_runs(parameters)


# In sentences


def test_the_plan_in_sentences(planned, parameters):
    counted, started, left, heldout, section = plan.describe_plan(parameters, planned, workers=2).splitlines()
    assert counted.startswith("tiny: ")
    assert re.findall(r"\d+ \w+", counted) == ["7 runs", "1 finished", "1 in", "5 not"]
    label, state = started.strip().split(": ")
    assert (label, numbers(state)) == (TRANSPOSED, ["2", "4"])
    # 50 and 100 on one worker, 100 on the other.
    assert re.findall(r"\d+ \w+", left) == ["3 min", "2 workers", "5 min", "3 runs"]
    for line, protocol, runs_left, batch_size in ((heldout, "heldout", "2", "8"), (section, "published", "1", "1")):
        assert "unknown time" in line and f" protocol {protocol}, " in line and "precision float32" in line
        assert numbers(line) == [runs_left, "32", "64", batch_size, "32"]


def test_a_single_worker_trains_everything_one_after_another(planned, parameters):
    assert "left: at most 5 min on 1 worker (5 min of " in plan.describe_plan(parameters, planned, workers=1)


def test_runs_of_one_job_follow_each_other(planned, parameters):
    """Jobs of 50 s and of 200 s: a second worker saves 50 s."""
    pairs = parameters.model_copy(update={"runs_per_job": 2})
    assert "at most 4 min on 2 workers" in plan.describe_plan(pairs, planned, workers=2)


def test_progress_in_a_line(planned, parameters):
    """Of the four runs whose size has an epoch, 50 s are left of one and 100 s of two."""
    night = datetime(2024, 2, 28, 23, 59, 0)
    published = planned[planned.seconds.notna()]

    def describe(table):
        line = plan.describe_progress(parameters, table, workers=2, now=night)
        assert line.startswith("23:59:00 tiny: ")
        return line.removeprefix("23:59:00 tiny: ").split("; ")

    trained, in_training, end = describe(published)
    assert numbers(trained) == ["1", "4"]
    label, state = in_training.split(": ")
    assert (label, numbers(state)) == (TRANSPOSED, ["2", "4"])
    assert " 3 min, " in end and end.endswith(" Thu 29 Feb 00:01")
    *_, end = describe(planned)
    assert "not known" in end and numbers(end) == ["3"]
    (done,) = describe(published.assign(state="finished", seconds=0))
    assert "all" in done and numbers(done) == ["4"]


def test_progress_names_at_most_four_runs_in_training(planned, parameters):
    row = planned[planned.state == "unfinished"]
    many = pd.concat([row.assign(run=f"run{k}") for k in range(7)], ignore_index=True)
    line = plan.describe_progress(parameters, many, workers=7, now=datetime(2024, 1, 1))
    assert "; run3: after epoch 2 of 4; and 3 more; all trained" in line
    assert "run4" not in line


def test_progress_is_told_until_everything_is_trained(parameters, monkeypatch):
    """Between two looks another run is finished."""
    waiting = list(study.list_runs(parameters))

    def finish_another(pause):
        assert pause >= plan.LOOK_SECONDS
        finish(parameters, waiting.pop(), [60.0])

    monkeypatch.setattr(plan.time, "sleep", finish_another)
    said = []
    plan.tell_progress(parameters, 2, said.append)
    counts = [line.split("; ")[0].split(": ")[1] for line in said]
    assert counts == [*(f"{done} of 7 runs trained" for done in range(7)), "all 7 runs are trained"]


def test_looks_that_take_long_are_further_apart(parameters, monkeypatch):
    """Twenty times as far as a look takes, so that a large store is not looked at without pause."""
    pauses = []

    def stop(pause):
        pauses.append(pause)
        raise KeyboardInterrupt

    # The look takes five seconds.
    clock = iter([0.0, 5.0])
    monkeypatch.setattr(plan, "time", SimpleNamespace(monotonic=clock.__next__, sleep=stop))
    with pytest.raises(KeyboardInterrupt):
        plan.tell_progress(parameters, 2, lambda line: None)
    assert pauses == [100]


# Schedules


def test_each_job_goes_to_the_worker_that_is_free_first():
    # 3 and 1; the 2 follows the 1, the 4 either.
    assert plan.makespan([3, 1, 2, 4], workers=2) == 7
    assert plan.makespan([4, 3, 2, 1], workers=2) == 5
    assert plan.makespan([], workers=3) == 0


@given(st.lists(st.integers(0, 1000)), st.integers(1, 20))
def test_no_schedule_is_far_from_the_best(seconds, workers):
    """R. L. Graham, Bell System Technical Journal 45 (1966): within the longest job of an even division."""
    least = max(sum(seconds) / workers, max(seconds, default=0))
    assert least <= plan.makespan(seconds, workers) <= sum(seconds) / workers + max(seconds, default=0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.0, "59 s"), (60, "1 min"), (61, "2 min"), (3599, "1 h 00 min"), (3900, "1 h 05 min")],
)
def test_durations_are_rounded_up(seconds, text):
    assert plan.format_duration(seconds) == text
