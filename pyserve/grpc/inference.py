"""One inference over gRPC, whichever call it came by: bytes in, a deadline, bytes out."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from pyserve.grpc.calls import Context
from pyserve.messages import InferRequest
from pyserve.scheduling import deadline_after
from pyserve.service import Service
from pyserve.wire.oip_proto import decode_request, encode_response
from pyserve.wire.proto_bytes import Parts, split
from pyserve.wire.server_timing import server_timing

# Typed contents of this size take a thread: reading them is some tenths of a millisecond.
_INLINE_BYTES = 64 * 1024


class Answered(NamedTuple):
    """A serialized ModelInferResponse, and where the time went, as HTTP's Server-Timing says it."""

    message: bytes
    timing: bytes


def deadline_of(context: Context) -> int:
    """Return the instant on `time.monotonic_ns()` when the caller gives up; 0 for never."""
    left_s = context.time_remaining()
    return 0 if left_s is None else deadline_after(left_s)


async def run(service: Service, data: bytes, *, deadline_ns: int, final: bool = False) -> Answered:
    """Run the serialized ModelInferRequest in `data`; raises as `Service.infer` does."""
    service.refuse_while_draining()
    started = time.perf_counter_ns()
    parts = split(data)
    if len(parts.skeleton) <= _INLINE_BYTES:
        request = decode_request(parts, deadline_ns=deadline_ns)
    else:
        request = await asyncio.to_thread(_decode, parts, deadline_ns)
    parse_ns = time.perf_counter_ns() - started
    response = await service.infer(request)
    timing = server_timing(parse_ns, response.timing)
    return Answered(encode_response(response, final=final), timing)


def _decode(parts: Parts, deadline_ns: int) -> InferRequest:
    return decode_request(parts, deadline_ns=deadline_ns)
