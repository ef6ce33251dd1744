"""What is the same for every route: errors, order, keep-alive, counting, draining."""

import asyncio
import gzip
import json
import logging
import zlib

import pytest
from aiohttp.web import BaseRequest
from http_server import app_with, get, post, serving

from pyserve.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    ModelNotFound,
    PermissionDenied,
    PyserveError,
    QueueFull,
    Unauthenticated,
    Unavailable,
)
from pyserve.http.answers import OCTETS, Answer, json_answer
from pyserve.http.app import App
from pyserve.http.bodies import read_body
from pyserve.http.compression import MIN_BYTES, compressed
from pyserve.http.routing import Params


async def echo(request: BaseRequest, params: Params) -> Answer:
    return Answer(200, await read_body(request, 1 << 20), OCTETS)


async def hello(request: BaseRequest, params: Params) -> Answer:
    return json_answer({"hello": params.get("name", "")})


def raising(error: BaseException) -> App:
    async def handler(request: BaseRequest, params: Params) -> Answer:
        raise error

    return app_with(("GET", "/", handler))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput("wrong"), 400),
        (Unauthenticated("wrong"), 401),
        (PermissionDenied("wrong"), 403),
        (ModelNotFound("wrong"), 404),
        (QueueFull("wrong", retry_after_s=1.5), 429),
        (Cancelled("wrong"), 499),
        (PyserveError("wrong"), 500),
        (Unavailable("wrong"), 503),
        (DeadlineExceeded("wrong"), 504),
    ],
)
async def test_an_error_becomes_its_row_of_the_table(error: PyserveError, status: int) -> None:
    app = raising(error)
    async with serving(app) as connect:
        reply = await (await connect()).ask(get("/"))
    assert (reply.status, reply.error) == (status, "wrong")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers.get("retry-after") == ("2" if status == 429 else None)
    assert reply.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert app.responses() == [("/", status, 1)]


async def test_an_unexpected_fault_tells_the_log_and_not_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(raising(RuntimeError("secret at /home/me"))) as connect:
        with caplog.at_level(logging.ERROR):
            reply = await (await connect()).ask(get("/"))
    assert reply.status == 500
    assert "secret" not in reply.error
    assert "secret at /home/me" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError("x"), KeyError("k")])
async def test_an_error_of_the_libraries_is_a_fault_too(error: Exception) -> None:
    async with serving(raising(error)) as connect:
        reply = await (await connect()).ask(get("/"))
    assert (reply.status, reply.error) == (500, "an error inside the server; its log says more")


async def test_an_unknown_path_is_404_and_a_wrong_method_405() -> None:
    app = app_with(("GET", "/hello/{name}", hello))
    async with serving(app) as connect:
        peer = await connect()
        reply = await peer.ask(get("/nowhere"))
        assert reply.status == 404
        assert "/nowhere" in reply.error
        reply = await peer.ask(post("/hello/you"))
        assert reply.status == 405
        assert reply.headers["allow"] == "GET, HEAD"
        assert "GET" in reply.error
    assert app.responses() == [("unmatched", 404, 1), ("unmatched", 405, 1)]


async def test_a_query_does_not_hide_the_path() -> None:
    async with serving(app_with(("GET", "/hello/{name}", hello))) as connect:
        reply = await (await connect()).ask(get("/hello/you?a=b"))
    assert json.loads(reply.body) == {"hello": "you"}


async def test_head_has_the_headers_of_get_and_no_body() -> None:
    async with serving(app_with(("GET", "/hello/{name}", hello))) as connect:
        peer = await connect()
        await peer.send(get("/hello/you").replace(b"GET", b"HEAD"))
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head
        assert b"Content-Length: 15" in head
        assert (await peer.ask(get("/hello/you"))).status == 200


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbroken header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_a_bad_request_and_the_end(junk: bytes) -> None:
    async with serving(app_with(("GET", "/", hello))) as connect:
        peer = await connect()
        reply = await peer.ask(junk)
        assert reply.status == 400
        assert reply.error.startswith("not a valid HTTP request")
        assert reply.headers["connection"] == "close"
        assert await peer.at_end()
        assert (await (await connect()).ask(get("/"))).status == 200


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(app_with(("POST", "/echo", echo))) as connect:
        peer = await connect()
        await peer.send(b"".join(post("/echo", b"%d" % number) for number in range(200)))
        for number in range(200):
            assert (await peer.reply()).body == b"%d" % number


async def test_a_connection_stays_open_unless_asked_otherwise() -> None:
    async with serving(app_with(("GET", "/hello/{name}", hello))) as connect:
        peer = await connect()
        for _ in range(3):
            assert "connection" not in (await peer.ask(get("/hello/you"))).headers
        reply = await peer.ask(get("/hello/you", "Connection: close"))
        assert reply.headers["connection"] == "close"
        assert await peer.at_end()


async def test_http_1_0_closes_unless_asked_otherwise() -> None:
    async with serving(app_with(("GET", "/hello/{name}", hello))) as connect:
        peer = await connect()
        request = get("/hello/you", "Connection: keep-alive").replace(b"1.1", b"1.0")
        assert (await peer.ask(request)).headers["connection"] == "keep-alive"
        reply = await peer.ask(get("/hello/you").replace(b"1.1", b"1.0"))
        assert reply.headers["connection"] == "close"
        assert await peer.at_end()


async def test_a_large_answer_arrives_whole() -> None:
    body = bytes(range(256)) * 40_000

    async def large(request: BaseRequest, params: Params) -> Answer:
        return Answer(200, body, OCTETS)

    async with serving(app_with(("GET", "/", large))) as connect:
        peer = await connect()
        for _ in range(2):
            assert (await peer.ask(get("/"))).body == body


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request: BaseRequest, params: Params) -> Answer:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    app = app_with(("GET", "/wait", wait))
    async with serving(app) as connect:
        peer = await connect()
        await peer.send(get("/wait"))
        await started.wait()
        peer.close()
        await cancelled.wait()
    assert app.responses() == [("/wait", 499, 1)]


async def test_a_drain_waits_for_what_has_begun_and_closes_its_connection() -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait(request: BaseRequest, params: Params) -> Answer:
        started.set()
        await go_on.wait()
        return json_answer({})

    app = app_with(("GET", "/wait", wait), ("GET", "/hello", hello))
    async with serving(app) as connect:
        busy, idle = await connect(), await connect()
        assert (await idle.ask(get("/hello"))).status == 200
        await busy.send(get("/wait"))
        await started.wait()
        app.start_draining()
        drained = asyncio.ensure_future(app.drained())
        reply = await idle.ask(get("/hello"))
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert not drained.done()
        go_on.set()
        reply = await busy.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        await drained


async def test_a_drain_of_nothing_is_over_at_once() -> None:
    app = app_with()
    app.start_draining()
    await app.drained()


def test_compression_is_only_for_who_asks_and_for_what_is_big() -> None:
    async def big(request: BaseRequest, params: Params) -> Answer:
        return await compressed(request, Answer(200, bytes(int(params["size"])), OCTETS))

    async def ask(size: int, *headers: str) -> tuple[str | None, bytes]:
        async with serving(app_with(("GET", "/{size}", big))) as connect:
            reply = await (await connect()).ask(get(f"/{size}", *headers))
            return reply.headers.get("content-encoding"), reply.body

    async def check() -> None:
        for size in (MIN_BYTES, 1_000_000):
            plain = bytes(size)
            assert await ask(size) == (None, plain)
            assert await ask(size, "Accept-Encoding: br") == (None, plain)
            assert await ask(size, "Accept-Encoding: gzip;q=0, identity") == (None, plain)
            coding, body = await ask(size, "Accept-Encoding: deflate, gzip;q=0.5")
            assert coding == "deflate"
            assert zlib.decompress(body) == plain
            for accepted in ("gzip, deflate", "*", "deflate;q=0.1, GZIP;q=0.2, x;q=y"):
                coding, body = await ask(size, f"Accept-Encoding: {accepted}")
                assert coding == "gzip"
                assert gzip.decompress(body) == plain
        small = MIN_BYTES - 1
        assert await ask(small, "Accept-Encoding: gzip") == (None, bytes(small))

    asyncio.run(check())
