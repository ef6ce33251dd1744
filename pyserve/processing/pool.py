"""The threads that processing runs on: one pool for all models, and a bound for each.

Decoding a picture takes milliseconds, which the event loop does not have.  The pool has as many
threads as there are CPUs: more would only take turns.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pyserve._native import core
from pyserve.errors import QueueFull

T = TypeVar("T")


@functools.cache
def _threads() -> ThreadPoolExecutor:
    cpus = int(core().available_cpus())
    return ThreadPoolExecutor(cpus, thread_name_prefix="pyserve-process")


class Slots:
    """One model's share of the pool: at most `capacity` pieces of work, running or waiting.

    Used on one event loop.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._taken = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` on a thread; QueueFull where too much waits.

        Work of a caller that is cancelled meanwhile is not begun.
        """
        if self._taken >= self._capacity:
            raise QueueFull(
                f"{self._taken} requests are being processed or wait for it, at most "
                f"{self._capacity} may"
            )
        self._taken += 1
        try:
            return await asyncio.wrap_future(_threads().submit(work))
        finally:
            self._taken -= 1
