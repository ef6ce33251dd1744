"""What comes back: outputs as arrays, made when they are looked at, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from pyserve.client.values import CODES
from pyserve.errors import InvalidInput
from pyserve.messages import OutputTensor
from pyserve.signature import DTYPES, decode_bytes_elements

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


class Headers(Protocol):
    """Headers or trailers of an answer."""

    def get(self, name: str, /) -> str | None:
        """Return the one of this name, which is in lower case."""


class ServerTiming(NamedTuple):
    """Where the server spent a request's time.

    seconds: by stage: `parse`, `queue`, `copy-in`, `compute`, `copy-out`, and what else it names.
    batch_size: rows that the model ran together, None where the server does not say.
    """

    seconds: dict[str, float]
    batch_size: int | None


class ClassScore(msgspec.Struct, frozen=True):
    """One of the largest values of a row; `label` is "" where the model has no labels."""

    value: float
    index: int
    label: str


class InferResult:
    """The answer to one request.

    `result["name"]` is an output as a numpy array with memory of its own, `outputs` all of them by
    name, `tensors` their bytes as they came. BYTES are arrays of `bytes`; BF16 is `ml_dtypes`'
    bfloat16 where that is installed, else the same values as float32.
    """

    __slots__ = ("_arrays", "_headers", "id", "model", "tensors", "version")

    def __init__(
        self,
        model: str,
        version: str,
        request_id: str,
        tensors: list[OutputTensor],
        headers: Headers,
    ) -> None:
        self.model = model
        self.version = version
        self.id = request_id
        self.tensors = tensors
        self._headers = headers
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._arrays.get(name)
        if array is None:
            array = self._arrays[name] = to_numpy(self._find(name))
        return array

    def __iter__(self) -> Iterator[str]:
        return (one.name for one in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{one.name} {one.datatype}{list(one.shape)}" for one in self.tensors)
        return f"<InferResult of {self.model} version {self.version}: {outputs}>"

    @property
    def outputs(self) -> dict[str, NDArray[Any]]:
        """All outputs by name, in the server's order."""
        return {one.name: self[one.name] for one in self.tensors}

    @property
    def timing(self) -> ServerTiming:
        """Where the server spent the time; empty where it does not say."""
        return parse_timing(self._headers.get("server-timing") or "")

    def torch(self, name: str) -> torch.Tensor:
        """Return an output as a tensor of torch, with memory of its own; BF16 as bfloat16."""
        import torch

        output = self._find(name)
        if output.datatype == "BYTES":
            raise InvalidInput(f'output "{name}" is BYTES, which torch does not have')
        if output.datatype == "BF16":
            bits = to_numpy(output._replace(datatype="INT16"))
            return torch.from_numpy(bits).view(torch.bfloat16)
        return torch.from_numpy(to_numpy(output))

    def strings(self, name: str) -> NDArray[Any]:
        """Return a BYTES output as an array of `str`, read as UTF-8."""
        array = self[name]
        try:
            texts = [one.decode() for one in array.reshape(-1).tolist()]
        except (AttributeError, UnicodeDecodeError):
            raise InvalidInput(f'output "{name}" does not hold text') from None
        return _object_array(texts, array.shape)

    def classes(self, name: str) -> list[list[ClassScore]]:
        """Return the largest values of each row of an output that was asked for as classes."""
        array = self.strings(name)
        rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
        try:
            return [[_score(text) for text in row] for row in rows.tolist()]
        except ValueError:
            raise InvalidInput(
                f'output "{name}" does not hold classes: ask with `classification`'
            ) from None

    def _find(self, name: str) -> OutputTensor:
        for one in self.tensors:
            if one.name == name:
                return one
        names = ", ".join(f'"{one.name}"' for one in self.tensors)
        raise InvalidInput(f'there is no output "{name}" in the answer, it has {names or "none"}')


def _score(text: str) -> ClassScore:
    value, index, *label = text.split(":", 2)
    return ClassScore(float(value), int(index), label[0] if label else "")


def to_numpy(output: OutputTensor) -> NDArray[Any]:
    """Return an output as an array of its own, aligned and writable.

    One copy, on purpose: the bytes stand anywhere in an answer, and torch wants to write.
    """
    import numpy as np

    _, datatype, shape, data = output
    code = CODES.get(datatype)
    if code is not None:
        return np.ndarray(shape, code, data).copy()
    if datatype == "BYTES":
        return _object_array(decode_bytes_elements(bytes(data)), shape)
    bits = np.frombuffer(data, "<u2").reshape(shape)
    try:
        import ml_dtypes
    except ImportError:
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.copy().view(ml_dtypes.bfloat16)


def _object_array(elements: list[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    import numpy as np

    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def is_whole(output: OutputTensor) -> bool:
    """Whether an output has as many bytes as its datatype and shape say."""
    count = 1
    for size in output.shape:
        if size < 0:
            return False
        count *= size
    info = DTYPES.get(output.datatype)
    if info is None:
        return False
    if info.size:
        return len(output.data) == count * info.size
    try:
        return len(decode_bytes_elements(bytes(output.data))) == count
    except ValueError:
        return False


def parse_timing(text: str) -> ServerTiming:
    """Return what a `Server-Timing` header says; parts that are not understood are left out."""
    seconds: dict[str, float] = {}
    batch_size = None
    for part in text.split(","):
        name, _, parameter = part.strip().partition(";")
        key, _, value = parameter.partition("=")
        try:
            if key == "dur":
                seconds[name] = float(value) / 1000
            elif key == "desc" and name == "batch":
                batch_size = int(value.strip('"'))
        except ValueError:
            continue
    return ServerTiming(seconds, batch_size)
