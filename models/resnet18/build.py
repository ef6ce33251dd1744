"""Builds `resnet18`: weights from the seed, batch statistics from a few random images."""

import torch
from torch import nn

from ..built import BuiltModel, seeded
from ..progress import Progress, ignore_progress
from .model import ResNet18

_CALIBRATION_BATCHES = 3


def build(*, seed: int = 0, progress: Progress = ignore_progress) -> BuiltModel:
    """The network in eval mode, whose logits are finite and differ from image to image."""
    progress("initialising resnet18", 0.1)
    with seeded(seed):
        module = ResNet18()
        _calibrate(module, progress)
        return BuiltModel(
            module=module.eval(),
            inputs={"image": torch.randn(2, 3, 64, 64)},
            output_names=["logits"],
            dynamic={"image": [2, 3]},
            max_batch_size=32,
        )


def _calibrate(module: nn.Module, progress: Progress) -> None:
    """Let the batch norms see what flows through random weights.

    With the mean 0 and variance 1 that they start from, activations grow from block to block.
    """
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # a plain average over all batches seen
    module.train()
    with torch.no_grad():
        for index in range(_CALIBRATION_BATCHES):
            module(torch.randn(16, 3, 64, 64))
            progress("calibrating resnet18", 0.1 + 0.7 * (index + 1) / _CALIBRATION_BATCHES)
