"""Light requests of a crowd, gathered on the event loop and run one right after the other.

A run of a few microseconds takes several times as long where grpc's code and the model's push each
other out of the processor's caches with every request.  So while there is a crowd, a request waits
for a few turns of the loop, in which grpc brings in others, and then all of them are run at once.
A lone caller does not wait: only now and then one of its requests looks whether there are others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

MOST = 16
"""Requests that are run at once; more would only let the first of them wait longer."""

# Turns of the loop without a new request, after which none is expected: while fewer are there than
# there were of late, and from then on.
_PATIENCE = 32
_HASTE = 16

# Of the requests of a lone caller, one in so many looks for others.
_LOOK_EVERY = 64

T = TypeVar("T")


class Crowd(Generic[T]):
    """The requests of all callers; on one event loop.

    run: is given what was gathered, in the order in which it came.
    """

    def __init__(self, run: Callable[[list[T]], None]) -> None:
        self._run = run
        self._waiting: list[T] = []
        self._size = 1  # of what was run last
        self._alone = 0  # requests since the last look
        self._turns_left = 0

    def gathers(self) -> bool:
        """Count a request, and say whether it is to wait for others, by `add`."""
        if self._waiting or self._size > 1:
            return True
        self._alone += 1
        return self._alone % _LOOK_EVERY == 0

    def add(self, one: T) -> None:
        """Let a request wait for its turn to be run."""
        self._waiting.append(one)
        here = len(self._waiting)
        self._turns_left = _PATIENCE if here < self._size else _HASTE if here < MOST else 0
        if here == 1:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turns_left -= 1
        if self._turns_left > 0:
            asyncio.get_running_loop().call_soon(self._turn)
            return
        waiting, self._waiting = self._waiting, []
        self._size = len(waiting)
        self._run(waiting)
