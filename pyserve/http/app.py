"""One request over HTTP: find its handler, run it, and turn what it raises into a status.

The routes themselves live with their APIs (`health`, `oip`, `repository`); this module has what
is the same for all of them: errors, the count of answers, and the drain.
"""

import asyncio
import logging
import math
from typing import Protocol

from aiohttp import web

from pyserve.errors import INTERNAL, PyserveError, QueueFull, Unauthenticated
from pyserve.http.answers import Answer, error_answer
from pyserve.http.routing import NoRoute, Refusal, Route, Router

_logger = logging.getLogger(__name__)


class NoSuchPath(PyserveError):
    """No route has this path."""

    http_status = 404


class WrongMethod(PyserveError):
    """The path has routes, none with this method."""

    http_status = 405


class Beyond(Protocol):
    """Answers requests by itself, and says how many when it is asked."""

    @property
    def under_way(self) -> int:
        """How many it has begun and not answered; `look_whether_idle` is called at the last."""
        ...

    def settle_counts(self) -> None:
        """Add what it has answered to the routes' counts."""
        ...


class App:
    """The handler of every request; `drain` says when the last one has been answered.

    otherwise: how errors are worded where the route has no way of its own.
    beside: the apps of other ports, whose answers are counted with this one's.
    beyond: what answers requests of these routes without calling this.
    """

    def __init__(self, router: Router, *, otherwise: Refusal | None = None) -> None:
        self.beside: list[App] = []
        self.beyond: Beyond | None = None
        self._router = router
        self._otherwise = otherwise or refusal
        self._unmatched = Route("", "unmatched", _no_handler)
        self._in_flight = 0
        self._draining = False
        self._idle = asyncio.Event()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; only the client's going away raises (CancelledError)."""
        self.begin()
        route = self._unmatched
        try:
            route, params = self._router.resolve(request.method, request.rel_url.raw_path)
            answer = await route.handler(request, params)
        except PyserveError as error:
            answer = (route.refusal or self._otherwise)(error)
        except NoRoute as no_route:
            answer = self._no_route(request, no_route)
        except asyncio.CancelledError:
            route.responses[499] += 1
            raise
        except Exception:
            _logger.exception("%s %s failed", request.method, request.rel_url.raw_path)
            answer = (route.refusal or self._otherwise)(PyserveError(INTERNAL))
        finally:
            self.end()
        route.responses[answer.status] += 1
        if self._draining:
            answer.force_close()
        return answer

    def _no_route(self, request: web.BaseRequest, no_route: NoRoute) -> Answer:
        path = request.rel_url.raw_path[:200]
        word = no_route.refusal or self._otherwise
        if not no_route.allowed:
            return word(
                NoSuchPath(f"there is no {path} here; GET /v2 says what this server speaks")
            )
        allowed = ", ".join(no_route.allowed)
        answer = word(WrongMethod(f"{request.method[:20]} is not for {path}, expected {allowed}"))
        answer.fields += f"Allow: {allowed}\r\n".encode()
        return answer

    def begin(self) -> None:
        """Count a request that is being answered; `end` must follow."""
        self._in_flight += 1

    def end(self) -> None:
        """The request has its answer, or nobody waits for it any more."""
        self._in_flight -= 1
        self.look_whether_idle()

    def start_draining(self) -> None:
        """From now on close each connection with its next answer."""
        self._draining = True
        self.look_whether_idle()

    def look_whether_idle(self) -> None:
        """While draining: note whether the last request has been answered."""
        beyond = 0 if self.beyond is None else self.beyond.under_way
        if self._draining and not self._in_flight and not beyond:
            self._idle.set()

    async def drained(self) -> None:
        """Wait until every request that had begun is answered; after `start_draining`."""
        await self._idle.wait()

    def responses(self) -> list[tuple[str, int, int]]:
        """Route, status and how many answers, for the metrics."""
        if self.beyond is not None:
            self.beyond.settle_counts()
        totals: dict[tuple[str, int], int] = {}
        for route in (*self._router.routes, self._unmatched):
            for status, count in list(route.responses.items()):
                key = (route.pattern, status)
                totals[key] = totals.get(key, 0) + count
        for app in self.beside:
            for pattern, status, count in app.responses():
                totals[pattern, status] = totals.get((pattern, status), 0) + count
        return [(pattern, status, count) for (pattern, status), count in totals.items()]


async def _no_handler(request: web.BaseRequest, params: object) -> Answer:
    raise NoRoute(())


def refusal(error: PyserveError) -> Answer:
    """Return the answer that says what `error` says, with the headers that belong to it."""
    fields = b""
    if isinstance(error, QueueFull):
        fields = b"Retry-After: %d\r\n" % math.ceil(error.retry_after_s)
    elif isinstance(error, Unauthenticated):
        fields = b"WWW-Authenticate: Bearer\r\n"
    return error_answer(error.http_status, error.message, fields)
