"""Contenders side by side: each in a process of its own, and one window of time each in turn.

A shared machine's speed drifts by the minute; windows that take turns let the drift hit all contenders alike. A process
of its own gives each its own memory to measure, its own threads and its own compiler settings.
"""

import importlib
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import pandas as pd

from busi.config import StudyError

CHECK = 8
"""Steps before the first window: they compile and warm up, and their mean loss says whether contenders agree."""

THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
MAXRSS_MIB = 1 / 2**20 if sys.platform == "darwin" else 1 / 2**10
"""What ``ru_maxrss`` counts in: bytes on macOS, KiB elsewhere."""


@dataclass(frozen=True)
class Contender:
    """What takes part.

    Attributes:
        name: In the table.
        module: Its ``run(referee, **options)`` takes steps until the referee has seen enough.
        options: Passed to ``run``.
        copies: Processes that run at the same time; their speeds are added.
        threads: Of each process's arithmetic; None leaves it to the library, which takes all cores.
    """

    name: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    copies: int = 1
    threads: int | None = None


class Referee:
    """Counts a contender's steps and holds it between windows.

    Args:
        pipe: To the process that gives out the windows.
    """

    def __init__(self, pipe: Connection):
        self._pipe, self._steps, self._seconds, self._start = pipe, 0, 0.0, 0.0

    def wants_more(self, images: int, loss: float, *, steps: int = 1, **facts: float) -> bool:
        """Called after every step, or every so many; whether another is wanted.

        Args:
            images: Of a step.
            loss: Mean over the steps so far; looked at once, after `CHECK` steps.
            steps: Taken since the last call; a divisor of `CHECK`.
            facts: Told with the loss.
        """
        now, self._steps = time.perf_counter(), self._steps + steps
        if self._seconds == 0:
            if self._steps < CHECK:
                return True
            self._pipe.send({"loss": loss} | facts)
        elif now - self._start < self._seconds:
            return True
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_MIB
            self._pipe.send((self._steps * images / (now - self._start), peak))
        self._seconds = self._pipe.recv()
        self._steps, self._start = 0, time.perf_counter()
        return self._seconds > 0


def race(
    contenders: list[Contender],
    *,
    windows: int,
    seconds: float,
    ready: Callable[[pd.DataFrame], None] = lambda facts: None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run all contenders, which stay in memory together.

    Args:
        contenders: Started one after another in this order.
        windows: Of each contender, in turn.
        seconds: A window's length; steps that have begun are finished.
        ready: Called with the second table below before the first window; what it raises stops the race.

    Returns:
        One row a contender and window: `contender`, `window`, `images_per_second` and `memory_mib` (peak resident
        memory so far), both summed over copies; and one row a contender, indexed by its name: `loss` and what else its
        module tells.

    Raises:
        StudyError: A contender's process ended early; names it and its exit code.
    """
    running, told, rows = {}, {}, []
    with ExitStack() as stack:
        for contender in contenders:
            copies = [stack.enter_context(_Process(contender)) for _ in range(contender.copies)]
            running[contender.name] = copies
            told[contender.name], *_ = [copy.receive() for copy in copies]
        facts = pd.DataFrame.from_dict(told, orient="index")
        ready(facts)
        for window in range(windows):
            for name, copies in running.items():
                for copy in copies:
                    copy.pipe.send(seconds)
                speed, memory = map(sum, zip(*(copy.receive() for copy in copies), strict=True))
                rows.append({"contender": name, "window": window, "images_per_second": speed, "memory_mib": memory})
        for copy in (copy for copies in running.values() for copy in copies):
            copy.pipe.send(0.0)
    return pd.DataFrame(rows), facts


class _Process:
    """A contender's process; it ends with the block that it is opened for."""

    def __init__(self, contender: Contender):
        self.name = contender.name
        # Forked from a server that has imported nothing: this process's own peak would count as theirs otherwise.
        context = multiprocessing.get_context("forkserver")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(contender, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if any(error):
            self._process.terminate()
        self._process.join()

    def receive(self):
        try:
            return self.pipe.recv()
        except EOFError:
            self._process.join()
            raise StudyError(
                f"benchmark contender {self.name!r}: ended early with exit code {self._process.exitcode} (-9: killed, "
                "most often for want of memory); what it said stands above"
            ) from None


def _serve(contender: Contender, pipe: Connection) -> None:
    if contender.threads:
        os.environ |= dict.fromkeys(THREADS, str(contender.threads))
    importlib.import_module(contender.module).run(Referee(pipe), **contender.options)
