"""A server on a socket of its own around handlers of the test's, and bytes in and out of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web

from pyserve.http.app import App
from pyserve.http.connection import HttpServer
from pyserve.http.routing import Handler, Router


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The message of an error, which must be all there is in the body."""
        value = json.loads(self.body)
        assert list(value) == ["error"], value
        return str(value["error"])


class Peer:
    """One client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {}
        for line in head[1:-2]:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} is there twice"
            headers[name.lower()] = value
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(int(head[0].split()[1]), headers, body)

    async def ask(self, data: bytes) -> Reply:
        await self.send(data)
        return await self.reply()

    async def at_end(self) -> bool:
        """Whether the server has closed the connection with nothing more to say."""
        return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[Callable[[], Awaitable[Peer]]]:
    """Yield what opens a connection to `app`."""
    runner = web.ServerRunner(HttpServer(app))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    peers: list[Peer] = []

    async def connect() -> Peer:
        peers.append(Peer(*await asyncio.open_connection("127.0.0.1", site.port)))
        return peers[-1]

    try:
        yield connect
    finally:
        for peer in peers:
            peer.close()
        await runner.cleanup()


def app_with(*routes: tuple[str, str, Handler]) -> App:
    """Return an app with these routes: method, pattern, handler."""
    router = Router()
    for method, pattern, handler in routes:
        router.add(method, pattern, handler)
    return App(router)
