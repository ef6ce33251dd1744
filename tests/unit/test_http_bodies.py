"""Bodies: limits while streaming and after inflating, compressed forms, chunks."""

import gzip
import zlib
from collections.abc import Callable

import pytest
from aiohttp.web import BaseRequest
from http_server import app_with, get, post, serving

from pyserve.errors import InvalidInput, PayloadTooLarge
from pyserve.http.answers import OCTETS, Answer
from pyserve.http.app import App
from pyserve.http.bodies import MAX_CHUNKS, inflate, read_body
from pyserve.http.routing import Params

LIMIT = 200_000


async def echo(request: BaseRequest, params: Params) -> Answer:
    return Answer(200, await read_body(request, LIMIT), OCTETS)


@pytest.fixture
def app() -> App:
    return app_with(("POST", "/echo", echo), ("GET", "/echo", echo))


async def test_a_body_comes_through_whole(app: App) -> None:
    async with serving(app) as connect:
        peer = await connect()
        for size in (0, 1, 100, LIMIT):
            body = bytes(size)
            reply = await peer.ask(post("/echo", body))
            assert (reply.status, reply.body) == (200, body)


async def test_a_body_in_two_pieces_comes_through_whole(app: App) -> None:
    async with serving(app) as connect:
        peer = await connect()
        data = post("/echo", b"first second")
        await peer.send(data[:-6])
        assert (await peer.ask(data[-6:])).body == b"first second"


async def test_a_request_without_a_body_has_an_empty_one(app: App) -> None:
    async with serving(app) as connect:
        peer = await connect()
        assert (await peer.ask(get("/echo"))).body == b""


async def test_a_length_over_the_limit_is_refused_before_the_body_is_sent(app: App) -> None:
    async with serving(app) as connect:
        peer = await connect()
        head = post("/echo").replace(b"Content-Length: 0", b"Content-Length: %d" % (LIMIT + 1))
        reply = await peer.ask(head)
        assert reply.status == 413
        assert f"{LIMIT} bytes" in reply.error


async def test_a_chunked_body_is_counted_while_it_streams(app: App) -> None:
    async with serving(app) as connect:
        peer = await connect()
        await peer.send(b"POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            await peer.send(b"%x\r\n%s\r\n" % (LIMIT // 2, bytes(LIMIT // 2)))
        reply = await peer.reply()
        assert reply.status == 413
        assert f"{LIMIT} bytes" in reply.error


async def test_a_chunked_body_comes_through_whole(app: App) -> None:
    async with serving(app) as connect:
        peer = await connect()
        head = b"POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
        for _ in range(2):
            await peer.send(head + b"5\r\nfirst\r\n")
            await peer.send(b"7\r\n second\r\n0\r\n\r\n")
            assert (await peer.reply()).body == b"first second"


@pytest.mark.parametrize("count", [MAX_CHUNKS, MAX_CHUNKS + 1])
async def test_more_chunks_than_the_limit_are_refused(app: App, count: int) -> None:
    async with serving(app) as connect:
        peer = await connect()
        await peer.send(b"POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n")
        await peer.send(b"1\r\nx\r\n" * count + b"0\r\n\r\n")
        reply = await peer.reply()
        if count > MAX_CHUNKS:
            assert reply.status == 400
            assert f"{MAX_CHUNKS} chunks" in reply.error
        else:
            assert reply.body == b"x" * count


async def test_a_broken_chunk_is_a_bad_request(app: App) -> None:
    async with serving(app) as connect:
        peer = await connect()
        head = b"POST /echo HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
        reply = await peer.ask(head + b"zz\r\nfirst\r\n0\r\n\r\n")
        assert reply.status == 400
        assert reply.error


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_a_compressed_body_is_inflated(
    app: App, size: int, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    body = bytes(range(10)) * (size // 10)
    async with serving(app) as connect:
        peer = await connect()
        request = post("/echo", compress(body), f"Content-Encoding: {coding}")
        assert (await peer.ask(request)).body == body


async def test_an_unknown_coding_is_a_bad_request(app: App) -> None:
    async with serving(app) as connect:
        peer = await connect()
        reply = await peer.ask(post("/echo", b"x", "Content-Encoding: br"))
        assert reply.status == 400
        assert '"br"' in reply.error
        assert "gzip or deflate" in reply.error


async def test_a_client_that_waits_is_told_to_continue(app: App) -> None:
    async with serving(app) as connect:
        peer = await connect()
        for _ in range(2):
            data = post("/echo", b"body", "Expect: 100-continue")
            await peer.send(data[:-4])
            assert await peer.reader.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert await peer.reader.readline() == b"\r\n"
            assert (await peer.ask(b"body")).body == b"body"


async def test_a_client_that_waits_with_too_much_is_told_at_once(app: App) -> None:
    async with serving(app) as connect:
        peer = await connect()
        head = post("/echo", b"", "Expect: 100-continue")
        reply = await peer.ask(head.replace(b"Length: 0", b"Length: 9999999"))
        assert reply.status == 413


def test_inflating_stops_at_the_limit() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(PayloadTooLarge, match="1000 bytes"):
        inflate(bomb, 31, 1000)


def test_inflating_to_just_the_limit_is_fine() -> None:
    assert inflate(gzip.compress(bytes(1000)), 31, 1000) == bytes(1000)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "cut off"),
        (gzip.compress(b"hello")[:-1], "cut off"),
        (gzip.compress(b"hello") + b"more", "4 bytes follow"),
        (gzip.compress(b"hello") * 2, "follow"),
        (b"no gzip at all", "damaged"),
        (zlib.compress(b"hello"), "damaged"),
    ],
)
def test_a_damaged_body_says_what_is_wrong(body: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        inflate(body, 31, 1000)
