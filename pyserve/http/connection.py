"""aiohttp's connection handler with our own words for requests that are no HTTP.

aiohttp answers a broken request line or header with a page of its own; a client of this server
parses `{"error": ...}`, so it gets that.
"""

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from pyserve.errors import cut
from pyserve.http.answers import error_answer
from pyserve.http.app import INTERNAL
from pyserve.http.request_log import Handler

_logger = logging.getLogger(__name__)


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ()

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
    """Makes a `Connection` for every client and hands its requests to one handler."""

    def __init__(self, handler: Handler) -> None:
        # Bodies are inflated in bodies.py, under our limit and off the event loop.
        super().__init__(handler, handler_cancellation=True)
        self._options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "read_bufsize": 1 << 20,
            "logger": _logger,
        }

    def __call__(self) -> RequestHandler:
        """Return the protocol for a new connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._options)
