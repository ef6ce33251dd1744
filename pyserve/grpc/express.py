"""The express lane of gRPC: a plain ModelInferRequest goes to the core as the bytes that it is.

The core reads, checks and submits it, and writes the answer.  There is one behaviour and two
speeds: whatever the core does not plainly accept (`None`) is for `inference.run`, which takes the
same bytes, and an error that is met on the way is the one that it would raise.  The rules of what
is plain are in `csrc/wire/oip_proto.h` and `csrc/python/lane.h`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from pyserve._native import core
from pyserve.errors import ModelFailed, PyserveError
from pyserve.grpc.crowd import Crowd
from pyserve.model import settled
from pyserve.service import Service, blame
from pyserve.wire.oip_proto import request_id
from pyserve.wire.proto_bytes import split

if TYPE_CHECKING:
    from pyserve import _C
    from pyserve.live import LiveVersion

Answer = tuple[bytes, bytes]
"""A serialized ModelInferResponse and its timing, as `inference.Answered`."""


class ExpressLane:
    """Shared by all calls of one server; on its event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._core = core().GrpcLane()
        self._crowd = Crowd(self._submit_all)

    def begin(self, data: bytes, deadline_ns: int) -> Answer | Awaitable[Answer | None] | None:
        """Begin the request in `data`; raises as `Service.infer` does.

        The answer if it is given at once; else what to await for it, and at once, for it holds a
        lease; or None, here or there, if the plain lane must see to it.
        """
        service = self._service
        if service.draining:
            return None
        target = self._core.read(data)
        if target is None:
            return None
        try:
            live = service.lease(*target)
        except PyserveError:
            return None
        call = _Call(live, data, deadline_ns)
        if live.model.light and self._crowd.gathers():
            return self._in_the_crowd(call)
        try:
            answer = call.submit(self._core)
        except BaseException as error:
            live.release()
            raise call.blamed(error) from None
        if answer is not None and not isinstance(answer, tuple):
            return call.answer(answer)
        live.release()
        return answer

    async def _in_the_crowd(self, call: _Call) -> Answer | None:
        turn: asyncio.Future[Answer | _C.Request | None]
        turn = call.turn = asyncio.get_running_loop().create_future()
        self._crowd.add(call)
        try:
            answer = await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # Cancelled, a moment after its turn had come.
                call.cancel(turn.result())
            call.live.release()
            raise call.blamed(error) from None
        if answer is not None and not isinstance(answer, tuple):
            return await call.answer(answer)
        call.live.release()
        return answer

    def _submit_all(self, calls: list[_Call]) -> None:
        for call in calls:
            turn = call.turn
            if turn is None or turn.done():
                continue  # it was cancelled
            try:
                turn.set_result(call.submit(self._core))
            except Exception as error:
                turn.set_exception(error)


class _Call:
    """One request on its way, with a lease on its model."""

    __slots__ = ("data", "deadline_ns", "future", "live", "turn")

    def __init__(self, live: LiveVersion, data: bytes, deadline_ns: int) -> None:
        self.live = live
        self.data = data
        self.deadline_ns = deadline_ns
        self.future: asyncio.Future[Answer] | None = None  # of a request in the core
        self.turn: asyncio.Future[Answer | _C.Request | None] | None = None  # in the crowd

    def submit(self, lane: _C.GrpcLane) -> Answer | _C.Request | None:
        """Hand it to the core; on the event loop."""
        self.future = asyncio.get_running_loop().create_future()
        return self.live.model.submit_grpc(lane, self.data, self.deadline_ns, self.future)

    async def answer(self, request: _C.Request) -> Answer:
        """Wait for the answer to what `submit` gave, and end the lease."""
        assert self.future is not None
        try:
            return await settled(request, self.future)
        except ModelFailed as error:
            raise self.blamed(error) from None
        finally:
            self.live.release()

    def cancel(self, begun: Answer | _C.Request | None) -> None:
        """Take back what `submit` gave."""
        if begun is not None and not isinstance(begun, tuple):
            begun.cancel()

    def blamed(self, error: BaseException) -> BaseException:
        """Return what a caller is told for `error`."""
        if isinstance(error, ModelFailed):
            model = self.live.model
            return blame(model.name, model.version, request_id(split(self.data)), error)
        return error
