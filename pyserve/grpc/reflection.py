"""Server reflection: a client such as grpcurl asks what services there are, and needs no .proto."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from pyserve import protos
from pyserve.errors import InvalidInput
from pyserve.grpc.calls import Context, Handlers
from pyserve.grpc.drain import Drain

SERVICE: str = reflection.SERVICE_NAME


def register() -> None:
    """Add the messages of the reflection protocol to the pool."""
    protos.add(reflection_pb2.DESCRIPTOR.serialized_pb)


class ReflectionApi:
    """ServerReflectionInfo, for the services named."""

    def __init__(self, drain: Drain, services: Iterable[str]) -> None:
        self._drain = drain
        self._reflection = reflection.aio.ReflectionServicer(services, pool=protos.pool())

    @property
    def handlers(self) -> Handlers:
        """What `calls.generic_handler` takes."""
        return Handlers(SERVICE, streams={"ServerReflectionInfo": self.info})

    async def info(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Answer one question after the other, until the client has no more."""

        async def answer() -> None:
            async for message in self._reflection.ServerReflectionInfo(_parsed(context), context):
                await context.write(message.SerializeToString())

        answering = asyncio.create_task(answer())
        try:
            with self._drain.ends(answering):
                await answering
        except asyncio.CancelledError:
            answering.cancel()
            if self._drain.begun:
                raise self._drain.refusal() from None
            raise


async def _parsed(context: Context) -> AsyncIterator[Any]:
    while (data := await context.read()) is not grpc.aio.EOF:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(data)
        except DecodeError:
            raise InvalidInput("the message is not a valid ServerReflectionRequest") from None
