"""Writes one case: a zoo model as pyserve exports it, one request, the bare module's answer.

`python -m benchmarks.peers.prepare NAME FOLDER`, in a process of its own since it imports torch.
The file's example is the request, so that nobody meets its shape for the first time when asked.
"""

import importlib
import json
import sys
from pathlib import Path

import torch

from benchmarks.peers.case import CASE, EXPECTED, REQUEST
from pyserve import export

_DTYPES = {torch.float32: "FP32", torch.int64: "INT64"}
# One for the request and one more, so that the export sees that rows can be batched.
_ROWS = 2
_TOKENS = 32
_VOCABULARY = 8192


def rows_of(name: str) -> dict[str, torch.Tensor]:
    """Return a few rows; the first is what everybody is asked for."""
    generator = torch.Generator().manual_seed(1)
    if name == "encoder":
        ids = torch.randint(1, _VOCABULARY, (_ROWS, _TOKENS), generator=generator)
        return {"token_ids": ids, "mask": torch.ones_like(ids)}
    input_name, shape = {
        "tiny": ("features", (16,)),
        "mlp": ("features", (256,)),
        "resnet18": ("image", (3, 64, 64)),
    }[name]
    return {input_name: torch.randn(_ROWS, *shape, generator=generator)}


def main() -> None:
    """Build, export, ask once, write."""
    name, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    built = importlib.import_module(f"models.{name}.build").build()
    rows = rows_of(name)
    path = folder / "repository" / name / "1" / "model.pt"
    export(
        built.module,
        path,
        inputs=rows,
        output_names=built.output_names,
        dynamic=built.dynamic,
        max_batch_size=built.max_batch_size,
        method="script",
    )
    request = {key: value[:1] for key, value in rows.items()}
    module = torch.jit.load(str(path)).eval()  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        answer = module(*request.values())
    described = {
        "name": name,
        "path": str(path),
        "inputs": [_described(key, value) for key, value in request.items()],
        "outputs": [_described(built.output_names[0], answer)],
        "max_batch_size": built.max_batch_size,
    }
    (folder / REQUEST).write_bytes(b"".join(one.numpy().tobytes() for one in request.values()))
    (folder / EXPECTED).write_bytes(answer.contiguous().numpy().tobytes())
    # Last: a case is whole where this file is.
    (folder / CASE).write_text(json.dumps(described, indent=1) + "\n")


def _described(name: str, tensor: torch.Tensor) -> dict[str, object]:
    return {"name": name, "dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape)}


if __name__ == "__main__":
    main()
