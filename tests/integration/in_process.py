"""Both lanes in this process, on connections of memory, and a loop that says when nothing is left.

Nothing here depends on time or on how bytes are cut on their way: a test hands a connection each
piece of what a client sends, waits until the server has done all that it can do with it, and looks
at what it has written.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from lane_requests import LIMIT

from pyserve.config import ServerConfig
from pyserve.engine import open_model
from pyserve.http.assemble import build_app
from pyserve.http.connection import Connection, HttpServer
from pyserve.registry import Registry
from pyserve.repository import Repository
from pyserve.service import Service


class QuietSelector(selectors.DefaultSelector):
    """Calls `on_quiet` when the loop has nothing to do, before it sleeps; once for each time set.

    on_quiet: returns False if there is something to wait for.
    """

    on_quiet: Callable[[], bool] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.on_quiet is not None and self.on_quiet():
            self.on_quiet = None
            return []
        return super().select(timeout)


class Pipe(asyncio.Transport):
    """A server's side of a connection to a client that reads everything at once."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.protocol: Any = server()
        self.connection = cast(Connection, self.protocol)
        self.protocol.connection_made(self)

    def send(self, data: bytes) -> None:
        """Hand over what the client sends, in one piece."""
        while data and not self.closed:
            if isinstance(self.protocol, asyncio.BufferedProtocol):
                room = memoryview(self.protocol.get_buffer(len(data)))
                taken = min(len(room), len(data))
                room[:taken] = data[:taken]
                self.protocol.buffer_updated(taken)
                data = data[taken:]
            else:
                self.protocol.data_received(data)
                return

    def leave(self) -> None:
        """The client closes its side."""
        if not self.closed:
            assert not self.protocol.eof_received()
            self.close()

    # --- as asyncio has it ---

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self.protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        """What is sent comes all the same: a socket may have had it already."""

    def resume_reading(self) -> None:
        """See pause_reading."""


class House(AbstractContextManager["House"]):
    """A server's parts round some models; all is closed at the end.

    known: the aiohttp that is installed is one for the express lane.
    """

    def __init__(
        self, repository: Path, *models: str, express: bool, known: bool = True, **options: Any
    ) -> None:
        config = ServerConfig(model_repository=(str(repository),), express=express, **options)
        self.registry = Registry(
            Repository(config.model_repository, configure=config.configure), open_model=open_model
        )
        failed = self.registry.load_all(models).result()
        assert not any(failed.values()), failed
        self.service = Service(self.registry)
        self.app, self.lane = build_app(self.service, config, version="0")
        assert (self.lane is not None) == (express and known)
        self.http = HttpServer(self.app, self.lane)
        self._earlier: Counter[str] = Counter()

    def connect(self) -> Pipe:
        return Pipe(self.http)

    @property
    def express(self) -> Counter[str]:
        """What the express lane made of the requests on its paths since `forget_counts`."""
        assert self.lane is not None
        return Counter(self.lane.core.counts) - self._earlier

    def forget_counts(self) -> None:
        self._earlier += self.express

    @property
    def in_flight(self) -> int:
        """How many requests have begun and are not answered."""
        return self.app._in_flight + (0 if self.lane is None else self.lane.under_way)

    def busy(self) -> bool:
        """Whether a model is at a request."""
        if self.lane is not None and self.lane.under_way:
            return True
        routes = self.registry._routes.values()
        return any(live.leases for versions in list(routes) for live in versions.values())

    async def quiet(self) -> None:
        """Wait until all that was sent has been dealt with, as far as it can be."""
        loop = asyncio.get_running_loop()
        selector: QuietSelector = loop._selector  # type: ignore[attr-defined]
        done = loop.create_future()

        def on_quiet() -> bool:
            if self.busy():
                return False
            done.set_result(None)
            return True

        selector.on_quiet = on_quiet
        await done

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.registry.close(1.0)

    def __enter__(self) -> Self:
        return self


def loop_that_tells() -> asyncio.AbstractEventLoop:
    """A loop for `House.quiet`; for asyncio.Runner."""
    return asyncio.SelectorEventLoop(QuietSelector())


def in_a_house(
    repository: Path, *models: str, test: Callable[[House], Awaitable[None]], **options: Any
) -> None:
    """Run `test` with the express lane and these models; no request may be left over."""

    async def run() -> None:
        with House(repository, *models, express=True, max_body_bytes=LIMIT, **options) as house:
            await test(house)
            await house.quiet()
            assert house.in_flight == 0
            assert not house.busy()

    with asyncio.Runner(loop_factory=loop_that_tells) as runner:
        runner.run(run())


async def said(house: House, request: bytes) -> bytes:
    pipe = house.connect()
    pipe.send(request)
    await house.quiet()
    return bytes(pipe.written)
