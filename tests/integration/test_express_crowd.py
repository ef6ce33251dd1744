"""Requests for a light model that arrive in one turn of the loop share a batch."""

from __future__ import annotations

import re
from pathlib import Path

from in_process import House, Pipe, in_a_house, said
from lane_requests import GOOD, ROW, SMALL, infer, infer_raw
from lanes import Heard, heard, statuses
from server_process import floats, numbers

INFER = "/v2/models/{model}/infer"


def crowd(house: House, *requests: bytes) -> list[Pipe]:
    """Connections that have just sent these at once, behind another such crowd."""
    pipes = [house.connect() for _ in requests]
    for pipe, request in zip(pipes, requests, strict=True):
        pipe.send(request)
    return pipes


async def until_answered(house: House, *requests: bytes) -> None:
    """Have a crowd answered, so that the next requests are not taken for lone ones."""
    crowd(house, *requests)
    await house.quiet()


def batch_of(answer: Heard) -> int:
    """How many rows were run together with a request."""
    found = re.search(rb"batch;desc=(\d+)", answer.head)
    assert found is not None
    return int(found[1])


def test_requests_that_arrive_together_are_run_together_and_answered_apart(
    model_repository: Path,
) -> None:
    async def check(house: House) -> None:
        await until_answered(house, SMALL, SMALL)
        house.forget_counts()
        requests = [infer_raw("affine", floats(i, 0, 0, 0) * (i % 3 + 1)) for i in range(9)]
        requests += [infer("affine", numbers(9, 0, 0, 0) | {"id": "json"})]
        pipes = crowd(house, *requests)
        assert not any(pipe.written for pipe in pipes)  # not before the turn's end
        await house.quiet()
        assert house.express == {"run": 10}
        for number, pipe in enumerate(pipes):
            (answer,) = heard(bytes(pipe.written))
            assert answer.status == 200
            assert batch_of(answer) == 19
            (alone,) = heard(await said(house, requests[number]))
            assert answer.body == alone.body
        (stats,) = house.service.stats("affine")
        assert stats.stats.success_count == 22

    in_a_house(model_repository, "affine", test=check)


def test_a_crowd_larger_than_a_batch_is_run_in_several(model_repository: Path) -> None:
    async def check(house: House) -> None:
        await until_answered(house, SMALL, SMALL)
        pipes = crowd(house, *[infer_raw("affine", ROW * 25)] * 5)
        await house.quiet()
        answers = [heard(bytes(pipe.written)) for pipe in pipes]
        assert [one.status for (one,) in answers] == [200] * 5
        assert [batch_of(one) for (one,) in answers] == [50, 50, 50, 50, 25]  # 64 at most

    in_a_house(model_repository, "affine", test=check)


def test_only_the_poisoned_one_of_a_crowd_fails(model_repository: Path) -> None:
    async def check(house: House) -> None:
        good = infer("fussy", GOOD)
        await until_answered(house, good, good)
        poisoned = infer("fussy", numbers(-1, 2, 3, 4) | {"id": "bad"})
        pipes = crowd(house, good, poisoned, good)
        await house.quiet()
        answers = [heard(bytes(pipe.written)) for pipe in pipes]
        assert [one.status for (one,) in answers] == [200, 500, 200]
        assert b'request \\"bad\\"' in answers[1][0].body
        (stats,) = house.service.stats("fussy")
        assert (stats.stats.success_count, sum(stats.stats.failure_counts.values())) == (4, 1)

    in_a_house(model_repository, "fussy", test=check)


def test_who_leaves_a_crowd_is_not_run_and_counts_as_499(model_repository: Path) -> None:
    async def check(house: House) -> None:
        await until_answered(house, SMALL, SMALL)
        first, second = crowd(house, SMALL, SMALL)
        first.connection.connection_lost(None)
        await house.quiet()
        assert not first.written
        (answer,) = heard(bytes(second.written))
        assert batch_of(answer) == 1
        assert sorted(house.app.responses()) == [(INFER, 200, 3), (INFER, 499, 1)]
        (stats,) = house.service.stats("affine")
        assert stats.stats.failure_counts["cancelled"] == 1

    in_a_house(model_repository, "affine", test=check)


def test_a_crowd_whose_version_leaves_meanwhile_goes_to_its_successor(
    model_repository: Path,
) -> None:
    async def check(house: House) -> None:
        await until_answered(house, SMALL, SMALL)
        pipes = crowd(house, SMALL, SMALL)
        # Behind the lane's back, and before the turn ends.
        live = house.registry.get("affine")
        assert live.drain(0)
        house.registry.load("affine", {("queue", "capacity"): 100}).result()
        await house.quiet()
        for pipe in pipes:
            assert statuses(heard(bytes(pipe.written))) == [200]
        assert house.express["left"] == 2

    in_a_house(model_repository, "affine", test=check)
