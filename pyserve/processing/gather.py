"""Decoded elements become the rows of one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pyserve.messages import InputTensor
from pyserve.processing.arrays import Array, numpy_dtype
from pyserve.processing.steps import Target, one_size


def gather(
    name: str,
    target: Target,
    elements: Sequence[memoryview],
    decode: Callable[[int, memoryview], Array],
) -> InputTensor:
    """Return the tensor whose rows are what `decode` makes of each element of input `name`.

    Memory is taken when the first row has said how large they are; all are of one size.
    """
    rows: Array | None = None
    for index, element in enumerate(elements):
        row = decode(index, element)
        if rows is None:
            target.check_size(len(elements), row.shape)
            rows = np.empty((len(elements), *row.shape), numpy_dtype(target.dtype))
        one_size(name, index, row.shape, rows.shape[1:])
        rows[index] = row
    return target.no_rows() if rows is None else target.tensor(rows)
