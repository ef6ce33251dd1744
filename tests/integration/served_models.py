"""Models for tests of the server: small, and each with one habit."""

from pathlib import Path

import torch
from torch import nn

import models
from pyserve.export import export


class Fussy(nn.Module):
    """Raises on negative numbers, else doubles."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x < 0).any()):
            raise ValueError("negative numbers make me sad")
        return x * 2


class Pair(nn.Module):
    """Two inputs, two outputs."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": a + b, "large": (a > b)}


class Lengths(nn.Module):
    """Token ids of any length; the sum of each row."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return ids.sum(dim=1)


class Shout(nn.Module):
    """Strings."""

    def forward(self, text: list[str]) -> list[str]:
        return [one.upper() for one in text]


class Every(nn.Module):
    """An input of each dtype of numbers; they come back as they are."""

    def forward(
        self,
        boolean: torch.Tensor,
        uint8: torch.Tensor,
        uint16: torch.Tensor,
        uint32: torch.Tensor,
        uint64: torch.Tensor,
        int8: torch.Tensor,
        int16: torch.Tensor,
        int32: torch.Tensor,
        int64: torch.Tensor,
        fp16: torch.Tensor,
        bf16: torch.Tensor,
        fp32: torch.Tensor,
        fp64: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        return (
            boolean,
            uint8,
            uint16,
            uint32,
            uint64,
            int8,
            int16,
            int32,
            int64,
            fp16,
            bf16,
            fp32,
            fp64,
        )


EVERY = {
    "boolean": torch.bool,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
"""The inputs of `every`; output N comes back from input N as `same_N`."""


class Scalar(nn.Module):
    """No dimension at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def build_repository(repository: Path) -> Path:
    """Fill `repository` and return it."""
    models.build("affine", repository)
    x = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    _put(repository, "fussy", Fussy(), {"x": x})
    # Requests stay in the queue of `patient` until four rows have come or a minute has passed.
    _put(
        repository,
        "patient",
        Fussy(),
        {"x": x},
        "batching: {max_batch_size: 4, max_queue_delay_us: 60000000}\nqueue: {capacity: 3}\n",
        max_batch_size=4,
    )
    # Requests stay in the queue of `slow` for a second and a half.
    _put(
        repository,
        "slow",
        Fussy(),
        {"x": x},
        "batching: {max_batch_size: 4, max_queue_delay_us: 1500000}\n",
        max_batch_size=4,
    )
    whole = torch.tensor([[1, 2, 3]])
    _put(repository, "pair", Pair(), {"a": whole, "b": whole + 1})
    export(
        Lengths(),
        _path(repository, "lengths"),
        inputs={"ids": whole},
        dynamic={"ids": [1]},
        output_names=["total"],
    )
    export(
        Scalar(),
        _path(repository, "scalar"),
        inputs={"x": torch.tensor(1.0)},
        output_names=["y"],
        batched=False,
    )
    export(
        Shout(),
        _path(repository, "shout"),
        inputs={"text": ["hello", "you"]},
        output_names=["loud"],
        batched=False,
        dynamic={"text": [0]},
    )
    _put(repository, "typed", Fussy(), {"x": torch.ones(1, 2, dtype=torch.float16)})
    export(
        Every(),
        _path(repository, "every"),
        inputs={name: torch.zeros(1, 2).to(dtype) for name, dtype in EVERY.items()},
        output_names=[f"same_{name}" for name in EVERY],
        method="trace",
    )
    broken = _path(repository, "broken")
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"this is no model")
    return repository


def _path(repository: Path, name: str) -> Path:
    return repository / name / "1" / "model.pt"


def _put(
    repository: Path,
    name: str,
    module: nn.Module,
    inputs: dict[str, torch.Tensor],
    config: str = "",
    max_batch_size: int = 32,
) -> None:
    path = _path(repository, name)
    names = None if isinstance(module, Pair) else ["y"]
    export(module, path, inputs=inputs, output_names=names, max_batch_size=max_batch_size)
    if config:
        (repository / name / "config.yaml").write_text(config)
