"""Ten times more requests than a server can answer, beside the most that it can.

An open loop by the built-in sender: it does not slow down when the server does.
"""

import os
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.context import Context, rates
from benchmarks.http import SLOW_MODEL, front_end_cpu_s
from pyserve.bench import load
from pyserve.bench.bodies import HttpRequest
from pyserve.bench.probes import Probe
from pyserve.bench.values import Measurement, Run

MODEL = "resnet18"
_FACTOR = 10
_PEAK_CONNECTIONS = 32


class Flood(NamedTuple):
    """The peak (closed loop, 32 connections) and the overload, measured in turn on one server."""

    peak: Measurement
    overload: Measurement
    cpus: int

    @property
    def tool(self) -> str:
        """What sent the requests."""
        return f"{self.overload.tool}; peak by {self.peak.tool}"

    def details(self, goodput: Sequence[float]) -> dict[str, float]:
        """Return what a figure made of `goodput`, a number per repeat, is to be read with."""
        # What the two senders leave of the cores differs; how much is told beside the figure.
        sender = [one.details["generator_cpu_s"] / one.seconds for one in self.overload.runs]
        wrk = [one.details["generator_cpu_s"] / one.seconds for one in self.peak.runs]
        fair = [
            good / rate * (self.cpus - light) / (self.cpus - heavy)
            for good, rate, light, heavy in zip(goodput, rates(self.peak), wrk, sender, strict=True)
        ]
        return {
            "peak_per_s": self.peak.rate,
            "offered_per_s": self.overload.detail("offered_per_s"),
            "sender_cores": statistics.median(sender),
            "peak_sender_cores": statistics.median(wrk),
            "front_end_cores": self.overload.detail("front_end_cores"),
            "goodput_of_peak_on_cores_left_by_senders": statistics.median(fair),
            "sent_late_p99_us": self.overload.detail("sent_late_p99_us"),
        }


def measure_flood(
    context: Context,
    request: HttpRequest,
    flooding: HttpRequest,
    *,
    connections: int,
    patience_s: float,
    queue_capacity: int = 0,
    deadline_us: int = 0,
) -> Flood:
    """Measure `request` at the peak and `flooding` at ten times its rate.

    connections: a request that is due should find one free.  queue_capacity: so many requests wait
    before any is refused, and the time that this takes comes on top.
    """
    with context.serve(MODEL) as server:
        peak_probe = context.closed_loop("peak", server.url, request, connections=_PEAK_CONNECTIONS)
        top = peak_probe.run(context.options.seconds * SLOW_MODEL).rate
        offered = _FACTOR * top
        filling_s = queue_capacity / (offered - top)

        def run(seconds: float) -> Run:
            before = front_end_cpu_s(server.pid)
            result = load.open_loop(
                server.url,
                flooding,
                rate=offered,
                connections=connections,
                seconds=seconds + filling_s,
                seed=0,
                patience_s=patience_s,
                deadline_us=deadline_us,
            )
            spent = front_end_cpu_s(server.pid) - before
            result.details["front_end_cores"] = spent / result.seconds
            return result

        peak, overload = context.measure(
            [peak_probe, Probe("overload", "open", run)], longer=SLOW_MODEL
        )
        return Flood(peak, overload, len(os.sched_getaffinity(0)))
