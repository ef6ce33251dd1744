"""The Open Inference Protocol over gRPC, as a client speaks it: questions and answers as bytes.

Tensors travel in `raw_input_contents`, which are joined to the rest of a message without protobuf
ever copying them; typed contents, as other servers may send them, are read too. Nothing here opens
a connection.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from pyserve.client.exchange import Operation, Request, not_a_model_server
from pyserve.client.metadata import IndexEntry, ModelMetadata, ModelStatistics, ServerMetadata
from pyserve.client.no_answers import cannot_reach, hung_up, not_trusted
from pyserve.client.results import InferResult, is_whole
from pyserve.client.retries import too_late
from pyserve.client.typed_contents import from_contents
from pyserve.errors import InvalidInput, PyserveError, Unavailable, from_grpc_code
from pyserve.messages import Buffer, OutputTensor
from pyserve.protos import message
from pyserve.scheduling import timeout_us_in
from pyserve.wire.proto_bytes import varint

T = TypeVar("T")

SERVICE = "inference.GRPCInferenceService"

# What comes before a length and the bytes of an input: field 7 of ModelInferRequest.
_RAW_INPUT_CONTENTS = b"\x3a"

# How grpc's own library words what no server has said.
_UNREACHED = re.compile(r"failed to connect|resolution|no route", re.IGNORECASE)
_HUNG_UP = re.compile(
    r"socket|connection|recvmsg|sendmsg|broken pipe|goaway|keepalive|transport|stream removed",
    re.IGNORECASE,
)
_OVERDUE = "Deadline Exceeded"


class GrpcCall(NamedTuple):
    """One unary call: the method's path and the serialized request."""

    path: str
    message: bytes


class GrpcReply(NamedTuple):
    """The serialized answer, and what came behind it."""

    message: bytes
    trailers: Mapping[str, str]


class GrpcDialect:
    """Operations whose calls are `GrpcCall` and whose replies are `GrpcReply`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def live(self) -> Operation[bool]:
        """Whether the process answers."""
        return self._ask("ServerLive", {}, lambda answer: bool(answer.live))

    def ready(self, model: str | None, version: str | None) -> Operation[bool]:
        """Whether the server, or a model, can be asked."""
        if model is None:
            return self._ask("ServerReady", {}, lambda answer: bool(answer.ready))
        fields = {"name": model, "version": version or ""}
        return self._ask("ModelReady", fields, lambda answer: bool(answer.ready))

    def server_metadata(self) -> Operation[ServerMetadata]:
        """Who answers."""
        return self._ask("ServerMetadata", {}, self._as(ServerMetadata))

    def model_metadata(self, model: str, version: str | None) -> Operation[ModelMetadata]:
        """What a model takes and gives."""
        fields = {"name": model, "version": version or ""}
        return self._ask("ModelMetadata", fields, self._as(ModelMetadata))

    def config(self, model: str, version: str | None) -> Operation[dict[str, Any]]:
        """A model's configuration in Triton's words; fields that say nothing are left out."""
        fields = {"name": model, "version": version or ""}
        return self._ask("ModelConfig", fields, lambda answer: plain(answer.config))

    def statistics(
        self, model: str | None, version: str | None
    ) -> Operation[list[ModelStatistics]]:
        """What live versions have done."""
        decode = self._as(ModelStatistics)
        return self._ask(
            "ModelStatistics",
            {"name": model or "", "version": version or ""},
            lambda answer: [decode(one) for one in answer.model_stats],
        )

    def index(self, ready_only: bool) -> Operation[list[IndexEntry]]:
        """All models of the repository."""
        decode = self._as(IndexEntry)
        return self._ask(
            "RepositoryIndex",
            {"ready": ready_only},
            lambda answer: [decode(one) for one in answer.models],
        )

    def load(self, model: str, config: Mapping[str, object] | None) -> Operation[None]:
        """Load a model; `config` is sent as Triton has it, JSON within a string."""
        fields: dict[str, Any] = {"model_name": model}
        if config is not None:
            text = msgspec.json.encode(dict(config)).decode()
            fields["parameters"] = {
                "config": message("inference.ModelRepositoryParameter")(string_param=text)
            }
        return self._ask("RepositoryModelLoad", fields, lambda answer: None, repeatable=False)

    def unload(self, model: str) -> Operation[None]:
        """Unload a model."""
        fields = {"model_name": model}
        return self._ask("RepositoryModelUnload", fields, lambda answer: None, repeatable=False)

    def metrics(self) -> Operation[str]:
        """Refuse: they have no call here."""
        raise InvalidInput(f"metrics are served over HTTP only, this client calls {self._url}")

    def infer(self, request: Request) -> Operation[InferResult]:
        """Run a request; its deadline is the call's."""
        call = GrpcCall(f"/{SERVICE}/ModelInfer", encode_infer(request, math.inf))
        return Operation(lambda left_s: call, self._decode_infer)

    def decode_answer(self, answer: Any, trailers: Mapping[str, str]) -> InferResult:
        """Return what a ModelInferResponse says."""
        raw = answer.raw_output_contents
        if raw and len(raw) != len(answer.outputs):
            raise self._malformed()
        outputs = []
        for position, one in enumerate(answer.outputs):
            data = raw[position] if raw else from_contents(one, self._malformed)
            output = OutputTensor(one.name, one.datatype, tuple(one.shape), data)
            if not is_whole(output):
                raise self._malformed()
            outputs.append(output)
        return InferResult(answer.model_name, answer.model_version, answer.id, outputs, trailers)

    def _decode_infer(self, reply: GrpcReply) -> InferResult:
        answer = self._parsed("ModelInferResponse", reply.message)
        return self.decode_answer(answer, reply.trailers)

    def _ask(
        self,
        method: str,
        fields: Mapping[str, Any],
        decode: Callable[[Any], T],
        *,
        repeatable: bool = True,
    ) -> Operation[T]:
        try:
            request = message(f"inference.{method}Request")(**fields)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the request has no form in gRPC: {error}") from None
        call = GrpcCall(f"/{SERVICE}/{method}", request.SerializeToString())

        def read(reply: GrpcReply) -> T:
            return decode(self._parsed(f"{method}Response", reply.message))

        return Operation(lambda left_s: call, read, repeatable)

    def _parsed(self, kind: str, data: bytes) -> Any:
        from google.protobuf.message import DecodeError

        try:
            return message(f"inference.{kind}").FromString(data)
        except DecodeError:
            raise self._malformed() from None

    def _as(self, kind: type[T]) -> Callable[[Any], T]:
        def decode(answer: Any) -> T:
            try:
                return msgspec.convert(plain(answer), kind)
            except msgspec.ValidationError:
                raise self._malformed() from None

        return decode

    def _malformed(self) -> Unavailable:
        return not_a_model_server(self._url)


def encode_infer(request: Request, left_s: float) -> bytes:
    """Return the serialized ModelInferRequest; `left_s` is infinite but for one of a stream."""
    timeout_us = timeout_us_in(left_s)
    make = _opening if request.parameters is None else _opening.__wrapped__
    pieces: list[Buffer] = [
        make(
            request.model,
            request.version,
            tuple([(one.name, one.datatype, one.shape) for one in request.inputs]),
            request.outputs,
            request.classification,
            request.priority,
            timeout_us,
            request.parameters,
        )
    ]
    if request.id:
        pieces.append(message("inference.ModelInferRequest")(id=request.id).SerializeToString())
    for one in request.inputs:
        pieces += (_RAW_INPUT_CONTENTS, varint(len(one.data)), one.data)
    return b"".join(pieces)


@functools.lru_cache(maxsize=1024)
def _opening(
    model: str,
    version: str | None,
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...],
    outputs: tuple[str, ...] | None,
    classification: int,
    priority: int,
    timeout_us: int,
    more: Mapping[str, object] | None,
) -> bytes:
    """Return all but id and contents, which is the same for all of the same names and shapes."""
    request = message("inference.ModelInferRequest")()
    try:
        request.model_name = model
        request.model_version = version or ""
        for name, datatype, shape in inputs:
            request.inputs.add(name=name, datatype=datatype, shape=shape)
        for name in outputs or ():
            output = request.outputs.add(name=name)
            if classification:
                output.parameters["classification"].int64_param = classification
        for key, value in (more or {}).items():
            _set(request.parameters[key], key, value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the request has no form in gRPC: {error}") from None
    if priority:
        request.parameters["priority"].uint64_param = priority
    if timeout_us:
        request.parameters["timeout"].int64_param = timeout_us
    return bytes(request.SerializeToString())


def _set(parameter: Any, key: str, value: object) -> None:
    match value:
        case bool():
            parameter.bool_param = value
        case int():
            parameter.int64_param = value
        case float():
            parameter.double_param = value
        case str():
            parameter.string_param = value
        case _:
            raise InvalidInput(
                f'parameter "{key[:64]}" is of type {type(value).__name__}, '
                "expected a string, a number, true or false"
            )


def plain(answer: Any) -> dict[str, Any]:
    """Return a message's fields that are set, as the JSON of the REST API has them."""
    return {field.name: _plain_field(field, value) for field, value in answer.ListFields()}


def _plain_field(field: Any, value: Any) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        inner = entry.fields_by_name["value"]
        return {key: _plain_value(inner, one) for key, one in value.items()}
    if field.is_repeated:
        return [_plain_value(field, one) for one in value]
    return _plain_value(field, value)


def _plain_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def refusal(
    url: str,
    code: str,
    details: str,
    trailers: Iterable[tuple[str, str | bytes]],
    timeout_s: float,
) -> PyserveError:
    """Return what a call that did not end with OK says, as the exception of its row."""
    if code == "DEADLINE_EXCEEDED" and _OVERDUE in details:
        return too_late(timeout_s)
    if code == "UNAVAILABLE":
        if "handshake failed" in details:
            return not_trusted(url, details.partition("handshake failed ")[2])
        if _UNREACHED.search(details):
            return cannot_reach(url, details.rpartition(": ")[2][:200])
        if _HUNG_UP.search(details):
            return hung_up(url, begun=False)
    error = from_grpc_code(code, details, retry_after_s=_retry_after_s(dict(trailers)))
    error.add_note(f"gRPC {code}")
    return error


def _retry_after_s(trailers: Mapping[str, str | bytes]) -> float | None:
    try:
        return max(float(trailers["retry-after"]), 0.0)
    except (KeyError, ValueError):
        return None


def read_trailers(trailers: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """Return metadata by key, text only."""
    return {key: value for key, value in trailers or () if isinstance(value, str)}
