"""Inference over HTTP as bytes: the request's JSON and tensors, the answer's.

Tensors travel as binary data both ways; answers that are JSON all through, as other servers may
send them, are read too. The JSON of requests and answers is the same again and again, but for ids,
so it is made, and read, once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import msgspec

from pyserve.client.exchange import Request
from pyserve.client.json_outputs import from_json
from pyserve.client.results import Headers, InferResult, is_whole
from pyserve.errors import InvalidInput, Unavailable
from pyserve.messages import OutputTensor
from pyserve.scheduling import timeout_us_in

_HEADER_LENGTH = "Inference-Header-Content-Length"

# An answer's JSON before binary data has a few hundred bytes.
_REMEMBERED_BYTES = 512


class HttpCall(NamedTuple):
    """One request; headers without those that every request of the client has."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


class HttpReply(NamedTuple):
    """One whole answer."""

    status: int
    headers: Headers
    body: bytes


def encode_json(value: object) -> bytes:
    """Return a value as JSON; InvalidInput where it has no such form."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the request has no form in JSON: {error}") from None


_encoder = msgspec.json.Encoder()


@functools.lru_cache(maxsize=1024)
def model_path(model: str, version: str | None) -> str:
    """Return the path of a model, or of one version."""
    base = f"/v2/models/{quote(model, safe='')}"
    return base if version is None else f"{base}/versions/{quote(version, safe='')}"


class _Opening(NamedTuple):
    """What comes before the tensors of a request; the headers are shared, for reading."""

    path: str
    header: bytes
    headers: dict[str, str]


def encode_infer(request: Request, left_s: float) -> HttpCall:
    """Return the call that runs a request: JSON, then the bytes of its inputs, joined once."""
    model, version, inputs, outputs, request_id, priority, parameters, classification = request
    timeout_us = timeout_us_in(left_s)
    described = tuple(
        [(name, datatype, shape, len(data)) for name, datatype, shape, data in inputs]
    )
    make = _opening if parameters is None else _opening.__wrapped__
    path, header, headers = make(
        model, version, described, outputs, classification, priority, timeout_us, parameters
    )
    if request_id:
        header = b'{"id":%b,%b' % (encode_json(request_id), header[1:])
        headers = _headers(header)
    return HttpCall("POST", path, b"".join([header, *[one.data for one in inputs]]), headers)


def _headers(header: bytes) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream", _HEADER_LENGTH: str(len(header))}


@functools.lru_cache(maxsize=1024)
def _opening(
    model: str,
    version: str | None,
    inputs: tuple[tuple[str, str, tuple[int, ...], int], ...],
    outputs: tuple[str, ...] | None,
    classification: int,
    priority: int,
    timeout_us: int,
    more: Mapping[str, object] | None,
) -> _Opening:
    """Return what is the same for all requests of the same names, types, shapes and wishes."""
    fields: dict[str, Any] = {
        "inputs": [
            {
                "name": name,
                "datatype": datatype,
                "shape": shape,
                "parameters": {"binary_data_size": size},
            }
            for name, datatype, shape, size in inputs
        ]
    }
    if outputs is not None:
        wanted: dict[str, object] = {"binary_data": True}
        if classification:
            wanted["classification"] = classification
        fields["outputs"] = [{"name": name, "parameters": wanted} for name in outputs]
    parameters: dict[str, object] = {**(more or {}), "binary_data_output": True}
    if priority:
        parameters["priority"] = priority
    if timeout_us:
        parameters["timeout"] = timeout_us
    fields["parameters"] = parameters
    header = encode_json(fields)
    return _Opening(f"{model_path(model, version)}/infer", header, _headers(header))


class _OutputParameters(msgspec.Struct, frozen=True, gc=False):
    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Output(msgspec.Struct, frozen=True, gc=False):
    name: str
    datatype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    parameters: _OutputParameters | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Answer(msgspec.Struct, frozen=True, gc=False):
    model_name: str
    outputs: tuple[_Output, ...]
    model_version: str | None = None
    id: str | None = None


class _Part(NamedTuple):
    """One output, and where its bytes are, counted from the end of the JSON."""

    output: _Output
    start: int
    end: int


class _Layout(NamedTuple):
    """What an answer's JSON says; `size` is that of what follows it."""

    answer: _Answer
    parts: tuple[_Part, ...]
    size: int


_decode_answer = msgspec.json.Decoder(_Answer).decode


def decode_infer(
    body: bytes,
    headers: Headers,
    malformed: Callable[[], Unavailable],
) -> InferResult:
    """Return what the body of an answer says; raises `malformed()` where that makes no sense."""
    header_length = headers.get(_HEADER_LENGTH)
    try:
        at = len(body) if header_length is None else int(header_length)
        answer, parts, size = (
            _remembered_layout(body[:at]) if at <= _REMEMBERED_BYTES else _layout(body[:at])
        )
    except ValueError:
        raise malformed() from None
    if at + size != len(body):
        raise malformed()
    view = memoryview(body)
    outputs = []
    for one, start, end in parts:
        data: bytes | memoryview = view[at + start : at + end]
        if one.parameters is None or one.parameters.binary_data_size is None:
            data = from_json(one.datatype, one.data, malformed)
        output = OutputTensor(one.name, one.datatype, one.shape, data)
        if not is_whole(output):
            raise malformed()
        outputs.append(output)
    return InferResult(
        answer.model_name, answer.model_version or "", answer.id or "", outputs, headers
    )


def _layout(text: bytes) -> _Layout:
    """Read an answer's JSON; ValueError where it is not one."""
    answer = _decode_answer(text)
    parts = []
    end = 0
    for one in answer.outputs:
        size = 0 if one.parameters is None else one.parameters.binary_data_size or 0
        start, end = end, end + size
        parts.append(_Part(one, start, end))
    return _Layout(answer, tuple(parts), end)


_remembered_layout = functools.lru_cache(maxsize=1024)(_layout)
