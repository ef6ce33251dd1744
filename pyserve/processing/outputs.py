"""The steps of `postprocess`: the model's outputs become what clients want to read."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pyserve.errors import ConfigError
from pyserve.messages import OutputTensor
from pyserve.process_config import ArgmaxOutput, ClassificationOutput, SoftmaxOutput
from pyserve.processing.arrays import Array, to_array, to_bytes
from pyserve.processing.steps import ServedModel
from pyserve.signature import DTYPES, TensorSpec, UntypedSpec, encode_bytes_elements
from pyserve.typed import nearest

_FLOATS = ("FP64", "FP32", "FP16", "BF16")


class OutputStep(Protocol):
    """One step of `postprocess`, made for one model; `finish` runs on any thread.

    output: the model's output that it reads.  outputs: what it makes.
    """

    kind: str
    output: str
    outputs: tuple[TensorSpec, ...]

    def finish(self, output: OutputTensor) -> list[OutputTensor]:
        """Make the outputs, in the order of `outputs`."""
        ...


class ClassificationStep:
    """The best classes of each row as two outputs, names and scores, best first."""

    kind = "classification"

    def __init__(self, config: ClassificationOutput, model: ServedModel) -> None:
        spec = _spec_of(model, config.output, [one for one in DTYPES if one != "BYTES"])
        self.output = spec.name
        self._softmax = config.softmax
        self._top = config.top
        self._labels = model.class_labels
        classes = spec.shape[-1]
        if classes != -1 and len(self._labels) > classes:
            raise ConfigError(
                f'there are {len(self._labels)} class labels, output "{spec.name}" has {classes} '
                "classes"
            )
        shape = (*spec.shape[:-1], -1 if classes == -1 else min(config.top, classes))
        self.outputs: tuple[TensorSpec, ...] = (
            TensorSpec(config.labels, "BYTES", shape),
            TensorSpec(config.scores, "FP32", shape),
        )

    def finish(self, output: OutputTensor) -> list[OutputTensor]:
        """Sort each row's classes; of equal ones the first comes first."""
        values = to_array(output.datatype, output.shape, output.data)
        if self._softmax:
            values = _softmaxed(values)
        order = np.argsort(-values.astype(np.float64), axis=-1, kind="stable")
        best = order[..., : self._top]
        scores = np.take_along_axis(values, best, axis=-1).astype(np.float32)
        labels = encode_bytes_elements([self._label(index) for index in best.ravel().tolist()])
        names, numbers = self.outputs
        return [
            OutputTensor(names.name, "BYTES", best.shape, labels),
            OutputTensor(numbers.name, "FP32", best.shape, to_bytes("FP32", scores)),
        ]

    def _label(self, index: int) -> bytes:
        """Return a class's name; without one, its index."""
        name = self._labels[index] if index < len(self._labels) else ""
        return (name or str(index)).encode()


class SoftmaxStep:
    """Probabilities over the last dimension, as FP32."""

    kind = "softmax"

    def __init__(self, config: SoftmaxOutput, model: ServedModel) -> None:
        spec = _spec_of(model, config.output, _FLOATS)
        self.output = spec.name
        self.outputs: tuple[TensorSpec, ...] = (
            TensorSpec(config.name or spec.name, "FP32", spec.shape),
        )

    def finish(self, output: OutputTensor) -> list[OutputTensor]:
        """Make the probabilities."""
        values = _softmaxed(to_array(output.datatype, output.shape, output.data))
        data = to_bytes("FP32", values)
        return [OutputTensor(self.outputs[0].name, "FP32", output.shape, data)]


class ArgmaxStep:
    """The index of the largest value over the last dimension, as INT64; of equal ones the first."""

    kind = "argmax"

    def __init__(self, config: ArgmaxOutput, model: ServedModel) -> None:
        spec = _spec_of(model, config.output, [one for one in DTYPES if one != "BYTES"])
        self.output = spec.name
        self.outputs: tuple[TensorSpec, ...] = (
            TensorSpec(config.name or spec.name, "INT64", spec.shape[:-1]),
        )

    def finish(self, output: OutputTensor) -> list[OutputTensor]:
        """Find the indexes."""
        values = to_array(output.datatype, output.shape, output.data)
        indexes = np.argmax(values, axis=-1).astype(np.int64)
        data = to_bytes("INT64", indexes)
        return [OutputTensor(self.outputs[0].name, "INT64", indexes.shape, data)]


def _softmaxed(values: Array) -> Array:
    values = values.astype(np.float32)
    if values.size:
        # Nothing overflows where the largest value is 0.
        values = np.exp(values - values.max(axis=-1, keepdims=True))
        values /= values.sum(axis=-1, keepdims=True)
    return values


def _spec_of(
    model: ServedModel, name: str | None, dtypes: tuple[str, ...] | list[str]
) -> TensorSpec:
    """Return the model's output that a step reads; ConfigError where it cannot."""
    known = [spec.name for spec in model.outputs]
    if name is None:
        if len(known) != 1:
            raise ConfigError(f"the model has several outputs ({', '.join(known)}): needs output")
        name = known[0]
    spec = next((spec for spec in model.outputs if spec.name == name), None)
    if spec is None:
        hint = nearest(name, known) or f"; it has: {', '.join(known)}"
        raise ConfigError(f'the model has no output "{name}"{hint}')
    if isinstance(spec, UntypedSpec):
        raise ConfigError(
            f'the shape of output "{name}" is not known: export the model with pyserve.export, or '
            "declare inputs and outputs in config.yaml"
        )
    if spec.dtype not in dtypes:
        raise ConfigError(f'output "{name}" is {spec.dtype}, expected {" or ".join(dtypes)}')
    if not spec.shape or spec.shape[-1] == 0:
        raise ConfigError(f'output "{name}" has rows of shape {list(spec.shape)}: needs classes')
    return spec
