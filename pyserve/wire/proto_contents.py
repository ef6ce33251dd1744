"""The typed contents of a gRPC request's tensor as bytes: a field for each kind of number."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

from pyserve.errors import InvalidInput
from pyserve.messages import Buffer
from pyserve.signature import encode_bytes_elements
from pyserve.wire.proto_bytes import varint
from pyserve.wire.tensors import element_count, item_size, shown


def read_contents(one: Any, shape: tuple[int, ...]) -> Buffer:
    """Return the bytes of an InferInputTensor, whose shape is `shape`, from its `contents`."""
    name, datatype = one.name, one.datatype
    item_size(name, datatype)
    typed = _TYPED.get(datatype)
    if typed is None:
        raise InvalidInput(
            f"input {shown(name)} is {datatype}, which has no typed contents: send it in "
            "raw_input_contents"
        )
    count = element_count(name, shape)
    given = one.contents.ListFields()
    for field, elements in given:
        if field.name != typed.field:
            raise InvalidInput(
                f"input {shown(name)} has {field.name}, expected {typed.field} for {datatype}"
            )
        if len(elements) != count:
            raise InvalidInput(
                f"input {shown(name)} has {len(elements)} elements in {typed.field}, expected "
                f"{count} for shape {list(shape)}"
            )
        try:
            return typed.convert(one.contents, elements)
        except OverflowError:
            raise InvalidInput(
                f"input {shown(name)} has an element in {typed.field} that is out of the range "
                f"of {datatype}"
            ) from None
    if count:
        raise InvalidInput(
            f"input {shown(name)} has no data: expected {count} elements in {typed.field}, or "
            "raw_input_contents"
        )
    return b""


def _as(code: str) -> Callable[[Any, Any], Buffer]:
    """Return what turns elements into bytes; OverflowError where one does not fit."""

    def convert(contents: Any, elements: Any) -> Buffer:
        return memoryview(array(code, elements)).cast("B")

    return convert


def _fixed(code: str) -> Callable[[Any, Any], Buffer]:
    """Return the same for elements that travel as they lie in memory: protobuf copies them."""
    slowly = _as(code)
    size = array(code).itemsize

    def convert(contents: Any, elements: Any) -> Buffer:
        length = len(elements) * size
        text = contents.SerializeToString()
        # One field: its number, its length, the elements.  More than that is what nobody knows.
        start = 1 + len(varint(length))
        if len(text) != start + length:
            return slowly(contents, elements)
        return memoryview(text)[start:]

    return convert


def _strings(contents: Any, elements: Any) -> Buffer:
    return encode_bytes_elements(elements)


class _Typed(NamedTuple):
    field: str
    convert: Callable[[Any, Any], Buffer]


_TYPED = {
    "BOOL": _Typed("bool_contents", _fixed("B")),
    "INT8": _Typed("int_contents", _as("b")),
    "INT16": _Typed("int_contents", _as("h")),
    "INT32": _Typed("int_contents", _as("i")),
    "INT64": _Typed("int64_contents", _as("q")),
    "UINT8": _Typed("uint_contents", _as("B")),
    "UINT16": _Typed("uint_contents", _as("H")),
    "UINT32": _Typed("uint_contents", _as("I")),
    "UINT64": _Typed("uint64_contents", _as("Q")),
    "FP32": _Typed("fp32_contents", _fixed("f")),
    "FP64": _Typed("fp64_contents", _fixed("d")),
    "BYTES": _Typed("bytes_contents", _strings),
}
