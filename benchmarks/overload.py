"""Ten times more requests than the server can answer: it should go on answering as many as ever."""

import statistics

from benchmarks.context import Context, rates
from benchmarks.finding import Finding, ratios
from benchmarks.flood import MODEL, measure_flood
from pyserve.bench.processes import ChildFailed
from pyserve.bench.values import Measurement

GOODPUT = Finding(
    key="overload-goodput",
    what="10x overload of `resnet18`, open loop: goodput ÷ peak",
    limit=0.9,
    at_most=False,
)
REFUSALS = Finding(
    key="overload-429",
    what="10x overload of `resnet18`, open loop: p99 of the 429 answers",
    limit=20,
    at_most=True,
    unit="ms",
)

_QUEUE_CAPACITY = 1024  # the default
# More than the queue holds and what is on its way, so that a request that is due finds a
# connection free.
_CONNECTIONS = 2048
_PATIENCE_S = 60.0


def measure_overload(context: Context) -> list[Finding]:
    """Peak (closed loop, 32 connections) and overload in turn, on one server with its defaults."""
    request = context.request(MODEL)
    flood = measure_flood(
        context,
        request,
        request,
        connections=_CONNECTIONS,
        patience_s=_PATIENCE_S,
        queue_capacity=_QUEUE_CAPACITY,
    )
    overload = flood.overload
    _check(overload)
    goodput = [one.details["goodput_per_s"] for one in overload.runs]
    details = {
        **flood.details(goodput),
        "goodput_per_s": overload.detail("goodput_per_s"),
        "sent_late_p50_us": overload.detail("sent_late_p50_us"),
        "refusal_p50_ms": _refusal(overload, "p50"),
        "refusal_p99_from_leaving_ms": overload.detail("service_p99_us 429") / 1e3,
        "refused": statistics.median(one.by_status["429"].count for one in overload.runs),
    }
    p99s = [one.by_status["429"].p99 / 1e3 for one in overload.runs]
    return [
        GOODPUT.with_values(ratios(goodput, rates(flood.peak)), tool=flood.tool, details=details),
        REFUSALS.with_values(p99s, tool=overload.tool, details=details),
    ]


def _refusal(overload: Measurement, name: str) -> float:
    found = [float(getattr(run.by_status["429"], name)) for run in overload.runs]
    return statistics.median(found) / 1e3


def _check(overload: Measurement) -> None:
    """Nothing but 200 and 429 may come of an overload, and every request gets its answer."""
    others = {reason: count for reason, count in overload.failures.items() if "429" not in reason}
    if others:
        raise ChildFailed(f"overload: requests failed otherwise than with 429: {others}")
    if not all("429" in run.by_status for run in overload.runs):
        raise ChildFailed("overload: nothing was refused, so there was none")
