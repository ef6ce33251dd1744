"""Outputs in gRPC's typed contents: of servers that do not send raw ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyserve.client.values import CODES
from pyserve.errors import Unavailable
from pyserve.signature import encode_bytes_elements

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def from_contents(output: Any, malformed: Callable[[], Unavailable]) -> bytes:
    """Return the bytes of an output's elements; raises `malformed()` where it has none to read."""
    import numpy as np

    field = _FIELDS.get(output.datatype)
    if field is None:  # FP16 and BF16 have no typed form
        raise malformed()
    elements = getattr(output.contents, field)
    if output.datatype == "BYTES":
        return encode_bytes_elements(list(elements))
    try:
        return np.array(elements, np.dtype(CODES[output.datatype])).tobytes()
    except (OverflowError, ValueError):
        raise malformed() from None
