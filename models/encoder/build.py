"""Builds `encoder`: weights from the seed."""

import torch

from ..built import BuiltModel, seeded
from ..progress import Progress, ignore_progress
from .model import Encoder

_VOCABULARY = 8192


def build(*, seed: int = 0, progress: Progress = ignore_progress) -> BuiltModel:
    """The encoder in eval mode; its example has two texts, the second one shorter."""
    progress("initialising encoder", 0.3)
    with seeded(seed):
        module = Encoder(_VOCABULARY).eval()
        mask = torch.ones(2, 16, dtype=torch.int64)
        mask[1, 12:] = 0
        return BuiltModel(
            module=module,
            inputs={"token_ids": torch.randint(1, _VOCABULARY, (2, 16)) * mask, "mask": mask},
            output_names=["embedding"],
            dynamic={"token_ids": [1], "mask": [1]},
            max_batch_size=32,
        )
