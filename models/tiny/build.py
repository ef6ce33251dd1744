"""Builds `tiny`: the module of `mlp` with 16 to 32 to 4, weights from the seed."""

import torch

from ..built import BuiltModel, seeded
from ..mlp.model import Mlp
from ..progress import Progress, ignore_progress


def build(*, seed: int = 0, progress: Progress = ignore_progress) -> BuiltModel:
    """The perceptron that overhead is measured with."""
    progress("initialising tiny", 0.5)
    with seeded(seed):
        return BuiltModel(
            module=Mlp([16, 32, 4]).eval(),
            inputs={"features": torch.randn(4, 16)},
            output_names=["logits"],
            max_batch_size=64,
        )
