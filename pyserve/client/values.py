"""What a caller hands in becomes input tensors: numpy arrays, torch tensors, plain Python values.

Arrays are sent as they are. What has no dtype of its own (numbers, strings, bytes, lists of them)
takes the model's declared one, and dimensions of one in front where its shape lacks them.

Neither numpy nor torch is imported to find out whether a value is one of theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pyserve.client.metadata import ModelMetadata, TensorMetadata
from pyserve.errors import InvalidInput
from pyserve.messages import InputTensor
from pyserve.signature import DTYPES, encode_bytes_elements, fits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Inputs: TypeAlias = Any
"""A mapping of names to values; one value; or several in a tuple, in the model's order.

A list of arrays is several too. A value is an array, a tensor, an `InputTensor`, or plain."""

# Up to here one copy costs less than a view does.
_COPIED_BYTES = 8192


def _numpy_code(name: str, size: int) -> str:
    """Return numpy's `dtype.str`, which is found without importing numpy: "<f4" for float32."""
    return f"{'|' if size == 1 else '<'}{name[0]}{size}"


CODES = {
    datatype: _numpy_code(info.numpy, info.size)
    for datatype, info in DTYPES.items()
    if info.numpy is not None
}
"""numpy's code of each datatype that numpy has."""

_DATATYPES = {code: datatype for datatype, code in CODES.items()}

# Of a model without a signature: what torch makes of Python's own values.
_ASSUMED = {"b": "BOOL", "i": "INT64", "u": "INT64", "f": "FP32", "U": "BYTES", "S": "BYTES"}


def as_they_are(inputs: Inputs) -> list[InputTensor] | None:
    """Return inputs that say all by themselves: names and arrays; None where they do not."""
    if type(inputs) is not dict and not isinstance(inputs, Mapping):
        if isinstance(inputs, list | tuple) and inputs and _all_complete(inputs):
            return list(inputs)
        return None
    tensors = []
    for name, value in inputs.items():
        tensor = from_array(name, value)
        if tensor is None:
            return None
        tensors.append(tensor)
    return tensors


def bind(inputs: Inputs, model: ModelMetadata) -> list[InputTensor]:
    """Return inputs as the model's metadata names and types them, or raise InvalidInput."""
    declared = model.inputs
    if isinstance(inputs, Mapping):
        by_name = {one.name: one for one in declared}
        unknown = [str(name) for name in inputs if name not in by_name]
        if unknown:
            raise InvalidInput(
                f'model "{model.name}" has no input "{unknown[0][:64]}", expected '
                + ", ".join(f'"{name}"' for name in by_name)
            )
        return [to_tensor(by_name[name], value) for name, value in inputs.items()]
    several = isinstance(inputs, tuple) or (isinstance(inputs, list) and _all_arrays(inputs))
    values = list(inputs) if several else [inputs]
    if len(values) != len(declared):
        names = ", ".join(f'"{one.name}"' for one in declared)
        raise InvalidInput(
            f'model "{model.name}" has {_counted(len(declared))} ({names}), got {len(values)}: '
            "give a dict by their names, or a tuple in their order"
        )
    return [to_tensor(one, value) for one, value in zip(declared, values, strict=True)]


def _counted(count: int) -> str:
    return "one input" if count == 1 else f"{count} inputs"


def to_tensor(declared: TensorMetadata, value: Any) -> InputTensor:
    """Return one value as an input; plain values take the declared datatype."""
    tensor = from_array(declared.name, value)
    return _from_plain(declared, value) if tensor is None else tensor


def from_array(name: str, value: Any) -> InputTensor | None:
    """Return an array, a tensor or an InputTensor as input `name`; None for plain values."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _from_numpy(name, value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _from_torch(name, value)
    if isinstance(value, InputTensor):
        return value._replace(name=name)
    if hasattr(value, "__array__"):  # numpy's scalars, and other libraries' arrays
        import numpy as np

        return _from_numpy(name, np.asarray(value))
    return None


def is_torch(value: object) -> bool:
    """Whether a value is a tensor of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _all_complete(values: Sequence[object]) -> bool:
    return all(isinstance(one, InputTensor) and one.name for one in values)


def _all_arrays(values: Sequence[object]) -> bool:
    return bool(values) and all(
        hasattr(one, "__array__") or is_torch(one) or isinstance(one, InputTensor) for one in values
    )


def _from_numpy(name: str, array: NDArray[Any]) -> InputTensor:
    datatype = _DATATYPES.get(array.dtype.str)
    if datatype is None:
        return _from_unusual(name, array)
    shape = array.shape
    if array.nbytes <= _COPIED_BYTES:
        return InputTensor(name, datatype, shape, array.tobytes())
    return InputTensor(name, datatype, shape, _view(array))


def _view(array: NDArray[Any]) -> memoryview:
    """Return the bytes of an array; a copy of it where they do not lie in C order."""
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _from_unusual(name: str, array: NDArray[Any]) -> InputTensor:
    """Return big-endian numbers, bfloat16 and strings as they travel."""
    kind = array.dtype.kind
    if kind in "USO":
        return InputTensor(name, "BYTES", array.shape, _strings(name, array))
    if array.dtype.name == "bfloat16":
        return InputTensor(name, "BF16", array.shape, array.tobytes())
    little = array.dtype.newbyteorder("<")
    datatype = _DATATYPES.get(little.str)
    if datatype is None:
        raise InvalidInput(
            f'input "{name}" is an array of {array.dtype}, expected one of '
            + ", ".join(info.numpy for info in DTYPES.values() if info.numpy)
        )
    return InputTensor(name, datatype, array.shape, array.astype(little).tobytes())


def _from_torch(name: str, tensor: Any) -> InputTensor:
    torch = sys.modules["torch"]
    try:
        tensor = tensor.detach().cpu().contiguous()
        if tensor.dtype == torch.bfloat16:  # numpy has no such type: take its bits
            array = tensor.view(torch.int16).numpy()
            return InputTensor(name, "BF16", array.shape, array.tobytes())
        return _from_numpy(name, tensor.numpy())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InvalidInput(f'input "{name}" cannot be sent: {str(error)[:200]}') from None


def _from_plain(declared: TensorMetadata, value: object) -> InputTensor:
    import numpy as np

    name, datatype = declared.name, declared.datatype
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
    try:
        # As objects, a string among bytes stays what it is, and NULs at its end are kept.
        loose = np.array(value, dtype=object if datatype == "BYTES" else None)
        if not datatype:
            datatype = _ASSUMED.get(loose.dtype.kind, "")
            loose = np.array(value, dtype=object) if datatype == "BYTES" else loose
    except (ValueError, TypeError) as error:
        raise InvalidInput(f'input "{name}": {error}') from None
    if datatype == "BYTES":
        return InputTensor(name, "BYTES", _filled(loose.shape, declared), _strings(name, loose))
    data = _numbers(name, datatype, loose)
    return InputTensor(name, datatype, _filled(loose.shape, declared), data)


def _filled(shape: tuple[int, ...], declared: TensorMetadata) -> tuple[int, ...]:
    """Return the shape with ones in front where it fits the declared one only so."""
    missing = len(declared.shape) - len(shape)
    if missing > 0:
        candidate = (*(1,) * missing, *shape)
        if fits(candidate, declared.shape):
            return candidate
    return shape


def _numbers(name: str, datatype: str, loose: NDArray[Any]) -> bytes:
    """Return plain numbers as `datatype`; InvalidInput where that would change what they say."""
    import numpy as np

    if loose.size and loose.dtype.kind not in "biuf":
        raise InvalidInput(
            f'input "{name}" wants {datatype or "numbers"}, got something that is no number'
        )
    if datatype == "BF16":
        return to_bfloat16(loose.astype(np.float32)).tobytes()
    target = np.dtype(CODES[datatype])
    if not loose.size:
        return b""
    if loose.dtype.kind == "f" and target.kind != "f":
        raise InvalidInput(f'input "{name}" wants {datatype}, got numbers with a decimal point')
    with np.errstate(over="ignore", invalid="ignore"):
        converted = loose.astype(target)
    if target.kind != "f" and not bool((converted == loose).all()):
        raise InvalidInput(f'input "{name}" wants {datatype}, got numbers out of its range')
    return converted.tobytes()


def to_bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16 (ties to even); not-a-number stays so."""
    import numpy as np

    bits = array.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2")


def _strings(name: str, array: NDArray[Any]) -> bytes:
    elements = []
    for one in array.reshape(-1).tolist():
        if isinstance(one, str):
            elements.append(one.encode("utf-8", "surrogateescape"))
        elif isinstance(one, bytes):
            elements.append(one)
        else:
            raise InvalidInput(
                f'input "{name}" wants strings, got an element of type {type(one).__name__}'
            )
    return encode_bytes_elements(elements)
