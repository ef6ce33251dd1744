"""One encoder for each door: a case becomes a message, and what comes back becomes an outcome."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc
from hostile_cases import Case, Door, Tensor
from server_process import ROOT, Reply, Server, read_reply
from tritonclient.grpc import service_pb2

from pyserve import protos
from pyserve.errors import PyserveError

LIMIT_BYTES = 8 << 20
"""What the server is told to take at most."""

_BOMB_BYTES = 8 * LIMIT_BYTES
_NESTED = "[" * 250_000 + "]" * 250_000
_GARBAGE = bytes(range(255, 0, -1)) * 4

# Struct's letter for each datatype; what is unknown is packed as FP32.
_LETTERS = {"INT64": "q", "INT32": "i", "UINT8": "B", "FP16": "e"}
_CONTENTS = {
    "FP32": "fp32_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "BYTES": "bytes_contents",
}


class Outcome(NamedTuple):
    """How a request ended. `code` is an HTTP status or the name of a gRPC code."""

    code: int | str
    message: str
    answer: Any = None

    def expected(self, error: type[PyserveError] | None) -> int | str:
        """Return the code that the table of errors has for `error` at this door."""
        if isinstance(self.code, int):
            return 200 if error is None else error.http_status
        return "OK" if error is None else error.grpc_code


def blob(tensor: Tensor) -> bytes:
    """A tensor's bytes: little-endian; strings each with their length."""
    if isinstance(tensor.data, bytes):
        return tensor.data
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(one)) + one.encode() for one in tensor.data)
    letter = _LETTERS.get(tensor.datatype, "f")
    return struct.pack(f"<{len(tensor.data)}{letter}", *tensor.data)


# --- HTTP ---------------------------------------------------------------------------------


class Message(NamedTuple):
    """An HTTP request."""

    path: str
    body: bytes
    headers: dict[str, str]


def _text(case: Case, *, binary: bool) -> tuple[bytes, list[bytes]]:
    """The JSON of a v2 request, and the bytes that follow it."""
    inputs = []
    blobs = []
    for tensor in case.inputs:
        one: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if case.trick == "shared memory":
            one["parameters"] = {
                "shared_memory_region": "nobody",
                "shared_memory_byte_size": 16,
            }
        elif tensor.data is not None and binary:
            blobs.append(blob(tensor))
            size = len(blobs[-1]) if tensor.size is None else tensor.size
            one["parameters"] = {"binary_data_size": size}
        elif tensor.data is not None:
            one["data"] = tensor.data
        inputs.append(one)
    request: dict[str, Any] = {"inputs": inputs}
    if case.outputs:
        request["outputs"] = case.outputs
    if case.id is not None:
        request["id"] = case.id
    if case.parameters:
        request["parameters"] = case.parameters
    text = json.dumps(request)
    if case.trick == "deep parameters":
        text = text[:-1] + f', "parameters": {{"a": {_NESTED}}}}}'
    elif case.trick in _NUMBERS and not binary:
        text = text.replace(_GOOD_NUMBERS, _NUMBERS[case.trick])
    return text.encode(), blobs


_GOOD_NUMBERS = "[1.0, 2.0, 3.0, 4.0]"
_NUMBERS = {
    "NaN": "[NaN, 2.0, 3.0, 4.0]",
    "Infinity": "[1.0, -Infinity, 3.0, 4.0]",
    "deep": _NESTED,
}


def _v2_path(case: Case) -> str:
    version = "" if case.version is None else f"/versions/{quote(case.version, safe='')}"
    return f"/v2/models/{quote(case.model, safe='')}{version}/infer"


def _json(case: Case) -> Message:
    text, _ = _text(case, binary=False)
    return Message(_v2_path(case), text, {})


def _binary(case: Case) -> Message:
    text, blobs = _text(case, binary=True)
    length = str(len(text))
    if case.trick.startswith("length "):
        length = case.trick.removeprefix("length ")
    return Message(
        _v2_path(case), b"".join([text, *blobs]), {"Inference-Header-Content-Length": length}
    )


def _row(case: Case) -> bytes:
    """The JSON of a model's only input, as TorchServe's clients send it."""
    (tensor,) = case.inputs
    text = json.dumps(tensor.data)
    return text.replace(_GOOD_NUMBERS, _NUMBERS.get(case.trick, _GOOD_NUMBERS)).encode()


def _torchserve(case: Case) -> Message:
    version = "" if case.version is None else f"/{quote(case.version, safe='')}"
    path = f"/predictions/{quote(case.model, safe='')}{version}"
    return Message(path, _row(case), {"Content-Type": "application/json"})


def _with_body(body: Callable[[bytes], bytes], **headers: str) -> Callable[[Message], Message]:
    """Return what changes a request's body, and sets headers (with `_` for `-`)."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def change(message: Message) -> Message:
        changed = body(message.body)
        kept = dict(message.headers)
        length = "Inference-Header-Content-Length"
        if length in kept and not changed.startswith(message.body[: int(kept[length])]):
            kept[length] = str(len(changed))
        return Message(message.path, changed, kept | named)

    return change


_FORM = b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\n1\r\n--b--\r\n'
_FORM_TYPE = "multipart/form-data; boundary=b"

_HTTP_TRICKS: dict[str, Callable[[Message], Message]] = {
    "empty": _with_body(lambda body: b""),
    "garbage": _with_body(lambda body: _GARBAGE),
    "cut": _with_body(lambda body: body[:-9]),
    "leftover": _with_body(lambda body: body + b"1234"),
    "bomb gzip": _with_body(lambda _: gzip.compress(bytes(_BOMB_BYTES)), Content_Encoding="gzip"),
    "bomb deflate": _with_body(
        lambda _: zlib.compress(bytes(_BOMB_BYTES)), Content_Encoding="deflate"
    ),
    "damaged": _with_body(lambda body: gzip.compress(body)[:-4], Content_Encoding="gzip"),
    "unknown coding": _with_body(lambda body: body, Content_Encoding="br"),
    "odd type": _with_body(lambda body: body, Content_Type="application/x-odd"),
    "form": _with_body(lambda _: _FORM, Content_Type=_FORM_TYPE),
    "bad form": _with_body(
        lambda _: _FORM.replace(b"other", b"o\x17\xff"), Content_Type=_FORM_TYPE
    ),
    "open form": _with_body(lambda _: _FORM[:40], Content_Type=_FORM_TYPE),
    "text as json": _with_body(lambda _: b"Hello", Content_Type="application/json"),
}


def _ask_http(server: Server, case: Case, message: Message) -> Reply:
    if case.trick == "too large":
        # The length alone is refused, before any of it is sent.
        return _ask_raw(server, message, f"Content-Length: {LIMIT_BYTES + 1}", b"")
    if case.trick == "chunks":
        chunks = b"1\r\n \r\n" * 70_000 + b"0\r\n\r\n"
        return _ask_raw(server, message, "Transfer-Encoding: chunked", chunks)
    trick = _HTTP_TRICKS.get(case.trick)
    if trick is not None:
        message = trick(message)
    return server.ask("POST", *message)


def _ask_raw(server: Server, message: Message, framing: str, body: bytes) -> Reply:
    head = [f"POST {message.path} HTTP/1.1", "Host: here", framing]
    head += [f"{name}: {value}" for name, value in message.headers.items()]
    with server.connect() as peer, peer.makefile("rb") as stream:
        peer.sendall("\r\n".join([*head, "", ""]).encode() + body)
        return read_reply(stream)


def _http_outcome(reply: Reply, keys: list[str], said: str) -> Outcome:
    if reply.status == 200:
        return Outcome(200, "", reply)
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json) == keys
    return Outcome(reply.status, reply.json[said])


# --- gRPC ---------------------------------------------------------------------------------

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_PREDICT = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"


def _request(case: Case, *, raw: bool) -> Any:
    """The ModelInferRequest of a case."""
    request = service_pb2.ModelInferRequest(
        model_name=case.model, model_version=case.version or "", id=case.id or ""
    )
    for tensor in case.inputs:
        one = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if case.trick == "shared memory":
            one.parameters["shared_memory_region"].string_param = "nobody"
            one.parameters["shared_memory_byte_size"].int64_param = 16
        elif raw and tensor.data is not None:
            request.raw_input_contents.append(blob(tensor))
        elif tensor.data is not None:
            field = _CONTENTS.get(tensor.datatype, "fp32_contents")
            getattr(one.contents, field).extend(tensor.data)
    for output in case.outputs:
        asked = request.outputs.add(name=output["name"])
        _fill(asked.parameters, output.get("parameters", {}))
    _fill(request.parameters, case.parameters)
    return request


def _fill(parameters: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        field = "string_param" if isinstance(value, str) else "int64_param"
        setattr(parameters[name], field, value)


def _prediction(case: Case) -> Any:
    """The PredictionsRequest of a case."""
    kind = protos.message("org.pytorch.serve.grpc.inference.PredictionsRequest")
    request = kind(model_name=case.model, model_version=case.version or "")
    request.input["data"] = _row(case)
    return request


def _no_raw_content(request: Any) -> None:
    # One is there, or it would not be clear that the contents are raw.
    request.inputs.add(name="z", datatype="FP32", shape=[1])


def _both_contents(request: Any) -> None:
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    del request.raw_input_contents[:]
    request.raw_input_contents.append(bytes(16))


def _wrong_contents(request: Any) -> None:
    request.inputs[0].contents.Clear()
    request.inputs[0].contents.int64_contents.extend([1, 2, 3, 4])


def _add_bytes(request: Any, size: int) -> None:
    if hasattr(request, "raw_input_contents"):
        request.raw_input_contents.append(bytes(size))
    else:
        request.input["more"] = bytes(size)


_MESSAGE_TRICKS: dict[str, Callable[[Any], None]] = {
    "no raw content": _no_raw_content,
    "two raw contents": lambda request: request.raw_input_contents.append(bytes(16)),
    "many raw contents": lambda request: request.raw_input_contents.extend([b""] * 100_000),
    "both contents": _both_contents,
    "wrong contents": _wrong_contents,
    "too large": lambda request: _add_bytes(request, LIMIT_BYTES + 1),
    "bomb gzip": lambda request: _add_bytes(request, _BOMB_BYTES),
    "bomb deflate": lambda request: _add_bytes(request, _BOMB_BYTES),
}
_GRPC_BYTES_TRICKS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "garbage": lambda _: _GARBAGE,
    "cut": lambda data: data[:-9],
}
_COMPRESSION = {"bomb gzip": grpc.Compression.Gzip, "bomb deflate": grpc.Compression.Deflate}


@contextmanager
def grpc_channel(server: Server) -> Iterator[Any]:
    """A connection for bytes; nothing is checked on this side."""
    with grpc.insecure_channel(
        server.ready["grpc"].removeprefix("grpc://"),
        options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
    ) as channel:
        yield channel


def call(
    channel: Any, method: str, data: bytes, metadata: Any = (), compression: Any = None
) -> Outcome:
    """Send serialized bytes to a method, and say how that ended."""
    try:
        answer = channel.unary_unary(method)(
            data, timeout=90, metadata=metadata, compression=compression
        )
    except grpc.RpcError as error:
        return Outcome(error.code().name, error.details())
    return Outcome("OK", "", answer)


def _ask_grpc(server: Server, case: Case, method: str, request: Any) -> Outcome:
    if case.trick in _MESSAGE_TRICKS:
        _MESSAGE_TRICKS[case.trick](request)
    data = request.SerializeToString()
    if case.trick in _GRPC_BYTES_TRICKS:
        data = _GRPC_BYTES_TRICKS[case.trick](data)
    with grpc_channel(server) as channel:
        return call(channel, method, data, compression=_COMPRESSION.get(case.trick))


# --- all of them --------------------------------------------------------------------------


def send(server: Server, door: Door, case: Case) -> Outcome:
    """Send a case through a door."""
    match door:
        case Door.JSON:
            outcome = _http_outcome(_ask_http(server, case, _json(case)), ["error"], "error")
        case Door.BINARY:
            outcome = _http_outcome(_ask_http(server, case, _binary(case)), ["error"], "error")
        case Door.TORCHSERVE:
            reply = _ask_http(server, case, _torchserve(case))
            outcome = _http_outcome(reply, ["code", "type", "message"], "message")
        case Door.RAW | Door.TYPED:
            request = _request(case, raw=door is Door.RAW)
            outcome = _ask_grpc(server, case, _INFER, request)
        case Door.TORCHSERVE_GRPC:
            outcome = _ask_grpc(server, case, _PREDICT, _prediction(case))
    assert "Traceback" not in outcome.message
    assert str(ROOT) not in outcome.message
    assert len(outcome.message.encode()) <= 1024
    return outcome


def numbers_of(door: Door, outcome: Outcome) -> list[float]:
    """Return the numbers of the first output of an answer."""
    match door:
        case Door.JSON:
            return list(outcome.answer.json["outputs"][0]["data"])
        case Door.BINARY:
            return list(json.loads(outcome.answer.body)["outputs"][0]["data"])
        case Door.TORCHSERVE:
            return list(outcome.answer.json)
        case Door.TORCHSERVE_GRPC:
            kind = protos.message("org.pytorch.serve.grpc.inference.PredictionResponse")
            return list(json.loads(kind.FromString(outcome.answer).prediction))
        case Door.RAW | Door.TYPED:
            answer = service_pb2.ModelInferResponse.FromString(outcome.answer)
            return list(struct.unpack("<4f", answer.raw_output_contents[0]))
