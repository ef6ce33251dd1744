"""Brings the core's completions to the event loop that waits for them.

One reader per event loop, shared by all models: the core writes its eventfd once per burst, and
the reader settles all the futures of the burst in one hold of the GIL.
"""

import asyncio
import logging
import weakref
from typing import TYPE_CHECKING

from pyserve._native import core
from pyserve.errors import from_code

if TYPE_CHECKING:
    from pyserve import _C


_logger = logging.getLogger(__name__)


class CompletionReader:
    """Settles the futures of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.queue: _C.CompletionQueue = core().CompletionQueue()
        self._arrivals = 0  # in this turn of the loop
        self._last_arrivals = 0
        loop.add_reader(self.queue.fileno(), self.drain)

    def lone_arrival(self) -> bool:
        """Count a request, and say whether such come one by one.

        They do where the loop's last turn that saw any saw one.  Then nobody waits behind a model
        that runs on the loop's own thread for a few microseconds; a burst is better batched.
        """
        self._arrivals += 1
        if self._arrivals == 1:
            self.loop.call_soon(self._end_turn)
        return self._last_arrivals <= 1

    def _end_turn(self) -> None:
        self._last_arrivals, self._arrivals = self._arrivals, 0

    def drain(self) -> None:
        """Settle everything that has completed; on the loop's thread, or once it is closed."""
        for future, code, value in self.queue.drain():
            # Done: it was cancelled, or its deadline passed, while the core was at it.
            if not future.done():
                try:
                    if code is None:
                        future.set_result(value)
                    else:
                        future.set_exception(from_code(code, value))
                except Exception:  # a connection is no plain future, and the rest must be settled
                    _logger.exception("a completion could not be delivered")

    def discard(self) -> None:
        """Let go of what completed for a loop that is closed: nobody waits any more."""
        if self.loop.is_closed():
            self.queue.drain()


_readers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, CompletionReader] = (
    weakref.WeakKeyDictionary()
)


def reader_for(loop: asyncio.AbstractEventLoop) -> CompletionReader:
    """Return the reader of the loop that runs on this thread."""
    reader = _readers.get(loop)
    if reader is None:
        reader = _readers[loop] = CompletionReader(loop)
    return reader
