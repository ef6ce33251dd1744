"""Builds `mlp`: 256 to 1024 to 1024 to 10, weights from the seed."""

import torch

from ..built import BuiltModel, seeded
from ..progress import Progress, ignore_progress
from .model import Mlp


def build(*, seed: int = 0, progress: Progress = ignore_progress) -> BuiltModel:
    """The perceptron that throughput is measured with."""
    progress("initialising mlp", 0.5)
    with seeded(seed):
        return BuiltModel(
            module=Mlp([256, 1024, 1024, 10]).eval(),
            inputs={"features": torch.randn(4, 256)},
            output_names=["logits"],
            max_batch_size=64,
        )
