"""Ten times more requests than the server can answer: it should go on answering as many as ever.

An open loop by the built-in sender: it does not slow down when the server does.
"""

import os
import statistics

from benchmarks.context import Context, rates
from benchmarks.finding import Finding, ratios
from benchmarks.http import SLOW_MODEL, front_end_cpu_s
from pyserve.bench import load
from pyserve.bench.probes import Probe
from pyserve.bench.processes import ChildFailed
from pyserve.bench.values import Measurement, Run

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

_FACTOR = 10
_PEAK_CONNECTIONS = 32
_QUEUE_CAPACITY = 1024  # the default
# More than the queue holds and what is on its way, so that a request that is due finds a
# connection free.
_CONNECTIONS = 2048
_PATIENCE_S = 60.0


def measure_overload(context: Context) -> list[Finding]:
    """Peak (closed loop, 32 connections) and overload in turn, on one server with its defaults."""
    request = context.request("resnet18")
    with context.serve("resnet18") as server:
        peak_probe = context.closed_loop("peak", server.url, request, connections=_PEAK_CONNECTIONS)
        top = peak_probe.run(context.options.seconds * SLOW_MODEL).rate
        offered = _FACTOR * top
        # Nothing is refused before the queue is full.
        filling_s = _QUEUE_CAPACITY / (offered - top)

        def run(seconds: float) -> Run:
            before = front_end_cpu_s(server.pid)
            result = load.open_loop(
                server.url,
                request,
                rate=offered,
                connections=_CONNECTIONS,
                seconds=seconds + filling_s,
                seed=0,
                patience_s=_PATIENCE_S,
            )
            spent = front_end_cpu_s(server.pid) - before
            result.details["front_end_cores"] = spent / result.seconds
            return result

        peak, overload = context.measure(
            [peak_probe, Probe("overload", "open", run)], longer=SLOW_MODEL
        )
        cpus = len(os.sched_getaffinity(0))
    _check(overload)
    goodput = [one.details["goodput_per_s"] for one in overload.runs]
    # What the two senders leave of the cores differs; how much is told beside the figure.
    sender = [one.details["generator_cpu_s"] / one.seconds for one in overload.runs]
    wrk = [one.details["generator_cpu_s"] / one.seconds for one in peak.runs]
    fair = [
        good / rate * (cpus - light) / (cpus - heavy)
        for good, rate, light, heavy in zip(goodput, rates(peak), wrk, sender, strict=True)
    ]
    details = {
        "peak_per_s": peak.rate,
        "offered_per_s": overload.detail("offered_per_s"),
        "goodput_per_s": overload.detail("goodput_per_s"),
        "sender_cores": statistics.median(sender),
        "peak_sender_cores": statistics.median(wrk),
        "front_end_cores": overload.detail("front_end_cores"),
        "goodput_of_peak_on_cores_left_by_senders": statistics.median(fair),
        "sent_late_p50_us": overload.detail("sent_late_p50_us"),
        "sent_late_p99_us": overload.detail("sent_late_p99_us"),
        "refusal_p50_ms": _refusal(overload, "p50"),
        "refusal_p99_from_leaving_ms": overload.detail("service_p99_us 429") / 1e3,
        "refused": statistics.median(one.by_status["429"].count for one in overload.runs),
    }
    tool = f"{overload.tool}; peak by {peak.tool}"
    p99s = [one.by_status["429"].p99 / 1e3 for one in overload.runs]
    return [
        GOODPUT.with_values(ratios(goodput, rates(peak)), tool=tool, details=details),
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
