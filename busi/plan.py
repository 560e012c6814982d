"""Plan of a study: what is left to train and how long that takes, both before it starts and while it runs."""

import heapq
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import pandas as pd

from busi.config import Parameters, RunConfig, StudyError
from busi.dataset.catalog import load_catalog
from busi.display import count
from busi.runs import Run, Store, find_checkpoint
from busi.study import gathered_keys, list_runs, open_store

SIZE = ["protocol", "image_size", "base_filters", "batch_size", "precision"]
"""`RunConfig` fields that decide how long an epoch takes."""

SHOWN_RUNS = 4
"""Number of runs in training that a line of `describe_progress` names."""

LOOK_SECONDS = 60
"""Shortest time between two looks of `tell_progress`, in seconds."""

LOOK_SHARE = 20
"""Shortest time between two looks as a multiple of how long a look took, so that looks take under 5 % of the time."""


def plan_runs(parameters: Parameters) -> pd.DataFrame:
    """List every run of a study in the order in which they are started; train and change nothing.

    Returns:
        One row for each run: `run` (its label, as `busi train` takes it), `state` ("finished", "unfinished" or
        "missing"), `epoch` (epochs trained), `epochs` (epochs planned; a run may end earlier), the fields of `SIZE`,
        and `seconds` (training left, at the median time per epoch of runs of the same size; NaN if no epoch of that
        size has been timed).
    """
    catalog = load_catalog(parameters)
    store = open_store(parameters, catalog)
    keys = gathered_keys(parameters, catalog)
    rows = []
    epochs = []
    for label, config in list_runs(parameters).items():
        size = {field: getattr(config, field) for field in SIZE}
        state, history = _look_up(config, store)
        # A run whose results are in the report, perhaps from another machine, is not trained again here.
        if state != "finished" and store.key(config) in keys:
            state = "finished"
        rows.append({"run": label, "state": state, "epoch": len(history), "epochs": config.epochs} | size)
        epochs.append(history.assign(**size))
    planned = pd.DataFrame(rows)
    # The median disregards the first epoch, which compiles, and epochs that other work has slowed down.
    epoch_seconds = pd.concat(epochs).groupby(SIZE).seconds.median().rename("epoch_seconds")
    planned = planned.join(epoch_seconds, on=SIZE)
    epochs_left = (planned.epochs - planned.epoch).mask(planned.state == "finished", 0)
    # A finished run has nothing left, even if no epoch of its size has been timed.
    planned["seconds"] = (epochs_left * planned.epoch_seconds).mask(epochs_left == 0, 0)
    return planned.drop(columns="epoch_seconds")


def _look_up(config: RunConfig, store: Store) -> tuple[str, pd.DataFrame]:
    """Return a run's state, and a table with the `seconds` of its epochs so far."""
    run = store.find(config, weights="there")
    if run:
        return "finished", run.history[["seconds"]]
    work = store.work(config)
    checkpoint = find_checkpoint(work)
    started = Run(checkpoint, config) if checkpoint else store.beginning(config)
    # A finished run of fewer epochs shortens this one, but does not mean that it has been started.
    state = "unfinished" if work.is_dir() else "missing"
    if not started:
        return state, pd.DataFrame({"seconds": []})
    try:
        return state, started.history[["seconds"]]
    except (FileNotFoundError, ValueError) as error:
        # The run is being trained, and its next epoch has just replaced this one.
        if find_checkpoint(work) != checkpoint:
            return _look_up(config, store)
        raise StudyError(
            f"{started.folder}: cannot be read ({error}); expected the history of a run: delete this folder, and the "
            "run starts again from its beginning"
        ) from error


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Return the time at which all jobs are done, started in the given order, each on the worker that is free first."""
    # A heap of the times at which the workers become free: the earliest is first.
    free = [0.0] * workers
    for duration in seconds:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def describe_plan(parameters: Parameters, planned: pd.DataFrame, workers: int) -> str:
    """Describe a plan of `plan_runs` in sentences; ``workers`` runs are trained side by side."""
    states = planned.state.value_counts().reindex(["finished", "unfinished", "missing"], fill_value=0)
    lines = [
        f"{parameters.profile}: {len(planned)} runs; {states.finished} finished, {states.unfinished} in training, "
        f"{states.missing} not started"
    ]
    lines += [f"  {line}" for line in _in_training(planned)]
    runs_left = (planned.seconds > 0).sum()
    if runs_left:
        until_end, training = _seconds_left(parameters, planned, workers)
        lines.append(
            f"left: at most {format_duration(until_end)} on {count(workers, 'worker')} ({format_duration(training)} of "
            f"training in {count(runs_left, 'run')}, at the speed of the epochs so far)"
        )
    for size, rows in planned[planned.seconds.isna()].groupby(SIZE):
        fields = ", ".join(f"{field} {value}" for field, value in zip(SIZE, size, strict=True))
        lines.append(f"left, for an unknown time: {len(rows)} runs of {fields}, none of which has trained an epoch yet")
    return "\n".join(lines)


def describe_progress(parameters: Parameters, planned: pd.DataFrame, workers: int, now: datetime) -> str:
    """Describe a plan made ``now`` in one line: which runs are in training, their epochs, when all will be trained."""
    head = f"{now:%H:%M:%S} {parameters.profile}: "
    finished = (planned.state == "finished").sum()
    if finished == len(planned):
        return f"{head}all {finished} runs are trained"
    shown = _in_training(planned)
    more = len(shown) - SHOWN_RUNS
    if more > 0:
        shown[SHOWN_RUNS:] = [f"and {more} more"]
    unknown = planned.seconds.isna().sum()
    if unknown:
        end = f"the end is not known yet: no epoch of the size of {unknown} runs has been timed"
    else:
        left, _ = _seconds_left(parameters, planned, workers)
        end = f"all trained in at most {format_duration(left)}, by {now + timedelta(seconds=left):%a %d %b %H:%M}"
    return "; ".join([f"{head}{finished} of {len(planned)} runs trained", *shown, end])


def tell_progress(parameters: Parameters, workers: int, say: Callable[[str], None]) -> None:
    """Report the progress of a study that other processes train: now, then every minute or less often until the end."""
    while True:
        start = time.monotonic()
        planned = plan_runs(parameters)
        say(describe_progress(parameters, planned, workers, datetime.now()))
        if (planned.state == "finished").all():
            return
        # A look at thousands of runs takes long.
        look_took = time.monotonic() - start
        time.sleep(max(LOOK_SECONDS, LOOK_SHARE * look_took))


def _in_training(planned: pd.DataFrame) -> list[str]:
    rows = planned[planned.state == "unfinished"].itertuples()
    return [f"{row.run}: after epoch {row.epoch} of {row.epochs}" for row in rows]


def _seconds_left(parameters: Parameters, planned: pd.DataFrame, workers: int) -> tuple[float, float]:
    """Return the seconds until the last run is trained, and those of all training; only runs of known speed count."""
    known = planned[planned.seconds.notna()]
    # The runs of one job are trained one after another on one worker.
    jobs = known.groupby(known.index // parameters.runs_per_job).seconds.sum()
    return makespan(jobs, workers), jobs.sum()


def format_duration(seconds: float) -> str:
    """Format seconds for people, rounded up: "1 h 05 min", "12 min", "40 s"."""
    whole = -int(-seconds // 1)
    if whole < 60:
        return f"{whole} s"
    minutes = -(-whole // 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
