"""One keep-alive connection of the built-in load generator: send bytes, hear of the answer.

It reads of an answer what a generator needs: the status, and where the answer ends.
"""

import asyncio
import re
from collections.abc import Callable
from typing import cast

DISCONNECTED = "disconnected"
UNREADABLE = "unreadable answer"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Client(asyncio.Protocol):
    """Calls `on_answer(client, outcome)` once for every `send`.

    outcome: the HTTP status as text, or DISCONNECTED or UNREADABLE, after which the connection is
    gone.  One request at a time.
    """

    def __init__(self, on_answer: Callable[["Client", str], None]) -> None:
        self._on_answer = on_answer
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._missing = 0  # bytes of the body still to come, once the head is read
        self._status = ""
        self._waiting = False
        self.head = b""  # of the last answer
        # For the one who sends: when the request was meant to be sent, and when it was.
        self.sent_ns = self.left_ns = 0

    @property
    def connected(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None

    def send(self, request: bytes, sent_ns: int, left_ns: int) -> None:
        """Send a request now, at `left_ns`; `sent_ns` is when it was meant to be sent."""
        if self._transport is None:
            raise ConnectionError("the server hung up")
        self.sent_ns = sent_ns
        self.left_ns = left_ns
        self._waiting = True
        self._transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        # uvloop's transports are asyncio's in all but name.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read on; tell when the answer is whole."""
        if self._missing:
            self._missing -= len(data)
        else:
            self._received += data
            head, end, body = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            self._received = b""
            self.head = head
            length = _LENGTH.search(head)
            if length is None or not head.startswith(b"HTTP/1.1 "):
                self._end(UNREADABLE)
                return
            self._status = head[9:12].decode("ascii", "replace")
            self._missing = int(length[1]) - len(body)
        if self._missing == 0 and self._waiting:
            self._waiting = False
            self._on_answer(self, self._status)
        elif self._missing < 0 or not self._waiting:
            self._end(UNREADABLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for an answer that there will be none."""
        self._end(DISCONNECTED)

    def close(self) -> None:
        """Hang up, and call nobody."""
        self._waiting = False
        self._end(DISCONNECTED)

    def _end(self, outcome: str) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._waiting:
            self._waiting = False
            self._on_answer(self, outcome)
