"""Many requests in order, a bounded number under way: an asynchronous iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from pyserve.client.results import InferResult
from pyserve.client.values import Inputs
from pyserve.errors import ConfigError, PyserveError

R = TypeVar("R", covariant=True)


class AsyncSubmit(Protocol):
    """Sends one request of a stream after the other."""

    async def __call__(self, inputs: Inputs, /) -> asyncio.Future[InferResult]:
        """Send a request; what is returned is awaited for its result."""

    def close(self) -> None:
        """Give up what is still under way."""


class AsyncStream(Generic[R]):
    """An asynchronous iterator over results; goes on after a request's error has been raised.

    Close it (or use it in `async with`) to leave before the end.
    """

    def __init__(
        self,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        submit: AsyncSubmit,
        max_in_flight: int,
        *,
        return_errors: bool,
    ) -> None:
        self._feeder: asyncio.Task[None] | None = None
        if max_in_flight < 1:
            raise ConfigError(f"max_in_flight is {max_in_flight}, expected 1 or more")
        self._inputs = inputs
        self._submit = submit
        self._return_errors = return_errors
        self._room = asyncio.Semaphore(max_in_flight)
        self._waiting: asyncio.Queue[asyncio.Future[InferResult] | None] = asyncio.Queue()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        if self._feeder is None and not self._ended:
            feeding = _feed(self._inputs, self._submit, self._room, self._waiting)
            self._feeder = asyncio.create_task(feeding)
        answer = None if self._ended else await self._waiting.get()
        if answer is None:
            self.close()
            raise StopAsyncIteration
        try:
            result: Any = await answer
        except PyserveError as error:
            if not self._return_errors:
                raise
            result = error
        finally:
            self._room.release()
        given: R = result
        return given

    def close(self) -> None:
        """Stop: nothing more is sent, and what is under way is given up."""
        self._ended = True
        if self._feeder is not None:
            self._feeder.cancel()
        self._submit.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        feeder = self._feeder
        if feeder is not None and not feeder.done() and not feeder.get_loop().is_closed():
            feeder.get_loop().call_soon_threadsafe(feeder.cancel)


async def _feed(
    inputs: Iterable[Inputs] | AsyncIterable[Inputs],
    submit: AsyncSubmit,
    room: asyncio.Semaphore,
    waiting: asyncio.Queue[asyncio.Future[InferResult] | None],
) -> None:
    """Take inputs from their source, while there is room, and submit them.

    No method of the stream: the task must not keep it alive.
    """
    try:
        iterator = _each(inputs)
        while True:
            await room.acquire()
            try:
                one = await anext(iterator)
            except StopAsyncIteration:
                break
            try:
                waiting.put_nowait(await submit(one))
            except PyserveError as error:
                waiting.put_nowait(_failed(error))
    except Exception as error:
        # The source failed: its error is the last of the results.
        waiting.put_nowait(_failed(error))
    waiting.put_nowait(None)


async def _each(inputs: Iterable[Inputs] | AsyncIterable[Inputs]) -> Any:
    if isinstance(inputs, AsyncIterable):
        async for one in inputs:
            yield one
    else:
        for one in inputs:
            yield one
            # A long list of inputs must not keep other tasks from running.
            await asyncio.sleep(0)


def _failed(error: BaseException) -> asyncio.Future[InferResult]:
    future: asyncio.Future[InferResult] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    look_at(future)
    return future


def look_at(future: asyncio.Future[InferResult]) -> None:
    """Note a future's error, which nobody may ever ask for: a stream can be left early."""
    if not future.cancelled():
        future.exception()
