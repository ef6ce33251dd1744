"""Which requests take the express lane, and what becomes of a connection that does."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from in_process import House, in_a_house, loop_that_tells, said
from lane_requests import GOOD, GOOD_REQUESTS, LIMIT, SMALL, head, infer, infer_raw, odd, rows
from lanes import heard, statuses
from server_process import floats, numbers

from pyserve.deadlines import deadlines_here
from pyserve.http import express

INFER = "/v2/models/{model}/infer"

# Good, and left to the plain lane all the same: each costs it less than a rule would cost all.
LEFT = {
    "an empty line between",
    "an escaped path",
    "a long header",
    "a query",
    "a whole URL",
    "Accept-Encoding twice",
    "chunked",
    "content types",  # one of them is multipart
    "deflate",
    "gzip body",
    "gzip, large raw",
    "gzip, large",
    "id beyond ASCII",
    "id that is escaped",
    "long id",
    "many headers",
    "no gzip",
    "no outputs",
    "no strings",
    "a timeout beyond 62 bits",
    "a timeout beyond all time",
    "null timeout and priority",
    "timeout twice",
    "priority and what is unknown",
    "null id",
    "null outputs",
    "raw, any size",
    "raw, one string",
    "some length near the limit of compression",
    "strings",
    "binary strings",  # answered as JSON
    "TE",
    "unknown keys",
}


async def answered(house: House, request: bytes) -> list[int]:
    """The statuses of what comes back on a connection of its own."""
    pipe = house.connect()
    pipe.send(request)
    await house.quiet()
    return statuses(heard(bytes(pipe.written)))


def taken(house: House) -> int:
    """How many requests the lane took and answered, or will answer."""
    return house.express["run"] + house.express["queued"]


def test_plain_requests_of_every_kind_take_the_lane(model_repository: Path) -> None:
    async def check(house: House) -> None:
        wrong = []
        for name, request in GOOD_REQUESTS.items():
            house.forget_counts()
            found = await answered(house, request)
            assert set(found) == {200}, name
            if (taken(house) == len(found)) != (name not in LEFT):
                wrong.append(name)
        assert not wrong

    models = ("affine", "pair", "lengths", "shout", "scalar")
    in_a_house(model_repository, *models, test=check)


def test_a_refusal_of_the_model_stays_in_the_lane(model_repository: Path) -> None:
    async def check(house: House) -> None:
        assert await answered(house, infer("fussy", numbers(-1, 2, 3, 4))) == [500]
        nan = infer("affine", numbers(3e38, 2, 3, 4))
        assert await answered(house, nan) == [400]
        assert house.express["left"] == 0
        assert taken(house) == 2
        # What the core cannot say in Python's words it leaves to Python.
        assert await answered(house, infer("affine", b"{}")) == [400]
        assert house.express["left"] == 1
        assert await answered(house, infer("nope", GOOD)) == [404]
        assert taken(house) == 2

    in_a_house(model_repository, "affine", "fussy", test=check)


def test_the_first_bytes_of_a_connection_may_be_a_request_for_the_lane(
    model_repository: Path,
) -> None:
    async def check(house: House) -> None:
        pipe = house.connect()
        pipe.send(SMALL)  # before aiohttp's own task has taken its first step
        assert statuses(heard(bytes(pipe.written))) == [200]
        assert house.express == {"run": 1}

    in_a_house(model_repository, "affine", test=check)


@pytest.mark.parametrize(
    "plain",
    [
        head("GET /v2/models/affine/ready HTTP/1.1", "Host: here"),
        GOOD_REQUESTS["unknown keys"],
        GOOD_REQUESTS["gzip body"],
    ],
    ids=["get", "unknown keys", "gzip body"],
)
def test_a_connection_comes_back_to_the_lane_after_a_plain_request(
    model_repository: Path, plain: bytes
) -> None:
    async def check(house: House) -> None:
        pipe = house.connect()
        for number in range(1, 4):
            pipe.send(SMALL)
            await house.quiet()
            assert taken(house) == 2 * number - 1
            written = len(pipe.written)
            pipe.send(plain)
            while len(pipe.written) == written:
                await asyncio.sleep(0)
            # As soon as there is an answer the next may come; aiohttp's task has yet to wake up.
            pipe.send(SMALL)
            assert taken(house) == 2 * number
            await house.quiet()
        assert statuses(heard(bytes(pipe.written))) == [200] * 9

    in_a_house(model_repository, "affine", test=check)


def test_a_plain_request_under_way_holds_up_those_behind_it(model_repository: Path) -> None:
    async def check(house: House) -> None:
        pipe = house.connect()
        pipe.send(infer("affine", numbers(0, 0, 0, 0) | {"id": "1", "more": 1}))
        pipe.send(infer("affine", numbers(0, 0, 0, 0) | {"id": "2"}))
        assert not pipe.written
        await house.quiet()
        one, two = heard(bytes(pipe.written))
        assert b'"id":"1"' in one.body
        assert b'"id":"2"' in two.body

    in_a_house(model_repository, "affine", test=check)


def test_a_client_that_leaves_cancels_its_request_and_holds_up_nobody(
    model_repository: Path,
) -> None:
    """`patient` would give the request back only with its next batch, in a minute."""

    async def check(house: House) -> None:
        pipes = [house.connect() for _ in range(3)]
        for pipe in pipes:
            pipe.send(infer("patient", GOOD) * 2)  # the second waits behind the first
        assert house.express == {"queued": 3}
        assert house.busy()
        (stats,) = house.service.stats("patient")
        assert stats.stats.queued == 3
        for pipe in pipes:
            pipe.leave()
        await asyncio.sleep(0)  # the loop's next turn tells the connections
        assert house.in_flight == 0
        assert not house.busy()
        (stats,) = house.service.stats("patient")
        assert stats.stats.queued == 0
        assert house.app.responses() == [(INFER, 499, 3)]
        # The batch that takes them away answers who is still there, and nobody else.
        last = house.connect()
        rows = {"inputs": [GOOD["inputs"][0] | {"shape": [4, 4], "data": [1] * 16}]}
        last.send(infer("patient", rows))
        await house.quiet()
        assert statuses(heard(bytes(last.written))) == [200]
        assert not any(pipe.written for pipe in pipes)

    in_a_house(model_repository, "patient", test=check)


def test_what_changes_what_is_served_changes_it_for_the_lane(model_repository: Path) -> None:
    async def check(house: House) -> None:
        pipe = house.connect()
        pipe.send(SMALL)
        before = house.registry.get("affine")
        house.registry.load("affine", {("queue", "capacity"): 100}).result()
        pipe.send(SMALL)
        await house.quiet()
        assert before.stats().success_count == 1
        assert house.registry.get("affine").stats().success_count == 1
        house.registry.unload("affine").result()
        pipe.send(SMALL)
        await house.quiet()
        *served, gone = statuses(heard(bytes(pipe.written)))
        assert served == [200, 200]
        assert gone in {404, 503}  # it may be on its way out still
        assert sorted(house.app.responses()) == [(INFER, 200, 2), (INFER, gone, 1)]

    in_a_house(model_repository, "affine", test=check)


def test_with_an_aiohttp_that_is_not_known_all_takes_the_plain_lane(
    model_repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(express, "_INTERNALS", (*express._INTERNALS, "_of_another_release"))

    async def run() -> None:
        with House(model_repository, "affine", express=True, known=False) as house:
            assert await answered(house, SMALL) == [200]
            assert house.app.responses() == [(INFER, 200, 1)]

    with (
        caplog.at_level(logging.WARNING, "pyserve"),
        asyncio.Runner(loop_factory=loop_that_tells) as runner,
    ):
        runner.run(run())
    assert "no _of_another_release" in caplog.text


PAGE = "https://app.example"


def test_with_origins_to_answer_who_names_none_still_takes_the_lane(model_repository: Path) -> None:
    async def check(house: House) -> None:
        (answer,) = heard(await said(house, SMALL))
        assert house.express == {"run": 1}
        assert b"\r\nVary: Origin\r\n" in answer.head
        for origin in (PAGE, "https://evil.example"):
            (answer,) = heard(await said(house, infer("affine", GOOD, f"Origin: {origin}")))
            assert (b"\r\nAccess-Control-Allow-Origin: " in answer.head) == (origin == PAGE)
        assert house.express == {"run": 1}
        (answer,) = heard(await said(house, infer("affine", numbers(3e38, 2, 3, 4))))
        assert house.express == {"run": 2}
        assert answer.status == 400
        assert b"\r\nVary: Origin\r\n" in answer.head

    in_a_house(model_repository, "affine", cors_origin=(PAGE,), test=check)


def test_the_rest_of_a_head_may_come_whenever_it_likes(model_repository: Path) -> None:
    async def check(house: House) -> None:
        pipe = house.connect()
        for at in range(len(SMALL)):
            pipe.send(SMALL[at : at + 1])
            await house.quiet()
        pipe.send(SMALL + SMALL[:30])
        pipe.send(SMALL[30:])
        await house.quiet()
        assert statuses(heard(bytes(pipe.written))) == [200] * 3
        assert taken(house) == 3
        pipe.send(b"GET /v2 HT")
        pipe.send(b"TP/9.9\r\n\r\n")
        await house.quiet()
        assert statuses(heard(bytes(pipe.written))) == [200] * 3 + [400]
        assert pipe.closed

    in_a_house(model_repository, "affine", test=check)


def test_an_idle_connection_of_the_lane_is_closed_and_a_busy_one_is_not(
    model_repository: Path,
) -> None:
    async def check(house: House) -> None:
        idle, used, waiting = house.connect(), house.connect(), house.connect()
        await asyncio.sleep(0)  # aiohttp's own tasks begin to wait
        idle.send(SMALL)
        used.send(SMALL)
        waiting.send(infer("patient", GOOD))
        for pipe, timeout_s in ((idle, -1.0), (used, 3600.0), (waiting, 3600.0)):
            connection = pipe.connection
            connection._keepalive_timeout = timeout_s
            connection._next_keepalive_close_time = 0.0  # as if aiohttp had seen nothing for long
            connection._process_keepalive()
        assert (idle.closed, used.closed, waiting.closed) == (True, False, False)
        waiting.leave()

    in_a_house(model_repository, "affine", "patient", test=check)


LARGE = infer_raw("affine", floats(1, 2, 3, 4) * 64)
IMMENSE = odd("Host: here", f"Content-Length: {LIMIT}")


@pytest.mark.parametrize("request_", [SMALL, LARGE, IMMENSE], ids=["small", "large", "immense"])
def test_a_client_that_leaves_within_its_body_counts_as_499(
    model_repository: Path, request_: bytes
) -> None:
    async def check(house: House) -> None:
        pipe = house.connect()
        pipe.send(request_[:-10])
        await house.quiet()
        assert house.in_flight == 1
        pipe.leave()
        await house.quiet()
        assert house.in_flight == 0
        assert house.app.responses() == [(INFER, 499, 1)]
        assert not pipe.written

    in_a_house(model_repository, "affine", test=check)


@pytest.mark.parametrize("size", [1, 1000, 100_000, 10_000_000])
def test_a_large_body_comes_in_pieces_of_any_size(model_repository: Path, size: int) -> None:
    rows = 1 if size == 1 else 64
    text = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[%d,4],"data":[' % rows
    data = (b"0.5," + b" " * (10_000 if rows > 1 else 3)) * (4 * rows)
    request = infer("affine", text + data.strip(b" ,") + b"]}]}")

    async def check(house: House) -> None:
        pipe = house.connect()
        for at in range(0, len(request), size):
            pipe.send(request[at : at + size])
        pipe.send(SMALL)
        await house.quiet()
        assert statuses(heard(bytes(pipe.written))) == [200, 200]
        assert taken(house) == 2

    in_a_house(model_repository, "affine", test=check)


def test_a_draining_server_answers_what_has_begun_and_closes(model_repository: Path) -> None:
    async def check(house: House) -> None:
        assert house.lane is not None
        pipe, idle = house.connect(), house.connect()
        idle.send(SMALL)
        pipe.send(SMALL[:-5])
        await house.quiet()
        for part in (house.service, house.app, house.lane):
            part.start_draining()
        drained = asyncio.ensure_future(house.app.drained())
        await house.quiet()
        assert not drained.done()
        pipe.send(SMALL[-5:] + SMALL)
        await drained
        (answer,) = heard(bytes(pipe.written))
        assert answer.status == 200
        assert b"\r\nConnection: close\r\n" in answer.head
        assert pipe.closed
        idle.send(SMALL)
        await house.quiet()
        _, late = heard(bytes(idle.written))
        assert late.status == 503
        assert b"\r\nConnection: close\r\n" in late.head
        assert idle.closed
        assert taken(house) == 2

    in_a_house(model_repository, "affine", test=check)


LATE = infer("patient", GOOD | {"parameters": {"timeout": 20_000}})


def test_a_deadline_ends_a_request_in_the_lane_and_the_next_is_taken(
    model_repository: Path,
) -> None:
    async def check(house: House) -> None:
        assert await answered(house, LATE + SMALL + LATE + SMALL) == [504, 200, 504, 200]
        assert house.express == {"queued": 2, "run": 2}
        assert house.service.stats("patient")[0].stats.queued == 0

    in_a_house(model_repository, "affine", "patient", test=check)


def test_what_comes_back_of_an_overdue_request_is_nothing_to_the_next_one(
    model_repository: Path,
) -> None:
    """`patient` finds it in its queue, and gives it back, when four other rows make a batch."""

    async def check(house: House) -> None:
        first, second = house.connect(), house.connect()
        first.send(LATE)
        await house.quiet()
        assert statuses(heard(bytes(first.written))) == [504]
        first.send(infer("patient", GOOD))
        second.send(infer("patient", rows(3)))
        await house.quiet()
        assert statuses(heard(bytes(first.written))) == [504, 200]
        assert statuses(heard(bytes(second.written))) == [200]
        assert house.express["left"] == 0

    in_a_house(model_repository, "patient", test=check)


def test_a_client_that_leaves_before_its_deadline_leaves_nothing_behind(
    model_repository: Path,
) -> None:
    async def check(house: House) -> None:
        pipe = house.connect()
        pipe.send(infer("patient", GOOD | {"parameters": {"timeout": 30_000_000}}))
        assert len(deadlines_here()) == 1
        pipe.leave()
        await house.quiet()
        assert len(deadlines_here()) == 0
        assert not pipe.written

    in_a_house(model_repository, "patient", test=check)


def test_an_answer_in_time_takes_its_deadline_along(model_repository: Path) -> None:
    async def check(house: House) -> None:
        half = infer("patient", rows(2) | {"parameters": {"timeout": 30_000_000}})
        pipes = [house.connect(), house.connect()]
        for pipe in pipes:
            pipe.send(half)
        await house.quiet()
        assert [statuses(heard(bytes(pipe.written))) for pipe in pipes] == [[200], [200]]
        assert house.express == {"queued": 2}
        assert len(deadlines_here()) == 0

    in_a_house(model_repository, "patient", test=check)


def test_a_model_with_a_timeout_of_its_own_is_served_in_the_lane(model_repository: Path) -> None:
    async def run() -> None:
        settings = ("patient:queue.timeout_ms=20", "patient:queue.default_priority=3")
        with House(model_repository, "patient", "affine", express=True, settings=settings) as house:
            assert await answered(house, infer("patient", GOOD) + SMALL) == [504, 200]
            assert house.express == {"queued": 1, "run": 1}
            pipe = house.connect()
            pipe.send(infer("patient", GOOD))
            assert pipe.connection._core.priority == 3
            pipe.leave()
            await house.quiet()

    with asyncio.Runner(loop_factory=loop_that_tells) as runner:
        runner.run(run())


@pytest.mark.parametrize(
    ("parameters", "priority"),
    [({}, 2), ({"priority": 0}, 2), ({"priority": 1}, 1), ({"priority": 3, "timeout": 10**9}, 3)],
)
def test_the_core_is_told_the_priority(
    model_repository: Path, parameters: dict[str, int], priority: int
) -> None:
    async def check(house: House) -> None:
        pipe = house.connect()
        pipe.send(infer("patient", GOOD | {"parameters": parameters}))
        assert pipe.connection._core.priority == priority
        pipe.leave()

    in_a_house(model_repository, "patient", test=check)
