"""Optimizers of the published study and their learning rates."""

import keras

from busi.config import RunConfig


def make_optimizer(config: RunConfig) -> keras.optimizers.Optimizer:
    """Return the optimizer that a run is trained with.

    Args:
        config: The run. `optimizer` is SGD with `momentum`, or Adam with Keras' defaults. `learning_rate` is constant,
            or under `schedule` "exponential" decays continuously: rate * 0.96 ** (step / 1000), as in the public
            notebook.

    Example:
        >>> optimizer = make_optimizer(RunConfig(schedule="exponential", momentum=0.0))
        >>> _ = optimizer.iterations.assign(1000)
        >>> round(float(optimizer.learning_rate), 6)
        0.0096
    """
    rate = config.learning_rate
    if config.schedule == "exponential":
        # A step is one batch, in the published protocol one image.
        rate = keras.optimizers.schedules.ExponentialDecay(rate, decay_steps=1000, decay_rate=0.96)
    if config.optimizer == "adam":
        return keras.optimizers.Adam(rate)
    return keras.optimizers.SGD(rate, momentum=config.momentum)
