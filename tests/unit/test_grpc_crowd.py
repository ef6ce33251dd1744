"""Who waits for whom, and for how long."""

from __future__ import annotations

import asyncio

from pyserve.grpc.crowd import MOST, Crowd

LONG = 200  # turns after which nothing waits any more


class Told:
    """A crowd, and what it ran."""

    def __init__(self) -> None:
        self.ran: list[list[int]] = []
        self.crowd: Crowd[int] = Crowd(self.ran.append)

    def come(self, one: int) -> bool:
        """Let a request come; whether it waits."""
        if self.crowd.gathers():
            self.crowd.add(one)
            return True
        return False

    def meet(self) -> int:
        """Let requests come until one waits; returns how many did not."""
        alone = 0
        while not self.come(0):
            alone += 1
        return alone


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_lone_caller_waits_once_in_a_while() -> None:
    told = Told()
    first = told.meet()
    assert first > 30
    await turns(LONG)
    assert told.meet() == first
    await turns(LONG)
    assert told.ran == [[0], [0]]


async def test_those_who_come_in_time_are_run_together_and_in_order() -> None:
    told = Told()
    told.meet()
    for one in range(1, 5):
        await turns(5)
        assert told.come(one)
    assert not told.ran
    await turns(LONG)
    assert told.ran == [[0, 1, 2, 3, 4]]


async def test_a_crowd_waits_until_a_lone_caller_is_left() -> None:
    told = Told()
    told.meet()
    assert told.come(1)
    await turns(LONG)
    assert told.come(2)
    await turns(LONG)
    assert told.ran == [[0, 1], [2]]
    assert not told.come(3)


async def test_who_makes_it_full_is_not_waited_after() -> None:
    told = Told()
    told.meet()
    for one in range(1, MOST):
        assert told.come(one)
    await turns(2)
    assert told.ran == [list(range(MOST))]
