"""gRPC against an empty grpc.aio handler with the same messages."""

import statistics

import grpc

from benchmarks.context import Context, p50s, rates
from benchmarks.finding import Finding, ratios
from pyserve.bench import bodies, h2load
from pyserve.bench.probes import Probe
from pyserve.bench.processes import start_empty_grpc
from pyserve.bench.values import Run
from pyserve.protos import message
from pyserve.signature import read_signature

TINY = Finding(
    key="grpc-tiny",
    what="gRPC unary, tiny model, 32 in flight ÷ empty grpc.aio handler, same messages and tool",
    limit=0.75,
    at_most=False,
)
ADDED = Finding(
    key="grpc-added",
    what="gRPC unary, one in flight: added p50 over the empty grpc.aio handler",
    limit=60,
    at_most=True,
    unit="µs",
)

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
# 32 in flight, as a few clients with a few calls each.
_CONNECTIONS, _STREAMS = 4, 8


def measure_grpc(context: Context) -> list[Finding]:
    """The gRPC front end's own cost, as throughput and as latency."""
    h2load.require()
    request = _request(context, "tiny")
    with context.serve("tiny") as server:
        address = str(server.ready["grpc"])
        answer = context.folder / "grpc-answer"
        answer.write_bytes(_answer(address, request))
        with start_empty_grpc(answer) as empty:
            floor = str(empty.ready["grpc"])
            served, nothing, served_alone, nothing_alone = context.measure(
                [
                    _probe("pyserve", address, request, _CONNECTIONS, _STREAMS),
                    _probe("empty", floor, request, _CONNECTIONS, _STREAMS),
                    _probe("pyserve, alone", address, request, 1, 1),
                    _probe("empty, alone", floor, request, 1, 1),
                ]
            )
    details = {
        "requests_per_s": served.rate,
        "empty_per_s": nothing.rate,
        "p50_us": served.latency_us.p50,
        "p99_us": served.latency_us.p99,
        "message_bytes": len(request),
    }
    alone = {
        "p50_us": served_alone.latency_us.p50,
        "p99_us": served_alone.latency_us.p99,
        "empty_p50_us": statistics.median(p50s(nothing_alone)),
    }
    added = [a - b for a, b in zip(p50s(served_alone), p50s(nothing_alone), strict=True)]
    return [
        TINY.with_values(ratios(rates(served), rates(nothing)), tool=served.tool, details=details),
        ADDED.with_values(added, tool=served.tool, details=alone),
    ]


def _probe(name: str, address: str, request: bytes, connections: int, streams: int) -> Probe:
    def run(seconds: float) -> Run:
        return h2load.run(
            address, _METHOD, request, connections=connections, streams=streams, seconds=seconds
        )

    return Probe(name, "closed", run)


def _request(context: Context, model: str) -> bytes:
    """Return one row for a model as a ModelInferRequest with raw contents."""
    signature = read_signature(context.model_file(model))
    assert signature is not None
    request = message("inference.ModelInferRequest")(model_name=model)
    for tensor in bodies.inputs_for(signature):
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(bytes(tensor.data))
    return bytes(request.SerializeToString())


def _answer(address: str, request: bytes) -> bytes:
    """Return what the server answers, by a real client; raises grpc.RpcError for an error."""
    with grpc.insecure_channel(address) as channel:
        return bytes(channel.unary_unary(_METHOD)(request, timeout=30))
