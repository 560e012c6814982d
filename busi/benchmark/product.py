"""The yardstick of the arithmetic: one large matrix multiplication after another."""

import tensorflow as tf

from busi.benchmark.race import Referee

SIDE = 2048
"""Of the square matrices: large enough for the library's best speed, small enough for many products a window."""


def run(referee: Referee, precision: str) -> None:
    """Multiply in ``precision``, "float32" or "bfloat16"; a product counts as one image, its loss as 0."""
    left, right = (tf.cast(tf.random.stateless_normal((SIDE, SIDE), (0, k)), precision) for k in range(2))
    multiply = tf.function(tf.linalg.matmul, jit_compile=False)
    more = True
    while more:
        multiply(left, right)
        more = referee.wants_more(1, 0.0, flops=2 * SIDE**3)
