"""Tables become rows of numbers: CSV read here, Arrow by `arrow.py`.

One element may hold many rows, and all rows of all elements are the rows of the request.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import islice

import numpy as np

from pyserve.errors import ConfigError, InvalidInput
from pyserve.messages import InputTensor
from pyserve.process_config import TableInput
from pyserve.processing.arrays import Array, numpy_dtype
from pyserve.processing.limits import MAX_COLUMNS, MAX_LINE_CHARS
from pyserve.processing.optional import need
from pyserve.processing.steps import ServedModel, Target, bad_element, input_names, target_of
from pyserve.typed import nearest

_FLOATS = ("FP32", "FP16", "BF16", "FP64")
_INTEGERS = ("INT64", "INT32", "INT16", "INT8", "UINT8")
_ARROW_STARTS = (b"ARROW1", b"\xff\xff\xff\xff")


class TableStep:
    """Makes one input of tables; columns are found by their names, or taken as they stand."""

    kind = "table"

    def __init__(self, config: TableInput, model: ServedModel) -> None:
        self._config = config
        self.input, name = input_names(model, config.input, config.tensor)
        target = target_of(model, name, ranks=(1,), dtypes=(*_FLOATS, *_INTEGERS))
        self.targets: tuple[Target, ...] = (target,)
        self._target = target
        self._floats = target.dtype in _FLOATS
        (width,) = target.shape
        if config.columns and width not in (-1, len(config.columns)):
            raise ConfigError(
                f'{len(config.columns)} columns are named, input "{name}" has rows of shape '
                f"{list(target.shape)}"
            )
        self._width = len(config.columns) or (None if width == -1 else width)
        if config.format != "csv":
            need("table", "pyarrow.ipc")

    def prepare(self, elements: Sequence[memoryview]) -> list[InputTensor]:
        """Read each element and put all rows under each other."""
        parts: list[Array] = []
        left = self._target.most
        for index, element in enumerate(elements):
            try:
                part = self._read(element, left)
            except ValueError as error:
                raise bad_element(self.input, index, str(error)) from None
            if parts and part.shape[1] != parts[0].shape[1]:
                raise bad_element(
                    self.input,
                    index,
                    f"{part.shape[1]} columns, the one before has {parts[0].shape[1]}",
                )
            left -= len(part)
            parts.append(part)
        if not parts:
            parts = [np.empty((0, self._width or 0))]
        rows = np.concatenate(parts)
        if not self._target.stacked and len(rows) != 1:
            raise InvalidInput(
                f'input "{self.input}": {len(rows)} rows, the model takes one at a time'
            )
        self._target.check_size(len(rows), rows.shape[1:])
        return [self._target.tensor(rows)]

    def _read(self, element: memoryview, most: int) -> Array:
        """Return the rows of one table, at most `most`; ValueError says what is wrong with it."""
        is_arrow = bytes(element[:6]).startswith(_ARROW_STARTS)
        if self._config.format == "csv" or (self._config.format == "auto" and not is_arrow):
            return self._read_csv(element, most)
        from pyserve.processing.arrow import read_arrow

        names, columns = read_arrow(element, most)
        if not columns and not self._width:
            raise ValueError("no columns")
        picked = [columns[place] for place in self._places(names)]
        return self._checked(picked, names)

    def _checked(self, columns: list[Array], names: Sequence[str]) -> Array:
        kind = numpy_dtype(self._target.dtype)
        for name, column in zip(self._config.columns or names, columns, strict=False):
            if not np.can_cast(column.dtype, kind, casting="same_kind"):
                raise ValueError(
                    f'column "{name}" is {column.dtype.name}, which does not become '
                    f"{self._target.dtype}"
                )
        return np.stack(columns, axis=1).astype(kind)

    def _read_csv(self, element: memoryview, most: int) -> Array:
        try:
            text = str(element, "utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("not UTF-8") from None
        lines = self._lines(text)
        names: list[str] = []
        places = None
        if self._config.header:
            number, names = next(lines, (0, []))
            if not number:
                raise ValueError("no header, expected a line with the columns' names")
            names = [name.strip() for name in names]
            places = self._places(names)
        rows = []
        for number, fields in islice(lines, most + 1):
            if places is None:
                places = self._places([str(place) for place in range(len(fields))])
                names = [str(place + 1) for place in range(len(fields))]
            if len(fields) != len(names):
                raise ValueError(f"line {number} has {len(fields)} fields, expected {len(names)}")
            rows.append([self._number(fields[place], number, names[place]) for place in places])
        if len(rows) > most:
            raise ValueError(f"more than {most} rows in a request")
        width = len(rows[0]) if rows else (self._width or len(names))
        kind = np.dtype("f8") if self._floats else numpy_dtype(self._target.dtype)
        return np.array(rows, kind).reshape(len(rows), width)

    def _lines(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Yield each line that is not blank with its number; a field cannot span lines."""
        for number, line in enumerate(StringIO(text, newline=None), 1):
            if len(line) > MAX_LINE_CHARS:
                raise ValueError(f"line {number} has more than {MAX_LINE_CHARS} characters")
            if not line.strip():
                continue
            try:
                fields = next(csv.reader([line], delimiter=self._config.delimiter, strict=True))
            except (csv.Error, StopIteration):
                raise ValueError(f"line {number} is no CSV") from None
            if len(fields) > MAX_COLUMNS:
                raise ValueError(f"line {number} has more than {MAX_COLUMNS} fields")
            yield number, fields

    def _places(self, names: Sequence[str]) -> list[int]:
        """Return where the columns stand that the model takes, in its order."""
        if self._config.columns:
            places = {name: place for place, name in enumerate(names)}
            if len(places) != len(names):
                raise ValueError("two columns have one name")
            for name in self._config.columns:
                if name not in places:
                    raise ValueError(f'no column "{name}"{nearest(name, names)[:100]}')
            return [places[name] for name in self._config.columns]
        if self._width is not None and len(names) != self._width:
            raise ValueError(f"{len(names)} columns, expected {self._width}")
        return list(range(len(names)))

    def _number(self, field: str, line: int, column: str) -> float | int:
        text = field.strip()
        if not text and self._floats:
            return math.nan
        try:
            if "_" in text:
                raise ValueError
            if self._floats:
                return float(text)
            limits = np.iinfo(numpy_dtype(self._target.dtype))
            number = int(text)
            if not limits.min <= number <= limits.max:
                raise ValueError
        except ValueError:
            shown = text if len(text) <= 40 else text[:40] + "…"
            wanted = "a number" if self._floats else f"a whole number of {self._target.dtype}"
            raise ValueError(
                f'line {line}, column "{column[:40]}": "{shown}", expected {wanted}'
            ) from None
        return number
