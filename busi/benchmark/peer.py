"""The same networks, losses and optimizer in PyTorch, where it is installed: the peer."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from busi.benchmark.race import Referee
from busi.config import RunConfig
from busi.dataset import arrays, catalog


class UNet(nn.Module):
    """The baseline's network of ``config``: images (n, 1, s, s) to logits (n, 2, o, o)."""

    def __init__(self, config: RunConfig):
        super().__init__()
        f, padding = config.base_filters, config.padding
        widths = [f, 2 * f, 4 * f, 8 * f]
        self.down = nn.ModuleList(
            _pair(before, width, width, padding) for before, width in zip([1, *widths], widths, strict=False)
        )
        self.bottleneck = _pair(8 * f, 16 * f, 8 * f, padding)
        self.doubling = nn.ModuleList(
            [nn.Upsample(scale_factor=2), *(nn.ConvTranspose2d(width, width, 2, 2) for width in (4 * f, 2 * f, f))]
        )
        self.up = nn.ModuleList(
            _pair(2 * width, width, narrowed, padding)
            for width, narrowed in ((8 * f, 4 * f), (4 * f, 2 * f), (2 * f, f), (f, f))
        )
        self.logits = nn.Conv2d(f, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of lesion and background."""
        skips = []
        for pair in self.down:
            skips.append(pair(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bottleneck(x)
        for doubled, pair in zip(self.doubling, self.up, strict=True):
            x, skip = doubled(x), skips.pop()
            start, size = (skip.shape[-1] - x.shape[-1]) // 2, x.shape[-1]
            x = pair(torch.cat([skip[..., start : start + size, start : start + size], x], dim=1))
        # As in Keras, the last layer is float32 in every precision.
        with torch.autocast("cpu", enabled=False):
            return self.logits(x.float())

    def in_order(self) -> list[nn.Parameter]:
        """The parameters in the order of `busi.model.unet.build`'s weights: an upsampling before its convolutions."""
        steps = zip(self.doubling, self.up, strict=True)
        parts = [*self.down, self.bottleneck, *(part for step in steps for part in step), self.logits]
        return [parameter for part in parts for parameter in part.parameters()]


def _pair(before: int, first: int, second: int, padding: str) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, first, 3, padding=padding), nn.ReLU(), nn.Conv2d(first, second, 3, padding=padding), nn.ReLU()
    )


def load(network: UNet, weights: list[np.ndarray]) -> None:
    """Give the network the weights of the Keras one; kernels change from (h, w, in, out) to (out, in, h, w).

    A transposed convolution's kernel is (h, w, out, in) in Keras and (in, out, h, w) here: the same change.
    """
    with torch.no_grad():
        for parameter, values in zip(network.in_order(), weights, strict=True):
            parameter.copy_(torch.from_numpy(values.transpose(3, 2, 0, 1) if values.ndim == 4 else values))


def loss(logits: torch.Tensor, targets: torch.Tensor, config: RunConfig) -> torch.Tensor:
    """Binary cross-entropy as `busi.model.losses.get` has it, of logits and targets (n, 2, o, o)."""
    if config.bce == "logits":
        return functional.binary_cross_entropy_with_logits(logits, targets)
    p = functional.softmax(logits, dim=1).clamp(1e-7, 1 - 1e-7)
    return -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()


class Adam(torch.optim.Adam):
    """Adam with Keras' epsilon, which is added before the second moment's bias is corrected, in PyTorch after it.

    In the first steps that is 30 times as much, and gradients of a wide layer are small.
    """

    EPSILON = 1e-7
    """As in ``keras.optimizers.Adam``."""

    def step(self, closure=None):
        """As PyTorch's."""
        self.steps = getattr(self, "steps", 0) + 1
        for group in self.param_groups:
            group["eps"] = self.EPSILON / math.sqrt(1 - group["betas"][1] ** self.steps)
        return super().step(closure)


def optimizer(network: UNet, config: RunConfig) -> torch.optim.Optimizer:
    """The optimizer of ``config``."""
    if config.optimizer == "adam":
        return Adam(network.parameters(), lr=config.learning_rate)
    return torch.optim.SGD(network.parameters(), lr=config.learning_rate, momentum=config.momentum)


def run(referee: Referee, config: RunConfig, data_dir: Path, weights: Path) -> None:
    """Train ``config`` on the images in ``data_dir`` from ``weights``, without metrics: less work than the others do.

    In channels-last layout, PyTorch's fastest for convolutions on a processor.
    """
    made = arrays.published(catalog.read(data_dir, expected=None), config)
    images, targets = (
        torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        for array in (made.images, made.targets)
    )
    network = UNet(config)
    with np.load(weights) as stored:
        load(network, list(stored.values()))
    network = network.to(memory_format=torch.channels_last)
    steps = optimizer(network, config)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    batches, seen, mean, more = len(images) // config.batch_size, 0, 0.0, True
    while more:
        rows = slice(seen % batches * config.batch_size, (seen % batches + 1) * config.batch_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision != "float32"):
            logits = network(images[rows])
        value = loss(logits, targets[rows], config)
        steps.zero_grad()
        value.backward()
        steps.step()
        seen += 1
        mean += (value.item() - mean) / seen
        more = referee.wants_more(config.batch_size, mean, parameters=parameters)
