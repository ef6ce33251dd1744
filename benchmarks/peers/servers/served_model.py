"""The model as every peer's own server code has it: loaded alike, fed and read alike.

Peers run this in their own environment, where there is torch and numpy but neither pyserve nor the
package around this file; a server's script stands in the same folder and imports it by name.
"""

import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

# A body's bytes are read-only; nobody writes into a request's tensors.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

_DTYPES = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}


class ServedModel:
    """The module of a case.

    Frozen, as torch's documentation advises for inference, and set to so many threads inside its
    operators.  One request is one row; `run` takes the rows of several.
    """

    def __init__(self, case_path: str, *, threads: int) -> None:
        torch.set_num_threads(threads)
        with open(case_path, encoding="utf-8") as file:  # noqa: PTH123 - one line of one idea
            case = json.load(file)
        self.inputs = [
            (one["name"], _DTYPES[one["dtype"]], tuple(one["shape"])) for one in case["inputs"]
        ]
        self.request_bytes = sum(
            int(np.prod(shape)) * dtype.itemsize for _, dtype, shape in self.inputs
        )
        self.output_names = [one["name"] for one in case["outputs"]]
        self.module = torch.jit.freeze(torch.jit.load(case["path"]).eval())

    def from_bytes(self, body: bytes) -> list[np.ndarray]:
        """Return the inputs of a row from their bytes, one after the other."""
        arrays = []
        offset = 0
        for _, dtype, shape in self.inputs:
            size = int(np.prod(shape))
            arrays.append(np.frombuffer(body, dtype, size, offset).reshape(shape))
            offset += size * dtype.itemsize
        return arrays

    def from_lists(self, lists: dict[str, Any]) -> list[np.ndarray]:
        """Return the inputs of a row from nested lists by name."""
        return [np.asarray(lists[name], dtype).reshape(shape) for name, dtype, shape in self.inputs]

    def run(self, rows: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """Run several requests as one batch; return each one's outputs."""
        if len(rows) == 1:
            columns = [torch.from_numpy(one) for one in rows[0]]
        else:
            columns = [
                torch.from_numpy(np.concatenate(column)) for column in zip(*rows, strict=True)
            ]
        with torch.inference_mode():
            outputs = self.module(*columns)
        if isinstance(outputs, torch.Tensor):
            outputs = (outputs,)
        arrays = [one.numpy() for one in outputs]
        return [[one[at : at + 1] for one in arrays] for at in range(len(rows))]

    def to_bytes(self, outputs: Sequence[np.ndarray]) -> bytes:
        """Return the outputs of a row as bytes, one after the other."""
        return b"".join(one.tobytes() for one in outputs)

    def to_lists(self, outputs: Sequence[np.ndarray]) -> dict[str, Any]:
        """Return the outputs of a row as nested lists by name."""
        return {name: one.tolist() for name, one in zip(self.output_names, outputs, strict=True)}
