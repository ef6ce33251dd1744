"""Requests of high priority while others of low priority keep the server busy."""

import json
import statistics
import threading
import time
from typing import NamedTuple
from urllib.request import urlopen

import msgspec

from benchmarks.context import Context, rates
from benchmarks.finding import Finding
from benchmarks.http import SLOW_MODEL
from pyserve.bench import load
from pyserve.bench.bodies import HttpRequest, with_parameters
from pyserve.bench.probes import Probe
from pyserve.bench.processes import ChildFailed
from pyserve.bench.values import Run

PRIORITY = Finding(
    key="priority",
    what="high-priority p99 of `resnet18` under low-priority saturation, less one batch, ÷ "
    "unloaded p99",
    limit=2,
    at_most=True,
)

_MODEL = "resnet18"
_HIGH, _LOW = 1, 3
_CROWD = 64
# Percentiles need requests, and one connection with a slow model has few.
_LONGER = 2 * SLOW_MODEL
# The crowd is there before the first request of high priority, and after the last.
_LEAD_S = 1.0


class Executions(NamedTuple):
    """How many batches a model has run, and for how long."""

    batches: int
    compute_ns: int


def measure_priority(context: Context) -> list[Finding]:
    """One connection of high priority, alone and beside 64 of low priority, in turn."""
    request = context.request(_MODEL)
    high = with_parameters(request, priority=_HIGH)
    low = with_parameters(request, priority=_LOW)
    with context.serve(_MODEL) as server:

        def alone(seconds: float) -> Run:
            return load.closed_loop(
                server.url, high, connections=1, seconds=seconds, tool="builtin"
            )

        def saturated(seconds: float) -> Run:
            before = _executions(server.url)
            with _Crowd(context, server.url, low, seconds + 2 * _LEAD_S) as crowd:
                time.sleep(_LEAD_S)
                result = alone(seconds)
            after = _executions(server.url)
            batch_ns = (after.compute_ns - before.compute_ns) / max(
                after.batches - before.batches, 1
            )
            details = {**result.details, "batch_us": batch_ns / 1e3, "low_per_s": crowd.rate}
            return msgspec.structs.replace(result, details=details)

        quiet, busy = context.measure(
            [Probe("alone", "closed", alone), Probe("saturated", "closed", saturated)],
            longer=_LONGER,
        )
    rates(quiet), rates(busy)  # no request may fail
    values = [
        (loaded.latency_us.p99 - loaded.details["batch_us"]) / unloaded.latency_us.p99
        for loaded, unloaded in zip(busy.runs, quiet.runs, strict=True)
    ]
    details = {
        "unloaded_p50_ms": quiet.latency_us.p50 / 1e3,
        "unloaded_p99_ms": quiet.latency_us.p99 / 1e3,
        "saturated_p50_ms": busy.latency_us.p50 / 1e3,
        "saturated_p99_ms": busy.latency_us.p99 / 1e3,
        "batch_ms": busy.detail("batch_us") / 1e3,
        "low_per_s": busy.detail("low_per_s"),
        "high_requests": statistics.median(run.requests for run in busy.runs),
    }
    return [PRIORITY.with_values(values, tool=busy.tool, details=details)]


class _Crowd:
    """A closed loop in the background; leaving the context waits for its end."""

    def __init__(self, context: Context, url: str, request: HttpRequest, seconds: float) -> None:
        self.rate = 0.0
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(context, url, request, seconds))

    def _run(self, context: Context, url: str, request: HttpRequest, seconds: float) -> None:
        try:
            result = load.closed_loop(
                url, request, connections=_CROWD, seconds=seconds, tool=context.tool
            )
            if result.failures:
                raise ChildFailed(f"requests of low priority failed: {result.failures}")
            self.rate = result.rate
        except Exception as error:
            self._failure = error

    def __enter__(self) -> "_Crowd":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if self._failure is not None:
            raise self._failure


def _executions(url: str) -> Executions:
    with urlopen(f"{url}/v2/models/{_MODEL}/stats") as answer:
        stats = json.load(answer)["model_stats"][0]
    return Executions(stats["execution_count"], stats["inference_stats"]["compute_infer"]["ns"])
