"""Outputs whose elements came as JSON: of servers that send no binary data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import msgspec

from pyserve.client.values import CODES, to_bfloat16
from pyserve.errors import Unavailable
from pyserve.signature import encode_bytes_elements

_MAX_DEPTH = 64


def from_json(datatype: str, text: msgspec.Raw, malformed: Callable[[], Unavailable]) -> bytes:
    """Return the bytes of the elements in `text`, nested or flat; raises `malformed()`."""
    import numpy as np

    try:
        elements: list[Any] = msgspec.json.decode(text, type=list[Any])
        for _ in range(_MAX_DEPTH):
            if not any(isinstance(one, list) for one in elements):
                break
            elements = list(
                chain.from_iterable(one if isinstance(one, list) else (one,) for one in elements)
            )
        if datatype == "BYTES":
            return encode_bytes_elements([one.encode() for one in elements])
        if datatype == "BF16":
            return to_bfloat16(np.array(elements, np.float32)).tobytes()
        return np.array(elements, np.dtype(CODES[datatype])).tobytes()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise malformed() from None
