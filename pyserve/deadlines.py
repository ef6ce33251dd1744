"""The deadlines of all requests of one event loop, and one timer for them.

Most requests are answered long before their deadline, so that taking one back must cost next to
nothing: it is forgotten at once, and its place in the heap goes later, with many others.
"""

import asyncio
import heapq
import logging
import time
import weakref
from collections.abc import Callable

# A loop counts in milliseconds, and its timers may be early by one.
_GRAIN_S = 0.001
_NS_PER_S = 1_000_000_000
# So many places of requests that are forgotten may lie in a heap of few others.
_SPARE = 64

_logger = logging.getLogger(__name__)


class Deadlines:
    """Calls back at deadlines, each once and never before; on its event loop.

    clock: instants in nanoseconds.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int]] = []  # deadlines and tickets, those forgotten among them
        self._expire: dict[int, Callable[[], object]] = {}  # what to call, by ticket
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0  # when it is due

    def __len__(self) -> int:
        return len(self._expire)

    def add(self, deadline_ns: int, expire: Callable[[], object]) -> int:
        """Have `expire` called at a deadline; returns a ticket, never 0, for `drop`."""
        self._last += 1
        self._expire[self._last] = expire
        heapq.heappush(self._heap, (deadline_ns, self._last))
        if self._timer is None or deadline_ns < self._timer_ns:
            self._arm(deadline_ns)
        return self._last

    def drop(self, ticket: int) -> None:
        """Forget a deadline; one that has passed is forgotten already."""
        if (
            self._expire.pop(ticket, None) is not None
            and len(self._heap) > 2 * len(self._expire) + _SPARE
        ):
            self._heap = [one for one in self._heap if one[1] in self._expire]
            heapq.heapify(self._heap)

    def _arm(self, deadline_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left_s = max(deadline_ns - self._clock(), 0) / _NS_PER_S + _GRAIN_S
        self._timer_ns = deadline_ns
        self._timer = asyncio.get_running_loop().call_later(left_s, self._ring)

    def _ring(self) -> None:
        """Call back for every deadline that has passed, and look for the next."""
        self._timer = None
        now = self._clock()
        try:
            while self._heap and (self._heap[0][0] <= now or self._heap[0][1] not in self._expire):
                _, ticket = heapq.heappop(self._heap)
                expire = self._expire.pop(ticket, None)
                if expire is not None:
                    try:
                        expire()
                    except Exception:  # the others are waiting too
                        _logger.exception("a deadline could not be kept")
        finally:
            if self._heap and (self._timer is None or self._heap[0][0] < self._timer_ns):
                self._arm(self._heap[0][0])


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Deadlines] = (
    weakref.WeakKeyDictionary()
)


def deadlines_here() -> Deadlines:
    """Return the deadlines of the loop that runs on this thread."""
    loop = asyncio.get_running_loop()
    found = _by_loop.get(loop)
    if found is None:
        found = _by_loop[loop] = Deadlines()
    return found
