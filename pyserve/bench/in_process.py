"""The in-process engine under load: one caller, many threads, many tasks, all through `Model`.

Only a worker process of the benchmark imports this, for it imports torch.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvloop

from pyserve.bench.percentiles import summarise
from pyserve.bench.values import Run
from pyserve.model import Model

TOOL = "python"


def call_one_by_one(
    model: Model, inputs: Sequence[Any], seconds: float, *, max_requests: int
) -> Run:
    """Call from one thread, one request after the other."""
    latencies, span_s = _call_until(model, inputs, seconds, max_requests)
    return _run([latencies], span_s)


def call_from_threads(
    model: Model, inputs: Sequence[Any], seconds: float, *, threads: int, max_requests: int
) -> Run:
    """Call from many threads at once, each one request after the other."""
    barrier = threading.Barrier(threads + 1)
    latencies: list[list[int]] = []

    def caller() -> None:
        barrier.wait()
        latencies.append(_call_until(model, inputs, seconds, max_requests // threads)[0])

    callers = [threading.Thread(target=caller) for _ in range(threads)]
    for one in callers:
        one.start()
    barrier.wait()
    started = time.perf_counter()
    for one in callers:
        one.join()
    return _run(latencies, time.perf_counter() - started)


def await_from_tasks(
    model: Model, inputs: Sequence[Any], seconds: float, *, tasks: int, max_requests: int
) -> Run:
    """Await from many tasks of one uvloop, each one request after the other."""

    async def caller(end_ns: int, limit: int) -> list[int]:
        clock = time.perf_counter_ns
        latencies: list[int] = []
        before = clock()
        while before < end_ns and len(latencies) < limit:
            await model.infer(*inputs)
            now = clock()
            latencies.append(now - before)
            before = now
        return latencies

    async def all_callers() -> tuple[list[list[int]], float]:
        started = time.perf_counter()
        end_ns = time.perf_counter_ns() + int(seconds * 1e9)
        limit = max_requests // tasks
        found = await asyncio.gather(*(caller(end_ns, limit) for _ in range(tasks)))
        return list(found), time.perf_counter() - started

    return _run(*uvloop.run(all_callers()))


def _call_until(
    call: Callable[..., object], inputs: Sequence[Any], seconds: float, limit: int
) -> tuple[list[int], float]:
    clock = time.perf_counter_ns
    latencies: list[int] = []
    started = before = clock()
    end = started + int(seconds * 1e9)
    while before < end and len(latencies) < limit:
        call(*inputs)
        now = clock()
        latencies.append(now - before)
        before = now
    return latencies, (before - started) / 1e9


def _run(latencies: Sequence[Sequence[int]], seconds: float) -> Run:
    every = [one for some in latencies for one in some]
    return Run(tool=TOOL, requests=len(every), seconds=seconds, latency_us=summarise(every))
