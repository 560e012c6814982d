"""Contender "matrix product": one large matrix multiplication after another, the peak of the arithmetic."""

import tensorflow as tf

from benchmarks.race import Training

SIDE = 2048
"""Side of the square matrices: large enough for the library's best speed, small enough for many products a window."""


def prepare(precision: str) -> Training:
    """Return a step that multiplies in ``precision``, "float32" or "bfloat16"; a product counts as one image."""
    left = tf.cast(tf.random.stateless_normal((SIDE, SIDE), (0, 0)), precision)
    right = tf.cast(tf.random.stateless_normal((SIDE, SIDE), (0, 1)), precision)
    # Without XLA: the plain call of the library is the peak to compare with.
    multiply = tf.function(tf.linalg.matmul, jit_compile=False)

    def step() -> float:
        multiply(left, right)
        return 0.0

    return Training(step, images=1, facts={"flops": 2 * SIDE**3})
