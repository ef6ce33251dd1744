"""By when a request is to be answered, and before whom: what may be said of it, for every door.

Instants are nanoseconds of the steady clock, `time.monotonic_ns()`, which nobody can move. What
runs first is the core's business.
"""

import math
import time

from pyserve.errors import DeadlineExceeded, InvalidInput
from pyserve.typed import show

NEVER_NS = 2**63 - 1
"""No instant of the steady clock is later."""

LOWEST_PRIORITY = 3

_NS_PER_S = 1_000_000_000
_US_PER_S = 1_000_000


def priority_of(value: object) -> int:
    """Return the priority that a request names, or 0: then it is the model's default."""
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LOWEST_PRIORITY:
        return value
    raise InvalidInput(
        f"priority is {show(value)}, expected 1 (high), 2 (normal), 3 (low) or 0 (the model's)"
    )


def timeout_us_of(value: object) -> int:
    """Return the timeout that a request names, in microseconds; 0 for none."""
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise InvalidInput(
        f"timeout is {show(value)}, expected microseconds: a whole number, 0 for none"
    )


def nearest_deadline(deadline_ns: int, timeout_us: int) -> int:
    """Return the earlier of a deadline and of now and a timeout; 0 stands for none, everywhere."""
    if not timeout_us:
        return deadline_ns
    own = min(time.monotonic_ns() + timeout_us * 1000, NEVER_NS)
    return min(deadline_ns, own) if deadline_ns else own


def deadline_after(seconds: float) -> int:
    """Return the instant `seconds` from now; now, where they are below 0."""
    if math.isnan(seconds):
        raise InvalidInput("timeout is not a number, expected seconds")
    left_s = min(max(seconds, 0.0), NEVER_NS / _NS_PER_S)
    return min(time.monotonic_ns() + int(left_s * _NS_PER_S), NEVER_NS)


def timeout_us_in(seconds: float) -> int:
    """Return a client's timeout as requests carry it: 1 or more, and 0 for no end."""
    if seconds == math.inf:
        return 0
    return max(int(seconds * _US_PER_S), 1)


def overdue() -> DeadlineExceeded:
    """Return the error of a request whose deadline has passed."""
    return DeadlineExceeded("the deadline passed before the request was answered")
