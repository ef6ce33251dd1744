"""Open Inference Protocol messages of gRPC: bytes to `InferRequest`, `InferResponse` to bytes.

A message's large parts never become objects of protobuf, which would copy them: raw contents are
views on the bytes that came, and answers are put together from bytes.  Parts that come again with
every request are serialized by protobuf once; that the parts may be joined is protobuf's own rule.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from pyserve import protos
from pyserve.errors import InvalidInput
from pyserve.messages import (
    Buffer,
    InferRequest,
    InferResponse,
    InputTensor,
    Region,
    RequestedOutput,
)
from pyserve.scheduling import nearest_deadline, priority_of, timeout_us_of
from pyserve.wire.header import refuse_duplicates
from pyserve.wire.proto_bytes import Parts, varint
from pyserve.wire.proto_contents import read_contents
from pyserve.wire.tensors import check_size, shown

# What comes before a length and that many bytes.
_RAW_OUTPUT_CONTENTS = b"\x32"  # field 6 of ModelInferResponse
_INFER_RESPONSE = b"\x12"  # field 2 of ModelStreamInferResponse

STREAM_CODE = "error_code"
"""The parameter with the gRPC code of a request that failed in a stream."""

_FINAL = "triton_final_response"
_ENABLE_FINAL = "triton_enable_empty_final_response"
_ENABLE_FINAL_BYTES = _ENABLE_FINAL.encode()


def parse(kind: str, data: bytes) -> Any:
    """Return the message of the type `kind` in `data`; InvalidInput where it is none."""
    try:
        return protos.message(kind).FromString(data)
    except DecodeError:
        raise InvalidInput(f"the message is not a valid {kind}") from None


def decode_request(parts: Parts, *, deadline_ns: int = 0) -> InferRequest:
    """Return the request in a ModelInferRequest; InvalidInput says what is wrong with it.

    deadline_ns: the caller's, which a `timeout` of the request may only bring nearer.
    """
    message = parse("inference.ModelInferRequest", parts.skeleton)
    raw: Sequence[Buffer] = message.raw_input_contents if parts.blobs is None else parts.blobs
    inputs: list[InputTensor] = []
    regions: dict[str, Region] = {}
    used = 0
    for one in message.inputs:
        name, datatype, shape = one.name, one.datatype, tuple(one.shape)
        if one.parameters:
            region = _region("input", name, one.parameters)
            if region is not None:
                if one.HasField("contents"):
                    raise InvalidInput(f"input {shown(name)} has both contents and shared memory")
                said = "shared_memory_byte_size"
                check_size(name, datatype, shape, region.byte_size, said)
                regions[name] = region
                inputs.append(InputTensor(name, datatype, shape, b""))
                continue
        if not raw:
            inputs.append(InputTensor(name, datatype, shape, read_contents(one, shape)))
            continue
        if one.HasField("contents"):
            raise InvalidInput(
                f"input {shown(name)} has contents beside raw_input_contents, expected one of them"
            )
        if used < len(raw):
            data = raw[used]
            check_size(name, datatype, shape, len(data), "raw byte size")
            inputs.append(InputTensor(name, datatype, shape, data))
        used += 1
    if raw and used != len(raw):
        raise InvalidInput(
            f"raw_input_contents has {len(raw)} entries, expected {used}: one for each input"
        )
    if len(inputs) > 1:
        refuse_duplicates("input", [one.name for one in inputs])
    timeout_us = priority = 0
    if message.parameters:
        timeout_us = timeout_us_of(_value(message.parameters, "timeout"))
        priority = priority_of(_value(message.parameters, "priority"))
    return InferRequest(
        model=message.model_name,
        version=message.model_version or None,
        id=message.id,
        inputs=inputs,
        regions=regions,
        outputs=_requested(message.outputs) if message.outputs else None,
        binary_default=True,
        deadline_ns=nearest_deadline(deadline_ns, timeout_us),
        timeout_us=timeout_us,
        priority=priority,
    )


def _requested(outputs: Any) -> list[RequestedOutput]:
    requested = []
    for one in outputs:
        classes, region = 0, None
        if one.parameters:
            classes = _count(f"output {shown(one.name)}", one.parameters, "classification")
            region = _region("output", one.name, one.parameters)
        requested.append(RequestedOutput(one.name, True, classes, region))
    if len(requested) > 1:
        refuse_duplicates("output", [one.name for one in requested])
    return requested


# --- parameters ---------------------------------------------------------------------------------


def _region(what: str, name: str, parameters: Any) -> Region | None:
    if "shared_memory_region" not in parameters:
        return None
    owner = f"{what} {shown(name)}"
    choice = parameters["shared_memory_region"]
    if choice.WhichOneof("parameter_choice") != "string_param":
        raise InvalidInput(f"{owner}: shared_memory_region is not a string")
    if "shared_memory_byte_size" not in parameters:
        raise InvalidInput(f"{owner}: shared_memory_region needs shared_memory_byte_size")
    byte_size = _count(owner, parameters, "shared_memory_byte_size")
    return Region(choice.string_param, _count(owner, parameters, "shared_memory_offset"), byte_size)


def _value(parameters: Any, key: str) -> object:
    """Return a parameter of whatever kind, None where it is absent."""
    if key not in parameters:
        return None
    kind = parameters[key].WhichOneof("parameter_choice")
    value: object = None if kind is None else getattr(parameters[key], kind)
    return value


def _count(owner: str, parameters: Any, key: str) -> int:
    """Return a parameter that counts something, 0 where it is absent."""
    if key not in parameters:
        return 0
    kind = parameters[key].WhichOneof("parameter_choice")
    if kind in ("int64_param", "uint64_param"):
        value = int(getattr(parameters[key], kind))
        if value >= 0:
            return value
    elif kind is None:
        return 0
    raise InvalidInput(f"{owner}: {key} is not what was expected, an integer of 0 or more")


# --- answers ------------------------------------------------------------------------------------


def encode_response(response: InferResponse, *, final: bool = False) -> bytes:
    """Return the ModelInferResponse, every output in `raw_output_contents`.

    An output that was written to shared memory says so, and has empty contents.  final: say that
    no other answer to the request follows.
    """
    pieces: list[bytes | memoryview] = [_opening(response.model, response.version)]
    if response.id:
        pieces.append(_response(id=response.id).SerializeToString())
    if final:
        pieces.append(_final())
    blobs: list[bytes | memoryview] = []
    for name, datatype, shape, data in response.outputs:
        region = response.regions.get(name) if response.regions else None
        pieces.append(_output(name, datatype, shape, region))
        blobs += (_RAW_OUTPUT_CONTENTS, varint(len(data)), data)
    return b"".join(pieces + blobs)


def encode_stream_response(answer: bytes) -> bytes:
    """Return the ModelStreamInferResponse that carries a serialized ModelInferResponse."""
    return b"".join((_INFER_RESPONSE, varint(len(answer)), answer))


def encode_stream_error(message: str, request_id: str, code: str, *, final: bool = False) -> bytes:
    """Return the ModelStreamInferResponse that says what was wrong with one request.

    The message has no field for a code: it is a parameter of the response, which clients that do
    not know it ignore.  code: what a call of its own would have ended with.
    """
    refused = _response(id=request_id)
    refused.parameters[STREAM_CODE].string_param = code
    answer = refused.SerializeToString() + (_final() if final else b"")
    error = protos.message("inference.ModelStreamInferResponse")(error_message=message)
    return bytes(error.SerializeToString()) + encode_stream_response(answer)


def request_id(parts: Parts) -> str:
    """Return the id of a request that may be malformed; empty where it has none, or is no message.

    For the answer to a request that could not be decoded.
    """
    try:
        return str(parse("inference.ModelInferRequest", parts.skeleton).id)
    except InvalidInput:
        return ""


def wants_final(parts: Parts) -> bool:
    """Whether a request wants to be told which answer is its last."""
    if _ENABLE_FINAL_BYTES not in parts.skeleton:
        return False
    try:
        parameters = parse("inference.ModelInferRequest", parts.skeleton).parameters
    except InvalidInput:
        return False
    return _ENABLE_FINAL in parameters and bool(parameters[_ENABLE_FINAL].bool_param)


# The same few names and shapes come again with every request; the bounds keep odd ones from piling
# up.


@functools.lru_cache(maxsize=256)
def _opening(model: str, version: str) -> bytes:
    return bytes(_response(model_name=model, model_version=version).SerializeToString())


@functools.lru_cache(maxsize=1024)
def _output(name: str, datatype: str, shape: tuple[int, ...], region: Region | None) -> bytes:
    message = _response()
    output = message.outputs.add(name=name, datatype=datatype, shape=shape)
    if region is not None:
        output.parameters["shared_memory_region"].string_param = region.name
        output.parameters["shared_memory_byte_size"].int64_param = region.byte_size
        if region.offset:
            output.parameters["shared_memory_offset"].int64_param = region.offset
    return bytes(message.SerializeToString())


@functools.cache
def _final() -> bytes:
    message = _response()
    message.parameters[_FINAL].bool_param = True
    return bytes(message.SerializeToString())


def _response(**fields: str) -> Any:
    return protos.message("inference.ModelInferResponse")(**fields)
