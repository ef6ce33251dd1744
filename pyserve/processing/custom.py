"""A Python class beside the model, for what is not covered by the declared steps.

    class MyProcessor:
        inputs = [{"name": "image", "dtype": "BYTES", "shape": [1]}]     # what clients send
        outputs = [{"name": "boxes", "dtype": "FP32", "shape": [-1, 4]}]  # what they get

        def setup(self, context): ...
        def preprocess(self, inputs): ...     # arrays by name in, arrays by name out
        def postprocess(self, outputs): ...

Every part is optional.  Methods run on the threads of processing, several at once.  Whatever they
raise is the model's failure, but for `ValueError` and `InvalidInput` of `preprocess`, which say
that a client sent something wrong.  `load_class.py` makes the instance.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from pyserve import typed
from pyserve.errors import InvalidInput, ModelFailed
from pyserve.messages import InputTensor, OutputTensor
from pyserve.processing.arrays import (
    Array,
    convertible,
    numpy_dtype,
    oip_dtype,
    to_array,
    to_bytes,
)
from pyserve.processing.steps import ServedModel
from pyserve.signature import TensorSpec, UntypedSpec

_MAX_REASON = 200

_logger = logging.getLogger(__name__)


class CustomInputs:
    """A class's `preprocess`; a `Preprocessing`."""

    def __init__(self, instance: Any, model: ServedModel) -> None:
        self.kinds: tuple[str, ...] = ("custom",)
        self._call: Callable[[dict[str, Array]], Any] = instance.preprocess
        self._model = model
        self._specs = {spec.name: spec for spec in model.inputs}
        self.inputs = _declared(instance, "inputs") or model.inputs

    def passes(self, inputs: Sequence[InputTensor]) -> bool:
        """Whether these are the model's inputs, and not what the class declares as its own."""
        public = {(spec.name, spec.dtype) for spec in self.inputs}
        own = {(spec.name, spec.dtype) for spec in self._specs.values()}
        came = {(one.name, one.datatype) for one in inputs}
        return came == own and not came <= public

    def prepare(self, inputs: Sequence[InputTensor]) -> list[InputTensor]:
        """Call the class with arrays, and make tensors of what it returns."""
        arrays = {one.name: _arrived(one) for one in inputs}
        if len(arrays) != len(inputs):
            raise InvalidInput("an input was sent twice")
        try:
            returned = self._call(arrays)
        except InvalidInput:
            raise
        except ValueError as error:
            _logger.info("preprocess of %s refused a request", self._model.name, exc_info=True)
            raise InvalidInput(_reason(error)) from None
        except (Exception, SystemExit) as error:
            raise _failed("preprocess", self._model, error) from None
        values = _mapping("preprocess", returned)
        tensors = []
        for name, value in values.items():
            spec = self._specs.get(name)
            if spec is None:
                known = ", ".join(self._specs)
                raise ModelFailed(
                    f'preprocess returned "{str(name)[:64]}", the model\'s inputs are {known}'
                )
            array = _as_array(value)
            dtype = oip_dtype(array) if isinstance(spec, UntypedSpec) else spec.dtype
            array = _converted("preprocess", name, array, dtype)
            tensors.append(InputTensor(name, dtype or "", array.shape, _bytes(dtype, array)))
        return tensors


class CustomOutputs:
    """A class's `postprocess`; a `Postprocessing`."""

    def __init__(self, instance: Any, model: ServedModel) -> None:
        self.kinds: tuple[str, ...] = ("custom",)
        self._call: Callable[[dict[str, Array]], Any] = instance.postprocess
        self._model = model
        self.outputs = _declared(instance, "outputs") or model.outputs
        self._dtypes = {spec.name: spec.dtype for spec in self.outputs}

    def model_outputs(self, names: list[str] | None) -> list[str] | None:
        """All of them: which ones the class reads, only it knows."""
        return None

    def passes(self, names: list[str] | None) -> bool:
        """Never: the class sees every answer."""
        return False

    def finish(
        self, outputs: Sequence[OutputTensor], names: list[str] | None
    ) -> list[OutputTensor]:
        """Call the class with arrays, and make outputs of what it returns."""
        arrays = {one.name: to_array(one.datatype, one.shape, one.data) for one in outputs}
        try:
            returned = self._call(arrays)
        except (Exception, SystemExit) as error:
            raise _failed("postprocess", self._model, error) from None
        values = _mapping("postprocess", returned)
        wanted = list(values) if names is None else names
        made = []
        for name in wanted:
            if name not in values:
                hint = typed.nearest(name, list(values)) or f", expected {', '.join(values)}"
                raise InvalidInput(f'there is no output "{name[:64]}"{hint}')
            array = _as_array(values[name])
            dtype = self._dtypes.get(name) or oip_dtype(array)
            array = _converted("postprocess", name, array, dtype)
            made.append(OutputTensor(name, dtype or "", array.shape, _bytes(dtype, array)))
        return made


def _declared(instance: Any, key: str) -> tuple[TensorSpec, ...]:
    """Return the specs in a class attribute, which may be mappings."""
    value = getattr(instance, key, None)
    if value is None:
        return ()
    try:
        plain = msgspec.to_builtins(value)
    except TypeError:
        plain = value
    return typed.to_typed(plain, tuple[TensorSpec, ...], source=f"processor: {key}")


def _arrived(one: InputTensor) -> Array:
    try:
        return to_array(one.datatype, one.shape, one.data)
    except (ValueError, KeyError):
        raise InvalidInput(
            f'input "{one.name[:64]}": {len(one.data)} bytes are no {one.datatype[:40]} of shape '
            f"{list(one.shape)[:16]}"
        ) from None


def _mapping(what: str, returned: Any) -> Mapping[str, Any]:
    if not isinstance(returned, Mapping) or not all(isinstance(name, str) for name in returned):
        raise ModelFailed(f"{what} returned {type(returned).__name__}, expected arrays by name")
    return returned


def _as_array(value: Any) -> Array:
    """Return an array of what a class returned; text is kept as objects."""
    try:
        array = np.asarray(value)
        # Fixed-width strings would lose trailing NULs, and the length of each.
        return np.asarray(value, object) if array.dtype.kind in "SU" else array
    except ValueError:
        return np.empty(0, np.void)


def _converted(what: str, name: str, array: Array, dtype: str | None) -> Array:
    if dtype is None or not convertible(array, dtype):
        expected = f", expected {dtype}" if dtype else ", expected numbers or text"
        raise ModelFailed(f'{what} returned "{name[:64]}" as {array.dtype.name}{expected}')
    return array.astype(numpy_dtype(dtype), copy=False)


def _bytes(dtype: str | None, array: Array) -> bytes | memoryview:
    try:
        return to_bytes(dtype or "", array)
    except TypeError as error:
        raise ModelFailed(str(error)) from None


def _failed(what: str, model: ServedModel, error: BaseException) -> ModelFailed:
    """Return the failure for a client; the rest is for the log.

    `sys.exit()` in a model's code is such a failure too: it must not end the server.
    """
    _logger.error("%s of model %s version %s", what, model.name, model.version, exc_info=error)
    return ModelFailed(f"{what} raised {type(error).__name__}")


def _reason(error: BaseException) -> str:
    lines = str(error).splitlines() or ["the input was refused"]
    return lines[0][:_MAX_REASON]
