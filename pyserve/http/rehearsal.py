"""Runs requests through the whole HTTP path before the first client comes.

Python specialises its bytecode, the linker resolves symbols, caches fill and stragglers are
imported on the first few requests, which would make a client's first one several times slower than
the rest.  So a server's code is played once to an empty house: the same handlers around a stand-in
model, on a socket pair that no client and no metric sees.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import msgspec

from pyserve._native import core
from pyserve.http.app import App
from pyserve.http.connection import HttpServer
from pyserve.http.express import ExpressLane
from pyserve.http.oip import OipApi
from pyserve.http.routing import Router
from pyserve.messages import Completed, InputTensor, OutputTensor, Timing
from pyserve.registry import Registry
from pyserve.service import Service

if TYPE_CHECKING:
    from pyserve import _C
    from pyserve.model import Model

_ROUNDS = 40

_INPUT = InputTensor("x", "FP32", (1, 2), bytes(8))


class _Understudy:
    """Stands in for a model, and for the registry's lease of it.

    Light models answer a lone request on the event loop's own thread, so theirs must be warm too:
    `light` is the one that runs the requests of the express lane.
    """

    name = "understudy"
    version = "1"
    processor = None

    def __init__(self, light: "Model | None") -> None:
        self._light = light

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

    def get(self, name: str, version: str | None = None) -> Self:
        """As `Registry.get`."""
        return self

    def watch(self, changed: Callable[[], None]) -> None:
        """As `Registry.watch`."""

    @property
    def express_version(self) -> "_C.ModelVersion | None":
        """As `Model.express_version`."""
        return None if self._light is None else self._light.express_version

    async def infer_tensors(
        self,
        inputs: Sequence[InputTensor],
        *,
        deadline_ns: int = 0,
        priority: int = 0,
        outputs: Sequence[str] | None = None,
    ) -> Completed:
        """Answer with the inputs; as `Model.infer_tensors`."""
        await asyncio.sleep(0)  # a real model answers in a later turn of the loop
        echoes = [
            OutputTensor(one.name, one.datatype, one.shape, bytes(one.data)) for one in inputs
        ]
        return Completed(echoes, Timing(0, 1, 0, 0, 0))


async def rehearse(models: Iterable["Model"], *, express: bool) -> None:
    """Answer a few dozen requests of the usual kinds; takes some ten milliseconds."""
    light = next((one for one in models if one.light and one.example), None)
    router = Router()
    app = App(router)
    service = Service(cast(Registry, _Understudy(light)))
    oip = OipApi(service, version="", max_body_bytes=1 << 20)
    oip.add_routes(router)
    lane = ExpressLane(
        app, service, router, infer=oip.infer, max_body_bytes=1 << 20, rehearsal=True
    )
    http = HttpServer(app, lane if express else None)
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(http, ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    requests = _requests([_INPUT])
    if light is not None and express:
        requests += _requests(light.example)
    try:
        for _ in range(_ROUNDS):
            for request in requests:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_content_length(head))
    finally:
        writer.close()
        transport.close()
        await http.shutdown(1.0)


def _requests(inputs: Sequence[InputTensor]) -> list[bytes]:
    """Return a request with these inputs as binary data, and one in JSON where they are numbers."""
    described: list[dict[str, object]] = [
        {"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in inputs
    ]
    sized = [
        {**what, "parameters": {"binary_data_size": len(one.data)}}
        for what, one in zip(described, inputs, strict=True)
    ]
    header = msgspec.json.encode({"inputs": sized, "parameters": {"binary_data_output": True}})
    field = b"Inference-Header-Content-Length: %d\r\n" % len(header)
    requests = [_request(field, header + b"".join(bytes(one.data) for one in inputs))]
    if all(one.datatype != "BYTES" for one in inputs):
        texts = [core().format_json_numbers(one.datatype, one.data) for one in inputs]
        full = [
            {**what, "data": msgspec.Raw(text)} for what, text in zip(described, texts, strict=True)
        ]
        requests.append(_request(b"", msgspec.json.encode({"inputs": full})))
    return requests


def _request(fields: bytes, body: bytes) -> bytes:
    path = b"/v2/models/understudy/infer"
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (
        path,
        fields,
        len(body),
        body,
    )


def _content_length(head: bytes) -> int:
    _, _, rest = head.partition(b"Content-Length: ")
    return int(rest.partition(b"\r\n")[0])
