"""Contender "PyTorch": the same network, loss and optimizer in PyTorch, where it is installed.

It computes no metrics, which is less work than the other contenders do, and keeps images in the layout that is
PyTorch's fastest for convolutions on a processor, channels last.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.race import Training
from busi.config import RunConfig
from busi.dataset import arrays, catalog


def prepare(config: RunConfig, data_dir: Path, weights: Path) -> Training:
    """Prepare training ``config`` on the images in ``data_dir``, starting from the file ``weights``."""
    prepared = arrays.published_arrays(catalog.read_catalog(data_dir, expected=None), config)
    images = to_channels_last(prepared.images)
    targets = to_channels_last(prepared.targets)
    with np.load(weights) as stored:
        parameters = read_weights(list(stored.values()))
    optimizer = make_optimizer(parameters, config)
    batches = len(images) // config.batch_size
    losses = []

    def step() -> float:
        start = len(losses) % batches * config.batch_size
        rows = slice(start, start + config.batch_size)
        losses.append(train_step(parameters, optimizer, images[rows], targets[rows], config))
        return sum(losses) / len(losses)

    count = sum(parameter.numel() for parameter in parameters)
    return Training(step, config.batch_size, facts={"parameters": count})


def train_step(parameters, optimizer, images: torch.Tensor, targets: torch.Tensor, config: RunConfig) -> float:
    """Take one step on images (n, 1, s, s) and targets (n, 2, o, o); returns the loss before it."""
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision != "float32"):
        logits = compute_logits(parameters, images, config)
    loss = compute_loss(logits, targets, config)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def to_channels_last(array: np.ndarray) -> torch.Tensor:
    """Convert images (n, h, w, c) to a tensor (n, c, h, w) that lies in memory as before."""
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def read_weights(weights: list[np.ndarray]) -> list[torch.Tensor]:
    """Convert the weights of the Keras network to parameters, in the same order."""
    parameters = []
    for values in weights:
        parameter = torch.from_numpy(values)
        if parameter.ndim == 4:
            # From (h, w, in, out) to (out, in, h, w). A transposed convolution's kernel is (h, w, out, in) in Keras
            # and (in, out, h, w) here: the same change.
            parameter = parameter.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
        parameters.append(parameter.clone().requires_grad_())
    return parameters


def compute_logits(parameters: list[torch.Tensor], images: torch.Tensor, config: RunConfig) -> torch.Tensor:
    """Compute the baseline's logits (n, 2, o, o) of images (n, 1, s, s)."""
    unused = iter(parameters)

    def convolve_twice(x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = functional.conv2d(x, next(unused), next(unused), padding=config.padding).relu()
        return x

    x = images
    skips = []
    for _ in range(4):
        x = convolve_twice(x)
        skips.append(x)
        x = functional.max_pool2d(x, 2)
    x = convolve_twice(x)
    for level in range(4):
        if level == 0:
            x = functional.interpolate(x, scale_factor=2)
        else:
            x = functional.conv_transpose2d(x, next(unused), next(unused), stride=2)
        skip = skips.pop()
        size = x.shape[-1]
        start = (skip.shape[-1] - size) // 2
        middle = skip[..., start : start + size, start : start + size]
        x = convolve_twice(torch.cat([middle, x], dim=1))
    # As in Keras, the last layer is float32 in every precision.
    with torch.autocast("cpu", enabled=False):
        return functional.conv2d(x.float(), next(unused), next(unused))


def compute_loss(logits: torch.Tensor, targets: torch.Tensor, config: RunConfig) -> torch.Tensor:
    """Compute binary cross-entropy as `busi.model.losses` does."""
    if config.bce == "logits":
        return functional.binary_cross_entropy_with_logits(logits, targets)
    log_p = functional.log_softmax(logits, dim=1)
    return -(targets * log_p + (1 - targets) * log_p.flip(1)).mean()


class Adam(torch.optim.Adam):
    """Adam with Keras' epsilon, which is added before the second moment's bias is corrected, not afterwards.

    In the first steps this makes a factor of up to 30, and gradients of a wide layer are small enough for it to matter.
    """

    def step(self, closure=None):
        """Take one step."""
        self.steps = getattr(self, "steps", 0) + 1
        for group in self.param_groups:
            group["eps"] = 1e-7 / math.sqrt(1 - group["betas"][1] ** self.steps)
        return super().step(closure)


def make_optimizer(parameters: list[torch.Tensor], config: RunConfig) -> torch.optim.Optimizer:
    """Return the optimizer of ``config``."""
    if config.optimizer == "adam":
        return Adam(parameters, lr=config.learning_rate)
    return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum)
