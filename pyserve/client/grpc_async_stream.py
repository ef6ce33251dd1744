"""The requests of a stream over gRPC: ModelStreamInfer, for asyncio; see `grpc_stream`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from pyserve.client.async_stream import look_at
from pyserve.client.exchange import Request
from pyserve.client.grpc_async import GrpcAsync
from pyserve.client.grpc_dialect import GrpcDialect, encode_infer
from pyserve.client.grpc_stream import STREAM_PATH, refused_for_good, unnumbered
from pyserve.client.grpc_sync import wait_of
from pyserve.client.results import InferResult
from pyserve.client.retries import Deadline, too_late
from pyserve.client.values import Inputs
from pyserve.protos import message


class GrpcAsyncStream:
    """Sends requests along one call, which begins with the first; a task reads the answers."""

    def __init__(
        self,
        transport: GrpcAsync,
        dialect: GrpcDialect,
        *,
        prepare: Callable[[Inputs], Awaitable[Request]],
        alone: Callable[[Request, Deadline], Awaitable[InferResult]],
        deadline: Callable[[], Deadline],
    ) -> None:
        self._transport = transport
        self._dialect = dialect
        self._prepare = prepare
        self._alone = alone
        self._deadline = deadline
        self._numbers = itertools.count(1)
        self._pending: dict[str, asyncio.Future[Any]] = {}
        self._waiting: set[asyncio.Future[InferResult]] = set()
        self._call: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._broken = False

    async def __call__(self, inputs: Inputs) -> asyncio.Future[InferResult]:
        """Send a request; what is returned is awaited for its result."""
        request = await self._prepare(inputs)
        deadline = self._deadline()
        left_s = deadline.remaining_s()
        if self._call is None:
            self._call = self._transport.stream(STREAM_PATH)
            self._reader = asyncio.create_task(self._read())
        number = str(next(self._numbers))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._broken:
            future.set_result(None)
        else:
            self._pending[number] = future
            told_s = deadline.told_s(left_s)
            try:
                await self._call.write(encode_infer(request._replace(id=number), told_s))
            except (grpc.RpcError, asyncio.InvalidStateError):
                self._break()
        waiting = asyncio.ensure_future(self._wait(future, request, deadline, left_s))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)
        waiting.add_done_callback(look_at)
        return waiting

    def close(self) -> None:
        """Give up what is under way, and the call."""
        for waiting in self._waiting:
            waiting.cancel()
        if self._reader is not None:
            self._reader.cancel()
            self._call.cancel()

    async def _wait(
        self,
        future: asyncio.Future[Any],
        request: Request,
        deadline: Deadline,
        timeout_s: float,
    ) -> InferResult:
        try:
            answer = await asyncio.wait_for(future, wait_of(deadline.remaining_s()))
        except TimeoutError:
            raise too_late(timeout_s) from None
        if answer is not None and answer.error_message:
            error = refused_for_good(answer)
            if error is not None:
                raise error
        if answer is None or answer.error_message:
            return await self._alone(request, deadline)
        return unnumbered(self._dialect, answer)

    async def _read(self) -> None:
        try:
            while (data := await self._call.read()) is not grpc.aio.EOF:
                answer = message("inference.ModelStreamInferResponse").FromString(data)
                future = self._pending.pop(answer.infer_response.id, None)
                if future is not None and not future.done():
                    future.set_result(answer)
        except grpc.RpcError:
            pass  # whoever waits asks again alone, and hears there what is wrong
        finally:
            self._break()

    def _break(self) -> None:
        """Let whoever waits know that the stream answers no more."""
        self._broken = True
        for future in self._pending.values():
            if not future.done():
                future.set_result(None)
        self._pending.clear()
