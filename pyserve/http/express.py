"""The express lane: which requests go by it, and what its connections share.

A plain, whole inference request needs none of what aiohttp makes of it: the core parses, checks and
submits it straight from the bytes that arrived, and writes its answer.  There is one behaviour and
two speeds: whatever the core does not plainly accept (`None`) goes to aiohttp before a byte of it
is consumed, and an error that is met on the way is the same `Answer` that the plain lane gives.
`connection.py` moves the bytes; the rules of what is plain are in `csrc/wire` and
`csrc/python/http_lane.cc`.
"""

import logging
from functools import lru_cache
from typing import NamedTuple

from aiohttp.web_protocol import RequestHandler

from pyserve._native import core
from pyserve.errors import INTERNAL, ModelFailed, PyserveError
from pyserve.http.answers import Answer
from pyserve.http.app import App, refusal
from pyserve.http.routing import Handler, NoRoute, Route, Router
from pyserve.service import Service, blame

# What `Connection` relies on inside aiohttp's connection handler.
_INTERNALS = (
    "_close",
    "_force_close",
    "_keepalive_timeout",
    "_loop",
    "_next_keepalive_close_time",
    "_paused",
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
    rehearsal: requests that can be answered at once are, and count for nothing.
    """

    def __init__(
        self,
        app: App,
        service: Service,
        router: Router,
        *,
        infer: Handler,
        max_body_bytes: int,
        rehearsal: bool = False,
    ) -> None:
        self.app = app
        self.service = service
        self.core = core().HttpLane(rehearsal=rehearsal)
        self.max_body_bytes = max_body_bytes
        self.draining = False
        self._router = router
        self._infer = infer
        self.find = lru_cache(maxsize=1024)(self._find)

    def start_draining(self) -> None:
        """From now on close each connection with its next answer, and take nothing new."""
        self.draining = True
        self.core.close_connections()

    def answer(self, error: BaseException, model: str, version: str, request_id: str) -> Answer:
        """Return what the plain lane would answer to `error`."""
        if isinstance(error, ModelFailed):
            error = blame(model, version, request_id, error)
        if not isinstance(error, PyserveError):
            _logger.error('model "%s", request "%s" failed', model, request_id, exc_info=error)
            error = PyserveError(INTERNAL)
        return refusal(error)

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
    there = {name for cls in RequestHandler.__mro__ for name in getattr(cls, "__slots__", ())}
    missing = sorted(set(_INTERNALS) - there)
    if missing:
        _logger.warning(
            "this aiohttp is not one that pyserve knows (no %s): requests take the plain lane, "
            "which is slower",
            ", ".join(missing),
        )
    return not missing
