"""pyserve.deadlines: one timer for all, and a clock moved by hand."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyserve.deadlines import Deadlines, deadlines_here

MS = 1_000_000


class Timer:
    """What `call_later` returns."""

    def __init__(self, due_ns: int, callback: Callable[[], None]) -> None:
        self.due_ns = due_ns
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Time and timers, as far as `Deadlines` looks at a loop."""

    def __init__(self) -> None:
        self.now = 10**15
        self.timers: list[Timer] = []

    def clock(self) -> int:
        return self.now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        assert delay_s >= 0
        self.timers.append(Timer(self.now + round(delay_s * 1e9), callback))
        return self.timers[-1]

    def armed(self) -> list[Timer]:
        return [one for one in self.timers if not one.cancelled]

    def move(self, by_ns: int) -> None:
        """Let time pass, and ring what is due meanwhile."""
        end = self.now + by_ns
        while due := [one for one in self.armed() if one.due_ns <= end]:
            first = min(due, key=lambda one: one.due_ns)
            self.timers.remove(first)
            self.now = max(self.now, first.due_ns)
            first.callback()
        self.now = end


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    made = Loop()
    monkeypatch.setattr("pyserve.deadlines.asyncio.get_running_loop", lambda: made)
    yield made


def test_each_deadline_rings_once_in_its_order_and_never_early(loop: Loop) -> None:
    deadlines = Deadlines(loop.clock)
    rung: list[tuple[int, int]] = []
    start = loop.now
    for after in (30, 10, 20, 10):
        deadlines.add(
            start + after * MS, lambda after=after: rung.append((after, loop.now - start))
        )
        assert len(loop.armed()) == 1
    loop.move(9 * MS)
    assert rung == []
    loop.move(100 * MS)
    assert [after for after, _ in rung] == [10, 10, 20, 30]
    assert all(after * MS <= at <= (after + 1) * MS for after, at in rung)
    assert len(deadlines) == 0
    assert loop.armed() == []


def test_what_was_dropped_does_not_ring(loop: Loop) -> None:
    deadlines = Deadlines(loop.clock)
    rung: list[str] = []
    first = deadlines.add(loop.now + 5 * MS, lambda: rung.append("first"))
    deadlines.add(loop.now + 6 * MS, lambda: rung.append("second"))
    deadlines.drop(first)
    deadlines.drop(first)
    loop.move(20 * MS)
    assert rung == ["second"]
    deadlines.drop(first)
    assert loop.armed() == []


def test_a_deadline_in_the_past_rings_in_a_later_turn(loop: Loop) -> None:
    deadlines = Deadlines(loop.clock)
    rung: list[int] = []
    deadlines.add(1, lambda: rung.append(1))
    assert rung == []
    loop.move(MS)
    assert rung == [1]


def test_a_timer_that_rings_early_rings_again(loop: Loop) -> None:
    deadlines = Deadlines(loop.clock)
    rung: list[int] = []
    deadlines.add(loop.now + 5 * MS, lambda: rung.append(1))
    (timer,) = loop.armed()
    loop.timers.clear()
    loop.now += 5 * MS - 1
    timer.callback()
    assert rung == []
    loop.move(2 * MS)
    assert rung == [1]


def test_who_is_called_may_add_and_drop(loop: Loop) -> None:
    deadlines = Deadlines(loop.clock)
    rung: list[str] = []
    tickets: dict[str, int] = {}

    def first() -> None:
        rung.append("first")
        deadlines.drop(tickets["dropped"])
        deadlines.add(loop.now + 3 * MS, lambda: rung.append("later"))
        deadlines.add(loop.now - 1, lambda: rung.append("past"))

    at = loop.now + 5 * MS
    deadlines.add(at, first)
    tickets["dropped"] = deadlines.add(at, lambda: rung.append("dropped"))
    loop.move(7 * MS)
    assert rung == ["first", "past"]
    loop.move(7 * MS)
    assert rung == ["first", "past", "later"]
    assert loop.armed() == []


def test_a_callback_that_fails_keeps_no_other_from_its_turn(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    deadlines = Deadlines(loop.clock)
    rung: list[int] = []

    def fail() -> None:
        raise RuntimeError("boom")

    deadlines.add(loop.now + MS, fail)
    deadlines.add(loop.now + MS, lambda: rung.append(1))
    deadlines.add(loop.now + 9 * MS, lambda: rung.append(2))
    loop.move(20 * MS)
    assert rung == [1, 2]
    assert "a deadline could not be kept" in caplog.text


def test_what_was_dropped_is_let_go_at_once_and_leaves_no_heap_behind(loop: Loop) -> None:
    class Thing:
        def expire(self) -> None:
            raise AssertionError("it was dropped")

    deadlines = Deadlines(loop.clock)
    thing = Thing()
    seen = weakref.ref(thing)
    ticket = deadlines.add(loop.now + 60_000 * MS, thing.expire)
    del thing
    deadlines.drop(ticket)
    gc.collect()
    assert seen() is None
    for _ in range(10_000):
        deadlines.drop(deadlines.add(loop.now + 60_000 * MS, lambda: None))
    assert len(deadlines._heap) < 100
    # Nor does each of them cost a timer.
    assert len(loop.timers) == 1


def test_it_agrees_with_a_list_that_is_searched(loop: Loop) -> None:
    seed = random.randrange(2**32)
    random_ = random.Random(seed)
    deadlines = Deadlines(loop.clock)
    waiting: dict[int, int] = {}
    rung: list[int] = []
    number = 0
    for _ in range(3000):
        match random_.randrange(4):
            case 0 | 1:
                number += 1
                at = loop.now + random_.randrange(-5, 200) * MS
                ticket = deadlines.add(at, lambda number=number: rung.append(number))
                waiting[ticket] = max(at, loop.now)
            case 2 if waiting:
                ticket = random_.choice(list(waiting))
                deadlines.drop(ticket)
                del waiting[ticket]
            case _:
                loop.move(random_.randrange(20) * MS)
                due = [one for one, at in waiting.items() if at <= loop.now - MS]
                for ticket in due:
                    assert ticket in rung, seed
                for ticket in [one for one in waiting if one in rung]:
                    assert waiting.pop(ticket) <= loop.now, seed
        assert len(deadlines) == len(waiting), seed
        assert len(loop.armed()) <= 1, seed
    assert len(set(rung)) == len(rung), seed
    loop.move(1000 * MS)
    assert len(deadlines) == 0


async def test_each_loop_has_its_own() -> None:
    here = deadlines_here()
    assert deadlines_here() is here
    rung = asyncio.Event()
    here.add(1, rung.set)
    await asyncio.wait_for(rung.wait(), 20)

    async def other() -> Any:
        return deadlines_here()

    def run() -> Any:
        return asyncio.run(other())

    assert await asyncio.to_thread(run) is not here
