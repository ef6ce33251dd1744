"""pyserve: a high-throughput PyTorch model server with a C++ core.

    model = pyserve.load("model.pt", max_batch_size=32)
    y = model(x)                  # threads that call at once are batched together
    y = await model.infer(x)      # the same from asyncio

    client = pyserve.Client("http://127.0.0.1:8000")    # a server; also AsyncClient, and grpc://
    y = client.model("model")(x)  # the same from another process, which needs no torch

Everything is imported on first use, so that `import pyserve` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

from pyserve import errors

if TYPE_CHECKING:
    from pyserve.client import AsyncClient, Client, InferResult
    from pyserve.engine import Engine, load
    from pyserve.export import export
    from pyserve.model import Model
    from pyserve.signature import Signature, TensorSpec, read_signature

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "pyserve.client",
    "Client": "pyserve.client",
    "Engine": "pyserve.engine",
    "InferResult": "pyserve.client",
    "Model": "pyserve.model",
    "Signature": "pyserve.signature",
    "TensorSpec": "pyserve.signature",
    "export": "pyserve.export",
    "load": "pyserve.engine",
    "read_signature": "pyserve.signature",
}

__all__ = [
    "AsyncClient",
    "Client",
    "Engine",
    "InferResult",
    "Model",
    "Signature",
    "TensorSpec",
    "errors",
    "export",
    "load",
    "read_signature",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pyserve' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value  # also where the module of the same name stood
    return value
