"""Trains the network; about ten seconds on one core."""

import torch
from torch import nn
from torch.nn import functional

from ..built import seeded
from ..progress import Progress
from .data import DigitsSplit
from .model import Digits

EPOCHS = 30
BATCH_ROWS = 64
PEAK_LEARNING_RATE = 3e-3


def train(split: DigitsSplit, seed: int, progress: Progress) -> Digits:
    """A trained module in eval mode; the held-out images are not looked at."""
    images, labels = torch.from_numpy(split.train_images), torch.from_numpy(split.train_labels)
    steps = -(-len(labels) // BATCH_ROWS)
    with seeded(seed):
        module = Digits().train()
        optimizer = torch.optim.AdamW(module.parameters(), lr=PEAK_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, PEAK_LEARNING_RATE, total_steps=EPOCHS * steps
        )
        for epoch in range(EPOCHS):
            total_loss = 0.0
            order = torch.randperm(len(labels))
            for start in range(0, len(order), BATCH_ROWS):
                rows = order[start : start + BATCH_ROWS]
                logits = module(_varied(images[rows]))
                loss = functional.cross_entropy(logits, labels[rows], label_smoothing=0.05)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                total_loss += loss.item()
            progress(
                f"training digits: epoch {epoch + 1} of {EPOCHS}, loss {total_loss / steps:.3f}",
                0.9 * (epoch + 1) / EPOCHS,
            )
    return module.eval()


def accuracy(module: nn.Module, split: DigitsSplit) -> float:
    """The share of held-out images that the module classifies as their label says."""
    with torch.inference_mode():
        classes = module(torch.from_numpy(split.test_images)).argmax(dim=1)
    return float((classes == torch.from_numpy(split.test_labels)).float().mean())


def _varied(images: torch.Tensor) -> torch.Tensor:
    """Each image turned, scaled and moved a little, as another hand might have written it."""
    rows = len(images)
    angle, scale = _around(rows, 0.0, 0.2), _around(rows, 1.0, 0.1)
    right, down = _around(rows, 0.0, 0.15), _around(rows, 0.0, 0.15)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    top, bottom = torch.stack([cosine, -sine, right], 1), torch.stack([sine, cosine, down], 1)
    grid = functional.affine_grid(
        torch.stack([top, bottom], 1), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False)


def _around(rows: int, middle: float, spread: float) -> torch.Tensor:
    return middle + spread * (2 * torch.rand(rows) - 1)
