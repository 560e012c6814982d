"""What a study still has to train and how long that will take, said before anything starts."""

import heapq
from collections.abc import Iterable

import pandas as pd

from busi.config import RunConfig, Study
from busi.dataset import catalog
from busi.mechanisms import experiments
from busi.runs import Run, Store

SIZE = ("protocol", "image_size", "base_filters", "batch_size", "precision")
"""`RunConfig` fields that decide how long an epoch takes."""


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
    if run := where.find(config, fingerprint):
        return "finished", run.history[["seconds"]]
    checkpoint = max(where.work(config, fingerprint).glob("epoch-*"), default=None)
    found = Run(checkpoint, config) if checkpoint else where.shorter(config, fingerprint)
    return ("unfinished", found.history[["seconds"]]) if found else ("missing", pd.DataFrame({"seconds": []}))


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
    under_way = planned[planned.state == "unfinished"]
    lines += [f"  {row.run}: after epoch {row.epoch} of {row.epochs}" for row in under_way.itertuples()]
    known = planned[planned.seconds.notna()]
    if (known.seconds > 0).any():
        jobs = known.groupby(known.index // study.runs_per_job).seconds.sum()
        left, runs_left = makespan(jobs, workers), (known.seconds > 0).sum()
        lines.append(
            f"left: at most {duration(left)} on {workers} worker{'s' * (workers > 1)} ({duration(jobs.sum())} of "
            f"training in {runs_left} runs, at the speed of the epochs so far)"
        )
    for size, rows in planned[planned.seconds.isna()].groupby(list(SIZE)):
        lines.append(
            f"left, and for how long is not known: {len(rows)} runs of "
            + ", ".join(f"{field} {value}" for field, value in zip(SIZE, size, strict=True))
            + ", of which none has an epoch yet"
        )
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds for people, rounded up: "1 h 05 min", "12 min", "40 s"."""
    whole = -int(-seconds // 1)
    if whole < 60:
        return f"{whole} s"
    minutes = -(-whole // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
