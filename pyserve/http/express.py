"""The express lane: which requests go by it, and what its connections share.

A plain, whole inference request needs none of what aiohttp makes of it: the core parses, checks and
runs or submits it straight from the bytes that arrived, and writes its answer.  There is one
behaviour and two speeds: whatever the core does not plainly accept goes to aiohttp before a byte of
it is consumed, and an error that is met on the way is the same `Answer` that the plain lane gives.
`connection.py` moves the bytes; the rules of what is plain are in `csrc/wire` and
`csrc/python/http_lane.cc`.
"""

import asyncio
import logging
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from aiohttp.web_protocol import RequestHandler

from pyserve._native import core
from pyserve.completions import reader_for
from pyserve.errors import INTERNAL, ModelFailed, PyserveError
from pyserve.http.answers import Answer
from pyserve.http.app import App, refusal
from pyserve.http.routing import Handler, NoRoute, Route, Router
from pyserve.service import Service, blame

if TYPE_CHECKING:
    from pyserve import _C
    from pyserve.http.connection import Connection

# What `Connection` relies on inside aiohttp's connection handler.
_INTERNALS = (
    "_close",
    "_force_close",
    "_keepalive_timeout",
    "_loop",
    "_next_keepalive_close_time",
    "_paused",
    "_process_keepalive",
    "_request_count",
    "transport",
)

_logger = logging.getLogger(__name__)


class Target(NamedTuple):
    """What an inference path means."""

    route: Route
    model: str
    version: str | None


class ExpressLane:
    """Shared by all connections of one server; on its event loop.

    infer: the handler whose routes the lane serves.  max_body_bytes: larger bodies are not its.
    cors: requests that say where they come from are not its.  fields: header lines that every
    answer has.  rehearsal: requests that can be answered at once are, and count for nothing.
    """

    def __init__(
        self,
        app: App,
        service: Service,
        router: Router,
        *,
        infer: Handler,
        max_body_bytes: int,
        cors: bool = False,
        fields: bytes = b"",
        rehearsal: bool = False,
    ) -> None:
        self.app = app
        self.service = service
        self.core: _C.HttpLane = core().HttpLane(
            max_body_bytes=max_body_bytes,
            refuse_origins=cors,
            fields=fields.decode("latin-1"),
            rehearsal=rehearsal,
        )
        self.max_body_bytes = max_body_bytes
        self.cors = cors
        self.draining = False
        self._fields = fields
        self._router = router
        self._infer = infer
        self._loop: asyncio.AbstractEventLoop | None = None
        self.find = lru_cache(maxsize=1024)(self._find)
        app.beyond = self
        service.watch(routes=self.core.forget, draining=self.core.stop_taking)

    # --- for the app: what it does not see --------------------------------------------------

    @property
    def under_way(self) -> int:
        """How many requests the lane has begun and not answered."""
        return self.core.under_way

    def settle_counts(self) -> None:
        """Count the answers since the last call where all are counted."""
        for route, answered in self.core.take_counts():
            route.responses[200] += answered

    def start_draining(self) -> None:
        """From now on close each connection with its next answer, and take nothing new."""
        self.draining = True
        if self.core.under_way:
            self.core.set_when_idle(self.app.look_whether_idle)
        self.core.stop_taking()
        self.core.close_connections()

    # --- for connections --------------------------------------------------------------------

    def connect(
        self, loop: asyncio.AbstractEventLoop, connection: "Connection"
    ) -> "_C.HttpConnection":
        """Return the core's part of a new connection."""
        if self._loop is not loop:
            self._loop = loop
            self.core.attach(loop.call_soon, reader_for(loop).queue)
        part: _C.HttpConnection = core().HttpConnection(self.core, connection)
        return part

    def resolve(self, path: str) -> "tuple[Route, _C.ModelVersion] | None":
        """Return the route that `path` takes and the live version that it leads to now.

        None where the plain lane must see to it: no such model, or one whose requests need a timer
        or more than tensors.
        """
        target = self.find(path)
        if target is None:
            return None
        try:
            model = self.service.look(target.model, target.version)
        except PyserveError:
            return None
        version = model.express_version
        return None if version is None else (target.route, version)

    def route(self, path: str) -> Route | None:
        """Return the route that `path` takes."""
        target = self.find(path)
        return None if target is None else target.route

    def answer(self, error: BaseException, model: str, version: str, request_id: str) -> Answer:
        """Return what the plain lane would answer to `error`."""
        if isinstance(error, ModelFailed):
            error = blame(model, version, request_id, error)
        if not isinstance(error, PyserveError):
            _logger.error('model "%s", request "%s" failed', model, request_id, exc_info=error)
            error = PyserveError(INTERNAL)
        answer = refusal(error)
        answer.fields += self._fields
        return answer

    def _find(self, path: str) -> Target | None:
        try:
            route, params = self._router.resolve("POST", path)
        except NoRoute:
            return None
        if route.handler != self._infer:
            return None
        return Target(route, params["model"], params.get("version"))


def supported() -> bool:
    """Whether this aiohttp has the internals that the lane relies on."""
    missing = sorted(name for name in _INTERNALS if not hasattr(RequestHandler, name))
    if missing:
        _logger.warning(
            "this aiohttp is not one that pyserve knows (no %s): requests take the plain lane, "
            "which is slower",
            ", ".join(missing),
        )
    return not missing
