"""aiohttp's connection handler, an express lane before it, and our own words for what is no HTTP.

Every request begins where the one before ended, and both lanes must agree where that is.  So the
heads of all requests that arrive are read here: a plain inference request is taken, byte for byte,
and every other goes to aiohttp, byte for byte.  A head that only aiohttp can make sense of hands it
the rest of the connection.  Answers keep their order: while a request is under way in one lane,
nothing is begun in the other.

The common case, a whole request on a connection that has nothing else to do, is the core's: what
arrives goes to `_C.HttpConnection.receive`, and comes here only where that is not so.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from pyserve._native import core
from pyserve.deadlines import deadlines_here
from pyserve.errors import INTERNAL, cut, from_code
from pyserve.http.answers import CLOSE, error_answer
from pyserve.http.body_receiver import BodyReceiver, replace_protocol
from pyserve.http.express import ExpressLane
from pyserve.http.request_log import Handler
from pyserve.http.routing import Route

if TYPE_CHECKING:
    from pyserve import _C

# A body that lacks this much is received without a copy; it is worth some calls of Python.
_DIRECT_BYTES = 128 * 1024

# Bytes of later requests that wait behind one; a client that sends more is not read for a while.
_MAX_WAITING_BYTES = 256 * 1024

_logger = logging.getLogger(__name__)


class PlainConnection(RequestHandler):
    """One client's connection, all of which is aiohttp's."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, and close: where the next request begins is unknown."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        if status >= 500:
            _logger.error("a request failed outside its handler", exc_info=exc)
            text = INTERNAL
        else:
            _logger.debug("a request was not HTTP: %s", exc)
            # What aiohttp quotes of the input starts on the second line.
            text = cut(f"not a valid HTTP request: {(message or '').partition(chr(10))[0]}")
        answer = error_answer(status, text)
        answer.force_close()
        return answer


class Connection(PlainConnection):
    """One client's connection with an express lane.

    Its public methods are for the core, which tells it what it cannot deal with by itself.
    """

    __slots__ = (
        "_beginning",
        "_body",
        "_core",
        "_head",
        "_lane",
        "_plain_answers",
        "_plain_left",
        "_plain_only",
        "_ticket",
        "_waiting",
        "_waiting_bytes",
        "data_received",
    )

    # Looked up once by the loop, so that what arrives goes straight to the core.
    data_received: Callable[[bytes], None]  # type: ignore[assignment]

    def __init__(self, manager: web.Server, lane: ExpressLane, **options: Any) -> None:
        super().__init__(manager, **options)
        self._lane = lane
        self._plain_only = False  # from now on everything is aiohttp's
        self._plain_left = 0  # bytes that aiohttp's request still lacks
        self._plain_answers = 0  # that aiohttp has sent, and the connection stays open
        self._beginning = b""  # of a head
        self._head: _C.RequestHead | None = None
        self._body: _C.RequestBody | None = None  # of `_head`, on its way
        self._ticket = 0  # of the deadline of the request under way in the lane; 0: it has none
        self._waiting: list[bytes] = []  # what came behind that request
        self._waiting_bytes = 0
        self._core = lane.connect(self._loop, self)
        self.data_received = self._core.receive
        self._core.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve a client."""
        super().connection_made(transport)
        assert self.transport is not None
        self._core.attach(self.transport.write)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the request under way: nobody waits for its answer."""
        self._waiting.clear()
        route = self._core.leave()
        if self._body is not None and self._head is not None:
            self._body = None
            route = self._lane.route(self._head.target)
            self._lane.app.end()
        if route is not None:
            route.responses[499] += 1
        super().connection_lost(exc)

    def close(self) -> None:
        """Take no more requests."""
        super().close()
        self._core.open = False

    def force_close(self) -> None:
        """End at once."""
        super().force_close()
        self._core.open = False
        self._core.attach(None)

    def pause_writing(self) -> None:
        """The client does not read what was sent."""
        super().pause_writing()
        self._look()

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._look()

    # --- what the core asks for -------------------------------------------------------------

    def resolve(self, path: str) -> "tuple[Route, _C.ModelVersion] | None":
        """Return the version that a request to `path` is for, if the lane may take it."""
        return self._lane.resolve(path)

    def receive_slowly(self, data: bytes) -> None:
        """Take what the core has not; nothing: aiohttp asks itself to go on with what it has."""
        if self._plain_only or not data:
            super().data_received(data)
        else:
            self._take(data)
        self._look()

    def wait(self, data: bytes) -> None:
        """Keep what came behind the request under way."""
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _MAX_WAITING_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Take what has waited."""
        if not self._waiting or self.transport is None:
            return
        waiting = b"".join(self._waiting)
        self._waiting.clear()
        if self._waiting_bytes > _MAX_WAITING_BYTES:
            self.transport.resume_reading()
        self._waiting_bytes = 0
        self.data_received(waiting)

    def fail(
        self, route: Route, code: str, message: str, model: str, version: str, request_id: str
    ) -> None:
        """Send what the plain lane would answer to a failure."""
        lane = self._lane
        answer = lane.answer(from_code(code, message), model, version, request_id)
        route.responses[answer.status] += 1
        if self.transport is not None:  # else the server has cut the connection
            self.transport.write(answer.head(CLOSE if lane.draining else b"") + answer.body)
            if lane.draining:
                self.transport.close()

    def watch(self, deadline_ns: int) -> None:
        """End the request under way at its deadline."""
        self._ticket = deadlines_here().add(deadline_ns, self._core.expire)

    def unwatch(self) -> None:
        """The request that had a deadline has ended."""
        deadlines_here().drop(self._ticket)

    def close_after_answer(self) -> None:
        """The server drains: what was just sent is the last."""
        if self.transport is not None:
            self.transport.close()

    def receive_plain(self, data: bytes, size: int) -> None:
        """Take `data`, whose first request, of so many bytes, is aiohttp's."""
        self._plain_left = size
        self.receive_slowly(data)

    # --- under the hood ---------------------------------------------------------------------

    def _look(self) -> None:
        """Tell the core whether what comes next is for it to take."""
        self._core.open = not (
            self._plain_only
            or self._plain_left
            or self._beginning
            or self._body is not None
            or self._request_count != self._plain_answers
            or self._paused
            or self._close
            or self._force_close
        )

    def _take(self, data: bytes) -> None:
        """Hand each request in `data` to its lane, until one is under way in the express lane."""
        if self._beginning:
            data = self._beginning + data
            self._beginning = b""
        offset = 0
        while offset < len(data) and not (self._force_close or self._close):
            if self._plain_left:
                offset += self._feed(data, offset, self._plain_left)
                continue
            if self._body is not None:
                offset += self._body.append(data, offset)
                if self._body.missing:
                    return
                self.take_body()
            else:
                head = core().parse_head(data, offset)
                if head is None and core().begins_head(data, offset):
                    self._beginning = data[offset:]
                    return
                if head is None or head.close:
                    self._plain_only = True
                    super().data_received(data[offset:])
                    return
                total = head.head_bytes + head.body_bytes
                if not self._is_express(head):
                    self._plain_left = total
                    continue
                if total > len(data) - offset:
                    self._await_body(head, data, offset + head.head_bytes)
                    return
                if self._core.take(head, None):
                    offset += total
                else:
                    self._plain_left = total
            if self._core.busy:
                if offset < len(data):
                    self._core.waiting = True
                    self.wait(data[offset:])
                return

    def _is_express(self, head: "_C.RequestHead") -> bool:
        """Whether `head` is one for the express lane, and aiohttp is idle."""
        lane = self._lane
        return (
            head.ordinary
            and head.body_bytes <= lane.max_body_bytes
            and not (head.origin and lane.cors)
            and self._request_count == self._plain_answers
            and not self._paused
            and not lane.service.draining
            and self._core.serves(head.target)
        )

    def _await_body(self, head: "_C.RequestHead", data: bytes, offset: int) -> None:
        """Begin to gather the body that `head` announces; `data` has its beginning."""
        body = core().RequestBody(head.body_bytes)
        body.append(data, offset)
        self._head, self._body = head, body
        self._lane.app.begin()
        if body.missing >= _DIRECT_BYTES and self.transport is not None:
            replace_protocol(self.transport, BodyReceiver(self, body))

    def take_body(self) -> None:
        """Begin the request whose body is whole now."""
        head, body = self._head, self._body
        assert head is not None and body is not None
        self._head = self._body = None
        taken = self._core.take(head, body)
        self._lane.app.end()
        if not taken:
            super().data_received(head.text)
            super().data_received(body.content())
        self._look()

    def _feed(self, data: bytes, offset: int, most: int) -> int:
        """Give aiohttp what is its own of `data`; returns how much that was."""
        piece = data[offset : offset + most]  # `data` itself where it is all
        self._plain_left -= len(piece)
        super().data_received(piece)
        return len(piece)

    def _process_keepalive(self) -> None:
        """Close a connection that was idle for long; aiohttp knows of its own requests alone."""
        used_s = self._loop.time() if self._core.busy else self._core.used_ns / 1e9
        close_time = used_s + self._keepalive_timeout
        self._next_keepalive_close_time = max(self._next_keepalive_close_time, close_time)
        super()._process_keepalive()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer of aiohttp's."""
        sent = await super().finish_response(request, resp, start_time)
        if resp.keep_alive:
            self._plain_answers += 1
            self._look()
        return sent


class HttpServer(web.Server):
    """Makes a `Connection` for every client; what is not for `lane` goes to one handler."""

    def __init__(self, handler: Handler, lane: ExpressLane | None = None) -> None:
        # Bodies are inflated in bodies.py, under our limit and off the event loop.
        super().__init__(handler, handler_cancellation=True)
        self._lane = lane
        self._options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "read_bufsize": 1 << 20,
            "logger": _logger,
        }

    def __call__(self) -> RequestHandler:
        """Return the protocol for a new connection."""
        loop = asyncio.get_running_loop()
        if self._lane is None:
            return PlainConnection(self, loop=loop, **self._options)
        return Connection(self, self._lane, loop=loop, **self._options)
