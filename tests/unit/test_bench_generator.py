"""The built-in load generator against a server that answers when the test says so."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pyserve.bench.alarm import Alarm
from pyserve.bench.client import DISCONNECTED, UNREADABLE, Client
from pyserve.bench.generator import ClosedLoop, Job, OpenLoop, perform, server_us

REQUEST = b"POST /x HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length:0\r\n\r\n"

Answer = Callable[[int], Awaitable[bytes]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[int]:
    """Yield the port of a server that asks `answer` (with the request's number) what to say."""
    count = 0
    writers = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        writers.append(writer)
        while True:
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            count += 1
            text = await answer(count)
            if not text:
                writer.close()
                return
            writer.write(text)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


def job(port: int, **options: float) -> Job:
    given = {"connections": 2, "seconds": 30.0, "max_requests": 100, **options}
    return Job(host="127.0.0.1", port=port, request=REQUEST, **given)  # type: ignore[arg-type]


async def test_closed_loop_ends_with_the_last_of_its_requests() -> None:
    async def answer(number: int) -> bytes:
        return OK

    async with serving(answer) as port:
        run = await perform(job(port))
    assert run.requests == run.latency_us.count == 100
    assert run.failures == {}


async def test_closed_loop_never_has_more_requests_out_than_connections() -> None:
    out = most = 0

    async def answer(number: int) -> bytes:
        nonlocal out, most
        out += 1
        most = max(most, out)
        await asyncio.sleep(0)
        out -= 1
        return OK

    async with serving(answer) as port:
        await perform(job(port, connections=3))
    assert most <= 3


async def test_answers_are_told_apart_by_status() -> None:
    async def answer(number: int) -> bytes:
        return BUSY if number % 4 == 0 else OK

    async with serving(answer) as port:
        run = await perform(job(port))
    assert run.requests == 75
    assert run.failures == {"status 429": 25}
    assert run.by_status["429"].count == 25
    assert run.latency_us.count == 75, "refusals are quick: they must not flatter the percentiles"


async def test_a_connection_that_breaks_is_a_failure_and_is_replaced() -> None:
    async def answer(number: int) -> bytes:
        return b"" if number == 10 else OK

    async with serving(answer) as port:
        run = await perform(job(port))
    assert run.requests == 99
    assert run.failures == {DISCONNECTED: 1}


async def test_open_loop_sends_without_waiting_for_answers() -> None:
    arrived = asyncio.Event()

    async def answer(number: int) -> bytes:
        if number == 8:
            arrived.set()
        await arrived.wait()  # nobody is answered before the eighth request has come
        return OK

    async with serving(answer) as port:
        run = await perform(job(port, connections=8, rate=1000, max_requests=8))
    assert run.requests == 8


async def test_a_stall_is_seen_by_all_requests_that_it_held_up() -> None:
    """Coordinated omission: with one connection, whatever waits behind a stall is late too."""
    stall_s = 0.2

    async def answer(number: int) -> bytes:
        if number == 1:
            await asyncio.sleep(stall_s)
        return OK

    async with serving(answer) as port:
        open_loop = await perform(job(port, connections=1, rate=1000, seconds=0.1))
        closed = await perform(job(port, connections=1))
    # All were due within 0.1 s, so at the end of the stall each had waited 0.1 s or more.
    assert open_loop.requests > 10
    assert open_loop.latency_us.p50 >= (stall_s - 0.1) * 1e6
    assert open_loop.details["longest_backlog"] > 10
    # The closed loop held back what it would have sent, and its median knows of no stall.
    assert closed.latency_us.p50 < open_loop.latency_us.p50


async def test_answers_that_never_come_are_counted_as_such() -> None:
    async def answer(number: int) -> bytes:
        if number == 2:
            await asyncio.get_running_loop().create_future()
        return OK

    async with serving(answer) as port:
        run = await perform(
            job(port, connections=1, rate=1000, max_requests=5, seconds=0.1, patience_s=0.1)
        )
    assert run.requests == 1
    assert run.failures == {"unanswered": 4}


async def test_loops_are_what_the_rate_says() -> None:
    assert isinstance(OpenLoop(job(1, rate=5)), OpenLoop)
    assert ClosedLoop(job(1)).details() == {}


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        pass


def test_client_reads_an_answer_however_it_is_cut() -> None:
    for cut in range(1, len(OK)):
        outcomes: list[str] = []
        client = Client(lambda client, outcome, seen=outcomes: seen.append(outcome))  # type: ignore[misc]
        client.connection_made(Wire())
        client.send(REQUEST, 0, 0)
        client.data_received(OK[:cut])
        assert outcomes == []
        client.data_received(OK[cut:])
        assert outcomes == ["200"]


def test_client_gives_up_on_what_it_cannot_read() -> None:
    for text in (
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"x",
    ):
        outcomes: list[str] = []
        client = Client(lambda client, outcome, seen=outcomes: seen.append(outcome))  # type: ignore[misc]
        client.connection_made(Wire())
        client.send(REQUEST, 0, 0)
        client.data_received(text)
        assert outcomes == [UNREADABLE]
        assert not client.connected


async def test_alarm_rings_once_for_an_instant_and_not_before_it() -> None:
    rung: asyncio.Queue[int] = asyncio.Queue()
    alarm = Alarm(lambda: rung.put_nowait(time.monotonic_ns()))
    try:
        instant = time.monotonic_ns() + 2_000_000
        alarm.set(instant)
        assert await rung.get() >= instant
        alarm.set(0)  # long past: at once
        await rung.get()
        assert rung.empty()
    finally:
        alarm.close()


def test_time_in_the_server_is_the_sum_of_its_parts() -> None:
    timing = b"parse;dur=0.500, queue;dur=20.000, batch;desc=8, compute;dur=30.250"
    head = b"HTTP/1.1 200 OK\r\nServer-Timing: " + timing + b"\r\nContent-Length: 2"
    assert server_us(head) == 50_750
    assert server_us(b"HTTP/1.1 200 OK\r\nContent-Length: 2") == 0


async def test_open_loop_tells_answers_apart_by_the_deadline() -> None:
    def took(milliseconds: int) -> bytes:
        timing = b"Server-Timing: queue;dur=1.000, compute;dur=%d.000\r\n" % milliseconds
        return b"HTTP/1.1 200 OK\r\n" + timing + b"Content-Length: 2\r\n\r\nok"

    async def answer(number: int) -> bytes:
        return {1: took(20), 2: took(90_000), 3: BUSY}.get(number, took(1))

    async with serving(answer) as port:
        # Nothing takes a minute: to the client all answers are in time.
        job_ = job(port, rate=200.0, seconds=0.5, max_requests=10, deadline_us=60_000_000)
        run = await perform(job_)
    assert run.details["late_by_server"] == 1
    assert run.details["goodput_within_deadline_per_s"] == run.requests / 0.5
    assert run.failures == {"status 429": 1}
