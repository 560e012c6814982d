"""Which operations a training step of this package spends its time in."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from busi.benchmark.package import batches, compiled
from busi.config import RunConfig

WARM_UP, STEPS = 4, 10

_EXECUTED = re.compile(r"[^:\s]+:(?:_Mkl(?:Native)?)?(\w+)")
"""An executed operation in a trace, "NAME:KIND"; oneDNN's kinds are TensorFlow's with a prefix."""


def operations(config: RunConfig, data_dir: Path) -> pd.DataFrame:
    """Train a few steps of ``config`` under TensorFlow's profiler.

    Returns:
        One row a kind of operation, slowest first: `operation` (TensorFlow's name), `calls` and `milliseconds` a step,
        `share` of the milliseconds of all. Operations that run at the same time are added; the profiler itself makes
        short ones longer.
    """
    model, stream = compiled(config), iter(batches(config, data_dir))
    for _ in range(WARM_UP):
        model.train_on_batch(*next(stream))
    with TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(STEPS):
            model.train_on_batch(*next(stream))
        tf.profiler.experimental.stop()
        (file,) = Path(folder).rglob("*.xplane.pb")
        return summed(xplane_pb2.XSpace.FromString(file.read_bytes()), STEPS)


def summed(space: xplane_pb2.XSpace, steps: int) -> pd.DataFrame:
    """The rows of `operations` from a trace of ``steps`` steps."""
    rows = []
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            if executed := _EXECUTED.fullmatch(plane.event_metadata[event.metadata_id].name):
                rows.append({"operation": executed[1], "milliseconds": event.duration_ps / 1e9})
    by_kind = pd.DataFrame(rows).groupby("operation").milliseconds.agg(["count", "sum"]) / steps
    by_kind.columns = ["calls", "milliseconds"]
    by_kind["share"] = by_kind.milliseconds / by_kind.milliseconds.sum()
    return by_kind.sort_values("milliseconds", ascending=False).reset_index()
