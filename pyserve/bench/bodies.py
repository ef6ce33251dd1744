"""The request that a benchmark sends again and again: its inputs, and its bytes on the wire."""

import json
import random
import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import quote

import msgspec

from pyserve.errors import ConfigError
from pyserve.messages import InputTensor
from pyserve.signature import (
    DTYPES,
    ExampleTensor,
    Signature,
    decode_bytes_elements,
    encode_bytes_elements,
)

BodyKind: TypeAlias = Literal["binary", "raw", "json"]

# What a dimension of any size gets where no example says better.
_OPEN_SIZE = 16

_STRUCT = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_HEADER_LENGTH = "Inference-Header-Content-Length"


class HttpRequest(msgspec.Struct, frozen=True):
    """A POST: path, headers (without Host and Content-Length), body."""

    path: str
    headers: dict[str, str]
    body: bytes

    def to_bytes(self, host: str) -> bytes:
        """Return the whole request as it goes over a keep-alive connection."""
        lines = [f"POST {self.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode() + self.body


class _Wanted(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]  # of one request, with the batch dimension where there is one


def inputs_for(signature: Signature, *, rows: int = 1) -> list[InputTensor]:
    """Return one request of `rows` rows: from the signature's first example, else random."""
    lead = (rows,) if signature.batched else ()
    if signature.examples:
        example = signature.examples[0]
        return [
            InputTensor(spec.name, spec.dtype, *_rows_of(example[spec.name], lead))
            for spec in signature.inputs
        ]
    return [
        _random(_Wanted(spec.name, spec.dtype, (*lead, *_closed(spec.shape))))
        for spec in signature.inputs
    ]


def inputs_for_metadata(metadata: Mapping[str, Any], *, rows: int = 1) -> list[InputTensor]:
    """Return one request of `rows` random rows for a model known by its protocol metadata."""
    tensors = []
    for one in metadata["inputs"]:
        shape = tuple(one["shape"])
        if shape[:1] == (-1,):
            shape = (rows, *shape[1:])
        if one["datatype"] not in DTYPES:
            raise ConfigError(f'input "{one["name"]}" has no known datatype: it cannot be made up')
        tensors.append(_random(_Wanted(one["name"], one["datatype"], _closed(shape))))
    return tensors


def encode(path: str, inputs: Sequence[InputTensor], kind: BodyKind) -> HttpRequest:
    """Return the request to infer at `path`; answers come in the form of the question."""
    if kind == "raw":
        if len(inputs) != 1:
            raise ConfigError(f"a raw body holds one input, the model has {len(inputs)}")
        return HttpRequest(path, {_HEADER_LENGTH: "0"}, bytes(inputs[0].data))
    described = [
        {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)} for one in inputs
    ]
    if kind == "json":
        full = [{**what, "data": values(one)} for what, one in zip(described, inputs, strict=True)]
        body = json.dumps({"inputs": full}).encode()
        return HttpRequest(path, {"Content-Type": "application/json"}, body)
    sized = [
        {**what, "parameters": {"binary_data_size": len(one.data)}}
        for what, one in zip(described, inputs, strict=True)
    ]
    header = json.dumps({"inputs": sized, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(header))}
    return HttpRequest(path, headers, header + b"".join(bytes(one.data) for one in inputs))


def with_parameters(request: HttpRequest, **parameters: int) -> HttpRequest:
    """Return a JSON or binary request that also says, for instance, `timeout` or `priority`."""
    length = request.headers.get(_HEADER_LENGTH, str(len(request.body)))
    if length == "0":
        raise ConfigError("a raw body carries no parameters")
    header = json.loads(request.body[: int(length)])
    header["parameters"] = {**header.get("parameters", {}), **parameters}
    text = json.dumps(header).encode()
    headers = dict(request.headers)
    if _HEADER_LENGTH in headers:
        headers[_HEADER_LENGTH] = str(len(text))
    return HttpRequest(request.path, headers, text + request.body[int(length) :])


def infer_path(model: str, version: str | None = None) -> str:
    """Return the path that answers requests to a model."""
    base = f"/v2/models/{quote(model, safe='')}"
    return f"{base}/versions/{quote(version, safe='')}/infer" if version else f"{base}/infer"


def values(tensor: InputTensor) -> list[Any]:
    """Return a tensor's elements as JSON has them, flat; ConfigError for dtypes it lacks."""
    if tensor.datatype == "BYTES":
        return [element.decode() for element in decode_bytes_elements(bytes(tensor.data))]
    if tensor.datatype == "BOOL":
        return [byte != 0 for byte in bytes(tensor.data)]
    if tensor.datatype in ("FP16", "BF16"):
        raise ConfigError(
            f'input "{tensor.name}" is {tensor.datatype}, which JSON does not carry: '
            "use --body binary"
        )
    count = len(tensor.data) // DTYPES[tensor.datatype].size
    return list(struct.unpack(f"<{count}{_STRUCT[tensor.datatype]}", tensor.data))


def _rows_of(example: ExampleTensor, lead: tuple[int, ...]) -> tuple[tuple[int, ...], bytes]:
    """Return shape and bytes of as many rows as `lead` says; an example's rows come in turn."""
    if not lead:
        return example.shape, example.data
    rows, row_shape = lead[0], example.shape[1:]
    if not example.shape[0]:
        raise ConfigError("the model's example has no rows")
    pieces: list[bytes]
    if example.dtype == "BYTES":
        elements = decode_bytes_elements(example.data)
        size = prod(row_shape)
        pieces = [
            encode_bytes_elements(elements[row * size : (row + 1) * size])
            for row in range(example.shape[0])
        ]
    else:
        size = len(example.data) // example.shape[0]
        pieces = [example.data[row * size : (row + 1) * size] for row in range(example.shape[0])]
    data = b"".join(pieces[row % len(pieces)] for row in range(rows))
    return (rows, *row_shape), data


def _closed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(_OPEN_SIZE if size == -1 else size for size in shape)


def _random(wanted: _Wanted) -> InputTensor:
    """Return a tensor of small numbers: integers may be indices, and 1 is one nearly anywhere."""
    count = prod(wanted.shape)
    size = DTYPES[wanted.datatype].size
    if wanted.datatype == "BYTES":
        data = encode_bytes_elements([b"hello"] * count)
    elif wanted.datatype in ("FP32", "FP64", "FP16"):
        draw = random.Random(0)
        numbers = [draw.uniform(-1, 1) for _ in range(count)]
        data = struct.pack(f"<{count}{_STRUCT[wanted.datatype]}", *numbers)
    elif wanted.datatype == "BF16":
        data = b"\x80\x3f" * count  # 1.0
    else:
        data = (1).to_bytes(size, "little") * count
    return InputTensor(wanted.name, wanted.datatype, wanted.shape, data)
