"""A model of the comparison: its file, the one request that is sent, and what comes back if right.

`prepare.py` writes a case into a folder; servers read its `case.json` too (`served_model.py`).
"""

import json
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import msgspec

CASE = "case.json"
REQUEST = "request.bin"
EXPECTED = "expected.bin"

_FORMATS = {"FP32": "f", "INT64": "q"}

# Kernels for frozen graphs, other batch sizes and other thread counts add up in other orders.
_RELATIVE = 1e-3
_ABSOLUTE = 1e-4


class Tensor(msgspec.Struct, frozen=True):
    """Name, dtype and shape of one tensor of the request: its first dimension is 1, the row."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def struct_format(self) -> str:
        """Its elements for `struct`, little-endian."""
        return f"<{prod(self.shape)}{_FORMATS[self.dtype]}"

    @property
    def size_bytes(self) -> int:
        """The length of its bytes."""
        return struct.calcsize(self.struct_format)


class ModelCase(msgspec.Struct, frozen=True, kw_only=True):
    """One model with its request and the numbers that a right answer holds.

    folder: holds `case.json`; path: the TorchScript file that everybody serves.
    request: the inputs' bytes one after the other, each in C order, little-endian.
    max_batch_size: what the model was exported with.
    """

    name: str
    folder: Path
    path: Path
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    request: bytes
    expected: tuple[float, ...]
    max_batch_size: int

    @property
    def case_path(self) -> Path:
        """What a server is told so that it finds the rest."""
        return self.folder / CASE

    def is_right(self, numbers: Sequence[float]) -> bool:
        """Whether an answer's numbers are the model's, within what kernels may differ."""
        return len(numbers) == len(self.expected) and all(
            math.isclose(got, want, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
            for got, want in zip(numbers, self.expected, strict=True)
        )


def read_case(folder: Path) -> ModelCase:
    """Return the case that `prepare.py` wrote into a folder."""
    described = json.loads((folder / CASE).read_text())
    inputs, outputs = (
        msgspec.convert(described[key], tuple[Tensor, ...]) for key in ("inputs", "outputs")
    )
    return ModelCase(
        name=described["name"],
        folder=folder,
        path=Path(described["path"]),
        inputs=inputs,
        outputs=outputs,
        request=(folder / REQUEST).read_bytes(),
        expected=tuple(unpacked(outputs, (folder / EXPECTED).read_bytes())),
        max_batch_size=described["max_batch_size"],
    )


def unpacked(tensors: Iterable[Tensor], data: bytes) -> list[float]:
    """Return the numbers of tensors whose bytes lie one after the other; ValueError if not so."""
    numbers: list[float] = []
    offset = 0
    for one in tensors:
        if len(data) < offset + one.size_bytes:
            raise ValueError(f"{len(data)} bytes are too few for {one.name}")
        numbers += struct.unpack_from(one.struct_format, data, offset)
        offset += one.size_bytes
    if offset != len(data):
        raise ValueError(f"{len(data)} bytes where the outputs have {offset}")
    return numbers


def nested(flat: Sequence[float], shape: Sequence[int]) -> list[Any]:
    """Return numbers as nested lists of a shape."""
    if len(shape) <= 1:
        return list(flat)
    step = len(flat) // shape[0]
    return [nested(flat[at : at + step], shape[1:]) for at in range(0, len(flat), step)]


def flattened(value: Any) -> Iterator[float]:
    """Return the numbers in nested lists, in order."""
    if isinstance(value, list):
        for one in value:
            yield from flattened(one)
    else:
        yield float(value)
