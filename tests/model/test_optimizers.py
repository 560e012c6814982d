"""Steps of the optimizers, worked by hand on one number."""

import keras
import numpy as np
import pytest

from busi import config
from busi.config import RunConfig
from busi.model import optimizers

ADAM = {"optimizer": "adam", "momentum": 0.0}
PLANNED = 75 * 647
"""Steps of the published training."""


def path(run, gradients, start=1.0):
    """Return the values of one weight after each gradient."""
    optimizer, weight = optimizers.make_optimizer(run, PLANNED), keras.Variable(start)
    values = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [weight])
        values.append(float(weight))
    return values


def rate(run, step):
    optimizer = optimizers.make_optimizer(run, PLANNED)
    optimizer.iterations.assign(step)
    return float(optimizer.learning_rate)


def test_momentum_carries_nine_tenths_of_the_last_step():
    # Steps -0.01 * 2 = -0.02, then 0.9 * -0.02 - 0.01 * -1 = -0.008.
    assert path(RunConfig(), [2.0, -1.0]) == pytest.approx([0.98, 0.972], abs=1e-7)


def test_without_momentum_steps_forget():
    assert path(RunConfig(momentum=0.0), [2.0, -1.0]) == pytest.approx([0.98, 0.99], abs=1e-7)


@pytest.mark.parametrize("gradient", [300.0, 3.0, -0.003])
def test_adams_first_step_is_the_rate_whatever_the_gradient(gradient):
    """Its epsilon of 1e-7 is added to sqrt(0.001) of the gradient: that takes 0.1 % from the smallest."""
    [first] = path(RunConfig(**ADAM), [gradient], start=0.0)
    assert first == pytest.approx(-0.01 * gradient / (abs(gradient) + 1e-7 / 0.001**0.5), rel=1e-5)


def test_adams_second_step_by_hand():
    # Gradients 1 and 0: m = 0.09, v = 0.000999; corrected by 0.19 and 0.001999.
    step = 0.01 * (0.09 / 0.19) / np.sqrt(0.000999 / 0.001999)
    assert path(RunConfig(**ADAM), [1.0, 0.0]) == pytest.approx([0.99, 0.99 - step], abs=1e-6)


@pytest.mark.parametrize("settings", [{"momentum": 0.0}, ADAM])
def test_the_decaying_rate_loses_four_per_cent_every_thousand_steps_continuously(settings):
    run = RunConfig(schedule="exponential", **settings)
    rates = [rate(run, step) for step in (0, 500, 1000, 2000, 48_525)]
    # The last is that of 75 epochs of 647 images: 0.01 * 0.96 ** 48.525.
    assert rates == pytest.approx([0.01, 0.00979796, 0.0096, 0.009216, 0.00137947], rel=1e-5)


@pytest.mark.parametrize("planned", [60, 2_200, 100_000])
def test_the_decaying_rate_ends_where_the_published_one_does_however_long_the_training(planned):
    run = RunConfig(schedule="exponential", momentum=0.0)
    optimizer = optimizers.make_optimizer(run, planned)
    optimizer.iterations.assign(planned)
    assert float(optimizer.learning_rate) == pytest.approx(0.00137947, rel=1e-5)  # 0.01 * 0.96 ** 48.525


@pytest.mark.parametrize("settings", [{}, ADAM])
def test_the_constant_rate_stays(settings):
    assert rate(RunConfig(learning_rate=0.02, **settings), 48_525) == pytest.approx(0.02)


def test_the_rate_decays_by_steps_of_the_optimizer():
    # Gradient 1 twice: 0.01, then 0.01 * 0.96 ** (1 / 1000).
    run = RunConfig(learning_rate=1000.0, momentum=0.0, schedule="exponential")
    first, second = path(run, [1.0, 1.0], start=0.0)
    assert (first, second - first) == pytest.approx((-1000, -999.959179), abs=1e-3)


def test_the_rows_of_table_2_are_the_public_notebooks():
    paper = config.read_profile("paper")
    runs = config.read_family("optimization", paper).configs("published")
    made = {variant: optimizers.make_optimizer(configs[0], PLANNED) for variant, configs in runs.items()}
    assert [type(optimizer).__name__ for optimizer in made.values()] == ["SGD", "Adam", "SGD", "Adam"]
    assert made["SGD + fixed LR"].momentum == 0.9
    assert made["SGD + decaying LR"].momentum == 0
    decaying = [variant for variant, configs in runs.items() if rate(configs[0], 1000) != rate(configs[0], 0)]
    assert decaying == ["SGD + decaying LR", "Adam + decaying LR"]


def test_the_cosine_rate_rises_over_a_twentieth_of_the_steps_and_falls_to_zero():
    run = RunConfig(schedule="cosine", **ADAM)
    rise = round(0.05 * PLANNED)
    middle = rise + (PLANNED - rise) // 2
    rates = [rate(run, step) for step in (0, rise // 2, rise, middle, PLANNED)]
    assert rates == pytest.approx([0, 0.005, 0.01, 0.005, 0], abs=5e-6)


@pytest.mark.parametrize("settings", [{"momentum": 0.0}, ADAM])
def test_weight_decay_takes_a_share_of_the_weight_and_not_of_the_gradient(settings):
    """Where the gradient is 0, a step takes rate * decay * weight: 0.01 * 0.1 * 2."""
    assert path(RunConfig(weight_decay=0.1, **settings), [0.0], start=2.0) == pytest.approx([1.998], abs=1e-7)


def test_the_average_of_the_weights_is_exponential():
    optimizer = optimizers.make_optimizer(
        RunConfig(protocol="heldout", image_size=32, optimizer="sgd", average=0.75, learning_rate=1.0)
    )
    weight = keras.Variable(1.0)
    for gradient in (-2.0, -4.0):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
    # Weights 1, 3, 7; the average starts at the first step's: 3, then 0.75 * 3 + 0.25 * 7.
    optimizer.finalize_variable_values([weight])
    assert float(weight) == pytest.approx(4.0, abs=1e-6)
