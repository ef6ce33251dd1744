"""The module: two convolutions, one pool, one linear layer."""

from typing import NamedTuple

import torch
from torch import nn


class Digits(nn.Module):
    """Image [n, 1, 8, 8] to logits [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, kernel_size=3),
            nn.ReLU(),
            nn.Conv2d(64, 128, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128 * 2 * 2, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Pixels from 0 to 1 to one logit for each digit."""
        logits: torch.Tensor = self.layers(image)
        return logits


class Reading(NamedTuple):
    """digit: INT64 [n], the most likely one; logits: FP32 [n, 10]."""

    digit: torch.Tensor
    logits: torch.Tensor


class Reader(nn.Module):
    """What is served: a person wants the digit, a program may want the logits."""

    def __init__(self, digits: Digits) -> None:
        super().__init__()
        self.digits = digits

    def forward(self, image: torch.Tensor) -> Reading:
        """Pixels from 0 to 1 to the digit and its logits."""
        logits = self.digits(image)
        return Reading(logits.argmax(1), logits)
