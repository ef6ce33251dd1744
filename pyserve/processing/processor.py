"""One model's processing: what clients send and get, and the way to and from the model's tensors.

`staged.py` calls it round the model's run.  What is done is for a `Preprocessing` and a
`Postprocessing` to say; here it gets its thread, and here both are made from a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pyserve.config import ModelConfig
from pyserve.errors import ConfigError
from pyserve.messages import InputTensor, OutputTensor
from pyserve.processing.declared import DeclaredInputs, DeclaredOutputs
from pyserve.processing.kinds import input_step, output_step
from pyserve.processing.pool import Slots
from pyserve.processing.steps import ServedModel
from pyserve.signature import TensorSpec

_T = TypeVar("_T")


class Preprocessing(Protocol):
    """Makes the model's inputs; `prepare` runs on any thread, several requests at once.

    inputs: what clients send, without the batch dimension.  kinds: for the model's metadata.
    """

    kinds: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]

    def passes(self, inputs: Sequence[InputTensor]) -> bool:
        """Whether there is nothing to do for these; quick, on the event loop."""
        ...

    def prepare(self, inputs: Sequence[InputTensor]) -> list[InputTensor]:
        """Return the model's inputs; raises InvalidInput or ModelFailed."""
        ...


class Postprocessing(Protocol):
    """Makes what clients get; `finish` runs on any thread, several requests at once.

    outputs: what clients get, without the batch dimension.  kinds: for the model's metadata.
    """

    kinds: tuple[str, ...]
    outputs: tuple[TensorSpec, ...]

    def model_outputs(self, names: list[str] | None) -> list[str] | None:
        """Return which of the model's outputs `names` are made of; None is all, either way."""
        ...

    def passes(self, names: list[str] | None) -> bool:
        """Whether there is nothing to do for these; quick, on the event loop."""
        ...

    def finish(
        self, outputs: Sequence[OutputTensor], names: list[str] | None
    ) -> list[OutputTensor]:
        """Return the outputs `names`; raises InvalidInput or ModelFailed."""
        ...


class Processor:
    """What stands before and after one model; used on one event loop.

    inputs, outputs: what clients send and get, without the batch dimension.
    preprocess, postprocess: the kinds of what is done; empty where nothing is.
    """

    def __init__(
        self,
        model: ServedModel,
        before: Preprocessing | None,
        after: Postprocessing | None,
        *,
        capacity: int,
    ) -> None:
        self._before = before
        self._after = after
        self._slots = Slots(capacity)
        self.inputs = model.inputs if before is None else before.inputs
        self.outputs = model.outputs if after is None else after.outputs
        self.preprocess = () if before is None else before.kinds
        self.postprocess = () if after is None else after.kinds

    async def prepare(
        self, inputs: Sequence[InputTensor], deadline_ns: int = 0
    ) -> list[InputTensor]:
        """Return the model's inputs; raises InvalidInput, QueueFull or ModelFailed.

        DeadlineExceeded at `deadline_ns`, an instant of `time.monotonic_ns()`; 0 for never.
        """
        before = self._before
        if before is None or before.passes(inputs):
            return list(inputs)
        return await self._slots.run(partial(before.prepare, inputs), deadline_ns)

    def model_outputs(self, names: list[str] | None) -> list[str] | None:
        """Return which of the model's outputs to ask for, if a client asks for `names`."""
        return names if self._after is None else self._after.model_outputs(names)

    async def finish(
        self, outputs: list[OutputTensor], names: list[str] | None, deadline_ns: int = 0
    ) -> list[OutputTensor]:
        """Return what a client gets who asked for `names` (None: all); the rest as `prepare`."""
        after = self._after
        if after is None or after.passes(names):
            return outputs
        return await self._slots.run(partial(after.finish, outputs, names), deadline_ns)


def make_processor(
    model: ServedModel, config: ModelConfig, folders: Sequence[Path], allow_handlers: bool
) -> Processor | None:
    """Make what `config` declares for `model`; None where it declares nothing.

    folders: where files are looked for, the version's own first.  allow_handlers: whether Python
    that the model brings along may run.  Blocks.  Raises ConfigError for what does not fit the
    model, for a file that is missing and for a library that is.
    """
    before: Preprocessing | None = None
    after: Postprocessing | None = None
    if config.processor is not None:
        if not allow_handlers:
            raise ConfigError(
                f'processor: "{config.processor[:100]}" is Python code of the model\'s: start the '
                "server with --allow-handlers to run it"
            )
        from pyserve.processing.custom import CustomInputs, CustomOutputs
        from pyserve.processing.load_class import load_class

        custom = load_class(config.processor, model, folders)
        before = CustomInputs(custom, model) if hasattr(custom, "preprocess") else None
        after = CustomOutputs(custom, model) if hasattr(custom, "postprocess") else None
    if config.preprocess:
        if before is not None:
            raise ConfigError("processor has a preprocess of its own: leave one of them out")
        make = partial(input_step, model=model, folders=folders)
        before = DeclaredInputs(_each("preprocess", config.preprocess, make), model)
    if config.postprocess:
        if after is not None:
            raise ConfigError("processor has a postprocess of its own: leave one of them out")
        finish = partial(output_step, model=model)
        after = DeclaredOutputs(_each("postprocess", config.postprocess, finish), model)
    if before is None and after is None:
        return None
    return Processor(model, before, after, capacity=config.queue.capacity)


def _each(key: str, configs: Sequence[Any], make: Callable[[Any], _T]) -> list[_T]:
    """Make the steps of a list; an error says which one it is of."""
    steps = []
    for index, config in enumerate(configs):
        try:
            steps.append(make(config))
        except ConfigError as error:
            raise ConfigError(f"{key}[{index}]: {error}") from None
    return steps
