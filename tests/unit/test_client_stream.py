"""Streams of requests: order, a bounded number under way, errors in their turn."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from pyserve.client.async_stream import AsyncStream
from pyserve.client.stream import Stream
from pyserve.errors import ConfigError, ModelFailed


class Submit:
    """Answers when the test says so; `sent` holds what was submitted."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.futures: list[Future[Any]] = []
        self.more = threading.Semaphore(0)
        self.closed = threading.Event()

    def __call__(self, inputs: Any) -> Callable[[], Any]:
        if inputs == "bad":
            raise ModelFailed("refused")
        future: Future[Any] = Future()
        self.sent.append(inputs)
        self.futures.append(future)
        self.more.release()
        return future.result

    def close(self) -> None:
        self.closed.set()

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.more.acquire(timeout=60)


class Instantly(Submit):
    def __call__(self, inputs: Any) -> Callable[[], Any]:
        wait = super().__call__(inputs)
        self.futures[-1].set_result(inputs)
        return wait


def test_results_keep_the_order_of_inputs_whatever_ends_first() -> None:
    submit = Submit()
    stream: Stream[Any] = Stream("abc", submit, 3, return_errors=False)
    submit.wait_for(3)
    for position in (2, 0, 1):
        submit.futures[position].set_result(submit.sent[position])
    assert list(stream) == ["a", "b", "c"]
    assert submit.closed.is_set()


def test_no_more_than_the_bound_are_under_way() -> None:
    submit = Submit()
    taken = []

    def source() -> Iterator[int]:
        for number in range(5):
            taken.append(number)
            yield number

    stream: Stream[Any] = Stream(source(), submit, 2, return_errors=False)
    submit.wait_for(2)
    assert taken == submit.sent == [0, 1]
    submit.futures[0].set_result("x")
    assert next(stream) == "x"
    submit.wait_for(1)
    assert submit.sent == [0, 1, 2]
    stream.close()


def test_a_result_does_not_wait_for_a_slow_source() -> None:
    submit = Instantly()
    go_on = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        assert go_on.wait(60)
        yield 2

    stream: Stream[Any] = Stream(source(), submit, 16, return_errors=False)
    assert next(stream) == 1
    go_on.set()
    assert list(stream) == [2]


def test_an_error_is_raised_in_its_turn_and_the_stream_goes_on() -> None:
    stream: Stream[Any] = Stream(["a", "bad", "b"], Instantly(), 4, return_errors=False)
    assert next(stream) == "a"
    with pytest.raises(ModelFailed, match="refused"):
        next(stream)
    assert list(stream) == ["b"]


def test_errors_are_results_where_that_was_asked_for() -> None:
    stream: Stream[Any] = Stream(["bad", "b"], Instantly(), 4, return_errors=True)
    error, good = stream
    assert isinstance(error, ModelFailed)
    assert good == "b"


def test_an_error_of_the_source_is_the_end() -> None:
    def source() -> Iterator[str]:
        yield "a"
        raise KeyError("mine")

    stream: Stream[Any] = Stream(source(), Instantly(), 4, return_errors=True)
    assert next(stream) == "a"
    with pytest.raises(KeyError, match="mine"):
        next(stream)
    assert list(stream) == []


def test_a_stream_that_is_closed_or_forgotten_stops_its_thread() -> None:
    for forget in (False, True):
        submit = Submit()
        stream: Stream[Any] | None = Stream(range(100), submit, 1, return_errors=False)
        submit.wait_for(1)
        assert stream is not None
        if forget:
            stream = None
            gc.collect()
        else:
            with stream:
                pass
            assert list(stream) == []
        assert submit.closed.wait(60)
        assert submit.sent == [0]


@pytest.mark.parametrize("kind", [Stream, AsyncStream])
async def test_a_bound_below_one_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigError, match="max_in_flight is 0"):
        kind([], Submit(), 0, return_errors=False)


class AsyncSubmit:
    def __init__(self, *, instantly: bool = False) -> None:
        self.sent: list[Any] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.closed = False
        self._instantly = instantly

    async def __call__(self, inputs: Any) -> asyncio.Future[Any]:
        if inputs == "bad":
            raise ModelFailed("refused")
        future = asyncio.get_running_loop().create_future()
        if self._instantly:
            future.set_result(inputs)
        self.sent.append(inputs)
        self.futures.append(future)
        return future

    def close(self) -> None:
        self.closed = True


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_an_async_stream_keeps_order_and_bound_for_both_kinds_of_source() -> None:
    for source in (range(5), numbers(5)):
        submit = AsyncSubmit()
        stream: AsyncStream[Any] = AsyncStream(source, submit, 2, return_errors=False)
        first = asyncio.ensure_future(anext(stream))
        await until(lambda submit=submit: len(submit.sent) == 2)
        submit.futures[1].set_result("second")
        await asyncio.sleep(0)
        assert not first.done()
        submit.futures[0].set_result("first")
        assert await first == "first"
        assert await anext(stream) == "second"
        await until(lambda submit=submit: len(submit.sent) == 4)
        stream.close()
        assert submit.closed
        assert [one async for one in stream] == []


async def test_an_async_stream_goes_on_after_an_error() -> None:
    submit = AsyncSubmit(instantly=True)
    stream: AsyncStream[Any] = AsyncStream(["a", "bad", "b"], submit, 4, return_errors=False)
    assert await anext(stream) == "a"
    with pytest.raises(ModelFailed):
        await anext(stream)
    assert [one async for one in stream] == ["b"]
    told: AsyncStream[Any] = AsyncStream(["bad", "b"], submit, 4, return_errors=True)
    error, good = [one async for one in told]
    assert isinstance(error, ModelFailed)
    assert good == "b"


async def test_an_error_of_an_async_source_is_the_end() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"
        raise KeyError("mine")

    submit = AsyncSubmit(instantly=True)
    stream: AsyncStream[Any] = AsyncStream(source(), submit, 4, return_errors=True)
    assert await anext(stream) == "a"
    with pytest.raises(KeyError):
        await anext(stream)
    assert [one async for one in stream] == []


async def test_a_forgotten_async_stream_stops_its_task() -> None:
    before = asyncio.all_tasks()
    submit = AsyncSubmit(instantly=True)
    stream: AsyncStream[Any] | None = AsyncStream(range(100), submit, 1, return_errors=False)
    assert stream is not None
    assert await anext(stream) == 0
    stream = None
    gc.collect()
    await until(lambda: asyncio.all_tasks() == before)
    assert len(submit.sent) < 100
