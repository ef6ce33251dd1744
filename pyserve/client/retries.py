"""When a request is tried again, and how long after: no clock and no sleep of its own.

Tried again is what was refused for now (429, 503), and what got no answer at all; an inference has
no side effects, so that one which may have run may run again. Exponential backoff with full jitter
keeps many clients from coming back at once; `Retry-After` is waited for before it.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pyserve.errors import (
    DeadlineExceeded,
    PyserveError,
    QueueFull,
    Unavailable,
)

_FIRST_S = 0.05
_LONGEST_S = 5.0


class NoAnswer(Unavailable):
    """The server cannot be reached, or hung up before its answer was whole.

    again: whether another try is worth it: always (nothing was sent), only where a request may be
    repeated, or never (the answer had begun, or the certificate is not trusted).
    """

    def __init__(
        self, message: str = "", *, again: Literal["always", "repeatable", "never"] = "never"
    ) -> None:
        super().__init__(message)
        self.again = again


@dataclass(frozen=True)
class Retries:
    """How often, and with what luck; `draw` returns numbers from 0 to 1."""

    count: int
    draw: Callable[[], float] = random.random

    def pause_s(
        self, error: PyserveError, attempt: int, left_s: float, *, repeatable: bool
    ) -> float | None:
        """Return how long to wait after the failed `attempt` (from 0); None: do not try again."""
        if attempt >= self.count or not isinstance(error, QueueFull | Unavailable):
            return None
        if isinstance(error, NoAnswer) and (
            error.again == "never" or (error.again == "repeatable" and not repeatable)
        ):
            return None
        pause = self.draw() * min(_FIRST_S * 2**attempt, _LONGEST_S) + (error.retry_after_s or 0.0)
        return pause if pause < left_s else None


class Deadline:
    """The end of one call with all its attempts; the time counts from the first look.

    told: the server is told of it. It is not where nobody has chosen a timeout: that is no promise
    which requests should be scheduled by, and a client that gives up hangs up anyway.
    """

    __slots__ = ("_clock", "_end", "_timeout_s", "_told")

    def __init__(self, timeout_s: float, clock: Callable[[], float], *, told: bool) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._told = told
        self._end: float | None = None

    def remaining_s(self) -> float:
        """Return the seconds left, infinity where there is no end; DeadlineExceeded at the end."""
        left = self.left_s()
        if left <= 0:
            raise too_late(self._timeout_s)
        return left

    def told_s(self, left_s: float) -> float:
        """Return what the server is told of the seconds left: them, or infinity for nothing."""
        return left_s if self._told else math.inf

    def left_s(self) -> float:
        """Return the seconds left, below 0 after the end."""
        if self._end is None:
            # Exactly what the caller said, so that each request says it in the same words.
            self._end = self._clock() + self._timeout_s
            return self._timeout_s
        return self._end - self._clock()


def too_late(timeout_s: float) -> DeadlineExceeded:
    """Return the error of a client that has waited long enough."""
    return DeadlineExceeded(f"no answer within {timeout_s:.3g} s")
