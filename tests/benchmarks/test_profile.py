"""Durations of a trace written by hand, and a trace of real steps."""

import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import profile
from busi.config import RunConfig


def test_durations_are_summed_by_kind_of_operation_over_threads():
    trace = xplane_pb2.XSpace()
    plane = trace.planes.add(name="/host:CPU")
    names = {
        1: "gradient_tape/unet/down0/Conv2DBackpropFilter:_MklNativeConv2DBackpropFilterWithBias",
        2: "unet/down0/Relu:_MklFusedConv2D",
        3: "unet/up0_concat/concat:ConcatV2",
        4: "ExecutorState::Process",
        5: "EagerLocalExecute: AssignVariableOp",
    }
    for number, name in names.items():
        plane.event_metadata[number].name = name
    for thread in ([(1, 6), (2, 1), (4, 100)], [(1, 10), (3, 3), (5, 50)]):
        line = plane.lines.add()
        for number, milliseconds in thread:
            line.events.add(metadata_id=number, duration_ps=milliseconds * 10**9)

    table = profile.sum_operations(trace, steps=2).set_index("operation")
    assert table.index.tolist() == ["Conv2DBackpropFilterWithBias", "ConcatV2", "FusedConv2D"]
    assert table.calls.tolist() == [1, 0.5, 0.5]
    assert table.milliseconds.tolist() == [8, 1.5, 0.5]
    assert table.share.tolist() == pytest.approx([0.8, 0.15, 0.05])


def test_a_step_computes_the_gradient_of_every_convolution(phantom_dir):
    """23 convolutions, of which the 3 transposed ones compute theirs as others compute their output."""
    table = profile.measure(RunConfig(image_size=188, base_filters=2), phantom_dir).set_index("operation")
    gradients = table[table.index.str.startswith("Conv2DBackpropFilter")]
    assert gradients.calls.sum() == 22
    assert table.share.sum() == pytest.approx(1)
