"""Operations that a training step of the package spends its time in."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import pandas as pd
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks.package import compile_network, stream_batches
from busi.config import RunConfig

WARM_UP = 4
STEPS = 10

# An executed operation in a trace is "NAME:KIND"; oneDNN's kinds are TensorFlow's with a prefix.
EXECUTED = re.compile(r"[^:\s]+:(?:_Mkl(?:Native)?)?(\w+)")


def measure(config: RunConfig, data_dir: Path) -> pd.DataFrame:
    """Train a few steps of ``config`` under TensorFlow's profiler.

    Returns:
        One row per kind of operation, slowest first: `operation` (TensorFlow's name), `calls` and `milliseconds` per
        step, `share` of the milliseconds of all. Operations that run at the same time are added up. The profiler makes
        short operations longer.
    """
    keras.utils.clear_session()
    model = compile_network(config)
    batches = iter(stream_batches(config, data_dir))
    # The first steps trace and compile.
    for _ in range(WARM_UP):
        model.train_on_batch(*next(batches))
    with TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(STEPS):
            model.train_on_batch(*next(batches))
        tf.profiler.experimental.stop()
        (file,) = Path(folder).rglob("*.xplane.pb")
        trace = xplane_pb2.XSpace.FromString(file.read_bytes())
    return sum_operations(trace, STEPS)


def sum_operations(trace: xplane_pb2.XSpace, steps: int) -> pd.DataFrame:
    """Sum up a trace of ``steps`` steps by kind of operation."""
    rows = []
    for plane in trace.planes:
        for line in plane.lines:
            for event in line.events:
                executed = EXECUTED.fullmatch(plane.event_metadata[event.metadata_id].name)
                if executed:
                    rows.append({"operation": executed[1], "milliseconds": event.duration_ps / 1e9})
    by_kind = pd.DataFrame(rows).groupby("operation").milliseconds.agg(calls="count", milliseconds="sum") / steps
    by_kind["share"] = by_kind.milliseconds / by_kind.milliseconds.sum()
    return by_kind.sort_values("milliseconds", ascending=False).reset_index()
