"""A model's outputs as TorchServe's handlers answer them: bare JSON, one row without its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from pyserve.errors import InvalidInput
from pyserve.messages import InferResponse, OutputTensor
from pyserve.signature import decode_bytes_elements
from pyserve.torchserve.inputs import Inputs
from pyserve.wire.tensors import to_json

if TYPE_CHECKING:
    from pyserve.model import Model

JSON = "application/json"
ADAPTED = ("body", "content_type")
"""The outputs of a handler that an archive brings: what it answers, and of which type that is."""

_decode = msgspec.json.Decoder().decode


class Prediction(NamedTuple):
    """The answer to one prediction."""

    body: bytes
    content_type: str = JSON


def write_prediction(
    model: Model, response: InferResponse, inputs: Inputs, kind: str
) -> Prediction:
    """Return the answer; `kind` is the handler that the model was archived for, or empty."""
    outputs = response.outputs
    if tuple(one.name for one in outputs) == ADAPTED:
        return _adapted(outputs, inputs)
    processor = model.processor
    rows: list[Any] | None
    if processor is not None and "classification" in processor.postprocess:
        rows = _classes(outputs)
    elif kind == "image_segmenter":
        rows = _segments(outputs)
    else:
        rows = None
    if rows is None and len(outputs) == 1 and not inputs.one_row and not inputs.enveloped:
        one = outputs[0]
        if len(one.shape) == 1:
            return Prediction(to_json(one))  # flat already
    value: object = _plain(outputs, inputs.one_row) if rows is None else rows
    if rows is not None and inputs.one_row:
        value = rows[0]
    if inputs.enveloped:
        value = {"predictions": _by_row(value)}
    return Prediction(msgspec.json.encode(value))


def _adapted(outputs: list[OutputTensor], inputs: Inputs) -> Prediction:
    """Return what a handler has answered, as it is; of several rows, a list."""
    bodies, kinds = (decode_bytes_elements(bytes(one.data)) for one in outputs)
    if inputs.one_row:
        return Prediction(bodies[0], kinds[0].decode())
    values = [
        msgspec.Raw(body) if kind == JSON.encode() else body.decode("utf-8", "replace")
        for body, kind in zip(bodies, kinds, strict=True)
    ]
    return Prediction(msgspec.json.encode({"predictions": values} if inputs.enveloped else values))


def _plain(outputs: list[OutputTensor], one_row: bool) -> object:
    """Return one output's values by themselves, several by their names."""
    values = {one.name: _nested(one, one_row) for one in outputs}
    return next(iter(values.values())) if len(values) == 1 else values


def _by_row(value: object) -> object:
    """Turn outputs by name into rows: each prediction belongs to one instance."""
    if not isinstance(value, dict):
        return value
    columns = [one if isinstance(one, list) else [one] for one in value.values()]
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=False)]


def _nested(one: OutputTensor, one_row: bool) -> object:
    """Return the elements of an output in lists, as the tensor has them."""
    flat: list[Any] = _decode(to_json(one))
    shape = one.shape
    if one_row and shape[:1] == (1,):
        shape = shape[1:]
    if not shape:
        return flat[0]
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else []
    return flat


def _classes(outputs: list[OutputTensor]) -> list[Any] | None:
    """Return each row's classes with their scores, best first; None where there are no names."""
    names = next((one for one in outputs if one.datatype == "BYTES"), None)
    scores = next((one for one in outputs if one.datatype == "FP32"), None)
    if names is None or scores is None or names.shape != scores.shape:
        return None
    rows = zip(_as_rows(_nested(names, False)), _as_rows(_nested(scores, False)), strict=True)
    return [dict(zip(labels, values, strict=True)) for labels, values in rows]


def _as_rows(value: Any) -> list[Any]:
    return value if value and isinstance(value[0], list) else [value]


def _segments(outputs: list[OutputTensor]) -> list[Any]:
    """Return the best class of every pixel and its probability, as `[height][width][2]`."""
    import numpy as np

    scores = next((one for one in outputs if one.name == "out"), outputs[0])
    if scores.datatype != "FP32" or len(scores.shape) != 4:
        raise InvalidInput(
            f"output {scores.name} is {scores.datatype} {list(scores.shape)}, the handler "
            "image_segmenter answers with FP32 of rows, classes, height and width"
        )
    values = np.frombuffer(scores.data, "<f4").reshape(scores.shape)
    values = np.exp(values - values.max(axis=1, keepdims=True))
    values /= values.sum(axis=1, keepdims=True)
    best = np.stack([values.argmax(axis=1).astype("<f4"), values.max(axis=1)], axis=-1)
    return list(best.tolist())
