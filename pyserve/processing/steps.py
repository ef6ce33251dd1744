"""What every declared step has in common, and how its rows lie in the model's tensors.

A step of `preprocess` takes one input of clients, whose elements are files, and makes one or more
of the model's inputs.  `Target` is such an input: the dtype and shape of one row of it, and
whether rows are stacked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pyserve.errors import ConfigError, InvalidInput
from pyserve.messages import InputTensor
from pyserve.processing.limits import MAX_PREPARED_BYTES, MAX_ROWS
from pyserve.signature import DTYPES, TensorSpec, UntypedSpec
from pyserve.typed import nearest

if TYPE_CHECKING:
    from pyserve.processing.arrays import Array


class ServedModel(Protocol):
    """What processing reads of a model."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """Its version."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's own inputs, without the batch dimension."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's own outputs, without the batch dimension."""

    @property
    def batched(self) -> bool:
        """Whether dimension 0 of every tensor is the batch."""

    @property
    def max_batch_size(self) -> int:
        """Most rows of a request, 0 where the model is not batched."""

    @property
    def class_labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indexes."""


class InputStep(Protocol):
    """One step of `preprocess`, made for one model; `prepare` runs on any thread.

    input: what clients call it.  targets: what it makes.
    """

    kind: str
    input: str
    targets: tuple[Target, ...]

    def prepare(self, elements: Sequence[memoryview]) -> list[InputTensor]:
        """Make the targets of these elements; InvalidInput says which is wrong and why."""
        ...


class Target(NamedTuple):
    """One of the model's inputs.

    shape: of one row, -1 for any size.  stacked: rows lie along a dimension before it; if not, the
    tensor is one row.  most: rows of one request.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    stacked: bool
    most: int

    def check_size(self, rows: int, shape: Sequence[int]) -> None:
        """Refuse more bytes than a request may become, before they are allocated."""
        size = rows * prod(shape) * DTYPES[self.dtype].size
        if size > MAX_PREPARED_BYTES:
            raise InvalidInput(
                f'input "{self.name}" would be {[rows, *shape]} of {self.dtype}, {size} '
                f"bytes: at most {MAX_PREPARED_BYTES} are made of one request"
            )

    def tensor(self, rows: Array) -> InputTensor:
        """Return the tensor of `rows`, an array with the rows along dimension 0."""
        from pyserve.processing.arrays import numpy_dtype, to_bytes

        shape = rows.shape if self.stacked else rows.shape[1:]
        array = rows.astype(numpy_dtype(self.dtype), copy=False)
        return InputTensor(self.name, self.dtype, shape, to_bytes(self.dtype, array))

    def no_rows(self) -> InputTensor:
        """Return the tensor of a request without rows, in which open sizes are 0."""
        import numpy as np

        return self.tensor(np.empty((0, *(max(size, 0) for size in self.shape)), np.uint8))


def target_of(
    model: ServedModel, name: str, *, ranks: Collection[int], dtypes: Collection[str]
) -> Target:
    """Return the model's input `name` as a target; ConfigError where a step cannot make it.

    ranks: how many dimensions a row of this kind may have; any, if empty.
    """
    spec = next((spec for spec in model.inputs if spec.name == name), None)
    if spec is None:
        known = [spec.name for spec in model.inputs]
        hint = nearest(name, known) or f"; it has: {', '.join(known)}"
        raise ConfigError(f'the model has no input "{name}"{hint}')
    if isinstance(spec, UntypedSpec):
        raise ConfigError(
            f'the shape of input "{name}" is not known: export the model with pyserve.export, or '
            "declare inputs and outputs in config.yaml"
        )
    if spec.dtype not in dtypes:
        raise ConfigError(f'input "{name}" is {spec.dtype}, expected {" or ".join(dtypes)}')
    if model.batched:
        target = Target(name, spec.dtype, spec.shape, True, model.max_batch_size)
    elif ranks and len(spec.shape) - 1 in ranks and spec.shape[0] in (-1, 1):
        most = MAX_ROWS if spec.shape[0] == -1 else 1
        target = Target(name, spec.dtype, spec.shape[1:], True, most)
    else:
        target = Target(name, spec.dtype, spec.shape, False, 1)
    if ranks and len(target.shape) not in ranks:
        wanted = " or ".join(str(rank) for rank in sorted(ranks))
        raise ConfigError(
            f'input "{name}" has rows of shape {list(target.shape)}, expected {wanted} dimensions'
        )
    return target


def input_names(model: ServedModel, given: str | None, tensor: str | None) -> tuple[str, str]:
    """Return what clients call an input and what the model calls it, from what a step says."""
    if tensor is None and given is None:
        if len(model.inputs) != 1:
            names = ", ".join(spec.name for spec in model.inputs)
            raise ConfigError(f"the model has several inputs ({names}): needs input")
        tensor = model.inputs[0].name
    name = tensor if tensor is not None else given
    assert name is not None
    return given or name, name


def bad_element(name: str, index: int, reason: str) -> InvalidInput:
    """Return the error for one element of an input."""
    return InvalidInput(f'input "{name}", element {index}: {reason}')


def one_size(name: str, index: int, shape: Sequence[int], first: Sequence[int]) -> None:
    """Refuse rows of different sizes: they cannot share a tensor."""
    if tuple(shape) != tuple(first):
        raise bad_element(
            name,
            index,
            f"becomes {list(shape)}, the one before {list(first)}: send them in requests of "
            "their own",
        )
