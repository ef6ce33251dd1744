"""The beginning of the end: what waits for a client's next message learns that there is no time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyserve.errors import Unavailable


class Drain:
    """Begins once."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._readers: set[asyncio.Task[Any]] = set()

    @property
    def begun(self) -> bool:
        """Whether the server is on its way out."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Cancel every task that `ends` has been told of."""
        self._begun.set()
        for reader in self._readers:
            reader.cancel()

    @contextmanager
    def ends(self, reader: asyncio.Task[Any]) -> Iterator[None]:
        """Let the drain cancel `reader` for as long as the block lasts."""
        self._readers.add(reader)
        if self.begun:
            reader.cancel()
        try:
            yield
        finally:
            self._readers.discard(reader)

    async def within(self, seconds: float) -> bool:
        """Wait for the drain to begin, but no longer than that; whether it has."""
        try:
            await asyncio.wait_for(self._begun.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def refusal(self) -> Unavailable:
        """Return what a call that the drain ends is told."""
        return Unavailable("the server is shutting down: call another one")
