"""The HTTP front end against an aiohttp handler that does nothing, and against the bare module."""

import resource
import statistics

from benchmarks.context import Context, p50s, rates
from benchmarks.finding import Finding, ratios
from pyserve.bench import proc
from pyserve.bench.bodies import BodyKind
from pyserve.bench.probes import Probe, Worker
from pyserve.bench.processes import start_empty
from pyserve.bench.values import Run


def _tiny(kind: BodyKind, connections: int) -> Finding:
    return Finding(
        key=f"http-tiny-{kind}-{connections}",
        what=f"HTTP {kind}, tiny model, {connections} connections ÷ empty plain aiohttp handler, "
        "same body, same tool",
        limit=3,
        at_most=False,
    )


_TINY_KINDS: tuple[BodyKind, ...] = ("binary", "raw")
_TINY_CONNECTIONS = (32, 64)
TINY = tuple(_tiny(kind, count) for kind in _TINY_KINDS for count in _TINY_CONNECTIONS)
CONNECTIONS = Finding(
    key="connections",
    what="HTTP binary, tiny model: requests/s at 1,000 connections ÷ at 32",
    limit=0.9,
    at_most=False,
)
ADDED = Finding(
    key="http-added",
    what="HTTP binary, one connection: added p50 over the empty handler + bare forward",
    limit=40,
    at_most=True,
    unit="µs",
)
RESNET = Finding(
    key="http-resnet18",
    what="HTTP binary `resnet18` 3x64x64, 32 connections ÷ best bare samples/s on the cores left",
    limit=0.90,
    at_most=False,
)

# 32 requests in flight at the end of a run should be next to nothing beside those answered.
SLOW_MODEL = 3

_CONNECTIONS = 32
_CROWD = 1000
_MAX_BATCH = 32
# How the core names the threads that run models; what else the server does is its front end.
_INSTANCE_THREADS = "ps-"


def measure_tiny(context: Context) -> list[Finding]:
    """The front end's own cost, as throughput."""
    return [
        measure_tiny_with(context, kind, count)
        for kind in _TINY_KINDS
        for count in _TINY_CONNECTIONS
    ]


def measure_tiny_with(context: Context, kind: BodyKind, connections: int) -> Finding:
    """One of these figures."""
    request = context.request("tiny", kind)
    with context.serve("tiny") as server, start_empty() as empty, start_empty("application") as app:
        served, nothing, nothing_routed = context.measure(
            [
                context.closed_loop(name, child.url, request, connections=connections)
                for name, child in (("pyserve", server), ("empty", empty), ("application", app))
            ]
        )
    details = {
        "requests_per_s": served.rate,
        "empty_per_s": nothing.rate,
        "empty_application_per_s": nothing_routed.rate,
        "of_empty_application": statistics.median(ratios(rates(served), rates(nothing_routed))),
        "p50_us": served.latency_us.p50,
        "p99_us": served.latency_us.p99,
        "body_bytes": len(request.body),
    }
    values = ratios(rates(served), rates(nothing))
    return _tiny(kind, connections).with_values(values, tool=served.tool, details=details)


def measure_connections(context: Context) -> list[Finding]:
    """What a crowd of connections costs that wait most of the time; one server, in turn."""
    _allow_files(2 * _CROWD)
    request = context.request("tiny")
    with context.serve("tiny") as server:
        few, many = context.measure(
            [
                context.closed_loop(f"{count}", server.url, request, connections=count)
                for count in (_CONNECTIONS, _CROWD)
            ]
        )
    details = {
        "many_per_s": many.rate,
        "few_per_s": few.rate,
        "many_p50_us": many.latency_us.p50,
        "many_p99_us": many.latency_us.p99,
    }
    values = ratios(rates(many), rates(few))
    return [CONNECTIONS.with_values(values, tool=many.tool, details=details)]


def _allow_files(count: int) -> None:
    """Let the processes that are started from here have as many open files, if they may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def measure_added(context: Context) -> list[Finding]:
    """The front end's own cost, as latency."""
    request = context.request("tiny")
    path = context.model_file("tiny")
    with context.serve("tiny") as server, start_empty() as empty, Worker(path) as worker:
        served, nothing, bare = context.measure(
            [
                context.closed_loop("pyserve", server.url, request, connections=1),
                context.closed_loop("empty", empty.url, request, connections=1),
                worker.probe("bare m(x)", "floor", "bare_call", threads=1),
            ]
        )
    values = [a - b - c for a, b, c in zip(p50s(served), p50s(nothing), p50s(bare), strict=True)]
    details = {
        "p50_us": served.latency_us.p50,
        "p99_us": served.latency_us.p99,
        "empty_p50_us": nothing.latency_us.p50,
        "bare_p50_us": bare.latency_us.p50,
    }
    return [ADDED.with_values(values, tool=served.tool, details=details)]


def measure_resnet(context: Context) -> list[Finding]:
    """A model that matters, with load generator and front end on the same cores.

    The bare module alone on all cores is the upper bound.  The cores left are all but the CPU time
    that, in the served run itself, the generator and the server's threads other than its instances
    took; the bare module's samples/s are scaled down by that.
    """
    request = context.request("resnet18")
    with context.serve("resnet18") as server, Worker(context.model_file("resnet18")) as worker:
        probe = context.closed_loop("pyserve", server.url, request, connections=_CONNECTIONS)
        served, bare, alike = context.measure(
            [
                _with_front_end_cpu(probe, server.pid),
                worker.probe(
                    "bare", "floor", "bare_samples", cpus=worker.cpus, max_batch=_MAX_BATCH
                ),
                worker.probe(
                    "bare, as many rows in flight",
                    "floor",
                    "bare_samples",
                    cpus=worker.cpus,
                    max_batch=_CONNECTIONS // worker.cpus,
                ),
            ],
            longer=SLOW_MODEL,
        )
        cpus = worker.cpus
    taken = [run.details["other_cpu_s"] / run.seconds for run in served.runs]
    left = [rate * (1 - cores / cpus) for rate, cores in zip(rates(bare), taken, strict=True)]
    details = {
        "requests_per_s": served.rate,
        "p50_us": served.latency_us.p50,
        "p99_us": served.latency_us.p99,
        "bare_samples_per_s": bare.rate,
        "bare_batch": bare.detail("batch"),
        "bare_instances": bare.detail("instances"),
        "bare_threads": bare.detail("threads"),
        "cores": cpus,
        "cores_left": cpus - statistics.median(taken),
        "of_bare_on_all_cores": statistics.median(ratios(rates(served), rates(bare))),
        # An instance for each core, and no more rows in flight than there are connections.
        "bare_samples_per_s_of_as_many_in_flight": alike.rate,
        "of_bare_of_as_many_in_flight": statistics.median(ratios(rates(served), rates(alike))),
    }
    return [RESNET.with_values(ratios(rates(served), left), tool=served.tool, details=details)]


def _with_front_end_cpu(probe: Probe, pid: int) -> Probe:
    """Return the probe with the CPU seconds that were not spent in instance threads added."""

    def run(seconds: float) -> Run:
        before = front_end_cpu_s(pid)
        result = probe.run(seconds)
        spent = front_end_cpu_s(pid) - before + result.details["generator_cpu_s"]
        result.details["other_cpu_s"] = spent
        return result

    return probe._replace(run=run)


def front_end_cpu_s(pid: int) -> float:
    """Return the CPU time of a server's threads that do not run models."""
    threads = proc.thread_cpu_seconds(pid)
    return sum(cpu for name, cpu in threads.items() if not name.startswith(_INSTANCE_THREADS))
