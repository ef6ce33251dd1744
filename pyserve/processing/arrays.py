"""Numpy arrays and the bytes that messages carry, in the dtypes of the Open Inference Protocol.

Numpy has no bfloat16: such tensors are float32 here, and are rounded to nearest even on their way
to the model.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pyserve.messages import Buffer
from pyserve.signature import DTYPES, decode_bytes_elements, encode_bytes_elements

Array: TypeAlias = npt.NDArray[Any]

_OIP = {info.numpy: name for name, info in DTYPES.items() if info.numpy}


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """Return what `dtype` is in numpy; float32 for BF16, objects for BYTES."""
    if dtype == "BYTES":
        return np.dtype(object)
    return np.dtype(DTYPES[dtype].numpy or "float32").newbyteorder("<")


def oip_dtype(array: Array) -> str | None:
    """Return the protocol's name of an array's dtype, None where it has none."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    return _OIP.get(array.dtype.name)


def to_array(dtype: str, shape: Sequence[int], data: Buffer) -> Array:
    """Return a tensor's bytes as an array, without a copy where numpy has the dtype.

    Raises ValueError where bytes and shape disagree.
    """
    if dtype == "BYTES":
        elements = decode_bytes_elements(bytes(data))
        array = np.empty(len(elements), object)
        array[:] = elements
    elif dtype == "BF16":
        halves = np.frombuffer(data, "<u2")
        array = (halves.astype("<u4") << 16).view("<f4")
    elif prod(shape) == 0 and not len(data):
        array = np.empty(0, numpy_dtype(dtype))
    else:
        array = np.frombuffer(data, numpy_dtype(dtype))
    return array.reshape(tuple(shape))


def to_bytes(dtype: str, array: Array) -> bytes | memoryview:
    """Return the bytes of an array, which has the dtype that `numpy_dtype` says."""
    if dtype == "BYTES":
        return encode_bytes_elements([_element(one) for one in array.ravel()])
    if dtype == "BF16":
        array = _rounded(array)
    flat = np.ascontiguousarray(array).reshape(-1)
    view: memoryview = flat.view(np.uint8).data
    return view


def convertible(array: Array, dtype: str) -> bool:
    """Whether an array may become `dtype`: 64-bit floats may become 16-bit ones, not integers."""
    if (dtype == "BYTES") != (array.dtype.kind in "OSU"):
        return False
    return np.can_cast(array.dtype, numpy_dtype(dtype), casting="same_kind")


def _element(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    raise TypeError(f"expected text or bytes, got {type(value).__name__}")


def _rounded(array: Array) -> Array:
    """The upper halves of float32, rounded; what is not a number stays none."""
    bits = np.ascontiguousarray(array, "<f4").view("<u4")
    halves = ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype("<u2")
    return np.where(np.isnan(array), np.uint16(0x7FC0), halves)
