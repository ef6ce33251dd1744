"""aiohttp's connection handler, an express lane before it, and our own words for what is no HTTP.

Every request begins where the one before ended, and both lanes must agree where that is.  So this
reads the heads of all requests that arrive: a plain inference request is taken here, byte for byte,
and every other goes to aiohttp, byte for byte.  A head that only aiohttp can make sense of hands it
the rest of the connection.  Answers keep their order: while a request is under way in one lane,
nothing is begun in the other.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from pyserve._native import core
from pyserve.deadlines import deadlines_here
from pyserve.errors import INTERNAL, PyserveError, cut
from pyserve.http.answers import CLOSE, error_answer
from pyserve.http.body_receiver import BodyReceiver, replace_protocol
from pyserve.http.express import ExpressLane, Target
from pyserve.http.request_log import Handler
from pyserve.scheduling import overdue

if TYPE_CHECKING:
    from pyserve import _C
    from pyserve.live import LiveVersion

# A body that lacks this much is received without a copy; it is worth some calls of Python.
_DIRECT_BYTES = 128 * 1024

# Bytes of later requests that wait behind one; a client that sends more is not read for a while.
_MAX_WAITING_BYTES = 256 * 1024

_logger = logging.getLogger(__name__)


class Connection(RequestHandler):
    """One client's connection.

    To the completion reader it is the future of the request that is under way in the express lane.
    """

    __slots__ = (
        "_body",
        "_head",
        "_lane",
        "_live",
        "_plain_answers",
        "_plain_left",
        "_request",
        "_target",
        "_ticket",
        "_waiting",
        "_waiting_bytes",
    )

    def __init__(self, manager: web.Server, lane: ExpressLane | None, **options: Any) -> None:
        super().__init__(manager, **options)
        self._lane = lane  # None: everything is aiohttp's
        self._plain_left = 0  # bytes that aiohttp's request still lacks
        self._plain_answers = 0  # that aiohttp has sent, and the connection stays open
        self._body: _C.RequestBody | None = None  # of `_head`, on its way
        # The request under way in the express lane.
        self._head: _C.RequestHead | None = None
        self._request: _C.Request | None = None
        self._target: Target | None = None
        self._live: LiveVersion | None = None
        self._ticket = 0  # of its deadline; 0: it has none
        self._waiting: list[bytes] = []  # what came behind it
        self._waiting_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; nothing: aiohttp asks itself to go on with what it has."""
        if self._lane is None or not data:
            super().data_received(data)
        elif self._request is not None:
            self._wait(data)
        else:
            self._take(self._lane, data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the request under way: nobody waits for its answer."""
        self._waiting.clear()
        target, self._target = self._target, None
        if self._body is not None and self._lane is not None:
            self._body = None
            self._lane.app.end()
        elif self._request is not None:
            # It may come back only with the next batch; nobody waits for that.
            self._request.cancel()
            self._release()
        if target is not None:
            target.route.responses[499] += 1
        super().connection_lost(exc)

    # --- the future of a request in the express lane ----------------------------------------

    def done(self) -> bool:
        """Whether the request has been settled already: the client has left."""
        return self._request is None

    def set_result(self, answer: bytes) -> None:
        """Send the answer that the core has written."""
        assert self._target is not None
        self._target.route.responses[200] += 1
        self._release()
        self._send(answer)
        self._go_on()

    def set_exception(self, error: BaseException) -> None:
        """Send what the plain lane would answer to `error`."""
        lane, head, live, target = self._lane, self._head, self._live, self._target
        assert lane is not None and head is not None and live is not None and target is not None
        model = live.model
        answer = lane.answer(error, model.name, model.version, head.id)
        target.route.responses[answer.status] += 1
        self._release()
        self._send(answer.head(CLOSE if lane.draining else b"") + answer.body)
        self._go_on()

    # --- under the hood ---------------------------------------------------------------------

    def _take(self, lane: ExpressLane, data: bytes) -> None:
        """Hand each request in `data` to its lane, until one is under way in the express lane."""
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
                if head is None or head.close:
                    self._lane = None
                    super().data_received(data[offset:])
                    return
                total = head.head_bytes + head.body_bytes
                target = self._target_of(lane, head)
                if target is None:
                    self._plain_left = total
                    continue
                if total > len(data) - offset:
                    self._await_body(head, target, data, offset + head.head_bytes)
                    lane.app.begin()
                    return
                lane.app.begin()
                if self._submit(lane, head, target, None):
                    offset += total
                else:
                    lane.app.end()
                    self._plain_left = total
            if self._request is not None:
                if offset < len(data):
                    self._wait(data[offset:])
                return

    def _await_body(self, head: "_C.RequestHead", target: Target, data: bytes, offset: int) -> None:
        """Begin to gather the body that `head` announces; `data` has its beginning."""
        body = core().RequestBody(head.body_bytes)
        body.append(data, offset)
        self._head, self._target, self._body = head, target, body
        if body.missing >= _DIRECT_BYTES and self.transport is not None:
            replace_protocol(self.transport, BodyReceiver(self, body))

    def take_body(self) -> None:
        """Begin the request whose body is whole now."""
        head, target, body, lane = self._head, self._target, self._body, self._lane
        assert head is not None and target is not None and body is not None and lane is not None
        self._body = self._target = None
        if not self._submit(lane, head, target, body):
            lane.app.end()
            super().data_received(head.text)
            super().data_received(body.content())

    def _feed(self, data: bytes, offset: int, most: int) -> int:
        """Give aiohttp what is its own of `data`; returns how much that was."""
        piece = data[offset : offset + most]  # `data` itself where it is all
        self._plain_left -= len(piece)
        super().data_received(piece)
        return len(piece)

    def _target_of(self, lane: ExpressLane, head: "_C.RequestHead") -> Target | None:
        """What `head` asks for, where it is one for the express lane and aiohttp is idle."""
        if (
            head.ordinary
            and head.body_bytes <= lane.max_body_bytes
            and self._request_count == self._plain_answers
            and not self._paused
            and not lane.service.draining
        ):
            return lane.find(head.target)
        return None

    def _submit(
        self,
        lane: ExpressLane,
        head: "_C.RequestHead",
        target: Target,
        body: "_C.RequestBody | None",
    ) -> bool:
        """Begin a request, and end it if it is answered at once; False: the plain lane's."""
        try:
            live = lane.service.lease(target.model, target.version)
        except PyserveError:
            return False
        self._head, self._target, self._live = head, target, live
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        try:
            request = live.model.submit_http(lane.core, head, body, self)
        except Exception as error:
            self.set_exception(error)
            return True
        if request is None:
            self._let_go()
            return False
        if isinstance(request, bytes):
            self.set_result(request)
        else:
            self._request = request
            if request.deadline_ns:
                self._ticket = deadlines_here().add(request.deadline_ns, self._expire)
        return True

    def _expire(self) -> None:
        """End the request that is under way: its deadline has passed."""
        if self._request is not None and self._request.expire():
            self.set_exception(overdue())

    def _let_go(self) -> None:
        """Give back the lease of the request that was under way."""
        live = self._live
        assert live is not None
        if self._ticket:
            deadlines_here().drop(self._ticket)
            self._ticket = 0
        self._head = self._request = self._target = self._live = None
        live.release()

    def _release(self) -> None:
        """End the request that was under way: it has its answer, or nobody waits for it."""
        assert self._lane is not None
        self._let_go()
        self._lane.app.end()

    def _send(self, answer: bytes) -> None:
        assert self._lane is not None
        if self.transport is None:
            return  # the server has cut the connection
        self.transport.write(answer)
        if self._lane.draining:
            self.transport.close()

    def _wait(self, data: bytes) -> None:
        """Keep what came behind the request under way."""
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _MAX_WAITING_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def _go_on(self) -> None:
        """Take what has waited."""
        if not self._waiting or self._lane is None or self.transport is None:
            return
        waiting = b"".join(self._waiting)
        self._waiting.clear()
        if self._waiting_bytes > _MAX_WAITING_BYTES:
            self.transport.resume_reading()
        self._waiting_bytes = 0
        self._take(self._lane, waiting)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer of aiohttp's."""
        sent = await super().finish_response(request, resp, start_time)
        if resp.keep_alive:
            self._plain_answers += 1
        return sent

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
        return Connection(self, self._lane, loop=asyncio.get_running_loop(), **self._options)
