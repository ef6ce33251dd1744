"""The lists `preprocess` and `postprocess` of a configuration, as one stage before and one after.

What clients send for a step is BYTES, one file an element.  Inputs that come as the model takes
them are passed on as they are, and the model's own outputs can be asked for by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pyserve.errors import ConfigError, InvalidInput
from pyserve.messages import Buffer, InputTensor, OutputTensor
from pyserve.processing.limits import MAX_PREPARED_BYTES
from pyserve.processing.outputs import OutputStep
from pyserve.processing.steps import InputStep, ServedModel
from pyserve.signature import TensorSpec
from pyserve.typed import nearest


class DeclaredInputs:
    """The steps of `preprocess`; a `Preprocessing`."""

    def __init__(self, steps: Sequence[InputStep], model: ServedModel) -> None:
        self.kinds = tuple(step.kind for step in steps)
        self._steps: dict[str, list[InputStep]] = {}
        for step in steps:
            self._steps.setdefault(step.input, []).append(step)
        self._model_inputs = [spec.name for spec in model.inputs]
        self._batched = model.batched
        made = [target.name for step in steps for target in step.targets]
        for name, count in Counter(made).items():
            if count > 1:
                raise ConfigError(f'preprocess: two steps make input "{name}"')
        for spec in model.inputs:
            if spec.dtype == "BYTES" and spec.name in self._steps:
                raise ConfigError(
                    f'preprocess: "{spec.name}" is BYTES for the model too: give the step\'s input '
                    "another name"
                )
        self._most = {
            name: min(target.most for step in group for target in step.targets)
            for name, group in self._steps.items()
        }
        self.inputs = (
            *(TensorSpec(name, "BYTES", self._shape(name)) for name in self._steps),
            *(spec for spec in model.inputs if spec.name not in made),
        )

    def _shape(self, name: str) -> tuple[int, ...]:
        """What clients are told: one element a row."""
        return (1,) if self._batched or self._most[name] == 1 else (-1,)

    def passes(self, inputs: Sequence[InputTensor]) -> bool:
        """Whether there is nothing to do: every input is as the model takes it."""
        return all(
            one.name in self._model_inputs
            and not (one.datatype == "BYTES" and one.name in self._steps)
            for one in inputs
        )

    def prepare(self, inputs: Sequence[InputTensor]) -> list[InputTensor]:
        """Run the steps of what came as BYTES, pass the rest on."""
        ready: dict[str, InputTensor] = {}
        for one in inputs:
            steps = self._steps.get(one.name)
            if steps is not None and one.datatype == "BYTES":
                elements = self._elements(one)
                made = [tensor for step in steps for tensor in step.prepare(elements)]
            elif one.name in self._model_inputs:
                made = [one]
            else:
                raise self._unknown(one)
            for tensor in made:
                if tensor.name in ready:
                    raise InvalidInput(f'input "{tensor.name}" was sent in two ways')
                ready[tensor.name] = tensor
        size = sum(len(tensor.data) for tensor in ready.values())
        if size > MAX_PREPARED_BYTES:
            raise InvalidInput(
                f"the inputs become {size} bytes, at most {MAX_PREPARED_BYTES} are made of one "
                "request"
            )
        for name, steps in self._steps.items():
            missing = [one.name for step in steps for one in step.targets if one.name not in ready]
            if missing:
                raise InvalidInput(
                    f'input "{name}" (BYTES) is missing, of which {", ".join(missing)} would be '
                    "made"
                )
        return list(ready.values())

    def _elements(self, one: InputTensor) -> list[memoryview]:
        """Return the elements of an input, no more than the model takes rows; nothing is copied."""
        name, shape = one.name, one.shape
        plain = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
        if not plain and (shape or self._batched):
            raise InvalidInput(
                f'input "{name}" has shape {list(shape)}, expected one element for each row: '
                "[rows, 1]"
            )
        count = shape[0] if shape else 1
        if not 0 <= count <= self._most[name]:
            raise InvalidInput(
                f'input "{name}" has {count} rows, the model takes at most {self._most[name]}'
            )
        return read_elements(name, one.data, count)

    def _unknown(self, one: InputTensor) -> InvalidInput:
        if one.name in self._steps:
            return InvalidInput(
                f'input "{one.name}" has datatype {one.datatype[:40]}, expected BYTES'
            )
        known = [spec.name for spec in self.inputs]
        hint = nearest(one.name, known) or f", expected {', '.join(known)}"
        return InvalidInput(f'there is no input "{one.name[:64]}"{hint}')


class DeclaredOutputs:
    """The steps of `postprocess`; a `Postprocessing`."""

    def __init__(self, steps: Sequence[OutputStep], model: ServedModel) -> None:
        self.kinds = tuple(step.kind for step in steps)
        self._model_outputs = [spec.name for spec in model.outputs]
        self._makers = {spec.name: step for step in steps for spec in step.outputs}
        read = {step.output for step in steps}
        outputs: list[TensorSpec] = []
        for spec in model.outputs:
            if spec.name not in read:
                outputs.append(spec)
            for step in steps:
                if step.output == spec.name:
                    outputs += step.outputs
        for name, count in Counter(spec.name for spec in outputs).items():
            if count > 1:
                raise ConfigError(f'postprocess: two outputs are named "{name}"')
        for name, step in self._makers.items():
            if name in self._model_outputs and name != step.output:
                raise ConfigError(f'postprocess: the model itself has an output "{name}"')
        self.outputs = tuple(outputs)

    def model_outputs(self, names: list[str] | None) -> list[str] | None:
        """Return which of the model's outputs the outputs `names` are made of."""
        if names is None:
            return None
        wanted = []
        for name in names:
            step = self._makers.get(name)
            if step is None and name not in self._model_outputs:
                known = [spec.name for spec in self.outputs]
                hint = nearest(name, known) or f", expected {', '.join(known)}"
                raise InvalidInput(f'there is no output "{name[:64]}"{hint}')
            wanted.append(name if step is None else step.output)
        return list(dict.fromkeys(wanted))

    def passes(self, names: list[str] | None) -> bool:
        """Whether there is nothing to do: only outputs of the model's own are wanted."""
        return names is not None and not any(name in self._makers for name in names)

    def finish(
        self, outputs: Sequence[OutputTensor], names: list[str] | None
    ) -> list[OutputTensor]:
        """Make what is wanted of the model's outputs, in the order in which it was asked for."""
        own = {one.name: one for one in outputs}
        made: dict[str, OutputTensor] = {}
        wanted = [spec.name for spec in self.outputs] if names is None else names
        for name in wanted:
            step = self._makers.get(name)
            if step is not None and name not in made:
                made.update({one.name: one for one in step.finish(own[step.output])})
        return [made[name] if name in made else own[name] for name in wanted]


def read_elements(name: str, data: Buffer, count: int) -> list[memoryview]:
    """Return the `count` elements of BYTES, as views; InvalidInput where the lengths disagree."""
    view = memoryview(data)
    elements = []
    start = 0
    for index in range(count):
        size = int.from_bytes(view[start : start + 4], "little")
        end = start + 4 + size
        if end > len(view):
            raise InvalidInput(
                f'input "{name}": element {index} goes beyond the {len(view)} bytes that came'
            )
        elements.append(view[start + 4 : end])
        start = end
    if start != len(view):
        raise InvalidInput(
            f'input "{name}" has {len(view) - start} bytes more than its {count} elements'
        )
    return elements
