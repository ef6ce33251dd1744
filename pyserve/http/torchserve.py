"""TorchServe's inference API: `/ping`, `/predictions`, `/explanations` and the descriptions.

What its bodies mean is for `pyserve.torchserve` to say; here is what belongs to HTTP: forms,
headers, and errors as `{"code", "type", "message"}`.
"""

from __future__ import annotations

import logging
import math
import time
import uuid

import msgspec
from aiohttp import hdrs, web

from pyserve.errors import INTERNAL, PyserveError, QueueFull, Unauthenticated
from pyserve.http.answers import JSON, Answer
from pyserve.http.app import NoSuchPath, WrongMethod
from pyserve.http.bodies import read_body
from pyserve.http.forms import read_fields
from pyserve.http.openapi import document
from pyserve.http.routing import Handler, Params, Router
from pyserve.service import Service
from pyserve.torchserve.catalog import Catalog
from pyserve.torchserve.faults import NoExplanations, type_of
from pyserve.torchserve.predict import Predictor
from pyserve.wire.server_timing import server_timing

_FRESH = (
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)
_logger = logging.getLogger(__name__)


def told(value: object, status: int = 200) -> Answer:
    """Return `value` as JSON, with the headers that TorchServe sends with everything."""
    return Answer(status, msgspec.json.encode(value), JSON + _headers(_new_id()))


def refuse(error: PyserveError) -> Answer:
    """Return the one form of an error of this API."""
    kind = type_of(error)
    if isinstance(error, NoSuchPath):
        kind = "ResourceNotFoundException"
    elif isinstance(error, WrongMethod):
        kind = "MethodNotAllowedException"
    status = error.http_status
    answer = told({"code": status, "type": kind, "message": error.message}, status)
    if isinstance(error, QueueFull):
        answer.fields += b"Retry-After: %d\r\n" % math.ceil(error.retry_after_s)
    elif isinstance(error, Unauthenticated):
        answer.fields += b"WWW-Authenticate: Bearer\r\n"
    return answer


def add(router: Router, method: str, pattern: str, handler: Handler) -> None:
    """Add a route of this API: its path may end in a slash."""
    for path in {pattern, pattern.rstrip("/") + "/"}:
        router.add(method, path, handler, refusal=refuse)


def flag(text: str | None) -> bool:
    """Whether a parameter says yes."""
    return text is not None and text.lower() == "true"


class TorchServeApi:
    """The routes of TorchServe's inference port."""

    def __init__(
        self, service: Service, catalog: Catalog, *, version: str, max_body_bytes: int
    ) -> None:
        self._service = service
        self._catalog = catalog
        self._predictor = Predictor(service, catalog)
        self._version = version
        self._max_body_bytes = max_body_bytes
        self._router = Router()

    def add_routes(self, router: Router) -> None:
        """Add this API's routes."""
        self._router = router
        add(router, "GET", "/ping", self.ping)
        add(router, "GET", "/api-description", self.describe)
        add(router, "OPTIONS", "/", self.describe)
        for base in ("/predictions/{model}", "/predictions/{model}/{version}"):
            add(router, "OPTIONS", base, self.describe_model)
            for method in ("GET", "POST", "PUT"):
                add(router, method, base, self.predict)
        for base in ("/explanations/{model}", "/explanations/{model}/{version}"):
            for method in ("GET", "POST", "PUT"):
                add(router, method, base, self.explain)

    async def ping(self, request: web.BaseRequest, params: Params) -> Answer:
        """Whether this server should get requests now: `Healthy`, or 503 and `Unhealthy`."""
        if self._service.why_not_ready():
            return told({"status": "Unhealthy"}, 503)
        return told({"status": "Healthy"})

    async def describe(self, request: web.BaseRequest, params: Params) -> Answer:
        """The routes of TorchServe's API on this port, as OpenAPI 3.1."""
        routes = [one for one in self._router.routes if one.refusal is refuse]
        return told(document(routes, version=self._version))

    async def describe_model(self, request: web.BaseRequest, params: Params) -> Answer:
        """The routes that predict with one model, as OpenAPI 3.1."""
        version = params.get("version")
        self._catalog.target(params["model"], version)
        tail = "{model}/{version}" if version else "{model}"
        routes = [one for one in self._router.routes if one.pattern == f"/predictions/{tail}"]
        described = document(routes, version=self._version)
        path = "/".join(filter(None, ("/predictions", params["model"], version)))
        paths = described["paths"]
        assert isinstance(paths, dict)
        described["paths"] = {path: next(iter(paths.values()))}
        return told(described)

    async def predict(self, request: web.BaseRequest, params: Params) -> Answer:
        """Predict with a model: the body is one row, in the form that its handler takes."""
        self._service.refuse_while_draining()
        body = await read_body(request, self._max_body_bytes)
        started = time.perf_counter_ns()
        fields = await read_fields(body, request.headers.get(hdrs.CONTENT_TYPE, ""))
        parse_ns = time.perf_counter_ns() - started
        name, request_id = params["model"], _new_id()
        try:
            answer, timing = await self._predictor.predict(
                name, params.get("version"), fields, request_id=request_id
            )
        except PyserveError:
            raise
        except Exception:
            _logger.exception('model "%s", request "%s" failed', name, request_id)
            raise PyserveError(INTERNAL) from None
        kind = b"Content-Type: %s\r\n" % answer.content_type.encode()
        spent = b"Server-Timing: %s\r\n" % server_timing(parse_ns, timing)
        return Answer(200, answer.body, kind + _headers(request_id) + spent)

    async def explain(self, request: web.BaseRequest, params: Params) -> Answer:
        """Refuse to explain a prediction: no model here can."""
        self._catalog.target(params["model"], params.get("version"))
        raise NoExplanations(
            "explanations are not served: they need a handler's own Python and the model's "
            "gradients, and models here run without either"
        )


def _new_id() -> str:
    return str(uuid.uuid4())


def _headers(request_id: str) -> bytes:
    return b"x-request-id: %s\r\n" % request_id.encode() + _FRESH
