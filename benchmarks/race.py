"""Race of contenders: each in a process of its own, taking turns of one window of time each.

The speed of a shared machine drifts by the minute. When windows take turns, the drift hits all contenders alike. A
process of its own gives each contender its own memory to measure, its own threads and its own compiler settings.
"""

import importlib
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import pandas as pd

from busi.config import StudyError

CHECK = 8
"""Steps before the first window: they compile and warm up, and their mean loss says whether contenders agree."""

THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
"""Environment variables that set the threads of TensorFlow's and PyTorch's arithmetic."""

MAXRSS_MIB = 1 / 2**20 if sys.platform == "darwin" else 1 / 2**10
"""Unit of ``ru_maxrss`` in MiB: bytes on macOS, KiB elsewhere."""


@dataclass(frozen=True)
class Contender:
    """A contender: the training that ``module.prepare(**options)`` returns, in ``copies`` processes at the same time.

    ``threads`` is the number of threads of each process's arithmetic; None leaves it to the library, which takes all.
    """

    name: str
    module: str
    options: dict[str, Any]
    copies: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class Training:
    """A prepared training: ``step()`` takes ``steps`` steps of ``images`` images and returns the mean loss so far."""

    step: Callable[[], float]
    images: int
    steps: int = 1
    facts: dict[str, float] = field(default_factory=dict)


class _Copy(NamedTuple):
    process: BaseProcess
    pipe: Connection


def race(contenders: list[Contender], *, windows: int, seconds: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run all contenders, which stay in memory together, in turns of ``seconds``; steps that have begun are finished.

    Returns:
        One row per contender and window: `contender`, `window`, `images_per_second` and `memory_mib` (peak resident
        memory so far), both summed over copies. And one row per contender, indexed by its name: `loss` (mean of the
        first `CHECK` steps) and the facts of its training.

    Raises:
        StudyError: A contender's process ended early; names it and its exit code.
    """
    copies: dict[str, list[_Copy]] = {}
    facts = {}
    rows = []
    try:
        for contender in contenders:
            # One after another: the first contender writes the weights that all start from.
            copies[contender.name] = [_start(contender) for _ in range(contender.copies)]
            reports = [_receive(contender.name, copy) for copy in copies[contender.name]]
            facts[contender.name] = reports[0]
        for window in range(windows):
            for name in copies:
                for copy in copies[name]:
                    copy.pipe.send(seconds)
                measured = pd.DataFrame([_receive(name, copy) for copy in copies[name]])
                rows.append({"contender": name, "window": window} | measured.sum().to_dict())
    finally:
        for running in copies.values():
            for copy in running:
                copy.process.terminate()
                copy.process.join()
    return pd.DataFrame(rows), pd.DataFrame.from_dict(facts, orient="index")


def _start(contender: Contender) -> _Copy:
    # Forked from a server that has imported nothing: otherwise this process's memory would count as the contender's.
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(contender, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Copy(process, ours)


def _receive(name: str, copy: _Copy) -> dict[str, float]:
    try:
        return copy.pipe.recv()
    except EOFError:
        copy.process.join()
        raise StudyError(
            f"benchmark contender {name!r}: ended early with exit code {copy.process.exitcode} (-9: killed, usually "
            "because memory ran out); see its output above"
        ) from None


def _serve(contender: Contender, pipe: Connection) -> None:
    if contender.threads:
        # Before the module is imported: libraries look at these once.
        os.environ |= dict.fromkeys(THREADS, str(contender.threads))
    training = importlib.import_module(contender.module).prepare(**contender.options)
    # Compiles and warms up.
    loss = 0.0
    for _ in range(CHECK // training.steps):
        loss = training.step()
    pipe.send({"loss": loss} | training.facts)
    while True:
        speed = run_window(training, pipe.recv())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_MIB
        pipe.send({"images_per_second": speed, "memory_mib": memory})


def run_window(training: Training, seconds: float) -> float:
    """Take steps for at least ``seconds`` and return the images per second."""
    start = time.perf_counter()
    images = 0
    passed = 0.0
    while passed < seconds:
        training.step()
        images += training.images * training.steps
        passed = time.perf_counter() - start
    return images / passed
