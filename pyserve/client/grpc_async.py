"""gRPC for asyncio: one channel, which belongs to the event loop of its first call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import grpc.aio

from pyserve.client.grpc_dialect import GrpcCall, GrpcReply, read_trailers
from pyserve.client.grpc_sync import (
    call_options,
    channel_options,
    credentials,
    failure,
    wait_of,
)
from pyserve.client.options import Options


class GrpcAsync:
    """A transport; its channel is made by the first call, in the loop that runs then."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.url = options.address.url
        self.call_options = call_options(options)
        self._channel: Any = None
        self._method: Callable[[str], Any] | None = None

    async def send(self, call: GrpcCall, timeout_s: float) -> GrpcReply:
        """Return the answer."""
        method = self._method or self._open()
        running = method(call.path)(call.message, timeout=wait_of(timeout_s), **self.call_options)
        try:
            answer = await running
            trailers = await running.trailing_metadata()
        except grpc.RpcError as error:
            raise failure(self.url, error, timeout_s) from None
        return GrpcReply(answer, read_trailers(trailers))

    def stream(self, path: str) -> Any:
        """Begin a call that streams both ways."""
        if self._method is None:
            self._open()
        return self._channel.stream_stream(path)(**self.call_options)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = self._method = None

    def _open(self) -> Callable[[str], Any]:
        address = self._options.address
        arguments = channel_options(self._options)
        self._channel = (
            grpc.aio.secure_channel(address.authority, credentials(self._options), arguments)
            if address.secure
            else grpc.aio.insecure_channel(address.authority, arguments)
        )
        self._method = functools.lru_cache(maxsize=64)(self._channel.unary_unary)
        return self._method
