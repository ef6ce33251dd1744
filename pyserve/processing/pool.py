"""The threads that processing runs on: one pool for all models, and a bound for each.

Decoding a picture takes milliseconds, which the event loop does not have.  The pool has as many
threads as there are CPUs: more would only take turns.
"""

import asyncio
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pyserve._native import core
from pyserve.errors import QueueFull
from pyserve.scheduling import overdue

_NS_PER_S = 1_000_000_000

T = TypeVar("T")


@functools.cache
def _threads() -> ThreadPoolExecutor:
    cpus = int(core().available_cpus())
    return ThreadPoolExecutor(cpus, thread_name_prefix="pyserve-process")


def _in_time(work: Callable[[], T], deadline_ns: int) -> T:
    """Do `work`, unless a thread was found for it too late."""
    if deadline_ns and time.monotonic_ns() >= deadline_ns:
        raise overdue()
    return work()


class Slots:
    """One model's share of the pool: at most `capacity` pieces of work, running or waiting.

    Used on one event loop.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._taken = 0

    async def run(self, work: Callable[[], T], deadline_ns: int = 0) -> T:
        """Do `work` on a thread; QueueFull where too much waits.

        DeadlineExceeded at `deadline_ns`, an instant of `time.monotonic_ns()`; 0 for never. Work
        that has not begun by then is not begun any more, nor is that of a caller that is cancelled.
        """
        if self._taken >= self._capacity:
            raise QueueFull(
                f"{self._taken} requests are being processed or wait for it, at most "
                f"{self._capacity} may"
            )
        left_s = None
        if deadline_ns:
            # A loop's timer may be early by its granularity of a millisecond.
            left_s = max(deadline_ns - time.monotonic_ns(), 0) / _NS_PER_S + 0.001
        self._taken += 1
        try:
            async with asyncio.timeout(left_s) as patience:
                return await asyncio.wrap_future(_threads().submit(_in_time, work, deadline_ns))
        except TimeoutError:
            if patience.expired():
                raise overdue() from None
            raise
        finally:
            self._taken -= 1
