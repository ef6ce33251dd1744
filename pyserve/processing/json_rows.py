"""A JSON array of numbers becomes one row; the core reads it without an object per number."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from pyserve._native import core
from pyserve.errors import ConfigError
from pyserve.messages import InputTensor
from pyserve.process_config import JsonInput
from pyserve.processing.arrays import Array, to_array
from pyserve.processing.limits import MAX_JSON_BYTES
from pyserve.processing.steps import (
    ServedModel,
    Target,
    bad_element,
    input_names,
    one_size,
    target_of,
)
from pyserve.signature import DTYPES


class JsonStep:
    """Makes one input of arrays of numbers; one dimension of a row may be of any size."""

    kind = "json"

    def __init__(self, config: JsonInput, model: ServedModel) -> None:
        self.input, name = input_names(model, config.input, config.tensor)
        dtypes = [one for one in DTYPES if one != "BYTES"]
        target = target_of(model, name, ranks=(), dtypes=dtypes)
        if target.shape.count(-1) > 1:
            raise ConfigError(
                f'input "{name}" has rows of shape {list(target.shape)}: a list of numbers leaves '
                "more than one size open"
            )
        self.targets: tuple[Target, ...] = (target,)
        self._target = target

    def prepare(self, elements: Sequence[memoryview]) -> list[InputTensor]:
        """Read each element as one row."""
        rows: list[Array] = []
        for index, element in enumerate(elements):
            row = self._row(index, bytes(element))
            if rows:
                one_size(self.input, index, row.shape, rows[0].shape)
            else:
                self._target.check_size(len(elements), row.shape)
            rows.append(row)
        if not rows:
            return [self._target.no_rows()]
        return [self._target.tensor(np.stack(rows))]

    def _row(self, index: int, text: bytes) -> Array:
        if len(text) > MAX_JSON_BYTES:
            raise bad_element(
                self.input, index, f"{len(text)} bytes, at most {MAX_JSON_BYTES} are read"
            )
        # Numbers are one more than the commas, nested or flat; the parser has the last word.
        count = text.count(b",") + 1 if text.strip(b"[] \t\r\n") else 0
        shape = self._shape(count)
        if shape is None:
            raise bad_element(
                self.input,
                index,
                f"{count} numbers, expected a row of shape {list(self._target.shape)}",
            )
        try:
            data = core().parse_json_numbers(memoryview(text), self._target.dtype, count)
        except ValueError as error:
            raise bad_element(self.input, index, str(error)) from None
        return to_array(self._target.dtype, shape, data)

    def _shape(self, count: int) -> tuple[int, ...] | None:
        fixed = prod(size for size in self._target.shape if size != -1)
        if -1 not in self._target.shape:
            return self._target.shape if count == fixed else None
        if fixed == 0 or count % fixed:
            return None
        return tuple(count // fixed if size == -1 else size for size in self._target.shape)
