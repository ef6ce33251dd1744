"""Answers: a status, a body that is complete, and header lines that are already bytes.

aiohttp's own Response builds a dictionary of headers, checks and serialises it for every answer;
that costs more than running a small model does.  An `Answer` is two byte strings and one write.
It streams nothing: all that pyserve says over HTTP is known before its first byte leaves.
"""

import time
from email.utils import formatdate
from http import HTTPStatus

import msgspec
from aiohttp import web

JSON = b"Content-Type: application/json\r\n"
OCTETS = b"Content-Type: application/octet-stream\r\n"
CLOSE = b"Connection: close\r\n"
TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"

# Where joining head and body would copy more than a second write costs.
_JOIN_LIMIT_BYTES = 64 * 1024

_encoder = msgspec.json.Encoder()

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
# Nobody is there to read this one as a rule; proxies and logs know the number.
_STATUS_LINES[499] = b"HTTP/1.1 499 Client Closed Request\r\n"


class Answer(web.StreamResponse):
    """One whole response. `fields` are header lines, each ended by CR LF, the type among them."""

    # The state that aiohttp's own class sets up serves headers in a dictionary and streaming;
    # neither is used, so its constructor is not called: it would take a fifth of the time.
    def __init__(self, status: int, body: bytes, fields: bytes = JSON) -> None:
        self._status = status
        self._reason = ""
        self.body = body
        self.fields = fields

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send everything; aiohttp calls this once, when the handler has returned."""
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        if not self._keep_alive:
            connection = CLOSE
        elif request.version.minor == 0:
            connection = b"Connection: keep-alive\r\n"
        else:
            connection = b""
        head = self.head(connection)
        body = self.body
        self._eof_sent = True
        self._body_length = len(body)
        if request.method == "HEAD":
            body = b""
        if len(body) <= _JOIN_LIMIT_BYTES:
            await request.writer.write(head + body)
        else:
            await request.writer.write(head)
            await request.writer.write(body)

    def head(self, connection: bytes) -> bytes:
        """Return status line and headers; `connection` is the Connection header, or nothing."""
        return b"%sContent-Length: %d\r\n%s%s%s\r\n" % (
            _STATUS_LINES[self._status],
            len(self.body),
            self.fields,
            connection,
            _date_line(),
        )

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to send."""


def json_answer(value: object, status: int = 200) -> Answer:
    """Return `value` as JSON."""
    return Answer(status, _encoder.encode(value))


def error_answer(status: int, message: str, fields: bytes = b"") -> Answer:
    """Return the one form of an error: `{"error": message}`."""
    return Answer(status, _encoder.encode({"error": message}), JSON + fields)


_date = (0, b"")


def _date_line() -> bytes:
    """The Date header, made once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, f"Date: {formatdate(now, usegmt=True)}\r\n".encode())
    return _date[1]
