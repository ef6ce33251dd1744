"""The values that every protocol turns its bytes into, and that the service gives back.

No torch and no numpy here: a tensor is its name, its datatype in the Open Inference Protocol's
words, its shape, and its bytes (little-endian, C order). BYTES elements are a 4-byte little-endian
length and that many bytes, one after another. Who reads bytes off a socket is no concern of this
module, and neither is who runs the model.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import msgspec

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What holds a tensor's bytes. A memoryview is of format "B", one dimension, contiguous."""


class InputTensor(NamedTuple):
    """One input of a request."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer


class OutputTensor(NamedTuple):
    """One output of a request."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


class Timing(NamedTuple):
    """Where a request's time went inside the engine; `batch_size` counts the rows it ran with."""

    queue_ns: int
    batch_size: int
    copy_in_ns: int
    compute_ns: int
    copy_out_ns: int


class Completed(NamedTuple):
    """What the engine answers with."""

    outputs: list[OutputTensor]
    timing: Timing


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that a request asks for, and whether it wants it as binary data."""

    name: str
    binary: bool


class InferRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request, whatever protocol it came by.

    `outputs` None asks for all, each in the form that `binary_default` says. `deadline_ns` is an
    instant on `time.monotonic_ns()`, 0 for none; `timeout_us` is the duration it was made from.
    """

    model: str
    version: str | None
    id: str = ""
    inputs: list[InputTensor]
    outputs: list[RequestedOutput] | None = None
    binary_default: bool = False
    deadline_ns: int = 0
    timeout_us: int = 0
    priority: int = 0


class InferResponse(msgspec.Struct, frozen=True, gc=False):
    """The answer to one request, from the version that ran it."""

    model: str
    version: str
    id: str
    outputs: list[OutputTensor]
    timing: Timing


class Histogram(NamedTuple):
    """Counts per bucket, not cumulative: one per upper bound, and one for what is above the last.

    Bounds and sum are in seconds, or in rows for batch sizes.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class VersionStats(msgspec.Struct, frozen=True, kw_only=True):
    """What one live version has done since it was loaded.

    `success_count` and `failure_counts` (by the core's code name) count requests,
    `inference_count` the rows that were run, `execution_count` the calls of the model;
    `last_inference_ms` is milliseconds since 1970, 0 for never.
    """

    success_count: int
    failure_counts: dict[str, int]
    inference_count: int
    execution_count: int
    last_inference_ms: int
    success_ns: int
    failure_ns: int
    queued: int
    in_flight: int
    request_seconds: Histogram
    queue_seconds: Histogram
    copy_in_seconds: Histogram
    compute_seconds: Histogram
    copy_out_seconds: Histogram
    batch_size: Histogram
