"""A bare Python process with a module loaded and run, for its memory to be looked at.

`python -m benchmarks.bare_process FILE`: what anyone would write without a model server.
"""

import json
import sys
import time

import torch

from pyserve.bench.bare import to_torch
from pyserve.bench.bodies import inputs_for
from pyserve.signature import read_signature

_CALLS = 50


def main() -> None:
    """Load, run, and stay until told to go."""
    path = sys.argv[1]
    signature = read_signature(path)
    assert signature is not None
    inputs = [to_torch(one) for one in inputs_for(signature)]
    module = torch.jit.load(path)  # type: ignore[no-untyped-call]
    module.eval()
    with torch.inference_mode():
        for _ in range(_CALLS):
            module(*inputs)
    print(json.dumps({"ready": True}), flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
