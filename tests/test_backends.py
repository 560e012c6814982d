"""Three steps of every published row on TensorFlow and on JAX: the same losses, metrics and weights."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from busi import config
from busi.config import RunConfig
from busi.published import distinct_rows

# Run with JAX, and with TensorFlow out of reach, by another process; with TensorFlow by this one.
STEP = """
import json, sys
import keras, numpy as np
from busi.config import RunConfig
from busi.model.metrics import published_metrics
from busi.training import compile_network, predict_lesion

def take_steps(run, images, targets, weights):
    model = compile_network(run, published_metrics(), planned_steps=100)
    if weights:
        model.set_weights(weights)
    start = model.get_weights()
    # Step by step without compiling: the compiler takes half a minute for each of nine networks.
    model.compile(model.optimizer, model.loss, metrics=published_metrics(), run_eagerly=True)
    measured = [model.train_on_batch(images[k : k + 1], targets[k : k + 1]) for k in range(len(images))]
    return start, np.array(measured), predict_lesion(model, images, 1)
"""

ON_JAX = (
    "import sys; sys.modules['tensorflow'] = None  # not installed\n"
    + STEP
    + """
given = dict(np.load(sys.argv[1]))
results = {}
for row, values in json.loads(sys.argv[3]).items():
    weights = [given[f"{row}/{k}"] for k in range(sum(name.startswith(f"{row}/") for name in given))]
    _, measured, probability = take_steps(RunConfig(**values), given["images"], given["targets"], weights)
    results |= {f"{row}/measured": measured, f"{row}/probability": probability}
assert keras.backend.backend() == "jax"
np.savez(sys.argv[2], **results)
"""
)


def published_computations():
    """Return what the nine distinct rows compute, as small as the network allows, by the first row of each.

    Rows that differ only in their seed or in how images are prepared compute the same.
    """
    paper = config.read_profile("paper")
    small = {"image_size": 188, "base_filters": 2, "seed": 0, "preprocessing": "none"}
    rows = distinct_rows()
    assert len(rows) == 9
    computations = {}
    for row in rows.itertuples():
        run = config.read_family(row.family, paper).configs("published")[row.row][0]
        computed = RunConfig(**run.model_dump() | small)
        if computed not in computations.values():
            computations[row.row] = computed
    return computations


def test_three_steps_of_every_published_row_are_the_same_on_both_backends(tmp_path):
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("compares JAX with the TensorFlow of this process")
    scope = {}
    exec(STEP, scope)
    draw = np.random.default_rng(0)
    images = draw.random((3, 188, 188, 1), np.float32)
    lesion = draw.choice([0, 0.25, 1], (3, 4, 4), p=[0.7, 0.1, 0.2]).astype(np.float32)
    targets = np.stack([lesion, np.mod(lesion + 1, 2)], axis=-1)
    rows = published_computations()
    # BCE is Upsampling2D again, and Resize+Norm+Std+Aug. is Adam + fixed LR on other images.
    assert len(rows) == 7
    given, expected = {"images": images, "targets": targets}, {}
    for row, run in rows.items():
        start, measured, probability = scope["take_steps"](run, images, targets, None)
        given |= {f"{row}/{k}": weight for k, weight in enumerate(start)}
        expected |= {f"{row}/measured": measured, f"{row}/probability": probability}
    np.savez(tmp_path / "given.npz", **given)
    values = {row: run.model_dump() for row, run in rows.items()}
    arguments = [tmp_path / "given.npz", tmp_path / "jax.npz", json.dumps(values)]
    # Most of the time is compiling: without most optimizations, the test takes two thirds as long.
    jax = {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run([sys.executable, "-c", ON_JAX, *arguments], check=True, env=os.environ | jax)
    with np.load(tmp_path / "jax.npz") as ours:
        for name, value in expected.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    learned = [np.ptp(expected[f"{row}/measured"][:, 0]) for row in rows]
    assert min(learned) > 0
