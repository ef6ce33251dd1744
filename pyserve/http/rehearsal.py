"""Runs requests through the whole HTTP path before the first client comes.

Python specialises its bytecode, fills caches and imports stragglers on the first few requests,
which would make a client's first one several times slower than the rest.  So a server's code is
played once to an empty house: the same handlers around a stand-in model, on a socket pair that no
client and no metric sees.
"""

import asyncio
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self, cast

from pyserve.http.app import App
from pyserve.http.connection import HttpServer
from pyserve.http.oip import OipApi
from pyserve.http.routing import Router
from pyserve.messages import Completed, InputTensor, OutputTensor, Timing
from pyserve.registry import Registry
from pyserve.service import Service

_ROUNDS = 40

_JSON = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1.5,2.5]}]}'
_HEADER = (
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}],'
    b'"outputs":[{"name":"x","parameters":{"binary_data":true}}]}'
)


class _Understudy:
    """Stands in for a model, and for the registry's lease of it."""

    name = "understudy"
    version = "1"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing is held."""

    def lease(self, name: str, version: str | None = None) -> Self:
        """As `Registry.lease`."""
        return self

    async def infer_tensors(
        self,
        inputs: Sequence[InputTensor],
        *,
        deadline_ns: int = 0,
        outputs: Sequence[str] | None = None,
    ) -> Completed:
        """Answer with the inputs; as `Model.infer_tensors`."""
        await asyncio.sleep(0)  # a real model answers in a later turn of the loop
        echoes = [
            OutputTensor(one.name, one.datatype, one.shape, bytes(one.data)) for one in inputs
        ]
        return Completed(echoes, Timing(0, 1, 0, 0, 0))


async def rehearse() -> None:
    """Answer a few dozen requests of the usual kinds; takes some ten milliseconds."""
    router = Router()
    service = Service(cast(Registry, _Understudy()))
    OipApi(service, version="", max_body_bytes=1 << 20).add_routes(router)
    http = HttpServer(App(router))
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(http, ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        for _ in range(_ROUNDS):
            for request in (_request(b"", _JSON), _request(_binary_field(), _HEADER + bytes(8))):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_content_length(head))
    finally:
        writer.close()
        transport.close()
        await http.shutdown(1.0)


def _binary_field() -> bytes:
    return b"Inference-Header-Content-Length: %d\r\n" % len(_HEADER)


def _request(fields: bytes, body: bytes) -> bytes:
    return (
        b"POST /v2/models/understudy/infer HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s"
        % (
            fields,
            len(body),
            body,
        )
    )


def _content_length(head: bytes) -> int:
    _, _, rest = head.partition(b"Content-Length: ")
    return int(rest.partition(b"\r\n")[0])
