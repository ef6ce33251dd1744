"""Shapes, sizes and the JSON form of one tensor's data, shared by the forms of the protocol.

Nothing here allocates by what a shape claims before the bytes at hand could bear it out. The
elements of BYTES and BOOL tensors that come as binary data are looked at by the core, once.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from pyserve import _native
from pyserve.errors import InvalidInput
from pyserve.messages import Buffer, OutputTensor
from pyserve.signature import DTYPES, MAX_RANK, decode_bytes_elements, encode_bytes_elements

SIZES = {name: info.size for name, info in DTYPES.items()}
"""Bytes per element by datatype, 0 for BYTES."""

LENGTH_BYTES = 4
"""What every BYTES element begins with: its length, little-endian."""

_MAX_ELEMENTS = 2**63 - 1
_MAX_SHOWN_CHARS = 64
_MAX_STRING_DEPTH = 64

_decode_list = msgspec.json.Decoder(list[Any]).decode


def shown(text: str) -> str:
    """Return `text` in quotes for a message, cut so that it does not crowd out the rest."""
    return f'"{text}"' if len(text) <= _MAX_SHOWN_CHARS else f'"{text[:_MAX_SHOWN_CHARS]}…"'


def item_size(name: str, datatype: str) -> int:
    """Return the bytes per element of `datatype`, 0 for BYTES; InvalidInput if there is none."""
    size = SIZES.get(datatype)
    if size is None:
        expected = ", ".join(SIZES)
        raise InvalidInput(
            f"input {shown(name)} has datatype {shown(datatype)}, expected one of {expected}"
        )
    return size


def element_count(name: str, shape: tuple[int, ...]) -> int:
    """Return the number of elements of `shape`; InvalidInput where it makes no sense."""
    count = 1
    for size in shape:
        if size < 1:
            break
        count *= size
    else:
        if count <= _MAX_ELEMENTS and len(shape) <= MAX_RANK:
            return count
    return _unusual_count(name, shape)


def _unusual_count(name: str, shape: tuple[int, ...]) -> int:
    if len(shape) > MAX_RANK:
        raise InvalidInput(
            f"input {shown(name)} has {len(shape)} dimensions, at most {MAX_RANK} are allowed"
        )
    # Zeros are left out: [0, 2**62, 2**62] has no elements, but strides that overflow.
    count = 1
    for size in shape:
        if size < 0:
            raise InvalidInput(
                f"input {shown(name)} has shape {list(shape)}, expected no negative dimension"
            )
        count *= size or 1
    if count > _MAX_ELEMENTS:
        raise InvalidInput(
            f"input {shown(name)} has shape {list(shape)}, more elements than 64 bits can count"
        )
    return 0 if 0 in shape else count


def check_size(name: str, datatype: str, shape: tuple[int, ...], size: int, said: str) -> None:
    """Raise InvalidInput unless `size`, the bytes that the parameter `said` claims, fit the rest.

    Nobody knows yet how long the elements of BYTES are; their lengths alone take some room.
    """
    count = element_count(name, shape)
    item = SIZES.get(datatype) or item_size(name, datatype)
    expected = count * (item or LENGTH_BYTES)
    if size < expected or (item and size > expected):
        raise InvalidInput(
            f"input {shown(name)} has {said} {size}, expected "
            f"{'' if item else 'at least '}{expected} for shape {list(shape)} of {datatype}"
        )


def from_json(name: str, datatype: str, shape: tuple[int, ...], text: msgspec.Raw) -> Buffer:
    """Return the bytes of the tensor whose elements are `text`, a JSON array, nested or flat."""
    count = element_count(name, shape)
    size = item_size(name, datatype)
    view = memoryview(text)
    # An element and its comma take two characters: a lying shape cannot make us allocate.
    if count > len(view) // 2:
        raise InvalidInput(
            f"input {shown(name)} has shape {list(shape)}, {count} elements: its data is too short"
        )
    if size == 0:
        return _strings_from_json(name, count, view)
    try:
        data: bytearray = _native.core().parse_json_numbers(view, datatype, count)
    except ValueError as error:
        raise InvalidInput(f"input {shown(name)}: {error}") from None
    return data


def _strings_from_json(name: str, count: int, text: memoryview) -> bytes:
    try:
        elements = _flattened(_decode_list(text))
        encoded = [element.encode("utf-8") for element in elements]
    except AttributeError:
        index, wrong = next(
            (index, one) for index, one in enumerate(elements) if not isinstance(one, str)
        )
        raise InvalidInput(
            f"input {shown(name)}: element {index} is {shown(str(wrong))}, expected a string"
        ) from None
    except RecursionError:
        raise InvalidInput(f"input {shown(name)}: arrays nested too deep") from None
    except ValueError as error:
        raise InvalidInput(f"input {shown(name)}: {error}") from None
    if len(encoded) != count:
        raise InvalidInput(f"input {shown(name)}: expected {count} strings, got {len(encoded)}")
    return encode_bytes_elements(encoded)


def _flattened(level: list[Any]) -> list[Any]:
    for _ in range(_MAX_STRING_DEPTH):
        if not any(isinstance(one, list) for one in level):
            return level
        level = list(chain.from_iterable(one if isinstance(one, list) else (one,) for one in level))
    raise ValueError(f"arrays nested deeper than {_MAX_STRING_DEPTH}")


def to_json(output: OutputTensor) -> bytes:
    """Return the elements of `output` as one flat JSON array.

    InvalidInput where they have no JSON form: the request should have asked for binary data.
    """
    if output.datatype == "BYTES":
        return _strings_to_json(output)
    try:
        text: bytes = _native.core().format_json_numbers(output.datatype, output.data)
    except ValueError as error:
        raise InvalidInput(f"output {shown(output.name)}: {error}") from None
    return text


def _strings_to_json(output: OutputTensor) -> bytes:
    elements: Sequence[bytes] = decode_bytes_elements(bytes(output.data))
    try:
        return msgspec.json.encode([element.decode("utf-8") for element in elements])
    except UnicodeDecodeError:
        raise InvalidInput(
            f"output {shown(output.name)} holds bytes that are not UTF-8, which JSON cannot carry: "
            "ask for binary data"
        ) from None
