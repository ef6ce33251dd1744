"""What the core has to say to whoever runs the process: rare, and never about one request."""

import asyncio
from collections.abc import Callable

from pyserve._native import core

# Of a notice, its kind: `out_of_memory` (a version's batches are smaller from now on) or
# `device_lost` (nothing of this process will run on that device again); and what happened.
Handler = Callable[[str, str], None]


def watch(loop: asyncio.AbstractEventLoop, handler: Handler) -> Callable[[], None]:
    """Call `handler` on `loop` for each notice, also for those that wait; returns what ends it."""

    def tell() -> None:
        for kind, text in core().take_notices():
            handler(kind, text)

    fileno = core().notices_fileno()
    loop.add_reader(fileno, tell)

    def end() -> None:
        loop.remove_reader(fileno)

    return end
