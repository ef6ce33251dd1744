"""What an image as JSON numbers costs the server: CPU time per request, from /proc."""

import json

import msgspec

from benchmarks.context import Context, rates
from benchmarks.finding import Finding
from pyserve.bench import proc
from pyserve.bench.probes import Probe
from pyserve.bench.processes import start_empty
from pyserve.bench.values import Measurement, Run

JSON = Finding(
    key="json-body",
    what="JSON body of 150,528 FP32 numbers: server CPU per request, parse and reply",
    limit=3,
    at_most=True,
    unit="ms",
)

# Two, so that the server is never idle for want of a request.
_CONNECTIONS = 2


def measure_json(context: Context) -> list[Finding]:
    """User and system time of the whole server process, model included, per request answered.

    The body is what `json.dumps(array.tolist())` makes of FP32: some 20 characters a number.  The
    details tell the same for numbers of four decimals.
    """
    request = context.request("json_small_reply", "json")
    full_request = context.request("json_full_reply", "json")
    short_request = msgspec.structs.replace(request, body=_shorter(request.body))
    with (
        context.serve("json_small_reply") as small,
        context.serve("json_full_reply") as full,
        start_empty() as empty,
    ):
        probes = [
            _with_cpu(
                context.closed_loop(name, child.url, body, connections=_CONNECTIONS), child.pid
            )
            for name, child, body in (
                ("small reply", small, request),
                ("full reply", full, full_request),
                ("short numbers", small, short_request),
                ("empty", empty, request),
            )
        ]
        small_reply, full_reply, short, nothing = context.measure(probes)
    details = {
        "body_bytes": len(request.body),
        "p50_us": small_reply.latency_us.p50,
        "full_reply_cpu_ms": _median_ms(full_reply),
        "short_body_bytes": len(short_request.body),
        "short_numbers_cpu_ms": _median_ms(short),
        "empty_handler_cpu_ms": _median_ms(nothing),
    }
    rates(small_reply)
    values = [run.details["server_cpu_ms"] for run in small_reply.runs]
    return [JSON.with_values(values, tool=small_reply.tool, details=details)]


def _with_cpu(probe: Probe, pid: int) -> Probe:
    def run(seconds: float) -> Run:
        before = proc.cpu_seconds(pid)
        result = probe.run(seconds)
        spent_s = proc.cpu_seconds(pid) - before
        result.details["server_cpu_ms"] = spent_s / max(result.requests, 1) * 1e3
        return result

    return probe._replace(run=run)


def _shorter(body: bytes) -> bytes:
    value = json.loads(body)
    for tensor in value["inputs"]:
        tensor["data"] = [round(number, 4) for number in tensor["data"]]
    return json.dumps(value).encode()


def _median_ms(measurement: Measurement) -> float:
    rates(measurement)
    return measurement.detail("server_cpu_ms")
