"""Optimizers of the published study and their learning rates."""

import keras

from busi.config import DECAYS, RunConfig


def make_optimizer(config: RunConfig, planned_steps: int = 0) -> keras.optimizers.Optimizer:
    """Return the optimizer that a run is trained with.

    Args:
        config: The run. `optimizer` is SGD with `momentum`, or Adam with Keras' defaults. `learning_rate` is constant,
            or under `schedule` "exponential" decays continuously, to 0.96 ** 48.525 = 0.138 of itself when
            ``planned_steps`` have been taken. For the published training this is rate * 0.96 ** (step / 1000), as in
            the public notebook; a training of other batches or epochs goes through the same decay.
        planned_steps: Number of batches in the whole training; needed by the exponential schedule alone.

    Example:
        >>> optimizer = make_optimizer(RunConfig(schedule="exponential", momentum=0.0), planned_steps=48_525)
        >>> _ = optimizer.iterations.assign(1000)
        >>> round(float(optimizer.learning_rate), 6)
        0.0096
    """
    rate = config.learning_rate
    if config.schedule == "exponential":
        rate = keras.optimizers.schedules.ExponentialDecay(rate, planned_steps / DECAYS, decay_rate=0.96)
    if config.optimizer == "adam":
        return keras.optimizers.Adam(rate)
    return keras.optimizers.SGD(rate, momentum=config.momentum)
