"""Ten times more requests than the server can answer, each with a deadline of its own.

What is promised: the server goes on answering as many as ever, all of them in time, and computes
nothing for a request whose deadline it cannot meet.
"""

import statistics

from benchmarks.context import Context, rates
from benchmarks.finding import Finding, ratios
from benchmarks.flood import MODEL, measure_flood
from pyserve.bench.bodies import with_parameters
from pyserve.bench.processes import ChildFailed
from pyserve.bench.values import Measurement

DEADLINE_MS = 50
GOODPUT = Finding(
    key="overload-deadline-goodput",
    what=f"10x overload of `resnet18` with a {DEADLINE_MS} ms deadline: answers within it ÷ peak",
    limit=0.9,
    at_most=False,
)
LATE = Finding(
    key="overload-deadline-late",
    what=f"10x overload of `resnet18` with a {DEADLINE_MS} ms deadline: answers computed after it",
    limit=0,
    at_most=True,
)

# A request that is due finds a connection free: they are refused or answered within the deadline.
_CONNECTIONS = 1024
_PATIENCE_S = 10.0
# A refusal: the queue is full, or the deadline cannot be met, or it has passed.
_REFUSALS = ("status 429", "status 504")


def measure_deadlines(context: Context) -> list[Finding]:
    """Peak (closed loop, 32 connections, no deadline) and overload in turn, on one server."""
    request = context.request(MODEL)
    flood = measure_flood(
        context,
        request,
        with_parameters(request, timeout=DEADLINE_MS * 1000),
        connections=_CONNECTIONS,
        patience_s=_PATIENCE_S,
        deadline_us=DEADLINE_MS * 1000,
    )
    overload = flood.overload
    check(overload)
    goodput = [one.details["goodput_within_deadline_per_s"] for one in overload.runs]
    details = {
        **flood.details(goodput),
        "answered_per_s": overload.detail("goodput_per_s"),
        "within_deadline_per_s": overload.detail("goodput_within_deadline_per_s"),
        "p50_ms": overload.latency_us.p50 / 1e3,
        "p99_ms": overload.latency_us.p99 / 1e3,
        **refusals(overload),
    }
    late = [one.details["late_by_server"] for one in overload.runs]
    return [
        GOODPUT.with_values(ratios(goodput, rates(flood.peak)), tool=flood.tool, details=details),
        LATE.with_values(late, tool="Server-Timing of the answers", details=details),
    ]


def refusals(overload: Measurement) -> dict[str, float]:
    """Return how many were refused, and the p99 of how long that took from when they left."""
    found: dict[str, float] = {}
    for status in ("429", "504"):
        some = [run for run in overload.runs if status in run.by_status]
        if some:
            count = statistics.median(one.by_status[status].count for one in some)
            p99_us = statistics.median(one.details[f"service_p99_us {status}"] for one in some)
            found |= {f"refused_{status}": count, f"p99_ms_of_{status}": p99_us / 1e3}
    return found


def check(overload: Measurement) -> None:
    """Nothing but answers and refusals may come of it, and there must be refusals."""
    others = {
        reason: count for reason, count in overload.failures.items() if reason not in _REFUSALS
    }
    if others:
        raise ChildFailed(f"overload: requests failed otherwise than by a refusal: {others}")
    if not overload.failures:
        raise ChildFailed("overload: nothing was refused, so there was none")
