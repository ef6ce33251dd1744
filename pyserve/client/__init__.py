"""The Python SDK: `Client` and `AsyncClient`, over HTTP or gRPC as the address says.

What a call means is said once, in `steps.py`; how it is put on the wire and read back in
`http_dialect.py` and `grpc_dialect.py`; who sends it in the four transports. Nothing here needs
torch, and numpy, aiohttp, urllib3 and grpc are imported when they are first used.
"""

from pyserve.client.aio import AsyncClient, AsyncModelHandle
from pyserve.client.metadata import (
    DurationStatistics,
    IndexEntry,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    TensorMetadata,
)
from pyserve.client.results import ClassScore, InferResult, ServerTiming
from pyserve.client.retries import NoAnswer
from pyserve.client.sync import Client, ModelHandle

__all__ = [
    "AsyncClient",
    "AsyncModelHandle",
    "ClassScore",
    "Client",
    "DurationStatistics",
    "IndexEntry",
    "InferResult",
    "ModelHandle",
    "ModelMetadata",
    "ModelStatistics",
    "NoAnswer",
    "ServerMetadata",
    "ServerTiming",
    "TensorMetadata",
]
