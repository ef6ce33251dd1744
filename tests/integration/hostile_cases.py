"""Hostile requests in words that belong to no door, and the error that each must end in.

A case is a good request to `affine` but for what it says. `doors` are those that can express it;
where that is not each of them, `why` (or the group's comment) says what the others lack. Wire
tricks (`trick`) are done to the finished message; each door has its own way, in hostile_doors.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from pyserve.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelFailed,
    ModelNotFound,
    PayloadTooLarge,
    PyserveError,
    QueueFull,
    Unavailable,
)


class Door(StrEnum):
    """One way to send a request."""

    JSON = "v2-json"
    BINARY = "v2-binary"
    RAW = "grpc-raw"
    TYPED = "grpc-typed"
    TORCHSERVE = "torchserve-rest"
    TORCHSERVE_GRPC = "torchserve-grpc"


ALL = frozenset(Door)
# TorchServe's request is a body for a model's only input: no names, no shapes, no dtypes, no id,
# no parameters, and no outputs to choose from.
TORCHSERVE = frozenset({Door.TORCHSERVE, Door.TORCHSERVE_GRPC})
V2 = ALL - TORCHSERVE
HTTP = frozenset({Door.JSON, Door.BINARY, Door.TORCHSERVE})
GRPC = frozenset({Door.RAW, Door.TYPED})
# Tensors as bytes, whose number can be wrong.
BYTES = frozenset({Door.BINARY, Door.RAW})
# Tensors as numbers, which can be out of range or none at all.
NUMBERS = frozenset({Door.JSON, Door.TYPED})
# Where numbers are JSON text, which may say what is no number.
TEXT = TORCHSERVE | {Door.JSON}
# Where the JSON says what the request is, and any value can stand for any other.
JSON = frozenset({Door.JSON, Door.BINARY})
ALONE = {one: frozenset({one}) for one in Door}

HUGE = 2**62


class Tensor(NamedTuple):
    """One input. `data` is numbers, strings, or the exact bytes; None for none at all.

    size: the byte size that is claimed for it, where a door has such a claim.
    """

    name: str = "x"
    datatype: str = "FP32"
    shape: tuple[Any, ...] = (1, 4)
    data: Any = (1.0, 2.0, 3.0, 4.0)
    size: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request, and the error it must end in; None for one that must be answered."""

    name: str
    error: type[PyserveError] | None
    doors: frozenset[Door] = ALL
    model: str = "affine"
    version: str | None = None
    inputs: tuple[Tensor, ...] = (Tensor(),)
    outputs: tuple[dict[str, Any], ...] = ()
    id: Any = None
    parameters: dict[str, Any] = field(default_factory=dict)
    trick: str = ""
    # What must hold meanwhile: "queue full".
    setting: str = ""


GOOD = Case(name="a good request", error=None)


def bad(name: str, doors: frozenset[Door] = V2, **changes: Any) -> Case:
    """Return the case of an invalid request."""
    return Case(name=name, error=InvalidInput, doors=doors, **changes)


def bad_input(name: str, doors: frozenset[Door] = V2, /, **changes: Any) -> Case:
    """Return the case of one input that is wrong in some way."""
    return bad(name, doors, inputs=(Tensor()._replace(**changes),))


def unknown(name: str, **changes: Any) -> Case:
    """Return the case of a model or version that is not there, at every door."""
    return Case(name=name, error=ModelNotFound, **changes)


def strings(name: str, data: bytes, shape: tuple[int, ...] = (2,)) -> Case:
    """Return the case of a damaged tensor of strings; typed and JSON strings have no lengths."""
    return bad(name, BYTES, model="shout", inputs=(Tensor("text", "BYTES", shape, data),))


def whole(name: str, data: Any) -> Case:
    """Return the case of numbers that are no INT64."""
    return bad(
        name, ALONE[Door.JSON], model="lengths", inputs=(Tensor("ids", "INT64", (1, 1), data),)
    )


def made(name: str, trick: str, doors: frozenset[Door], error: type[PyserveError] | None) -> Case:
    """Return the case of a good request whose message was tampered with."""
    return Case(name=name, error=error, doors=doors, trick=trick)


NAMES = [
    unknown("unknown model", model="nope"),
    unknown("model with path separators", model="../../etc/passwd"),
    unknown("model that is an absolute path", model="/etc/passwd"),
    unknown("model with a backslash", model="..\\affine"),
    unknown("model with a NUL", model="affine\0"),
    unknown("model that is not ASCII", model="affïne"),
    unknown("blank model", model=" "),
    unknown("model of dots", model="..."),
    unknown("endless model", model="a" * 5000),
    unknown("unknown version", version="2"),
    unknown("version 0", version="0"),
    unknown("version with a zero before it", version="01"),
    unknown("negative version", version="-1"),
    unknown("version of more than 64 bits", version="9" * 20),
    unknown("unknown label", version="canary"),
    unknown("version with path separators", version="1/../1"),
    unknown("version with a NUL", version="1\0"),
    unknown("version that is not ASCII", version="\uff11"),
    Case(name="model that could not be loaded", error=Unavailable, model="broken"),
]

INPUTS = [
    bad_input("unknown input", name="z"),
    bad_input("input without a name", name=""),
    bad_input("input with a NUL", name="x\0"),
    bad_input("input that is not ASCII", name="\uff58"),
    bad_input("input with path separators", name="../x"),
    bad_input("input with an endless name", name="x" * 100_000),
    bad("no inputs", inputs=()),
    bad("missing input", model="pair", inputs=(Tensor("a", "INT64", (1, 3), (1, 2, 3)),)),
    bad("the same input twice", inputs=(Tensor(), Tensor())),
    bad("an input too many", inputs=(Tensor(), Tensor("y"))),
    bad_input("wrong dtype", datatype="INT64", data=(1, 2, 3, 4)),
    bad_input("unknown dtype", datatype="FLOAT"),
    bad_input("dtype in small letters", datatype="fp32"),
    bad_input("empty dtype", datatype=""),
    bad_input("wrong size", shape=(1, 3), data=(1.0, 2.0, 3.0)),
    bad_input("wrong rank", shape=(4,)),
    bad_input("no dimensions", shape=(), data=(1.0,)),
    bad_input("100 dimensions", shape=(1,) * 99 + (4,)),
    bad_input("100,000 dimensions", shape=(1,) * 99_999 + (4,)),
    bad_input("negative dimension", shape=(-1, 4)),
    bad_input("two negative dimensions", shape=(-1, -4)),
    bad_input("dimension of 0", shape=(0, 4), data=()),
    bad_input("count of more than 64 bits", shape=(HUGE, HUGE)),
    bad_input("count of more than 64 bits behind a zero", shape=(0, HUGE, 8)),
    bad_input("count near 64 bits", shape=(65536, 65537)),
    bad_input("dimension of more than 64 bits", JSON, shape=(2**70, 4)),  # protobuf has 64
    bad_input("dimension that is no number", JSON, shape=("1", 4)),
    bad_input("dimension with a fraction", JSON, shape=(1.5, 4)),
    bad_input("too few elements", data=(1.0, 2.0, 3.0)),
    bad_input("too many elements", data=(1.0, 2.0, 3.0, 4.0, 5.0)),
    bad_input("no data", data=None),
    bad_input("too large a batch", shape=(65, 4), data=(0.0,) * 260),
    bad("row of another length", TORCHSERVE, inputs=(Tensor(data=(1.0, 2.0, 3.0)),)),
    bad("shared memory that nobody registered", trick="shared memory"),
]

BLOBS = [
    strings("string longer than its tensor", b"\x09\0\0\0hello\x03\0\0\0you"),
    strings("string of 4 GiB", b"\xff\xff\xff\xffhello\x03\0\0\0you"),
    strings("string cut off in its length", b"\x05\0\0\0hello\x03\0"),
    strings("too few strings", b"\x05\0\0\0hello"),
    strings("too many strings", b"\x01\0\0\0a" * 3),
    strings("a million empty strings for two", b"\0\0\0\0" * 1_000_000),
    # They are fine as bytes; here the answer is asked for in JSON, which cannot hold them.
    bad(
        "strings that are no UTF-8",
        ALONE[Door.BINARY],
        model="shout",
        inputs=(Tensor("text", "BYTES", (1,), b"\x02\0\0\0\xff\xfe"),),
    ),
    bad_input("bytes for half a number", BYTES, data=b"\0" * 15),
    bad_input("no bytes", BYTES, data=b""),
    # Only v2 binary tells beforehand how many bytes a tensor has.
    bad_input("claimed size too small", ALONE[Door.BINARY], size=12),
    bad_input("claimed size too large", ALONE[Door.BINARY], size=20),
    bad_input("negative claimed size", ALONE[Door.BINARY], size=-16),
    bad_input("claimed size of 2**62", ALONE[Door.BINARY], size=HUGE),
    bad_input("claimed size that is text", ALONE[Door.BINARY], size="16"),
    made("header length with letters", "length 123abc", ALONE[Door.BINARY], InvalidInput),
    made("header length beyond the body", "length 1000000", ALONE[Door.BINARY], InvalidInput),
    made("header length of 2**31", "length 2147483648", ALONE[Door.BINARY], InvalidInput),
    made("header cut off in the middle", "length 20", ALONE[Door.BINARY], InvalidInput),
    made("bytes that nobody owns", "leftover", ALONE[Door.BINARY], InvalidInput),
    # Only gRPC keeps bytes in a list of their own, beside typed contents.
    made("a raw content too few", "no raw content", ALONE[Door.RAW], InvalidInput),
    made("a raw content too many", "two raw contents", ALONE[Door.RAW], InvalidInput),
    made("100,000 empty raw contents", "many raw contents", ALONE[Door.RAW], InvalidInput),
    made("raw and typed contents", "both contents", GRPC, InvalidInput),
    made("contents of another type", "wrong contents", ALONE[Door.TYPED], InvalidInput),
]

VALUES = [
    # JSON has no such numbers; the others send them as they are, and they are valid.
    made("NaN", "NaN", TEXT, InvalidInput),
    made("infinity", "Infinity", TEXT, InvalidInput),
    made("deep nesting in the data", "deep", TEXT, InvalidInput),
    made("deep nesting in parameters", "deep parameters", JSON, InvalidInput),
    bad_input("number out of range", TEXT, data=(1e300, 2.0, 3.0, 4.0)),
    bad_input("text for a number", TEXT, data=("1", 2.0, 3.0, 4.0)),
    bad_input("null for a number", TEXT, data=(None, 2.0, 3.0, 4.0)),
    bad_input("truth for a number", TEXT, data=(True, 2.0, 3.0, 4.0)),
    whole("fraction for a whole number", (1.5,)),
    whole("whole number of more than 64 bits", (2**63,)),
    bad(
        "whole number too large for its dtype",
        NUMBERS,
        model="every",
        inputs=(Tensor("uint8", "UINT8", (1, 2), (256, 0)),),
    ),
    bad(
        "numbers for a dtype that has no typed contents",
        ALONE[Door.TYPED],
        model="typed",
        inputs=(Tensor("x", "FP16", (1, 2), (1.0, 2.0)),),
    ),
    Case(
        name="numbers that the model raises at",
        error=ModelFailed,
        model="fussy",
        inputs=(Tensor(data=(-1.0, 2.0, 3.0, 4.0)),),
    ),
]

REQUESTS = [
    bad("unknown output", outputs=({"name": "nope"},)),
    bad("the same output twice", outputs=({"name": "y"},) * 2),
    bad("output without a name", outputs=({"name": ""},)),
    bad("output with a NUL", outputs=({"name": "y\0"},)),
    bad("negative classification", outputs=({"name": "y", "parameters": {"classification": -1}},)),
    bad("id that is no text", JSON, id=7),  # protobuf has only text for it
    bad("negative timeout", parameters={"timeout": -1}),
    bad("timeout that is text", parameters={"timeout": "1s"}),
    bad("timeout with a fraction", JSON, parameters={"timeout": 1.5}),
    Case(
        name="timeout of 292,000 years",
        error=None,
        doors=V2,
        parameters={"timeout": 2**63 - 1},
    ),
    Case(
        name="deadline that passes in the queue",
        error=DeadlineExceeded,
        doors=V2,
        model="slow",
        parameters={"timeout": 1000},
    ),
    Case(name="full queue", error=QueueFull, model="patient", setting="queue full"),
]

MESSAGES = [
    made("empty message", "empty", HTTP | {Door.TORCHSERVE_GRPC}, InvalidInput),
    made("empty message, which names no model", "empty", GRPC, ModelNotFound),
    made("garbage", "garbage", ALL, InvalidInput),
    made("message cut off", "cut", ALL, InvalidInput),
    made("message over the limit", "too large", ALL, PayloadTooLarge),
    made("compression bomb", "bomb gzip", ALL, PayloadTooLarge),
    made("compression bomb with deflate", "bomb deflate", ALL, PayloadTooLarge),
    made("damaged compression", "damaged", HTTP, InvalidInput),  # gRPC's own library reads it
    made("unknown compression", "unknown coding", HTTP, InvalidInput),
    made("70,000 chunks", "chunks", HTTP, InvalidInput),  # gRPC's messages are always whole
    made("unknown content type", "odd type", JSON, None),
    made("form data", "form", frozenset({Door.JSON, Door.TORCHSERVE}), InvalidInput),
    made("form with a damaged head", "bad form", ALONE[Door.TORCHSERVE], InvalidInput),
    made("form that never ends", "open form", ALONE[Door.TORCHSERVE], InvalidInput),
    made("body that is no JSON under a type that is", "text as json", HTTP, InvalidInput),
]

CASES: list[Case] = [*NAMES, *INPUTS, *BLOBS, *VALUES, *REQUESTS, *MESSAGES]
