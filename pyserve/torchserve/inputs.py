"""What a client of TorchServe sends for a prediction becomes a request's inputs.

There, a body is one row, and what it means is for the handler to say; here it is for the model's
signature and its declared processing.  A model of which nothing is known gets FP32.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from pyserve.errors import InvalidInput
from pyserve.messages import InputTensor
from pyserve.signature import DTYPES, MAX_RANK, TensorSpec, UntypedSpec, encode_bytes_elements
from pyserve.wire.tensors import from_json, shown

if TYPE_CHECKING:
    from pyserve.model import Model

# What a body, or the only part of a form, may be called.
_BODY_NAMES = ("data", "body")
_OCTETS = "application/octet-stream"
_JSON_STARTS = b'[{"-0123456789tfn'
_decode = msgspec.json.Decoder().decode


class Field(NamedTuple):
    """A body, or one part of a form; its type is empty where the client names none."""

    data: bytes
    content_type: str = ""

    @property
    def is_json(self) -> bool:
        """Whether this is to be read as JSON: told so, or it may be."""
        kind = self.content_type
        if kind == "application/json":
            return True
        return kind != _OCTETS and self.data.lstrip()[:1] in {*map(_byte, _JSON_STARTS)}


class Inputs(NamedTuple):
    """The inputs of a request.

    one_row: whether the answer is a row, and not a list of them.  enveloped: whether the rows were
    `instances`, so that they are answered as `predictions`.
    """

    tensors: list[InputTensor]
    one_row: bool
    enveloped: bool = False


def read_inputs(model: Model, fields: Mapping[str, Field]) -> Inputs:
    """Return the inputs for `model`; InvalidInput where the fields do not fit."""
    processor = model.processor
    specs = model.inputs if processor is None else processor.inputs
    if not fields:
        raise InvalidInput(f"the body is empty, expected {_expected(specs)}")
    only = _only_field(fields)
    if only is not None and only.is_json:
        value = _object(only)
        if value is not None:
            instances = value.get("instances")
            if isinstance(instances, list):
                return _instances(model, specs, instances)
            if all(spec.name in value for spec in specs):
                given = {
                    spec.name: Field(_encoded(value[spec.name]), "application/json")
                    for spec in specs
                }
                return _several(model, specs, given)
            if len(value) == 1 and next(iter(value)) in _BODY_NAMES and len(specs) == 1:
                only = Field(_encoded(next(iter(value.values()))), "application/json")
    if len(specs) == 1:
        spec = specs[0]
        field = fields.get(spec.name) if only is None else only
        if field is None:
            raise InvalidInput(f"there is no field of the form for {_expected(specs)}")
        tensor, one_row = _tensor(model, spec, field)
        return Inputs([tensor], one_row)
    return _several(model, specs, fields)


def _only_field(fields: Mapping[str, Field]) -> Field | None:
    if len(fields) == 1:
        name, field = next(iter(fields.items()))
        return field if name in _BODY_NAMES else None
    return next((fields[name] for name in _BODY_NAMES if name in fields), None)


def _object(field: Field) -> dict[str, object] | None:
    """Return a JSON object; None for everything else, which may be a file or an array."""
    if field.data.lstrip()[:1] != b"{":
        return None
    try:
        value = _json(field.data)
    except InvalidInput:
        if field.content_type == "application/json":
            raise
        return None
    return value if isinstance(value, dict) else None


def _several(model: Model, specs: Sequence[TensorSpec], fields: Mapping[str, Field]) -> Inputs:
    missing = [spec.name for spec in specs if spec.name not in fields]
    if missing:
        names = ", ".join(shown(name) for name in missing)
        raise InvalidInput(f"{names} is missing, expected {_expected(specs)}")
    made = [_tensor(model, spec, fields[spec.name]) for spec in specs]
    return Inputs([tensor for tensor, _ in made], all(one_row for _, one_row in made))


def _instances(model: Model, specs: Sequence[TensorSpec], rows: list[object]) -> Inputs:
    """Read the envelope of KServe's first protocol: one row an instance."""
    if not rows:
        raise InvalidInput("instances has no rows")
    if len(specs) != 1 and not all(isinstance(row, dict) for row in rows):
        raise InvalidInput(
            f"expected each of the instances to be an object with {_expected(specs)}"
        )
    tensors = []
    for spec in specs:
        values = [_value(row, spec.name) for row in rows]
        if spec.dtype == "BYTES":
            elements = [_element(model, spec, value) for value in values]
            tensors.append(_bytes_tensor(model, spec, elements))
        else:
            tensor, _ = _from_json(model, spec, _encoded(values), rows=True)
            tensors.append(tensor)
    return Inputs(tensors, one_row=False, enveloped=True)


def _value(row: object, name: str) -> object:
    """Return what an instance says for an input: under its name, as data, or by itself."""
    if isinstance(row, dict):
        for key in (name, *_BODY_NAMES):
            if key in row:
                return row[key]
        if "b64" not in row:
            raise InvalidInput(f"an instance has nothing for input {shown(name)}")
    return row


# --- one input --------------------------------------------------------------------------------


def _tensor(model: Model, spec: TensorSpec, field: Field) -> tuple[InputTensor, bool]:
    """Return one input of the request, and whether it is one row."""
    if spec.dtype == "BYTES":
        if model.processor is None and field.content_type == "application/json":
            value = _json(field.data)
            values = value if isinstance(value, list) else [value]
            elements = [_element(model, spec, one) for one in values]
            return _bytes_tensor(model, spec, elements), len(elements) == 1
        if model.processor is not None and field.content_type == "application/json":
            value = _json(field.data)
            if isinstance(value, str | dict):
                return _bytes_tensor(model, spec, [_element(model, spec, value)]), True
        return _bytes_tensor(model, spec, [field.data]), True
    if field.is_json:
        try:
            return _from_json(model, spec, field.data, rows=False)
        except InvalidInput:
            if field.content_type == "application/json" or isinstance(spec, UntypedSpec):
                raise
    return _from_octets(model, spec, field.data)


def _bytes_tensor(model: Model, spec: TensorSpec, elements: Sequence[bytes]) -> InputTensor:
    rows = len(elements)
    inner = (1,) * (len(spec.shape) if model.batched else max(0, len(spec.shape) - 1))
    shape = () if not model.batched and not spec.shape else (rows, *inner)
    if isinstance(spec, UntypedSpec):
        shape = (rows,)
    return InputTensor(spec.name, "BYTES", shape, encode_bytes_elements(elements))


def _element(model: Model, spec: TensorSpec, value: object) -> bytes:
    """Return the bytes that a JSON value stands for: base64 where files are expected, else text."""
    if isinstance(value, dict) and isinstance(value.get("b64"), str):
        return _from_base64(spec, value["b64"])
    if isinstance(value, str):
        processor = model.processor
        if processor is None or "text" in processor.preprocess or "custom" in processor.preprocess:
            return value.encode()
        return _from_base64(spec, value)
    return _encoded(value)


def _from_base64(spec: TensorSpec, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"input {shown(spec.name)}: expected a file in base64") from None


def _from_octets(model: Model, spec: TensorSpec, data: bytes) -> tuple[InputTensor, bool]:
    """Read the bytes of a tensor as they are: little-endian, rows one after the other."""
    if isinstance(spec, UntypedSpec):
        if len(data) % 4 or not data:
            raise InvalidInput(
                f"input {shown(spec.name)}: expected JSON, or the bytes of one row of FP32"
            )
        return InputTensor(spec.name, "FP32", (1, len(data) // 4), data), True
    size = DTYPES[spec.dtype].size
    free = spec.shape.count(-1)
    known = prod(one for one in spec.shape if one != -1) * size
    fits = len(data) == known if not free else known > 0 and len(data) % known == 0
    if fits and free <= 1:
        shape = tuple(len(data) // known if one == -1 else one for one in spec.shape)
        return InputTensor(spec.name, spec.dtype, (1, *shape) if model.batched else shape, data), (
            model.batched
        )
    if model.batched and not free and known and len(data) % known == 0 and data:
        rows = len(data) // known
        return InputTensor(spec.name, spec.dtype, (rows, *spec.shape), data), False
    raise InvalidInput(
        f"input {shown(spec.name)}: {len(data)} bytes are no row of {_words(spec)}: expected "
        f"JSON, or its bytes"
    )


def _from_json(
    model: Model, spec: TensorSpec, text: bytes, *, rows: bool
) -> tuple[InputTensor, bool]:
    """Read numbers, nested as they are: a row, or `rows` of them.

    A model that is not batched may still have one row in front, and often has.
    """
    shape = _shape_of(spec.name, _json(text))
    dtype = "FP32" if isinstance(spec, UntypedSpec) else spec.dtype
    if isinstance(spec, UntypedSpec):
        full, one_row = (shape, False) if rows else ((1, *shape), True)
    elif model.batched:
        full, one_row = _batched(spec, shape, rows)
    elif len(shape) == len(spec.shape) - 1 and spec.shape[0] in (1, -1) and not rows:
        full, one_row = (1, *shape), True
    else:
        full, one_row = shape, False
    raw = msgspec.Raw(text if shape else b"[" + text + b"]")
    return InputTensor(spec.name, dtype, full, from_json(spec.name, dtype, full, raw)), one_row


def _batched(spec: TensorSpec, shape: tuple[int, ...], rows: bool) -> tuple[tuple[int, ...], bool]:
    rank = len(spec.shape)
    if not rows and len(shape) == rank:
        return (1, *shape), True
    if len(shape) == rank + 1:
        return shape, False
    if not rows and len(shape) == 1 and -1 not in spec.shape and shape[0] == prod(spec.shape):
        return (1, *spec.shape), True
    raise InvalidInput(
        f"input {shown(spec.name)} came with shape {list(shape)}, expected {_words(spec)}"
        + (" for each instance" if rows else "")
    )


def _shape_of(name: str, value: object) -> tuple[int, ...]:
    """Return how an array is nested; what is in it is looked at when it is read."""
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) > MAX_RANK:
            raise InvalidInput(f"input {shown(name)}: arrays nested deeper than {MAX_RANK}")
        if not value:
            break
        value = value[0]
    if isinstance(value, dict | str):
        raise InvalidInput(
            f"input {shown(name)}: expected numbers, nested in arrays as the tensor is"
        )
    return tuple(shape)


def _json(text: bytes) -> object:
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise InvalidInput("the body is JSON that is nested too deep") from None


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(value)


def _byte(value: int) -> bytes:
    return bytes((value,))


def _expected(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{shown(spec.name)} ({_words(spec)})" for spec in specs)


def _words(spec: TensorSpec) -> str:
    if isinstance(spec, UntypedSpec):
        return "a tensor"
    return "a file or text" if spec.dtype == "BYTES" else f"{spec.dtype} {list(spec.shape)}"
