"""Tables as Arrow IPC, stream or file: columns of numbers, checked before they are read.

Compressed batches are refused: what they unpack to is only known once it is there.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from pyserve.processing.arrays import Array
from pyserve.processing.limits import MAX_COLUMNS

_FILE_MAGIC = b"ARROW1\0\0"


def read_arrow(data: memoryview, most: int) -> tuple[list[str], list[Array]]:
    """Return names and columns of a table of at most `most` rows.

    Nulls are NaN in columns of floats.  ValueError says what is wrong with it.
    """
    # A file is a stream between a magic word and a footer.
    start = len(_FILE_MAGIC) if bytes(data[: len(_FILE_MAGIC)]) == _FILE_MAGIC else 0
    buffer = pa.py_buffer(data[start:])
    try:
        _check_messages(pa.BufferReader(buffer), most)
        with ipc.open_stream(buffer) as stream:
            schema = stream.schema
            _check_schema(schema)
            table = stream.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, struct.error, UnicodeDecodeError):
        raise ValueError("a damaged Arrow table") from None
    return list(schema.names), [_numbers(name, table[i]) for i, name in enumerate(schema.names)]


def _check_messages(reader: Any, most: int) -> None:
    """Look at what a stream is made of before any of it is unpacked or trusted.

    First of all at the kinds of its messages, which Arrow takes on faith.
    """
    first = _next_message(reader)
    if first is None:
        raise ValueError("an empty Arrow table, expected a schema")
    if first.type != "schema":
        raise ValueError("a damaged Arrow table")
    rows = 0
    while (message := _next_message(reader)) is not None:
        if message.type != "record batch":
            raise ValueError(f"an Arrow table with a {message.type}, expected numbers alone")
        length, compressed = _batch_header(bytes(message.metadata))
        if compressed:
            raise ValueError("a compressed Arrow table, expected one that is not")
        rows += length
        if length < 0 or rows > most:
            raise ValueError(f"more than {most} rows in a request")


def _next_message(reader: Any) -> Any:
    try:
        return ipc.read_message(reader)
    except EOFError:
        return None


def _check_schema(schema: Any) -> None:
    if len(schema) > MAX_COLUMNS:
        raise ValueError(f"{len(schema)} columns, at most {MAX_COLUMNS} are read")
    for field in schema:
        kind = field.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()):
            raise ValueError(f'column "{field.name[:40]}" is {kind}, expected numbers')


def _numbers(name: str, column: Any) -> Array:
    if column.null_count and not pa.types.is_floating(column.type):
        raise ValueError(f'column "{name[:40]}" has nulls, which {column.type} cannot hold')
    array: Array = np.asarray(column.to_numpy(zero_copy_only=False))
    return array


def _batch_header(metadata: bytes) -> tuple[int, bool]:
    """Return the rows of a record batch's message, and whether its buffers are compressed.

    The message is a table of FlatBuffers: header is its third field; in that, length is the first
    field and compression the fourth.  Arrow has verified the message when it comes here.
    """
    root = struct.unpack_from("<I", metadata, 0)[0]
    place = _field(metadata, root, 2)
    if not place:
        return 0, False
    batch = place + struct.unpack_from("<I", metadata, place)[0]
    length = _field(metadata, batch, 0)
    rows = struct.unpack_from("<q", metadata, length)[0] if length else 0
    return rows, _field(metadata, batch, 3) != 0


def _field(data: bytes, table: int, index: int) -> int:
    """Return where a table's field lies, 0 where it is absent."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if 4 + 2 * index >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * index)[0]
    return table + offset if offset else 0
