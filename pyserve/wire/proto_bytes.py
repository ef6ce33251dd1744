"""Protobuf's bytes, where its own library would copy or convert what need not be."""

from __future__ import annotations

from typing import NamedTuple

# From here on it pays to take raw contents out before protobuf copies them.
_SPLIT_BYTES = 16 * 1024
# A message with more fields than this is protobuf's to read: a loop here is not at the speed of C.
_MAX_FIELDS = 256
_LENGTH_DELIMITED = 2
_RAW_INPUT_CONTENTS = 7 << 3 | _LENGTH_DELIMITED


class Parts(NamedTuple):
    """A ModelInferRequest in bytes, its raw contents aside where they are large.

    `blobs` None: they are still in `skeleton`.
    """

    skeleton: bytes
    blobs: list[memoryview] | None


def split(data: bytes) -> Parts:
    """Take the raw contents out of a large message; what is malformed stays whole."""
    if len(data) < _SPLIT_BYTES:
        return Parts(data, None)
    view = memoryview(data)
    kept: list[memoryview] = []
    blobs: list[memoryview] = []
    at = 0
    try:
        for _ in range(_MAX_FIELDS):
            if at == len(data):
                return Parts(b"".join(kept), blobs)
            tag, start = _varint(data, at)
            if tag & 7 != _LENGTH_DELIMITED:
                break  # no field of the message has another form
            length, start = _varint(data, start)
            end = start + length
            if end > len(data):
                break
            if tag == _RAW_INPUT_CONTENTS:
                blobs.append(view[start:end])
            else:
                kept.append(view[at:end])
            at = end
    except (IndexError, ValueError):
        pass
    return Parts(data, None)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and where it ends."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for index in range(1, 5):
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("a length of more than 32 bits")


def varint(value: int) -> bytes:
    """Return a length, or another number of 0 or more, as protobuf writes it."""
    if value < 0x80:
        return bytes((value,))
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
