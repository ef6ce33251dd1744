"""The Open Inference Protocol over HTTP, as a client speaks it: what is asked, and what is heard.

Nothing here opens a socket.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from pyserve.client.exchange import Operation, Request, not_a_model_server
from pyserve.client.http_infer import (
    HttpCall,
    HttpReply,
    decode_infer,
    encode_infer,
    encode_json,
    model_path,
)
from pyserve.client.metadata import IndexEntry, ModelMetadata, ModelStatistics, ServerMetadata
from pyserve.client.results import InferResult
from pyserve.errors import PyserveError, Unavailable, from_http_status

T = TypeVar("T")

_OK = 200


class _Statistics(msgspec.Struct, frozen=True):
    model_stats: list[ModelStatistics]


class HttpDialect:
    """Operations whose calls are `HttpCall` and whose replies are `HttpReply`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def live(self) -> Operation[bool]:
        """Whether the process answers."""
        return self._get("/v2/health/live", _yes)

    def ready(self, model: str | None, version: str | None) -> Operation[bool]:
        """Whether the server, or a model, can be asked."""
        if model is None:
            return self._get("/v2/health/ready", _yes)
        return self._get(f"{model_path(model, version)}/ready", _yes)

    def server_metadata(self) -> Operation[ServerMetadata]:
        """Who answers."""
        return self._get("/v2", self._as(ServerMetadata))

    def model_metadata(self, model: str, version: str | None) -> Operation[ModelMetadata]:
        """What a model takes and gives."""
        return self._get(model_path(model, version), self._as(ModelMetadata))

    def config(self, model: str, version: str | None) -> Operation[dict[str, Any]]:
        """A model's configuration in Triton's words."""
        return self._get(f"{model_path(model, version)}/config", self._as(dict[str, Any]))

    def statistics(
        self, model: str | None, version: str | None
    ) -> Operation[list[ModelStatistics]]:
        """What live versions have done."""
        path = "/v2/models" if model is None else model_path(model, version)
        decode = self._as(_Statistics)
        return self._get(f"{path}/stats", lambda reply: decode(reply).model_stats)

    def index(self, ready_only: bool) -> Operation[list[IndexEntry]]:
        """All models of the repository."""
        body = encode_json({"ready": ready_only})
        return self._post("/v2/repository/index", body, self._as(list[IndexEntry]))

    def load(self, model: str, config: Mapping[str, object] | None) -> Operation[None]:
        """Load a model; `config` is sent as Triton has it, JSON within a string."""
        body: dict[str, Any] = {}
        if config is not None:
            body["parameters"] = {"config": encode_json(dict(config)).decode()}
        path = f"/v2/repository/models/{quote(model, safe='')}/load"
        return self._post(path, encode_json(body), _nothing, repeatable=False)

    def unload(self, model: str) -> Operation[None]:
        """Unload a model."""
        path = f"/v2/repository/models/{quote(model, safe='')}/unload"
        return self._post(path, b"{}", _nothing, repeatable=False)

    def metrics(self) -> Operation[str]:
        """Prometheus' text."""
        return self._get("/metrics", lambda reply: reply.body.decode("utf-8", "replace"))

    def infer(self, request: Request) -> Operation[InferResult]:
        """Run a request."""
        return Operation(lambda left_s: encode_infer(request, left_s), self._decode_infer)

    def _decode_infer(self, reply: HttpReply) -> InferResult:
        if reply.status != _OK:
            raise refusal(reply)
        return decode_infer(reply.body, reply.headers, self._malformed)

    def _get(self, path: str, decode: _Decode[T]) -> Operation[T]:
        return Operation(lambda left_s: HttpCall("GET", path, b"", {}), _checked(decode))

    def _post(
        self, path: str, body: bytes, decode: _Decode[T], *, repeatable: bool = True
    ) -> Operation[T]:
        call = HttpCall("POST", path, body, {"Content-Type": "application/json"})
        return Operation(lambda left_s: call, _checked(decode), repeatable)

    def _as(self, kind: type[T]) -> _Decode[T]:
        def decode(reply: HttpReply) -> T:
            try:
                return msgspec.json.decode(reply.body, type=kind)
            except ValueError:
                raise self._malformed() from None

        return decode

    def _malformed(self) -> Unavailable:
        return not_a_model_server(self._url)


class _Decode(Protocol[T]):  # type: ignore[misc]
    def __call__(self, reply: HttpReply, /) -> T: ...


def _checked(decode: _Decode[T]) -> _Decode[T]:
    def check(reply: HttpReply) -> T:
        if reply.status != _OK:
            raise refusal(reply)
        return decode(reply)

    return check


def _yes(reply: HttpReply) -> bool:
    return True


def _nothing(reply: HttpReply) -> None:
    return None


def refusal(reply: HttpReply) -> PyserveError:
    """Return what an answer other than 200 says, as the exception of its row."""
    message = f"the server answered with status {reply.status}"
    try:
        value = msgspec.json.decode(reply.body)
    except ValueError:
        value = None
    if isinstance(value, dict):
        # TorchServe and FastAPI call it otherwise; a proxy may say nothing at all.
        message = str(value.get("error") or value.get("message") or value.get("detail") or message)
    error = from_http_status(
        reply.status, message, retry_after_s=retry_after_s(reply.headers.get("retry-after"))
    )
    error.add_note(f"HTTP {reply.status}")
    return error


def retry_after_s(text: str | None) -> float | None:
    """Return the seconds that a `Retry-After` means, a number or a date; None where none."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
