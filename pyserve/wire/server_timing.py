"""Where a request's time went, as a `Server-Timing` header or a gRPC trailer carries it."""

from pyserve.messages import Timing

_RUN = (
    b"parse;dur=%.3f, queue;dur=%.3f, batch;desc=%d, "
    b"copy-in;dur=%.3f, compute;dur=%.3f, copy-out;dur=%.3f"
)
_PROCESSING = b", preprocess;dur=%.3f, postprocess;dur=%.3f"


def server_timing(parse_ns: int, timing: Timing) -> bytes:
    """Return the header's value: milliseconds, but for `batch`, which counts rows.

    Processing has entries where there was any.
    """
    # By number, since names cost more and this is on the path of every request.
    value = _RUN % (
        parse_ns / 1e6,
        timing[0] / 1e6,
        timing[1],
        timing[2] / 1e6,
        timing[3] / 1e6,
        timing[4] / 1e6,
    )
    if timing[5] or timing[6]:
        value += _PROCESSING % (timing[5] / 1e6, timing[6] / 1e6)
    return value
