"""Writes one case: pyserve's own export of a zoo model, one request, the bare module's answer.

`python -m benchmarks.peers.prepare NAME FOLDER`, in a process of its own since it imports torch.
"""

import json
import sys
from pathlib import Path

import torch

from benchmarks.peers.case import CASE, EXPECTED, REQUEST
from models import build

_DTYPES = {torch.float32: "FP32", torch.int64: "INT64"}
_TOKENS = 32
_VOCABULARY = 8192


def request_of(name: str) -> dict[str, torch.Tensor]:
    """Return the row that everybody is asked for."""
    generator = torch.Generator().manual_seed(1)
    if name == "encoder":
        ids = torch.randint(1, _VOCABULARY, (1, _TOKENS), generator=generator)
        return {"token_ids": ids, "mask": torch.ones(1, _TOKENS, dtype=torch.int64)}
    input_name, shape = {
        "tiny": ("features", (1, 16)),
        "mlp": ("features", (1, 256)),
        "resnet18": ("image", (1, 3, 64, 64)),
    }[name]
    return {input_name: torch.randn(*shape, generator=generator)}


def main() -> None:
    """Build, export, ask once, write."""
    name, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    path = build(name, folder / "repository")
    inputs = request_of(name)
    module = torch.jit.load(str(path)).eval()  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        answer = module(*inputs.values())
    output_name = {"encoder": "embedding"}.get(name, "logits")
    described = {
        "name": name,
        "path": str(path),
        "inputs": [_described(key, value) for key, value in inputs.items()],
        "outputs": [_described(output_name, answer)],
    }
    (folder / REQUEST).write_bytes(b"".join(one.numpy().tobytes() for one in inputs.values()))
    (folder / EXPECTED).write_bytes(answer.contiguous().numpy().tobytes())
    # Last: a case is whole where this file is.
    (folder / CASE).write_text(json.dumps(described, indent=1) + "\n")


def _described(name: str, tensor: torch.Tensor) -> dict[str, object]:
    return {"name": name, "dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape)}


if __name__ == "__main__":
    main()
