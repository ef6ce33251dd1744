"""Triton's classification: not an output's values, but the largest of each row, by class.

An element of the answer is "value:index", or "value:index:label" for a model whose classes have
names.  Floating-point values have six decimals, as in Triton.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyserve.errors import InvalidInput
from pyserve.messages import OutputTensor
from pyserve.signature import DTYPES, encode_bytes_elements

if TYPE_CHECKING:
    import numpy as np

# More than this takes a thread: sorting it is about a millisecond.
_INLINE_BYTES = 64 * 1024
# Strings in one answer; each costs some hundred bytes while it is made.
_MAX_STRINGS = 1 << 20


async def classified(
    outputs: Sequence[OutputTensor],
    counts: Mapping[str, int],
    labels: Sequence[str],
    *,
    batched: bool,
) -> list[OutputTensor]:
    """Return `outputs` with those named in `counts` classified, off the event loop where long."""

    def classify_all() -> list[OutputTensor]:
        return [
            classify(one, counts[one.name], labels, batched=batched) if one.name in counts else one
            for one in outputs
        ]

    size = sum(len(one.data) for one in outputs if one.name in counts)
    return classify_all() if size <= _INLINE_BYTES else await asyncio.to_thread(classify_all)


def classify(
    output: OutputTensor, count: int, labels: Sequence[str], *, batched: bool
) -> OutputTensor:
    """Return the `count` largest elements of each row as strings, the largest first.

    Fewer where there are fewer; of equals the lower index comes first, and NaN last.  A row is all
    of the output where it is not `batched`.  Raises InvalidInput for what is not numbers.
    """
    rows = output.shape[0] if batched and output.shape else 1
    values = _values(output).reshape(rows, -1) if rows else _values(output).reshape(0, 0)
    kept = min(count, values.shape[1])
    if rows * kept > _MAX_STRINGS:
        raise InvalidInput(
            f'output "{output.name}": {rows} x {kept} classes are asked for, '
            f"at most {_MAX_STRINGS} are allowed"
        )
    strings: list[bytes] = []
    floating = values.dtype.kind == "f"
    for row, order in zip(values, _descending(values)[:, :kept].tolist(), strict=True):
        for index, value in zip(order, row[order].tolist(), strict=True):
            text = f"{value:f}:{index}" if floating else f"{value}:{index}"
            if index < len(labels) and labels[index]:
                text += f":{labels[index]}"
            strings.append(text.encode())
    shape = (rows, kept) if batched else (kept,)
    return OutputTensor(output.name, "BYTES", shape, encode_bytes_elements(strings))


def _values(output: OutputTensor) -> np.ndarray[Any, Any]:
    import numpy as np

    if output.datatype == "BF16":
        # The upper half of an FP32.
        halves = np.frombuffer(output.data, "<u2").astype("<u4")
        return (halves << 16).view("<f4")
    name = DTYPES[output.datatype].numpy
    if name is None or output.datatype == "BOOL":
        raise InvalidInput(
            f'output "{output.name}" is {output.datatype}: only numbers can be classified'
        )
    return np.frombuffer(output.data, np.dtype(name).newbyteorder("<"))


def _descending(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the order of each row, the largest first, equals by index, NaN last."""
    import numpy as np

    order: np.ndarray[Any, Any]
    if values.dtype.kind == "f":
        order = np.argsort(-values, axis=1, kind="stable")
    else:
        # Not every whole number has a negative: sort backwards what is read backwards.
        last = values.shape[1] - 1
        order = last - np.argsort(values[:, ::-1], axis=1, kind="stable")[:, ::-1]
    return order
