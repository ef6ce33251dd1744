"""The express lane of gRPC: a plain ModelInferRequest goes to the core as the bytes that it is.

The core reads, checks and submits it, and writes the answer.  There is one behaviour and two
speeds: whatever the core does not plainly accept (`None`) is for `inference.run`, which takes the
same bytes, and an error that is met on the way is the one that it would raise.  The rules of what
is plain are in `csrc/wire/oip_proto.h` and `csrc/python/lane.h`.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from pyserve._native import core
from pyserve.errors import ModelFailed, PyserveError
from pyserve.service import Service, blame
from pyserve.wire.oip_proto import request_id
from pyserve.wire.proto_bytes import split

if TYPE_CHECKING:
    from pyserve.live import LiveVersion

Answer = tuple[bytes, bytes]
"""A serialized ModelInferResponse and its timing, as `inference.Answered`."""


class ExpressLane:
    """Shared by all calls of one server; on its event loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._core = core().GrpcLane()

    def begin(self, data: bytes, deadline_ns: int) -> Answer | Awaitable[Answer] | None:
        """Begin the request in `data`; raises as `Service.infer` does.

        The answer if it is given at once; else what to await for it, and at once, for it holds a
        lease; or None, if the plain lane must see to it.
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
        try:
            answer = live.model.submit_grpc(self._core, data, deadline_ns)
        except BaseException as error:
            live.release()
            raise _blamed(error, live, data) from None
        if answer is not None and not isinstance(answer, tuple):
            return _settled(answer, live, data)
        live.release()
        return answer


async def _settled(answer: Awaitable[Answer], live: LiveVersion, data: bytes) -> Answer:
    try:
        return await answer
    except ModelFailed as error:
        raise _blamed(error, live, data) from None
    finally:
        live.release()


def _blamed(error: BaseException, live: LiveVersion, data: bytes) -> BaseException:
    if isinstance(error, ModelFailed):
        return blame(live.model.name, live.model.version, request_id(split(data)), error)
    return error
