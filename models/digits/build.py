"""Builds `digits`: loads the data, trains, and reports the accuracy on what was held out."""

import torch

from ..built import BuiltModel
from ..progress import Progress, ignore_progress
from .data import load_digits_split
from .model import Reader
from .train import accuracy, train


def build(*, seed: int = 0, progress: Progress = ignore_progress) -> BuiltModel:
    """A trained classifier; its example request holds real digits."""
    split = load_digits_split()
    module = train(split, seed, progress)
    progress(f"digits: {accuracy(module, split):.2%} of held-out images right", 0.92)
    return BuiltModel(
        module=Reader(module),
        inputs={"image": torch.from_numpy(split.test_images[:4])},
        output_names=["digit", "logits"],
        max_batch_size=64,
    )
