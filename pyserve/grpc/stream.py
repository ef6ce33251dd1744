"""ModelStreamInfer: many requests and their answers in one call.

The requests of a stream run concurrently, and their answers keep the order of the requests. One
that fails is answered with a message that says why; the stream goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import grpc

from pyserve.errors import INTERNAL, PyserveError
from pyserve.grpc import inference
from pyserve.grpc.calls import Context
from pyserve.grpc.drain import Drain
from pyserve.grpc.express import ExpressLane
from pyserve.service import Service
from pyserve.wire.oip_proto import (
    encode_stream_error,
    encode_stream_response,
    request_id,
    wants_final,
)
from pyserve.wire.proto_bytes import split

MAX_IN_FLIGHT = 64
"""Requests of one stream that are not answered yet; no more are read before one is."""

_logger = logging.getLogger(__name__)


class StreamApi:
    """The streaming method of `inference.GRPCInferenceService`; `lane` is as for `OipApi`."""

    def __init__(self, service: Service, drain: Drain, lane: ExpressLane | None = None) -> None:
        self._service = service
        self._drain = drain
        self._lane = lane

    async def infer(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Answer until the client has sent its last request, or the server shuts down."""
        answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        room = asyncio.Semaphore(MAX_IN_FLIGHT)
        deadline_ns = inference.deadline_of(context)

        async def read() -> None:
            try:
                while True:
                    await room.acquire()
                    data = await context.read()
                    if data is grpc.aio.EOF:
                        break
                    answers.put_nowait(asyncio.create_task(self._answer(data, deadline_ns)))
            finally:
                answers.put_nowait(None)

        reader = asyncio.create_task(read())
        answer = None
        try:
            with self._drain.ends(reader):
                while (answer := await answers.get()) is not None:
                    await context.write(await answer)
                    room.release()
                if self._drain.begun:
                    raise self._drain.refusal()
        finally:
            # The client has left: nobody waits for what still runs.
            reader.cancel()
            if answer is not None:
                answer.cancel()
            while not answers.empty():
                waiting = answers.get_nowait()
                if waiting is not None:
                    waiting.cancel()

    async def _answer(self, data: bytes, deadline_ns: int) -> bytes:
        """Return a serialized ModelStreamInferResponse, whatever happens."""
        try:
            answer = None if self._lane is None else self._lane.begin(data, deadline_ns)
            if answer is not None and not isinstance(answer, tuple):
                answer = await answer
            if answer is None:
                final = wants_final(split(data))
                answer = await inference.run(
                    self._service, data, deadline_ns=deadline_ns, final=final
                )
            return encode_stream_response(answer[0])
        except PyserveError as error:
            return _failure(data, error)
        except Exception:
            _logger.exception("a request of a stream failed")
            return _failure(data, PyserveError(INTERNAL))


def _failure(data: bytes, error: PyserveError) -> bytes:
    """Return what says that the request in `data` was not answered, and why."""
    parts = split(data)
    final = wants_final(parts)
    return encode_stream_error(error.message, request_id(parts), error.grpc_code, final=final)
