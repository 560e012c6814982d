"""What a study still has to train and how long that will take: said before anything starts, and while it runs."""

import heapq
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import pandas as pd

from busi.config import RunConfig, Study
from busi.dataset import catalog
from busi.mechanisms import experiments
from busi.runs import Run, Store

SIZE = ("protocol", "image_size", "base_filters", "batch_size", "precision")
"""`RunConfig` fields that decide how long an epoch takes."""

SHOWN = 4
"""Runs under way that are named in a line of `progress`."""

EVERY, REST = 60, 20
"""Seconds between two looks of `tell`, and how many times as long as a look took they are at least."""


def table(study: Study) -> pd.DataFrame:
    """Every run of ``study``, in the order in which they are started; nothing is trained or changed.

    Returns:
        One row a run: `run` (as `busi train` takes it), `state` ("finished", "unfinished" or "missing"), `epoch` (how
        many it has), `epochs` (how many it may have: the validation part may end a held-out run earlier), the fields of
        `SIZE`, and `seconds` (left, at the median seconds an epoch of runs of the same size that have any; NaN where
        none has).

    Raises:
        StudyError: As `busi.dataset.catalog.of`.
    """
    data, rows, epochs = catalog.of(study), [], []
    for name, (config, where) in experiments.every_job(study).items():
        size = {field: getattr(config, field) for field in SIZE}
        state, history = _so_far(config, data.fingerprint, where)
        rows.append({"run": name, "state": state, "epoch": len(history), "epochs": config.epochs} | size)
        epochs.append(history.assign(**size))
    planned = pd.DataFrame(rows)
    speed = pd.concat(epochs).groupby(list(SIZE)).seconds.median().rename("an_epoch")
    planned = planned.join(speed, on=list(SIZE))
    left = (planned.epochs - planned.epoch).mask(planned.state == "finished", 0)
    planned["seconds"] = (left * planned.an_epoch).mask(left == 0, 0)
    return planned.drop(columns="an_epoch")


def _so_far(config: RunConfig, fingerprint: str, where: Store) -> tuple[str, pd.DataFrame]:
    """A run's state and the history behind it, seconds an epoch among it."""
    if run := where.find(config, fingerprint, weights="there"):
        return "finished", run.history[["seconds"]]
    work = where.work(config, fingerprint)
    checkpoint = max(work.glob("epoch-*"), default=None)
    found = Run(checkpoint, config) if checkpoint else where.shorter(config, fingerprint)
    if not found:
        return "unfinished" if work.is_dir() else "missing", pd.DataFrame({"seconds": []})
    try:
        return "unfinished", found.history[["seconds"]]
    except FileNotFoundError:  # it is being trained: the next epoch has taken this one's place
        return _so_far(config, fingerprint, where)


def makespan(seconds: Iterable[float], workers: int) -> float:
    """When the last of jobs started in this order is done: each goes to the worker that is free first."""
    free = [0.0] * workers
    for duration in seconds:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def described(study: Study, planned: pd.DataFrame, workers: int) -> str:
    """The plan in sentences.

    Args:
        study: Its profile and `runs_per_job` count.
        planned: As `table`.
        workers: That train side by side.
    """
    count = planned.state.value_counts().reindex(["finished", "unfinished", "missing"], fill_value=0)
    lines = [
        f"{study.profile}: {len(planned)} runs; {count.finished} finished, {count.unfinished} under way, "
        f"{count.missing} not begun"
    ]
    lines += [f"  {each}" for each in _under_way(planned)]
    runs_left = (planned.seconds > 0).sum()
    if runs_left:
        left, training = _left(study, planned, workers)
        lines.append(
            f"left: at most {duration(left)} on {workers} worker{'s' * (workers > 1)} ({duration(training)} of "
            f"training in {runs_left} runs, at the speed of the epochs so far)"
        )
    for size, rows in planned[planned.seconds.isna()].groupby(list(SIZE)):
        lines.append(
            f"left, and for how long is not known: {len(rows)} runs of "
            + ", ".join(f"{field} {value}" for field, value in zip(SIZE, size, strict=True))
            + ", of which none has an epoch yet"
        )
    return "\n".join(lines)


def progress(study: Study, planned: pd.DataFrame, workers: int, now: datetime) -> str:
    """How far a study at work is, in a line: what is being trained, its epoch, when all will be.

    Args:
        study: As for `described`.
        planned: As `table`.
        workers: That train side by side.
        now: When ``planned`` was looked up.
    """
    finished, unknown = (planned.state == "finished").sum(), planned.seconds.isna().sum()
    if finished == len(planned):
        return f"{now:%H:%M:%S} {study.profile}: all {finished} runs are trained"
    under_way = _under_way(planned)
    if (more := len(under_way) - SHOWN) > 0:
        under_way[SHOWN:] = [f"and {more} more"]
    left, _ = _left(study, planned, workers)
    end = (
        f"when all will be trained is not known yet: of the size of {unknown} runs no epoch has been timed"
        if unknown
        else f"all trained in at most {duration(left)}, by {now + timedelta(seconds=left):%a %d %b %H:%M}"
    )
    return "; ".join([f"{now:%H:%M:%S} {study.profile}: {finished} of {len(planned)} runs trained", *under_way, end])


def tell(study: Study, workers: int, say: Callable[[str], None]) -> None:
    """Give ``say`` the `progress` of a study that others train: now, and every minute until all of it is trained.

    Args:
        study: Its data must be there.
        workers: That train side by side.
        say: Takes a line.
    """
    while True:
        start = time.monotonic()
        planned = table(study)
        say(progress(study, planned, workers, datetime.now()))
        if (planned.state == "finished").all():
            return
        time.sleep(max(EVERY, REST * (time.monotonic() - start)))


def _under_way(planned: pd.DataFrame) -> list[str]:
    rows = planned[planned.state == "unfinished"].itertuples()
    return [f"{row.run}: after epoch {row.epoch} of {row.epochs}" for row in rows]


def _left(study: Study, planned: pd.DataFrame, workers: int) -> tuple[float, float]:
    """Seconds until the last run is trained, and of training, of the runs whose speed is known."""
    known = planned[planned.seconds.notna()]
    jobs = known.groupby(known.index // study.runs_per_job).seconds.sum()
    return makespan(jobs, workers), jobs.sum()


def duration(seconds: float) -> str:
    """Seconds for people, rounded up: "1 h 05 min", "12 min", "40 s"."""
    whole = -int(-seconds // 1)
    if whole < 60:
        return f"{whole} s"
    minutes = -(-whole // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
