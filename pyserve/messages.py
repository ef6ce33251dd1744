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


class Region(NamedTuple):
    """A stretch of the shared memory that a client has registered as `name`; sizes in bytes."""

    name: str
    offset: int
    byte_size: int


class Timing(NamedTuple):
    """Where a request's time went; `batch_size` counts the rows it ran with.

    All but the last two are the engine's; those are zero for a model without processing.
    """

    queue_ns: int
    batch_size: int
    copy_in_ns: int
    compute_ns: int
    copy_out_ns: int
    preprocess_ns: int = 0
    postprocess_ns: int = 0


class Completed(NamedTuple):
    """What the engine answers with."""

    outputs: list[OutputTensor]
    timing: Timing


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that a request asks for, and how it wants it.

    binary: as binary data.  classes: not the values, but the `classes` largest of each row, as
    "value:index" or "value:index:label"; 0 for the values.  region: written there.
    """

    name: str
    binary: bool
    classes: int = 0
    region: Region | None = None


class InferRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request, whatever protocol it came by.

    `outputs` None asks for all, each in the form that `binary_default` says. `deadline_ns` is an
    instant on `time.monotonic_ns()`, 0 for none; `timeout_us` is the duration it was made from.
    `priority` is 1 (high) to 3 (low), 0 for the model's default.
    `regions` says, by the names of inputs, whose bytes are to be read from shared memory.
    """

    model: str
    version: str | None
    id: str = ""
    inputs: list[InputTensor]
    regions: dict[str, Region] = {}
    outputs: list[RequestedOutput] | None = None
    binary_default: bool = False
    deadline_ns: int = 0
    timeout_us: int = 0
    priority: int = 0


class InferResponse(msgspec.Struct, frozen=True, gc=False):
    """The answer to one request, from the version that ran it.

    `regions` says, by the names of outputs, whose bytes were written to shared memory; they have no
    data here.
    """

    model: str
    version: str
    id: str
    outputs: list[OutputTensor]
    timing: Timing
    regions: dict[str, Region] = {}


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
    `last_inference_ms` is milliseconds since 1970, 0 for never; `row_limit` is how many rows a
    batch may have since larger ones did not fit into memory, 0 where all did.
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
    row_limit: int
    request_seconds: Histogram
    queue_seconds: Histogram
    copy_in_seconds: Histogram
    compute_seconds: Histogram
    copy_out_seconds: Histogram
    batch_size: Histogram
