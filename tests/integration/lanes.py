"""What a server answers to bytes, in a form in which two servers can be compared.

`normal` leaves out what differs between two answers to the same request: the time of day and how
long things took.  All else, down to the order of the headers, is for both lanes to agree on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from server_process import Server

_DATE = re.compile(rb"(?<=\r\nDate: )\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT(?=\r\n)")
_TIMING = re.compile(
    rb"(?<=\r\nServer-Timing: )parse;dur=\d+\.\d{3}, queue;dur=\d+\.\d{3}, batch;desc=\d+, "
    rb"copy-in;dur=\d+\.\d{3}, compute;dur=\d+\.\d{3}, copy-out;dur=\d+\.\d{3}(?=\r\n)"
)
_RETRY = re.compile(rb"(?<=\r\nRetry-After: )[1-9]\d*(?=\r\n)")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Z][A-Za-z -]+\r\n")

END = b"GET /v2/the-end HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
"""Answered with 404, and then the server closes: what follows all that a test sends."""


class Heard(NamedTuple):
    """One answer; `body` is empty for an interim one."""

    status: int
    head: bytes
    body: bytes


def normal(answers: bytes) -> bytes:
    """Return answers without what may differ."""
    for pattern in (_DATE, _TIMING, _RETRY):
        answers = pattern.sub(b"*", answers)
    return answers


def heard(answers: bytes) -> list[Heard]:
    """Take the answers of one connection apart, none of which is to a HEAD."""
    found = []
    while answers:
        match = _STATUS.match(answers)
        assert match is not None, answers[:200]
        head, blank, answers = answers.partition(b"\r\n\r\n")
        assert blank, head
        status = int(match[1])
        length = 0
        if status >= 200:
            (text,) = re.findall(rb"\r\nContent-Length: (\d+)(?=\r\n|$)", head)
            length = int(text)
        assert len(answers) >= length, (head, answers)
        found.append(Heard(status, head, answers[:length]))
        answers = answers[length:]
    return found


def talk(server: Server, *writes: bytes) -> bytes:
    """Send `writes` on one connection and return all that comes until the server closes it.

    Before each but the first, the server has read those before.
    """
    with server.connect() as peer:
        try:
            for number, piece in enumerate(writes):
                if number:
                    # Its loop takes in turn what arrived: this answer comes after the last piece.
                    assert server.get("/v2/health/live").status == 200
                peer.sendall(piece)
        except ConnectionError:
            pass  # it has closed already; what it said before is still to be read
        received = []
        try:
            while piece := peer.recv(1 << 18):
                received.append(piece)
        except ConnectionResetError:
            pass  # it closed while there was more to read, and after what we have
        return b"".join(received)


def statuses(answers: Iterable[Heard]) -> list[int]:
    """The statuses, but for the one that answers END."""
    return [one.status for one in answers if b"/v2/the-end" not in one.body]
