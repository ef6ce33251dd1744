"""What a client sends may be broken in any way: both lanes cut it alike and answer alike.

Seeded mutations of good requests go to a connection with and to one without the express lane.  How
the bytes are cut on their way must not matter, so the first gets them in pieces of any size.  A
difference is told with its seed and its bytes.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from in_process import House, loop_that_tells
from lane_requests import (
    BAD_REQUESTS,
    BINARY,
    BODY,
    GOOD_REQUESTS,
    LENGTH,
    NO_HTTP,
    PATH,
    chunked,
    head,
    infer_raw,
)
from lanes import normal
from server_process import floats

FIRST = 1
CASES = 2500
LIMIT = 3000  # of a body, in bytes
MODELS = ("affine", "pair", "lengths", "shout", "scalar", "fussy", "typed")

Random = random.Random


def small(requests: dict[str, bytes]) -> list[bytes]:
    """Those that wait for nothing, and that byte by byte are soon read.

    Without upgrades: aiohttp keeps what follows one, and reads it when it has declined.
    """
    shorter = {name: one for name, one in requests.items() if 0 < len(one) < 1200}
    return [
        one
        for name, one in shorter.items()
        if not any(word in name for word in ("timeout", "upgrade", "CONNECT"))
    ]


SEEDS = [
    *small(GOOD_REQUESTS),
    *small({name: request for name, (_, request) in BAD_REQUESTS.items()}),
    *small(NO_HTTP),
    *[GOOD_REQUESTS["json"], BINARY, infer_raw("affine", floats(1, 2, 3, 4))] * 20,
    *[head("GET /v2 HTTP/1.1", "Host: here"), head("GET /healthz HTTP/1.1", "Host: here")] * 5,
]

LINES = [
    b"Host: there",
    b"Content-Length: 5",
    b"Content-Length: 0",
    LENGTH.encode(),
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Authorization: Bearer secret",
    b"Origin: https://app.example",
    b"Expect: 100-continue",
    b"Inference-Header-Content-Length: 0",
    b"Inference-Header-Content-Length: 86",
    b"Accept-Encoding: gzip",
    b"Content-Encoding: gzip",
    b"Content-Type: multipart/form-data; boundary=a",
    b"Proxy-Connection: keep-alive",
    b"X: y",
    b" folded",
    b"",
]
BYTES = b'\0\t\n\r !"%+,-./019:;=?AZ[\\]_az{|}~\x7f\x80\xff'
WORDS = [
    *[b"\r\n", b"\r\n\r\n", b"\n", b"\n\n", b" ", b"  ", b"[", b"]", b"{", b"}", b",", b'"', b"\\"],
    *[b"NaN", b"null", b"0", b"-1", b"/", b"..", b"%41", b"HTTP/1.1", b"POST ", b"0\r\n\r\n"],
    b"GET / HTTP/1.1\r\n",
]


def flip(random_: Random, data: bytes) -> bytes:
    at = random_.randrange(len(data))
    return data[:at] + bytes([random_.choice(BYTES)]) + data[at + 1 :]


def insert(random_: Random, data: bytes) -> bytes:
    at = random_.randrange(len(data) + 1)
    return data[:at] + random_.choice(WORDS) + data[at:]


def delete(random_: Random, data: bytes) -> bytes:
    at = random_.randrange(len(data))
    return data[:at] + data[at + random_.choice([1, 1, 2, 4, 16]) :]


def repeat(random_: Random, data: bytes) -> bytes:
    at = random_.randrange(len(data))
    return data[: at + random_.choice([1, 2, 8, 30])] + data[at:]


def change_a_line(random_: Random, data: bytes) -> bytes:
    """Leave out, repeat, move or put in a line of the head."""
    before, blank, after = data.partition(b"\r\n\r\n")
    lines = before.split(b"\r\n")
    at = random_.randrange(len(lines))
    match random_.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(random_.randint(0, len(lines)), lines[at])
        case 2:
            lines.append(lines.pop(at))
        case _:
            lines.insert(random_.randint(1, len(lines)), random_.choice(LINES))
    return b"\r\n".join(lines) + blank + after


def change_case(random_: Random, data: bytes) -> bytes:
    before, blank, after = data.partition(b"\r\n\r\n")
    lines = before.split(b"\r\n")
    at = random_.randrange(len(lines))
    lines[at] = random_.choice([lines[at].upper(), lines[at].lower(), lines[at].title()])
    return b"\r\n".join(lines) + blank + after


def change_a_length(random_: Random, data: bytes) -> bytes:
    name = random_.choice([b"\r\nContent-Length: ", b"\r\nInference-Header-Content-Length: "])
    before, found, after = data.partition(name)
    digits = len(after) - len(after.lstrip(b"0123456789"))
    if not found or not digits:
        return data
    value = int(after[:digits][:18])
    text = random_.choice(
        [
            str(value + random_.choice([-40, -2, -1, 1, 2, 40])),
            str(random_.randrange(300)),
            f"{value:05d}",
            f"+{value}",
            f"{value},{value}",
            f"{value} ",
            f"0x{value:x}",
            f"{value}.0",
            str(2**64 + value),
            str(10**17),
        ]
    )
    return before + found + text.encode() + after[digits:]


def splice(random_: Random, data: bytes) -> bytes:
    other = random_.choice(SEEDS)
    return data[: random_.randint(0, len(data))] + other[random_.randint(0, len(other)) :]


def another(random_: Random, data: bytes) -> bytes:
    return data + random_.choice(SEEDS)


def in_chunks(random_: Random, data: bytes) -> bytes:
    body = chunked(BODY, random_.choice([1, 30, 500]))
    return head(f"POST {PATH} HTTP/1.1", "Host: here", "Transfer-Encoding: chunked") + body + data


MUTATIONS: list[Callable[[Random, bytes], bytes]] = [
    *[flip, insert, delete, change_a_line, another] * 3,
    *[change_a_length] * 2,
    *[repeat, change_case, splice, in_chunks],
]


def case(seed: int) -> bytes:
    """The bytes of one client, a few hundred to a few thousand."""
    random_ = Random(seed)
    data = random_.choice(SEEDS)
    for _ in range(random_.choice([0, 1, 1, 1, 2, 2, 3, 5])):
        data = random_.choice(MUTATIONS)(random_, data) or b"\r\n"
    if random_.random() < 0.5:
        data = GOOD_REQUESTS["json"] + data
    if random_.random() < 0.5:
        data += GOOD_REQUESTS["json"]
    return data[:4000]


def pieces(random_: Random, data: bytes) -> Iterator[bytes]:
    """`data`, cut at random; often not at all."""
    if random_.random() < 0.3:
        yield data
        return
    most = random_.choice([1, 20, 200, 1000])
    while data:
        size = random_.randint(1, most)
        yield data[:size]
        data = data[size:]


class Outcome(NamedTuple):
    """All that one connection brought about."""

    written: bytes
    closed: bool
    counted: list[tuple[str, int, int]]


async def outcome(house: House, parts: Iterator[bytes], patient: Random | None) -> Outcome:
    """Send `parts` until nothing more would come back, and then leave.

    patient: now and then waits for all that can be answered before it sends more.
    """
    before = Counter({(route, status): count for route, status, count in house.app.responses()})
    pipe = house.connect()
    for part in parts:
        pipe.send(part)
        if patient is not None and patient.random() < 0.1:
            await house.quiet()
    await house.quiet()
    # Whether there is an interim answer depends on how the bytes were cut.
    written = normal(bytes(pipe.written)).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    closed = pipe.closed
    pipe.leave()
    await house.quiet()
    assert house.in_flight == 0
    counted = [
        (route, status, count - before[route, status])
        for route, status, count in house.app.responses()
        if count > before[route, status]
    ]
    return Outcome(written, closed, sorted(counted))


class ByteByByte:
    """Gives aiohttp single bytes as long as it is on: it forgets requests before an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = False
        receive = RequestHandler.data_received

        def data_received(connection: RequestHandler, data: bytes) -> None:
            if not (self.on and data):
                receive(connection, data)
                return
            for at in range(len(data)):
                receive(connection, data[at : at + 1])
                if connection._messages and isinstance(connection._messages[-1][0], _ErrInfo):
                    return  # it will make nothing of the rest

        monkeypatch.setattr(RequestHandler, "data_received", data_received)


@pytest.mark.parametrize(
    ("cases", "origins"), [(CASES, ()), (CASES // 10, ("https://app.example",))], ids=["", "cors"]
)
def test_both_lanes_answer_whatever_comes_alike(
    model_repository: Path, monkeypatch: pytest.MonkeyPatch, cases: int, origins: tuple[str, ...]
) -> None:
    slow = ByteByByte(monkeypatch)

    async def compare(express: House, plain: House, seed: int) -> None:
        data = case(seed)
        # Most differences are aiohttp's own, between bytes that come at once and one by one.
        for slow.on in (False, True):
            random_ = Random(seed)
            ours = await outcome(express, pieces(random_, data), random_)
            expected = await outcome(plain, iter([data]), None)
            if ours == expected:
                return
        raise AssertionError(f"seed {seed}: {data!r}\nexpress: {ours}\nplain: {expected}")

    async def compare_all() -> None:
        options = {"max_body_bytes": LIMIT, "cors_origin": origins}
        with (
            House(model_repository, *MODELS, express=True, **options) as express,
            House(model_repository, *MODELS, express=False, **options) as plain,
        ):
            for seed in range(FIRST, FIRST + cases):
                await compare(express, plain, seed)
            # It was a test of the express lane.
            assert express.express["run"] + express.express["queued"] > cases / 2
            assert express.express["left"] > cases / 20

    with asyncio.Runner(loop_factory=loop_that_tells) as runner:
        runner.run(compare_all())
