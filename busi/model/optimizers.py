"""Optimizers of the study and their learning rates."""

import keras

from busi.config import DECAYS, RunConfig

WARM_UP = 0.05
"""Share of the planned steps over which the cosine schedule rises to the full rate."""


def make_optimizer(config: RunConfig, planned_steps: int = 0) -> keras.optimizers.Optimizer:
    """Return the optimizer that a run is trained with.

    Args:
        config: The run. `optimizer` is SGD with `momentum`, or Adam with Keras' defaults. `weight_decay` is subtracted
            from the weights, not added to the gradient (AdamW: Loshchilov, Hutter 2019). If `average` is set, the
            optimizer keeps an exponential moving average of the weights.
        planned_steps: Number of batches in the whole training, which all schedules except the constant one need.

    Example:
        >>> optimizer = make_optimizer(RunConfig(schedule="exponential", momentum=0.0), planned_steps=48_525)
        >>> _ = optimizer.iterations.assign(1000)
        >>> round(float(optimizer.learning_rate), 6)
        0.0096
    """
    # For no weight decay, Keras expects None, not 0.
    options: dict = {"weight_decay": config.weight_decay or None}
    if config.average:
        options |= {"use_ema": True, "ema_momentum": config.average}
    rate = make_schedule(config, planned_steps)
    if config.optimizer == "adam":
        return keras.optimizers.Adam(rate, **options)
    return keras.optimizers.SGD(rate, momentum=config.momentum, **options)


def make_schedule(config: RunConfig, planned_steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate of a run: a number, or a schedule by step (`busi.config.RunConfig.schedule`)."""
    schedules = keras.optimizers.schedules
    rate = config.learning_rate
    if config.schedule == "exponential":
        return schedules.ExponentialDecay(rate, planned_steps / DECAYS, decay_rate=0.96)
    if config.schedule == "cosine":
        rise = round(WARM_UP * planned_steps)
        # Keras does not count the steps of the warm-up among those of the cosine.
        return schedules.CosineDecay(0.0, planned_steps - rise, warmup_target=rate, warmup_steps=rise)
    return rate
