"""Cross-origin requests: which pages may read answers, and what a preflight is told."""

from __future__ import annotations

import pytest
from aiohttp import web
from http_server import get, serving

from pyserve.errors import ConfigError, QueueFull
from pyserve.http.answers import Answer, json_answer
from pyserve.http.cors import CorsApp
from pyserve.http.routing import Params, Router

PAGE = "https://app.example"
ASKS = "Access-Control-Request-Method: POST"


def app(*origins: str) -> CorsApp:
    async def hello(request: web.BaseRequest, params: Params) -> Answer:
        return json_answer({"hello": True})

    async def full(request: web.BaseRequest, params: Params) -> Answer:
        raise QueueFull("no room")

    async def zipped(request: web.BaseRequest, params: Params) -> Answer:
        return Answer(200, b"", b"Vary: Accept-Encoding\r\n")

    router = Router()
    router.add("GET", "/hello", hello)
    router.add("GET", "/full", full)
    router.add("GET", "/zipped", zipped)
    return CorsApp(router, origins)


def options(path: str, *headers: str) -> bytes:
    return get(path, *headers).replace(b"GET", b"OPTIONS", 1)


async def test_a_page_of_a_listed_origin_may_read_answers_and_errors() -> None:
    async with serving(app(PAGE, "http://localhost:3000")) as connect:
        peer = await connect()
        for path, status in (("/hello", 200), ("/full", 429), ("/nowhere", 404)):
            reply = await peer.ask(get(path, f"Origin: {PAGE}"))
            assert reply.status == status
            assert reply.headers["access-control-allow-origin"] == PAGE
            assert "Server-Timing" in reply.headers["access-control-expose-headers"]
            assert reply.headers["vary"] == "Origin"
            assert "access-control-allow-credentials" not in reply.headers
        reply = await peer.ask(get("/zipped", "Origin: http://localhost:3000"))
        assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert reply.headers["vary"] == "Origin, Accept-Encoding"


async def test_other_pages_and_other_clients_are_answered_without_leave() -> None:
    async with serving(app(PAGE)) as connect:
        peer = await connect()
        others = [
            "https://app.example.evil",
            "https://app.example:444",
            "null",
            "HTTPS://app.example",
        ]
        for headers in ([], *([f"Origin: {one}"] for one in others)):
            reply = await peer.ask(get("/hello", *headers))
            assert reply.status == 200
            assert not [name for name in reply.headers if name.startswith("access-control")]
            # A cache must not give a page what it kept for another.
            assert reply.headers["vary"] == "Origin"


async def test_a_preflight_says_what_a_page_may_send() -> None:
    async with serving(app(PAGE)) as connect:
        peer = await connect()
        await peer.send(options("/hello", f"Origin: {PAGE}", ASKS))
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert b"\r\nContent-Length" not in head
        assert f"Access-Control-Allow-Origin: {PAGE}\r\n".encode() in head
        for word in (b"POST", b"DELETE", b"Authorization", b"Inference-Header-Content-Length"):
            assert word in head
        assert b"Access-Control-Max-Age: 600\r\n" in head
        assert b"Vary: Origin\r\n" in head
        # The connection goes on.
        assert (await peer.ask(get("/hello"))).status == 200


async def test_a_preflight_of_another_page_is_an_odd_method() -> None:
    async with serving(app(PAGE)) as connect:
        peer = await connect()
        for headers in (["Origin: https://evil.example", ASKS], [ASKS], [f"Origin: {PAGE}"]):
            assert (await peer.ask(options("/hello", *headers))).status == 405


async def test_any_origin_is_one_answer_for_all() -> None:
    async with serving(app("*")) as connect:
        reply = await (await connect()).ask(get("/hello", "Origin: https://whoever.example"))
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "vary" not in reply.headers


async def test_a_drain_closes_after_a_preflight_too() -> None:
    cors = app(PAGE)
    async with serving(cors) as connect:
        peer = await connect()
        assert (await peer.ask(get("/hello"))).status == 200
        cors.start_draining()
        await peer.send(options("/hello", f"Origin: {PAGE}", ASKS))
        assert b"Connection: close" in await peer.reader.readuntil(b"\r\n\r\n")
        assert await peer.at_end()


async def test_preflights_are_counted() -> None:
    cors = app(PAGE)
    async with serving(cors) as connect:
        await (await connect()).send(options("/hello", f"Origin: {PAGE}", ASKS))
        await (await connect()).ask(get("/hello"))
    assert ("unmatched", 204, 1) in cors.responses()


@pytest.mark.parametrize(
    "origin",
    ["app.example", "https://app.example/", "HTTPS://app.example", "", "https://", "a\r\nb: c"],
)
def test_what_no_browser_would_send_is_no_origin(origin: str) -> None:
    with pytest.raises(ConfigError, match="is no origin"):
        app(origin)
