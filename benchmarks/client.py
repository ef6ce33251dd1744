"""The Python SDK against the HTTP library that it is built on, sending the same bytes."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import numpy as np
import urllib3

from benchmarks.context import Context, p50s
from benchmarks.finding import Finding, ratios
from pyserve import AsyncClient, Client
from pyserve.bench import bodies
from pyserve.bench.bodies import HttpRequest
from pyserve.bench.percentiles import summarise
from pyserve.bench.probes import Probe
from pyserve.bench.values import Measurement, Run
from pyserve.signature import DTYPES, read_signature

ASYNC = Finding(
    key="client-async",
    what="`AsyncClient.infer` of a small array, p50 ÷ aiohttp `post` of the same bytes",
    limit=1.3,
    at_most=True,
)
SYNC = Finding(
    key="client-sync",
    what="`Client.infer` of a small array, p50 ÷ urllib3 `urlopen` of the same bytes",
    limit=1.3,
    at_most=True,
)

_MODEL = "tiny"
_TOOL = "python"


def measure_client(context: Context) -> list[Finding]:
    """What the clients add to a request, as latency."""
    request = context.request(_MODEL)
    inputs = _arrays(context)
    with context.serve(_MODEL) as server:
        url = server.url

        def probes(kind: Callable[[str, HttpRequest, Any, str, float], Run]) -> list[Probe]:
            return [
                Probe(what, "closed", partial(kind, url, request, inputs, what))
                for what in ("bare", "client", "array")
            ]

        measured = context.measure([*probes(_run_async), *probes(_run_sync)])
    return [_finding(ASYNC, *measured[:3]), _finding(SYNC, *measured[3:])]


def _finding(line: Finding, bare: Measurement, client: Measurement, array: Measurement) -> Finding:
    details = {
        "p50_us": client.latency_us.p50,
        "p99_us": client.latency_us.p99,
        "bare_p50_us": bare.latency_us.p50,
        # An output becomes an array when it is looked at.
        "array_p50_us": array.latency_us.p50,
        "array_of_bare": statistics.median(ratios(p50s(array), p50s(bare))),
    }
    return line.with_values(ratios(p50s(client), p50s(bare)), tool=_TOOL, details=details)


def _arrays(context: Context) -> dict[str, Any]:
    """Return what `context.request` sends, as arrays."""
    signature = read_signature(context.model_file(_MODEL))
    assert signature is not None
    return {
        one.name: np.frombuffer(one.data, DTYPES[one.datatype].numpy).reshape(one.shape)
        for one in bodies.inputs_for(signature)
    }


def _run_async(url: str, request: HttpRequest, inputs: Any, what: str, seconds: float) -> Run:
    async def main() -> Run:
        async with aiohttp.ClientSession() as session, AsyncClient(url) as client:

            async def bare() -> object:
                async with session.post(
                    url + request.path, data=request.body, headers=request.headers
                ) as answer:
                    return await answer.read()

            async def infer() -> object:
                return await client.infer(_MODEL, inputs)

            async def array() -> object:
                return (await client.infer(_MODEL, inputs)).outputs

            once: Callable[[], Awaitable[object]] = {"bare": bare, "client": infer}.get(what, array)
            latencies = []
            started = now = time.perf_counter_ns()
            while now - started < seconds * 1e9:
                await once()
                before, now = now, time.perf_counter_ns()
                latencies.append(now - before)
            return _run(latencies, now - started)

    return asyncio.run(main())


def _run_sync(url: str, request: HttpRequest, inputs: Any, what: str, seconds: float) -> Run:
    with urllib3.PoolManager() as pool, Client(url) as client:

        def bare() -> object:
            return pool.urlopen(
                "POST", url + request.path, body=request.body, headers=request.headers
            ).data

        def infer() -> object:
            return client.infer(_MODEL, inputs)

        def array() -> object:
            return client.infer(_MODEL, inputs).outputs

        once: Callable[[], object] = {"bare": bare, "client": infer}.get(what, array)
        latencies = []
        started = now = time.perf_counter_ns()
        while now - started < seconds * 1e9:
            once()
            before, now = now, time.perf_counter_ns()
            latencies.append(now - before)
        return _run(latencies, now - started)


def _run(latencies_ns: list[int], taken_ns: int) -> Run:
    return Run(
        tool=_TOOL,
        requests=len(latencies_ns),
        seconds=taken_ns / 1e9,
        latency_us=summarise(latencies_ns),
    )
