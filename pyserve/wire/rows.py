"""One row as bytes, and one number out of an answer: all that the smallest of the APIs has."""

import struct

from pyserve.errors import InvalidInput
from pyserve.messages import InputTensor, OutputTensor
from pyserve.signature import TensorSpec
from pyserve.wire.tensors import LENGTH_BYTES, SIZES, shown

_FORMATS = {
    "BOOL": "<?",
    "UINT8": "<B",
    "UINT16": "<H",
    "UINT32": "<I",
    "UINT64": "<Q",
    "INT8": "<b",
    "INT16": "<h",
    "INT32": "<i",
    "INT64": "<q",
    "FP16": "<e",
    "FP32": "<f",
    "FP64": "<d",
}


def row_tensor(data: bytes, spec: TensorSpec, *, batched: bool) -> InputTensor:
    """Return `data` as one row for the input `spec`; one size of its shape may be open.

    BYTES is one string, without its length.
    """
    shape = _shape(len(data), spec)
    if spec.dtype == "BYTES":
        data = len(data).to_bytes(LENGTH_BYTES, "little") + data
    return InputTensor(spec.name, spec.dtype, (1, *shape) if batched else shape, data)


def _shape(length: int, spec: TensorSpec) -> tuple[int, ...]:
    described = f"input {shown(spec.name)} of shape {list(spec.shape)} and datatype {spec.dtype}"
    if spec.dtype == "BYTES":
        if any(size not in (1, -1) for size in spec.shape):
            raise InvalidInput(f"the data is one string, expected more for {described}")
        return (1,) * len(spec.shape)
    open_sizes = spec.shape.count(-1)
    if open_sizes > 1:
        raise InvalidInput(f"the data leaves the sizes open of {described}")
    fixed = SIZES[spec.dtype]
    for size in spec.shape:
        fixed *= 1 if size == -1 else size
    if open_sizes and fixed and length % fixed == 0:
        return tuple(length // fixed if size == -1 else size for size in spec.shape)
    if open_sizes or length != fixed:
        whole = "a multiple of " if open_sizes else ""
        raise InvalidInput(f"the data has {length} bytes, expected {whole}{fixed} for {described}")
    return spec.shape


def first_number(output: OutputTensor) -> float:
    """Return the first element of an output; InvalidInput where that is no number."""
    size = SIZES[output.datatype]
    if not size:
        raise InvalidInput(f"output {shown(output.name)} is {output.datatype}, expected numbers")
    element = bytes(output.data[:size])
    if len(element) < size:
        raise InvalidInput(f"output {shown(output.name)} is empty, expected a number")
    if output.datatype == "BF16":
        # The upper half of the FP32 of the same value.
        return float(struct.unpack("<f", bytes(2) + element)[0])
    return float(struct.unpack(_FORMATS[output.datatype], element)[0])
